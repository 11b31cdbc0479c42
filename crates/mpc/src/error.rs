//! What can stop a protocol run, and whose fault it is.

use thiserror::Error;
use trefoil_link::LinkError;

use crate::program::ProgramError;

/// A protocol run that could not be completed. Nothing was opened that the program does not name.
#[derive(Debug, Error)]
pub enum MpcError {
    /// The link to another party failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The program is not valid.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A value given by the caller does not fit the program.
    #[error("{what}: expected {expected}, got {got}")]
    Input {
        /// Which value.
        what: String,
        /// What the program needs.
        expected: String,
        /// What was given.
        got: String,
    },
    /// What the producer dealt does not fit the program.
    #[error("carol misbehaved: {0}")]
    Dealt(String),
    /// Material of one lot was used with another program, batch or step.
    #[error("material does not fit: {0}")]
    Material(String),
    /// An address coordinate is used up.
    #[error("more draws than an address can name: {0}")]
    AddressOverflow(&'static str),
}
