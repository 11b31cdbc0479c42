//! Training runs: starting one, agreeing to it, watching it, opening what it reveals, ending it.

use std::collections::BTreeSet;
use std::time::Duration;

use thiserror::Error;
use trefoil_mpc::masked::output::open_values;
use trefoil_mpc::program::{Op, ProgramError};
use trefoil_prg::Party;
use trefoil_proto::control::{MAX_BULK, Reply, Request, RequestId, encode};
use trefoil_proto::run::{MAX_SPEC, Measured, Position, Revealed, RunError, RunInfo, RunSpec, Stage};
use trefoil_ring::{Tensor, Words};

use crate::client::{kind, named, within};
use crate::listing::{Listing, listed};
use crate::request::Asked;
use crate::share::{Shared, split};
use crate::{Client, ClientError};

/// A run that cannot be used like this.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RunUseError {
    /// The specification makes no sense.
    #[error(transparent)]
    Spec(#[from] RunError),
    /// No such run.
    #[error("no run {name:?} for this client (there is: {})", if known.is_empty() { "none".into() } else { known.join(", ") })]
    Unknown {
        /// The name.
        name: String,
        /// The names of those there are.
        known: Vec<String>,
    },
    /// Not the specification's number of states.
    #[error("{got} first values given: the run has {expected} states")]
    States {
        /// States of the run.
        expected: usize,
        /// Tensors given.
        got: usize,
    },
    /// A first value that does not belong to its state.
    #[error("state {name}: shape {expected:?} is due, got {got:?}")]
    State {
        /// Its name.
        name: String,
        /// The specification's shape.
        expected: Vec<usize>,
        /// The shape given.
        got: Vec<usize>,
    },
    /// Something that is not revealed to this client, or not yet.
    #[error("{run} has not revealed value {index} after {epoch} epochs to this client")]
    NotRevealed {
        /// The run.
        run: String,
        /// Number of the value in the specification.
        index: u32,
        /// Epochs.
        epoch: u32,
    },
    /// The rows of a run were removed under it.
    #[error(
        "the data set of run {run} was dropped, and its rows with it: the run cannot go on. `trefoil runs --drop {run}` removes \
         it; declare the set anew, have its owners contribute again, then train"
    )]
    NoRows {
        /// The run.
        run: String,
    },
    /// A program in the specification that cannot be run.
    #[error("a program of the run: {0}")]
    Program(#[from] ProgramError),
}

/// A run as both evaluators report it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunStatus {
    /// Number of the run.
    pub run: u64,
    /// Its name.
    pub name: String,
    /// Hash of its specification: what an owner agrees to.
    pub hash: [u8; 32],
    /// The model's owner.
    pub owner: String,
    /// The coordinator.
    pub coordinator: String,
    /// Whether it goes on.
    pub stage: Stage,
    /// Whose agreement alice or bob lacks.
    pub missing: Vec<String>,
    /// Who of them had agreed and withdrew.
    pub withdrawn: Vec<String>,
    /// Whether it ends with its epoch.
    pub stopped: bool,
    /// Where it stands.
    pub at: Position,
    /// Epochs planned.
    pub epochs: u32,
    /// Steps of each epoch.
    pub steps: u32,
    /// Steps done.
    pub done: u64,
    /// What keeps it from going on, or how it ended.
    pub note: String,
    /// Wall time of a step of training.
    pub step_time: Option<Duration>,
    /// How long the remaining steps will take at this pace.
    pub left: Option<Duration>,
    /// What both have revealed; the specification says to whom and why.
    pub revealed: Vec<Revealed>,
    /// What alice measured.
    pub alice: Measured,
    /// What bob measured.
    pub bob: Measured,
}

/// A revealed value, put together.
#[derive(Debug, Clone, PartialEq)]
pub struct Opened {
    /// Which one, and after how many epochs.
    pub revealed: Revealed,
    /// What the specification says it is.
    pub purpose: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements in fixed point.
    pub units: Vec<i64>,
    /// Their fraction bits.
    pub fraction_bits: u32,
}

impl Opened {
    /// The elements as numbers.
    pub fn values(&self) -> Vec<f64> {
        let unit = (-f64::from(self.fraction_bits)).exp2();
        self.units.iter().map(|u| *u as f64 * unit).collect()
    }
}

/// What alice says of a run, and bob unless she has said that.
fn both_say(alice: String, bob: &str) -> String {
    match alice.contains(bob) {
        true => alice,
        false if alice.is_empty() => bob.into(),
        false => format!("{alice}; bob says: {bob}"),
    }
}

impl RunStatus {
    fn new(alice: RunInfo, bob: RunInfo) -> Self {
        let Measured { steps, nanos, .. } = alice.measured;
        let step_time = nanos.checked_div(steps).map(Duration::from_nanos);
        let planned = u64::from(alice.epochs) * u64::from(alice.steps);
        let remaining = planned.saturating_sub(alice.done);
        let left = step_time.map(|t| t.saturating_mul(u32::try_from(remaining).unwrap_or(u32::MAX)));
        let both = |a: Vec<String>, b| a.into_iter().chain(b).collect::<BTreeSet<String>>().into_iter().collect();
        let revealed = alice.revealed.into_iter().filter(|r| bob.revealed.contains(r)).collect();
        Self {
            run: alice.run,
            name: alice.name,
            hash: alice.hash,
            owner: alice.owner,
            coordinator: alice.coordinator,
            stage: alice.stage,
            missing: both(alice.missing, bob.missing),
            withdrawn: both(alice.withdrawn, bob.withdrawn),
            stopped: alice.stopped,
            at: alice.at,
            epochs: alice.epochs,
            steps: alice.steps,
            done: alice.done,
            note: both_say(alice.note, &bob.note),
            step_time,
            left: left.filter(|_| alice.stage == Stage::Running && !alice.stopped),
            revealed,
            alice: alice.measured,
            bob: bob.measured,
        }
    }
}

impl Client {
    /// Has the servers keep a run and this client's first values of its states, in the order of the specification. It
    /// begins once everyone concerned has agreed; this client, who must be the run's owner, does so by this.
    pub fn train(&mut self, spec: &RunSpec, initial: &[Tensor]) -> Result<(), ClientError> {
        let bytes = encode(spec).len();
        if bytes > MAX_SPEC {
            let what = "bytes of the specification".to_owned();
            let too_long = RunError::Size { what, got: bytes as u64, most: MAX_SPEC as u64 };
            return Err(RunUseError::from(too_long).into());
        }
        let states = &spec.step.states;
        if initial.len() != states.len() {
            return Err(RunUseError::States { expected: states.len(), got: initial.len() }.into());
        }
        if let Some((state, t)) = states.iter().zip(initial).find(|(s, t)| s.shape != t.shape()) {
            let (expected, got) = (state.shape.clone(), t.shape().to_vec());
            return Err(RunUseError::State { name: state.name.clone(), expected, got }.into());
        }
        let total = initial.iter().map(Tensor::len).sum();
        within("the states", total, "train a smaller network")?;
        let mut words = Words::with_capacity(total);
        initial.iter().for_each(|t| words.extend(t.data()));
        let Shared { id, seed, rest } = split(&words)?;
        drop(words);
        let request = |seed| Request::Train { id, spec: Box::new(spec.clone()), seed };
        let replies = self.send_shared(id, &seed, request, &[rest.bytes()], 0)?;
        named(replies, "a run", |reply| matches!(reply, Reply::Done).then_some(())).map(drop)
    }

    /// The runs that this client has to do with: as an owner of data or model, as coordinator, as a recipient.
    pub fn runs(&mut self) -> Result<Vec<RunStatus>, ClientError> {
        Ok(self.list_runs()?.agreed)
    }

    /// The same, and what the evaluators differ in.
    pub fn list_runs(&mut self) -> Result<Listing<RunStatus>, ClientError> {
        // Where each stands may differ by a little.
        let same = |a: &RunInfo, b: &RunInfo| (&a.name, a.hash, &a.owner) == (&b.name, b.hash, &b.owner);
        let join = |a, b| same(&a, &b).then(|| RunStatus::new(a, b));
        listed(|| self.both_lists(), "run", |r| &r.name, |r| r.run, join)
    }

    fn both_lists(&mut self) -> Result<[Vec<RunInfo>; 2], ClientError> {
        let lists = self.both(&plain(&Request::Runs))?;
        named(lists, "a list of runs", |reply| match reply {
            Reply::Runs(list) => Some(list),
            _ => None,
        })
    }

    /// How the run of this name stands.
    pub fn run_status(&mut self, name: &str) -> Result<RunStatus, ClientError> {
        let mut all = self.list_runs()?;
        all.find(name, |r| &r.name)?.ok_or_else(|| {
            let known = all.agreed.into_iter().map(|r| r.name).collect();
            RunUseError::Unknown { name: name.into(), known }.into()
        })
    }

    /// The specification of a run, of which both evaluators must say the same.
    pub fn run_spec(&mut self, status: &RunStatus) -> Result<RunSpec, ClientError> {
        let replies = self.both(&plain(&Request::Spec { run: status.run }))?;
        let [alice, bob] = named(replies, "a specification", |reply| match reply {
            Reply::Spec(spec) => Some(spec),
            _ => None,
        })?;
        if alice != bob || alice.hash() != status.hash {
            return Err(ClientError::Disagree { what: format!("what run {} is", status.name) });
        }
        Ok(*alice)
    }

    /// Agrees to what `spec` says, and to nothing else: both evaluators keep that this client did.
    pub fn agree(&mut self, status: &RunStatus, spec: &RunSpec) -> Result<(), ClientError> {
        self.tell(&Request::Agree { run: status.run, hash: spec.hash() }, "an agreement")
    }

    /// Takes this client's agreement back at both evaluators: the run stops where it is and nothing more of it is
    /// revealed, until the client agrees again.
    pub fn withdraw(&mut self, status: &RunStatus) -> Result<(), ClientError> {
        self.tell(&Request::Withdraw { run: status.run }, "a withdrawal")
    }

    /// Ends a run with its epoch; what it reveals or publishes at its end follows. For its owner and its coordinator.
    pub fn stop(&mut self, name: &str) -> Result<(), ClientError> {
        let run = self.run_status(name)?.run;
        self.tell(&Request::Stop { run }, "a stop")
    }

    /// Removes a run, its states and what it revealed. For its owner and its coordinator. Alice's list counts: where a
    /// removal broke off, bob has forgotten the run before she has.
    pub fn drop_run(&mut self, name: &str) -> Result<(), ClientError> {
        let [alice, _] = self.both_lists()?;
        let Some(run) = alice.iter().find(|r| r.name == name).map(|r| r.run) else {
            let known = alice.into_iter().map(|r| r.name).collect();
            return Err(RunUseError::Unknown { name: name.into(), known }.into());
        };
        self.ask_alice(&Request::DropRun { run }, "a removal")
    }

    /// A value that was revealed to this client, as often as it likes: the very bytes that were revealed.
    pub fn revealed(&mut self, spec: &RunSpec, status: &RunStatus, r: Revealed) -> Result<Opened, ClientError> {
        let missing = || RunUseError::NotRevealed { run: status.name.clone(), index: r.index, epoch: r.epoch };
        let disclosure = spec.reveals.get(r.index as usize).ok_or_else(missing)?;
        let infos = disclosure.program.infer().map_err(RunUseError::from)?;
        let (Some(info), Some(Op::Reveal { shift, .. })) =
            (infos.last(), disclosure.program.steps.last().map(|s| &s.op))
        else {
            return Err(missing().into());
        };
        let n = info.count(1);
        let longest = MAX_BULK.min(8 * n);
        let request = Request::Revealed { run: status.run, index: r.index, epoch: r.epoch };
        let [(alice, from_alice), (bob, from_bob)] = self.both(&Asked { longest, ..plain(&request) })?;
        let lot = |party, reply| match reply {
            Reply::Answer(report) => Ok(report.lot),
            other => Err(ClientError::Unfit { party, asked: "a revealed value", got: kind(&other) }),
        };
        let (a, b) = (lot(Party::Alice, alice)?, lot(Party::Bob, bob)?);
        if a != b {
            return Err(missing().into());
        }
        let units = open_values(&from_alice, &from_bob, n, *shift)?;
        let revealed = Revealed { lot: a, ..r };
        let (purpose, shape) = (disclosure.purpose.clone(), info.shape.clone());
        Ok(Opened { revealed, purpose, shape, units, fraction_bits: info.scale })
    }

    fn tell(&mut self, request: &Request, asked: &'static str) -> Result<(), ClientError> {
        let replies = self.both(&plain(request))?;
        named(replies, asked, |reply| matches!(reply, Reply::Done).then_some(())).map(drop)
    }
}

/// The same short request to both.
fn plain(request: &Request) -> Asked<'_> {
    Asked { requests: [request, request], id: RequestId::default(), shares: &[], longest: 0 }
}
