//! Two deep networks for 32 x 32 colour images, without their final weights.

use super::{Sequential, average_pool, conv, dense, flatten, max_pool, rectified, relu};
use crate::graph::{Array, Layer};
use crate::rng::SplitMix;

/// VGG-16 (Simonyan and Zisserman 2015) for small images: 13 convolutions, dense layers of 512, 512 and 10.
pub(super) fn vgg16() -> Sequential {
    let mut net = Sequential::new(&[32, 32, 3]);
    for (channels, convolutions) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..convolutions {
            net = net.add(rectified(conv(channels, 3).same()));
        }
        net = net.add(max_pool(2));
    }
    net.add(flatten()).add(rectified(dense(512))).add(rectified(dense(512))).add(dense(10))
}

/// ResNet-18 (He et al. 2016) for small images: a 3 x 3 stem without pooling, eight basic blocks with batch
/// normalisation, global average.
pub(super) fn resnet18(seed: u64) -> Sequential {
    let mut rng = SplitMix::new(seed ^ 0x7265_736e_6574);
    let stem = Sequential::new(&[32, 32, 3]).add(conv(64, 3).same());
    let mut net = norm(stem, &mut rng, 1.0).add(relu());
    for (channels, first_stride) in [(64, 1), (128, 2), (256, 2), (512, 2)] {
        for stride in [first_stride, 1] {
            net = basic_block(net, channels, stride, &mut rng);
        }
    }
    let size = net.shape().first().copied().unwrap_or_default();
    net.add(average_pool(size)).add(flatten()).add(dense(10))
}

/// Two convolutions and a way around them, projected where the shape changes.
///
/// Both paths' last scales are below one, so that sums neither grow nor fade.
fn basic_block(net: Sequential, channels: usize, stride: usize, rng: &mut SplitMix) -> Sequential {
    let start = net.here();
    let projected = stride != 1 || net.shape().last() != Some(&channels);
    let net = norm(net.add(conv(channels, 3).stride(stride).same()), rng, 1.0).add(relu());
    let net = norm(net.add(conv(channels, 3).same()), rng, 0.5);
    if !projected {
        return net.plus(start).add(relu());
    }
    let main = net.here();
    norm(net.from(start).add(conv(channels, 1).stride(stride).same()), rng, 0.7).plus(main).add(relu())
}

/// A batch normalisation at inference, its scales about `scale`.
fn norm(net: Sequential, rng: &mut SplitMix, scale: f64) -> Sequential {
    net.layer("batch_norm", |shape| {
        let channels = shape.last().copied().unwrap_or_default();
        let mut near = |middle: f64, radius: f64| Array {
            shape: vec![channels],
            data: (0..channels).map(|_| rng.uniform(middle - radius, middle + radius) as f32).collect(),
        };
        Layer::ChannelAffine { scale: near(scale, scale / 4.0), shift: near(0.0, 0.05) }
    })
}
