//! Networks built layer by layer: shapes, names, branches, and what is wrong told in one line.
#![allow(clippy::unwrap_used)]

use trefoil_nn::build::{
    Activation, LayerSpec, Sequential, average_pool, batch_norm, batch_norm_with, clipped_relu, conv, dense,
    depthwise_conv, dropout, flatten, global_average_pool, leaky_relu, max_pool, relu, reshape,
};
use trefoil_nn::graph::{Layer, Post};

#[test]
fn shapes_and_names_follow_from_the_layers() {
    let net = || {
        Sequential::new(&[28, 28, 1])
            .add(conv(4, 5).stride((2, 1)).same().activation(Activation::Tanh))
            .add(depthwise_conv(3).without_bias())
            .add(batch_norm())
            .add(relu())
            .add(average_pool((2, 3)).stride(1).same())
            .add(max_pool(2))
            .add(dropout(0.25))
            .add(reshape(&[13 * 6, 4]))
            .add(flatten())
            .add(dense(10).activation(Activation::Relu))
            .add(dense(3).named("classes").activation(Activation::Softmax))
    };
    let graph = net().build(1).unwrap();
    let names: Vec<&str> = graph.nodes.iter().map(|n| n.name.as_str()).collect();
    let wanted = "input conv tanh depthwise_conv batch_norm relu average_pool max_pool dropout reshape flatten dense \
                  relu-2 classes";
    assert_eq!(names.join(" "), wanted);
    let shapes = graph.shapes().unwrap();
    assert_eq!(shapes[2], [14, 28, 4]);
    assert_eq!(shapes[3], [12, 26, 4]);
    assert_eq!(shapes[6], [12, 26, 4]);
    assert_eq!((shapes[7].clone(), shapes.last().unwrap().clone()), (vec![6, 13, 4], vec![3]));
    assert_eq!(graph.post, Post::Softmax);
    assert!(matches!(&graph.nodes[3].layer, Layer::Conv2d { geometry, bias: None, .. } if geometry.groups == 4));
    assert_eq!(graph, net().build(1).unwrap(), "a seed gives the same weights");
    assert_ne!(graph, net().build(2).unwrap());
}

#[test]
fn a_path_around_others_is_added() {
    let net = Sequential::new(&[6, 6, 2]).add(conv(4, 3).same().activation(Activation::Relu));
    let start = net.here();
    let net = net.add(conv(4, 3).same()).plus(start).add(relu()).add(global_average_pool()).add(dense(2));
    let graph = net.build(3).unwrap();
    let add = graph.nodes.iter().position(|n| n.layer == Layer::Add).unwrap();
    assert_eq!(graph.nodes[add].inputs, [3, 2]);
    assert_eq!(graph.shapes().unwrap()[7], [4]);
    let x: Vec<f32> = (0..72).map(|i| (i % 7) as f32 / 7.0).collect();
    assert_eq!(graph.forward(1, &x).unwrap().len(), 2);
}

#[test]
fn mistakes_are_told_by_the_layer_that_made_them() {
    let image = &[8, 8, 3][..];
    let vector = &[8][..];
    let cases: Vec<(&[usize], LayerSpec, &str)> = vec![
        (image, dense(10), "layer dense: dense takes a vector, not [8, 8, 3]: flatten first"),
        (vector, dense(0), "layer dense: 0 units: at least one is due"),
        (vector, dense(1 << 40), "layer dense: weights of shape [8, 1099511627776]: at most"),
        (vector, dense(usize::MAX), "layer dense: weights of shape"),
        (image, conv(0, 3), "layer conv: 0 filters: at least one is due"),
        (vector, conv(4, 3), "layer conv: conv takes an image (height, width, channels), not [8]"),
        (image, conv(4, 0), "layer conv: a kernel of 0 x 0"),
        (image, conv(4, 9), "layer conv: "),
        (image, conv(4, 3).stride(0), "layer conv: a stride of 0 x 0"),
        (image, max_pool(0).named("p"), "layer p: a window of 0 x 0: each side is 1 to 4096"),
        (image, max_pool((9, 1)), "layer max_pool: "),
        (image, flatten().same(), "layer flatten: it has no windows: neither stride nor padding"),
        (image, max_pool(2).without_bias(), "layer max_pool: it has no bias to leave out"),
        (image, dropout(1.0), "layer dropout: rate 1: must be 0 to below 1"),
        (image, dropout(f32::NAN), "layer dropout: rate NaN"),
        (image, batch_norm_with(-1.0, 0.9), "layer batch_norm: epsilon -1 or momentum 0.9"),
        (image, batch_norm_with(0.1, f32::NAN), "layer batch_norm: epsilon 0.1 or momentum NaN"),
        (image, leaky_relu(f32::INFINITY), "layer leaky_relu: a slope of inf"),
        (image, clipped_relu(0.0), "layer clipped_relu: a ceiling of 0"),
        (image, reshape(&[5]), "layer reshape: shape [8, 8, 3] cannot become [5]"),
        (image, reshape(&[usize::MAX, 2]), "layer reshape: "),
        (image, relu().named("a/b"), "layer a/b: a name has 1 to 100 bytes and no \"/\""),
        (image, relu().named(""), "a name has 1 to 100 bytes"),
        (image, relu().named("input"), "layer input: another layer has this name"),
        (&[], relu(), "layer input: "),
        (&[0, 4, 1], relu(), "layer input: output of shape [0, 4, 1]"),
        (&[usize::MAX, 2], relu(), "layer input: "),
    ];
    for (shape, layer, said) in cases {
        let e = Sequential::new(shape).add(layer).add(relu()).build(1).unwrap_err().to_string();
        assert!(e.contains(said) && e.lines().count() == 1, "{said:?} is not in {e:?}");
    }
    let late = Sequential::new(vector).add(dense(2).activation(Activation::Softmax)).add(relu()).build(1).unwrap_err();
    assert_eq!(late.to_string(), "layer relu: comes after a softmax, which can only be last");
    let wide = Sequential::new(vector).add(dense(2)).here();
    let lost = Sequential::new(vector).plus(wide).build(1).unwrap_err();
    assert_eq!(lost.to_string(), "there is no place 1 in this network");
    let unlike = Sequential::new(vector).add(dense(2));
    let start = Sequential::new(vector).here();
    assert!(unlike.plus(start).build(1).unwrap_err().to_string().starts_with("layer add: needs two or more inputs"));
}

#[test]
fn weights_are_bounded_in_all() {
    let mut net = Sequential::new(&[8192]);
    for _ in 0..3 {
        net.push(dense(8192)).unwrap();
    }
    let said = net.push(dense(8192)).unwrap_err().to_string();
    assert!(said.starts_with("layer dense-4: weights of shape [8192, 8192]: at most 67084288 more"), "{said}");
    net.push(dense(8)).unwrap();
}
