use proptest::prelude::*;

use super::*;
use crate::Timestamp;

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
    assert_eq!(registry.len(), 6);
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
    assert!(Arc::ptr_eq(&old.below, &new.below) && Arc::ptr_eq(&old.all, &new.all));
    let moved = new.with(3, subscription(1, &["group.created"], None, true));
    assert_eq!(find(&moved, "user.created", "1"), [3]);
    assert_eq!(find(&moved, "group.created", "1"), [1, 2]);
    let off = moved.with(4, subscription(2, &["group.*"], None, false));
    assert_eq!(find(&off, "group.created", "1"), [1]);
    assert_eq!(off.len(), 3);
    let gone = off.without(5, WebhookKey(1)).without(6, WebhookKey(99));
    assert_eq!(find(&gone, "group.created", "1"), Vec::<i64>::new());
    assert_eq!((gone.version(), gone.len()), (6, 2));
    assert!(gone.get(WebhookKey(1)).is_none());
}

#[test]
fn an_event_costs_what_it_finds_not_what_there_is() {
    let many = (0..20_000).map(|i| subscription(i, &[&format!("family{i}.created"), &format!("f{i}.*")], None, true));
    let registry = TenantRegistry::new(1, many);
    let event_type: EventType = "family7.created".parse().unwrap();
    assert_eq!(registry.pattern_hits(&event_type).len(), 1);
    let event_type: EventType = "other.created".parse().unwrap();
    assert_eq!(registry.pattern_hits(&event_type).len(), 0);
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
    #[test]
    fn the_index_agrees_with_asking_every_webhook(
        webhooks in proptest::collection::vec((any_patterns(), any::<bool>(), any::<bool>()), 0..8),
        changes in proptest::collection::vec((0i64..8, any_patterns(), any::<bool>(), any::<bool>()), 0..6),
        name in "([ab](\\.[ab]){0,3}|gatepost(\\.a)?)",
        n in 0..3,
    ) {
        let make = |key: i64, events: &[String], filtered: bool, enabled: bool| {
            let events: Vec<_> = events.iter().map(String::as_str).collect();
            config(&events, filtered.then_some("data.n == 1"), enabled).pipe(|c| (key, c))
        };
        let mut configs: BTreeMap<i64, WebhookConfig> =
            webhooks.iter().enumerate().map(|(i, (events, f, e))| make(i as i64, events, *f, *e)).collect();
        let compile = |(key, config): (&i64, &WebhookConfig)| {
            Arc::new(Subscription::compile(&webhook(*key, 1, config.clone()), false).unwrap())
        };
        let mut registry = TenantRegistry::new(1, configs.iter().map(compile));
        for (step, (key, events, f, e)) in changes.iter().enumerate() {
            let version = step as u64 + 2;
            if events.len() == 3 {
                configs.remove(key);
                registry = registry.without(version, WebhookKey(*key));
            } else {
                let (key, config) = make(*key, events, *f, *e);
                registry = registry.with(version, compile((&key, &config)));
                configs.insert(key, config);
            }
        }
        let data = format!("{{\"n\":{n}}}");
        let event_type: EventType = name.parse().unwrap();
        let facts = MatchFacts { event_type: &event_type, subject: None, data: data.as_bytes(), attributes: None };
        let expected: Vec<_> = configs
            .iter()
            .filter(|(_, config)| {
                let mut budget = FilterBudget::of_explanation();
                explain(Some(config), false, &Facts::new(&facts), &mut budget) == Ok(MatchReason::Matched)
            })
            .map(|(key, _)| *key)
            .collect();
        prop_assert_eq!(find(&registry, &name, &data), expected);
    }
}

trait Pipe: Sized {
    fn pipe<T>(self, f: impl FnOnce(Self) -> T) -> T {
        f(self)
    }
}
impl<T> Pipe for T {}

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
