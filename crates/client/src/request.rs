//! One request to both evaluators: sent to both, then both replies, whichever comes first.

use std::time::{Duration, Instant};

use trefoil_proto::control::{Refusal, Reply, Request, RequestId};

use crate::ClientError;
use crate::evaluator::Evaluator;

/// How long alice's connection is listened to before bob's is looked at.
const LISTEN: Duration = Duration::from_millis(20);
/// How long bob's is.
const GLANCE: Duration = Duration::from_millis(1);
/// How long bob may take to say himself what failed when alice says that something did.
const OWN_WORD: Duration = Duration::from_millis(300);
/// How long a request may take: a little more than the servers allow themselves.
const LONGEST: Duration = Duration::from_secs(660);
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

/// One request in its two forms.
pub(crate) struct Asked<'a> {
    /// Alice's and bob's.
    pub(crate) requests: [&'a Request; 2],
    /// Its label.
    pub(crate) id: RequestId,
    /// The frames that follow bob's.
    pub(crate) shares: &'a [&'a [u8]],
    /// The longest answer that either may send.
    pub(crate) longest: usize,
}

/// Sends each evaluator its request; bob's comes with the shares. `forget` is called once if alice refuses: bob, who
/// waits for her word, is to be told on another connection.
pub(crate) fn ask_both([alice, bob]: &mut [Evaluator; 2], asked: &Asked<'_>, forget: impl FnOnce()) -> Replies {
    let [to_alice, to_bob] = asked.requests;
    let sent = bob.ask(to_bob, asked.shares, asked.longest).and_then(|()| alice.ask(to_alice, &[], asked.longest));
    match sent {
        Ok(()) => gather(alice, bob, forget),
        Err(e) => Replies { outcome: Err(e), usable: false },
    }
}

/// Sends alice her request after bob has had all of his, and gathers both replies.
pub(crate) fn send_alice([alice, bob]: &mut [Evaluator; 2], request: &Request, forget: impl FnOnce()) -> Replies {
    match alice.ask(request, &[], 0) {
        Ok(()) => gather(alice, bob, forget),
        Err(e) => Replies { outcome: Err(e), usable: false },
    }
}

fn gather(alice: &mut Evaluator, bob: &mut Evaluator, forget: impl FnOnce()) -> Replies {
    let (mut from_alice, mut from_bob) = (None, None);
    let began = Instant::now();
    let first_is_alice = loop {
        if began.elapsed() > LONGEST {
            break true;
        }
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
    let refusal = match first {
        Some(Err(ClientError::Refused { why, .. })) if first_is_alice => Some(*why),
        _ => None,
    };
    if refusal == Some(Refusal::Unavailable) {
        from_bob = look(bob, OWN_WORD);
    }
    let told = refusal.is_some() && from_bob.is_none();
    if told {
        forget();
    }
    let deadline = Instant::now() + if failed { AFTER_FAILURE } else { AFTER_ANSWER };
    let from_alice = from_alice.unwrap_or_else(|| alice.reply_by(deadline).and_then(|g| accepted(alice, g)));
    let from_bob = from_bob.unwrap_or_else(|| bob.reply_by(deadline).and_then(|g| accepted(bob, g)));
    let in_step = |r: &Result<Got, ClientError>| matches!(r, Ok(_) | Err(ClientError::Refused { .. }));
    let usable = in_step(&from_alice) && in_step(&from_bob);
    let outcome = match (from_alice, from_bob) {
        (Ok(a), Ok(b)) => Ok([a, b]),
        (Err(a), Err(_)) if told => Err(a),
        (Err(a), Err(b)) if first_is_alice => Err(explained(a, b)),
        (Err(a), Err(b)) => Err(explained(b, a)),
        (Err(e), Ok(_)) | (Ok(_), Err(e)) => Err(e),
    };
    Replies { outcome, usable }
}

/// What two failures amount to: a server seen dead says more than the other one's complaint about it, and of two
/// complaints either may name the cause.
fn explained(first: ClientError, second: ClientError) -> ClientError {
    use ClientError::{Lost, Refused};
    let unavailable = Refusal::Unavailable;
    match (first, second) {
        (Refused { why, .. }, second @ Lost { .. }) if why == unavailable => second,
        (Refused { party, why, reason }, Refused { party: other, why: and, reason: more })
            if (why, and) == (unavailable, unavailable) && reason != more =>
        {
            Refused { party, why, reason: format!("{reason} ({other}: {more})") }
        }
        (first, _) => first,
    }
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
