//! Behaviours 1 to 4 and 9 to 12: how answers are read and joined.

use gatepost_testkit::Script;
use serde_json::{Value, json};

use super::{Stage, allow, body, native, question, user, verdict};

/// A point, an answer, the decision with its cause, and what else must hold.
type Row<'a> = (&'a str, &'a str, (&'a str, &'a str), &'a dyn Fn(&Value) -> bool);

/// Every form the document of the Cymmetri dialect shows, per point: answer, then decision, cause and
/// what else must hold.
#[test]
fn b01_every_documented_form_of_answer_is_read() {
    let stage = Stage::new();
    let cymmetri = || json!({"profile": "cymmetri", "may_change": ["/user"]});
    for point in ["preCreateUser", "validateUser", "policyMap", "runDeprovision", "preProvision"] {
        stage.hook_at(&format!("/{point}"), point, cymmetri(), body("{}"));
    }
    let changed = json!({"response": {"data": {"firstName": "Grace"}}}).to_string();
    let denied = r#"{"response":{"error":true,"message":"MobileAlreadyExist"}}"#;
    let rows: [Row<'_>; 22] = [
        ("preCreateUser", &changed, ("allow", "receiver"), &|d| d["object"]["user"]["firstName"] == "Grace"),
        ("preCreateUser", denied, ("deny", "receiver"), &|d| d["messages"][0]["code"] == "MobileAlreadyExist"),
        ("preCreateUser", "{}", ("allow", "receiver"), &|d| d["patch"] == json!([])),
        ("preCreateUser", "{\"response\":{}}", ("allow", "receiver"), &|d| d["hooks"][0]["result"] == "unchanged"),
        ("preCreateUser", "{\"response\":{\"data\":7}}", ("allow", "invalid_answer"), &|d| {
            d["degraded"][0]["failure"] == "bad_shape"
        }),
        ("validateUser", "{}", ("allow", "receiver"), &|d| d["hooks"][0]["result"] == "allow"),
        ("validateUser", "{\"response\":{}}", ("allow", "receiver"), &|_| true),
        ("validateUser", denied, ("deny", "receiver"), &|d| {
            d["messages"][0]["platform_code"] == "UTILSRVC.SCRIPT_CUSTOM_ERROR-MOBILEALREADYEXIST"
        }),
        ("validateUser", r#"{"response":{"error":false}}"#, ("allow", "receiver"), &|_| true),
        ("validateUser", r#"{"response":{"error":"true"}}"#, ("deny", "invalid_answer"), &|d| {
            d["hooks"][0]["failure"] == "bad_shape"
        }),
        ("validateUser", &changed, ("allow", "receiver"), &|d| d["object"]["user"]["firstName"] == "Grace"),
        ("validateUser", "not json", ("deny", "invalid_answer"), &|d| d["hooks"][0]["failure"] == "bad_json"),
        ("policyMap", r#"{"response":{"mappedValue":"a@b.c"}}"#, ("allow", "receiver"), &|d| d["value"] == "a@b.c"),
        ("policyMap", r#"{"response":{"mappedValue":""}}"#, ("allow", "receiver"), &|d| d["value"] == ""),
        ("policyMap", r#"{"response":{"mappedValue":7}}"#, ("allow", "receiver"), &|d| d["value"] == "7"),
        ("policyMap", "{\"response\":{}}", ("allow", "receiver"), &|d| d["value"] == "fallback"),
        ("policyMap", r#"{"response":{"mappedValue":{"a":1}}}"#, ("allow", "invalid_answer"), &|d| {
            d["value"] == "fallback"
        }),
        ("runDeprovision", r#"{"response":{"data":true}}"#, ("allow", "receiver"), &|d| d["value"] == true),
        ("runDeprovision", r#"{"response":{"data":false}}"#, ("allow", "receiver"), &|d| d["value"] == false),
        ("runDeprovision", "{\"response\":{}}", ("allow", "invalid_answer"), &|d| d["value"] == false),
        ("preProvision", "anything at all", ("allow", "receiver"), &|_| true),
        ("preProvision", denied, ("deny", "receiver"), &|_| true),
    ];
    for (point, answer, expected, holds) in rows {
        stage.receiver.script_path(&format!("/{point}/{point}"), body(answer));
        stage.receiver.script_path(&format!("/{point}"), body(answer));
        let mut question = question();
        question["default"] = json!({"mappedValue": "fallback"});
        let decision = stage.ask(point, question);
        assert_eq!(verdict(&decision), expected, "{point} {answer}: {decision:#}");
        assert!(holds(&decision), "{point} {answer}: {decision:#}");
    }
    stage.receiver.script_path("/validateUser", Script::status(204));
    assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "receiver"), "204");
}

#[test]
fn b02_the_native_form_allows_denies_and_answers_with_its_id() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({}), allow());
    assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "receiver"));
    let messages = json!([{"code": "NoMobile", "text": "give a mobile", "path": "/user/mobile"}]);
    let answer = messages.clone();
    stage.receiver.script_path("/v", native(move |_| json!({"decision": "deny", "messages": answer})));
    let decision = stage.ask("validateUser", question());
    assert_eq!(verdict(&decision), ("deny", "receiver"));
    let said = &decision["messages"][0];
    assert_eq!(
        (&said["code"], &said["text"], &said["path"]),
        (&messages[0]["code"], &messages[0]["text"], &messages[0]["path"])
    );
    assert_eq!(said["severity"], "error");
    for (answer, failure) in [
        (body(r#"{"decision":"allow"}"#), "id_mismatch"),
        (body(r#"{"id":"inv_other","decision":"allow"}"#), "id_mismatch"),
        (native(|_| json!({"decision": "perhaps"})), "bad_shape"),
        (Script::status(204), "bad_shape"),
        (body("<html>"), "bad_json"),
    ] {
        stage.receiver.script_path("/v", answer);
        let decision = stage.ask("validateUser", question());
        assert_eq!(verdict(&decision), ("deny", "invalid_answer"), "{decision:#}");
        assert_eq!(decision["hooks"][0]["failure"], failure);
    }
}

#[test]
fn b03_omitted_members_stay_null_removes_and_replace_replaces() {
    let stage = Stage::new();
    let proposal =
        || native(|_| json!({"decision": "allow", "object": {"user": {"firstName": "Grace", "mobile": null}}}));
    let hook = stage.hook("m", "preCreateUser", json!({"may_change": ["/user"]}), proposal());
    let merged = stage.ask("preCreateUser", question());
    let mut expected = user();
    expected["firstName"] = json!("Grace");
    expected.as_object_mut().unwrap().remove("mobile");
    assert_eq!(merged["object"]["user"], expected, "{merged:#}");
    let mut ops: Vec<String> = merged["patch"].as_array().unwrap().iter().map(|op| op["op"].to_string()).collect();
    ops.sort();
    assert_eq!(ops, ["\"remove\"", "\"replace\""]);
    stage.patch(&hook, json!({"replace_mode": "replace"})).expect(200);
    let replaced = stage.ask("preCreateUser", question());
    assert_eq!(replaced["object"]["user"]["firstName"], "Grace");
    assert!(replaced["object"]["user"].get("country").is_none(), "{replaced:#}");
}

#[test]
fn b04_a_change_where_none_is_allowed_refuses_the_whole_answer() {
    let stage = Stage::new();
    let greedy =
        native(|_| json!({"decision": "allow", "object": {"user": {"firstName": "Grace", "department": "IT"}}}));
    stage.hook("m", "preCreateUser", json!({"may_change": ["/user/department"]}), greedy);
    let decision = stage.ask("preCreateUser", question());
    assert_eq!(verdict(&decision), ("allow", "invalid_answer"));
    assert_eq!(decision["object"]["user"], user(), "not even the allowed part");
    assert_eq!(decision["degraded"][0]["failure"], "not_allowed_change");
    let record = stage.record(&decision);
    assert_eq!(record["hooks"][0]["detail"], "/user/firstName", "{record:#}");
    // Powers are never changed by default.
    stage.hook(
        "p",
        "preUpdateUser",
        json!({}),
        native(|_| json!({"decision": "allow", "object": {"user": {"login": "root"}}})),
    );
    let decision = stage.ask("preUpdateUser", question());
    assert_eq!((decision["object"]["user"]["login"].as_str(), verdict(&decision).1), (Some("ada"), "invalid_answer"));
}

#[test]
fn b09_the_first_value_wins_an_empty_text_is_one_and_many_come_in_order() {
    let stage = Stage::new();
    let by_attribute = native(|question| {
        let name = question["context"]["targetAttribute"].as_str().unwrap_or_default();
        match name {
            "email" => json!({"value": "first@x.org"}),
            "nick" => json!({"value": ""}),
            _ => json!({"value": null}),
        }
    });
    stage.hook("one", "policyMap", json!({"order": 1}), by_attribute);
    let second = native(|question| json!({"value": format!("second {}", question["context"]["targetAttribute"])}));
    stage.hook("two", "policyMap", json!({"order": 2}), second);
    let attributes: Vec<Value> = (0..20)
        .map(|n| match n {
            0 => json!({"targetAttribute": "email", "default": "d"}),
            1 => json!({"targetAttribute": "nick", "default": "d"}),
            n => json!({"targetAttribute": format!("a{n}"), "default": "d"}),
        })
        .collect();
    let decision = stage.operate("provision", json!({"object": {"user": user()}, "attributes": attributes}));
    let values = decision["values"].as_array().unwrap();
    assert_eq!((values.len(), &values[0], &values[1]), (20, &json!("first@x.org"), &json!("")));
    assert_eq!((&values[2], &values[19]), (&json!("second \"a2\""), &json!("second \"a19\"")));
    stage.receiver.script_path("/one", Script::status(500));
    stage.receiver.script_path("/two", Script::status(500));
    let decision = stage.ask("policyMap", json!({"object": {"user": user()}, "default": {"mappedValue": "d"}}));
    assert_eq!((&decision["value"], verdict(&decision)), (&json!("d"), ("allow", "policy_on_failure")));
}

#[test]
fn b10_any_no_is_no_and_a_failure_is_no() {
    let stage = Stage::new();
    let yes = || native(|_| json!({"value": true}));
    stage.hook("one", "runDeprovision", json!({}), yes());
    stage.hook("two", "runDeprovision", json!({}), yes());
    assert_eq!(stage.ask("runDeprovision", question())["value"], true);
    stage.receiver.script_path("/two", native(|_| json!({"value": false})));
    assert_eq!(stage.ask("runDeprovision", question())["value"], false);
    stage.receiver.script_path("/two", Script::status(503));
    let decision = stage.ask("runDeprovision", question());
    assert_eq!((&decision["value"], verdict(&decision)), (&json!(false), ("allow", "policy_on_failure")));
}

#[test]
fn b11_the_same_json_written_otherwise_is_no_change() {
    let stage = Stage::new();
    stage.hook("m", "preCreateUser", json!({}), allow());
    for same in [
        r#"{ "mobile":"123", "department" : "R&D","country":"India","firstName":"Ada","login":"ada" }"#,
        r#"{"login":"ada","firstName":"\u0041da","country":"India","department":"R&D","mobile":"123"}"#,
    ] {
        let same = same.to_owned();
        stage.receiver.script_path(
            "/m",
            Script::with(move |request| {
                let id = request.json()["id"].clone();
                body(&format!("{{\"id\":{id},\"decision\":\"allow\",\"object\":{{\"user\":{same}}}}}"))
            }),
        );
        let decision = stage.ask("preCreateUser", question());
        assert_eq!(decision["hooks"][0]["result"], "unchanged", "{decision:#}");
        assert_eq!(decision["patch"], json!([]));
    }
}

#[test]
fn b12_hostile_answers_are_classified_failures() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({"timeout_ms": 3000}), allow());
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let rows = [
        (body(r#"{"id":"a","id":"b","decision":"allow"}"#), "bad_json"),
        (body(&deep), "bad_json"),
        (body(&format!("\"{}\"", "x".repeat(5 << 20))), "too_large"),
        (Script::EndlessBody, "too_large"),
        (Script::status(200).body(vec![0xff, 0xfe, b'{', b'}']), "bad_json"),
        (Script::status(200).body("\u{feff}\u{feff}{}"), "bad_json"),
        (Script::status(200).header("content-encoding", "gzip").body("{}"), "content_type"),
        (Script::CutBody, "reset"),
        (Script::Garbage, "status_5xx"),
    ];
    for (answer, failure) in rows {
        let name = format!("{answer:?}");
        stage.receiver.script_path("/v", answer);
        let decision = stage.ask("validateUser", question());
        assert_eq!(decision["decision"], "deny", "{name}");
        assert_eq!(decision["hooks"][0]["failure"], failure, "{name}: {decision:#}");
        // What was learned must not open the breaker in the middle of the table.
        stage.receiver.script_path("/v", allow());
        assert_eq!(verdict(&stage.ask("validateUser", question())), ("allow", "receiver"), "after {name}");
    }
}

#[test]
fn json_patch_answers_are_read_where_objects_are() {
    let stage = Stage::new();
    let set = json!([{"op": "test", "path": "/user/login", "value": "ada"},
        {"op": "add", "path": "/user/tags", "value": []}, {"op": "add", "path": "/user/tags/-", "value": "new"},
        {"op": "move", "from": "/user/department", "path": "/user/team"}]);
    let answer = |patch: Value| {
        native(move |_| {
            let mut answer = patch.clone();
            answer["decision"] = json!("allow");
            answer
        })
    };
    stage.hook("m", "preCreateUser", json!({}), allow());
    let asked = |answer_with: Value| {
        stage.receiver.script_path("/m", answer(answer_with));
        stage.ask("preCreateUser", question())
    };
    let decision = asked(json!({"patch": set}));
    assert_eq!(verdict(&decision), ("allow", "receiver"), "{decision:#}");
    let user = &decision["object"]["user"];
    assert_eq!((&user["tags"], &user["team"], user.get("department")), (&json!(["new"]), &json!("R&D"), None));
    for (wrong, class) in [
        (json!({"patch": set, "object": {"user": {}}}), "bad_shape"),
        (json!({"patch": [{"op": "test", "path": "/user/login", "value": "bob"}]}), "bad_shape"),
        (json!({"patch": [{"op": "replace", "path": "/user/login", "value": "bob"}]}), "not_allowed_change"),
        (json!({"patch": [{"op": "remove", "path": "/user/none"}]}), "bad_shape"),
        (json!({"patch": {"user": {}}}), "bad_shape"),
    ] {
        let decision = asked(wrong.clone());
        assert_eq!(decision["degraded"][0]["failure"], class, "{wrong}: {decision:#}");
        assert_eq!((&decision["patch"], &decision["object"]["user"]), (&json!([]), &super::user()), "{wrong}");
    }
    // Who only judges changes nothing.
    stage.hook("v", "validateUser", json!({"may_change": ["/user"]}), answer(json!({"patch": set})));
    let decision = stage.ask("validateUser", question());
    assert_eq!(decision["hooks"][0]["failure"], "bad_shape", "{decision:#}");
}

#[test]
fn a_status_line_with_no_answer_behind_it_has_a_class_of_its_own() {
    let stage = Stage::new();
    stage.hook("v", "validateUser", json!({"timeout_ms": 3000}), allow());
    let rows = [
        (Script::Raw("HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n{}".into()), "bad_answer"),
        (Script::Raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n".into()), "bad_answer"),
        (Script::Flood("".into(), "HTTP/1.1 103 Early Hints\r\n\r\n".into()), "bad_answer"),
    ];
    for (answer, failure) in rows {
        let name = format!("{answer:?}");
        stage.receiver.script_path("/v", answer);
        let decision = stage.ask("validateUser", question());
        assert_eq!(verdict(&decision), ("deny", "policy_on_failure"), "{name}");
        assert_eq!(decision["hooks"][0]["failure"], failure, "{name}: {decision:#}");
        assert!(decision["hooks"][0]["detail"].is_string(), "{name}: {decision:#}");
    }
}
