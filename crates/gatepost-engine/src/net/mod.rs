//! The only door to the outside: every request Gatepost makes to anybody goes through [`Client`].
//!
//! What it promises (P8, P10):
//! - A URL is read strictly ([`Target`]); odd spellings of hosts are refused, not interpreted.
//! - A name is resolved once per connection, every address is judged ([`EgressPolicy`]), only judged
//!   addresses are dialled, the peer is checked, and a kept connection's peer is judged again for
//!   each request. TLS verifies the name; nothing turns that off.
//! - No redirect is followed and no proxy variable is read.
//! - An exchange ends within its timeout and holds a bounded amount of memory, whatever the receiver
//!   does: what comes in is measured, counted and judged before a library reads it (`inlet`). Once a
//!   status line and headers have arrived they are the answer.
//! - A failure is data ([`Exchange`]). Its text is made for the tenant: it helps, and it never names
//!   an address that was resolved.

mod client;
mod connect;
mod failure;
mod headers;
mod identity;
mod inlet;
mod keep_alive;
mod limits;
mod policy;
mod pool;
mod race;
mod resend;
mod resolve;
#[cfg(any(test, feature = "testing"))]
mod scripted;
mod sessions;
mod target;
#[cfg(test)]
mod tests;
mod tls;
mod versions;
mod wire;

pub use client::{Client, ClientOptions, Exchange, OutgoingRequest};
pub(crate) use client::{KEPT_BODY, always_said};
pub use headers::Headers;
pub use identity::{BadIdentity, ClientIdentity};
pub use policy::{Blocked, EgressPolicy};
pub use resend::{Resend, Tries};
pub use resolve::{Resolve, ResolveError, SystemResolver};
#[cfg(any(test, feature = "testing"))]
pub use scripted::{Answer, ScriptedResolver};
pub use target::{BadUrl, Host, MAX_URL, Scheme, Target};
pub use tls::TlsSetupError;
