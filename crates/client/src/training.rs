//! Training described once: a network, how it is trained and what may be revealed. The same description trains in the
//! clear and on three servers.
//!
//! ```no_run
//! use std::ops::ControlFlow;
//!
//! use trefoil_client::training::{Reveals, Training, Update};
//! use trefoil_client::{Client, ClientConfig};
//! use trefoil_link::Network;
//! use trefoil_nn::build::{Activation, Sequential, conv, dense, flatten, max_pool};
//! use trefoil_nn::train::{Optimiser, Schedule, TrainSpec};
//! use trefoil_proto::{Cluster, Identity};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let graph = Sequential::new(&[28, 28, 1])
//!     .add(conv(8, 5).same().activation(Activation::Relu))
//!     .add(max_pool(2))
//!     .add(flatten())
//!     .add(dense(10).activation(Activation::Softmax))
//!     .build(1)?;
//! let (optimiser, schedule) = (Optimiser::Momentum { momentum: 0.9 }, Schedule::constant(0.05));
//! let spec = TrainSpec { optimiser, schedule, epochs: 5, batch: 128, validation: 0.1, ..TrainSpec::classifier() };
//! let reveal = Reveals { metrics: true, publish: Some("wards".into()), ..Reveals::default() };
//! let training = Training { set: "wards".into(), reveal, ..Training::new("first-run", graph, spec) };
//!
//! let cluster = Cluster::load("cluster.toml".as_ref())?;
//! let identity = Identity::load("keys".as_ref(), "owner")?;
//! let mut client = Client::connect(ClientConfig::new(cluster, Some(identity), "owner"))?;
//! let run = client.begin(&training, &Network::LAN)?; // owners of data read it and agree: Client::agree
//! let trained = client.follow(&run, None, |update| {
//!     if let Update::Epoch(e) = update {
//!         println!("epoch {}: loss {:.3}", e.epoch, e.trained.loss);
//!     }
//!     ControlFlow::Continue(())
//! })?;
//! assert_eq!(trained.epochs.len(), 5);
//! let model = client.model("wards")?; // nobody has seen its weights; Client::predict asks it
//! # Ok(())
//! # }
//! ```

mod features;
mod follow;
mod plan;
mod publication;
mod served;
mod shown;
mod size;
#[cfg(test)]
mod tests;

use thiserror::Error;
use trefoil_link::Network;
use trefoil_mpc::MpcError;
use trefoil_mpc::program::{ProgramError, Reveal};
use trefoil_nn::compile::CompileError;
use trefoil_nn::graph::{Graph, GraphError};
use trefoil_nn::layers::set_tensors;
use trefoil_nn::lower::ranges::Warning;
use trefoil_nn::lower::{EncodeError, LowerError};
use trefoil_nn::train::clear::{Epoch, Progress, fit_all, fit_measured, fit_until};
use trefoil_nn::train::{Patience, TrainError, TrainSpec};
use trefoil_proto::dataset::SetInfo;
use trefoil_proto::run::{RunError, RunSpec};
use trefoil_ring::ShapeError;

use crate::{Client, ClientError, Opened};

pub use features::Features;
pub use follow::{EpochScore, Trained, Update};
pub use plan::{PlannedRun, learnt, words};
pub use served::served;

/// Training of a network.
#[derive(Debug, Clone)]
pub struct Training {
    /// The run's name at the servers.
    pub name: String,
    /// The network with its first weights.
    pub graph: Graph,
    /// How it is trained.
    pub spec: TrainSpec,
    /// Where the outputs of frozen layers are computed.
    pub features: Features,
    /// The data set's name at the servers.
    pub set: String,
    /// Whether the order of rows is drawn by the servers instead of from the seed.
    pub drawn: bool,
    /// Whether the training rows are shuffled on shares first.
    pub shuffle: bool,
    /// Steps between two checkpoints.
    pub checkpoint: u32,
    /// Epochs without a lower validation loss after which training ends.
    pub patience: Option<u32>,
    /// What the servers reveal.
    pub reveal: Reveals,
}

/// What is revealed, and to whom.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reveals {
    /// Loss and accuracy of each epoch, to the one who runs it.
    pub metrics: bool,
    /// The trained weights at the end, to this client ("owner": the one who runs it).
    pub weights: Option<String>,
    /// The name under which the trained model is served.
    pub publish: Option<String>,
    /// What the one who runs it may ask that model; none: verdicts on pairs where there is a bound, logits otherwise.
    pub answers: Option<Vec<Reveal>>,
    /// The distance below which the served model calls a pair similar; none: half the margin of a contrastive loss.
    pub similar_below: Option<f64>,
}

/// Training that the servers cannot be given.
#[derive(Debug, Error)]
pub enum TrainingError {
    /// The network, the loss or a setting makes no sense.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A layer that is not trained on shares.
    #[error("the network cannot be trained on shares: {0}")]
    Lower(#[from] LowerError),
    /// Rows that are not the network's.
    #[error("the data set has rows of {got} numbers, the network and its loss take {expected}")]
    Width {
        /// Numbers of a row of the set.
        got: usize,
        /// Numbers due: the features of every tower, then the label.
        expected: usize,
    },
    /// No epochs, or too many.
    #[error("{epochs} epochs: must be 1 to {most}")]
    Epochs {
        /// Epochs asked for.
        epochs: usize,
        /// The most there can be.
        most: u32,
    },
    /// Not one full batch.
    #[error("a batch of {batch}, but there are {rows} rows to train on")]
    Batch {
        /// Rows of a batch.
        batch: usize,
        /// Rows that there are.
        rows: usize,
    },
    /// A list that no specification can hold.
    #[error("{what} would take {least} bytes at least, a specification has at most {most}: {instead}")]
    TooLong {
        /// What is listed.
        what: &'static str,
        /// Bytes that it takes at least.
        least: u64,
        /// The most bytes of a specification.
        most: u64,
        /// What to do instead.
        instead: &'static str,
    },
    /// Waiting for a validation loss that nobody sees.
    #[error(
        "patience needs rows kept for validation ([train] validation = 0.1), and metrics revealed ([reveal] metrics = \
         \"coordinator\")"
    )]
    Patience,
    /// A learning rate that fixed point cannot hold.
    #[error("learning rate: {0}")]
    Rate(EncodeError),
    /// A first weight that fixed point cannot hold.
    #[error("first weights: {0}")]
    Weight(#[from] EncodeError),
    /// A trained network that predictions cannot run.
    #[error("to be published, but private predictions cannot run this network: {0}")]
    Compile(#[from] CompileError),
    /// A bound for a network that is not trained on pairs, or one that hardly a distance is below.
    #[error(
        "pairs are to be similar below a distance of {0}: must be at least 1/256, and the loss contrastive or triplet"
    )]
    Bound(f64),
    /// Inputs whose encodings differ, of several columns or of a pair.
    #[error(
        "to be published, but columns {one} and {other} have different scales or ranges: a model takes one for all its \
         inputs; scale the columns alike"
    )]
    Scales {
        /// The first column.
        one: String,
        /// One that differs.
        other: String,
    },
    /// Weights that are not the network's.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The programs cannot be planned.
    #[error(transparent)]
    Plan(#[from] MpcError),
    /// A program that does not fit together.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The run as a whole is refused.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A tensor whose shape and numbers differ.
    #[error(transparent)]
    Tensor(#[from] ShapeError),
    /// A name that is in use.
    #[error("there is another run named {0} already: drop it, or take another name")]
    Taken(String),
    /// A name that is in use for a run of somebody else.
    #[error(
        "there is a run named {name} of {owner} already: take another name; `trefoil runs {name}` shows that one, and with \
         --weights writes what it reveals to you"
    )]
    Others {
        /// The name.
        name: String,
        /// Whose run it is.
        owner: String,
    },
}

impl Training {
    /// Training of `graph` on the data set of the run's own name, in an order by seed, with nothing revealed.
    pub fn new(name: impl Into<String>, graph: Graph, spec: TrainSpec) -> Self {
        let name = name.into();
        let (set, reveal, features) = (name.clone(), Reveals::default(), Features::Servers);
        Self { name, graph, spec, features, set, drawn: false, shuffle: false, checkpoint: 100, patience: None, reveal }
    }

    /// Trains in the clear, in f32, on records lying one after the other: features, then the label. Ends early by
    /// [`Training::patience`]; the trained weights are in [`Training::graph`].
    ///
    /// ```
    /// use trefoil_client::training::Training;
    /// use trefoil_nn::build::{Activation, Sequential, average_pool, dense, flatten};
    /// use trefoil_nn::train::clear::labelled;
    /// use trefoil_nn::train::{Optimiser, Schedule, TrainSpec};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let set = trefoil_data::digits::generate(1000, 1);
    /// let labels: Vec<u8> = set.labels.iter().flatten().map(|l| *l as u8).collect();
    /// let pixels: Vec<f32> = set.data.iter().map(|v| v / 255.0).collect();
    /// let graph = Sequential::new(&[28, 28, 1])
    ///     .add(average_pool(2))
    ///     .add(flatten())
    ///     .add(dense(32).activation(Activation::Relu))
    ///     .add(dense(10).activation(Activation::Softmax))
    ///     .build(1)?;
    /// let (optimiser, schedule) = (Optimiser::Momentum { momentum: 0.9 }, Schedule::constant(0.1));
    /// let spec = TrainSpec { optimiser, schedule, epochs: 12, validation: 0.2, ..TrainSpec::classifier() };
    /// let mut training = Training { patience: Some(3), ..Training::new("digits", graph, spec) };
    /// let epochs = training.fit_clear(&labelled(&pixels, &labels, 10)?, |_| {})?;
    /// let validated = epochs.last().and_then(|e| e.validated?.accuracy);
    /// assert!(validated.is_some_and(|a| a > 0.85), "{validated:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn fit_clear(&mut self, records: &[f32], progress: impl FnMut(&Progress)) -> Result<Vec<Epoch>, TrainError> {
        let patience = self.patience.map(|n| Patience::new(n as usize));
        match self.features {
            Features::Steps => fit_all::<f32, f32>(&mut self.graph, records, &self.spec, patience, progress),
            Features::Servers | Features::Owners => {
                fit_until::<f32>(&mut self.graph, records, &self.spec, patience, progress)
            }
        }
    }

    /// The same, with what came near the bounds of fixed point in the steps.
    pub fn fit_measured(
        &mut self,
        records: &[f32],
        progress: impl FnMut(&Progress),
    ) -> Result<(Vec<Epoch>, Vec<Warning>), TrainError> {
        let patience = self.patience.map(|n| Patience::new(n as usize));
        let all = self.features == Features::Steps;
        fit_measured::<f32>(&mut self.graph, records, &self.spec, patience, all, progress)
    }

    /// What the servers would be given by `owner`, on data set `set`; ways of comparing are chosen for `link`.
    pub fn plan(&self, set: &SetInfo, owner: &str, link: &Network) -> Result<PlannedRun, TrainingError> {
        plan::plan(self, (set.epoch, &set.declaration), owner, link)
    }

    /// The network with the weights that were revealed.
    pub fn network(&self, weights: &[(String, Opened)]) -> Result<Graph, TrainingError> {
        let mut graph = self.graph.clone();
        let all = weights.iter().map(|(name, opened)| (name.as_str(), opened.shape.as_slice(), opened.values()));
        set_tensors(&mut graph, all)?;
        Ok(graph)
    }
}

impl Client {
    /// Gives the servers `training`, unless they have this very run already. It begins once every owner of data agreed.
    pub fn begin(&mut self, training: &Training, link: &Network) -> Result<RunSpec, ClientError> {
        let set = self.set(&training.set)?;
        let owner = self.name().to_owned();
        let planned = training.plan(&set, &owner, link)?;
        match self.list_runs()?.find(&training.name, |r| &r.name)? {
            None => self.train(&planned.spec, &planned.initial)?,
            Some(status) if status.hash == planned.spec.hash() => {}
            Some(status) if status.owner != owner => {
                return Err(TrainingError::Others { name: status.name, owner: status.owner }.into());
            }
            Some(_) => return Err(TrainingError::Taken(training.name.clone()).into()),
        }
        Ok(planned.spec)
    }
}
