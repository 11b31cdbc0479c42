//! The pen: ink along a path, its width and darkness varying, edges smoothed.

use super::SIDE;
use super::random::Random;
use super::templates::Point;

/// The most the width varies along a stroke, as a part of it.
const SWING: f32 = 0.35;

/// A pen as one writer holds it.
pub(super) struct Pen {
    /// Half the width of its line in pixels.
    radius: f32,
    /// Half the width of the line's soft edge in pixels.
    edge: f32,
    /// Darkness of full ink.
    ink: f32,
}

impl Pen {
    pub(super) fn new(random: &mut Random) -> Self {
        Self { radius: random.between(0.9, 1.7), edge: random.between(0.4, 0.7), ink: random.between(240.0, 275.0) }
    }

    /// The most its line is wide, in pixels.
    pub(super) fn width(&self) -> f32 {
        2.0 * self.radius * (1.0 + SWING)
    }

    /// The picture of these paths: whole values 0 to 255.
    pub(super) fn draw(&self, paths: &[Vec<Point>], random: &mut Random) -> [f32; SIDE * SIDE] {
        let mut cover = [0f32; SIDE * SIDE];
        for path in paths {
            let (from, to) = (self.varied(random), self.varied(random));
            let parts = path.len().saturating_sub(1).max(1) as f32;
            for (i, w) in path.windows(2).enumerate() {
                self.segment(&mut cover, w[0], w[1], from + (to - from) * i as f32 / parts);
            }
        }
        // Paper is clean and ink is not quite even.
        cover.map(|c| if c > 0.0 { (c * self.ink + 10.0 * c * random.normal()).round().clamp(0.0, 255.0) } else { 0.0 })
    }

    fn varied(&self, random: &mut Random) -> f32 {
        self.radius * random.between(1.0 - SWING, 1.0 + SWING)
    }

    /// Inks the pixels near the segment from `a` to `b`.
    fn segment(&self, cover: &mut [f32; SIDE * SIDE], a: Point, b: Point, radius: f32) {
        let reach = radius + self.edge;
        let pixels = |a: f32, b: f32| {
            let (low, high) = (a.min(b) - reach, a.max(b) + reach);
            (low.max(0.0) as usize).min(SIDE)..(high.max(0.0) as usize + 1).min(SIDE)
        };
        for y in pixels(a.1, b.1) {
            for x in pixels(a.0, b.0) {
                let d = distance((x as f32 + 0.5, y as f32 + 0.5), a, b);
                let c = ((reach - d) / (2.0 * self.edge)).clamp(0.0, 1.0);
                let pixel = &mut cover[y * SIDE + x];
                *pixel = pixel.max(c);
            }
        }
    }
}

/// The distance of `p` from the segment between `a` and `b`.
fn distance(p: Point, a: Point, b: Point) -> f32 {
    let (dx, dy) = (b.0 - a.0, b.1 - a.1);
    let along = ((p.0 - a.0) * dx + (p.1 - a.1) * dy) / (dx * dx + dy * dy).max(1e-9);
    let t = along.clamp(0.0, 1.0);
    let (ex, ey) = (p.0 - a.0 - t * dx, p.1 - a.1 - t * dy);
    (ex * ex + ey * ey).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_to_a_segment() {
        let d = |p| distance(p, (1.0, 1.0), (4.0, 1.0));
        assert_eq!([d((2.0, 3.0)), d((0.0, 1.0)), d((7.0, 5.0))], [2.0, 1.0, 5.0]);
        assert_eq!(distance((3.0, 4.0), (0.0, 0.0), (0.0, 0.0)), 5.0);
    }

    #[test]
    fn a_line_is_dark_within_its_width_and_clean_outside() {
        let pen = Pen { radius: 1.5, edge: 0.5, ink: 250.0 };
        let mut cover = [0.0; SIDE * SIDE];
        pen.segment(&mut cover, (5.0, 10.5), (20.0, 10.5), 1.5);
        let column: Vec<f32> = (7..15).map(|y| cover[y * SIDE + 12]).collect();
        assert_eq!(column, [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]);
        pen.segment(&mut cover, (-50.0, -50.0), (90.0, 90.0), 1.5);
        assert_eq!(cover[27 * SIDE + 27], 1.0, "paths beyond the picture are cut");
    }
}
