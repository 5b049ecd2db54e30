//! Hooks, points, records of invocations.

use std::sync::Arc;
use std::time::Duration;

use gatepost_core::hooks::decision::Decision;
use gatepost_core::hooks::failure::FailureClass;
use gatepost_core::hooks::hook::{HookConfig, Mode};
use gatepost_core::hooks::json::{Value, parse_strict};
use gatepost_core::hooks::outcome::{ACCEPTED_FOR, Outcome, UNKNOWN_AFTER};
use gatepost_core::hooks::points::{PointDef, PointKind, PointSettings, builtin};
use gatepost_core::{HookId, InvocationId, TenantKey, Timestamp};
use serde_json::json;

use super::{at, page, tenant};
use crate::hooks::{
    HookCounters, HookTest, HookUpdate, HookUpdateOutcome, InvocationBatch, InvocationBody, InvocationQuery,
    InvocationRecord, KeptSecret, NewHook, NewInvocation, NewTrial, OutcomeRecorded, OutcomeState, PointRemoval,
    StoredHook, StoredPoint, Trial,
};
use crate::{Created, Store};

fn hook_id(number: u128) -> HookId {
    HookId::from_bytes((2_000 + number).to_be_bytes())
}

fn invocation_id(number: u128) -> InvocationId {
    InvocationId::from_bytes((3_000 + number).to_be_bytes())
}

fn new_hook(tenant: TenantKey, number: u128) -> NewHook {
    let config = HookConfig::new(format!("hook {number}"), "validateUser", "https://receiver.example/");
    NewHook { tenant, id: hook_id(number), config, sealed_secrets: vec![9, 9], test: None, now: at(number as i64) }
}

fn update_of(hook: &StoredHook, config: HookConfig) -> HookUpdate {
    HookUpdate {
        tenant: hook.tenant,
        id: hook.id,
        expected_revision: hook.revision,
        config,
        sealed_secrets: vec![8],
        verified_at: None,
        test: None,
        now: at(50),
    }
}

fn test(passed: bool) -> HookTest {
    HookTest {
        at: at(40),
        passed,
        status: Some(200),
        duration_ms: 3,
        failure: None,
        error: None,
        warning: Some("odd".into()),
    }
}

async fn make(store: &dyn Store, tenant: TenantKey, number: u128) -> StoredHook {
    store.create_hook(new_hook(tenant, number)).await.unwrap().expect("the tenant is there")
}

fn decision(id: InvocationId, point: &str) -> Decision {
    let point = builtin(point).expect("a built-in point");
    Decision::without_asking(&id.to_string(), point, None)
}

fn invocation(tenant: TenantKey, number: u128, at: Timestamp) -> NewInvocation {
    let id = invocation_id(number);
    NewInvocation {
        tenant,
        id,
        at,
        point: "createUser".into(),
        subject_id: Some("u1".into()),
        awaits_outcome: true,
        record: InvocationRecord {
            decision: decision(id, "preCreateUser"),
            subject: json!({"id": "u1"}).into(),
            actor: Value::Null,
            key: None,
            trace_id: None,
            hop: 0,
            request_sha256: Some("00".into()),
            object_sha256: None,
            abandoned: false,
        },
        body: None,
    }
}

fn body() -> InvocationBody {
    let read = |text: &str| parse_strict(text.as_bytes()).unwrap();
    // Kept as it was written, whatever it is.
    InvocationBody {
        question: read(r#"{"object":{"user":{"a":12345678901234567890123,"b":1.00}}}"#),
        object: read(r#"{"user":{"a":1e400,"b":"\ud83d"}}"#),
    }
}

async fn keep(store: &dyn Store, invocations: Vec<NewInvocation>) {
    store.record_invocations(InvocationBatch { invocations, ..InvocationBatch::default() }).await.unwrap();
}

fn query(tenant: TenantKey, limit: usize) -> InvocationQuery {
    InvocationQuery {
        tenant,
        point: None,
        subject: None,
        denied: None,
        cause: None,
        since: None,
        until: None,
        page: page(limit, None),
    }
}

fn committed(yes: bool) -> Outcome {
    Outcome { committed: yes, reason: None, object: None, is_success: None, uid: None }
}

/// See the name.
pub async fn hooks_are_made_changed_listed_and_removed(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let first = make(&*store, acme.key, 1).await;
    assert_eq!((first.revision, first.verified_at, first.created_at), (1, None, at(1)));
    let again = make(&*store, acme.key, 1).await;
    assert_eq!(again, first, "asked again because the answer was lost");
    let second = make(&*store, acme.key, 2).await;
    assert_eq!(store.hook(acme.key, first.id).await.unwrap().as_ref(), Some(&first));
    let newest = store.hooks(acme.key, None, page(1, None)).await.unwrap();
    assert_eq!(newest.rows, [second]);
    let rest = store.hooks(acme.key, Some("validateUser"), page(5, newest.next)).await.unwrap();
    assert_eq!((rest.rows, rest.next), (vec![first.clone()], None));
    assert_eq!(store.hooks(acme.key, Some("policyMap"), page(5, None)).await.unwrap().rows, []);

    let config = HookConfig { mode: Mode::Off, ..first.config.clone() };
    let HookUpdateOutcome::Updated(changed) = store.update_hook(update_of(&first, config.clone())).await.unwrap()
    else {
        panic!("not updated")
    };
    assert_eq!((changed.revision, &changed.config, changed.sealed_secrets.as_slice()), (2, &config, &[8][..]));
    assert_eq!(store.update_hook(update_of(&first, config)).await.unwrap(), HookUpdateOutcome::Stale);
    assert!(store.delete_hook(acme.key, first.id).await.unwrap());
    assert!(!store.delete_hook(acme.key, first.id).await.unwrap());
    assert_eq!(
        store.update_hook(update_of(&changed, changed.config.clone())).await.unwrap(),
        HookUpdateOutcome::NotFound
    );
}

/// See the name.
pub async fn the_hook_registry_is_whole_and_its_version_grows(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let empty = store.hook_registry(&acme.id).await.unwrap().unwrap();
    assert_eq!((empty.version, empty.hooks.len(), empty.points.len()), (0, 0, 0));
    assert_eq!(store.hook_tenants(None, 10).await.unwrap(), []);
    let (one, two) = (make(&*store, acme.key, 1).await, make(&*store, acme.key, 2).await);
    let point = StoredPoint {
        name: "validateUser".into(),
        definition: None,
        settings: PointSettings { enabled: false, ..PointSettings::default() },
        created_at: at(3),
        updated_at: at(3),
    };
    store.put_point(acme.key, point.clone()).await.unwrap().unwrap();
    let all = store.hook_registry(&acme.id).await.unwrap().unwrap();
    assert_eq!((all.tenant.id.clone(), all.version), (acme.id.clone(), 3));
    assert_eq!((all.hooks, all.points), (vec![one, two], vec![point]));
    assert_eq!(store.hook_tenants(None, 10).await.unwrap(), [(acme.key, acme.id.clone())]);
    assert_eq!(store.hook_tenants(Some(acme.key), 10).await.unwrap(), []);
    store.delete_hook(acme.key, hook_id(1)).await.unwrap();
    assert_eq!(store.hook_registry(&acme.id).await.unwrap().unwrap().version, 4);
    store.delete_tenant(&acme.id, at(9)).await.unwrap();
    assert!(store.hook_registry(&acme.id).await.unwrap().is_none());
    assert!(store.create_hook(new_hook(acme.key, 7)).await.unwrap().is_none());
}

/// See the name.
pub async fn a_probe_verifies_the_revision_it_was_made_for(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let hook = make(&*store, acme.key, 1).await;
    let failed = store.record_hook_test(acme.key, hook.id, 1, test(false)).await.unwrap().unwrap();
    assert_eq!((failed.verified_at, failed.last_test), (None, Some(test(false))));
    let passed = store.record_hook_test(acme.key, hook.id, 1, test(true)).await.unwrap().unwrap();
    assert_eq!(passed.verified_at, Some(at(40)));
    store.update_hook(update_of(&passed, passed.config.clone())).await.unwrap();
    let stale = store.record_hook_test(acme.key, hook.id, 1, test(true)).await.unwrap().unwrap();
    assert_eq!((stale.revision, stale.verified_at), (2, None), "verified as it was, not as it is");
    assert!(store.record_hook_test(acme.key, hook_id(9), 1, test(true)).await.unwrap().is_none());
    let probed = NewHook { test: Some(test(true)), ..new_hook(acme.key, 2) };
    assert_eq!(store.create_hook(probed).await.unwrap().unwrap().verified_at, Some(at(40)));
}

/// See the name.
pub async fn points_are_defined_set_and_removed(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let own = StoredPoint {
        name: "beforeBadge".into(),
        definition: Some(PointDef::new("beforeBadge", PointKind::Gate)),
        settings: PointSettings::default(),
        created_at: at(1),
        updated_at: at(1),
    };
    assert_eq!(store.put_point(acme.key, own.clone()).await.unwrap().unwrap(), (own.clone(), Created::Yes));
    let later = StoredPoint { created_at: at(2), updated_at: at(2), ..own.clone() };
    let (put, created) = store.put_point(acme.key, later).await.unwrap().unwrap();
    assert_eq!((put.created_at, put.updated_at, created), (at(1), at(2), Created::No));
    let mut at_it = new_hook(acme.key, 1);
    at_it.config.point = "beforeBadge".into();
    store.create_hook(at_it).await.unwrap();
    assert_eq!(store.delete_point(acme.key, "beforeBadge", false).await.unwrap(), PointRemoval::InUse);
    store.delete_hook(acme.key, hook_id(1)).await.unwrap();
    assert_eq!(store.delete_point(acme.key, "beforeBadge", false).await.unwrap(), PointRemoval::Removed);
    assert_eq!(store.delete_point(acme.key, "beforeBadge", false).await.unwrap(), PointRemoval::NotFound);
}

/// See the name.
pub async fn invocations_are_kept_once_with_trials_and_counts(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let hook = make(&*store, acme.key, 1).await;
    let row = gatepost_core::hooks::decision::HookRow {
        id: hook.id,
        name: "hook 1".into(),
        phase: PointKind::Validate,
        mode: Mode::Observe,
        result: gatepost_core::hooks::decision::HookResult::Failed,
        status: None,
        took_us: 5,
        conn: None,
        attempts: 1,
        failure: Some(FailureClass::Timeout),
        detail: None,
        attribute: None,
        changed: None,
    };
    let trial = Trial { would: "fail_closed".into(), row };
    let counts = HookCounters { asked: 2, observed: 1, ..HookCounters::default() };
    let kept = NewInvocation { body: Some((body(), at(500))), ..invocation(acme.key, 1, at(10)) };
    let batch = InvocationBatch {
        invocations: vec![kept],
        trials: vec![NewTrial { invocation: invocation_id(1), hook: hook.id, trial: trial.clone() }],
        counts: vec![(acme.key, hook.id, counts), (acme.key, hook_id(77), counts)],
    };
    store.record_invocations(batch.clone()).await.unwrap();
    store.record_invocations(InvocationBatch { counts: Vec::new(), ..batch }).await.unwrap();
    let found = store.invocation(acme.key, invocation_id(1)).await.unwrap().unwrap();
    assert_eq!((found.at, found.outcome_state, &found.outcome), (at(10), OutcomeState::Awaited, &None));
    assert_eq!((found.trials, found.body), (vec![(hook.id, trial)], Some(body())));
    // What the answer looked like on the way is not kept: only the caller ever saw it.
    let form = |record: &InvocationRecord| serde_json::to_value(record).unwrap();
    assert_eq!(form(&found.record), form(&invocation(acme.key, 1, at(10)).record));
    assert_eq!(store.hook(acme.key, hook.id).await.unwrap().unwrap().counters, counts);
    assert_eq!(store.invocations(query(acme.key, 10)).await.unwrap().rows.len(), 1);
    let other = tenant(&*store, "other").await;
    assert!(store.invocation(other.key, invocation_id(1)).await.unwrap().is_none(), "another tenant's");
}

/// See the name.
pub async fn invocations_are_listed_newest_first_and_filtered(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let mut all: Vec<_> = (0..6).map(|n| invocation(acme.key, n, at(n as i64))).collect();
    all[1].point = "policyMap".into();
    all[2].subject_id = Some("u2".into());
    all[3].record.decision = decision(invocation_id(3), "validateUser");
    keep(&*store, all).await;
    let ids = |rows: &[crate::hooks::StoredInvocation]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    let listed = |numbers: &[u128]| numbers.iter().map(|n| invocation_id(*n)).collect::<Vec<_>>();
    let first = store.invocations(query(acme.key, 4)).await.unwrap();
    assert_eq!(ids(&first.rows), listed(&[5, 4, 3, 2]));
    let second = InvocationQuery { page: page(4, first.next), ..query(acme.key, 4) };
    let second = store.invocations(second).await.unwrap();
    assert_eq!((ids(&second.rows), second.next), (listed(&[1, 0]), None));
    let q = || query(acme.key, 10);
    assert_eq!(store.erase_invocations(acme.key, "u2", 10).await.unwrap(), 1);
    assert!(store.invocation(acme.key, invocation_id(2)).await.unwrap().is_none());
    for (query, expected) in [
        (InvocationQuery { point: Some("policyMap".into()), ..q() }, &[1][..]),
        (InvocationQuery { subject: Some("u1".into()), ..q() }, &[5, 4, 3, 1, 0]),
        (InvocationQuery { denied: Some(true), ..q() }, &[3]),
        (InvocationQuery { cause: Some("receiver".into()), ..q() }, &[]),
        (InvocationQuery { since: Some(at(2)), until: Some(at(4)), ..q() }, &[3]),
    ] {
        assert_eq!(ids(&store.invocations(query).await.unwrap().rows), listed(expected));
    }
}

/// See the name.
pub async fn an_outcome_is_kept_once_and_its_events_are_owed(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let kept = NewInvocation { body: Some((body(), at(90_000))), ..invocation(acme.key, 1, at(10)) };
    let mut dry = invocation(acme.key, 2, at(10));
    dry.record.decision.dry_run = true;
    keep(&*store, vec![kept, dry, invocation(acme.key, 3, at(10))]).await;
    let tell = |id, outcome, now| store.record_outcome(acme.key, invocation_id(id), outcome, now);
    let recorded = tell(1, committed(true), at(20)).await.unwrap();
    let OutcomeRecorded::Recorded(recorded) = recorded else { panic!("{recorded:?}") };
    assert_eq!(recorded.outcome_state, OutcomeState::Owed);
    assert_eq!((recorded.outcome.clone(), recorded.body.clone()), (Some((committed(true), at(20))), Some(body())));
    assert!(matches!(tell(1, committed(true), at(30)).await.unwrap(), OutcomeRecorded::Same(_)));
    assert_eq!(tell(1, committed(false), at(30)).await.unwrap(), OutcomeRecorded::Contradicts);
    assert_eq!(tell(2, committed(true), at(30)).await.unwrap(), OutcomeRecorded::DryRun);
    assert_eq!(tell(9, committed(true), at(30)).await.unwrap(), OutcomeRecorded::NotFound);
    let late = at(11).saturating_add(ACCEPTED_FOR);
    assert_eq!(tell(3, committed(true), late).await.unwrap(), OutcomeRecorded::Expired);
    assert_eq!(store.owed_outcomes(10).await.unwrap(), [(acme.id.clone(), *recorded)]);
    store.outcome_published(acme.key, invocation_id(1)).await.unwrap();
    assert_eq!(store.owed_outcomes(10).await.unwrap(), []);
    let done = store.invocation(acme.key, invocation_id(1)).await.unwrap().unwrap();
    assert_eq!(done.outcome_state, OutcomeState::Done);
}

/// See the name.
pub async fn upkeep_marks_the_unknown_and_removes_the_old(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let kept = NewInvocation { body: Some((body(), at(100))), ..invocation(acme.key, 1, at(10)) };
    keep(&*store, vec![kept, invocation(acme.key, 2, at(60))]).await;
    let now = at(10).saturating_add(UNKNOWN_AFTER);
    let step = store.keep_up_hooks(now, None, 100).await.unwrap();
    assert_eq!((step.unknown, step.removed, step.more, step.next), (1, 0, false, Some(acme.key)));
    assert_eq!(store.keep_up_hooks(now, step.next, 100).await.unwrap().next, None);
    let found = store.invocation(acme.key, invocation_id(1)).await.unwrap().unwrap();
    assert_eq!((found.outcome_state, found.body.is_some()), (OutcomeState::Unknown, true));
    let told = store.record_outcome(acme.key, invocation_id(1), committed(true), at(80)).await.unwrap();
    assert!(matches!(told, OutcomeRecorded::Recorded(_)), "unknown is not the end");
    store.keep_up_hooks(at(100), None, 100).await.unwrap();
    assert_eq!(store.invocation(acme.key, invocation_id(1)).await.unwrap().unwrap().body, None);
    let month = at(100).saturating_add(Duration::from_secs(31 * 24 * 60 * 60));
    store.keep_up_hooks(month, None, 100).await.unwrap();
    assert!(store.invocation(acme.key, invocation_id(1)).await.unwrap().is_some(), "its events are still owed");
    assert!(store.invocation(acme.key, invocation_id(2)).await.unwrap().is_none());
}

/// See the name.
pub async fn kept_secrets_are_due_once_and_go_with_their_hook(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let hook = make(&*store, acme.key, 1).await;
    let kept = |number, due| KeptSecret {
        tenant: acme.key,
        hook: hook.id,
        invocation: invocation_id(number),
        attempts: 1,
        due: at(due),
        expires_at: at(900),
        sealed: vec![1, 2, 3],
    };
    for (number, due) in [(1, 20), (2, 10), (3, 99)] {
        store.keep_secret(kept(number, due)).await.unwrap();
    }
    let due = store.due_secrets(at(30), 10).await.unwrap();
    assert_eq!(due, [(acme.id.clone(), kept(2, 10)), (acme.id.clone(), kept(1, 20))]);
    store.keep_secret(KeptSecret { attempts: 2, due: at(70), ..kept(2, 10) }).await.unwrap();
    store.drop_secret(invocation_id(1), hook.id).await.unwrap();
    assert_eq!(store.due_secrets(at(30), 10).await.unwrap(), []);
    store.keep_up_hooks(at(900), None, 10).await.unwrap();
    assert_eq!(store.due_secrets(at(901), 10).await.unwrap(), []);
    store.keep_secret(kept(4, 10)).await.unwrap();
    store.delete_hook(acme.key, hook.id).await.unwrap();
    assert_eq!(store.due_secrets(at(30), 10).await.unwrap(), []);
}

/// See the name.
pub async fn a_deleted_tenants_hooks_go_with_it(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    make(&*store, acme.key, 1).await;
    let kept = NewInvocation { body: Some((body(), at(100))), ..invocation(acme.key, 1, at(10)) };
    keep(&*store, vec![kept]).await;
    store.delete_tenant(&acme.id, at(20)).await.unwrap();
    assert!(store.hook(acme.key, hook_id(1)).await.unwrap().is_none());
    assert!(store.invocation(acme.key, invocation_id(1)).await.unwrap().is_none());
    while store.sweep(at(21), 2).await.unwrap().more {}
    let again = tenant(&*store, "acme").await;
    // The ids are free again: nothing of the old rows is left.
    assert_eq!(make(&*store, again.key, 1).await.tenant, again.key);
    keep(&*store, vec![invocation(again.key, 1, at(30))]).await;
    let found = store.invocation(again.key, invocation_id(1)).await.unwrap().unwrap();
    assert_eq!((found.at, found.body), (at(30), None));
}
