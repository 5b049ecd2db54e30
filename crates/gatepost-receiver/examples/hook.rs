//! A receiver of blocking hooks, profile `gatepost`: it refuses, changes, gives values, and signs what
//! it says.
//!
//! `HOOK_SECRET=whsec_… cargo run -p gatepost-receiver --features axum --example hook`

use axum::Router;
use axum::routing::post;
use gatepost_receiver::extract::Asked;
use gatepost_receiver::hook::{Answer, AnswerError, HookReceiver, Note, Patch, Question};
use gatepost_receiver::{BuildError, Reply};

pub(crate) fn app(secret: &str) -> Result<Router, BuildError> {
    let hook = HookReceiver::gatepost().secret(secret).build()?;
    Ok(Router::new().route("/ask", post(answer)).with_state(hook))
}

/// No side effects: the platform may still not go through with it.
async fn answer(Asked(question): Asked) -> Result<Reply, AnswerError> {
    question.reply(decide(&question))
}

fn decide(question: &Question) -> Answer {
    let user = &question.object["user"];
    match question.point.as_str() {
        "preCreateUser" if user["country"].is_null() => Answer::patch(Patch::new().add("/user/country", "India")),
        "validateUser" if user["mobile"] == "123" => {
            Answer::deny(Note::new("taken").text("This number is another user's.").path("/user/mobile"))
        }
        "policyMap" => match user["login"].as_str() {
            Some(login) => Answer::value(format!("{login}@example.com")),
            None => Answer::allow(),
        },
        "runDeprovision" => Answer::gate(user["userType"] == "Contractor"),
        _ => Answer::allow(),
    }
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = app(&std::env::var("HOOK_SECRET")?)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}
