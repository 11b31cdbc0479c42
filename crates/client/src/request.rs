//! One request to both evaluators: sent to both, then both replies, whichever comes first.

use std::time::{Duration, Instant};

use trefoil_proto::control::{Refusal, Reply, Request};

use crate::ClientError;
use crate::evaluator::Evaluator;

/// How long alice's connection is listened to before bob's is looked at.
const LISTEN: Duration = Duration::from_millis(20);
/// How long bob's is.
const GLANCE: Duration = Duration::from_millis(1);
/// How long the second reply may take after the first was an answer.
const AFTER_ANSWER: Duration = Duration::from_secs(4);
/// How long the second reply may take after a failure: who failed is reported within 5 s.
const AFTER_FAILURE: Duration = Duration::from_millis(1500);

/// A reply and the payload that follows an answer.
pub(crate) type Got = (Reply, Vec<u8>);

/// What both said, or the failure that explains the other.
pub(crate) struct Replies {
    pub(crate) outcome: Result<[Got; 2], ClientError>,
    /// Whether both connections are ready for the next request.
    pub(crate) usable: bool,
}

/// Sends each evaluator its request; bob's comes with the shares. `forget` is called once if alice refuses: bob, who
/// waits for her word, is to be told on another connection.
pub(crate) fn ask_both(
    [alice, bob]: &mut [Evaluator; 2],
    [to_alice, to_bob]: [&Request; 2],
    shares: &[&[u8]],
    forget: impl FnOnce(),
) -> Replies {
    let sent = bob.ask(to_bob, shares.iter().copied()).and_then(|()| alice.ask(to_alice, std::iter::empty()));
    match sent {
        Ok(()) => gather(alice, bob, forget),
        Err(e) => Replies { outcome: Err(e), usable: false },
    }
}

fn gather(alice: &mut Evaluator, bob: &mut Evaluator, forget: impl FnOnce()) -> Replies {
    let (mut from_alice, mut from_bob) = (None, None);
    let first_is_alice = loop {
        if let Some(got) = look(alice, LISTEN) {
            from_alice = Some(got);
            break true;
        }
        if let Some(got) = look(bob, GLANCE) {
            from_bob = Some(got);
            break false;
        }
    };
    let first = from_alice.as_ref().or(from_bob.as_ref());
    let failed = first.is_none_or(|f| f.is_err());
    if first_is_alice && matches!(first, Some(Err(ClientError::Refused { .. }))) {
        forget();
    }
    let deadline = Instant::now() + if failed { AFTER_FAILURE } else { AFTER_ANSWER };
    let from_alice = from_alice.unwrap_or_else(|| alice.reply_by(deadline).and_then(|g| accepted(alice, g)));
    let from_bob = from_bob.unwrap_or_else(|| bob.reply_by(deadline).and_then(|g| accepted(bob, g)));
    let in_step = |r: &Result<Got, ClientError>| matches!(r, Ok(_) | Err(ClientError::Refused { .. }));
    let usable = in_step(&from_alice) && in_step(&from_bob);
    let (first, second) = if first_is_alice { (from_alice, from_bob) } else { (from_bob, from_alice) };
    let outcome = match (first, second) {
        (Ok(a), Ok(b)) => Ok(if first_is_alice { [a, b] } else { [b, a] }),
        (Err(a), Err(b)) => Err(if explains(&b, &a) { b } else { a }),
        (Err(e), Ok(_)) | (Ok(_), Err(e)) => Err(e),
    };
    Replies { outcome, usable }
}

/// Whether `second` says more than `first`: a server seen dead says more than the other one's complaint about it.
fn explains(second: &ClientError, first: &ClientError) -> bool {
    let complaint = matches!(first, ClientError::Refused { why: Refusal::Unavailable, .. });
    complaint && matches!(second, ClientError::Lost { .. })
}

fn look(e: &mut Evaluator, wait: Duration) -> Option<Result<Got, ClientError>> {
    let got = e.reply(wait).transpose()?;
    Some(got.and_then(|g| accepted(e, g)))
}

/// A refusal as the error that it is.
pub(crate) fn accepted(e: &Evaluator, (reply, payload): Got) -> Result<Got, ClientError> {
    match reply {
        Reply::Refused { why, reason } => Err(ClientError::Refused { party: e.party, why, reason }),
        reply => Ok((reply, payload)),
    }
}
