//! # gatepost-client: Gatepost for platforms written in Rust
//!
//! Two things a platform does: it **publishes** what happened, and it **asks** before it acts.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use gatepost_client::{Client, Event, Fallback, Question};
//! use serde_json::json;
//!
//! let gatepost = Client::builder("https://gatepost.internal:8080", "gp_key…")
//!     // What stands when Gatepost cannot be reached in time; unset, the platform goes on as if no
//!     // hook had answered (and `runDeprovision` does nothing).
//!     .fallback("validateUpdateUser", Fallback::deny("TRY_AGAIN_LATER", "This cannot be changed just now."))
//!     .build()?;
//! let acme = gatepost.tenant("acme");
//!
//! let question = Question::new().subject("user", "u_1").object(json!({"user": {"login": "ada"}}));
//! let answer = acme.invoke("validateUser", &question, Duration::from_millis(800)).await;
//! if !answer.is_allowed() {
//!     return Err(answer.first_message().unwrap_or("refused").into());
//! }
//!
//! let event = Event::new("user.created", json!({"login": "ada"})).subject("user", "u_1");
//! let published = acme.publish(&event).await?;
//! println!("{} has {} deliveries", published.id, published.deliveries);
//! # Ok(())
//! # }
//! ```
//!
//! Contract:
//! - [`Tenant::invoke`] **always answers, within the deadline it was given**: with Gatepost's decision, or
//!   with the local [`Fallback`] of the point and the reason it was needed. It has no error to forget.
//! - [`Tenant::publish`] gives every event its id *before* the first try, so that trying again can never
//!   make two of it; it tries until Gatepost has accepted, has refused, or the time for publishing
//!   ([`ClientBuilder::publish_for`]) is over. `Ok` means: it is on disk there.
//! - Nothing here panics, logs, or spawns a task of its own but the connections'.

mod answer;
mod client;
mod error;
mod event;
mod question;
mod tenant;
mod transport;

pub use answer::{Answer, Fallback, Message, Source, Verdict};
pub use client::{Client, ClientBuilder};
pub use error::{BuildError, Problem, PublishError, Unanswered, Wrong};
pub use event::{Event, Published, Urgency};
pub use question::{Outcome, Question};
pub use tenant::Tenant;
