//! Bad input → exact code, pointers, line and column. And no input at all makes a panic.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::problem::Problem;
use crate::wire::{At, Errors, Read, Reader};

/// What reading `body` comes to: nothing, or the problem answered.
fn problem<T>(body: &[u8], read: impl for<'a> FnOnce(&mut Reader<'a, '_>) -> Read<T>) -> Option<Value> {
    let mut errors = Errors::default();
    let outcome = Reader::new(body, &mut errors)
        .and_then(|mut reader| read(&mut reader))
        .map_err(|malformed| malformed.into_problem(body));
    let problem: Option<Problem> = match outcome {
        Err(problem) => Some(problem),
        Ok(_) => errors.check().err(),
    };
    problem.map(|problem| problem.to_value())
}

fn pointers(problem: &Value) -> Vec<&str> {
    problem["errors"]
        .as_array()
        .map_or(Vec::new(), |list| list.iter().map(|e| e["pointer"].as_str().unwrap()).collect())
}

fn event_problem(body: &[u8]) -> Option<Value> {
    problem(body, |reader| {
        let text = reader.document();
        reader.event(text, At::Root)
    })
}

#[test]
fn malformed_bodies_have_a_line_and_a_column() {
    let cases: [(&[u8], usize, usize); 16] = [
        (b"", 1, 1),
        (b"  \n ", 1, 1),
        (b"{", 1, 1),
        (b"{\"type\":\"a\",}", 1, 13),
        (b"{\n  \"type\": \"a\"\n  \"id\": 1\n}", 3, 3),
        (b"{\"type\":\"a\"} x", 1, 14),
        (b"{\"type\":\"a\"}{}", 1, 13),
        (b"{\"type\":\"\xff\"}", 1, 10),
        (b"{\"type\":\"a\",\n\"data\":{\"x\":\"\xc3\x28\"}}", 2, 14),
        (b"{\"type\":\"a\",\"type\":\"b\"}", 1, 13),
        (b"{\"type\":\"a\",\n \"subject\":{\"id\":\"1\",\"id\":\"2\"}}", 2, 22),
        (b"{\"type\":\"a\",\"x\":1,\"x\":2}", 1, 19),
        (b"{\"type\":\"a\",\"ty\\u0070e\":\"b\"}", 1, 25),
        (b"{\"type\":'a'}", 1, 9),
        (b"{\"type\":\"a\",\"data\":01}", 1, 21),
        (b"\xef\xbb\xbf{}", 1, 1),
    ];
    for (body, line, column) in cases {
        let shown = String::from_utf8_lossy(body);
        let problem = event_problem(body).unwrap_or_else(|| panic!("{shown} was read"));
        assert_eq!(problem["code"], "malformed_json", "{shown}");
        assert_eq!(problem["status"], 400, "{shown}");
        let found = (problem["line"].as_u64().unwrap(), problem["column"].as_u64().unwrap());
        assert_eq!(
            body.starts_with(b"\xef"),
            problem["detail"].as_str().unwrap().contains("byte order mark"),
            "{shown}"
        );
        // An end that came too early is found at the end, whose column serde_json counts its own way.
        if !shown.ends_with('{') {
            assert_eq!(found, (line as u64, column as u64), "{shown}: {problem}");
        }
        let place = format!("at line {} column {}", found.0, found.1);
        assert!(problem["detail"].as_str().unwrap().ends_with(&place), "{problem}");
    }
}

#[test]
fn columns_count_characters() {
    let problem = event_problem("{\"é€😀\":1,x".as_bytes()).unwrap();
    assert_eq!(problem["column"], 10, "{problem}");
}

#[test]
fn wrong_events_have_all_their_pointers() {
    let deep = format!(r#"{{"type":"a.b","data":{}1{}}}"#, "[".repeat(129), "]".repeat(129));
    let cases: [(&str, &[&str]); 26] = [
        ("[]", &[""]),
        ("1", &[""]),
        ("null", &[""]),
        ("\"x\"", &[""]),
        ("{}", &["/type"]),
        (r#"{"type":null}"#, &["/type"]),
        (r#"{"type":1}"#, &["/type"]),
        (r#"{"type":""}"#, &["/type"]),
        (r#"{"type":"a..b"}"#, &["/type"]),
        (r#"{"type":"a.all"}"#, &["/type"]),
        (r#"{"type":"a b"}"#, &["/type"]),
        (r#"{"type":"\ud800"}"#, &["/type"]),
        (r#"{"type":"a","id":"has.dot"}"#, &["/id"]),
        (r#"{"type":"a","id":7}"#, &["/id"]),
        (r#"{"type":"a","timestamp":"yesterday"}"#, &["/timestamp"]),
        (r#"{"type":"a","timestamp":1700000000}"#, &["/timestamp"]),
        (r#"{"type":"a","subject":"u1"}"#, &["/subject"]),
        (r#"{"type":"a","subject":{}}"#, &["/subject/id"]),
        (r#"{"type":"a","subject":{"id":"","type":"","x":1}}"#, &["/subject/x", "/subject/type", "/subject/id"]),
        (r#"{"type":"a","attributes":[1]}"#, &["/attributes"]),
        (r#"{"type":"a","urgency":"now"}"#, &["/urgency"]),
        (r#"{"type":"a","dat":1,"a/b~c":2}"#, &["/dat", "/a~1b~0c"]),
        (r#"{"id":"a.b","timestamp":"x","urgency":1,"z":0}"#, &["/z", "/type", "/id", "/timestamp", "/urgency"]),
        (r#"{"type":"a","idempotency_key":"x"}"#, &["/idempotency_key"]),
        (r#"{"type":"a","deliveries":3}"#, &["/deliveries"]),
        (&deep, &["/data"]),
    ];
    for (body, wanted) in cases {
        let problem = event_problem(body.as_bytes()).unwrap_or_else(|| panic!("{body} was read"));
        assert_eq!(problem["code"], "validation_failed", "{body}");
        assert_eq!(problem["status"], 422, "{body}");
        assert_eq!(pointers(&problem), wanted, "{body}");
    }
}

#[test]
fn good_events_are_read_and_data_keep_their_bytes() {
    let data = r#"{ "b" : 1.0e0, "a":[1E400,"\u0041\ud800"],"b":2 }"#;
    let body = format!(
        r#" {{"id":"a:1","data": {data} ,"type":"user.created","timestamp":"2026-01-02T03:04:05+01:00",
        "subject":{{"type":null,"id":"caf\u00e9"}},"attributes":{{"x":1,"y":{{"x":2}}}},"urgency":null}} "#
    );
    let mut errors = Errors::default();
    let mut reader = Reader::new(body.as_bytes(), &mut errors).unwrap();
    let event = reader.event(reader.document(), At::Root).unwrap().unwrap();
    assert!(errors.is_empty());
    assert_eq!(&event.data[..], data.as_bytes());
    assert_eq!(event.attributes.as_deref(), Some(&br#"{"x":1,"y":{"x":2}}"#[..]));
    assert_eq!(event.timestamp.unwrap().to_string(), "2026-01-02T02:04:05Z");
    assert_eq!(event.subject.unwrap().id, "café");
    assert_eq!(event.urgency, None);
    // Kept bytes must not keep the request's buffer alive.
    let range = body.as_bytes().as_ptr_range();
    assert!(!range.contains(&event.data.as_ptr()));
}

#[test]
fn data_are_absent_or_null_alike() {
    for body in [r#"{"type":"a"}"#, r#"{"type":"a","data":null}"#] {
        let mut errors = Errors::default();
        let mut reader = Reader::new(body.as_bytes(), &mut errors).unwrap();
        let event = reader.event(reader.document(), At::Root).unwrap().unwrap();
        assert_eq!(&event.data[..], b"null");
    }
}

#[test]
fn batches_tell_every_event_apart() {
    let batch = |body: &str| problem(body.as_bytes(), |reader| reader.batch(1 << 20));
    let too_many = format!(r#"{{"events":[{}]}}"#, vec![r#"{"type":"a"}"#; 1_001].join(","));
    let cases: [(&str, &str, &[&str]); 8] = [
        ("{}", "validation_failed", &["/events"]),
        (r#"{"events":{}}"#, "validation_failed", &["/events"]),
        (r#"{"events":[]}"#, "validation_failed", &["/events"]),
        (r#"{"events":[{"type":"a"},{}, 3]}"#, "validation_failed", &["/events/1/type", "/events/2"]),
        (r#"{"events":[{"type":"a","subject":{"id":1}}],"x":1}"#, "validation_failed", &["/x", "/events/0/subject/id"]),
        (r#"[{"type":"a"}]"#, "validation_failed", &[""]),
        (&too_many, "batch_too_large", &["/events"]),
        (r#"{"events":[{"type":"a"},{"id":"1","id":"2"}]}"#, "malformed_json", &[]),
    ];
    for (body, code, wanted) in cases {
        let shown: String = body.chars().take(80).collect();
        let problem = batch(body).unwrap_or_else(|| panic!("{shown} was read"));
        assert_eq!(problem["code"], code, "{shown}: {problem}");
        assert_eq!(pointers(&problem), wanted, "{shown}");
    }
    assert_eq!(batch(r#"{"events":[{"type":"a"}]}"#), None);
}

#[test]
fn ndjson_counts_events_by_index_and_malformed_ones_by_line() {
    let ndjson = |body: &str| problem(body.as_bytes(), |reader| reader.ndjson(1 << 20));
    assert_eq!(ndjson("\n{\"type\":\"a\"}\r\n\n  \n{\"type\":\"b\"}\n"), None);
    let wrong = ndjson("{\"type\":\"a\"}\n\n{\"typ\":\"b\"}\n").unwrap();
    assert_eq!(pointers(&wrong), ["/events/1/typ", "/events/1/type"]);
    let malformed = ndjson("{\"type\":\"a\"}\n\n{\"type\":}\n").unwrap();
    assert_eq!((&malformed["line"], &malformed["column"]), (&json!(3), &json!(9)));
    assert_eq!(pointers(&ndjson(" \n\n").unwrap()), ["/events"]);
    assert_eq!(ndjson(&"{\"type\":\"a\"}\n".repeat(1_000)), None);
    assert_eq!(ndjson(&"{\"type\":\"a\"}\n".repeat(1_001)).unwrap()["code"], "batch_too_large");
}

#[test]
fn webhooks_have_all_their_pointers() {
    let webhook = |body: &str| problem(body.as_bytes(), |reader| reader.webhook());
    let cases: [(&str, &[&str]); 16] = [
        (r#"{"events":"*"}"#, &["/events"]),
        (r#"{"events":["*",1,null]}"#, &["/events/1", "/events/2"]),
        (r#"{"headers":{"a":1,"b/c":[]}}"#, &["/headers/a", "/headers/b~1c"]),
        (r#"{"headers":[]}"#, &["/headers"]),
        (
            r#"{"retry":{"waits":["5"],"jitter":"x","retry_on":["5xx",429,"6xx",200],"gone":"never","y":1}}"#,
            &["/retry/y", "/retry/waits/0", "/retry/retry_on/2", "/retry/retry_on/3", "/retry/jitter", "/retry/gone"],
        ),
        (
            r#"{"retry":{"retry_after":{"statuses":[429,42],"cap_s":-1,"z":1}}}"#,
            &["/retry/retry_after/z", "/retry/retry_after/statuses/1", "/retry/retry_after/cap_s"],
        ),
        (r#"{"timeout_ms":99,"max_in_flight":0}"#, &["/timeout_ms", "/max_in_flight"]),
        (r#"{"timeout_ms":1000.0,"max_in_flight":"1"}"#, &["/timeout_ms", "/max_in_flight"]),
        (r#"{"enabled":"yes","secret":1}"#, &["/secret", "/enabled"]),
        (r#"{"id":"wh_1","verified":true}"#, &["/id", "/verified"]),
        (r#"{"verification":{},"batch":null,"ordering":"any"}"#, &["/verification/mode", "/ordering"]),
        (
            r#"{"signing":[{"scheme":1},{"header":"X"},7],"payload":{"mode":"x","include":[1],"y":0}}"#,
            &[
                "/signing/0/scheme",
                "/signing/1/scheme",
                "/signing/2",
                "/payload/y",
                "/payload/mode",
                "/payload/include/0",
            ],
        ),
        (
            r#"{"auth":{"type":"basic","token":"t","password":1},"options":[],"paths":{"a":1}}"#,
            &["/options", "/auth/token", "/auth/username", "/auth/password", "/paths/a"],
        ),
        (
            r#"{"batch":{"max_events":"5","max_bytes":-1},"format":1}"#,
            &["/format", "/batch/max_events", "/batch/max_bytes"],
        ),
        (r#"{"rate_limit_per_s":0.5}"#, &["/rate_limit_per_s"]),
        (r#"{"retry":{"waits":[1e999]}}"#, &["/retry/waits/0"]),
    ];
    for (body, wanted) in cases {
        let problem = webhook(body).unwrap_or_else(|| panic!("{body} was read"));
        assert_eq!(pointers(&problem), wanted, "{body}");
    }
    assert_eq!(webhook(r#"{"headers":{"a":"1","a":"2"}}"#).unwrap()["code"], "malformed_json");
    assert_eq!(webhook(r#"{"retry":{"retry_on":["timeout","429",503]}}"#), None);
}

#[test]
fn patches_are_judged_at_every_level() {
    let patch = |body: &str| problem(body.as_bytes(), |reader| reader.webhook_patch());
    let cases: [(&str, &[&str]); 9] = [
        (r#"{"profile":"standard","secret":null}"#, &["/profile", "/secret"]),
        (r#"{"payload":{"nope":null},"batch":{"nope":null}}"#, &["/payload/nope", "/batch/nope"]),
        (
            r#"{"auth":{"nope":null},"verification":{"nope":null},"paths":[]}"#,
            &["/verification/nope", "/auth/nope", "/paths"],
        ),
        (r#"{"name":null,"url":null,"events":null}"#, &["/name", "/url", "/events"]),
        (r#"{"id":null,"created_at":"x"}"#, &["/id", "/created_at"]),
        (r#"{"retry":{"nope":null}}"#, &["/retry/nope"]),
        (r#"{"retry":{"retry_after":{"nope":null}}}"#, &["/retry/retry_after/nope"]),
        (r#"{"headers":{"a":1}}"#, &["/headers/a"]),
        ("[]", &[""]),
    ];
    for (body, wanted) in cases {
        let problem = patch(body).unwrap_or_else(|| panic!("{body} was read"));
        assert_eq!(pointers(&problem), wanted, "{body}");
    }
    assert_eq!(patch(r#"{"headers":{"a":null},"retry":null,"description":null}"#), None);
    let deep = format!(r#"{{"events":{}{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(patch(&deep).unwrap()["code"], "validation_failed");
}

#[test]
fn keys_tenants_and_event_types_have_all_their_pointers() {
    let key = |body: &str| problem(body.as_bytes(), |reader| reader.key());
    assert_eq!(pointers(&key("{}").unwrap()), ["/name", "/scopes"]);
    let body = r#"{"name":"","scopes":["read","root","read"],"tenant":"A B","expires_at":"soon","x":0}"#;
    assert_eq!(pointers(&key(body).unwrap()), ["/x", "/name", "/scopes/1", "/scopes/2", "/tenant", "/expires_at"]);
    assert_eq!(pointers(&key(r#"{"name":"a","scopes":[]}"#).unwrap()), ["/scopes"]);

    let tenant = |body: &str| problem(body.as_bytes(), |reader| reader.tenant());
    let body = r#"{"name":1,"environment":"dev","settings":{"allow_nets":[1],"retain":{}}}"#;
    assert_eq!(
        pointers(&tenant(body).unwrap()),
        ["/name", "/environment", "/settings/retain", "/settings/allow_nets/0"]
    );
    assert_eq!(tenant(""), None);
    assert_eq!(tenant(r#"{"name":null}"#), None);

    let event_type = |body: &str| {
        let name = "user.created".parse().unwrap();
        problem(body.as_bytes(), |reader| reader.event_type(&name))
    };
    let body = r#"{"family":"","description":1,"schema":"x","urgency":"soon","deprecated":0,"tenant":"a"}"#;
    assert_eq!(
        pointers(&event_type(body).unwrap()),
        ["/tenant", "/family", "/description", "/schema", "/urgency", "/deprecated"]
    );
    assert_eq!(event_type(r#"{"example":null,"schema":true}"#), None);
}

#[test]
fn calls_without_members_refuse_members() {
    let nothing = |body: &str| problem(body.as_bytes(), |reader| reader.nothing());
    assert_eq!(nothing(""), None);
    assert_eq!(nothing("{}"), None);
    assert_eq!(pointers(&nothing(r#"{"force":true}"#).unwrap()), ["/force"]);
    let test = |body: &str| problem(body.as_bytes(), |reader| reader.test());
    assert_eq!(pointers(&test(r#"{"event_type":"a.","data":1,"y":1}"#).unwrap()), ["/y", "/event_type"]);
    let rotate = |body: &str| problem(body.as_bytes(), |reader| reader.rotation());
    assert_eq!(pointers(&rotate(r#"{"overlap_seconds":604801,"secret":5}"#).unwrap()), ["/overlap_seconds", "/secret"]);
}

#[test]
fn cloudevents_have_pointers_like_any_event() {
    let batched = |body: &str| {
        let bytes = Bytes::copy_from_slice(body.as_bytes());
        let mut errors = Errors::default();
        let outcome = Reader::new(&bytes, &mut errors)
            .and_then(|mut reader| reader.cloudevents(&bytes, 1 << 20))
            .map_err(|malformed| malformed.into_problem(&bytes).to_value());
        outcome.err().or_else(|| errors.check().err().map(|problem| problem.to_value()))
    };
    let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a.b"}"#;
    assert_eq!(batched(&format!("[{good},{good}]")), None);
    let problem = batched(&format!("[{good},{{\"specversion\":\"0.3\"}},1]")).unwrap();
    assert!(pointers(&problem).contains(&"/events/1/specversion"), "{problem}");
    assert!(pointers(&problem).contains(&"/events/1/type"), "{problem}");
    assert!(pointers(&problem).contains(&"/events/2"), "{problem}");
    let twice = batched(&format!("[{good},\n {{\"id\":\"1\",\"id\":\"2\"}}]")).unwrap();
    assert_eq!((&twice["code"], &twice["line"]), (&json!("malformed_json"), &json!(2)), "{twice}");
    assert_eq!(batched("{}").unwrap()["code"], "validation_failed");
    assert_eq!(batched("[").unwrap()["code"], "malformed_json");
    let many = format!("[{}]", vec![good; 1_001].join(","));
    assert_eq!(batched(&many).unwrap()["code"], "batch_too_large");
}

/// Reads `body` as everything there is. Whatever it is, the answer is a problem of the caller's.
fn read_as_everything(body: &[u8]) {
    let name = "x".parse().unwrap();
    let bytes = Bytes::copy_from_slice(body);
    let headers = http::HeaderMap::new();
    let problems = [
        event_problem(body),
        problem(body, |reader| reader.batch(1 << 20)),
        problem(body, |reader| reader.ndjson(1 << 20)),
        problem(body, |reader| reader.webhook()),
        problem(body, |reader| reader.webhook_patch()),
        problem(body, |reader| reader.test()),
        problem(body, |reader| reader.rotation()),
        problem(body, |reader| reader.tenant()),
        problem(body, |reader| reader.key()),
        problem(body, |reader| reader.event_type(&name)),
        problem(body, |reader| reader.nothing()),
        problem(body, |reader| reader.cloudevent_binary(&headers, &bytes)),
    ];
    for problem in problems.into_iter().flatten() {
        assert!((400..500).contains(&problem["status"].as_u64().unwrap()), "{problem}");
    }
    let mut errors = Errors::default();
    if let Ok(mut reader) = Reader::new(&bytes, &mut errors) {
        let _ = reader.cloudevent(&bytes);
        let _ = reader.cloudevents(&bytes, 1 << 20);
    }
}

/// JSON-like text around the members that mean something, so that the deeper readers are reached.
fn almost_json() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "type",
        "id",
        "subject",
        "data",
        "events",
        "url",
        "name",
        "headers",
        "retry",
        "waits",
        "retry_on",
        "retry_after",
        "statuses",
        "scopes",
        "settings",
        "allow_nets",
        "example",
        "specversion",
        "source",
        "\\u0061",
    ]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        "[a-z.*]{0,6}".prop_map(|s| format!("\"{s}\"")),
        Just("\"\\ud800\"".to_owned()),
        Just("1e999".to_owned()),
        "[\\x00-\\x7f]{0,3}",
    ];
    leaf.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((names.clone(), inner), 0..5).prop_map(|members| {
                let members: Vec<_> = members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_everything(&body);
    }

    #[test]
    fn anything_like_json_is_read_or_refused(body in almost_json()) {
        read_as_everything(body.as_bytes());
    }

    #[test]
    fn data_that_is_read_is_what_was_written(body in almost_json()) {
        let text = format!("{{\"type\":\"a\",\"data\":{body}}}");
        let mut errors = Errors::default();
        let mut reader = Reader::new(text.as_bytes(), &mut errors).unwrap();
        if let Ok(Some(event)) = reader.event(reader.document(), At::Root)
            && body != "null"
        {
            let trimmed = body.trim_matches([' ', '\n', '\r', '\t']);
            prop_assert!(trimmed.is_empty() || text.contains(std::str::from_utf8(&event.data).unwrap()));
            // What was accepted as one value is one value.
            prop_assert!(serde_json::from_slice::<&serde_json::value::RawValue>(&event.data).is_ok());
        }
    }
}
