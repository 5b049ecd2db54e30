use super::testing::config;
use super::*;

#[test]
fn the_list_of_profiles() {
    let names: Vec<_> = all().map(|p| (p.name(), p.auto_disable())).collect();
    assert_eq!(
        names,
        [
            ("standard", true),
            ("cloudevents", true),
            ("cryptr", false),
            ("ferriskey", true),
            ("okta", true),
            ("cymmetri", true),
        ]
    );
    assert!(profile(DEFAULT).is_some_and(|p| p.registrable()));
    assert!(profile("Standard").is_none());
}

#[test]
fn no_two_folders_bring_the_same_name() {
    fn all_different(names: Vec<&'static str>) {
        let set: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(set.len(), names.len(), "{names:?}");
    }
    all_different(all().map(|p| p.name()).collect());
    all_different(formats().map(|f| f.name()).collect());
    all_different(schemes().map(|s| s.name()).collect());
    all_different(modes().map(|m| m.name()).collect());
    for name in ["standard", "cloudevents", "raw"] {
        assert!(format(name).is_some(), "{name}");
    }
    for name in ["standard", "standard-ed25519", "timestamped", "github", "none"] {
        assert!(scheme(name).is_some(), "{name}");
    }
    for name in ["none", "post", "options"] {
        assert!(mode(name).is_some(), "{name}");
    }
    for profile in all() {
        assert!(mode(profile.verification().mode).is_some(), "{} verifies in a way nobody brings", profile.name());
    }
}

#[test]
fn a_webhook_s_choices_go_before_its_profile_s() {
    let mut config = config("standard");
    assert_eq!(Wire::of(&config).unwrap().content_type(), "application/json");
    config.format = Some("cloudevents".into());
    assert_eq!(Wire::of(&config).unwrap().content_type(), "application/cloudevents+json; charset=utf-8");
    config.format = Some("xml".into());
    assert_eq!(Wire::of(&config).err(), Some(WireError::Format("xml".into())));
    config.format = None;
    config.profile = "nobody".into();
    assert_eq!(Wire::of(&config).err(), Some(WireError::Profile("nobody".into())));
}

#[test]
fn headers_of_signatures_and_formats_are_reserved() {
    for name in ["webhook-id", "webhook-anything", "ce-type", "x-hub-signature-256", "x-hub-signature", "svix-id"] {
        assert!(is_reserved_header(name), "{name}");
    }
    for name in ["webhook", "x-hub-signature-2", "authorization", "x-api-key", "cereal"] {
        assert!(!is_reserved_header(name), "{name}");
    }
}

#[test]
fn what_is_verified_how() {
    let of = |profile: &str, verification: &str, all| {
        let mut config = config(profile);
        config.verification = serde_json::from_str(verification).unwrap();
        let found = verifying(&config, all);
        (found.mode.name(), found.required)
    };
    assert_eq!(of("standard", "null", false), ("none", false));
    assert_eq!(of("standard", "null", true), ("post", true));
    assert_eq!(of("standard", r#"{"mode":"post"}"#, false), ("post", false));
    assert_eq!(of("standard", r#"{"mode":"options","required":true}"#, false), ("options", true));
    assert_eq!(of("standard", r#"{"mode":"options"}"#, true), ("options", true));
    assert_eq!(of("standard", r#"{"mode":"none"}"#, true), ("post", true));
}

#[test]
fn paths_go_below_the_url() {
    for (url, path, expected) in [
        ("https://a.example", "postCreateUser", "https://a.example/postCreateUser"),
        ("https://a.example/", "/x", "https://a.example/x"),
        ("https://a.example/webhook", "x/y", "https://a.example/webhook/x/y"),
        ("https://a.example/webhook//?k=v", "x", "https://a.example/webhook/x?k=v"),
        ("http://[::1]:8080", "x", "http://[::1]:8080/x"),
    ] {
        assert_eq!(below(url, path), expected);
    }
    let config = config("standard");
    let event_type = "user.created".parse().unwrap();
    assert_eq!(address(&config, &event_type), Address::Url);
    assert_eq!(url_of(&config, &event_type).as_deref(), Some("https://hooks.example/in"));
}

#[test]
fn options_a_profile_does_not_have() {
    let options: Map<String, Value> = serde_json::from_str(r#"{"a/b":1,"c":2}"#).unwrap();
    let found = profile("standard").unwrap().check_options(&options);
    assert_eq!(found.iter().map(|(pointer, _)| &**pointer).collect::<Vec<_>>(), ["/a~1b", "/c"]);
    assert_eq!(unknown_options(&options, &["a/b", "c"]), []);
}
