//! Blocking hooks: questions whose answer decides.
//!
//! A platform asks at a *point* before it acts; the tenant's *hooks* there are asked in turn (the
//! *chain*), and one *decision* comes back, within its budget, whatever receivers do (P9).
//!
//! Everything here is a function of its arguments. The engine does the waiting, in this order:
//! [`invocation::read`] → [`plan::PlannedHook`] (made at load) → [`chain::Chain::new`] → repeat
//! [`chain::Chain::ready`] (calls to make now), [`chain::Chain::settle`] (one call's result) until
//! [`chain::Chain::is_done`] → [`chain::Chain::finish`] → [`decision::Decision::render`].
//!
//! To add a dialect: one file in `codec/`, one line in [`codec::all`].

pub mod breaker;
pub mod budget;
pub mod chain;
pub mod change;
pub mod codec;
pub mod condition;
pub mod decision;
pub mod failure;
pub mod hook;
pub mod invocation;
pub mod json;
pub mod json_patch;
pub mod lint;
pub mod observe;
pub mod outcome;
pub mod plan;
pub mod point_write;
pub mod points;
mod reader;
pub mod redact;
pub mod retry;
pub mod secrets;
mod value;

pub use crate::cloudevents::FieldError;
