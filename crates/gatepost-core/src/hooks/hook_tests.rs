use super::*;
use crate::hooks::points::{PointDef, builtin};
use serde_json::json;

fn read(value: Value) -> Result<HookWrite, Vec<FieldError>> {
    match value {
        Value::Object(members) => HookConfig::read(members),
        other => panic!("{other} is no object"),
    }
}

fn pointers(errors: &[FieldError]) -> Vec<&str> {
    errors.iter().map(|e| e.pointer.as_str()).collect()
}

#[test]
fn the_defaults() {
    let write = read(json!({"name":"n","point":"validateUser","url":"https://r.example.com/h"})).unwrap();
    assert_eq!(write.config, HookConfig::new("n", "validateUser", "https://r.example.com/h"));
    let c = &write.config;
    assert_eq!((c.order, c.timeout_ms, c.min_timeout_ms, c.mode), (100, 1_000, 100, Mode::Observe));
    assert_eq!(c.profile, "gatepost");
    assert!(c.enabled && !c.receives_secrets && !c.require_signed_answer);
    assert_eq!(c.validate(builtin("validateUser").map(|p| &**p)), []);
}

#[test]
fn every_member_survives_reading_storing_and_showing() {
    let body = json!({
        "name":"n","point":"changePassword","url":"https://r.example.com/base","profile":"cymmetri","path":"/x","order":-5,
        "mode":"enforce","on_failure":{"default":"deny","timeout":"continue"},"may_change":["/user/city"],
        "timeout_ms":2000,"http": "1.1", "max_in_flight": 7,"min_timeout_ms":200,"replace_mode":"replace","receives_secrets":true,"secret_mode":"plain",
        "secret_retry":"encrypted","side_effects":"none_on_dry_run","idempotent":true,"status_deny":true,
        "stop_on_deny":true,"conditions":{"pointer":"/user/country","eq":"India"},"require_signed_answer":true,
        "headers":{"x-own":"value","x-kept":"***"},"auth":{"type":"header","name":"x-key","value":"k"},"enabled":false,
        "secret":"a text of more than 24 bytes"
    });
    let write = read(body.clone()).unwrap();
    let point = builtin("changePassword").unwrap();
    assert_eq!(write.config.validate(Some(point)), []);
    assert_eq!(write.headers.keys().collect::<Vec<_>>(), ["x-own"]);
    assert_eq!(write.config.header_names, ["x-kept", "x-own"]);
    assert_eq!(write.auth_secret, Some(Secret::new("k")));
    assert_eq!(write.secret, Some(Secret::new("a text of more than 24 bytes")));
    let stored = serde_json::to_string(&write.config).unwrap();
    assert_eq!(serde_json::from_str::<HookConfig>(&stored).unwrap(), write.config);
    assert!(!stored.contains("a text of more"));
    let shown = write.config.shown(point);
    let mut expected = body;
    expected["headers"] = json!({"x-own":"***","x-kept":"***"});
    expected["auth"]["value"] = json!("***");
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(Value::Object(shown.clone()), expected);
    // What is shown can be sent back: it changes nothing.
    let again = HookConfig::read(shown).unwrap();
    assert_eq!(again.config, write.config);
    assert_eq!((again.headers.len(), again.auth_secret, again.secret), (0, None, None));
}

#[test]
fn types_and_unknown_members_are_all_told() {
    let errors = read(json!({
        "point":7,"url":null,"order":"first","mode":"on","timeout_ms":99,"min_timeout_ms":0,"may_change":["user"],
        "on_failure":{"default":"maybe","dns":"deny"},"headers":{"a":1},"auth":{"type":"basic","user":"x"},"x":1
    }))
    .unwrap_err();
    assert_eq!(
        pointers(&errors),
        [
            "/name",
            "/point",
            "/url",
            "/order",
            "/mode",
            "/on_failure/default",
            "/may_change/0",
            "/timeout_ms",
            "/min_timeout_ms",
            "/headers/a",
            "/auth/username",
            "/auth/password",
            "/auth/user",
            "/x"
        ]
    );
}

#[test]
fn what_makes_no_sense_is_all_told() {
    let base = || HookConfig::new("n", "validateUser", "https://r.example.com/");
    let rows: Vec<(HookConfig, &[&str])> = vec![
        (HookConfig { name: String::new(), ..base() }, &["/name"]),
        (HookConfig { point: "postCreateUser".into(), ..base() }, &["/point"]),
        (HookConfig { point: "nowhere".into(), ..base() }, &["/point"]),
        (HookConfig { url: "ftp://x".into(), ..base() }, &["/url"]),
        (HookConfig { url: "https://".into(), ..base() }, &["/url"]),
        (HookConfig { url: "https://u:p@x/".into(), ..base() }, &["/url"]),
        (HookConfig { url: "https://x/#f".into(), ..base() }, &["/url"]),
        // Secrets never over plain http.
        (HookConfig { url: "http://x/".into(), receives_secrets: true, ..base() }, &["/url"]),
        (HookConfig { url: "HTTP://x/".into(), ..base() }, &[]),
        (HookConfig { profile: "okta".into(), ..base() }, &["/profile"]),
        (HookConfig { path: Some("x?y".into()), ..base() }, &["/path"]),
        (HookConfig { path: Some("../x".into()), ..base() }, &["/path"]),
        (HookConfig { path: Some("policymap".into()), ..base() }, &[]),
        (HookConfig { max_in_flight: 0, ..base() }, &["/max_in_flight"]),
        (HookConfig { max_in_flight: 1_025, ..base() }, &["/max_in_flight"]),
        (HookConfig { max_in_flight: 1_024, ..base() }, &[]),
        (HookConfig { min_timeout_ms: 2_000, ..base() }, &["/min_timeout_ms"]),
        (HookConfig { timeout_ms: 30_001, ..base() }, &["/timeout_ms"]),
        (HookConfig { on_failure: Some(OnFailure::always(Policy::Value(json!(1)))), ..base() }, &["/on_failure"]),
        (HookConfig { secret_retry: SecretRetry::Encrypted, ..base() }, &["/secret_retry"]),
        (HookConfig { secret_retry: SecretRetry::Encrypted, receives_secrets: true, ..base() }, &["/secret_retry"]),
        (HookConfig { conditions: Some(json!({"pointer":"x","eq":1})), ..base() }, &["/conditions/pointer"]),
        (
            HookConfig { header_names: vec!["a b".into(), "Webhook-Id".into(), "x".into(), "X".into()], ..base() },
            &["/headers/a b", "/headers/Webhook-Id", "/headers/X"],
        ),
        (HookConfig { profile: "cymmetri".into(), auth: Some(EndpointAuth::Bearer), ..base() }, &["/auth"]),
        (HookConfig { auth: Some(EndpointAuth::Header { name: "host".into() }), ..base() }, &["/auth/name"]),
    ];
    for (config, expected) in rows {
        let point = builtin(&config.point).map(|p| &**p);
        assert_eq!(pointers(&config.validate(point)), expected, "{config:?}");
    }
    let message = &HookConfig { point: "postCreateUser".into(), ..base() }
        .validate(builtin("postCreateUser").map(|p| &**p))[0]
        .message;
    assert!(message.contains("cymmetri.postCreateUser"), "{message}");
}

#[test]
fn a_shorter_timeout_brings_its_least_along() {
    let write = read(json!({"name":"n","point":"test","url":"https://x/","timeout_ms":100})).unwrap();
    assert_eq!((write.config.timeout_ms, write.config.min_timeout_ms), (100, 100));
}

#[test]
fn policies_and_places_fall_back_to_the_point() {
    let at = |name: &str| builtin(name).unwrap();
    let hook = |name: &str| HookConfig::new("n", name, "https://x/");
    assert!(hook("validateUser").required(at("validateUser")));
    assert!(!hook("preCreateUser").required(at("preCreateUser")));
    assert!(!hook("preCreateUser").effective_may_change(at("preCreateUser")).is_nothing());
    assert!(hook("validateUser").effective_may_change(at("validateUser")).is_nothing());
    let partial: OnFailure = serde_json::from_value(json!({"timeout":"continue"})).unwrap();
    let soft = HookConfig { on_failure: Some(partial), ..hook("validateUser") };
    assert!(!soft.required(at("validateUser")));
    assert_eq!(soft.policy(FailureClass::Dns, at("validateUser")), Policy::Deny);
    // A gate that fails to "no" has no breaker; one that fails otherwise has.
    assert!(!hook("runDeprovision").has_breaker(at("runDeprovision")));
    let strict = HookConfig { on_failure: Some(OnFailure::always(Policy::Deny)), ..hook("runDeprovision") };
    assert!(strict.has_breaker(at("runDeprovision")) && hook("validateUser").has_breaker(at("validateUser")));
    let own = PointDef::new("mine", PointKind::Mutate);
    assert_eq!(hook("mine").policy(FailureClass::Tls, &own), Policy::Continue);
}
