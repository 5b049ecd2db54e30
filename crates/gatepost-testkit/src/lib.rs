//! # gatepost-testkit: the world around Gatepost, scripted
//!
//! For tests only. [`Receiver`] is a real HTTP server on loopback that behaves as badly as it is
//! told to and remembers everything it was sent, in what order and on which connection.
//! [`TokenServer`] grants OAuth 2.0 tokens. [`TestCa`] makes certificates, good and bad. [`ManualClock`] and [`SeededEntropy`] stand for time
//! and chance. [`ClosedPort`] and [`Blackhole`] are addresses where nobody answers.
//!
//! Nothing here waits by sleeping: a test waits for something to have happened
//! ([`Receiver::wait_for`]) and holds something back until it says so ([`Gate`]).

mod ca;
mod nowhere;
mod oauth;
mod receiver;
mod script;
mod serve;
mod time;

pub use ca::{Cert, ClientCert, Signer, TestCa};
pub use nowhere::{Blackhole, ClosedPort};
pub use oauth::TokenServer;
pub use receiver::{Received, Receiver, ReceiverBuilder};
pub use script::{Answer, Gate, Script};
pub use time::{ManualClock, SeededEntropy};
