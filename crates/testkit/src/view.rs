//! What each party sees of a request, as positions and words.

use trefoil_mpc::MpcError;

use crate::record::{Frame, frames};
use crate::uniform::Place;
use crate::world::{Answer, Links, Shared, World};

/// Sent or not, tag and length of every frame: what must not depend on input or model.
pub type Shape = Vec<(bool, u32, usize)>;

/// One request as its parties saw it.
pub struct Seen {
    /// Frames at alice.
    pub alice: Vec<Frame>,
    /// Frames at bob: the producer's, then alice's.
    pub bob: Vec<Frame>,
    /// Frames that carol received: there must be none.
    pub carol: Vec<Frame>,
    /// What the parties ended with.
    pub answer: Answer,
}

impl Seen {
    /// Runs one request over `links`, recording every end.
    pub fn run(world: &mut World, model: &Shared, batch: usize, input: &[u64], links: Links) -> Result<Self, MpcError> {
        let (mut links, t) = links.recorded();
        let answer = world.run_over(model, batch, input, &mut links)?;
        let mut bob = frames(&t.dealt);
        bob.extend(frames(&t.bob));
        let carol = frames(&t.carol).into_iter().filter(|f| !f.sent).collect();
        Ok(Self { alice: frames(&t.alice), bob, carol, answer })
    }
}

/// Direction, tag and length of every frame.
pub fn shape(frames: &[Frame]) -> Shape {
    frames.iter().map(|f| (f.sent, f.tag, f.bytes.len())).collect()
}

/// The words of the frames, and their positions' names; `sent` tells whether what the party sent counts too.
pub fn words(frames: &[Frame], sent: bool) -> (Vec<Place>, Vec<u64>) {
    let (mut places, mut words) = (vec![], vec![]);
    for (i, f) in frames.iter().enumerate().filter(|(_, f)| sent || !f.sent) {
        let way = if f.sent { "sent" } else { "received" };
        for (w, chunk) in f.bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            places.push(Place {
                name: format!("frame {i} {way} with tag {:#x}, word {w}", f.tag),
                width: 8 * chunk.len() as u32,
            });
            words.push(u64::from_le_bytes(word));
        }
    }
    (places, words)
}

/// What an evaluator's exchanges opened, word by word: sums (of ring elements) and XORs (of bits) of the frame it sent
/// and the one it received.
pub fn opened(frames: &[Frame]) -> (Vec<Place>, Vec<u64>, Vec<u64>) {
    let (mut places, mut sums, mut xors) = (vec![], vec![], vec![]);
    for (i, pair) in frames.windows(2).enumerate() {
        let [a, b] = pair else { continue };
        if !a.sent || b.sent || a.tag != b.tag || a.bytes.len() != b.bytes.len() {
            continue;
        }
        for (w, (x, y)) in a.bytes.as_chunks().0.iter().zip(b.bytes.as_chunks().0).enumerate() {
            let (x, y) = (u64::from_le_bytes(*x), u64::from_le_bytes(*y));
            places.push(Place { name: format!("frame {i} opened with tag {:#x}, word {w}", a.tag), width: 64 });
            sums.push(x.wrapping_add(y));
            xors.push(x ^ y);
        }
    }
    (places, sums, xors)
}

/// The elements of a payload of values of `bits` bits (a multiple of 8), as positions of the client's view.
pub fn elements(payload: &[u8], bits: u32, from: &str) -> (Vec<Place>, Vec<u64>) {
    let element = |(i, chunk): (usize, &[u8])| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (Place { name: format!("element {i} from {from}"), width: bits }, u64::from_le_bytes(word))
    };
    payload.chunks(bits as usize / 8).enumerate().map(element).unzip()
}
