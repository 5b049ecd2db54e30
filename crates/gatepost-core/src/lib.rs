//! # gatepost-core: names and rules
//!
//! Everything Gatepost *knows*, nothing it *does*. Typed ids, events, webhooks, deliveries and
//! attempts; which webhooks an event matches; how a body is rendered and signed; what an answer
//! means and when the next attempt is due.
//!
//! Contract: every public function is a function of its arguments. Time and randomness come in
//! as parameters ([`Clock`], [`Entropy`]); there is no runtime, no socket, no file and no SQL in
//! this crate. Decisions leave as values, so a test is a table.
//!
//! The rules follow `DESIGN` section 4; where a rule comes from an outside standard, the item's
//! documentation names it.

pub mod auth;
pub mod callback;
pub mod catalogue;
pub mod clock;
pub mod cloudevents;
pub mod delivery;
pub mod echo;
pub mod event;
pub mod filter;
pub mod grouping;
pub mod hashing;
pub mod health;
pub mod hooks;
pub mod http_versions;
pub mod ids;
pub mod json;
pub mod matching;
pub mod nearest;
pub mod own_events;
pub mod pattern;
pub mod profiles;
pub mod retry;
pub mod schema;
pub mod seal;
pub mod secret;
pub mod signing;
pub mod standing;
pub mod tenant;
pub mod time;
pub mod trace;
pub mod webhook;

pub use clock::{Clock, Entropy, Waits};
pub use ids::*;
pub use time::Timestamp;
