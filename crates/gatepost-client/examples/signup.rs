//! A sign-up that asks first and tells afterwards.
//!
//! ```text
//! GATEPOST_URL=http://127.0.0.1:8080 GATEPOST_KEY=gp_… cargo run -p gatepost-client --example signup -- acme ada
//! ```

use std::time::Duration;

use gatepost_client::{Client, Event, Fallback, Outcome, Question, Source};
use serde_json::json;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (tenant, login) = (args.next().unwrap_or("acme".into()), args.next().unwrap_or("ada".into()));
    let url = std::env::var("GATEPOST_URL").unwrap_or("http://127.0.0.1:8080".into());
    let gatepost = Client::builder(url, std::env::var("GATEPOST_KEY")?)
        // Sign-ups go on without Gatepost; an import is better stopped than done unchecked.
        .fallback("createUser", Fallback::Allow)
        .fallback("importUsers", Fallback::deny("GATEPOST_UNREACHABLE", "Please start the import again later."))
        .build()?;
    let tenant = gatepost.tenant(tenant);

    // Ask: hooks may refuse the user, or change it.
    let user = json!({ "login": login });
    let question = Question::new().subject("user", login.as_str()).object(json!({ "user": user }));
    let answer = tenant.operation("createUser", &question, Duration::from_millis(800)).await;
    if let Source::Fallback(why) = &answer.source {
        eprintln!("Gatepost was not heard ({why}); going on with the fallback");
    }
    if !answer.is_allowed() {
        println!("refused: {}", answer.first_message().unwrap_or("no reason given"));
        return Ok(());
    }
    let user = answer.object.as_ref().map_or(&user, |object| &object["user"]);

    // Do it (here: print it), then say so: post events and the webhooks hear of it.
    println!("created {user}");
    if let Some(invocation) = &answer.id {
        tenant.outcome(invocation, &Outcome::committed().object(json!({ "user": user }))).await?;
    }
    let event = Event::new("user.created", user.clone()).subject("user", login);
    let published = tenant.publish(&event).await?;
    println!("published {} to {} webhooks", published.id, published.deliveries);
    Ok(())
}
