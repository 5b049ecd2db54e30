use super::*;
use crate::hooks::json::json;
use crate::hooks::points::{builtins, operation};

fn point(name: &str) -> &'static PointDef {
    builtin(name).unwrap()
}

fn read_at(name: &str, body: Value) -> Result<Invocation, Vec<FieldError>> {
    from_value(body, Target::Point(point(name)))
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../hooks/fixtures/", $name))
    };
}

#[test]
fn the_native_form() {
    let body = json!({
        "subject": {"type":"user","id":"6214db"}, "actor": {"type":"admin","id":"a","ip":"::1"},
        "object": {"user":{"login":"s","securityQuestion":{"pet":"Rex the dog"}}},
        "old_object": {"user":{"login":"r","securityQuestion":{"pet":"Tom the cat"}}},
        "context": {"applicationId":"x"}, "default": {"mappedValue":"d"}, "secrets": {"passwordText":"Welcome@123"},
        "dry_run": true, "explain": true
    });
    let read = read_at("validateUser", body).unwrap();
    assert_eq!(read.subject, json!({"type":"user","id":"6214db"}));
    assert_eq!(
        (read.object.clone(), read.old_object.clone()),
        (json!({"user":{"login":"s"}}), json!({"user":{"login":"r"}}))
    );
    assert_eq!((read.dry_run, read.explain, read.form), (true, true, Form::Native));
    assert_eq!(read.default_value(), json!("d"));
    // P7: printed, it shows no secret.
    let printed = format!("{read:?}");
    for secret in ["Welcome@123", "Rex the dog", "Tom the cat"] {
        assert!(!printed.contains(secret), "{secret}");
    }
    assert_eq!(read.secrets.named["passwordText"].expose(), "Welcome@123");
    let least = read_at("runDeprovision", json!({})).unwrap();
    assert_eq!((least.object, least.context, least.subject), (json!({}), json!({}), Value::Null));
}

#[test]
fn a_question_in_cymmetris_form_is_about_its_user() {
    for (at, user, subject) in [
        ("validateUser", json!({"login":"ada","id":"u1"}), json!({"type":"user","id":"ada"})),
        ("policyMap", json!({"login":"","id":"u1"}), json!({"type":"user","id":"u1"})),
        ("runDeprovision", json!({"id":17}), json!({"type":"user","id":"17"})),
        ("changePassword", json!({"firstName":"Ada"}), Value::Null),
    ] {
        assert_eq!(read_at(at, json!({"request":{"user":user}})).unwrap().subject, subject, "{at}");
    }
    // At a point of one's own, whose object is something else, too.
    let mut own = PointDef::new("beforeBadge", PointKind::Mutate);
    own.object_members = vec!["badge".into()];
    let body = json!({"request":{"badge":{"colour":"red"},"user":{"login":"ada"}}});
    let read = from_value(body, Target::Point(&own)).unwrap();
    assert_eq!((read.subject, read.context), (json!({"type":"user","id":"ada"}), json!({"user":{"login":"ada"}})));
}

#[test]
fn p7_a_password_misplaced_in_object_or_context_is_a_secret_too() {
    let body = json!({"object":{"passwordText":"Welcome@123","user":{}},"context":{"passwordText":"Welcome@124"}});
    let read = read_at("changePassword", body).unwrap();
    assert!(!format!("{read:?}").contains("Welcome"));
    assert_eq!(read.secrets.mask("Welcome@123 Welcome@124"), "*** ***");
}

#[test]
fn everything_wrong_is_told_at_once() {
    let body = json!({
        "subject": {"type":7,"ip":"x"}, "actor": "me", "object": [], "context": 1, "dry_run": "yes", "explain": null,
        "objekt": {}
    });
    let places: Vec<_> = read_at("validateUser", body).unwrap_err().into_iter().map(|e| e.pointer).collect();
    assert_eq!(
        places,
        ["/subject/type", "/subject/id", "/subject/ip", "/actor", "/object", "/context", "/dry_run", "/objekt"]
    );
    assert_eq!(read_at("preCreateUser", json!({})).unwrap_err()[0].pointer, "/object");
    assert_eq!(read_at("preCreateUser", json!({"request":{}})).unwrap_err()[0].pointer, "/request/user");
    assert_eq!(read_at("validateUser", json!({"request":[]})).unwrap_err()[0].pointer, "/request");
    assert_eq!(read_at("validateUser", json!({"request":{"user":"x"}})).unwrap_err()[0].pointer, "/request/user");
    // A Cymmetri body has one member and no other.
    assert_eq!(read_at("validateUser", json!({"request":{},"dry_run":true})).unwrap_err()[0].pointer, "/request");
    assert!(read_at("validateUser", json!([])).is_err());
}

#[test]
fn the_documents_own_broken_samples_are_malformed_and_whole_ones_are_read() {
    for broken in [fixture!("input_policyMap.broken.txt"), fixture!("input_validateUpdateUser.broken.txt")] {
        let result = read(broken.as_bytes(), Target::Point(point("policyMap")));
        assert!(matches!(result, Err(BadInvocation::Malformed(_))));
        assert!(read(format!("{{{broken}").as_bytes(), Target::Point(point("policyMap"))).is_ok());
    }
    let twice = br#"{"object":{"user":{"a":1,"a":2}}}"#;
    assert!(matches!(read(twice, Target::Point(point("validateUser"))), Err(BadInvocation::Malformed(_))));
}

#[test]
fn the_exact_cymmetri_form_of_every_hook() {
    let rows: [(&str, &str, &[&str], &[&str]); 12] = [
        ("test", fixture!("req_test.json"), &[], &[]),
        ("preCreateUser", fixture!("req_preCreateUser.json"), &["user"], &[]),
        ("postCreateUser", fixture!("req_postCreateUser.json"), &["user"], &[]),
        ("preUpdateUser", fixture!("req_preUpdateUser.json"), &["user"], &[]),
        ("postUpdateUser", fixture!("req_postUpdateUser.json"), &["user"], &[]),
        ("validateUser", fixture!("req_validateUser.json"), &["user"], &[]),
        ("validateUpdateUser", fixture!("req_validateUpdateUser.json"), &["user"], &[]),
        ("changePassword", fixture!("req_changePassword.json"), &["user"], &[]),
        (
            "preProvision",
            fixture!("req_preProvision.json"),
            &["user"],
            &["action", "applicationId", "form", "policyMap", "roleList"],
        ),
        (
            "postProvision",
            fixture!("req_postProvision.json"),
            &["user"],
            &["action", "applicationId", "form", "isSuccess", "policyMap", "roleList", "uid"],
        ),
        ("policyMap", fixture!("req_policyMap.json"), &["user"], &["cymmetrifield", "formVeriable", "targetAttribute"]),
        ("runDeprovision", fixture!("req_runDeprovision.json"), &["user"], &[]),
    ];
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for (name, body, object, context) in rows {
        let read = read(body.as_bytes(), Target::Point(point(name))).unwrap();
        assert_eq!(keys(&read.object), object, "{name}");
        assert_eq!(keys(&read.context), context, "{name}");
        assert_eq!(read.secrets.named.contains_key("passwordText"), name == "changePassword");
        assert_eq!(read.default_value(), if name == "policyMap" { json!("example@gmail.com") } else { Value::Null });
        let quiet = format!("{read:?}");
        assert!(!quiet.contains("Welcome@123"), "{name}");
    }
    for point in builtins() {
        assert!(from_value(point.sample.clone().into(), Target::Point(point)).is_ok(), "{}", point.name);
    }
}

#[test]
fn usual_spellings_become_the_documented_ones() {
    let request =
        json!({"request":{"targetAttribute":"m","cymmetriField":"mail","formVariable":"f","user":{"mail":"a@x"}}});
    let read = read_at("policyMap", request).unwrap();
    assert_eq!(read.context, json!({"targetAttribute":"m","cymmetrifield":"mail","formVeriable":"f"}));
}

#[test]
fn provision_takes_many_attributes() {
    let target = Target::Operation(operation("provision").unwrap());
    let read = from_value(
        json!({"object":{"user":{"email":"a@x"}},"context":{"applicationId":"p"},"attributes":[
            {"targetAttribute":"mail","cymmetrifield":"email","default":"d1","formVeriable":"v"},
            {"targetAttribute":"cn","default":{"mappedValue":"d2"}},
            {"targetAttribute":"sn","defaultValue":"d3"},
            {"targetAttribute":"x"},
        ]}),
        target,
    )
    .unwrap();
    let seen: Vec<_> = read.attributes.iter().map(|a| (a.name.as_str(), a.default.clone())).collect();
    assert_eq!(seen, [("mail", json!("d1")), ("cn", json!("d2")), ("sn", json!("d3")), ("x", Value::Null)]);
    assert_eq!(
        Value::Object(read.attributes[0].context.clone()),
        json!({"targetAttribute":"mail","cymmetrifield":"email","formVeriable":"v"})
    );
    let wrong = from_value(json!({"attributes":[{"default":1}, 7]}), target).unwrap_err();
    let places: Vec<_> = wrong.into_iter().map(|e| e.pointer).collect();
    assert_eq!(places, ["/attributes/0/targetAttribute", "/attributes/1"]);
    assert_eq!(from_value(json!({"object":{}}), target).unwrap_err()[0].pointer, "/attributes");
    let many: Vec<_> = (0..251).map(|_| json!({"targetAttribute":"a"})).collect();
    assert_eq!(from_value(json!({"attributes":many}), target).unwrap_err()[0].pointer, "/attributes");
    // Only there: elsewhere it is unknown.
    let create = Target::Operation(operation("createUser").unwrap());
    let wrong = from_value(json!({"object":{"user":{"login":"a"}},"attributes":[]}), create).unwrap_err();
    assert_eq!(wrong[0].pointer, "/attributes");
}

#[test]
fn the_last_resort_of_a_value() {
    let context = json!({"cymmetrifield":"email"});
    let object = json!({"user":{"email":"a@x","tags":[]}});
    let run = |default: Value, context: &Value| value_or_field(default, context.as_object().unwrap(), &object);
    assert_eq!(run(json!("d"), &context), json!("d"));
    assert_eq!(run(Value::Null, &context), json!("a@x"));
    assert_eq!(run(json!(""), &context), json!("a@x"));
    assert_eq!(run(json!(""), &json!({"cymmetrifield":"tags"})), json!(""));
    assert_eq!(run(Value::Null, &json!({})), Value::Null);
    assert_eq!(run(json!(false), &context), json!(false));
}
