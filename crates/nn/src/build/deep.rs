//! Two deep networks for 32 x 32 colour images, without their final weights.

use super::chain::Chain;
use crate::rng::SplitMix;

/// VGG-16 (Simonyan and Zisserman 2015) for small images: 13 convolutions, dense layers of 512, 512 and 10.
pub(super) fn vgg16() -> Chain {
    let mut net = Chain::new(&[32, 32, 3]);
    for (channels, convolutions) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..convolutions {
            net = net.conv(channels, 3, 1, true).relu();
        }
        net = net.max_pool();
    }
    net.flatten().dense(512).relu().dense(512).relu().dense(10)
}

/// ResNet-18 (He et al. 2016) for small images: a 3 x 3 stem without pooling, eight basic blocks with batch
/// normalisation, global average.
pub(super) fn resnet18(seed: u64) -> Chain {
    let mut rng = SplitMix::new(seed ^ 0x7265_736e_6574);
    let mut net = Chain::new(&[32, 32, 3]).conv(64, 3, 1, true).norm(&mut rng, 1.0).relu();
    for (channels, first_stride) in [(64, 1), (128, 2), (256, 2), (512, 2)] {
        for stride in [first_stride, 1] {
            net = basic_block(net, channels, stride, &mut rng);
        }
    }
    let size = net.shape[0];
    net.average_pool(size).flatten().dense(10)
}

/// Two convolutions and a way around them, projected where the shape changes.
///
/// Both paths' last scales are below one, so that sums neither grow nor fade.
fn basic_block(net: Chain, channels: usize, stride: usize, rng: &mut SplitMix) -> Chain {
    let start = net.here();
    let projected = stride != 1 || net.shape[2] != channels;
    let net = net.conv(channels, 3, stride, true).norm(rng, 1.0).relu();
    let net = net.conv(channels, 3, 1, true).norm(rng, 0.5);
    if !projected {
        return net.add(&start).relu();
    }
    let main = net.here();
    net.from(start).conv(channels, 1, stride, true).norm(rng, 0.7).add(&main).relu()
}
