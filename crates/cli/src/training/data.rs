//! Rows to train on that are read or made on this host: for a trial, for training in the clear, for pre-training.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use toml::Value;
use trefoil_client::{Block, Content, Declaration, InputEncoding, METRIC_ROWS, Part};
use trefoil_data::{Resize, Samples, Split, digits, load_dir, load_input, load_labels};
use trefoil_nn::rng::SplitMix;

use super::description::beside;
use super::method::flag;
use super::section::{Section, choose};
use crate::model::range;

/// Fraction bits of the sets of a trial.
const FRACTION_BITS: u32 = 16;
/// The most rows made or taken.
const MOST: u64 = 1 << 20;
/// Columns of the two hospitals of the example.
const HOSPITALS: [(&str, usize); 2] = [("hospital-1", 6), ("hospital-2", 5)];

/// Where rows come from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    kind: Kind,
    rows: Option<usize>,
    seed: u64,
    classes: Option<Vec<usize>>,
    pairs: bool,
    test: bool,
}

#[derive(Debug, Clone)]
enum Kind {
    Digits,
    Mnist(Option<PathBuf>),
    Folder(PathBuf),
    Hospitals,
    Columns(Vec<Column>),
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    owner: String,
    file: PathBuf,
    block: Block,
}

/// Columns of one owner, in the clear.
pub(crate) struct Columns {
    /// Whose they are.
    pub(crate) owner: String,
    /// What they are.
    pub(crate) block: Block,
    /// Numbers, row by row; none for labels.
    pub(crate) values: Vec<f32>,
    /// Classes; none for numbers.
    pub(crate) labels: Vec<u32>,
}

/// Rows of all columns, features first and labels last.
pub(crate) struct Records {
    /// The columns from left to right.
    pub(crate) columns: Vec<Columns>,
    /// How many rows.
    pub(crate) rows: usize,
    /// What the user should know about where they come from.
    pub(crate) note: Option<&'static str>,
}

impl Source {
    /// The files that hold its columns.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        match &self.kind {
            Kind::Columns(all) => all.iter().map(|c| c.file.clone()).collect(),
            Kind::Digits | Kind::Mnist(_) | Kind::Folder(_) | Kind::Hospitals => vec![],
        }
    }

    /// `[data]`.
    pub(super) fn read(mut s: Section, folder: &Path) -> anyhow::Result<Self> {
        let path = s.text("path")?.map(|p| beside(folder, &p));
        let columns = s.value("column");
        let kind = match (s.text("set")?, columns) {
            (None, Some(Value::Array(all))) => {
                let read = |(i, v)| Column::read(v, i, folder);
                Kind::Columns(all.into_iter().enumerate().map(read).collect::<anyhow::Result<_>>()?)
            }
            (None, None) if path.is_some() => Kind::Folder(path.clone().unwrap_or_default()),
            (Some(name), None) => {
                let known = [("digits", 0), ("mnist", 1), ("hospitals", 2)];
                match choose(&name, &known).map_err(|e| s.wrong("set", e))? {
                    0 => Kind::Digits,
                    1 => Kind::Mnist(path.clone()),
                    _ => Kind::Hospitals,
                }
            }
            (Some(_), Some(_)) => bail!("[data] set and [[data.column]] exclude each other: keep one"),
            _ => bail!("[data] one of set, path and [[data.column]] is due"),
        };
        if path.is_some() && matches!(kind, Kind::Digits | Kind::Hospitals | Kind::Columns(_)) {
            return Err(s.wrong("path", "this set is not read from a path"));
        }
        let rows = s.count("rows", 1, MOST)?.map(|n| n as usize);
        let seed = s.count("seed", 0, i64::MAX as u64)?.unwrap_or(1);
        let classes = s.counts("classes", 0, 254)?;
        let pairs = flag(&mut s, "pairs")?;
        let split = s.text("split")?.unwrap_or_else(|| "train".into());
        let test = choose(&split, &[("train", false), ("test", true)]).map_err(|e| s.wrong("split", e))?;
        if matches!(kind, Kind::Hospitals | Kind::Columns(_)) && (classes.is_some() || pairs) {
            return Err(s.wrong("classes", "only sets of labelled pictures have classes and pairs"));
        }
        s.end()?;
        Ok(Self { kind, rows, seed, classes, pairs, test })
    }

    /// The same with `rows` rows at most.
    pub(super) fn limited(mut self, rows: Option<usize>) -> Self {
        self.rows = match (self.rows, rows) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self
    }

    /// Reads or makes the rows.
    pub(crate) fn load(&self) -> anyhow::Result<Records> {
        let columns = match &self.kind {
            Kind::Columns(all) => columns(all, self.rows),
            Kind::Hospitals => Ok(hospitals(self.rows.unwrap_or(2000), self.seed)),
            _ => self.pictures(),
        };
        let (columns, rows) = columns?;
        columns.iter().try_for_each(Columns::within)?;
        Ok(Records { columns, rows, note: self.note() })
    }

    /// What the user should know about where the rows come from.
    pub(super) fn note(&self) -> Option<&'static str> {
        match &self.kind {
            Kind::Mnist(path) if found(path.as_ref()).is_none() => {
                Some("MNIST is not here (`trefoil data mnist` gets it): digits that are generated instead")
            }
            Kind::Hospitals => Some("synthetic patients, made by the example"),
            _ => None,
        }
    }

    fn pictures(&self) -> anyhow::Result<(Vec<Columns>, usize)> {
        let mut set = self.labelled()?;
        let labels = set.labels.take().context("the set has no labels")?;
        let size = set.sample_len();
        let classes = match &self.classes {
            Some(c) => c.clone(),
            None => (0..=labels.iter().max().map_or(0, |l| *l as usize)).collect(),
        };
        let place = |l: u32| classes.iter().position(|c| *c == l as usize).map(|c| c as u32);
        let kept: Vec<(usize, u32)> = labels.iter().enumerate().filter_map(|(i, l)| Some((i, place(*l)?))).collect();
        if kept.is_empty() {
            bail!("[data] the set has no row of classes {classes:?}");
        }
        let picture = |i: usize| &set.data[i * size..][..size];
        let pixels = |name: &str| Block {
            name: name.into(),
            width: size as u32,
            content: Content::Values(InputEncoding::default()),
        };
        let owner = || "client".to_owned();
        if self.pairs {
            let rows = self.rows.unwrap_or(kept.len());
            let pairs = pairs(&kept, rows, self.seed);
            let side = |name, f: fn(&Pair) -> usize| {
                let values = pairs.iter().flat_map(|p| picture(f(p))).copied().collect();
                Columns { owner: owner(), block: pixels(name), values, labels: vec![] }
            };
            let similar = pairs.iter().map(|p| f32::from(u8::from(p.2))).collect();
            let columns = vec![side("left", |p| p.0), side("right", |p| p.1), numbers(owner(), "similar", 1, similar)];
            return Ok((columns, rows));
        }
        let kept = &kept[..self.rows.unwrap_or(kept.len()).min(kept.len())];
        let values = kept.iter().flat_map(|(i, _)| picture(*i)).copied().collect();
        let labels = kept.iter().map(|(_, l)| *l).collect();
        let block = Block { name: "label".into(), width: classes.len() as u32, content: Content::OneHot };
        let label = Columns { owner: owner(), block, values: vec![], labels };
        let pixels = Columns { owner: owner(), block: pixels("pixels"), values, labels: vec![] };
        Ok((vec![pixels, label], kept.len()))
    }

    fn labelled(&self) -> anyhow::Result<Samples> {
        let split = if self.test { Split::Test } else { Split::Train };
        let path = match &self.kind {
            Kind::Folder(path) => Some(path.clone()),
            Kind::Mnist(path) => found(path.as_ref()),
            _ => None,
        };
        match path {
            Some(path) => load_dir(&path, split).context("cannot read the set"),
            None => Ok(self.digits()),
        }
    }

    /// Generated digits: enough that those of the classes wanted remain.
    fn digits(&self) -> Samples {
        let share = self.classes.as_ref().map_or(1.0, |c| c.len().clamp(1, 10) as f64 / 10.0);
        let wanted = (self.rows.unwrap_or(3000) as f64 / share).ceil() as usize;
        digits::generate(wanted.next_multiple_of(10), self.seed + u64::from(self.test))
    }
}

impl Column {
    fn read(value: Value, index: usize, folder: &Path) -> anyhow::Result<Self> {
        let Value::Table(table) = value else { bail!("[data] column: [[data.column]] sections are due") };
        let mut s = Section::new(format!("data.column {index}"), table);
        let (name, owner, file) = (s.text("name")?, s.text("owner")?, s.text("file")?);
        let (name, owner) = (s.need("name", name)?, s.need("owner", owner)?);
        let file = beside(folder, &s.need("file", file)?);
        let (width, classes) = (s.count("width", 1, 1 << 17)?, s.count("classes", 2, 1 << 17)?);
        let limits = s.text("range")?;
        let limit = f64::from(1u32 << 30);
        let scale = s.number("scale", -limit, limit)?;
        let offset = s.number("offset", -limit, limit)?;
        if scale == Some(0.0) {
            return Err(s.wrong("scale", "0 makes the same number of every value: leave it out, or give a factor"));
        }
        let block = match (width, classes, limits) {
            (None, Some(classes), None) if scale.is_none() && offset.is_none() => {
                Block { name: name.clone(), width: classes as u32, content: Content::OneHot }
            }
            (Some(width), None, Some(text)) => {
                let (low, high) = range(&text).map_err(|e| s.wrong("range", e))?;
                let content = InputEncoding { scale: scale.unwrap_or(1.0), offset: offset.unwrap_or(0.0), low, high };
                Block { name: name.clone(), width: width as u32, content: Content::Values(content) }
            }
            _ => return Err(s.wrong("width", "give it with a range such as \"0..1\", or give classes alone")),
        };
        s.end()?;
        Ok(Self { name, owner, file, block })
    }
}

impl Columns {
    /// Refuses values outside the range that is declared for them: the servers would be given none of them either.
    fn within(&self) -> anyhow::Result<()> {
        let Content::Values(InputEncoding { scale, offset, low, high }) = self.block.content else { return Ok(()) };
        let outside = |v: &f32| !(low..=high).contains(&(f64::from(*v) * scale + offset));
        let Some(at) = self.values.iter().position(outside) else { return Ok(()) };
        let (row, name, value) = (at / self.block.width.max(1) as usize, &self.block.name, self.values[at]);
        let scaled = f64::from(value) * scale + offset;
        bail!("[data] column {name}, row {row}: {value} becomes {scaled}, outside its range {low}..{high}");
    }
}

impl Records {
    /// Numbers of a row.
    pub(crate) fn width(&self) -> usize {
        self.columns.iter().map(|c| c.block.width as usize).sum()
    }

    /// The rows as the network sees them, one after the other.
    pub(crate) fn matrix(&self) -> Vec<f32> {
        let mut all = Vec::with_capacity(self.rows * self.width());
        for row in 0..self.rows {
            for c in &self.columns {
                let width = c.block.width as usize;
                match c.block.content {
                    Content::OneHot => {
                        all.extend((0..width).map(|k| f32::from(u8::from(c.labels[row] as usize == k))));
                    }
                    Content::Values(e) => {
                        let scaled = |v: &f32| (f64::from(*v) * e.scale + e.offset) as f32;
                        all.extend(c.values[row * width..][..width].iter().map(scaled));
                    }
                }
            }
        }
        all
    }

    /// The owners, each once.
    pub(crate) fn owners(&self) -> Vec<String> {
        let mut owners: Vec<String> = self.columns.iter().map(|c| c.owner.clone()).collect();
        owners.sort_unstable();
        owners.dedup();
        owners
    }

    /// What is declared to the servers: one part for each block.
    pub(crate) fn declaration(&self, name: &str) -> Declaration {
        let (rows, fraction_bits) = (self.rows as u32, FRACTION_BITS);
        let part = |(i, c): (usize, &Columns)| Part { owner: c.owner.clone(), block: i as u32, first: 0, end: rows };
        let parts = self.columns.iter().enumerate().map(part).collect();
        let blocks = self.columns.iter().map(|c| c.block.clone()).collect();
        Declaration { name: name.into(), rows, fraction_bits, metric_rows: METRIC_ROWS, blocks, parts }
    }
}

/// The folder of MNIST, if it is there.
fn found(path: Option<&PathBuf>) -> Option<PathBuf> {
    path.cloned().or_else(mnist).filter(|p| p.exists())
}

/// MNIST in the folder that `trefoil data mnist` makes, or where TREFOIL_SHARED says.
fn mnist() -> Option<PathBuf> {
    let shared = std::env::var_os("TREFOIL_SHARED").map(|s| PathBuf::from(s).join("data/mnist"));
    shared.filter(|p| p.exists()).or_else(|| Some(PathBuf::from("mnist")))
}

pub(super) fn numbers(owner: String, name: &str, width: usize, values: Vec<f32>) -> Columns {
    let limit = values.iter().fold(1.0f32, |a, b| a.max(b.abs()));
    let content =
        Content::Values(InputEncoding { scale: 1.0, offset: 0.0, low: -f64::from(limit), high: limit.into() });
    Columns { owner, block: Block { name: name.into(), width: width as u32, content }, values, labels: vec![] }
}

/// Two pictures, and whether they are of one class.
type Pair = (usize, usize, bool);

/// Every other pair is of one class.
fn pairs(kept: &[(usize, u32)], rows: usize, seed: u64) -> Vec<Pair> {
    let mut rng = SplitMix::new(seed ^ 0x7061_6972);
    let mut pair = |similar: bool| {
        let (left, class) = kept[rng.below(kept.len())];
        // Whoever has nobody of that kind is paired with whom he gets.
        let partner = (0..1000).map(|_| kept[rng.below(kept.len())]).find(|(_, c)| (*c == class) == similar);
        let (right, other) = partner.unwrap_or((left, class));
        (left, right, class == other)
    };
    (0..rows).map(|i| pair(i % 2 == 0)).collect()
}

/// Patients whose data two hospitals hold half each: the outcome follows a logistic model of all columns.
fn hospitals(rows: usize, seed: u64) -> (Vec<Columns>, usize) {
    let mut rng = SplitMix::new(seed);
    let width: usize = HOSPITALS.iter().map(|h| h.1).sum();
    let weights: Vec<f64> = (0..width).map(|_| rng.uniform(-3.0, 3.0)).collect();
    let mut values = [const { Vec::new() }; 2];
    let mut outcome = Vec::with_capacity(rows);
    for _ in 0..rows {
        let x: Vec<f64> = (0..width).map(|_| rng.uniform(-1.0, 1.0)).collect();
        let z: f64 = x.iter().zip(&weights).map(|(x, w)| x * w).sum();
        outcome.push(f32::from(u8::from(rng.uniform(0.0, 1.0) < 1.0 / (1.0 + (-z).exp()))));
        let (first, second) = x.split_at(HOSPITALS[0].1);
        values[0].extend(first.iter().map(|v| *v as f32));
        values[1].extend(second.iter().map(|v| *v as f32));
    }
    let mut columns: Vec<Columns> = HOSPITALS
        .iter()
        .zip(values)
        .map(|((owner, n), v)| numbers((*owner).into(), &format!("{owner}-columns"), *n, v))
        .collect();
    columns.push(numbers(HOSPITALS[0].0.into(), "outcome", 1, outcome));
    (columns, rows)
}

fn columns(all: &[Column], limit: Option<usize>) -> anyhow::Result<(Vec<Columns>, usize)> {
    let mut columns = Vec::with_capacity(all.len());
    for c in all {
        let width = c.block.width as usize;
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        let rows = if c.block.content == Content::OneHot {
            labels = load_labels(&c.file).with_context(|| format!("column {}", c.name))?;
            if let Some((row, label)) = labels.iter().enumerate().find(|(_, l)| **l as usize >= width) {
                bail!("{}: row {row} has label {label}: column {} has {width} classes", c.file.display(), c.name);
            }
            labels.len()
        } else {
            values = load_input(&c.file, &[width], Resize::Exact).with_context(|| format!("column {}", c.name))?.data;
            values.len() / width
        };
        columns.push((Columns { owner: c.owner.clone(), block: c.block.clone(), values, labels }, rows));
    }
    let rows = columns.first().map_or(0, |(_, rows)| *rows);
    if let Some((c, other)) = columns.iter().find(|(_, n)| *n != rows) {
        return Err(anyhow!("column {} has {other} rows, the first one {rows}", c.block.name));
    }
    let rows = limit.map_or(rows, |l| l.min(rows));
    let cut = |(mut c, _): (Columns, usize)| {
        c.values.truncate(rows * c.block.width as usize);
        c.labels.truncate(rows);
        c
    };
    let columns: Vec<Columns> = columns.into_iter().map(cut).collect();
    if rows == 0 {
        bail!("[data] no rows");
    }
    Ok((columns, rows))
}
