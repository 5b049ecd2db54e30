//! What a receiver sent that no answer may be made of.

use std::fmt;

use super::head::{MAX_HEAD, MAX_LINES};

/// Heads before the answer that are read: `100 Continue` and a few hints.
pub(super) const MAX_INTERIM: u8 = 16;

/// The header lines that say where an answer's body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::net) enum Framing {
    Length,
    Encoding,
}

/// Why an answer cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::net) enum Fault {
    Nul,
    StatusLine,
    Malformed(Framing),
    Folded(Framing),
    LengthsDiffer,
    LengthAndEncoding,
    EncodingInOld,
    ManyLines,
    LargeHead,
    ManyInterim,
    LargeInterim,
    Flood,
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Framing::Length => "Content-Length",
            Framing::Encoding => "Transfer-Encoding",
        })
    }
}

impl fmt::Display for Fault {
    /// One line for the receiver's owner.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Nul => f.write_str("the answer cannot be used: its head has a NUL character"),
            Fault::StatusLine => f.write_str("the answer cannot be used: its status line has a control character"),
            Fault::Malformed(line) => write!(f, "the answer cannot be used: its {line} line is malformed"),
            Fault::Folded(line) => write!(f, "the answer cannot be used: its {line} line goes over several lines"),
            Fault::LengthsDiffer => f.write_str("the answer cannot be used: its Content-Length lines contradict"),
            Fault::LengthAndEncoding => {
                f.write_str("the answer cannot be used: it has both Content-Length and Transfer-Encoding")
            }
            Fault::EncodingInOld => {
                f.write_str("the answer cannot be used: it is HTTP/1.0, which has no Transfer-Encoding, and has one")
            }
            Fault::ManyLines => write!(f, "the answer cannot be used: it has more than {MAX_LINES} header lines"),
            Fault::LargeHead => {
                write!(f, "the answer cannot be used: its headers take more than {} KiB", MAX_HEAD / 1024)
            }
            Fault::ManyInterim => write!(f, "more than {MAX_INTERIM} interim answers (1xx) came before the answer"),
            Fault::LargeInterim => {
                write!(f, "more than {} KiB of interim answers (1xx) came before the answer", MAX_HEAD / 1024)
            }
            Fault::Flood => f.write_str("the receiver sends many more HTTP/2 frames than an answer takes"),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for std::io::Error {
    fn from(fault: Fault) -> Self {
        std::io::Error::other(fault)
    }
}
