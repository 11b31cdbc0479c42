//! Whether what a party sees looks uniform, position by position and pair by pair, over many sessions.
//!
//! A position is one word of a view: the same word of the same frame in every session. Every test compares a count
//! over the sessions with a threshold taken from the exact binomial tail, at a level of `alarm` divided by the number
//! of tests of its kind: by the union bound a call raises a false alarm with probability at most [`Report::alarm`],
//! whatever the dependence between the tests. Sessions are seeded, so a result never changes from run to run.
//!
//! What these tests cannot see: relations of three and more words, relations between different bit positions of two
//! words other than sums and differences, the generator's own quality, timing.

use std::collections::HashMap;
use std::fmt;

use trefoil_ring::kernels::bits::to_planes;

use crate::binomial::threshold;

/// The words of one kind of view over many sessions.
#[derive(Debug, Clone)]
pub struct Samples {
    places: Vec<Place>,
    columns: Vec<Vec<u64>>,
    /// For each session, the first session with the same input and model.
    reference: Vec<usize>,
    groups: HashMap<u64, usize>,
}

/// A position: its name, and how many low bits of the word it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// For findings.
    pub name: String,
    /// Bits used.
    pub width: u32,
}

/// A count that uniform words would not give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which test.
    pub test: &'static str,
    /// Which position or positions.
    pub place: String,
    /// The count.
    pub count: u64,
    /// Out of how many.
    pub of: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({} of {})", self.test, self.place, self.count, self.of)
    }
}

/// What a call found, and how likely it was to find anything in uniform words.
#[derive(Debug, Default)]
pub struct Report {
    /// Counts beyond their thresholds.
    pub findings: Vec<Finding>,
    /// Tests made.
    pub tests: u64,
    /// Bound on the probability of a false alarm.
    pub alarm: f64,
}

impl Report {
    /// Adds another report to this one.
    pub fn add(&mut self, other: Report) {
        self.findings.extend(other.findings);
        self.tests += other.tests;
        self.alarm += other.alarm;
    }

    /// Whether a test of this name found something.
    pub fn found(&self, test: &str) -> bool {
        self.findings.iter().any(|f| f.test == test)
    }
}

impl Samples {
    /// No session yet.
    pub fn new(places: Vec<Place>) -> Self {
        let columns = vec![vec![]; places.len()];
        Self { places, columns, reference: vec![], groups: HashMap::new() }
    }

    /// Adds one session's words, one for each place. Sessions of one `group` have the same input and model.
    pub fn push(&mut self, group: u64, words: &[u64]) {
        assert_eq!(words.len(), self.places.len(), "a session has other positions than the first");
        let session = self.sessions();
        self.reference.push(*self.groups.entry(group).or_insert(session));
        self.columns.iter_mut().zip(words).for_each(|(c, w)| c.push(*w));
    }

    /// The same words without the bits that fill up frames: of the positions' high bits, exactly `bits` are never set.
    ///
    /// # Panics
    ///
    /// If others are never set, or some of those are.
    pub fn unpadded(mut self, bits: u32) -> Self {
        let mut unset = 0;
        for (place, column) in self.places.iter_mut().zip(&self.columns) {
            let used = 64 - column.iter().fold(0, |all, w| all | w).leading_zeros();
            unset += place.width - used;
            place.width = used;
        }
        assert_eq!(unset, bits, "high bits that are never set");
        self
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> usize {
        self.reference.len()
    }

    /// How many positions there are.
    pub fn positions(&self) -> usize {
        self.places.len()
    }

    /// The positions.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// One position over all sessions, to plant a leak.
    pub fn column_mut(&mut self, position: usize) -> &mut [u64] {
        &mut self.columns[position]
    }

    /// One position over all sessions.
    pub fn column(&self, position: usize) -> &[u64] {
        &self.columns[position]
    }

    /// The same sessions with the positions `by` further on, in the places of `other`.
    pub fn rotated(&self, by: usize, other: &Samples) -> Self {
        let mut rotated = Self { places: other.places.clone(), ..self.clone() };
        rotated.columns.rotate_left(by);
        rotated
    }

    /// The sessions of each input and model by themselves.
    pub fn by_group(&self) -> Vec<Samples> {
        let mut groups: Vec<u64> = self.groups.keys().copied().collect();
        groups.sort_unstable();
        let of = |g: &u64| {
            let sessions: Vec<usize> =
                (0..self.sessions()).filter(|s| Some(&self.reference[*s]) == self.groups.get(g)).collect();
            let columns = self.columns.iter().map(|c| sessions.iter().map(|s| c[*s]).collect()).collect();
            let reference = vec![0; sessions.len()];
            Samples { places: self.places.clone(), columns, reference, groups: HashMap::from([(*g, 0)]) }
        };
        groups.iter().map(of).collect()
    }

    /// Every position by itself: each bit is balanced; no value of the top or the low byte is too frequent; no
    /// session repeats the word of the first session with the same input and model.
    pub fn singles(&self, alarm: f64) -> Report {
        let n = self.sessions() as u64;
        let bits: u64 = self.places.iter().map(|p| u64::from(p.width)).sum();
        let bytes = self.places.len() as u64 * 512;
        let balance = threshold(n, 0.5, alarm / 4.0 / bits as f64);
        let byte = threshold(n, 1.0 / 256.0, alarm / 2.0 / bytes as f64);
        let mut report = Report { findings: vec![], tests: bits + bytes, alarm };
        for (place, column) in self.places.iter().zip(&self.columns) {
            let mut find = |test, name: String, count, of| {
                report.findings.push(Finding { test, place: name, count, of });
            };
            for b in 0..place.width {
                let ones = column.iter().map(|w| w >> b & 1).sum::<u64>();
                if ones.max(n - ones) >= balance {
                    find("bit balance", format!("{} bit {b}", place.name), ones, n);
                }
            }
            if place.width >= 8 {
                for (test, shift) in [("top byte", place.width - 8), ("low byte", 0)] {
                    let mut counts = [0u64; 256];
                    column.iter().for_each(|w| counts[(w >> shift & 255) as usize] += 1);
                    for (value, &count) in counts.iter().enumerate().filter(|(_, c)| **c >= byte) {
                        find(test, format!("{} value {value}", place.name), count, n);
                    }
                }
            }
            if place.width >= 48 {
                report.alarm += n as f64 * (-f64::from(place.width)).exp2();
                let repeats = self.repeats(|s| column[s]);
                if repeats > 0 {
                    find("repeated word", place.name.clone(), repeats, n);
                }
            }
        }
        report
    }

    /// Every two positions of one session.
    pub fn pairs(&self, alarm: f64) -> Report {
        let planes: Vec<Planes> = self.columns.iter().map(|c| Planes::new(c)).collect();
        let all = self.places.len() as u64 * (self.places.len() as u64).saturating_sub(1) / 2;
        let test = PairTest::new(self, all, alarm);
        let mut report = test.report(all);
        for p in 0..self.places.len() {
            for q in p + 1..self.places.len() {
                let name = || format!("{} and {}", self.places[p].name, self.places[q].name);
                let width = self.places[p].width.min(self.places[q].width);
                let full = self.places[p].width == 64 && self.places[q].width == 64;
                let columns = (&self.columns[p][..], &self.columns[q][..]);
                test.run(&planes[p], &planes[q], columns, width, full, name, &mut report);
            }
        }
        report
    }

    /// The same position of two requests of each session.
    pub fn against(&self, other: &Samples, alarm: f64) -> Report {
        assert_eq!(self.places, other.places, "two requests with different positions");
        let all = self.places.len() as u64;
        let test = PairTest::new(self, all, alarm);
        let mut report = test.report(all);
        for (p, place) in self.places.iter().enumerate() {
            let name = || format!("{} of two requests", place.name);
            let (a, b) = (&self.columns[p][..], &other.columns[p][..]);
            test.run(&Planes::new(a), &Planes::new(b), (a, b), place.width, place.width == 64, name, &mut report);
        }
        report
    }

    fn repeats(&self, value: impl Fn(usize) -> u64) -> u64 {
        self.reference.iter().enumerate().filter(|(s, r)| s != *r && value(*s) == value(**r)).count() as u64
    }
}

/// The bits of one position: plane `b` holds bit `b` of every session.
struct Planes {
    bits: Vec<u64>,
    words: usize,
}

impl Planes {
    fn new(column: &[u64]) -> Self {
        let words = column.len().div_ceil(64);
        let mut bits = vec![0; 64 * words];
        to_planes(column, 0, 64, &mut bits);
        Self { bits, words }
    }

    fn plane(&self, b: usize) -> &[u64] {
        &self.bits[b * self.words..(b + 1) * self.words]
    }
}

/// Thresholds of the tests of a pair.
struct PairTest<'a> {
    samples: &'a Samples,
    alarm: f64,
    balance: u64,
    near: u64,
    low: u64,
}

impl<'a> PairTest<'a> {
    fn new(samples: &'a Samples, pairs: u64, alarm: f64) -> Self {
        let n = samples.sessions() as u64;
        let pairs = pairs.max(1) as f64;
        Self {
            samples,
            alarm,
            balance: threshold(n, 0.5, alarm / 8.0 / (64.0 * pairs)),
            near: threshold(n, 1.0 / 256.0, alarm / 8.0 / pairs),
            low: threshold(n, 1.0 / 65536.0, alarm / 4.0 / pairs),
        }
    }

    /// 64 bit balances, near differences and sums, equal low halves and whole words of both.
    fn report(&self, pairs: u64) -> Report {
        let n = self.samples.sessions() as f64;
        let whole = 2.0 * n * pairs as f64 * (-64f64).exp2();
        Report { findings: vec![], tests: pairs * 70, alarm: self.alarm + whole }
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        p: &Planes,
        q: &Planes,
        (a, b): (&[u64], &[u64]),
        width: u32,
        full: bool,
        name: impl Fn() -> String,
        report: &mut Report,
    ) {
        let n = a.len() as u64;
        let mut find = |test, count| report.findings.push(Finding { test, place: name(), count, of: n });
        for bit in 0..width as usize {
            let ones: u32 = p.plane(bit).iter().zip(q.plane(bit)).map(|(x, y)| (x ^ y).count_ones()).sum();
            let ones = u64::from(ones);
            if ones.max(n - ones) >= self.balance {
                find("xor of two words", ones);
                break;
            }
        }
        if !full {
            return;
        }
        let half = 1u64 << 55;
        let (mut near, mut near_sum) = (0, 0);
        for (x, y) in a.iter().zip(b) {
            near += u64::from(x.wrapping_sub(*y).wrapping_add(half) >> 56 == 0);
            near_sum += u64::from(x.wrapping_add(*y).wrapping_add(half) >> 56 == 0);
        }
        if near >= self.near {
            find("near words", near);
        }
        if near_sum >= self.near {
            find("near opposite words", near_sum);
        }
        let (mut same, mut same_low, mut same_sum, mut low_sum) = (0, 0, 0, 0);
        for (s, &r) in self.samples.reference.iter().enumerate() {
            let difference = a[s].wrapping_sub(b[s]) ^ a[r].wrapping_sub(b[r]);
            let sum = a[s].wrapping_add(b[s]) ^ a[r].wrapping_add(b[r]);
            let other = u64::from(s != r);
            same += other & u64::from(difference == 0);
            same_low += other & u64::from(difference & 0xffff == 0);
            same_sum += other & u64::from(sum == 0);
            low_sum += other & u64::from(sum & 0xffff == 0);
        }
        if same > 0 || same_low >= self.low {
            find("fixed difference", same.max(same_low));
        }
        if same_sum > 0 || low_sum >= self.low {
            find("fixed sum", same_sum.max(low_sum));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Random;

    fn samples(sessions: usize, positions: usize, seed: u64) -> Samples {
        let mut r = Random::new(seed);
        let places = (0..positions).map(|p| Place { name: p.to_string(), width: 64 }).collect();
        let mut s = Samples::new(places);
        for i in 0..sessions {
            s.push(i as u64 % 4, &r.words(positions));
        }
        s
    }

    #[test]
    fn uniform_words_pass() {
        let s = samples(256, 100, 1);
        for report in [s.singles(1e-9), s.pairs(1e-9), s.against(&samples(256, 100, 2), 1e-9)] {
            assert_eq!(report.findings, []);
            assert!(report.alarm < 1.1e-9);
        }
    }

    #[test]
    fn one_bit_short_of_uniform_is_found() {
        let mut s = samples(256, 100, 3);
        s.column_mut(17).iter_mut().for_each(|w| *w &= !(1 << 40));
        let report = s.singles(1e-9);
        assert_eq!(report.findings.len(), 1);
        assert_eq!(report.findings[0].place, "17 bit 40");
    }
}
