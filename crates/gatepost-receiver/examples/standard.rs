//! A receiver for webhooks of profile `standard`: single events and batches, a rotation of secrets,
//! nothing done twice.
//!
//! `WEBHOOK_SECRETS="whsec_… whsec_…" cargo run -p gatepost-receiver --features axum --example standard`

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, State};
use axum::routing::post;
use gatepost_receiver::extract::Verified;
use gatepost_receiver::{BuildError, Event, Memory, Once, Receiver, Reply};

/// What is done for an event.
pub(crate) type Work = Arc<dyn Fn(&Event) -> Result<(), String> + Send + Sync>;

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

/// Any of the secrets is enough: both, while a rotation overlaps.
pub(crate) fn app(secrets: &str, work: Work) -> Result<Router, BuildError> {
    let builder = secrets.split_whitespace().fold(Receiver::standard(), |builder, secret| builder.secret(secret));
    let app = App { receiver: builder.build()?, once: Arc::new(Once::new(Memory::new())), work };
    Ok(Router::new().route("/hooks", post(receive)).with_state(app))
}

async fn receive(State(app): State<App>, Verified(message): Verified) -> Reply {
    if message.is_ping() {
        return Reply::accepted();
    }
    // Of a batch that comes again only what was not done is done.
    for event in &message.events {
        match app.once.run(&event.key(), || async { (app.work)(event) }).await {
            Ok(ran) if ran.is_done() => {}
            _ => return Reply::try_again(),
        }
    }
    Reply::accepted()
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let work: Work = Arc::new(|event| {
        println!("{} {} {}", event.id, event.kind, event.data_text().unwrap_or("(no data)"));
        Ok(())
    });
    let app = app(&std::env::var("WEBHOOK_SECRETS")?, work)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
