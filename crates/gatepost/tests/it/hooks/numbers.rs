//! Numbers of any size, and what no value type holds, in questions, answers, records and events (P6).

use gatepost_testkit::{Received, Script};
use serde_json::json;

use super::{Stage, TENANT, allow, body};
use crate::harness::receiver;

/// A user as bytes: what must pass as it is, and a country that a hook changes.
const USER: &str = r#"{"big":12345678901234567890123,"country":"India","login":"ada","name":"Ana \ud83d","out":1e400,"price":1.00,"\ud83e":[-0]}"#;

/// What stands in a body between two texts.
fn between<'b>(body: &'b str, before: &str, after: &str) -> &'b str {
    let rest = body.split_once(before).unwrap_or_else(|| panic!("no {before} in {body}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {body}")).0
}

/// Gives the object back as it came, but for what `change` makes of its text.
fn echo(change: fn(&str) -> String) -> Script {
    Script::with(move |request: &Received| {
        let question = String::from_utf8_lossy(&request.body).into_owned();
        let (id, object) = (between(&question, "\"id\":\"", "\""), between(&question, "\"object\":", ",\"subject\""));
        body(&format!(r#"{{"id":"{id}","decision":"allow","object":{}}}"#, change(object)))
    })
}

fn asked(user: &str) -> String {
    format!(
        r#"{{"subject":{{"type":"user","id":"u1"}},"object":{{"user":{user}}},"context":{{"n":0.10,"odd":"\udc00"}}}}"#
    )
}

fn operate(stage: &Stage, user: &str) -> String {
    let path = format!("/v1/tenants/{TENANT}/operations/createUser/invoke");
    stage.server.post(&path, asked(user)).expect(200).text()
}

#[test]
fn p6_numbers_of_any_size_and_odd_members_pass_through_hooks_as_they_are_written() {
    let stage = Stage::new();
    let events = receiver();
    stage.server.webhook(TENANT, &events.url("/"), json!({"events": ["cymmetri.*"]}));
    let nepal = |object: &str| object.replace("India", "Nepal");
    stage.hook("m", "preCreateUser", json!({"may_change": ["/user/country"]}), echo(nepal));
    stage.hook("v", "validateUser", json!({"conditions": {"pointer": "/user/name", "exists": false}}), allow());
    let changed = nepal(USER);

    let decision = operate(&stage, USER);
    assert_eq!(between(&decision, "\"object\":{\"user\":", "},\"patch\""), changed, "{decision}");
    assert_eq!(
        between(&decision, "\"patch\":", ",\"value\":null"),
        r#"[{"op":"replace","path":"/user/country","value":"Nepal"}]"#
    );
    // The receivers were sent the same bytes, the second the changed ones.
    for (path, user) in [("/m", USER), ("/v", changed.as_str())] {
        let sent = stage.asked_at(path).pop().expect("it was asked");
        let sent = String::from_utf8_lossy(&sent.body).into_owned();
        assert_eq!(between(&sent, "\"object\":{\"user\":", "},\"subject\""), user);
        assert!(sent.contains(r#""context":{"n":0.10,"odd":"\udc00"}"#), "{sent}");
    }
    // So are the record, across a restart, and the event of what was committed.
    let id = between(&decision, "\"id\":\"", "\"");
    let record = stage.server.get(&format!("/v1/tenants/{TENANT}/invocations/{id}")).expect(200).text();
    assert!(record.contains(USER) && record.contains(&changed), "{record}");
    let outcome = format!("/v1/tenants/{TENANT}/invocations/{id}/outcome");
    stage.server.post(&outcome, json!({"committed": true})).expect(200);
    let told = String::from_utf8_lossy(&events.wait_for_blocking(1)[0].body).into_owned();
    assert!(told.contains(&changed), "{told}");

    let decision = operate(&stage, USER);
    let id = between(&decision, "\"id\":\"", "\"");
    let outcome = format!("/v1/tenants/{TENANT}/invocations/{id}/outcome");
    let committed = format!(r#"{{"committed":true,"object":{{"user":{USER}}}}}"#);
    stage.server.post(&outcome, committed.clone()).expect(200);
    stage.server.post(&outcome, committed.replace("1.00", "1")).expect(200);
    stage.server.post(&outcome, committed.replace("890123", "890124")).expect_problem(409, "outcome_conflict");
    let told = String::from_utf8_lossy(&events.wait_for_blocking(2)[1].body).into_owned();
    assert!(told.contains(USER), "{told}");
}

#[test]
fn p6_a_rounded_number_is_a_change() {
    let stage = Stage::new();
    let rounded = |object: &str| object.replace("12345678901234567890123", "1.2345678901234568e+22");
    stage.hook("m", "preCreateUser", json!({"may_change": ["/user/country"], "on_failure": "deny"}), echo(rounded));
    let decision = operate(&stage, USER);
    assert!(decision.contains(r#""failure":"not_allowed_change""#), "{decision}");
    let respelled = |object: &str| object.replace("12345678901234567890123", "123456789012345678901230e-1");
    stage.receiver.script_path("/m", echo(respelled));
    let decision = operate(&stage, USER);
    assert!(decision.contains(r#""patch":[]"#) && decision.contains(r#""decision":"allow""#), "{decision}");
}
