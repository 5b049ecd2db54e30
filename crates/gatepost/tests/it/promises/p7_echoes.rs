//! P7: what a receiver repeats of the secrets it was called with is not kept and not shown: in the
//! attempts, in what tests and verifications show, in what is kept of hooks, and in the logs.

use gatepost_testkit::{Received, Script, TokenServer};
use serde_json::{Value, json};

use crate::harness::{Options, Server, receiver, text};

const TOKEN: &str = "endpoint-token/nobody+may-see-771";
const PASSWORD: &str = "endpoint password nobody may see 9";
const HEADER: &str = "header-value-that-nobody-may-see-5512";
const GRANTED: &str = "granted-token-that-nobody-may-see-44";
const CLIENT_SECRET: &str = "client-secret-that-nobody-may-see-33";

/// An error page as many write it: everything that came, as it came and inside JSON, and in a header.
fn echo(request: &Received, status: u16, more: &[&str]) -> Script {
    let mut headers = serde_json::Map::new();
    let mut echoed = String::new();
    for (name, value) in &request.headers {
        headers.insert(name.clone(), json!(value));
        if ["authorization", "x-own"].contains(&&*name.to_ascii_lowercase()) {
            echoed.push_str(value);
        }
    }
    let body = json!({"headers": headers, "known": more, "note": "what you sent"}).to_string().replace('/', "\\/");
    Script::status(status).header("x-echo", echoed).body(body + "\n" + &more.join("\n"))
}

fn none_of(place: &str, shown: &str, secrets: &[String]) {
    for secret in secrets {
        assert!(!shown.contains(secret.as_str()), "{secret} is in {place}: {shown}");
        assert!(!shown.contains(&secret.replace('/', "\\\\/")), "{secret} is in {place}: {shown}");
    }
}

fn tokens() -> TokenServer {
    let tokens = TokenServer::start_on_thread();
    let granted = json!({"access_token": GRANTED, "token_type": "Bearer", "expires_in": 3600}).to_string();
    tokens.receiver().script(Script::status(200).header("content-type", "application/json").body(granted));
    tokens
}

/// Every `auth` with what of it is sent.
fn every(token_url: &str) -> Vec<(Value, Vec<String>)> {
    let of = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    vec![
        (json!({"type": "bearer", "token": TOKEN}), of(&[TOKEN])),
        (
            json!({"type": "basic", "username": "gate", "password": PASSWORD}),
            of(&[PASSWORD, "Z2F0ZTplbmRwb2ludCBwYXNzd29yZCBub2JvZHkgbWF5IHNlZSA5"]),
        ),
        (json!({"type": "header", "name": "X-Proof", "value": TOKEN}), of(&[TOKEN])),
        (
            json!({"type": "oauth2", "token_url": token_url, "client_id": "c", "client_secret": CLIENT_SECRET}),
            of(&[CLIENT_SECRET, GRANTED]),
        ),
    ]
}

#[test]
fn p7_what_a_webhook_s_receiver_repeats_is_not_kept() {
    let server = Server::with(Options::default().env("GATEPOST_LOG", "trace"));
    server.create_tenant("acme");
    let tokens = tokens();
    let mut all = Vec::new();
    for (n, (auth, sent)) in every(&tokens.url()).into_iter().enumerate() {
        let inbox = receiver();
        let event_type = format!("user.t{n}");
        let made = server.create_webhook(
            "acme",
            &inbox.url("/"),
            json!({"auth": auth, "headers": {"X-Own": HEADER}, "events": [event_type], "retry": {"waits": [0]}}),
        );
        let (hook, secret) = (text(&made, "id"), text(&made, "secret"));
        let bare = secret.trim_start_matches("whsec_").to_owned();
        let knows = secret.clone();
        inbox.script(Script::with(move |request| echo(request, 500, &[&knows])));
        let mut secrets = sent;
        secrets.extend([HEADER.to_owned(), secret, bare]);
        let event = server.publish("acme", &event_type, json!({}));
        let view = server.wait_event("acme", &event, "failed");
        let kept = view["attempt_list"][0]["response"]["body"].as_str().unwrap();
        assert!(kept.contains("what you sent") && kept.contains("***"), "the rest is kept: {kept}");
        assert!(view["attempt_list"][0]["response"]["headers"].to_string().contains("***"), "{view:#}");
        none_of("the attempts", &view.to_string(), &secrets);
        let path = format!("/v1/tenants/acme/webhooks/{hook}");
        for action in ["test", "verify"] {
            let shown = server.post(&format!("{path}/{action}"), json!({})).expect(200).text();
            assert!(shown.contains("what you sent"), "{action}: {shown}");
            none_of(action, &shown, &secrets);
        }
        server.patch(&path, json!({"verification": {"mode": "options"}})).expect(200);
        let shown = server.post(&format!("{path}/verify"), json!({})).expect(200).text();
        assert!(shown.contains("what you sent"), "{shown}");
        none_of("the transcript", &shown, &secrets);
        none_of("the webhook", &server.get(&path).expect(200).text(), &secrets);
        all.extend(secrets);
    }
    none_of("the logs", &server.said(), &all);
}

#[test]
fn p7_an_answer_that_is_cut_shows_no_part_of_a_secret() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    // Wherever the cut falls, it falls into one of them.
    inbox.script(Script::with(|_| Script::status(500).body(TOKEN.repeat(2_000))));
    let auth = json!({"type": "bearer", "token": TOKEN});
    server.webhook("acme", &inbox.url("/"), json!({"auth": auth, "retry": {"waits": []}}));
    let event = server.publish("acme", "user.created", json!({}));
    let view = server.wait_event("acme", &event, "failed");
    let response = &view["attempt_list"][0]["response"];
    assert_eq!(response["truncated"], true);
    assert_eq!(response["body"].as_str().unwrap().trim_matches('*'), "", "a part of it is kept");
}

#[test]
fn p7_what_a_hook_s_receiver_repeats_is_not_kept() {
    let server = Server::with(Options::default().env("GATEPOST_LOG", "trace"));
    server.create_tenant("acme");
    server.put("/v1/tenants/acme/points/preCreateUser", json!({"capture": "all"})).expect(200);
    let tokens = tokens();
    let mut all = Vec::new();
    for (n, (auth, sent)) in every(&tokens.url()).into_iter().enumerate() {
        let inbox = receiver();
        let hook = json!({
            "name": format!("h{n}"), "point": "preCreateUser", "url": inbox.url("/"), "auth": auth,
            "headers": {"X-Own": HEADER}, "may_change": ["/user"],
        });
        let made = server.post("/v1/tenants/acme/hooks", hook).expect(201).json();
        let (hook, secret) = (text(&made, "id"), text(&made, "secret"));
        let bare = secret.trim_start_matches("whsec_").to_owned();
        let mut secrets = sent;
        secrets.extend([HEADER.to_owned(), secret.clone(), bare]);
        let path = format!("/v1/tenants/acme/hooks/{hook}");
        // A page that is no answer.
        let knows = secret.clone();
        inbox.script(Script::with(move |request| echo(request, 200, &[&knows])));
        let shown = server.post(&format!("{path}/try"), json!({"sample": true})).expect(200).text();
        assert!(shown.contains("what you sent"), "{shown}");
        none_of("the try", &shown, &secrets);
        // An answer that puts it everywhere.
        let knows = secret.clone();
        inbox.script(Script::with(move |request| {
            let question: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            let proof = request.header("authorization").or(request.header("x-proof")).unwrap_or_default();
            let own = request.header("x-own").unwrap_or_default();
            let refused = question["object"]["user"]["login"] == "refused";
            let answer = json!({
                "id": question["id"], "decision": if refused { "deny" } else { "allow" },
                "messages": [{"code": "bad", "text": format!("{proof} {own} {knows}"), "path": own}],
                "object": {"user": {"note": proof, "own": own, "list": [knows]}},
            });
            Script::status(200).header("content-type", "application/json").body(answer.to_string())
        }));
        server.patch(&path, json!({"mode": "enforce"})).expect(200);
        for login in ["refused", "allowed"] {
            let question = json!({"object": {"user": {"login": login}}});
            let decision = server.post("/v1/tenants/acme/points/preCreateUser/invoke", question).expect(200).json();
            assert_eq!(decision["cause"], "receiver", "{decision:#}");
            none_of("what people are told", &json!([decision["messages"], decision["warnings"]]).to_string(), &secrets);
            if login == "allowed" {
                // What it does is what the receiver said.
                assert_eq!(decision["object"]["user"]["own"], HEADER);
            }
            let kept = server.get(&format!("/v1/tenants/acme/invocations/{}", text(&decision, "id"))).expect(200);
            none_of("the record", &kept.text(), &secrets);
        }
        none_of("the hook", &server.get(&path).expect(200).text(), &secrets);
        server.delete(&path).expect(204);
        all.extend(secrets);
    }
    none_of("the logs", &server.said(), &all);
}
