//! P7: secrets are shown once, and are never in logs, errors, metrics, history, or clear in the store.

use std::path::Path;

use gatepost_testkit::Script;
use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Options, Server, receiver, text};

/// Base64 of 32 bytes.
const MASTER: &str = "Zm9yIHRlc3RzIG9ubHk6IG1hc3RlciBrZXkgIzEhISE=";
const OTHER_MASTER: &str = "Zm9yIHRlc3RzIG9ubHk6IG1hc3RlciBrZXkgIzIhISE=";
const AUTH_TOKEN: &str = "an-endpoint-token-nobody-may-see-771";
const AUTH_PASSWORD: &str = "an endpoint password nobody may see 9";
const TEXT_SECRET: &str = "a signing text of more than twenty-four bytes";
const KEY_PAIR: &str = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const IMPORTED: &str = "whsec_aW1wb3J0ZWQgc2VjcmV0IG9mIHRoaXJ0eSBieXRlcyE=";
const HEADER_VALUE: &str = "header-value-that-nobody-may-see-5512";
const SECOND_HEADER_VALUE: &str = "Bearer another-header-value-8841";

/// Something that must not be found, as text and as the bytes the text stands for.
struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    fn add(&mut self, name: &str, secret: &str) {
        self.0.push((name.to_owned(), secret.as_bytes().to_vec()));
        let coded = secret.strip_prefix("whsec_").unwrap_or(secret);
        if let Some(bytes) = base64_decode(coded).filter(|bytes| bytes.len() >= 16) {
            self.0.push((format!("{name} (its bytes)"), bytes));
            self.0.push((format!("{name} (without prefix)"), coded.as_bytes().to_vec()));
        }
    }

    #[track_caller]
    fn must_not_be_in(&self, place: &str, content: &[u8]) {
        for (name, secret) in &self.0 {
            let found = content.windows(secret.len()).any(|window| window == secret);
            assert!(!found, "the {name} is in {place}");
        }
    }
}

/// Standard base64 with padding; nothing when it is not that.
fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut bits = 0_u32;
    let (mut count, mut bytes) = (0, Vec::new());
    for c in text.trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0x00ff_ffff;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Some(bytes)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    found
}

#[test]
fn p7_no_secret_is_anywhere_but_in_the_answer_that_made_it() {
    let options = Options::default().env("GATEPOST_MASTER_KEY", MASTER).env("GATEPOST_LOG", "trace");
    let mut server = Server::with(options);
    let mut secrets = Secrets(Vec::new());
    secrets.add("master key", MASTER);
    secrets.add("admin key", ADMIN_KEY);
    secrets.add("imported secret", IMPORTED);
    secrets.add("header value", HEADER_VALUE);
    secrets.add("second header value", SECOND_HEADER_VALUE);

    server.create_tenant("acme");
    let inbox = receiver();
    let made = server.create_webhook("acme", &inbox.url("/made"), json!({"headers": {"X-Token": HEADER_VALUE}}));
    let failing = receiver();
    // A receiver that throws what it was sent back at us: its answer is history, the secret is not.
    failing.script(Script::with(|request| Script::status(500).body(format!("{:?}", request.header("webhook-id")))));
    let imported = server.create_webhook(
        "acme",
        &failing.url("/imported"),
        json!({
            "secret": IMPORTED,
            "headers": {"Authorization": SECOND_HEADER_VALUE},
            "retry": {"waits": [0.05, 3600]},
        }),
    );
    secrets.add("generated secret", &text(&made, "secret"));
    secrets.add("auth token", AUTH_TOKEN);
    secrets.add("auth password", AUTH_PASSWORD);
    secrets.add("text secret", TEXT_SECRET);
    secrets.add("key pair", KEY_PAIR);
    let texts = json!({"secret": TEXT_SECRET, "signing": [{"scheme": "timestamped"}],
        "auth": {"type": "bearer", "token": AUTH_TOKEN}, "events": ["user.created"]});
    let texts = server.create_webhook("acme", &inbox.url("/texts"), texts);
    server.create_webhook(
        "acme",
        &inbox.url("/pair"),
        json!({"secret": KEY_PAIR, "signing": [{"scheme": "standard-ed25519"}], "events": ["user.created"],
            "auth": {"type": "basic", "username": "gatepost", "password": AUTH_PASSWORD}}),
    );
    let hook = text(&made, "id");
    let rotate = format!("/v1/tenants/acme/webhooks/{hook}/rotate-secret");
    let rotated = server.post(&rotate, json!({"overlap_seconds": 60})).expect(200).json();
    secrets.add("rotated secret", &text(&rotated, "secret"));
    let key = server.create_key(&["manage", "publish"], Some("acme"));
    secrets.add("API key", &key);
    let mut tenant = server.client_with(&key);
    // The same event again from a duplicate, bad requests with a secret in them, a wrong key.
    for _ in 0..2 {
        tenant.post("/v1/tenants/acme/events", json!({"id": "e-1", "type": "user.created", "data": {}})).expect(202);
    }
    let bad =
        json!({"name": "n", "url": "nonsense", "events": ["*"], "secret": IMPORTED, "headers": {"Host": HEADER_VALUE}});
    let answer = tenant.post("/v1/tenants/acme/webhooks", bad).expect(422);
    secrets.must_not_be_in("the answer to a bad webhook", &answer.body);
    let short = json!({"name": "n", "url": "https://example.com/", "events": ["*"], "secret": "whsec_c2hvcnQ="});
    tenant.post("/v1/tenants/acme/webhooks", short).expect(422);
    server.post(&format!("/v1/tenants/acme/webhooks/{hook}/test"), json!({})).expect(200);
    let delivery = server.deliveries_of("acme", "e-1");
    assert_eq!(delivery.len(), 4);
    for row in &delivery {
        server.wait_delivery_where("acme", &text(row, "id"), "attempts", |d| d["attempts"].as_u64() >= Some(1));
    }
    failing.wait_for_blocking(2);

    // Every GET there is, errors included, and the metrics.
    let openapi = server.get("/openapi.json").expect(200).json();
    let mut seen = 0;
    let mut asked = std::collections::BTreeSet::new();
    for (path, item) in openapi["paths"].as_object().unwrap() {
        // The stream never ends; what goes by there are the objects the other answers show.
        if item.get("get").is_none() || path.ends_with("/stream") {
            continue;
        }
        for id in [&hook, &text(&imported, "id"), &text(&texts, "id")] {
            for row in &delivery {
                let path = path
                    .replace("{tenant}", "acme")
                    .replace("{webhook}", id)
                    .replace("{event}", "e-1")
                    .replace("{delivery}", &text(row, "id"))
                    .replace("{name}", "user.created")
                    .replace("{kind}", "webhooks")
                    .replace("{subject}", "u1")
                    .replace("{job}", "job_00000000000000000000000000")
                    .replace("{hook}", "hook_00000000000000000000000000")
                    .replace("{invocation}", "inv_00000000000000000000000000")
                    .replace("{point}", "cymmetri.preCreateUser");
                assert!(!path.contains('{'), "teach this test the parameters of {path}");
                if !asked.insert(path.clone()) {
                    continue;
                }
                let reply = server.get(&path);
                assert!(reply.status < 500, "{path}: {reply:?}");
                secrets.must_not_be_in(&path, &reply.body);
                seen += usize::from(reply.status == 200);
            }
        }
    }
    assert!(seen > 20, "only {seen} answers looked at");
    let shown = server.get(&format!("/v1/tenants/acme/webhooks/{hook}")).expect(200).json();
    assert_eq!((shown.get("secret"), &shown["headers"]), (None, &json!({"X-Token": "***"})));
    let patched = server.patch(&format!("/v1/tenants/acme/webhooks/{hook}"), json!({"description": "d"})).expect(200);
    secrets.must_not_be_in("the answer to a patch", &patched.body);

    // The files: as a crash leaves them, then as a start and an orderly stop leave them.
    server.kill9();
    let mut looked_at = 0;
    for (name, content) in files(&server.data_dir()) {
        secrets.must_not_be_in(&name, &content);
        looked_at += content.len();
    }
    assert!(looked_at > 10_000, "the store has only {looked_at} bytes");
    server.restart();
    assert_eq!(server.terminate().code(), Some(0));
    for (name, content) in files(&server.data_dir()) {
        secrets.must_not_be_in(&name, &content);
    }
    // The logs, at their most talkative.
    let said = server.said();
    assert!(said.contains("\"TRACE\"") || said.contains("\"DEBUG\""), "the logs say too little to be a proof");
    secrets.must_not_be_in("the logs", said.as_bytes());
}

#[test]
fn p7_what_is_searched_for_would_be_found() {
    let mut secrets = Secrets(Vec::new());
    secrets.add("secret", IMPORTED);
    let bytes = base64_decode(IMPORTED.trim_start_matches("whsec_")).unwrap();
    assert_eq!(bytes, b"imported secret of thirty bytes!");
    for found in [IMPORTED.as_bytes(), &bytes, b"..aW1wb3J0ZWQgc2VjcmV0IG9mIHRoaXJ0eSBieXRlcyE=.."] {
        assert!(std::panic::catch_unwind(|| secrets.must_not_be_in("a test", found)).is_err());
    }
}

#[test]
fn p7_another_master_key_is_refused() {
    let options = Options::default().env("GATEPOST_MASTER_KEY", MASTER);
    let mut server = Server::with(options.clone());
    server.create_tenant("acme");
    let inbox = receiver();
    let secret = text(&server.create_webhook("acme", &inbox.url("/"), json!({})), "secret");
    for other in [Options::default().env("GATEPOST_MASTER_KEY", OTHER_MASTER), Options::default()] {
        let Err((status, output)) = server.try_restart_with(other) else { panic!("it starts with another master key") };
        assert_eq!(status.code(), Some(1), "{output}");
        assert!(output.to_lowercase().contains("master"), "{output}");
        assert!(!output.contains(MASTER) && !output.contains(OTHER_MASTER), "{output}");
    }
    // Nothing was harmed by trying.
    server.restart_with(options);
    server.publish("acme", "user.created", json!({}));
    crate::harness::verify(&secret, &inbox.wait_for_blocking(1)[0]);
}

#[test]
fn p7_keys_made_at_the_first_start_are_files_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let mut server = Server::with(Options::default().without("GATEPOST_ADMIN_KEY"));
    let data_dir = server.data_dir();
    let mode = |name: &str| std::fs::metadata(data_dir.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("admin.key"), mode("master.key")), (0o600, 0o600));
    let key = std::fs::read_to_string(server.data_dir().join("admin.key")).unwrap().trim().to_owned();
    let mut client = server.client_with(&key);
    client.get("/v1/tenants").expect(200);
    server.get("/v1/tenants").expect_problem(401, "unauthorized");
    let times = |said: &str| said.matches(key.as_str()).count();
    assert_eq!(times(&server.said()), 0, "there is no terminal: what is printed is kept");
    assert!(server.said().contains(&server.data_dir().join("admin.key").display().to_string()), "its file is named");
    server.restart();
    let mut client = server.client_with(&key);
    client.get("/v1/tenants").expect(200);
    assert_eq!(times(&server.said()), 0);
    // Another one, made beside the running server, opens after its next start; then the old one does not.
    let folder = server.data_dir().display().to_string();
    let ran = crate::harness::run(server.folder(), &["keys", "rotate-admin", "--data-dir", &folder], &[]).expect(0);
    assert!(ran.stdout.contains("admin.key") && !ran.stdout.contains("gp_"), "{}", ran.stdout);
    assert_eq!(mode("admin.key"), 0o600);
    server.client_with(&key).get("/v1/tenants").expect(200);
    server.restart();
    server.client_with(&key).get("/v1/tenants").expect_problem(401, "unauthorized");
    let new = std::fs::read_to_string(server.data_dir().join("admin.key")).unwrap().trim().to_owned();
    server.client_with(&new).get("/v1/tenants").expect(200);
    let env = [("GATEPOST_ADMIN_KEY", crate::harness::ADMIN_KEY)];
    let set = crate::harness::run(server.folder(), &["keys", "rotate-admin", "--data-dir", &folder], &env).expect(2);
    assert!(set.stderr.contains("GATEPOST_ADMIN_KEY"), "{}", set.stderr);
    // One that can be guessed is refused.
    let Err((status, output)) = Server::try_with(Options::default().env("GATEPOST_ADMIN_KEY", "a".repeat(31))) else {
        panic!("a short admin key")
    };
    assert!(status.code() == Some(2) && output.contains("at least 32 characters"), "{output}");
    // One from the environment is not written down.
    let given = Server::start();
    assert!(!given.data_dir().join("admin.key").exists());
}

#[test]
fn p7_a_deleted_or_expired_key_fails_at_once() {
    let server = Server::start();
    server.create_tenant("acme");
    let made = server.post("/v1/keys", json!({"name": "k", "scopes": ["read"]})).expect(201).json();
    let mut client = server.client_with(&text(&made, "key"));
    client.get("/v1/tenants/acme/events").expect(200);
    server.delete(&format!("/v1/keys/{}", text(&made, "id"))).expect(204);
    client.get("/v1/tenants/acme/events").expect_problem(401, "unauthorized");
    let rows = server.all("/v1/keys");
    assert!(rows.iter().all(|row| row.get("key").is_none_or(Value::is_null)));
    // A wrong key learns nothing and is never told apart from none that exist.
    let mut stranger = server.client_with("gp_wrong");
    stranger.get("/v1/tenants/acme").expect_problem(401, "unauthorized");
    stranger.get("/v1/tenants/none").expect_problem(401, "unauthorized");
}
