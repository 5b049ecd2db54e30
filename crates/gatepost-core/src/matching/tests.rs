use proptest::prelude::*;

use super::*;
use crate::{Timestamp, WebhookId};

fn config(events: &[&str], filter: Option<&str>, enabled: bool) -> WebhookConfig {
    WebhookConfig {
        name: "w".into(),
        description: None,
        url: "https://example.com/".into(),
        events: events.iter().map(|e| (*e).to_owned()).collect(),
        filter: filter.map(str::to_owned),
        profile: "standard".into(),
        header_names: Vec::new(),
        format: None,
        signing: None,
        payload: None,
        options: Default::default(),
        auth: None,
        batch: None,
        verification: None,
        verified_at: None,
        paths: Default::default(),
        ordering: Default::default(),
        rate_limit_per_s: None,
        foreign: Default::default(),
        retry: None,
        timeout_ms: None,
        max_in_flight: None,
        enabled,
        paused: false,
    }
}

fn webhook(key: i64, revision: u32, config: WebhookConfig) -> Webhook {
    Webhook {
        key: WebhookKey(key),
        tenant: crate::TenantKey(1),
        id: WebhookId::from_bytes((key as u128).to_be_bytes()),
        revision,
        config,
        sealed_secrets: Vec::new(),
        disabled_reason: None,
        paused_until: None,
        last_test: None,
        created_at: Timestamp::EPOCH,
        updated_at: Timestamp::EPOCH,
        deleted_at: None,
        verification_error: None,
        farewell: None,
    }
}

fn subscription(key: i64, events: &[&str], filter: Option<&str>, enabled: bool) -> Arc<Subscription> {
    Arc::new(Subscription::compile(&webhook(key, 1, config(events, filter, enabled)), false).unwrap())
}

fn find(registry: &TenantRegistry, event_type: &str, data: &str) -> Vec<i64> {
    let event_type: EventType = event_type.parse().unwrap();
    let facts = MatchFacts { event_type: &event_type, subject: None, data: data.as_bytes(), attributes: None };
    let found = registry.matching(&facts, &mut FilterBudget::of_publish()).unwrap();
    found.into_iter().map(|found| found.webhook.0).collect()
}

#[test]
fn each_webhook_once_by_ascending_key() {
    let registry = TenantRegistry::new(
        3,
        [
            subscription(9, &["user.created", "user.*", "*", "all"], None, true),
            subscription(2, &["*"], None, true),
            subscription(5, &["user.role.*"], None, true),
            subscription(7, &["user.created"], Some("data.n > 1"), true),
            subscription(4, &["user.created"], None, false),
            subscription(1, &["gatepost.*"], None, true),
        ],
    );
    assert_eq!(registry.version(), 3);
    assert_eq!(registry.len(), 5, "nothing goes to a disabled one");
    assert_eq!(find(&registry, "user.created", r#"{"n":2}"#), [2, 7, 9]);
    assert_eq!(find(&registry, "user.created", r#"{"n":1}"#), [2, 9]);
    assert_eq!(find(&registry, "user.created", "{}"), [2, 9]);
    assert_eq!(find(&registry, "user.role.assigned", "{}"), [2, 5, 9]);
    assert_eq!(find(&registry, "group.created", "{}"), [2, 9]);
    assert_eq!(find(&registry, "gatepost.webhook.created", "{}"), [1]);
}

#[test]
fn a_deleted_webhook_takes_nothing() {
    let mut deleted = webhook(1, 4, config(&["*"], None, true));
    deleted.deleted_at = Some(Timestamp::EPOCH);
    assert!(!Subscription::compile(&deleted, false).unwrap().enabled);
}

#[test]
fn bad_subscriptions_say_which_part() {
    let bad = Subscription::compile(&webhook(1, 1, config(&["a.*", "us*"], None, true)), false).unwrap_err();
    assert!(matches!(bad, BadSubscription::Patterns(list) if list[0].0 == 1));
    let bad = Subscription::compile(&webhook(1, 1, config(&["*"], Some("1 +"), true)), false).unwrap_err();
    assert!(matches!(bad, BadSubscription::Filter(_)));
}

#[test]
fn p4_a_changed_registry_shares_what_it_did_not_touch_and_leaves_the_old_one_alone() {
    let old = TenantRegistry::new(
        1,
        [subscription(1, &["user.created"], None, true), subscription(2, &["group.*"], None, true)],
    );
    let new = old.with(2, subscription(3, &["user.created"], None, true));
    assert_eq!((find(&old, "user.created", "1"), find(&new, "user.created", "1")), (vec![1], vec![1, 3]));
    assert_eq!((old.version(), new.version()), (1, 2));
    let same = |old: &Trie<Arc<str>, Bucket>, new: &Trie<Arc<str>, Bucket>| match (old, new) {
        (Trie::Leaf(old), Trie::Leaf(new)) => Arc::ptr_eq(old, new),
        _ => false,
    };
    assert!(same(&old.below, &new.below) && !same(&old.exact, &new.exact));
    let moved = new.with(3, subscription(1, &["group.created"], None, true));
    assert_eq!(find(&moved, "user.created", "1"), [3]);
    assert_eq!(find(&moved, "group.created", "1"), [1, 2]);
    let off = moved.with(4, subscription(2, &["group.*"], None, false));
    assert_eq!(find(&off, "group.created", "1"), [1]);
    assert_eq!(off.len(), 2);
    let gone = off.without(5, WebhookKey(1)).without(6, WebhookKey(99));
    assert_eq!(find(&gone, "group.created", "1"), Vec::<i64>::new());
    assert_eq!((gone.version(), gone.len()), (6, 1));
    assert!(gone.get(WebhookKey(1)).is_none());
}

#[test]
fn an_event_costs_what_it_finds_not_what_there_is() {
    let many = (0..20_000).map(|i| subscription(i, &[&format!("family{i}.created"), &format!("f{i}.*")], None, true));
    let registry = TenantRegistry::new(1, many);
    let hits = |event_type: &str| {
        let event_type: EventType = event_type.parse().unwrap();
        registry.buckets(&event_type).map(|bucket| bucket.iter().count()).sum::<usize>()
    };
    assert_eq!((hits("family7.created"), hits("f7.created"), hits("other.created")), (1, 1, 0));
}

#[test]
fn a_text_is_kept_once_whoever_asks_for_it() {
    let of = |key| subscription(key, &["user.created", "group.*", "group.created", "group.sub.*"], None, true);
    let registry = TenantRegistry::new(1, (0..50).map(of)).with(2, of(7)).with(3, of(50));
    for found in registry.subscriptions() {
        let texts: Vec<_> = found.patterns.iter().collect();
        let [EventPattern::Exact(exact), EventPattern::Below(below)] = texts[..] else { panic!("{texts:?}") };
        assert!(Arc::ptr_eq(exact.shared(), registry.exact.get("user.created").unwrap().0));
        assert!(Arc::ptr_eq(below, registry.below.get("group").unwrap().0));
    }
    assert_eq!(registry.len(), 51);
    assert_eq!(find(&registry, "group.created", "1"), (0..=50).collect::<Vec<_>>());
}

#[test]
fn a_builder_makes_the_same_and_compiles_a_filter_once() {
    let filter = Some("data.n == 1");
    let webhooks = [
        webhook(1, 1, config(&["user.*"], filter, true)),
        webhook(2, 1, config(&["user.created"], filter, true)),
        webhook(3, 1, config(&["user.created"], None, false)),
        webhook(4, 1, config(&["user.created"], Some("data.n == 2"), true)),
        webhook(5, 1, config(&["*"], None, true)),
    ];
    let mut builder = RegistryBuilder::new(9, false);
    webhooks.iter().for_each(|webhook| builder.add(webhook.key, 1, &webhook.config).unwrap());
    assert!(builder.add(WebhookKey(6), 1, &config(&["us*"], None, true)).is_err());
    assert!(builder.add(WebhookKey(7), 1, &config(&["*"], Some("1 +"), true)).is_err());
    assert_eq!(builder.filters.len(), 2);
    let registry = builder.build();
    assert_eq!((registry.version(), registry.len(), registry.filtered), (9, 4, 3));
    assert_eq!(find(&registry, "user.created", r#"{"n":1}"#), [1, 2, 5]);
    assert_eq!(find(&registry, "user.created", r#"{"n":2}"#), [4, 5]);
}

#[test]
fn whether_there_are_filters_is_counted() {
    let group: EventType = "group.created".parse().unwrap();
    let cost = |registry: &TenantRegistry| {
        let facts = MatchFacts { event_type: &group, subject: None, data: b"{}", attributes: None };
        registry.filter_cost(&facts) > FilterCost::default()
    };
    let none = TenantRegistry::new(1, [subscription(1, &["*"], None, true)]);
    let one = none.with(2, subscription(2, &["group.*"], Some("true"), true));
    let changed = one.with(3, subscription(2, &["group.*", "*"], Some("data.n == 1"), true));
    let off = changed.with(4, subscription(2, &["*"], Some("true"), false));
    let gone = changed.without(4, WebhookKey(2));
    assert_eq!([&none, &one, &changed, &off, &gone].map(cost), [false, true, true, false, false]);
    assert_eq!([&none, &one, &changed, &off, &gone].map(|registry| registry.filtered), [0, 1, 1, 0, 0]);
}

#[test]
fn p5_what_filters_cost_is_known_beforehand_and_bounded_as_a_sum() {
    let filter = Some("data.l.exists(x, x == 'b')");
    let many = (0..200).map(|key| subscription(key, &["user.created", "user.*"], filter, true));
    let registry = TenantRegistry::new(1, many.chain([subscription(900, &["group.*", "*"], None, true)]));
    let data = format!("{{\"l\":[{}]}}", vec!["\"aaaaaaaa\""; 20_000].join(","));
    let (user, group): (EventType, EventType) = ("user.created".parse().unwrap(), "group.created".parse().unwrap());
    let facts = |event_type, data| MatchFacts { event_type, subject: None, data, attributes: None };
    let large = facts(&user, data.as_bytes());
    assert_eq!(registry.filter_cost(&facts(&group, data.as_bytes())), FilterCost::default());
    assert!(!registry.filter_cost(&large).is_quick());
    let one = TenantRegistry::new(1, [subscription(1, &["user.created", "user.*"], filter, true)]);
    assert!(one.filter_cost(&facts(&user, b"{}")).is_quick());
    assert!(one.filter_cost(&facts(&user, b"{}")) > FilterCost::default());

    let budget = || FilterBudget::of(2.5 * one.filter_cost(&large).0);
    assert_eq!(registry.matching(&large, &mut budget()), Err(TooCostly));
    let matched = Match { webhook: WebhookKey(900), revision: 1, grouping: Grouping::default() };
    assert_eq!(registry.matching(&facts(&group, data.as_bytes()), &mut budget()), Ok(vec![matched]));
    assert_eq!(one.matching(&large, &mut budget()), Ok(vec![]));
    // Many events of one call are a sum.
    let mut shared = budget();
    let accepted = (0..40).take_while(|_| one.matching(&large, &mut shared).is_ok()).count();
    assert!((2..40).contains(&accepted), "{accepted}");
}

#[test]
fn reasons_of_the_matching_trace() {
    let event_type: EventType = "user.created".parse().unwrap();
    let facts = MatchFacts { event_type: &event_type, subject: None, data: b"{\"n\":1}", attributes: None };
    let cases = [
        (None, MatchReason::CreatedLater, "created_later"),
        (Some(config(&["*"], None, false)), MatchReason::Disabled, "disabled"),
        (Some(config(&["group.*"], Some("1 +"), true)), MatchReason::NoPattern, "no_pattern"),
        (Some(config(&["user.*"], None, true)), MatchReason::Matched, "matched"),
        (Some(config(&["user.*"], Some("data.n == 1"), true)), MatchReason::Matched, "matched"),
        (Some(config(&["user.*"], Some("data.n == 2"), true)), MatchReason::FilterFalse, "filter_false"),
        (Some(config(&["user.*"], Some("data.x == 2"), true)), MatchReason::FilterError, "filter_error"),
    ];
    for (config, reason, text) in cases {
        let mut budget = FilterBudget::of_explanation();
        assert_eq!(explain(config.as_ref(), false, &Facts::new(&facts), &mut budget), Ok(reason));
        assert_eq!(reason.as_str(), text);
    }
}

/// Patterns and types from a small alphabet, so that they often meet.
fn any_patterns() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec("(\\*|all|[ab](\\.[ab]){0,2}(\\.\\*)?|gatepost\\.\\*|gatepost\\.a)", 1..4)
}

proptest! {
    /// Changes of one webhook after the other; a registry that a publisher still holds stays what it was.
    #[test]
    fn the_index_agrees_with_asking_every_webhook(
        webhooks in proptest::collection::vec((any_patterns(), any::<bool>(), any::<bool>()), 0..30),
        changes in proptest::collection::vec((0i64..40, any_patterns(), any::<bool>(), any::<bool>()), 0..30),
        name in "([ab](\\.[ab]){0,3}|gatepost(\\.a)?)",
        n in 0..3,
    ) {
        let make = |events: &[String], filtered: bool, enabled: bool| {
            let events: Vec<_> = events.iter().map(String::as_str).collect();
            config(&events, filtered.then_some("data.n == 1"), enabled)
        };
        let mut configs: BTreeMap<i64, WebhookConfig> =
            (0..).zip(&webhooks).map(|(key, (events, f, e))| (key, make(events, *f, *e))).collect();
        let compile = |(key, config): (&i64, &WebhookConfig)| {
            Arc::new(Subscription::compile(&webhook(*key, 1, config.clone()), false).unwrap())
        };
        let mut registry = TenantRegistry::new(1, configs.iter().map(compile));
        let mut held = vec![(registry.clone(), configs.clone())];
        for (version, (key, events, f, e)) in (2..).zip(&changes) {
            if events.len() == 3 {
                configs.remove(key);
                registry = registry.without(version, WebhookKey(*key));
            } else {
                let config = make(events, *f, *e);
                registry = registry.with(version, compile((key, &config)));
                configs.insert(*key, config);
            }
            held.push((registry.clone(), configs.clone()));
        }
        let data = format!("{{\"n\":{n}}}");
        let event_type: EventType = name.parse().unwrap();
        let facts = MatchFacts { event_type: &event_type, subject: None, data: data.as_bytes(), attributes: None };
        for (version, (registry, configs)) in (1..).zip(held) {
            let wanted = |config: &WebhookConfig| {
                let mut budget = FilterBudget::of_explanation();
                explain(Some(config), false, &Facts::new(&facts), &mut budget) == Ok(MatchReason::Matched)
            };
            let expected: Vec<_> = configs.iter().filter(|(_, config)| wanted(config)).map(|(key, _)| *key).collect();
            prop_assert_eq!(find(&registry, &name, &data), expected);
            let enabled: Vec<_> = configs.iter().filter(|(_, config)| config.enabled).collect();
            let known: Vec<_> = registry.subscriptions().map(|found| found.key.0).collect();
            prop_assert_eq!(known, enabled.iter().map(|(key, _)| **key).collect::<Vec<_>>());
            prop_assert_eq!((registry.version(), registry.len()), (version, enabled.len()));
            prop_assert_eq!(registry.filtered, enabled.iter().filter(|(_, config)| config.filter.is_some()).count());
            let unfiltered: Vec<_> = registry.unfiltered(&event_type).into_iter().map(|found| found.webhook.0).collect();
            let plain = |key: &i64| configs[key].filter.is_none();
            prop_assert_eq!(unfiltered, find(&registry, &name, &data).into_iter().filter(plain).collect::<Vec<_>>());
        }
    }
}

/// What matching says and what the trace says of one webhook, which must agree.
fn judged(config: &WebhookConfig, require_all: bool, event_type: &str) -> MatchReason {
    let event_type: EventType = event_type.parse().unwrap();
    let facts = MatchFacts { event_type: &event_type, subject: None, data: b"{}", attributes: None };
    let compiled = Subscription::compile(&webhook(1, 1, config.clone()), require_all).unwrap();
    let registry = TenantRegistry::new(1, [Arc::new(compiled)]);
    let matched = !registry.matching(&facts, &mut FilterBudget::of_publish()).unwrap().is_empty();
    let reason = explain(Some(config), require_all, &Facts::new(&facts), &mut FilterBudget::of_explanation()).unwrap();
    assert_eq!(matched, reason == MatchReason::Matched, "{event_type} {config:?}");
    reason
}

#[test]
fn an_endpoint_that_must_be_verified_and_is_not_matches_nothing() {
    use crate::webhook::Verification;
    let of = |mode: &str, required| WebhookConfig {
        verification: Some(Verification { mode: mode.to_owned(), required }),
        ..config(&["*"], None, true)
    };
    let plain = config(&["*"], None, true);
    let verified = |config: &WebhookConfig| WebhookConfig { verified_at: Some(Timestamp::EPOCH), ..config.clone() };
    for (config, require_all, expected) in [
        (plain.clone(), false, MatchReason::Matched),
        (plain.clone(), true, MatchReason::Unverified),
        (verified(&plain), true, MatchReason::Matched),
        (of("post", None), false, MatchReason::Matched),
        (of("post", Some(true)), false, MatchReason::Unverified),
        (of("post", Some(false)), true, MatchReason::Unverified),
        (of("options", Some(true)), false, MatchReason::Unverified),
        (verified(&of("options", Some(true))), true, MatchReason::Matched),
        (of("none", None), true, MatchReason::Unverified),
        (WebhookConfig { enabled: false, ..of("post", Some(true)) }, false, MatchReason::Disabled),
    ] {
        assert_eq!(judged(&config, require_all, "user.created"), expected, "{config:?} {require_all}");
    }
    let okta = WebhookConfig { profile: "okta".to_owned(), ..plain };
    let expected = if crate::profiles::profile_or_default("okta").verification().required {
        MatchReason::Unverified
    } else {
        MatchReason::Matched
    };
    assert_eq!(judged(&okta, false, "user.created"), expected);
}

#[test]
fn own_events_go_to_who_asks_for_them_by_name() {
    for (pattern, event_type, expected) in [
        ("*", "gatepost.webhook.created", false),
        ("all", "gatepost.webhook.created", false),
        ("gatepost.*", "gatepost.webhook.created", true),
        ("gatepost.webhook.*", "gatepost.delivery.exhausted", false),
        ("gatepost.webhook.deleted", "gatepost.webhook.deleted", true),
        ("webhook.created", "gatepost.webhook.created", false),
    ] {
        let matched = judged(&config(&[pattern], None, true), false, event_type) == MatchReason::Matched;
        assert_eq!(matched, expected, "{pattern} {event_type}");
    }
    // A profile with names of its own for them: who asks for the name, not who asks for all.
    for (pattern, event_type, expected) in [
        ("webhook.created", "gatepost.webhook.created", true),
        ("webhook.*", "gatepost.webhook.deleted", true),
        ("webhook.created", "gatepost.webhook.updated", false),
        ("webhook.*", "gatepost.webhook.disabled", false),
        ("webhook.created", "webhook.created", true),
        ("*", "gatepost.webhook.created", false),
    ] {
        let own = WebhookConfig { profile: "ferriskey".to_owned(), ..config(&[pattern], None, true) };
        assert_eq!(judged(&own, false, event_type) == MatchReason::Matched, expected, "{pattern} {event_type}");
    }
}

#[test]
fn a_type_without_a_path_is_not_matched_where_paths_are_the_address() {
    let profile = crate::profiles::profile_or_default("cymmetri");
    let by_path = WebhookConfig { profile: "cymmetri".to_owned(), ..config(&["*"], None, true) };
    let expected = if profile.by_path() { MatchReason::NoPath } else { MatchReason::Matched };
    assert_eq!(judged(&by_path, false, "user.created"), expected);
    let named = WebhookConfig { paths: [("user.created".to_owned(), "/made".to_owned())].into(), ..by_path };
    assert_eq!(judged(&named, false, "user.created"), MatchReason::Matched);
}
