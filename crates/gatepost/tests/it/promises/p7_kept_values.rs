//! P7: whoever may change a registration does not come to see its secrets by it. A value that is kept is
//! not sent to another place than it was given for.

use gatepost_testkit::{Receiver, TestCa, TokenServer};
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Reply, Server, receiver, run, text};

const SECRET: &str = "given-for-one-address-only-4471";
const HEADER: &str = "a-header-for-one-address-only-92";

/// Every `auth` with a secret that is sent, and its member.
fn every(token_url: &str) -> [(Value, &'static str); 4] {
    [
        (json!({"type": "bearer", "token": SECRET}), "token"),
        (json!({"type": "basic", "username": "u", "password": SECRET}), "password"),
        (json!({"type": "header", "name": "X-Proof", "value": SECRET}), "value"),
        (json!({"type": "oauth2", "token_url": token_url, "client_id": "c", "client_secret": SECRET}), "client_secret"),
    ]
}

struct Places {
    server: Server,
    /// Where everything was given for.
    home: Receiver,
    /// Where nothing of it may arrive.
    elsewhere: Receiver,
    tokens: TokenServer,
    other_tokens: TokenServer,
}

impl Places {
    fn new() -> Places {
        let server = Server::start();
        server.create_tenant("acme");
        let (tokens, other_tokens) = (TokenServer::start_on_thread(), TokenServer::start_on_thread());
        Places { server, home: receiver(), elsewhere: receiver(), tokens, other_tokens }
    }

    /// Patches that would move a secret, each with the pointers it is refused at.
    fn moves(&self, auth: &Value, member: &str) -> Vec<(Value, Vec<String>)> {
        let url = self.elsewhere.url("/in");
        let secret = format!("/auth/{member}");
        let both = || vec!["/headers/X-Own".to_owned(), secret.clone()];
        let mut echoed = auth.clone();
        echoed[member] = json!("***");
        let mut moves = vec![
            (json!({"url": url}), both()),
            (json!({"url": url, "headers": {"X-Own": "***"}}), both()),
            (json!({"url": url, "headers": {"x-own": "***"}, "auth": echoed}), {
                vec!["/headers/x-own".to_owned(), secret.clone()]
            }),
            (json!({"url": url, "headers": {"X-New": "new"}}), both()),
            (json!({"url": url, "headers": {"X-Own": "again"}}), vec![secret.clone()]),
            (json!({"url": url, "headers": null, "auth": echoed}), vec![secret.clone()]),
            (json!({"url": url, "auth": null}), vec!["/headers/X-Own".to_owned()]),
        ];
        if auth["type"] == "header" {
            moves.push((json!({"auth": {"name": "X-Other"}}), vec![secret.clone()]));
            moves.push((json!({"auth": {"type": "header", "name": "X-Other", "value": "***"}}), vec![secret.clone()]));
        }
        if auth["type"] == "oauth2" {
            let token_url = self.other_tokens.url();
            moves.push((json!({"auth": {"token_url": token_url}}), vec![secret.clone()]));
            moves.push((json!({"auth": {"token_url": token_url, "client_secret": "***"}}), vec![secret]));
        }
        moves
    }

    #[track_caller]
    fn nothing_arrived_elsewhere(&self) {
        assert_eq!(
            (self.elsewhere.count(), self.other_tokens.received().len()),
            (0, 0),
            "something was sent elsewhere"
        );
    }
}

#[track_caller]
fn refused(reply: &Reply, pointers: &[String], what: &Value) {
    assert_eq!(reply.status, 422, "{what}: {reply:?}");
    assert_eq!(reply.json()["code"], "validation_failed", "{what}");
    let sorted = |mut pointers: Vec<String>| {
        pointers.sort();
        pointers
    };
    assert_eq!(sorted(reply.pointers()), sorted(pointers.to_vec()), "{what}");
    assert!(reply.text().contains("give the value again"), "{reply:?}");
}

#[test]
fn p7_a_webhook_s_kept_secrets_stay_at_their_address() {
    let places = Places::new();
    let server = &places.server;
    for (auth, member) in every(&places.tokens.url()) {
        let hook = server.webhook(
            "acme",
            &places.home.url("/in"),
            json!({"auth": auth, "headers": {"X-Own": HEADER}, "events": ["user.created"]}),
        );
        let path = format!("/v1/tenants/acme/webhooks/{hook}");
        let before = server.get(&path).expect(200).json();
        for (patch, pointers) in places.moves(&auth, member) {
            refused(&server.patch(&path, patch.clone()), &pointers, &patch);
            assert_eq!(server.get(&path).expect(200).json(), before, "{patch}: something was changed");
        }
        // Within its origin it may go where it likes.
        server.patch(&path, json!({"url": places.home.url("/other")})).expect(200);
        let seen = places.home.count();
        let test = server.post(&format!("{path}/test"), json!({})).expect(200).json();
        assert_eq!(test["delivered"], true, "{test:#}");
        let request = places.home.received()[seen].clone();
        assert_eq!((request.path.as_str(), request.header("x-own")), ("/other", Some(HEADER)));
    }
    places.nothing_arrived_elsewhere();
}

#[test]
fn p7_a_value_that_is_given_again_goes_anywhere_and_what_is_never_sent_may_stay() {
    let places = Places::new();
    let server = &places.server;
    let url = places.elsewhere.url("/in");
    let hook = server.webhook(
        "acme",
        &places.home.url("/in"),
        json!({"auth": {"type": "bearer", "token": SECRET}, "headers": {"X-Own": HEADER, "X-Two": HEADER}}),
    );
    let path = format!("/v1/tenants/acme/webhooks/{hook}");
    let patch = json!({"url": url, "auth": {"token": "another-token"}, "headers": {"X-Own": HEADER, "X-Two": null}});
    server.patch(&path, patch).expect(200);
    server.post(&format!("{path}/test"), json!({})).expect(200);
    let request = places.elsewhere.received()[0].clone();
    assert_eq!(
        (request.header("authorization"), request.header("x-own"), request.header("x-two")),
        (Some("Bearer another-token"), Some(HEADER), None)
    );
    // The signing secret, and a client certificate's key.
    let client = TestCa::new().client("gatepost");
    let auth = json!({"type": "mtls", "certificate": client.certificate, "private_key": client.private_key});
    let hook = server.webhook("acme", &places.home.url("/in"), json!({"auth": auth}));
    server.patch(&format!("/v1/tenants/acme/webhooks/{hook}"), json!({"url": url})).expect(200);
}

#[test]
fn p7_a_hook_s_kept_secrets_stay_at_their_address() {
    let places = Places::new();
    let server = &places.server;
    for (auth, member) in every(&places.tokens.url()) {
        let body = json!({
            "name": "h", "point": "validateUser", "url": places.home.url("/in"), "auth": auth,
            "headers": {"X-Own": HEADER},
        });
        let hook = text(&server.post("/v1/tenants/acme/hooks", body).expect(201).json(), "id");
        let path = format!("/v1/tenants/acme/hooks/{hook}");
        let before = server.get(&path).expect(200).json();
        for (patch, pointers) in places.moves(&auth, member) {
            for mode in ["observe", "enforce"] {
                let mut patch = patch.clone();
                patch["mode"] = json!(mode);
                refused(&server.patch(&path, patch.clone()), &pointers, &patch);
            }
            assert_eq!(server.get(&path).expect(200).json(), before, "{patch}: something was changed");
        }
        server.patch(&path, json!({"url": places.home.url("/other")})).expect(200);
        let mut again = auth.clone();
        again[member] = json!("another-one");
        let given = json!({"url": places.home.url("/x"), "auth": again, "headers": {"X-Own": "another"}});
        server.patch(&path, given).expect(200);
    }
    places.nothing_arrived_elsewhere();
}

#[test]
fn p7_nor_do_they_through_another_system_s_api() {
    let places = Places::new();
    let server = &places.server;
    let key = server.create_key(&["manage"], Some("acme"));
    let mut client = server.client_with(&key);
    let (home, elsewhere) = (places.home.url("/in"), places.elsewhere.url("/in"));
    // Okta: a PUT without the value keeps it.
    let okta = |uri: &str, key: &str, value: Option<&str>, own: &str| {
        json!({
            "name": "hook", "events": {"type": "EVENT_TYPE", "items": ["user.lifecycle.create"]},
            "channel": {"type": "HTTP", "version": "1.0.0", "config": {
                "uri": uri, "headers": [{"key": "X-Own", "value": own}],
                "authScheme": {"type": "HEADER", "key": key, "value": value},
            }},
        })
    };
    let api = "/compat/okta/api/v1/eventHooks";
    let made = client.post(api, okta(&home, "Authorization", Some(SECRET), HEADER)).expect(200).json();
    let path = format!("{api}/{}", text(&made, "id"));
    for (body, field) in [
        (okta(&elsewhere, "Authorization", None, HEADER), "channel.config.authScheme"),
        (okta(&elsewhere, "Authorization", Some("***"), HEADER), "channel.config.authScheme"),
        (okta(&elsewhere, "Authorization", Some("new"), "***"), "channel.config.headers.X-Own"),
        (okta(&home, "X-Other", None, HEADER), "channel.config.authScheme"),
    ] {
        let reply = client.put(&path, body.clone());
        assert_eq!((reply.status, &reply.json()["errorCode"]), (400, &json!("E0000001")), "{body}: {reply:?}");
        let causes = reply.json()["errorCauses"].to_string();
        assert!(causes.contains(field) && causes.contains("give the value again"), "{body}: {causes}");
    }
    client.put(&path, okta(&places.home.url("/moved"), "Authorization", None, "***")).expect(200);
    client.put(&path, okta(&elsewhere, "Authorization", Some("new"), "new")).expect(200);
    // FerrisKey: absent headers are kept.
    let api = "/compat/ferriskey/realms/acme/webhooks";
    let body = json!({"endpoint": home, "headers": {"X-Own": HEADER}, "subscribers": ["user.created"]});
    let made = client.post(api, body).expect(200).json();
    let path = format!("{api}/{}", text(&made["data"], "id"));
    for headers in [json!({}), json!({"X-Own": "***"})] {
        let mut body = json!({"endpoint": elsewhere, "subscribers": ["user.created"]});
        if headers != json!({}) {
            body["headers"] = headers;
        }
        let reply = client.put(&path, body.clone()).expect(400);
        let message = text(&reply.json(), "message");
        assert!(message.contains("headers/X-Own") && message.contains("give the value again"), "{message}");
    }
    client.put(&path, json!({"endpoint": places.home.url("/moved"), "subscribers": []})).expect(200);
    client.put(&path, json!({"endpoint": elsewhere, "headers": {"X-Own": "new"}, "subscribers": []})).expect(200);
    // Cryptr: has no words for headers and auth, and keeps them.
    let api = "/compat/cryptr/api/v2/webhooks";
    let body = json!({"name": "w", "target_url": home, "event_codes": ["all"]});
    let made = client.post(api, body).expect(201).json();
    let ours = server.all("/v1/tenants/acme/webhooks").into_iter().find(|row| row["profile"] == "cryptr").unwrap();
    let ours = format!("/v1/tenants/acme/webhooks/{}", text(&ours, "id"));
    server.patch(&ours, json!({"headers": {"X-Own": HEADER}})).expect(200);
    let path = format!("{api}/{}", text(&made, "id"));
    let reply = client.put(&path, json!({"target_url": elsewhere})).expect(422);
    let message = text(&reply.json()["error"], "message");
    assert!(message.contains("headers/X-Own") && message.contains("give the value again"), "{message}");
    client.put(&path, json!({"target_url": places.home.url("/moved")})).expect(200);
    places.nothing_arrived_elsewhere();
}

#[test]
fn p7_nor_by_a_setup_that_is_applied() {
    let places = Places::new();
    let server = &places.server;
    let setup = |url: &str, header: &str, token: &str| {
        let each = |kind: &str, more: &str| {
            format!(
                "[[{kind}]]\nname = \"one\"\nurl = \"{url}\"\n{more}\nheaders = {{ X-Own = {header} }}\n\
                 auth = {{ type = \"bearer\", token = {token} }}\n"
            )
        };
        let text = each("webhooks", "events = [\"*\"]") + &each("hooks", "point = \"validateUser\"");
        let path = server.folder().join("setup.toml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let apply = |path: &str| {
        let env = [("GATEPOST_URL", server.url()), ("GATEPOST_KEY", ADMIN_KEY.to_owned()), ("OWN", HEADER.to_owned())];
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run(server.folder(), &["apply", path, "--tenant", "acme", "--yes"], &env)
    };
    let (own, token) = ("{ env = \"OWN\" }", &*format!("\"{SECRET}\""));
    apply(&setup(&places.home.url("/in"), own, token)).expect(0);
    // Kept, and moved: refused before anything is changed.
    let ran = apply(&setup(&places.elsewhere.url("/in"), "\"***\"", "\"***\"")).expect(1);
    for line in
        ["webhook one, headers.X-Own", "webhook one, auth.token", "hook one, headers.X-Own", "hook one, auth.token"]
    {
        assert!(ran.stderr.contains(line), "{line} is not in {}", ran.stderr);
    }
    places.nothing_arrived_elsewhere();
    // Given in the file, though the same as before: sent along, and so the change is made.
    apply(&setup(&places.elsewhere.url("/in"), own, token)).expect(0);
    for kind in ["webhooks", "hooks"] {
        assert_eq!(server.all(&format!("/v1/tenants/acme/{kind}"))[0]["url"], places.elsewhere.url("/in"), "{kind}");
    }
    assert!(apply(&setup(&places.elsewhere.url("/in"), "\"***\"", "\"***\"")).expect(0).stdout.contains("no changes"));
}
