//! # gatepost-receiver: for programs that receive webhooks from Gatepost
//!
//! Headers, raw body and secrets go in; a [`Message`] with its events comes out, or the precise
//! [`Error`]. No network, no runtime, no framework: whatever HTTP library is at hand gives the parts,
//! and takes a [`Reply`]. With the feature `axum` handlers get what was verified, and nothing else.
//!
//! ```
//! use gatepost_receiver::Receiver;
//! # use gatepost_receiver::http::HeaderMap;
//!
//! # fn receive(headers: HeaderMap, body: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let receiver = Receiver::standard().secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD").build()?;
//!
//! let message = receiver.receive(&headers, body)?; // the bytes as they came, before any parsing
//! for event in &message.events {
//!     println!("{} {} {}", event.id, event.kind, event.data_text().unwrap_or("(no data)"));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | | |
//! |---|---|
//! | [`Receiver`] | verifies and takes apart: every profile, signing scheme and form Gatepost sends; answers challenges |
//! | [`Once`], [`Store`], [`Memory`] | does nothing twice |
//! | [`hook::HookReceiver`] | blocking hooks: questions, typed answers, signed |
//! | `extract` (feature `axum`) | extractors |
//!
//! What it keeps to: signatures are judged over the raw bytes and compared in constant time; headers
//! are found in any case, and one that decides something may be there once; what a stranger sends costs
//! a bounded time (body, number of signatures, length of tokens) and is parsed only once it is verified;
//! no error, and no `Debug`, repeats a secret or what an event is about.
//!
//! To add a scheme: a file in `scheme/`, a line in `Verifier` and in `Scheme`; to add a form: a function
//! in `format.rs`.

mod challenge;
mod error;
#[cfg(feature = "axum")]
pub mod extract;
mod format;
mod headers;
pub mod hook;
mod json;
mod key;
mod message;
mod once;
mod receiver;
mod reply;
mod scheme;

/// The types of headers, statuses and methods used here.
pub use http;

pub use error::{BadSecret, BuildError, Error};
pub use format::Format;
pub use headers::{Found, Headers};
pub use message::{Event, Message, Subject};
pub use once::{Claim, Memory, NotDone, Once, Ran, Store};
pub use receiver::{BODY_MAX, Builder, Proof, Receiver, Scheme, TOLERANCE};
pub use reply::Reply;

/// The lines of the documentation, run.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../../../docs/receivers.md")]
mod documentation {}
