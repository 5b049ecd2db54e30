//! Every member of a webhook: read, judged, kept, changed and answered.

use serde_json::{Value, json};

use super::{Findings, members};
use crate::harness::{Server, text, webhook_body};

const NOWHERE: &str = "http://127.0.0.1:9/x";
const HOOKS: &str = "/v1/tenants/acme/webhooks";

fn server() -> Server {
    let server = Server::start();
    server.create_tenant("acme");
    server
}

/// A webhook that says something about every member there is (but `paths`, which need a profile that
/// addresses by path).
fn everything() -> Value {
    json!({
        "name": "All", "description": "every member", "url": NOWHERE, "events": ["user.*", "a"],
        "filter": "type != 'x'", "profile": "standard", "format": "standard",
        "signing": [{"scheme": "standard"}, {"scheme": "timestamped", "header": "X-Sig"}],
        "payload": {"mode": "full", "include": ["/a"], "exclude": ["/a/b"]},
        "options": {}, "headers": {"X-Own": "value"},
        "auth": {"type": "basic", "username": "u", "password": "p"},
        "retry": {"waits": [1.5]}, "timeout_ms": 5000,
        "batch": {"max_events": 5, "max_wait_ms": 50, "max_bytes": 5000},
        "verification": {"mode": "post", "required": false},
        "paths": {}, "ordering": "webhook", "rate_limit_per_s": 7, "max_in_flight": 3,
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "enabled": false,
    })
}

#[test]
fn every_member_is_answered_as_it_was_given() {
    let server = server();
    let made = server.post(HOOKS, everything()).expect(201).json();
    let shown = server.get(&format!("{HOOKS}/{}", text(&made, "id"))).expect(200).json();
    let mut wanted = everything();
    wanted["headers"] = json!({"X-Own": "***"});
    wanted["auth"]["password"] = json!("***");
    let mut findings = Findings::default();
    for (member, value) in wanted.as_object().unwrap() {
        match member.as_str() {
            "secret" => findings.check(shown.get("secret").is_none() && made["secret"] == *value, "the secret"),
            "verification" => {
                let full = json!({"mode": "post", "required": false, "verified_at": null, "last_error": null});
                findings.check(shown[member] == full, format!("{member}: {}", shown[member]));
            }
            _ => findings.check(shown[member] == *value, format!("{member}: {} is not {value}", shown[member])),
        }
    }
    findings.check(shown["verified"] == true && shown["public_key"].is_null(), "verified, public_key");
    let mut first = made.clone();
    first.as_object_mut().unwrap().remove("secret");
    findings.check(members(&first) == members(&shown), "both answers have the same members");
    findings.none();
}

#[test]
fn what_is_not_given_is_answered_as_default_or_null() {
    let server = server();
    let made = server.create_webhook("acme", NOWHERE, json!({}));
    let mut findings = Findings::default();
    for (member, value) in [
        ("profile", json!("standard")),
        ("format", json!(null)),
        ("signing", json!(null)),
        ("payload", json!(null)),
        ("options", json!({})),
        ("headers", json!({})),
        ("auth", json!(null)),
        ("retry", json!(null)),
        ("timeout_ms", json!(null)),
        ("batch", json!(null)),
        ("verification", json!({"mode": "none", "required": false, "verified_at": null, "last_error": null})),
        ("verified", json!(true)),
        ("paths", json!({})),
        ("ordering", json!("none")),
        ("rate_limit_per_s", json!(null)),
        ("max_in_flight", json!(null)),
        ("public_key", json!(null)),
        ("last_test", json!(null)),
        ("enabled", json!(true)),
    ] {
        findings.check(made.get(member) == Some(&value), format!("{member}: {:?} is not {value}", made.get(member)));
    }
    // Members of a batch have defaults, and are kept whole.
    let batch = |given: Value| server.create_webhook("acme", NOWHERE, json!({"batch": given}))["batch"].clone();
    let full = json!({"max_events": 100, "max_wait_ms": 1000, "max_bytes": 262_144});
    findings.check(batch(json!({})) == full, "an empty batch");
    let five = json!({"max_events": 5, "max_wait_ms": 1000, "max_bytes": 262_144});
    findings.check(batch(json!({"max_events": 5, "max_bytes": null})) == five, "a batch of five");
    findings.none();
}

#[test]
fn each_bad_value_has_its_pointer() {
    let server = server();
    let mut findings = Findings::default();
    let bearer = json!({"type": "bearer", "token": "t"});
    let long = format!("/{}", "x".repeat(600));
    let cases: Vec<(Value, &[&str])> = vec![
        (json!({"format": "xml"}), &["/format"]),
        (json!({"format": 7}), &["/format"]),
        (json!({"signing": []}), &["/signing"]),
        (json!({"signing": {"scheme": "standard"}}), &["/signing"]),
        (json!({"signing": ["standard"]}), &["/signing/0"]),
        (json!({"signing": [{}]}), &["/signing/0/scheme"]),
        (json!({"signing": [{"scheme": "hmac"}, {"scheme": 7, "x": 1}]}), &["/signing/1/scheme", "/signing/1/x"]),
        (json!({"signing": [{"scheme": "hmac"}, {"scheme": "standard"}]}), &["/signing/0/scheme"]),
        (json!({"signing": [{"scheme": "standard"}, {"scheme": "standard"}]}), &["/signing/1"]),
        (json!({"signing": [{"scheme": "standard", "header": "X-Sig"}]}), &["/signing/0/header"]),
        (json!({"signing": [{"scheme": "timestamped", "header": "no name"}]}), &["/signing/0/header"]),
        (json!({"signing": [{"scheme": "timestamped", "header": "Host"}]}), &["/signing/0/header"]),
        (json!({"signing": [{"scheme": "timestamped", "header": "webhook-id"}]}), &["/signing/0/header"]),
        (json!({"signing": [{"scheme": "github", "header": "gatepost-event-id"}]}), &["/signing/0/header"]),
        (
            json!({"signing": [{"scheme": "timestamped", "header": "X-Sig"}, {"scheme": "github", "header": "x-sig"}]}),
            &["/signing/1/header"],
        ),
        (
            json!({"signing": [{"scheme": "standard"}, {"scheme": "timestamped"}, {"scheme": "github"},
                {"scheme": "standard-ed25519"}, {"scheme": "timestamped", "header": "X-B"}]}),
            &["/signing"],
        ),
        (json!({"signing": [{"scheme": "none"}]}), &["/signing/0/scheme"]),
        (json!({"signing": [{"scheme": "none"}, {"scheme": "standard"}], "auth": bearer}), &["/signing/0/scheme"]),
        (json!({"payload": "thin"}), &["/payload"]),
        (json!({"payload": {"mode": "slim", "only": []}}), &["/payload/mode", "/payload/only"]),
        (json!({"payload": {"include": []}}), &["/payload/include"]),
        (
            json!({"payload": {"include": ["a", "/b~2"], "exclude": ["", "/ok"]}}),
            &["/payload/include/0", "/payload/include/1", "/payload/exclude/0"],
        ),
        (json!({"payload": {"include": [&long]}}), &["/payload/include/0"]),
        (json!({"payload": {"include": vec!["/a"; 101]}}), &["/payload/include"]),
        (json!({"payload": {"mode": "thin"}, "format": "raw"}), &["/payload/mode"]),
        (json!({"payload": {"mode": "thin"}, "format": "cloudevents"}), &["/payload"]),
        (json!({"payload": {"exclude": ["/a"]}, "profile": "cloudevents"}), &["/payload"]),
        (json!({"options": []}), &["/options"]),
        (json!({"options": {"a/b": 1, "c": 2}}), &["/options/a~1b", "/options/c"]),
        (json!({"auth": "bearer"}), &["/auth"]),
        (json!({"auth": {"token": "t"}}), &["/auth/type"]),
        (json!({"auth": {"type": "digest"}}), &["/auth/type"]),
        (json!({"auth": {"type": "bearer"}}), &["/auth/token"]),
        (json!({"auth": {"type": "bearer", "token": "***"}}), &["/auth/token"]),
        (json!({"auth": {"type": "bearer", "token": "t", "username": "u"}}), &["/auth/username"]),
        (
            json!({"auth": {"type": "basic", "username": "a:b", "password": "p\n"}}),
            &["/auth/username", "/auth/password"],
        ),
        (json!({"auth": {"type": "header", "name": "webhook-id", "value": "v"}}), &["/auth/name"]),
        (json!({"auth": {"type": "header", "name": "X-A", "value": " v"}}), &["/auth/value"]),
        (json!({"auth": bearer, "headers": {"Authorization": "x"}}), &["/headers/Authorization"]),
        (json!({"auth": {"type": "header", "name": "X-A", "value": "v"}, "headers": {"x-a": "x"}}), &["/headers/x-a"]),
        (
            json!({"auth": {"type": "header", "name": "X-Sig", "value": "v"},
                "signing": [{"scheme": "timestamped", "header": "x-sig"}]}),
            &["/auth/name"],
        ),
        (json!({"headers": {"X-Sig": "v"}, "signing": [{"scheme": "github", "header": "x-sig"}]}), &["/headers/X-Sig"]),
        (
            json!({"auth": {"type": "oauth2", "token_url": "ftp://x", "client_id": "", "client_secret": "s"}}),
            &["/auth/token_url", "/auth/client_id"],
        ),
        (json!({"batch": 5}), &["/batch"]),
        (
            json!({"batch": {"max_events": 0, "max_wait_ms": 600_001, "max_bytes": 1_023}}),
            &["/batch/max_events", "/batch/max_wait_ms", "/batch/max_bytes"],
        ),
        (
            json!({"batch": {"max_events": 1_001, "max_bytes": 4_194_305, "size": 1}}),
            &["/batch/size", "/batch/max_events", "/batch/max_bytes"],
        ),
        (json!({"batch": {"max_events": 1_001, "max_bytes": 4_194_305}}), &["/batch/max_events", "/batch/max_bytes"]),
        (json!({"batch": {"max_events": 1.5}}), &["/batch/max_events"]),
        (json!({"batch": {}, "ordering": "subject"}), &["/batch"]),
        (json!({"batch": {}, "format": "raw"}), &["/batch"]),
        (json!({"verification": "post"}), &["/verification"]),
        (json!({"verification": {}}), &["/verification/mode"]),
        (json!({"verification": {"mode": "carrier-pigeon"}}), &["/verification/mode"]),
        (json!({"verification": {"mode": "none", "required": true}}), &["/verification/required"]),
        (
            json!({"verification": {"mode": "post", "required": "yes", "verified_at": "2026-01-01T00:00:00Z"}}),
            &["/verification/required", "/verification/verified_at"],
        ),
        (json!({"paths": {"a.b": "x"}}), &["/paths"]),
        (json!({"paths": {"a.b": 7}}), &["/paths/a.b"]),
        (json!({"ordering": "random"}), &["/ordering"]),
        (json!({"ordering": true}), &["/ordering"]),
        (json!({"rate_limit_per_s": 0}), &["/rate_limit_per_s"]),
        (json!({"rate_limit_per_s": 10_001}), &["/rate_limit_per_s"]),
        (json!({"rate_limit_per_s": "7"}), &["/rate_limit_per_s"]),
        // Answered only.
        (
            json!({"verified": true, "public_key": "whpk_x", "warnings": [], "last_test": null, "id": "wh_1"}),
            &["/verified", "/public_key", "/warnings", "/last_test", "/id"],
        ),
    ];
    for (overrides, pointers) in cases {
        let shown: String = overrides.to_string().chars().take(120).collect();
        let reply = server.post(HOOKS, webhook_body(NOWHERE, overrides));
        findings.problem(shown, &reply, 422, "validation_failed", pointers);
    }
    findings.none();
}

#[test]
fn good_values_at_their_bounds() {
    let server = server();
    let mut findings = Findings::default();
    for overrides in [
        json!({"signing": [{"scheme": "timestamped", "header": "X-Hub-Signature"}]}),
        json!({"signing": [{"scheme": "standard"}, {"scheme": "timestamped"}, {"scheme": "timestamped", "header": "X-B"},
            {"scheme": "github"}]}),
        json!({"payload": {"include": ["", "/a~1b/0"], "exclude": vec!["/a"; 100]}}),
        json!({"payload": {"include": vec!["/a"; 100]}}),
        json!({"payload": {"exclude": []}, "format": "raw"}),
        json!({"payload": {"mode": "full"}, "profile": "cloudevents"}),
        json!({"batch": {"max_events": 1, "max_wait_ms": 0, "max_bytes": 1024}, "ordering": "webhook"}),
        json!({"batch": {"max_events": 1000, "max_wait_ms": 600_000, "max_bytes": 4_194_304}, "profile": "cloudevents"}),
        json!({"batch": null, "ordering": "subject", "format": "raw"}),
        json!({"rate_limit_per_s": 1}),
        json!({"rate_limit_per_s": 10_000}),
        json!({"verification": {"mode": "options", "required": true}}),
        json!({"signing": [{"scheme": "none"}], "auth": {"type": "header", "name": "Authorization", "value": "ApiKey x"}}),
        json!({"auth": {"type": "bearer", "token": "t"}, "headers": {"X-Authorization": "x"}}),
        json!({"format": null, "signing": null, "payload": null, "options": null, "auth": null, "batch": null,
            "verification": null, "paths": null, "ordering": null, "rate_limit_per_s": null}),
    ] {
        let shown: String = overrides.to_string().chars().take(120).collect();
        findings.status(shown, &server.post(HOOKS, webhook_body(NOWHERE, overrides)), 201);
    }
    findings.none();
}

#[test]
fn everything_wrong_is_told_at_once() {
    let server = server();
    let bad = json!({
        "name": "", "description": 7, "url": "nonsense", "events": ["us*"], "filter": "1 +", "profile": "standard",
        "format": "xml", "signing": [{"scheme": "hmac"}], "payload": {"include": ["a"]}, "options": {"x": 1},
        "headers": {"Host": "x"}, "auth": {"type": "basic", "username": "a:b", "password": ""},
        "retry": {"jitter": 2}, "timeout_ms": 1, "batch": {"max_events": 0}, "verification": {"mode": "x"},
        "paths": {"a": "b"}, "ordering": "x", "rate_limit_per_s": 0, "max_in_flight": 0, "enabled": "yes", "more": 1,
    });
    let reply = server.post(HOOKS, bad).expect_problem(422, "validation_failed");
    let mut pointers = reply.pointers();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/auth/password",
            "/auth/username",
            "/batch/max_events",
            "/description",
            "/enabled",
            "/events/0",
            "/filter",
            "/format",
            "/headers/Host",
            "/max_in_flight",
            "/more",
            "/name",
            "/options/x",
            "/ordering",
            "/paths",
            "/payload/include/0",
            "/rate_limit_per_s",
            "/retry/jitter",
            "/signing/0/scheme",
            "/timeout_ms",
            "/url",
            "/verification/mode",
        ]
    );
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let server = server();
    let made = server.post(HOOKS, everything()).expect(201).json();
    let path = format!("{HOOKS}/{}", text(&made, "id"));
    let before = server.get(&path).expect(200).json();
    let patch = |patch: Value| server.patch(&path, patch).expect(200).json();
    let mut findings = Findings::default();
    let mut wanted = before.clone();
    for (change, member, value) in [
        (json!({}), "name", json!("All")),
        (json!({"payload": {"include": null}}), "payload", json!({"mode": "full", "exclude": ["/a/b"]})),
        (json!({"payload": {"mode": "thin"}}), "payload", json!({"mode": "thin", "exclude": ["/a/b"]})),
        (json!({"payload": null}), "payload", json!(null)),
        (
            json!({"batch": {"max_events": null}}),
            "batch",
            json!({"max_events": 100, "max_wait_ms": 50, "max_bytes": 5000}),
        ),
        (json!({"ordering": "none"}), "ordering", json!("none")),
        (json!({"ordering": null}), "ordering", json!("none")),
        (json!({"batch": null}), "batch", json!(null)),
        (json!({"rate_limit_per_s": 9}), "rate_limit_per_s", json!(9)),
        (json!({"rate_limit_per_s": null}), "rate_limit_per_s", json!(null)),
        (json!({"auth": {"username": "v"}}), "auth", json!({"type": "basic", "username": "v", "password": "***"})),
        (json!({"auth": {"password": "***"}}), "auth", json!({"type": "basic", "username": "v", "password": "***"})),
        (json!({"auth": {"type": "bearer", "token": "t"}}), "auth", json!({"type": "bearer", "token": "***"})),
        (json!({"auth": null}), "auth", json!(null)),
        (json!({"signing": [{"scheme": "standard"}]}), "signing", json!([{"scheme": "standard"}])),
        (json!({"signing": null}), "signing", json!(null)),
        (json!({"format": null}), "format", json!(null)),
        (
            json!({"verification": {"required": true}}),
            "verification",
            json!({"mode": "post", "required": true, "verified_at": null, "last_error": null}),
        ),
        (
            json!({"verification": null}),
            "verification",
            json!({"mode": "none", "required": false, "verified_at": null, "last_error": null}),
        ),
        (json!({"options": null, "paths": null}), "options", json!({})),
    ] {
        let mut now = patch(change.clone());
        wanted[member] = value;
        for moving in ["updated_at", "verified", "health"] {
            wanted[moving] = now[moving].take();
            now[moving] = wanted[moving].clone();
        }
        findings.check(now == wanted, format!("{change}: {now}\n  instead of {wanted}"));
        wanted = now;
    }
    findings.none();
}

#[test]
fn a_patch_is_judged_by_itself_and_in_the_whole() {
    let server = server();
    let made = server.post(HOOKS, everything()).expect(201).json();
    let path = format!("{HOOKS}/{}", text(&made, "id"));
    let mut findings = Findings::default();
    let cases: [(Value, &[&str]); 15] = [
        (json!({"profile": "standard"}), &["/profile"]),
        (json!({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}), &["/secret"]),
        // Null would only have removed nothing: it is no member all the same.
        (json!({"payload": {"only": null}, "batch": {"size": null}}), &["/payload/only", "/batch/size"]),
        (
            json!({"auth": {"tokn": null}, "verification": {"verified_at": null}}),
            &["/auth/tokn", "/verification/verified_at"],
        ),
        (json!({"auth": {"type": null}}), &["/auth/type"]),
        (json!({"auth": {"type": "bearer"}}), &["/auth/token"]),
        (json!({"auth": {"type": "bearer", "token": "***"}}), &["/auth/token"]),
        (json!({"auth": {"token": "t"}}), &["/auth/token"]),
        (json!({"verification": {"mode": null}}), &["/verification/mode"]),
        (json!({"ordering": "subject"}), &["/batch"]),
        (json!({"format": "raw"}), &["/batch"]),
        (json!({"format": "cloudevents"}), &["/payload"]),
        (json!({"headers": {"X-Sig": "mine"}}), &["/headers/X-Sig"]),
        (json!({"signing": [{"scheme": "none"}], "auth": null}), &["/signing/0/scheme"]),
        (json!({"rate_limit_per_s": 0, "payload": {"include": "a"}}), &["/rate_limit_per_s", "/payload/include"]),
    ];
    for (patch, pointers) in cases {
        let reply = server.patch(&path, patch.clone());
        findings.problem(&patch, &reply, 422, "validation_failed", pointers);
    }
    let kept = server.get(&path).expect(200).json();
    findings.check(kept["updated_at"] == made["updated_at"], "a refused patch changes nothing");
    findings.none();
}
