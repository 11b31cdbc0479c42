//! What a test kit may attach to a server: it hears of draws and of the points that a request passes.
//!
//! A deployed server has none.

use std::sync::Arc;

use trefoil_prg::Ledger;

/// A point in the life of a request or an upload, for tests that end the process there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// All parties agreed; nothing is burnt or drawn.
    Agreed,
    /// The lot is burnt on disk; nothing is drawn.
    Burnt,
    /// The evaluation begins; no dependent byte has left.
    Begun,
    /// The evaluation is done; the answer has not left.
    Evaluated,
    /// The model is staged; nobody has committed.
    Staged,
    /// This party has committed the model.
    Committed,
    /// A piece of an owner's part of a data set is on bob's disk; others may follow.
    Piece,
    /// A batch of rows has become features, which are in memory alone.
    Extracted,
    /// One step of a training run is done; its states are in memory alone.
    Stepped,
    /// A training run's states are on disk.
    Saved,
    /// This party's part of a value that a run reveals is on disk.
    Shown,
}

/// Listens to a server under test.
pub trait Probe: Send + Sync {
    /// Called at each point; may end the process.
    fn reached(&self, point: Point);

    /// Where draws are recorded.
    fn ledger(&self) -> Option<Arc<dyn Ledger>>;
}
