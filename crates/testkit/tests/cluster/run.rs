//! A long run that is told to stop once servers have died in it: every step counts once.

use super::training::{agree, close, contribute, finished, ideal, initial, shown, spec, step_showing};
use super::{PATIENT, Processes, eventually};
use trefoil_client::{Client, ClientError, RunSpec, RunStatus};
use trefoil_mpc::program::Shown;
use trefoil_prg::Party;
use trefoil_proto::Transport;

/// More epochs than any test waits for: runs are told to stop.
pub const EPOCHS: u32 = 4_900;

/// A run, in which a server may be shown likelihoods.
pub fn planned(owner: &mut Client, to: Option<Shown>) -> RunSpec {
    let mut run = spec(owner, "prices", EPOCHS);
    run.step = to.map_or(run.step, step_showing);
    run
}

/// Servers with a run that everyone agreed to.
pub fn begun(transport: Transport, to: Option<Shown>) -> Processes {
    let processes = Processes::start(transport, "lanes = 1", PATIENT);
    begin(&processes, to);
    processes
}

/// A run that everyone agreed to.
pub fn begin(processes: &Processes, to: Option<Shown>) {
    let [mut owner, mut ann, mut bert] = ["owner", "ann", "bert"].map(|n| processes.client(n));
    contribute(&mut owner, &mut ann, &mut bert);
    owner.train(&planned(&mut processes.client("owner"), to), &initial()).unwrap();
    agree(&mut [&mut ann, &mut bert], "prices");
}

pub fn status(client: &mut Client) -> Option<RunStatus> {
    let outcome: Result<RunStatus, ClientError> = client.run_status("prices");
    outcome.ok()
}

/// The run ends with the epoch in which it is told to: every step counts once, whatever was done twice.
pub fn ends(processes: &Processes, to: Option<Shown>, slack: i64) {
    let (mut owner, mut ann) = (processes.client("owner"), processes.client("ann"));
    eventually("it is told to stop", || owner.stop("prices").is_ok());
    let last = finished(&mut owner, "prices");
    let spec = planned(&mut owner, to);
    let epochs = last.at.epoch;
    let want = ideal(&spec, epochs);
    assert!(epochs < EPOCHS && last.done == u64::from(epochs * spec.steps()), "{last:?}");
    close(&shown(&mut owner, "prices", 1)[0], &want.weights, slack);
    let losses = shown(&mut ann, "prices", 0);
    assert_eq!(losses.len(), epochs as usize, "each epoch's loss is shown once");
    close(&losses.concat(), &want.losses, 10 * slack);
    Party::ALL.iter().for_each(|p| assert!(!processes.lots(*p).is_empty()));
}
