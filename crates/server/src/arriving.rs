//! Connections whose caller is not known yet: bounded in number, and ended and waited for when the server ends, since a
//! handshake must not outlive the process's libraries.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use trefoil_transport::{Closer, Incoming};

use crate::core::lock;

/// The threads of a server's connections, from the call on.
#[derive(Default)]
pub(crate) struct Arriving {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    /// Threads there are.
    threads: usize,
    /// How to end those whose handshake is not done, by number.
    closers: HashMap<u64, Closer>,
    next: u64,
    over: bool,
}

/// A thread's place, given back however it ends.
pub(crate) struct Place {
    of: Arc<Arriving>,
    number: u64,
}

impl Arriving {
    /// A place for a new connection; none if there are `most` already, or the server ends.
    pub(crate) fn take(self: &Arc<Self>, incoming: &Incoming, most: usize) -> Option<Place> {
        // A socket that gives no second handle is of no use.
        let closer = incoming.closer().ok()?;
        let mut state = lock(&self.state);
        if state.over || state.threads >= most {
            return None;
        }
        state.threads += 1;
        state.next += 1;
        let number = state.next;
        state.closers.insert(number, closer);
        Some(Place { of: self.clone(), number })
    }

    /// Takes nobody any more, and ends what has not arrived.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.over = true;
        state.closers.drain().for_each(|(_, c)| c.close());
    }

    /// Waits for all threads, at most for `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let busy = |state: &mut State| state.threads > 0;
        drop(self.left.wait_timeout_while(lock(&self.state), limit, busy).unwrap_or_else(PoisonError::into_inner));
    }
}

impl Place {
    /// The caller is known: others know how to end its connection. `false` if the server ends.
    pub(crate) fn arrived(&self) -> bool {
        let mut state = lock(&self.of.state);
        state.closers.remove(&self.number);
        !state.over
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.of.state);
        state.closers.remove(&self.number);
        state.threads -= 1;
        drop(state);
        self.of.left.notify_all();
    }
}
