//! Calling another server, until it answers.

use std::time::{Duration, Instant};

use trefoil_prg::Party;
use trefoil_transport::{Connection, connect_with_backoff};

use crate::core::{Core, IDLE, SETUP};

/// After a failure that waiting does not cure, the next call comes this much later.
const LATER: Duration = Duration::from_secs(2);

/// Before something is refused that will come again at once: what is wrong may last.
pub(crate) fn pause(core: &Core) {
    let began = Instant::now();
    while !core.draining() && began.elapsed() < LATER {
        std::thread::sleep(IDLE);
    }
}

/// Calls a server for a lane. `None` when this server ends, or after a failure that was logged.
pub(crate) fn dial(core: &Core, party: Party, lane: u32) -> Option<Connection> {
    let address = core.cluster.party(party).address.as_str();
    match connect_with_backoff(address, party.name(), &core.security, SETUP, || core.draining()) {
        Ok(connection) => Some(connection),
        Err(_) if core.draining() => None,
        Err(e) => {
            tracing::error!(lane, reason = %e, "cannot connect to {party}");
            std::thread::sleep(LATER);
            None
        }
    }
}
