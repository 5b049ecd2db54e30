//! What a webhook may say: patterns, filters, bounds, secrets to import.

use serde_json::{Value, json};

use super::{Findings, reason};
use crate::harness::{Server, text, webhook_body};

const NOWHERE: &str = "http://127.0.0.1:9/x";
const HOOKS: &str = "/v1/tenants/acme/webhooks";

#[test]
fn patterns_match_whole_segments() {
    let server = Server::start();
    server.create_tenant("acme");
    let types = [
        "user",
        "user.created",
        "user.role.added",
        "userx.created",
        "user-x.created",
        "USER.created",
        "group.created",
        "created",
        "dir_sync.user.created",
        "a",
    ];
    let cases: [(&str, &[&str]); 14] = [
        ("all", &types),
        ("*", &types),
        ("user.*", &["user.created", "user.role.added"]),
        ("user.all", &["user.created", "user.role.added"]),
        ("user.role.*", &["user.role.added"]),
        ("user.role.all", &["user.role.added"]),
        ("user", &["user"]),
        ("user.created", &["user.created"]),
        ("user.role", &[]),
        ("userx.*", &["userx.created"]),
        ("user-x.*", &["user-x.created"]),
        ("dir_sync.*", &["dir_sync.user.created"]),
        ("a.*", &[]),
        ("gatepost.*", &[]),
    ];
    let hooks: Vec<(String, &str, &[&str])> = cases
        .into_iter()
        .map(|(pattern, wanted)| (server.webhook("acme", NOWHERE, json!({"events": [pattern]})), pattern, wanted))
        .collect();
    let both = server.webhook("acme", NOWHERE, json!({"events": ["group.*", "a"]}));
    let mut findings = Findings::default();
    for event_type in types {
        let event = server.event("acme", &server.publish("acme", event_type, json!({})));
        for (hook, pattern, wanted) in &hooks {
            let expected = if wanted.contains(&event_type) { "matched" } else { "no_pattern" };
            let found = reason(&event, hook);
            findings.check(found.as_deref() == Some(expected), format!("{pattern} and {event_type}: {found:?}"));
        }
        let expected = if ["group.created", "a"].contains(&event_type) { "matched" } else { "no_pattern" };
        findings.check(reason(&event, &both).as_deref() == Some(expected), format!("two patterns and {event_type}"));
    }
    findings.none();
}

#[test]
fn patterns_of_other_forms_are_refused() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    let long = format!("{}.*", "x".repeat(130));
    for bad in [
        "",
        "*.created",
        "us*",
        "user.*.created",
        "user*",
        "user.cre*",
        "**",
        "user.**",
        ".*",
        ".all",
        "user..*",
        "user.",
        "*.*",
        "a b",
        "user.*,group.*",
        "é.*",
        "all.*.x",
        " user.*",
        "/user.*/",
        &long,
    ] {
        let reply = server.post(HOOKS, webhook_body(NOWHERE, json!({"events": ["user.created", bad]})));
        findings.problem(format!("{bad:?}"), &reply, 422, "validation_failed", &["/events/1"]);
    }
    findings.none();
}

#[test]
fn filters_decide_by_type_subject_data_and_attributes() {
    let server = Server::start();
    server.create_tenant("acme");
    let event = json!({
        "type": "user.created",
        "subject": {"type": "user", "id": "u1"},
        "data": {"n": 5, "f": 1.5, "s": "abc", "list": [1, 2, 3], "o": {"x": true}, "nil": null},
        "attributes": {"region": "eu"}
    });
    let cases = [
        ("true", "matched"),
        ("false", "filter_false"),
        ("type == 'user.created'", "matched"),
        ("type.startsWith('group.')", "filter_false"),
        ("subject.id == 'u1' && subject.type == 'user'", "matched"),
        ("subject == null", "filter_false"),
        ("data.n == 5", "matched"),
        ("data.n > 5", "filter_false"),
        ("data.n + 1 == 6", "matched"),
        ("data.f == 1.5", "matched"),
        ("data.s.contains('b') && data.s.size() == 3", "matched"),
        ("data.s.matches('^a.c$')", "matched"),
        ("data.list.exists(x, x == 2)", "matched"),
        ("data.list.all(x, x > 1)", "filter_false"),
        ("2 in data.list", "matched"),
        ("data.o.x", "matched"),
        ("data.nil == null", "matched"),
        ("attributes.region == 'eu'", "matched"),
        ("has(data.missing)", "filter_false"),
        ("has(data.n) && data.n == 5", "matched"),
        ("!has(data.missing)", "matched"),
        ("data.missing == 1", "filter_error"),
        ("attributes.missing == 'x'", "filter_error"),
        ("data.s > 5", "filter_error"),
        ("data.n / 0 == 1", "filter_error"),
        ("data.n", "filter_error"),
        ("data.s", "filter_error"),
        ("data.list[9] == 1", "filter_error"),
        ("data.missing == 1 || true", "matched"),
        ("data.missing == 1 && false", "filter_false"),
    ];
    let hooks: Vec<(String, &str, &str)> = cases
        .into_iter()
        .map(|(filter, wanted)| (server.webhook("acme", NOWHERE, json!({"filter": filter})), filter, wanted))
        .collect();
    let on_absence = [
        ("subject == null", "matched"),
        ("subject != null && subject.id == 'u1'", "filter_false"),
        ("subject.id == 'u1'", "filter_error"),
        ("data == null", "matched"),
        ("has(attributes.region)", "filter_false"),
    ];
    let bare_hooks: Vec<(String, &str, &str)> = on_absence
        .into_iter()
        .map(|(filter, wanted)| (server.webhook("acme", NOWHERE, json!({"filter": filter})), filter, wanted))
        .collect();
    let mut findings = Findings::default();
    let mut judge = |event: Value, hooks: &[(String, &str, &str)]| {
        let id = text(&server.publish_event("acme", event.clone()), "id");
        let view = server.event("acme", &id);
        for (hook, filter, wanted) in hooks {
            let found = reason(&view, hook);
            findings.check(
                found.as_deref() == Some(wanted),
                format!("{filter}: {found:?} instead of {wanted}, on {event}"),
            );
            let delivered =
                view["deliveries"].as_array().is_some_and(|rows| rows.iter().any(|row| row["webhook_id"] == **hook));
            findings.check(delivered == (*wanted == "matched"), format!("{filter}: delivered {delivered}"));
        }
    };
    judge(event, &hooks);
    judge(json!({"type": "user.created"}), &bare_hooks);
    findings.none();
}

#[test]
fn filters_that_cannot_be_are_refused_at_write() {
    let server = Server::start();
    server.create_tenant("acme");
    let long = format!("data.s == '{}'", "x".repeat(10_000));
    let wide = vec!["data.n == 1"; 5_000].join(" || ");
    let deep = format!("{}true{}", "(".repeat(2_000), ")".repeat(2_000));
    let nots = format!("{}true", "!".repeat(3_000));
    let mut findings = Findings::default();
    for bad in [
        "",
        "   ",
        "data.",
        "1 +",
        "data.n =",
        "(true",
        "data.n == 'x",
        "nope == 1",
        "event.type == 'x'",
        "now()",
        // Not Boolean, and that is known.
        "1",
        "'x'",
        "1 + 2",
        "[true]",
        "{'a': true}",
        "null",
        "data.n + 1",
        "size(data.s)",
        "type",
        "true ? 1 : 2",
        // Costs: nested comprehensions, size, depth.
        "data.list.all(x, data.list.all(y, x == y))",
        "data.list.map(x, data.list.map(y, y)).size() > 0",
        "data.list.exists(x, x.filter(y, y > 1).size() > 0)",
        &long,
        &wide,
        &deep,
        &nots,
    ] {
        let start: String = bad.chars().take(60).collect();
        let reply = server.post(HOOKS, webhook_body(NOWHERE, json!({"filter": bad})));
        findings.problem(format!("{start:?}"), &reply, 422, "validation_failed", &["/filter"]);
    }
    let id = server.webhook("acme", NOWHERE, json!({}));
    let reply = server.patch(&format!("{HOOKS}/{id}"), json!({"filter": "1"}));
    findings.problem("by patch", &reply, 422, "validation_failed", &["/filter"]);
    for good in [
        "true",
        "data.n == 1 // why\n",
        "data.list.exists(x, x > 1) && data.list.all(x, x < 9)",
        "type in ['a', 'b'] && data.o.p.q[0].r == 'é'",
    ] {
        findings.status(good, &server.post(HOOKS, webhook_body(NOWHERE, json!({"filter": good}))), 201);
    }
    findings.none();
}

#[test]
fn bounds_are_kept_to_the_number() {
    let server = Server::start();
    server.create_tenant("acme");
    let mut findings = Findings::default();
    let waits = |n: usize| json!({"waits": vec![1; n]});
    let text_of = |n: usize| json!("ü".repeat(n));
    let cases: Vec<(&str, Value, Option<&str>)> = vec![
        ("timeout_ms", json!(99), Some("/timeout_ms")),
        ("timeout_ms", json!(100), None),
        ("timeout_ms", json!(60_000), None),
        ("timeout_ms", json!(60_001), Some("/timeout_ms")),
        ("timeout_ms", json!(-1), Some("/timeout_ms")),
        ("timeout_ms", json!(1000.5), Some("/timeout_ms")),
        ("max_in_flight", json!(0), Some("/max_in_flight")),
        ("max_in_flight", json!(1), None),
        ("max_in_flight", json!(-1), Some("/max_in_flight")),
        ("name", text_of(0), Some("/name")),
        ("name", text_of(1), None),
        ("name", text_of(200), None),
        ("name", text_of(201), Some("/name")),
        ("retry", waits(32), None),
        ("retry", waits(33), Some("/retry/waits")),
        ("retry", json!({"waits": []}), None),
        ("retry", json!({"waits": [0, 0.001, 2_592_000]}), None),
        ("retry", json!({"waits": [1, 2_592_001]}), Some("/retry/waits/1")),
        ("retry", json!({"waits": [-0.1]}), Some("/retry/waits/0")),
        ("retry", json!({"jitter": 0}), None),
        ("retry", json!({"jitter": 1}), None),
        ("retry", json!({"jitter": 1.01}), Some("/retry/jitter")),
        ("retry", json!({"jitter": -0.1}), Some("/retry/jitter")),
        ("retry", json!({"retry_on": ["timeout", "transport", "3xx", "4xx", "5xx", 429, "503"]}), None),
        ("retry", json!({"retry_on": []}), None),
        ("retry", json!({"retry_on": ["2xx"]}), Some("/retry/retry_on/0")),
        ("retry", json!({"retry_on": ["4xx", 99]}), Some("/retry/retry_on/1")),
        ("retry", json!({"retry_on": [600]}), Some("/retry/retry_on/0")),
        ("retry", json!({"gone": "cancel"}), None),
        ("retry", json!({"gone": "disable"}), None),
        ("retry", json!({"gone": "final"}), None),
        ("retry", json!({"gone": "never"}), Some("/retry/gone")),
        ("retry", json!({"retry_after": {"statuses": [429, 503], "cap_s": 86_400}}), None),
        ("retry", json!({"retry_after": {"statuses": []}}), None),
        ("retry", json!({"retry_after": {"cap_s": 86_401}}), Some("/retry/retry_after/cap_s")),
        ("retry", json!({}), None),
        ("profile", json!("standard"), None),
        ("profile", json!("cloudevents"), None),
        ("profile", json!("Standard"), Some("/profile")),
        ("profile", json!(""), Some("/profile")),
        ("enabled", json!(0), Some("/enabled")),
    ];
    for (member, value, pointer) in cases {
        let mut overrides = json!({});
        overrides[member] = value.clone();
        let reply = server.post(HOOKS, webhook_body(NOWHERE, overrides.clone()));
        let shown: String = overrides.to_string().chars().take(100).collect();
        match pointer {
            None => findings.status(shown, &reply, 201),
            Some(pointer) => findings.problem(shown, &reply, 422, "validation_failed", &[pointer]),
        }
    }
    findings.none();
}

#[test]
fn secrets_to_import_are_whsec_of_24_to_64_bytes() {
    let server = Server::start();
    server.create_tenant("acme");
    let of = |sextets: usize, padding: &str| format!("whsec_{}{padding}", "A".repeat(sextets));
    let (bytes_23, bytes_24, bytes_64, bytes_65) = (of(31, "="), of(32, ""), of(86, "=="), of(87, "="));
    let mut findings = Findings::default();
    let id = server.webhook("acme", NOWHERE, json!({}));
    let rotate = format!("{HOOKS}/{id}/rotate-secret");
    for bad in [
        "",
        "whsec_",
        "whsec_%",
        "plain text of more than twenty-four bytes",
        "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        &bytes_23,
        &bytes_65,
    ] {
        let reply = server.post(HOOKS, webhook_body(NOWHERE, json!({"secret": bad})));
        findings.problem(format!("{bad:?}"), &reply, 422, "validation_failed", &["/secret"]);
        findings.check(bad.len() < 10 || !reply.text().contains(bad), format!("{bad:?} is repeated in the answer"));
        let reply = server.post(&rotate, json!({"secret": bad}));
        findings.problem(format!("rotate to {bad:?}"), &reply, 422, "validation_failed", &["/secret"]);
    }
    for good in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &bytes_24, &bytes_64] {
        findings.status(good, &server.post(HOOKS, webhook_body(NOWHERE, json!({"secret": good}))), 201);
        findings.status(good, &server.post(&rotate, json!({"secret": good})), 200);
    }
    findings.none();
}
