//! Handwritten-looking digits made by the program: a data set for those who have none at hand.
//!
//! Each digit has several ways of being written, as strokes through control points. A picture is one of them with
//! its points moved, bent by a smooth random field, slanted and turned, brought to MNIST's size and place (a box of
//! 20 pixels in 28, centred by mass) and drawn with a pen of varying width. Only additions, multiplications,
//! divisions and square roots are used, so that a seed gives the same pictures on every machine.

mod curve;
mod pen;
mod random;
mod templates;

use crate::{MAX_VALUES, Samples};
use random::Random;

/// Side of a picture in pixels.
const SIDE: usize = 28;
/// Number of classes.
const CLASSES: usize = 10;

/// Draws `count` digits, 28x28x1, values 0 to 255: whole numbers. Every ten in a row are the ten classes in random
/// order, and fewer digits of a seed are the first of more. There are at most [`MAX_VALUES`] in all: 342,392 digits.
pub fn generate(count: usize, seed: u64) -> Samples {
    let count = count.min(MAX_VALUES / (SIDE * SIDE));
    let mut data = Vec::with_capacity(count * SIDE * SIDE);
    let mut labels = Vec::with_capacity(count);
    for block in 0..count.div_ceil(CLASSES) {
        let mut random = Random::new(seed, block as u64);
        for class in random.permutation::<CLASSES>().into_iter().take(count - labels.len()) {
            data.extend(draw(class, &mut random));
            labels.push(class as u32);
        }
    }
    Samples { shape: vec![SIDE, SIDE, 1], data, labels: Some(labels) }
}

/// One picture of the digit `class`.
fn draw(class: usize, random: &mut Random) -> [f32; SIDE * SIDE] {
    let ways = templates::DIGITS[class];
    let strokes = curve::write(ways[random.below(ways.len())], random);
    let pen = pen::Pen::new(random);
    let strokes = curve::place(strokes, pen.width(), random);
    pen.draw(&strokes, random)
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{Split, load_dir, mnist};

    #[test]
    fn a_seed_gives_the_same_pictures_everywhere() {
        let s = generate(200, 7);
        let bytes: Vec<u8> = s.data.iter().map(|&x| x as u8).collect();
        assert!(s.data.iter().zip(&bytes).all(|(&x, &b)| x == f32::from(b)), "whole values 0 to 255");
        let hash: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hash, "527bd78f97d4a127d8ebd46065c8f8f98306e3080d567cfb71dd1b132e1753a3");
        assert_eq!(generate(57, 7), s.take(57), "fewer are the first of more");
        assert_ne!(generate(200, 8).data, s.data);
        assert!(generate(0, 1).is_empty());
    }

    #[test]
    fn classes_are_balanced_and_shuffled() {
        let labels = generate(1000, 3).labels.unwrap();
        for class in 0..10 {
            assert_eq!(labels.iter().filter(|&&l| l == class).count(), 100);
        }
        assert!(labels.chunks(10).any(|c| c != &labels[..10]));
    }

    #[test]
    fn digits_have_the_size_and_place_of_mnist() {
        let s = generate(500, 5);
        for i in 0..s.len() {
            let p = s.sample(i).unwrap();
            let ink = |x: usize, y: usize| p[y * SIDE + x] > 64.0;
            let rows: Vec<usize> = (0..SIDE).filter(|&y| (0..SIDE).any(|x| ink(x, y))).collect();
            let columns: Vec<usize> = (0..SIDE).filter(|&x| (0..SIDE).any(|y| ink(x, y))).collect();
            let extent = |l: &[usize]| l.last().unwrap() - l[0] + 1;
            let longest = extent(&rows).max(extent(&columns));
            assert!((16..=22).contains(&longest), "digit {i} is {longest} pixels long");
            let mass: f32 = p.iter().sum();
            let mean =
                |place: fn(usize) -> usize| p.iter().enumerate().map(|(j, v)| v * place(j) as f32).sum::<f32>() / mass;
            for m in [mean(|j| j % SIDE), mean(|j| j / SIDE)] {
                assert!((10.0..=17.0).contains(&m), "digit {i} is centred at {m}");
            }
            let filled = p.iter().filter(|&&v| v > 128.0).count();
            assert!((20..=300).contains(&filled), "digit {i} has {filled} pixels of ink");
        }
    }

    /// The share of `test` whose nearest neighbour among `references` has their label.
    fn accuracy(references: &[(Vec<f32>, u32)], test: &Samples) -> f64 {
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f32>();
        let right = test.labels.iter().flatten().enumerate().filter(|&(i, &label)| {
            let p = test.sample(i).unwrap();
            let nearest = references.iter().min_by(|a, b| distance(&a.0, p).total_cmp(&distance(&b.0, p)));
            nearest.unwrap().1 == label
        });
        right.count() as f64 / test.len() as f64
    }

    fn pairs(s: &Samples) -> Vec<(Vec<f32>, u32)> {
        s.labels.iter().flatten().enumerate().map(|(i, &l)| (s.sample(i).unwrap().to_vec(), l)).collect()
    }

    fn class_means(s: &Samples) -> Vec<(Vec<f32>, u32)> {
        let mean = |class: u32| {
            let members: Vec<_> = pairs(s).into_iter().filter(|(_, l)| *l == class).collect();
            let mut sum = vec![0.0; s.sample_len()];
            members.iter().for_each(|(p, _)| sum.iter_mut().zip(p).for_each(|(a, b)| *a += b / members.len() as f32));
            (sum, class)
        };
        (0..10).map(mean).collect()
    }

    #[test]
    fn the_task_can_be_learnt_but_is_not_trivial() {
        let (train, test) = (generate(2000, 1), generate(500, 2));
        let by_means = accuracy(&class_means(&train), &test);
        let by_neighbour = accuracy(&pairs(&train), &test);
        eprintln!("nearest class mean {by_means}, nearest neighbour {by_neighbour}");
        assert!((0.6..0.95).contains(&by_means), "nearest class mean: {by_means}");
        assert!(by_neighbour > 0.9, "nearest neighbour: {by_neighbour}");
    }

    #[test]
    fn real_digits_are_recognised_by_generated_ones() {
        let Some(dir) = mnist::shared() else { return };
        let test = load_dir(&dir, Split::Test).unwrap().take(500);
        let train = generate(3000, 1);
        let (by_means, by_neighbour) = (accuracy(&class_means(&train), &test), accuracy(&pairs(&train), &test));
        eprintln!("real digits: nearest class mean {by_means}, nearest neighbour {by_neighbour}");
        assert!(by_neighbour > 0.7, "nearest neighbour: {by_neighbour}");
    }
}
