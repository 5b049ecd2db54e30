//! The receiver of FerrisKey's documentation, done right: it believes only what is signed, knows each
//! event's data, does nothing twice, and acknowledges only what is done.
//!
//! `FERRISKEY_SECRET=… cargo run -p gatepost-receiver --features axum --example ferriskey`

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::routing::post;
use gatepost_receiver::extract::Verified;
use gatepost_receiver::{BuildError, Event, Memory, Once, Receiver, Reply};
use serde::Deserialize;

/// What is done for an event.
pub(crate) type Work = Arc<dyn Fn(Trigger) -> Result<(), String> + Send + Sync>;

/// The events this receiver acts on.
pub(crate) enum Trigger {
    UserCreated { id: String, user: User },
    UserDeleted { id: String },
}

#[derive(Deserialize)]
pub(crate) struct User {
    pub(crate) username: String,
}

impl Trigger {
    /// `Ok(None)`: an event this receiver has nothing to do for; new ones may come at any time.
    fn of(event: &Event) -> Result<Option<Trigger>, serde_json::Error> {
        let id = event.subject.as_ref().map(|subject| subject.id.clone()).unwrap_or_default();
        Ok(match event.kind.as_str() {
            "user.created" => Some(Trigger::UserCreated { id, user: event.data()? }),
            "user.deleted" => Some(Trigger::UserDeleted { id }),
            _ => None,
        })
    }
}

#[derive(Clone)]
struct App {
    receiver: Receiver,
    once: Arc<Once<Memory>>,
    work: Work,
}

impl FromRef<App> for Receiver {
    fn from_ref(app: &App) -> Receiver {
        app.receiver.clone()
    }
}

pub(crate) fn app(secret: &str, work: Work) -> Result<Router, BuildError> {
    let receiver = Receiver::ferriskey().secret(secret).build()?;
    let app = App { receiver, once: Arc::new(Once::new(Memory::new())), work };
    Ok(Router::new().route("/webhook", post(handle_webhook)).with_state(app))
}

async fn handle_webhook(State(app): State<App>, Verified(message): Verified) -> Reply {
    for event in &message.events {
        let key = event.key();
        let ran = app.once.run(&key, || async {
            match Trigger::of(event).map_err(|problem| problem.to_string())? {
                Some(trigger) => (app.work)(trigger),
                None => Ok(()),
            }
        });
        // What failed, or is being done by a twin, comes again.
        match ran.await {
            Ok(ran) if ran.is_done() => {}
            Ok(_) => return Reply::try_again(),
            Err(problem) => {
                eprintln!("{}: {problem}", event.kind);
                return Reply::try_again();
            }
        }
    }
    Reply::accepted()
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let work: Work = Arc::new(|trigger| {
        match trigger {
            Trigger::UserCreated { id, user } => println!("created {id}: {}", user.username),
            Trigger::UserDeleted { id } => println!("deleted {id}"),
        }
        Ok(())
    });
    let app = app(&std::env::var("FERRISKEY_SECRET")?, work)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
