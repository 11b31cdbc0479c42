//! A run at three server processes, some of which are killed and started again, and what comes of it.

use std::time::{Duration, Instant};

use trefoil_client::{Client, RunStatus, Stage};
use trefoil_prg::Party;
use trefoil_testkit::Random;

use super::cluster::{Processes, training};
use super::task::Task;

/// A run that has not moved for so long has failed.
const STUCK: Duration = Duration::from_secs(180);
/// How often the run is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How a run is made to end and what it is to survive.
pub(crate) struct Plan {
    /// Epochs at most.
    pub(crate) epochs: u32,
    /// After this it is told to stop with its epoch.
    pub(crate) limit: Option<Duration>,
    /// Mean time between two kills; none: nobody dies.
    pub(crate) kill_every: Option<Duration>,
    /// Whether the servers draw the order of the rows.
    pub(crate) drawn: bool,
}

/// What came of a run.
pub(crate) struct Outcome {
    /// Its epochs.
    pub(crate) epochs: u32,
    /// Steps that count.
    pub(crate) steps: u64,
    /// Wall time.
    pub(crate) time: Duration,
    /// How often alice, bob and carol were killed.
    pub(crate) kills: [usize; 3],
    /// How often it was taken up again, as alice counts.
    pub(crate) resumed: u32,
    /// Accuracy on the test rows, in percent.
    pub(crate) accuracy: f64,
    /// The trained weights.
    pub(crate) weights: Vec<f64>,
    /// What is wrong with how the rows were used and what was revealed.
    pub(crate) faults: Vec<String>,
}

impl Outcome {
    /// The distance of two runs' weights in parts of their length.
    pub(crate) fn distance(&self, other: &Self) -> f64 {
        let length = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let apart = length(&mut self.weights.iter().zip(&other.weights).map(|(a, b)| a - b));
        apart / length(&mut self.weights.iter().copied())
    }
}

/// The servers, holding the task's rows.
pub(crate) fn servers(transport: trefoil_proto::Transport, silence: Duration, task: &Task) -> Processes {
    let processes = Processes::start(transport, "lanes = 1", silence);
    let [mut owner, mut ann, mut bert] = ["owner", "ann", "bert"].map(|n| processes.client(n));
    task.contribute(&mut owner, &mut ann, &mut bert);
    processes
}

/// Runs the task under `name` by `plan`; `random` chooses when somebody dies. `tell` hears of every kill and epoch.
pub(crate) fn drive(
    processes: &mut Processes,
    task: &Task,
    (name, plan): (&str, &Plan),
    random: &mut Random,
    tell: impl Fn(&str),
) -> Result<Outcome, String> {
    let [mut owner, mut ann, mut bert] = ["owner", "ann", "bert"].map(|n| processes.client(n));
    let spec = task.spec(&mut owner, name, plan.epochs, plan.drawn);
    owner.train(&spec, &task.tensors()).map_err(|e| e.to_string())?;
    training::agree(&mut [&mut ann, &mut bert], name);
    let began = Instant::now();
    let mut pause = || plan.kill_every.map(|mean| mean.mul_f64(random.real(0.5, 1.5)));
    let mut next = pause().map(|p| began + p);
    let (mut kills, mut stopped, mut moved) = ([0; 3], false, (0, Instant::now()));
    let mut epoch = 0;
    let last = loop {
        std::thread::sleep(LOOK);
        if next.is_some_and(|at| at <= Instant::now()) {
            let victim = Party::ALL[kills.iter().sum::<usize>() % 3];
            processes.kill(victim);
            kills[victim as usize] += 1;
            tell(&format!("{:.0} s: {victim} killed at step {}", began.elapsed().as_secs_f64(), moved.0));
            processes.launch(victim, None);
            next = pause().map(|p| Instant::now() + p);
        }
        if !stopped && plan.limit.is_some_and(|l| began.elapsed() >= l) {
            stopped = owner.stop(name).is_ok();
        }
        let Ok(status) = owner.run_status(name) else { continue };
        if status.done != moved.0 {
            moved = (status.done, Instant::now());
        } else if moved.1.elapsed() > STUCK {
            return Err(format!("{name} has stood at step {} for {STUCK:?}: {}", status.done, status.note));
        }
        if status.at.epoch > epoch {
            epoch = status.at.epoch;
            tell(&format!("{:.0} s: {epoch} epochs", began.elapsed().as_secs_f64()));
        }
        if status.stage == Stage::Done {
            break status;
        }
    };
    let time = began.elapsed();
    let outcome = outcome(&mut owner, task, &spec, &last).map(|o| Outcome { time, kills, ..o })?;
    tell(&format!("{name}: {} epochs, accuracy {:.2}", outcome.epochs, outcome.accuracy));
    Ok(outcome)
}

/// Reads what the run revealed and compares the witness with the rows.
fn outcome(
    owner: &mut Client,
    task: &Task,
    spec: &trefoil_client::RunSpec,
    last: &RunStatus,
) -> Result<Outcome, String> {
    let (epochs, mut faults) = (last.at.epoch, vec![]);
    let mut shown: Vec<u32> = last.revealed.iter().filter(|r| r.index == 0).map(|r| r.epoch).collect();
    shown.sort_unstable();
    if shown != (0..epochs).collect::<Vec<_>>() {
        faults.push(format!("metrics of {epochs} epochs revealed after {shown:?}"));
    }
    let mut open = |index: u32| {
        let mut of_index = last.revealed.iter().filter(|r| r.index == index);
        let (Some(r), None) = (of_index.next(), of_index.next()) else {
            return Err(format!("value {index} was not revealed once"));
        };
        owner.revealed(spec, last, *r).map_err(|e| e.to_string())
    };
    let (witness, due) = (open(1)?.units, task.due(epochs));
    let wrong = witness.iter().zip(&due).filter(|(a, b)| a != b).count();
    if wrong > 0 {
        faults.push(format!("{wrong} of {} sums of all rows used are not {epochs} times the rows'", due.len()));
    }
    let weights = (2..spec.reveals.len() as u32).map(|i| Ok(open(i)?.values())).collect::<Result<Vec<_>, String>>()?;
    Ok(Outcome {
        epochs,
        steps: u64::from(epochs) * u64::from(spec.steps()),
        time: Duration::ZERO,
        kills: [0; 3],
        resumed: last.alice.resumed,
        accuracy: task.accuracy(&weights),
        weights: weights.concat(),
        faults,
    })
}
