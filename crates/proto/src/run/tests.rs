//! Runs that make sense, runs that do not, and the way through one.
