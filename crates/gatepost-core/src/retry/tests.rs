use proptest::prelude::*;

use super::*;
use crate::profiles::{self, profile};

const T0: Timestamp = Timestamp::from_secs(1_700_000_000);

fn policy(name: &str) -> RetryPolicy {
    profile(name).unwrap().retry().clone()
}

fn facts(outcome: Outcome, status: Option<u16>, retry_after: Option<&str>) -> AttemptFacts<'_> {
    AttemptFacts { outcome, status, retry_after, ended_at: T0 }
}

fn status(code: u16) -> AttemptFacts<'static> {
    facts(Outcome::of_status(code), Some(code), None)
}

/// The middle of the jitter: the wait as written.
const MIDDLE: f64 = 0.5;

fn after(seconds: f64) -> Verdict {
    Verdict::Retry { at: T0.saturating_add(Duration::from_secs_f64(seconds)), pause_until: None }
}

fn end(state: DeliveryState, reason: Reason) -> Verdict {
    Verdict::End { state, reason, disable_webhook: false, pause_until: None }
}

const FAILED: DeliveryState = DeliveryState::Failed;

/// Row "waits".
#[test]
fn waits_of_every_profile() {
    let standard = [5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0];
    let with = |first: &[f64]| [first, &standard].concat();
    let cases = [
        ("standard", standard.to_vec(), 0, 0.1),
        ("cloudevents", standard.to_vec(), 0, 0.1),
        ("cryptr", vec![300.0, 600.0, 1_200.0, 3_600.0, 7_200.0], 0, 0.0),
        ("ferriskey", with(&[0.5, 1.0, 2.0, 4.0]), 4, 0.1),
        ("okta", with(&[0.0]), 1, 0.1),
        ("cymmetri", standard.to_vec(), 0, 0.1),
    ];
    assert_eq!(cases.len(), profiles::all().count());
    for (name, waits, exact, jitter) in cases {
        let policy = policy(name);
        for (i, wait) in waits.iter().enumerate() {
            let attempt = i as u32 + 1;
            assert_eq!(judge(&policy, attempt, &status(500), MIDDLE), after(*wait), "{name} {attempt}");
            let spread = if i < exact { 0.0 } else { jitter };
            assert_eq!(judge(&policy, attempt, &status(500), 0.0), after(wait * (1.0 - spread)), "{name}");
        }
        let last = waits.len() as u32 + 1;
        assert_eq!(policy.attempts(), last);
        assert_eq!(judge(&policy, last, &status(500), MIDDLE), end(FAILED, Reason::Exhausted), "{name}");
    }
}

/// Row "3xx, 4xx, 5xx": which statuses are tried again; the others are `failed/rejected`.
#[test]
fn statuses_of_every_profile() {
    let probes = [300, 301, 304, 307, 400, 401, 404, 408, 409, 413, 415, 429, 500, 501, 502, 503, 504, 599, 999];
    let retried: [(&str, &dyn Fn(u16) -> bool); 6] = [
        ("standard", &|_| true),
        ("cloudevents", &|_| true),
        ("cryptr", &|_| true),
        ("ferriskey", &|code| code == 408 || code == 429 || code >= 500),
        ("okta", &|code| code == 429 || code >= 500),
        ("cymmetri", &|_| true),
    ];
    for (name, expected) in retried {
        let policy = policy(name);
        for code in probes {
            let verdict = judge(&policy, 1, &status(code), MIDDLE);
            let first = policy.waits[0];
            let wanted = if expected(code) { after(first) } else { end(FAILED, Reason::Rejected) };
            assert_eq!(verdict, wanted, "{name} {code}");
        }
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(judge(&policy, 1, &status(code), MIDDLE), Verdict::Delivered, "{name} {code}");
        }
    }
}

/// Row "410".
#[test]
fn gone_of_every_profile() {
    let cases = [
        ("standard", FAILED, true),
        ("cloudevents", FAILED, true),
        ("cryptr", DeliveryState::Cancelled, false),
        ("ferriskey", FAILED, false),
        ("okta", FAILED, false),
        ("cymmetri", FAILED, true),
    ];
    for (name, state, disable_webhook) in cases {
        let expected = Verdict::End { state, reason: Reason::Gone, disable_webhook, pause_until: None };
        assert_eq!(judge(&policy(name), 1, &status(410), MIDDLE), expected, "{name}");
    }
    // Naming 410 among what is retried does not undo the rule.
    let over = RetryOverride { retry_on: Some(vec![RetryClass::Status(410)]), ..Default::default() };
    let policy = policy("ferriskey").with(Some(&over), None);
    assert_eq!(judge(&policy, 1, &status(410), MIDDLE), end(FAILED, Reason::Gone));
}

/// Row "no answer".
#[test]
fn silence_of_every_profile() {
    use Outcome::{Connect, Dns, Protocol, Reset, Timeout, Tls};
    for profile in profiles::all() {
        let (name, policy) = (profile.name(), profile.retry());
        for outcome in [Timeout, Connect, Dns, Tls, Reset, Protocol] {
            let expected = if name == "cryptr" { end(FAILED, Reason::NoAnswer) } else { after(policy.waits[0]) };
            assert_eq!(judge(policy, 1, &facts(outcome, None, None), MIDDLE), expected, "{name} {outcome:?}");
        }
        for outcome in [Outcome::BlockedAddress, Outcome::InvalidUrl] {
            let verdict = judge(policy, 1, &facts(outcome, None, None), MIDDLE);
            assert_eq!(verdict, end(FAILED, Reason::Rejected), "{name} {outcome:?}");
        }
    }
}

/// Row "Retry-After".
#[test]
fn retry_after_of_every_profile() {
    for profile in profiles::all() {
        let (name, policy) = (profile.name(), profile.retry());
        let cryptr = name == "cryptr";
        for code in [429, 503, 500, 301] {
            let what = facts(Outcome::HttpStatus, Some(code), Some("7200"));
            let heard = code == 503 || (code == 429 && !cryptr);
            let expected = Some(T0.saturating_add(Duration::from_secs(7_200))).filter(|_| heard);
            let (at, pause) = match judge(policy, 1, &what, MIDDLE) {
                Verdict::Retry { at, pause_until } => (Some(at), pause_until),
                Verdict::End { pause_until, .. } => (None, pause_until),
                Verdict::Delivered => panic!("{name} {code}"),
            };
            assert_eq!(pause, expected, "{name} {code}");
            if heard {
                assert_eq!(at, expected, "{name} {code}");
            }
        }
        // A shorter one does not shorten the wait, but for cryptr, whose wait it replaces.
        let what = facts(Outcome::HttpStatus, Some(503), Some("1"));
        let second = T0.saturating_add(Duration::from_secs(1));
        let scheduled = T0.saturating_add(Duration::from_secs_f64(policy.waits[1]));
        let at = if cryptr { second } else { scheduled.max(second) };
        let expected = Verdict::Retry { at, pause_until: Some(second) };
        assert_eq!(judge(policy, 2, &what, MIDDLE), expected, "{name}");
        // The last attempt's is still heard by the webhook's other deliveries.
        let expected = Verdict::End {
            state: FAILED,
            reason: Reason::Exhausted,
            disable_webhook: false,
            pause_until: Some(second),
        };
        assert_eq!(judge(policy, policy.attempts(), &what, MIDDLE), expected, "{name}");
    }
}

/// Row "timeout".
#[test]
fn timeout_of_every_profile() {
    let cases =
        [("standard", 15), ("cloudevents", 15), ("cryptr", 10), ("ferriskey", 10), ("okta", 3), ("cymmetri", 10)];
    for (name, seconds) in cases {
        assert_eq!(policy(name).timeout_ms, seconds * 1_000, "{name}");
    }
}

#[test]
fn the_forms_of_retry_after() {
    // 1700000000 is Tue, 14 Nov 2023 22:13:20 GMT.
    let cases = [
        ("120", Some(120)),
        (" 120\t", Some(120)),
        ("0", Some(1)),
        ("00", Some(1)),
        ("999999999", Some(999_999_999)),
        ("99999999999999999999999999", Some(u64::from(u32::MAX))),
        ("Tue, 14 Nov 2023 22:15:20 GMT", Some(120)),
        ("Tuesday, 14-Nov-23 22:15:20 GMT", Some(120)),
        ("Tue Nov 14 22:15:20 2023", Some(120)),
        ("Tue, 14 Nov 2023 22:13:20 GMT", None),
        ("Tue, 14 Nov 2023 20:00:00 GMT", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ("2023-11-14T22:15:20Z", None),
        ("1.5", None),
        ("-5", None),
        ("+5", None),
        ("1e3", None),
        ("soon", None),
        ("", None),
        ("\u{661}\u{662}", None),
    ];
    for (text, seconds) in cases {
        assert_eq!(parse_retry_after(text, T0), seconds.map(Duration::from_secs), "{text:?}");
    }
}

#[test]
fn retry_after_is_capped() {
    let what = facts(Outcome::HttpStatus, Some(503), Some("999999999"));
    let until = |policy: &RetryPolicy| match judge(policy, 1, &what, MIDDLE) {
        Verdict::Retry { at, pause_until } => {
            assert_eq!(Some(at), pause_until);
            at.since(T0).as_secs()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(until(&policy("standard")), 86_400);
    let over = RetryOverride {
        retry_after: Some(RetryAfterOverride { statuses: None, cap_s: Some(600) }),
        ..Default::default()
    };
    assert_eq!(until(&policy("standard").with(Some(&over), None)), 600);
}

#[test]
fn overrides_go_by_member() {
    let base = policy("ferriskey");
    assert_eq!(base.with(None, None), base);
    assert_eq!(base.with(Some(&RetryOverride::default()), Some(700)).timeout_ms, 700);
    let over: RetryOverride = serde_json::from_str(
        r#"{"waits":[0.5,2],"retry_on":["timeout","4xx",503,"504"],"gone":"cancel","retry_after":{"statuses":[500]}}"#,
    )
    .unwrap();
    let policy = base.with(Some(&over), None);
    assert_eq!(policy.attempts(), 3);
    // Own waits have no fast phase: the profile's jitter is on all of them.
    assert_eq!(judge(&policy, 1, &status(503), 1.0), after(0.5 * 1.1));
    assert_eq!(judge(&policy, 1, &status(500), MIDDLE), end(FAILED, Reason::Rejected));
    assert_eq!(judge(&policy, 1, &facts(Outcome::Reset, None, None), MIDDLE), end(FAILED, Reason::NoAnswer));
    assert_eq!(judge(&policy, 1, &status(410), MIDDLE), end(DeliveryState::Cancelled, Reason::Gone));
    assert_eq!(policy.retry_after.cap_s, 86_400);
    let none = RetryOverride { waits: Some(vec![]), ..Default::default() };
    assert_eq!(judge(&base.with(Some(&none), None), 1, &status(500), MIDDLE), end(FAILED, Reason::Exhausted));
    // What was written is what is read back, statuses as numbers.
    assert_eq!(
        serde_json::to_string(&over).unwrap(),
        r#"{"waits":[0.5,2.0],"retry_on":["timeout","4xx",503,504],"gone":"cancel","retry_after":{"statuses":[500]}}"#
    );
}

#[test]
fn retry_classes_have_one_text_each() {
    for text in ["timeout", "transport", "3xx", "4xx", "5xx", "300", "429", "599"] {
        assert_eq!(text.parse::<RetryClass>().unwrap().to_string(), text);
    }
    for bad in ["", "2xx", "6xx", "200", "299", "600", "0429", "+29", "4XX", "Timeout", "connect"] {
        assert_eq!(bad.parse::<RetryClass>(), Err(BadRetryClass), "{bad}");
        assert!(serde_json::from_value::<RetryClass>(bad.into()).is_err());
    }
    assert!(serde_json::from_str::<RetryClass>("200").is_err());
    assert!(serde_json::from_str::<RetryClass>("-1").is_err());
}

#[test]
fn problems_name_every_bad_member() {
    let bad = RetryOverride {
        waits: Some(vec![1.0, -1.0, f64::NAN, WAIT_MAX_S + 1.0]),
        jitter: Some(1.5),
        retry_after: Some(RetryAfterOverride { statuses: Some(vec![429, 200]), cap_s: Some(0) }),
        ..Default::default()
    };
    let pointers: Vec<_> = bad.problems().into_iter().map(|(pointer, _)| pointer).collect();
    assert_eq!(
        pointers,
        ["/waits/1", "/waits/2", "/waits/3", "/jitter", "/retry_after/statuses/1", "/retry_after/cap_s"]
    );
    let long = RetryOverride { waits: Some(vec![1.0; 33]), ..Default::default() };
    assert_eq!(long.problems().len(), 1);
    let good = RetryOverride { waits: Some(vec![WAIT_MAX_S; 32]), jitter: Some(1.0), ..Default::default() };
    assert!(good.problems().is_empty());
}

fn any_policy() -> impl Strategy<Value = RetryPolicy> {
    let class = prop_oneof![
        Just(RetryClass::Timeout),
        Just(RetryClass::Transport),
        Just(RetryClass::S3xx),
        Just(RetryClass::S4xx),
        Just(RetryClass::S5xx),
        (300u16..600).prop_map(RetryClass::Status),
    ];
    let gone = prop_oneof![Just(GoneRule::Cancel), Just(GoneRule::Disable), Just(GoneRule::Final)];
    (
        proptest::collection::vec(0.0..WAIT_MAX_S, 0..32),
        0usize..4,
        0.0..=1.0f64,
        proptest::collection::vec(class, 0..6),
        gone,
        proptest::collection::vec(300u16..600, 0..4),
        any::<u32>(),
        any::<bool>(),
    )
        .prop_map(|(waits, exact_waits, jitter, retry_on, gone, statuses, cap_s, replaces)| RetryPolicy {
            waits: waits.into(),
            exact_waits,
            jitter,
            retry_on: retry_on.into(),
            gone,
            retry_after: RetryAfterRule { statuses: statuses.into(), cap_s, replaces },
            timeout_ms: 1_000,
        })
}

proptest! {
    #[test]
    fn judging_is_total_and_a_terminal_verdict_is_terminal(
        policy in any_policy(),
        attempt in any::<u32>(),
        outcome in proptest::sample::select(Outcome::ALL.to_vec()),
        code in proptest::option::of(any::<u16>()),
        header in proptest::option::of(".{0,40}"),
        unit in any::<f64>(),
        ended in any::<i64>(),
    ) {
        let ended_at = Timestamp::from_micros(ended);
        let what = AttemptFacts { outcome, status: code, retry_after: header.as_deref(), ended_at };
        match judge(&policy, attempt, &what, unit) {
            Verdict::Delivered => prop_assert_eq!(outcome, Outcome::Ok),
            Verdict::Retry { .. } => prop_assert!(attempt < policy.attempts()),
            Verdict::End { state, .. } => prop_assert!(state.is_terminal() && state != DeliveryState::Delivered),
        }
    }

    #[test]
    fn never_earlier_than_the_receiver_asked(policy in any_policy(), asked in 0u64..200_000, unit in 0.0..1.0f64) {
        let text = asked.to_string();
        let what = AttemptFacts { retry_after: Some(&text), ..status(503) };
        if let Verdict::Retry { at, pause_until: Some(until) } = judge(&policy, 1, &what, unit) {
            let cap = u64::from(policy.retry_after.cap_s.clamp(1, RETRY_AFTER_CAP_S));
            prop_assert_eq!(until, T0.saturating_add(Duration::from_secs(asked.max(1).min(cap))));
            prop_assert!(at >= until);
            if policy.retry_after.replaces {
                prop_assert_eq!(at, until);
            }
        }
    }

    #[test]
    fn waits_stay_within_their_jitter(policy in any_policy(), attempt in 1u32..33, unit in 0.0..1.0f64) {
        if let Verdict::Retry { at, pause_until: None } = judge(&policy, attempt, &status(500), unit) {
            let index = attempt as usize - 1;
            let wait = policy.waits[index];
            let spread = if index < policy.exact_waits { 0.0 } else { policy.jitter * wait };
            let actual = at.since(T0).as_secs_f64();
            prop_assert!((actual - wait).abs() <= spread + 1e-5, "{} {} {}", actual, wait, spread);
        }
    }

    #[test]
    fn a_budget_has_one_attempt_more_than_waits(policy in any_policy(), unit in 0.0..1.0f64) {
        let over = RetryOverride { retry_on: Some(vec![RetryClass::S5xx]), ..Default::default() };
        let policy = policy.with(Some(&over), None);
        let mut attempts = 1;
        while let Verdict::Retry { .. } = judge(&policy, attempts, &status(500), unit) {
            attempts += 1;
        }
        prop_assert_eq!(attempts as usize, policy.waits.len() + 1);
    }
}
