//! What the real server sends, received by programs made with gatepost-receiver: every profile, batches,
//! challenges, and blocking hooks; and the crate's examples, as they are.

#[path = "../../../gatepost-receiver/examples/ferriskey.rs"]
mod ferriskey;
#[path = "../../../gatepost-receiver/examples/hook.rs"]
mod hook;
#[path = "../../../gatepost-receiver/examples/standard.rs"]
mod standard;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{FromRef, State};
use axum::routing::{get, post};
use gatepost_receiver::extract::{Asked, Challenged, Verified};
use gatepost_receiver::hook::{Answer, AnswerError, HookReceiver};
use gatepost_receiver::{Builder, Message, Receiver, Reply, Scheme};
use serde_json::{Value, json};

use crate::harness::{Server, text, wait_until};

const TENANT: &str = "acme";
const TEXT: &str = "a-shared-secret-of-some-length";

/// Serves a router on a thread of its own, for as long as the test runs.
fn serve(router: Router) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    format!("http://{addr}")
}

/// A receiver whose secret is known only after its webhook was made.
#[derive(Clone, Default)]
struct App {
    receiver: Arc<Mutex<Option<Receiver>>>,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl FromRef<App> for Receiver {
    fn from_ref(app: &App) -> Receiver {
        app.receiver.lock().unwrap().clone().expect("made by now")
    }
}

impl App {
    fn serve() -> (App, String) {
        async fn receive(State(app): State<App>, Verified(message): Verified) -> Reply {
            app.seen.lock().unwrap().push(message);
            Reply::accepted()
        }
        async fn challenge(Challenged(reply): Challenged) -> Reply {
            reply
        }
        let app = App::default();
        let routes = post(receive).get(challenge).options(challenge);
        let router = Router::new().route("/in", routes.clone()).route("/in/{*path}", routes).with_state(app.clone());
        (app, format!("{}/in", serve(router)))
    }

    fn is(&self, builder: Builder) {
        *self.receiver.lock().unwrap() = Some(builder.build().unwrap());
    }

    fn seen(&self, count: usize) -> Vec<Message> {
        wait_until(format!("{count} messages"), || {
            let seen = self.seen.lock().unwrap();
            (seen.len() >= count).then(|| seen.clone())
        })
    }
}

fn started() -> Server {
    let server = Server::start();
    server.create_tenant(TENANT);
    server
}

/// A way to send, and the receiver for it, given the webhook and its address.
struct Row {
    name: &'static str,
    webhook: Value,
    receiver: fn(&Value, &str) -> Builder,
}

fn secret(webhook: &Value) -> String {
    text(webhook, "secret")
}

fn rows() -> Vec<Row> {
    let row = |name, webhook, receiver| Row { name, webhook, receiver };
    let header = json!({"type": "header", "name": "X-Key", "value": TEXT});
    let bearer = json!({"type": "bearer", "token": TEXT});
    vec![
        row("standard", json!({}), |webhook, _| Receiver::standard().secret(secret(webhook))),
        row("v1a", json!({"signing": [{"scheme": "standard-ed25519"}]}), |webhook, _| {
            Receiver::standard().public_key("k", text(webhook, "public_key"))
        }),
        row("timestamped", json!({"signing": [{"scheme": "timestamped"}]}), |webhook, _| {
            Receiver::standard().signing(Scheme::Timestamped(None)).secret(secret(webhook))
        }),
        row("github", json!({"signing": [{"scheme": "github", "header": "X-Own"}]}), |webhook, _| {
            Receiver::standard().signing(Scheme::GitHub(Some("x-own".into()))).secret(secret(webhook))
        }),
        row("bearer", json!({"signing": [{"scheme": "none"}], "auth": bearer}), |_, _| {
            Receiver::standard().signing(Scheme::Header("authorization".into())).secret(format!("Bearer {TEXT}"))
        }),
        row(
            "cloudevents",
            json!({"profile": "cloudevents", "verification": {"mode": "options", "required": true}}),
            |webhook, _| Receiver::cloudevents().secret(secret(webhook)).allow_origin("127.0.0.1"),
        ),
        row("cryptr", json!({"profile": "cryptr"}), |webhook, _| Receiver::cryptr().secret(secret(webhook))),
        row("ferriskey", json!({"profile": "ferriskey"}), |webhook, _| Receiver::ferriskey().secret(secret(webhook))),
        row("okta", json!({"profile": "okta", "auth": header}), |_, _| Receiver::okta("x-key").secret(TEXT)),
        row("cymmetri", json!({"profile": "cymmetri", "paths": {"user.created": "/new"}}), |webhook, url| {
            Receiver::cymmetri().secret(secret(webhook)).audience(format!("{url}/new"))
        }),
    ]
}

#[test]
fn every_profile_is_verified_and_read() {
    let server = started();
    for row in rows() {
        let (app, url) = App::serve();
        let webhook = server.create_webhook(TENANT, &url, row.webhook);
        app.is((row.receiver)(&webhook, &url));
        let path = format!("/v1/tenants/{TENANT}/webhooks/{}", text(&webhook, "id"));
        // Challenges are answered (okta, cloudevents), and signed questions whether somebody is there.
        if webhook["verification"]["required"] == true {
            server.post(&format!("{path}/verify"), json!({})).expect(200);
            let verified = server.get(&path).expect(200).json();
            assert!(verified["verification"]["verified_at"].is_string(), "{}: {verified}", row.name);
        }
        let event = json!({"type": "user.created", "subject": {"type": "user", "id": "u_1"}, "data": {"login": "ada"}});
        let id = text(&server.publish_event(TENANT, event), "id");
        let message = app.seen(1).remove(0);
        let [event] = message.events.as_slice() else { panic!("{}: {message:?}", row.name) };
        assert_eq!((&*event.kind, message.attempt, message.test), ("user.created", Some(1), false), "{}", row.name);
        if row.name == "okta" {
            let told: Value = event.data().unwrap();
            assert_eq!(told["debugContext"]["debugData"]["login"], "ada");
        } else {
            assert_eq!(event.data_text(), Some(r#"{"login":"ada"}"#), "{}", row.name);
        }
        if !["okta", "ferriskey", "cymmetri"].contains(&row.name) {
            assert_eq!(event.id, id, "{}", row.name);
        }
        server.wait_settled(TENANT);
        server.delete(&path).expect(204);
    }
}

#[test]
fn batches_arrive_whole() {
    let server = started();
    for (name, webhook, receiver) in [
        ("standard", json!({}), Receiver::standard as fn() -> Builder),
        ("cloudevents", json!({"profile": "cloudevents"}), Receiver::cloudevents),
    ] {
        let (app, url) = App::serve();
        let mut form = webhook;
        form["batch"] = json!({"max_events": 3, "max_wait_ms": 10_000});
        let webhook = server.create_webhook(TENANT, &url, form);
        app.is(receiver().secret(secret(&webhook)));
        let ids: Vec<_> = (0..3).map(|n| server.publish(TENANT, "user.created", json!({"n": n}))).collect();
        let message = app.seen(1).remove(0);
        assert!(message.is_batch, "{name}");
        let mut seen: Vec<_> = message.events.iter().map(|event| event.id.clone()).collect();
        seen.sort();
        assert_eq!(seen, ids, "{name}");
        server.delete(&format!("/v1/tenants/{TENANT}/webhooks/{}", text(&webhook, "id"))).expect(204);
    }
}

#[test]
fn what_another_webhooks_receiver_gets_never_reaches_its_handler() {
    let server = started();
    let (app, url) = App::serve();
    app.is(Receiver::standard().secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
    server.create_webhook(TENANT, &url, json!({"retry": {"waits": []}}));
    let event = server.publish(TENANT, "user.created", json!({}));
    let delivery = server.wait_event(TENANT, &event, "failed");
    assert_eq!(delivery["attempt_list"][0]["status"], 401, "{delivery}");
    assert!(app.seen.lock().unwrap().is_empty());
}

#[test]
fn the_example_for_ferriskey_does_each_event_once_and_again_what_failed() {
    let _ = ferriskey::main;
    let server = started();
    let done = Arc::new(Mutex::new(Vec::new()));
    let (told, fails) = (Arc::clone(&done), Arc::new(Mutex::new(true)));
    let work: ferriskey::Work = Arc::new(move |trigger| {
        if std::mem::take(&mut *fails.lock().unwrap()) {
            return Err("the first time it fails".into());
        }
        told.lock().unwrap().push(match trigger {
            ferriskey::Trigger::UserCreated { user, .. } => user.username,
            ferriskey::Trigger::UserDeleted { id } => id,
        });
        Ok(())
    });
    // The secret is one that FerrisKey made, imported.
    let url = format!("{}/webhook", serve(ferriskey::app(TEXT, work).unwrap()));
    let form = json!({"profile": "ferriskey", "secret": TEXT, "retry": {"waits": [0.05]}});
    server.create_webhook(TENANT, &url, form);
    let made = server.publish(TENANT, "user.created", json!({"username": "ada"}));
    assert_eq!(server.wait_event(TENANT, &made, "delivered")["attempts"], 2);
    // Sent again by hand: the same delivery, which is acknowledged and not done again.
    let delivery = server.delivery_of(TENANT, &made);
    server.post(&format!("/v1/tenants/{TENANT}/deliveries/{delivery}/retry"), json!({})).expect(202);
    server.wait_delivery_where(TENANT, &delivery, "a third attempt", |view| {
        view["state"] == "delivered" && view["attempts"] == 3
    });
    // An event it has nothing to do for is acknowledged.
    let other = server.publish(TENANT, "role.created", json!({}));
    server.wait_event(TENANT, &other, "delivered");
    assert_eq!(*done.lock().unwrap(), ["ada"]);
}

#[test]
fn the_standard_example_takes_pings_and_events() {
    let _ = standard::main;
    let server = started();
    let done = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&done);
    let work: standard::Work = Arc::new(move |event| {
        told.lock().unwrap().push(event.id.clone());
        Ok(())
    });
    let (old, new) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD");
    let url = format!("{}/hooks", serve(standard::app(&format!("{new} {old}"), work).unwrap()));
    let form = json!({"secret": old, "verification": {"mode": "post", "required": true}});
    let webhook = server.create_webhook(TENANT, &url, form);
    let path = format!("/v1/tenants/{TENANT}/webhooks/{}", text(&webhook, "id"));
    server.post(&format!("{path}/verify"), json!({})).expect(200);
    let event = server.publish(TENANT, "user.created", json!({"n": 1}));
    server.wait_event(TENANT, &event, "delivered");
    assert_eq!(*done.lock().unwrap(), [event], "the ping is none");
}

#[test]
fn the_example_for_hooks_answers_signed() {
    let _ = hook::main;
    let server = started();
    let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let url = format!("{}/ask", serve(hook::app(secret).unwrap()));
    for point in ["preCreateUser", "validateUser", "policyMap", "runDeprovision"] {
        let form = json!({"name": point, "point": point, "url": url, "mode": "enforce", "secret": secret,
            "require_signed_answer": true});
        server.post(&format!("/v1/tenants/{TENANT}/hooks"), form).expect(201);
    }
    let ask = |what: &str, question: Value| {
        server.post(&format!("/v1/tenants/{TENANT}/{what}/invoke"), question).expect(200).json()
    };
    let user = |user: Value| json!({"object": {"user": user}});
    let made = ask("operations/createUser", user(json!({"login": "ada"})));
    assert_eq!((&made["decision"], &made["object"]["user"]["country"]), (&json!("allow"), &json!("India")), "{made}");
    let refused = ask("points/validateUser", user(json!({"login": "ada", "mobile": "123"})));
    assert_eq!(
        (&refused["cause"], &refused["messages"][0]["code"]),
        (&json!("receiver"), &json!("taken")),
        "{refused}"
    );
    assert_eq!(refused["messages"][0]["path"], "/user/mobile");
    assert_eq!(ask("points/policyMap", user(json!({"login": "ada"})))["value"], "ada@example.com");
    assert_eq!(ask("points/runDeprovision", user(json!({"userType": "Contractor"})))["value"], true);
    assert_eq!(ask("points/runDeprovision", user(json!({"userType": "Employee"})))["value"], false);
}

#[test]
fn cymmetris_questions_are_answered_signed() {
    async fn answer(Asked(question): Asked) -> Result<Reply, AnswerError> {
        question.reply(match question.point.as_str() {
            "preCreateUser" => {
                let mut object = question.object.as_object().cloned().unwrap_or_default();
                object["user"]["city"] = "Pune".into();
                Answer::object(object)
            }
            "policyMap" => Answer::value(7.5),
            "runDeprovision" => Answer::gate(true),
            _ => Answer::deny("MobileAlreadyExist"),
        })
    }
    let server = started();
    let receiver = HookReceiver::cymmetri().secret(TEXT).build().unwrap();
    let routes = Router::new().route("/in/{*path}", post(answer).merge(get(|| async {})));
    let url = format!("{}/in", serve(routes.with_state(receiver)));
    for point in ["preCreateUser", "validateUser", "policyMap", "runDeprovision"] {
        let form = json!({"name": point, "point": point, "url": url, "mode": "enforce", "secret": TEXT,
            "profile": "cymmetri", "require_signed_answer": true});
        server.post(&format!("/v1/tenants/{TENANT}/hooks"), form).expect(201);
    }
    let ask = |point: &str| {
        let question = json!({"object": {"user": {"login": "ada"}}});
        server.post(&format!("/v1/tenants/{TENANT}/points/{point}/invoke"), question).expect(200).json()
    };
    assert_eq!(ask("preCreateUser")["object"]["user"]["city"], "Pune");
    let refused = ask("validateUser");
    assert_eq!(
        (&refused["cause"], &refused["messages"][0]["code"]),
        (&json!("receiver"), &json!("MobileAlreadyExist"))
    );
    assert_eq!(ask("policyMap")["value"], "7.5");
    assert_eq!(ask("runDeprovision")["value"], true);
}
