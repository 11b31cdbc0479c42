//! Networks: graph, clear evaluation, passes, range analysis, and compilation to a program for the servers.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod graph;
