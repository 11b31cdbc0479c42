//! From a template to the pen's path: points moved, curves drawn through them, bent, slanted, turned, placed.

use super::SIDE;
use super::random::Random;
use super::templates::{Point, Template};

/// Steps of the path from one control point to the next.
const STEPS: usize = 6;
/// Nodes along each side of the grid that bends.
const GRID: usize = 4;
/// Side in pixels of the box that holds a digit, as in MNIST.
const BOX: f32 = 20.0;

/// The paths of a template's strokes, distorted at random; of no particular size or place.
pub(super) fn write(template: Template, random: &mut Random) -> Vec<Vec<Point>> {
    let mut bend = [[(0.0, 0.0); GRID]; GRID];
    bend.iter_mut().flatten().for_each(|node| *node = (0.062 * random.normal(), 0.062 * random.normal()));
    let width = random.between(0.55, 1.0);
    let slant = 0.1 + 0.22 * random.normal();
    // The tangent of half the angle: sine and cosine without a library's.
    let t = 0.06 * random.normal();
    let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
    let distort = |p: Point| {
        let (dx, dy) = bent(&bend, p);
        let (x, y) = ((p.0 + dx - 0.5) * width, p.1 + dy - 0.5);
        let x = x - slant * y;
        (cos * x - sin * y, sin * x + cos * y)
    };
    let mut paths = Vec::with_capacity(template.len());
    for stroke in template {
        let moved: Vec<Point> =
            stroke.iter().map(|&(x, y)| (x + 0.02 * random.normal(), y + 0.02 * random.normal())).collect();
        paths.push(smooth(&moved).into_iter().map(distort).collect());
    }
    paths
}

/// A Catmull-Rom spline through the points.
fn smooth(points: &[Point]) -> Vec<Point> {
    let at = |i: usize| points[i.min(points.len() - 1)];
    let mut path = vec![at(0)];
    for i in 0..points.len() - 1 {
        let (a, b, c, d) = (at(i.saturating_sub(1)), at(i), at(i + 1), at(i + 2));
        for step in 1..=STEPS {
            let t = step as f32 / STEPS as f32;
            let blend = |a: f32, b: f32, c: f32, d: f32| {
                b + 0.5 * t * ((c - a) + t * ((2.0 * a - 5.0 * b + 4.0 * c - d) + t * (3.0 * (b - c) + d - a)))
            };
            path.push((blend(a.0, b.0, c.0, d.0), blend(a.1, b.1, c.1, d.1)));
        }
    }
    path
}

/// The smooth field between the grid's nodes at `p`; the grid covers the unit square.
fn bent(grid: &[[Point; GRID]; GRID], p: Point) -> Point {
    let cell = |v: f32| {
        let scaled = v.clamp(0.0, 1.0) * (GRID - 1) as f32;
        let i = (scaled as usize).min(GRID - 2);
        let f = scaled - i as f32;
        (i, f * f * (3.0 - 2.0 * f))
    };
    let ((i, u), (j, v)) = (cell(p.0), cell(p.1));
    let mix = |part: fn(Point) -> f32| {
        let row = |j: usize| part(grid[j][i]) * (1.0 - u) + part(grid[j][i + 1]) * u;
        row(j) * (1.0 - v) + row(j + 1) * v
    };
    (mix(|p| p.0), mix(|p| p.1))
}

/// Scales the paths to MNIST's box, a pen of `width` pixels included, and centres them by mass, nearly.
pub(super) fn place(mut paths: Vec<Vec<Point>>, width: f32, random: &mut Random) -> Vec<Vec<Point>> {
    let points = || paths.iter().flatten();
    let span = |part: fn(&Point) -> f32| {
        let (low, high) = points().map(part).fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(v), high.max(v)));
        (low, high)
    };
    let (x, y) = (span(|p| p.0), span(|p| p.1));
    let longest = (x.1 - x.0).max(y.1 - y.0).max(0.1);
    let scale = (BOX * random.between(0.95, 1.02) - width) / longest;
    let centre = centre_of_mass(&paths);
    let shifted = |(low, high): (f32, f32), mass: f32, shift: f32| {
        // The offset that puts the mass in the middle, held back where ink would leave the picture.
        let edge = width / 2.0;
        let (least, most) = (edge - low * scale, SIDE as f32 - edge - high * scale);
        (SIDE as f32 / 2.0 + shift - mass * scale).clamp(least, most)
    };
    let dx = shifted(x, centre.0, 0.6 * random.normal());
    let dy = shifted(y, centre.1, 0.6 * random.normal());
    paths.iter_mut().flatten().for_each(|p| *p = (p.0 * scale + dx, p.1 * scale + dy));
    paths
}

/// The mean place along the paths.
fn centre_of_mass(paths: &[Vec<Point>]) -> Point {
    let (mut x, mut y, mut total) = (0.0, 0.0, 1e-6);
    for w in paths.iter().flat_map(|p| p.windows(2)) {
        let (a, b) = (w[0], w[1]);
        let length = ((b.0 - a.0) * (b.0 - a.0) + (b.1 - a.1) * (b.1 - a.1)).sqrt();
        x += length * (a.0 + b.0) / 2.0;
        y += length * (a.1 + b.1) / 2.0;
        total += length;
    }
    (x / total, y / total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spline_goes_through_its_points() {
        let points = [(0.0, 0.0), (1.0, 0.5), (0.5, 1.0)];
        let path = smooth(&points);
        assert_eq!(path.len(), 2 * STEPS + 1);
        for (i, p) in points.iter().enumerate() {
            let q = path[i * STEPS];
            assert!((p.0 - q.0).abs() < 1e-6 && (p.1 - q.1).abs() < 1e-6);
        }
    }

    #[test]
    fn the_field_is_the_grid_at_its_nodes() {
        let mut grid = [[(0.0, 0.0); GRID]; GRID];
        grid[1][2] = (0.3, -0.2);
        let at = bent(&grid, (2.0 / 3.0, 1.0 / 3.0));
        assert!((at.0 - 0.3).abs() < 1e-5 && (at.1 + 0.2).abs() < 1e-5, "{at:?}");
        assert_eq!(bent(&grid, (-4.0, 9.0)), (0.0, 0.0));
    }

    #[test]
    fn placed_paths_stay_in_the_picture() {
        let mut random = Random::new(1, 1);
        for _ in 0..200 {
            let corner = vec![vec![(0.0, 0.0), (0.0, 1.0), (0.01, 1.0), (1.0, 1.0)]];
            for p in place(corner, 3.0, &mut random).iter().flatten() {
                assert!((1.49..=26.51).contains(&p.0) && (1.49..=26.51).contains(&p.1), "{p:?}");
            }
        }
    }
}
