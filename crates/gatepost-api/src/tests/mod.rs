//! Tests of the crate as a whole: the reader's table, and the router over a real engine.

mod events;
mod http;
mod idempotency;
mod reader;
mod requests;
mod serving;
pub(crate) mod support;
