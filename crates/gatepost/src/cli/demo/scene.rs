//! What the demo plays. Everything is done through the HTTP API, as anybody would.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use gatepost_core::catalogue::CRYPTR_SAMPLE_EVENT;
use gatepost_core::secret::Secret;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::super::print;
use super::super::trigger::{Accepted, Event};
use super::stage::{FAILURES, FLAKY, Stage};
use crate::failure::{Failure, Outcome};
use crate::http_client::{Api, read};
use crate::keyfiles;
use crate::text::count;

/// How long everything may take to land.
const PATIENCE: Duration = Duration::from_secs(30);
/// Catalogue examples published: a dozen, something of every system.
const SHOWN: [&str; 12] = [
    "user.created",
    "user.deactivated",
    "credential.password_changed",
    "group.member_added",
    "dir_sync.user.provision.success",
    "sso_saml.user.login.success",
    "cymmetri.postCreateUser",
    "cymmetri.runDeprovision",
    "client.created",
    "realm.settings.updated",
    "user.lifecycle.create",
    "user.session.start",
];
/// The static header Okta's receivers know their sender by.
const OKTA_SECRET: &str = "a static secret of the demo";
/// The tenant everything belongs to.
const TENANT: &str = "demo";

/// What is shown of the server.
pub(super) struct Facts {
    pub(super) local_url: String,
    pub(super) url: String,
    pub(super) admin_key: Secret,
    pub(super) folder: PathBuf,
}

impl Facts {
    /// Where the admin key is kept.
    fn key_file(&self) -> String {
        self.folder.join(keyfiles::ADMIN_KEY).display().to_string()
    }
}

/// Plays, and stays for whoever wants to play on, unless it is to be only `once`.
///
/// # Errors
/// A delivery did not land in time, or its signature did not fit.
pub(super) async fn play(api: &Api, facts: &Facts, once: bool, json: bool) -> Outcome {
    let scene = Scene { api, json };
    let mut stage = Stage::new(json).await?;
    scene.say(
        &format!("Gatepost {} on {}, data in {}", env!("CARGO_PKG_VERSION"), facts.local_url, facts.folder.display()),
        json!({ "kind": "server", "url": facts.local_url, "admin_key_file": facts.key_file() }),
    )?;
    scene.put_tenant().await?;
    scene.heading("Two webhooks, registered by POST /v1/tenants/demo/webhooks")?;
    let everything = json!({ "name": "Everything", "events": ["all"] });
    let cloudevents = json!({
        "name": "People, as CloudEvents",
        "events": ["*"],
        "profile": "cloudevents",
        "filter": "type.startsWith('user.') || type.startsWith('dir_sync.user.')",
    });
    scene.register(&mut stage, "/everything", everything).await?;
    scene.register(&mut stage, "/cloudevents", cloudevents).await?;

    scene.heading("One for each system: its envelope, its signature, its addresses")?;
    scene.register_systems(&mut stage).await?;

    scene.heading("The sample event of Cryptr's document, and examples of the catalogue")?;
    let mut owed = scene.publish(&cryptr_sample()?).await?;
    owed += scene.publish_examples().await?;
    scene.await_all(&mut stage, owed).await?;

    scene.heading(&format!("Another webhook, whose receiver answers 503 {FAILURES} times and is tried again"))?;
    let flaky = json!({ "name": "Flaky", "events": ["session.revoked"], "retry": { "waits": [0.5, 1], "jitter": 0 } });
    scene.register(&mut stage, FLAKY, flaky).await?;
    owed += scene.publish_example("session.revoked").await?;
    scene.await_all(&mut stage, owed).await?;

    scene.say(
        &format!(
            "\n{} landed, every signature verified; {} on the way",
            count(owed, "delivery"),
            count(stage.retried().into(), "failed attempt")
        ),
        json!({ "kind": "summary", "deliveries": owed, "failed_attempts": stage.retried() }),
    )?;
    if once {
        return Ok(());
    }
    if !json {
        print(&farewell(facts))?;
    }
    loop {
        stage.take().await?;
    }
}

struct Scene<'a> {
    api: &'a Api,
    json: bool,
}

impl Scene<'_> {
    /// A line for people, or the same for programs.
    fn say(&self, text: &str, json: Value) -> Outcome {
        print(&if self.json { json.to_string() } else { text.to_owned() })
    }

    fn heading(&self, text: &str) -> Outcome {
        if self.json { Ok(()) } else { print(&format!("\n{text}")) }
    }

    async fn put_tenant(&self) -> Outcome {
        let body = json!({ "name": "The demo", "environment": "sandbox" });
        self.call(Method::PUT, &format!("/v1/tenants/{TENANT}"), body.to_string()).await?;
        Ok(())
    }

    /// Registers a webhook for `path` of the stage, and tells the stage its secret.
    async fn register(&self, stage: &mut Stage, path: &str, mut webhook: Value) -> Outcome<String> {
        #[derive(Deserialize)]
        struct Made {
            id: String,
            /// None where the receiver knows us by a static header.
            secret: Option<String>,
        }
        webhook["url"] = stage.url(path).into();
        let answer = self.call(Method::POST, &format!("/v1/tenants/{TENANT}/webhooks"), webhook.to_string()).await?;
        let made: Made = read(&answer)?;
        stage.expect(path, Secret::new(made.secret.unwrap_or_else(|| OKTA_SECRET.to_owned())));
        self.say(
            &format!("  {:<13} {}  {}", path, made.id, webhook["name"].as_str().unwrap_or_default()),
            json!({ "kind": "webhook", "path": path, "id": made.id, "url": webhook["url"] }),
        )?;
        Ok(made.id)
    }

    /// A webhook in the dialect of each system; those that want a proof of their endpoint get it.
    async fn register_systems(&self, stage: &mut Stage) -> Outcome {
        let systems = [
            (
                "/cryptr",
                json!({ "name": "As Cryptr sends", "profile": "cryptr", "events": ["dir_sync.all", "sso_saml.all"] }),
            ),
            (
                "/ferriskey",
                json!({ "name": "As FerrisKey sends", "profile": "ferriskey", "events": ["client.*", "realm.*"] }),
            ),
            (
                "/okta",
                json!({
                    "name": "As Okta sends", "profile": "okta", "events": ["user.lifecycle.*", "user.session.*"],
                    "auth": { "type": "header", "name": "Authorization", "value": OKTA_SECRET },
                }),
            ),
            ("/cymmetri", json!({ "name": "As Cymmetri sends", "profile": "cymmetri", "events": ["cymmetri.*"] })),
        ];
        for (path, webhook) in systems {
            let id = self.register(stage, path, webhook).await?;
            if matches!(path, "/okta" | "/cymmetri") {
                self.verify(stage, path, &id).await?;
            }
        }
        Ok(())
    }

    /// Has the endpoint prove itself, and prints what came to it for that.
    async fn verify(&self, stage: &mut Stage, path: &str, id: &str) -> Outcome {
        #[derive(Deserialize)]
        struct Verified {
            verified: bool,
        }
        let verify = format!("/v1/tenants/{TENANT}/webhooks/{id}/verify");
        let answer = self.call(Method::POST, &verify, String::new()).await?;
        stage.take().await?;
        match read::<Verified>(&answer)?.verified {
            true => Ok(()),
            false => Err(Failure::failed(format!("the endpoint {path} was not verified"))),
        }
    }

    /// Publishes one event and answers how many deliveries are owed for it.
    async fn publish(&self, event: &str) -> Outcome<u64> {
        let answer = self.call(Method::POST, &format!("/v1/tenants/{TENANT}/events"), event.to_owned()).await?;
        Ok(read::<Accepted>(&answer)?.deliveries)
    }

    async fn publish_example(&self, event_type: &str) -> Outcome<u64> {
        let answer = self.api.call(Method::GET, &format!("/v1/event-types/{event_type}"), None).await?;
        self.publish(&read::<Declared>(&answer)?.event()?).await
    }

    /// Publishes examples of the catalogue as one batch: spread over its families, people first.
    async fn publish_examples(&self) -> Outcome<u64> {
        #[derive(Deserialize)]
        struct Batch {
            events: Vec<Accepted>,
        }
        let rows = self.api.all("/v1/event-types").await?;
        let types = rows.iter().map(|row| read(row.get().as_bytes())).collect::<Outcome<Vec<Declared>>>()?;
        let events = chosen(types).iter().map(Declared::event).collect::<Outcome<Vec<_>>>()?;
        let body = format!("{{\"events\":[{}]}}", events.join(","));
        let answer = self.call(Method::POST, &format!("/v1/tenants/{TENANT}/events/batch"), body).await?;
        Ok(read::<Batch>(&answer)?.events.iter().map(|event| event.deliveries).sum())
    }

    /// Waits until as many deliveries have landed as are owed in all.
    async fn await_all(&self, stage: &mut Stage, owed: u64) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        while (stage.landed() as u64) < owed {
            match timeout_at(deadline, stage.take()).await {
                Ok(taken) => taken?,
                Err(_) => {
                    let landed = stage.landed();
                    return Err(Failure::failed(format!(
                        "only {landed} of {owed} deliveries landed within {} s; GATEPOST_LOG=info tells more",
                        PATIENCE.as_secs()
                    )));
                }
            }
        }
        match stage.unverified() {
            0 => Ok(()),
            n => Err(Failure::failed(format!("{} did not verify", count(n.into(), "signature")))),
        }
    }

    async fn call(&self, method: Method, path: &str, body: String) -> Outcome<Bytes> {
        Ok(self.api.call(method, path, Some(Bytes::from(body))).await?)
    }
}

#[derive(Deserialize)]
struct Declared {
    name: String,
    family: String,
    example: Option<Box<RawValue>>,
    deprecated: bool,
}

impl Declared {
    /// Its example as an event to publish.
    fn event(&self) -> Outcome<String> {
        let none = || Failure::failed(format!("the catalogue has no example of {}", self.name));
        let data = self.example.as_deref().ok_or_else(none)?;
        Event { r#type: &self.name, subject: None, data, attributes: None }.to_json()
    }
}

/// Which types with examples are published: those of [`SHOWN`] the catalogue has, then in each round
/// one of every family. Gatepost's own are left out (nobody may publish them), and so is Cymmetri's
/// change of a password, which is a question and no event.
fn chosen(types: Vec<Declared>) -> Vec<Declared> {
    let mut ranked: Vec<((usize, usize), Declared)> = Vec::new();
    for declared in types {
        let publishable = !declared.name.starts_with("gatepost.") && declared.name != "cymmetri.changePassword";
        if publishable && !declared.deprecated && declared.example.is_some() {
            let shown = SHOWN.iter().position(|name| *name == declared.name).unwrap_or(SHOWN.len());
            let round = ranked.iter().filter(|(_, other)| other.family == declared.family).count();
            ranked.push(((shown, round), declared));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().take(SHOWN.len()).map(|(_, declared)| declared).collect()
}

/// Cryptr's sample event as one of ours: its code is the type, its `data` the data, and what else a
/// Cryptr envelope carries are attributes (SETTLED).
fn cryptr_sample() -> Outcome<String> {
    #[derive(Deserialize)]
    struct Sample {
        code: String,
        data: Box<RawValue>,
        #[serde(rename = "__domain__")]
        domain: String,
        params: Box<RawValue>,
        errors: Option<Box<RawValue>>,
    }
    let failed = |error: serde_json::Error| Failure::failed(format!("the sample event cannot be read: {error}"));
    let sample: Sample = serde_json::from_str(CRYPTR_SAMPLE_EVENT).map_err(failed)?;
    let attributes = format!(
        "{{\"domain\":{},\"params\":{},\"errors\":{}}}",
        Value::from(sample.domain),
        sample.params.get(),
        sample.errors.as_deref().map_or("null", RawValue::get),
    );
    let attributes = RawValue::from_string(attributes).map_err(failed)?;
    Event { r#type: &sample.code, subject: None, data: &sample.data, attributes: Some(&attributes) }.to_json()
}

fn farewell(facts: &Facts) -> String {
    let url = &facts.local_url;
    // Where the output is kept, the key is not in it (P7).
    let file = facts.key_file();
    let (shown, key) = match std::io::stdout().is_terminal() {
        true => (facts.admin_key.expose().to_owned(), facts.admin_key.expose().to_owned()),
        false => (format!("in {file}"), format!("\"$(cat '{file}')\"")),
    };
    let public = if facts.url == *url { String::new() } else { format!("\n  reached from outside at {}", facts.url) };
    format!(
        r#"
The server stays up at {url} until Ctrl-C.{public}
  admin key  {shown}

To play on, paste:
  export GATEPOST_URL={url} GATEPOST_KEY={key}
  curl -s "$GATEPOST_URL/v1/tenants/{TENANT}/deliveries?limit=5" -H "Authorization: Bearer $GATEPOST_KEY"
  curl -s "$GATEPOST_URL/v1/tenants/{TENANT}/events" -H "Authorization: Bearer $GATEPOST_KEY" --json '{{"type":"user.created","data":{{"name":"Ada"}}}}'
  curl -s "$GATEPOST_URL/v1/tenants/{TENANT}/webhooks" -H "Authorization: Bearer $GATEPOST_KEY" --json '{{"name":"Mine","url":"http://127.0.0.1:9000/","events":["all"]}}'
  gatepost trigger user.created --tenant {TENANT}
  gatepost event-types list
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(name: &str, example: bool) -> Declared {
        Declared {
            name: name.to_owned(),
            family: name.split('.').next().unwrap_or_default().to_owned(),
            example: example.then(|| RawValue::from_string("1.0".to_owned()).unwrap()),
            deprecated: false,
        }
    }

    #[test]
    fn what_is_missing_of_the_list_is_made_up_for_from_every_family() {
        let names =
            ["a.1", "a.2", "a.3", "b.1", "c.1", "cymmetri.changePassword", "gatepost.webhook.created", "user.created"];
        let mut types: Vec<_> = names.into_iter().map(|name| declared(name, true)).collect();
        types.push(declared("d.1", false));
        let names: Vec<_> = chosen(types).into_iter().map(|declared| declared.name).collect();
        assert_eq!(names, ["user.created", "a.1", "b.1", "c.1", "a.2", "a.3"]);
        let many = (0..40).map(|n| declared(&format!("f{n}.x"), true)).collect();
        assert_eq!(chosen(many).len(), SHOWN.len());
    }

    #[test]
    fn the_catalogue_has_what_the_demo_shows() {
        for name in SHOWN {
            let found = gatepost_core::catalogue::find(&name.parse().unwrap());
            assert!(found.is_some_and(|found| found.definition.example.is_some()), "{name}");
        }
    }

    #[test]
    fn p3_the_sample_event_keeps_the_bytes_of_its_data() {
        let event = cryptr_sample().unwrap();
        let value: Value = serde_json::from_str(&event).unwrap();
        assert_eq!(value["type"], "dir_sync.user.update.success");
        assert_eq!(value["attributes"]["domain"], "3-belges");
        assert_eq!(value["attributes"]["errors"], Value::Null);
        let sample: std::collections::BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(CRYPTR_SAMPLE_EVENT).unwrap();
        assert!(event.contains(sample["data"].get()));
        assert!(event.contains(sample["params"].get()));
    }
}
