//! Proxies before the servers that keep every frame: what clients are handed out and servers show each other.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use trefoil_link::frame::{HEADER, decode, encode};
use trefoil_proto::control::{self, Opening, Reply, Request, tag};

/// A frame and whether the caller sent it.
pub(crate) struct Frame {
    pub(crate) called: bool,
    pub(crate) tag: u32,
    pub(crate) payload: Vec<u8>,
}

/// The frames of one connection in their order.
pub(crate) type Connection = Arc<Mutex<Vec<Frame>>>;

/// A proxy before one server.
pub(crate) struct Tap {
    pub(crate) address: String,
    connections: Arc<Mutex<Vec<Connection>>>,
}

impl Tap {
    /// Listens on a free port and passes everything on to `target`.
    pub(crate) fn before(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections: Arc<Mutex<Vec<Connection>>> = Arc::default();
        let (all, target) = (connections.clone(), target.to_owned());
        thread::spawn(move || {
            for caller in listener.incoming().map_while(Result::ok) {
                // A server that is not there yet: the caller tries again.
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let kept = Connection::default();
                all.lock().unwrap().push(kept.clone());
                for (called, from, to) in [(true, &caller, &server), (false, &server, &caller)] {
                    let (from, to, kept) = (from.try_clone().unwrap(), to.try_clone().unwrap(), kept.clone());
                    thread::spawn(move || pass_on(called, from, to, &kept));
                }
            }
        });
        Self { address, connections }
    }

    /// The connections whose opening is this one.
    fn opened(&self, wanted: impl Fn(&Opening) -> bool) -> Vec<Connection> {
        let all = self.connections.lock().unwrap().clone();
        all.into_iter().filter(|c| opening(&c.lock().unwrap()).is_some_and(|o| wanted(&o))).collect()
    }

    /// Everything that clients were handed out so far: who, and by which request, with the length of the answer.
    pub(crate) fn handed_out(&self) -> Vec<(String, Request, usize)> {
        let mut out = vec![];
        for c in self.opened(|o| matches!(o, Opening::Client { .. })) {
            let frames = c.lock().unwrap();
            let Some(Opening::Client { name }) = opening(&frames) else { continue };
            let mut asked = None;
            for f in frames.iter().skip(1) {
                match (f.called, f.tag) {
                    (true, tag::REQUEST) => asked = Some(control::decode::<Request>("request", &f.payload).unwrap()),
                    (true, tag::SHARES) => {}
                    // Replies hold lists, specifications and reasons.
                    (false, tag::REPLY) => drop(control::decode::<Reply>("reply", &f.payload).unwrap()),
                    (false, tag::ANSWER) => out.push((name.clone(), asked.clone().unwrap(), f.payload.len())),
                    other => panic!("{other:?} on the connection of {name}"),
                }
            }
        }
        out
    }

    /// From now on nothing counts that travelled on servers' lanes before.
    pub(crate) fn forget_lanes(&self) {
        self.opened(|o| matches!(o, Opening::Lane { .. })).iter().for_each(|c| c.lock().unwrap().truncate(1));
    }

    /// Data that travelled on a server's lanes to this one, control aside: whether the caller sent it, tag, payload.
    pub(crate) fn between(&self, caller: &str) -> Vec<(bool, u32, Vec<u8>)> {
        let mut out = vec![];
        for c in self.opened(|o| matches!(o, Opening::Lane { party, .. } if party == caller)) {
            let frames = c.lock().unwrap();
            let data = frames.iter().filter(|f| f.tag < tag::OPENING && !f.payload.is_empty());
            out.extend(data.map(|f| (f.called, f.tag, f.payload.clone())));
        }
        out
    }

    /// The same, but for what the two showed each other in turn, and for what is dealt and passed on, which has the last
    /// tag of each step.
    pub(crate) fn one_way(&self, caller: &str) -> Vec<(bool, u32, usize)> {
        let all = self.between(caller).into_iter().filter(|(_, tag, _)| tag & 0xfff != 0xfff);
        let mut out: Vec<(bool, u32, usize)> = vec![];
        for (called, tag, payload) in all {
            let len = payload.len();
            match out.iter().position(|o| *o == (!called, tag, len)) {
                Some(at) => drop(out.remove(at)),
                None => out.push((called, tag, len)),
            }
        }
        out
    }
}

fn opening(frames: &[Frame]) -> Option<Opening> {
    let first = frames.first().filter(|f| f.called && f.tag == tag::OPENING)?;
    control::decode("opening", &first.payload).ok()
}

/// Passes frames on until one end is gone.
fn pass_on(called: bool, mut from: TcpStream, mut to: TcpStream, kept: &Connection) {
    let mut header = [0; HEADER];
    while from.read_exact(&mut header).is_ok() {
        let (tag, len) = decode(&header).unwrap();
        let mut payload = vec![0; len];
        if from.read_exact(&mut payload).is_err() {
            break;
        }
        let whole = [&encode(tag, len)[..], &payload].concat();
        // Kept before it is passed on: an answer never comes before what asked for it.
        kept.lock().unwrap().push(Frame { called, tag, payload });
        if to.write_all(&whole).is_err() {
            break;
        }
    }
    // The other end may be gone already.
    let _ = to.shutdown(std::net::Shutdown::Write);
}
