//! Masked evaluation with a crypto producer: the protocol of the project's design.
//!
//! A value x is held as delta = x + lambda, known to both evaluators, with lambda = lambda_A + lambda_B known to the
//! producer (Ben-Efraim, Nielsen, Omri 2019; Patra et al. 2021). A program runs in two phases:
//!
//! * **offline** ([`deal`] at the producer, [`prepare`] at the evaluators): depends on no input. Every step is
//!   written once, over the private trait `Dealing`, which the producer, alice, bob and a counter interpret; so
//!   all of them make the same draws and [`crate::cost`] counts what is sent, byte for byte.
//! * **online** ([`evaluate`] at the evaluators): opens, compares, and ends in the payload for the client.
//!
//! [`run`] does both in step with each other, for a request without material made ahead.
//!
//! A program that trains runs once for each batch, through the same phases: see [`training`] and [`rows`].

mod argmax;
mod bilinear;
mod bit;
mod compare;
mod dcf;
mod dealing;
mod evaluate;
pub mod helper;
pub mod input;
mod keyed;
mod layout;
mod likelihood;
pub(crate) mod local;
mod material;
mod online;
pub mod output;
mod pattern;
mod permuted;
mod piecewise;
mod point;
mod pool;
mod prepare;
mod product;
mod relu;
mod repeat;
pub mod rows;
mod run;
pub mod shuffle;
pub mod training;
mod truncate;
pub mod weights;

pub use evaluate::{Outcome, evaluate};
pub use material::Material;
pub use online::Role;
pub use prepare::{deal, prepare};
pub use run::run;
pub use weights::{EvaluatorWeights, ProducerWeights};

pub(crate) use bilinear::apply;
pub(crate) use dealing::At;
pub(crate) use evaluate::online_payloads;
pub(crate) use likelihood::{TABLE, softmax};
pub(crate) use pattern::pattern;
pub(crate) use prepare::{check, count_offline, count_step, linear_step};
pub(crate) use product::ProductStep;
