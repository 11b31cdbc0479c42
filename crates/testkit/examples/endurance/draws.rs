//! The ledger of all parties over all their lives: no address drawn twice, no lot in two sessions.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::Path;

use trefoil_prg::Party;

/// What the ledgers hold.
#[derive(Default)]
pub(crate) struct Draws {
    /// Draws of alice, bob and carol.
    pub(crate) drawn: [u64; 3],
    /// Lots that anyone drew of.
    pub(crate) lots: usize,
    /// What is wrong, if anything.
    pub(crate) faults: Vec<String>,
}

/// An address in 128 bits: two of ten million different ones agree with a probability below 2^-80.
fn mark(line: &str) -> u128 {
    let half = |which: u8| {
        let mut h = DefaultHasher::new();
        (which, line).hash(&mut h);
        u128::from(h.finish())
    };
    half(0) << 64 | half(1)
}

/// Reads what the servers in `folder` wrote down before each draw.
pub(crate) fn read(folder: &Path) -> std::io::Result<Draws> {
    let mut all = Draws::default();
    let mut sessions: HashMap<u64, u64> = HashMap::new();
    for party in Party::ALL {
        let mut marks = Vec::new();
        for line in BufReader::new(File::open(folder.join(format!("{party}.draws")))?).lines() {
            let line = line?;
            let mut words = line.split(' ');
            let lot = words.next().and_then(|l| l.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
            let session = mark(words.next().unwrap_or_default()) as u64;
            if *sessions.entry(lot).or_insert(session) != session {
                all.faults.push(format!("{party} used lot {lot} in another session too"));
            }
            marks.push(mark(&line));
        }
        all.drawn[party as usize] = marks.len() as u64;
        marks.sort_unstable();
        let twice = marks.windows(2).filter(|w| w[0] == w[1]).count();
        if twice > 0 {
            all.faults.push(format!("{party} drew {twice} addresses twice"));
        }
    }
    all.lots = sessions.len();
    all.faults.truncate(20);
    Ok(all)
}
