//! How endpoints fare, and whether they are verified.

use std::sync::Arc;

use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::health::{Seen, Tally};
use gatepost_core::own_events::OwnEvent;
use gatepost_core::tenant::TenantSettings;
use gatepost_core::webhook::Webhook;
use gatepost_core::{Timestamp, WebhookKey};

use super::{at, change, due, one_delivery, tenant, webhook};
use crate::{
    About, DeliveryQuery, HealthCounts, HealthNote, HealthNotes, HealthTaken, PageRequest, PutTenant, Store,
    UpdateOutcome, WebhookUpdate,
};

const DAY: i64 = 86_400;

/// A tally of attempts, each at a second, that succeeded or not.
fn tally(attempts: &[(i64, bool)]) -> Tally {
    let mut tally = Tally::default();
    for (second, ok) in attempts {
        let error = (!ok).then_some("answered 500");
        tally.add(&Seen { started_at: at(*second), ended_at: at(*second), error, last: false, own: false });
    }
    tally
}

async fn tell(store: &dyn Store, token: u64, hook: &Webhook, attempts: &[(i64, bool)]) -> HealthTaken {
    let now = at(attempts.last().map_or(0, |(second, _)| *second));
    let revision = store.webhook_by_key(hook.key).await.unwrap().map_or(1, |webhook| webhook.revision);
    let note = HealthNote { webhook: hook.key, revision, auto_disable: true, tally: tally(attempts) };
    store.note_health(HealthNotes { token, now, notes: vec![note] }).await.unwrap()
}

async fn told(store: &dyn Store) -> Vec<OwnEvent> {
    let all = store.noted(0, 1_000).await.unwrap();
    all.into_iter().map(|one| one.event).filter(|event| *event != OwnEvent::WebhookCreated).collect()
}

async fn failing(store: &dyn Store, key: WebhookKey) -> bool {
    store.health_of(&[key]).await.unwrap().get(&key).is_some_and(|health| health.is_failing())
}

/// See the name.
pub async fn attempts_are_folded_in_and_a_recovery_is_noted_once(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let (one, two) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    assert!(store.health_of(&[one.key, two.key]).await.unwrap().is_empty());
    assert_eq!(tell(&*store, 1, &one, &[(1, true), (2, false), (3, false)]).await, HealthTaken::default());
    assert!(failing(&*store, one.key).await && !failing(&*store, two.key).await);
    assert_eq!(store.health_counts().await.unwrap(), HealthCounts { failing: 1, disabled: 0 });
    let taken = tell(&*store, 2, &one, &[(4, true)]).await;
    assert!(taken.noted);
    // Its answer was lost, and it is told again.
    assert_eq!(tell(&*store, 2, &one, &[(4, true)]).await, HealthTaken::default());
    assert_eq!(told(&*store).await, [OwnEvent::WebhookRecovered]);
    assert!(!failing(&*store, one.key).await);
    let health = store.health_of(&[one.key]).await.unwrap().remove(&one.key).unwrap();
    assert_eq!((health.last_day(at(5)), health.since()), ((2, 2), Some(at(4))));
    assert_eq!(store.health_counts().await.unwrap(), HealthCounts::default());
}

/// See the name.
pub async fn sustained_failure_disables_and_says_so_once(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let version = store.registry(acme).await.unwrap().unwrap().version;
    let many: Vec<_> = (0..19).map(|i| (i * DAY / 3, false)).collect();
    assert_eq!(tell(&*store, 1, &hook, &many).await, HealthTaken::default(), "19 attempts in six days");
    let taken = tell(&*store, 2, &hook, &[(7 * DAY, false)]).await;
    assert_eq!(taken, HealthTaken { disabled: vec![(acme, hook.key)], noted: true });
    // Its answer was lost: whom it disabled is said again, and noted once.
    let again = tell(&*store, 2, &hook, &[(7 * DAY, false)]).await;
    assert_eq!(again, HealthTaken { disabled: vec![(acme, hook.key)], noted: false });
    let now = store.webhook(acme, hook.id).await.unwrap().unwrap();
    assert_eq!((now.config.enabled, now.disabled_reason.as_deref()), (false, Some("sustained_failure")));
    assert_eq!(store.registry(acme).await.unwrap().unwrap().version, version + 1);
    assert_eq!(store.health_counts().await.unwrap(), HealthCounts { failing: 0, disabled: 1 });
    // What was still under way changes nothing any more.
    assert!(tell(&*store, 3, &hook, &[(7 * DAY + 1, false)]).await.disabled.is_empty());
    let notes = store.noted(0, 100).await.unwrap();
    let about =
        About::Webhook { key: hook.key, revision: now.revision, disabled_reason: Some("sustained_failure".to_owned()) };
    assert_eq!(notes.last().unwrap().about, about);
    assert_eq!(told(&*store).await, [OwnEvent::WebhookDisabled]);

    // Enabled again, it starts afresh.
    change(&*store, &hook, at(8 * DAY), |config| config.enabled = true).await;
    assert!(!failing(&*store, hook.key).await);
    assert_eq!(store.health_counts().await.unwrap(), HealthCounts::default());
    assert!(tell(&*store, 4, &hook, &[(8 * DAY + 1, false)]).await.disabled.is_empty());
    assert!(store.webhook(acme, hook.id).await.unwrap().unwrap().config.enabled);
}

/// See the name.
pub async fn sustained_failure_disables_only_where_it_may_and_not_for_an_old_place(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let many: Vec<_> = (0..30).map(|i| (i * DAY / 3, false)).collect();
    let note = |auto_disable, revision| HealthNote { webhook: hook.key, revision, auto_disable, tally: tally(&many) };
    let notes = |token, note| HealthNotes { token, now: at(10 * DAY), notes: vec![note] };
    assert!(store.note_health(notes(1, note(false, 1))).await.unwrap().disabled.is_empty());
    assert!(failing(&*store, hook.key).await);
    change(&*store, &hook, at(10 * DAY), |config| config.url = "https://elsewhere.example/".into()).await;
    assert!(!failing(&*store, hook.key).await, "another endpoint");
    assert!(store.note_health(notes(2, note(true, 1))).await.unwrap().disabled.is_empty());
    assert!(store.webhook(acme, hook.id).await.unwrap().unwrap().config.enabled);
}

/// See the name.
pub async fn a_deleted_webhook_has_no_health(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    tell(&*store, 1, &hook, &[(1, false), (2, false)]).await;
    store.delete_webhook(acme, hook.id, at(3)).await.unwrap().unwrap();
    tell(&*store, 2, &hook, &[(4, false)]).await;
    assert!(store.health_of(&[hook.key]).await.unwrap().is_empty());
    assert_eq!(store.health_counts().await.unwrap(), HealthCounts::default());
}

async fn set_verified(store: &dyn Store, hook: &Webhook, verified_at: Option<Timestamp>, must_verify: bool) {
    let present = store.webhook(hook.tenant, hook.id).await.unwrap().unwrap();
    let mut config = present.config;
    config.verified_at = verified_at;
    let update = WebhookUpdate {
        tenant: hook.tenant,
        id: hook.id,
        expected_revision: present.revision,
        config,
        sealed_secrets: present.sealed_secrets,
        disabled_reason: None,
        must_verify,
        told_as: None,
        now: at(20),
    };
    assert!(matches!(store.update_webhook(update).await.unwrap(), UpdateOutcome::Updated(_)));
}

async fn require(store: &dyn Store, required: bool) -> u64 {
    let settings = TenantSettings { require_verification: required, ..TenantSettings::default() };
    let id = "acme".parse().unwrap();
    let put = PutTenant { id, name: None, environment: None, settings: Some(settings), now: at(30) };
    store.put_tenant(put).await.unwrap().0.registry_version
}

/// See the name.
pub async fn what_is_owed_to_an_unverified_webhook_is_held(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let one = one_delivery(&*store, &hook).await;
    let shown = async || {
        let row = store.delivery(acme, one.seq).await.unwrap().unwrap().row;
        let handed_out = due(&*store, hook.key, at(60)).await.len();
        assert_eq!(handed_out, store.owed(None, 10).await.unwrap().len());
        (row.state, row.reason, row.next_attempt_at.is_some(), handed_out)
    };
    let (open, held) =
        ((DeliveryState::Pending, None, true, 1), (DeliveryState::Held, Some(Reason::Unverified), false, 0));
    assert_eq!(shown().await, open);
    set_verified(&*store, &hook, None, true).await;
    assert_eq!(shown().await, held);
    set_verified(&*store, &hook, Some(at(21)), true).await;
    assert_eq!(shown().await, open);
    set_verified(&*store, &hook, None, false).await;
    assert_eq!(shown().await, open);

    // The tenant's word counts for all, and is a change of what matches (P4).
    let before = require(&*store, false).await;
    let after = require(&*store, true).await;
    assert_eq!(after, before + 1);
    assert_eq!(require(&*store, true).await, after, "no change");
    assert_eq!(shown().await, held);
    let registry = store.registry(acme).await.unwrap().unwrap();
    assert_eq!((registry.version, registry.must_verify), (after, true));
    assert!(!store.registry_at(acme, before, 10).await.unwrap().must_verify);
    assert!(store.registry_at(acme, after, 10).await.unwrap().must_verify);
    set_verified(&*store, &hook, Some(at(40)), false).await;
    assert_eq!(shown().await, open);
    set_verified(&*store, &hook, None, false).await;
    require(&*store, false).await;
    assert_eq!(shown().await, open);
    assert!(store.registry_at(acme, after, 10).await.unwrap().must_verify, "then it was");
}

/// See the name.
pub async fn what_is_owed_to_a_paused_webhook_is_held(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let one = one_delivery(&*store, &hook).await;
    let shown = async || {
        let row = store.delivery(acme, one.seq).await.unwrap().unwrap().row;
        let query = DeliveryQuery {
            state: Some(DeliveryState::Held),
            ..DeliveryQuery::of(acme, PageRequest { limit: 10, after: None })
        };
        let listed = store.deliveries(query).await.unwrap().rows.len();
        let handed_out = due(&*store, hook.key, at(60)).await.len();
        assert_eq!(handed_out, store.owed(None, 10).await.unwrap().len());
        (row.state, row.reason, row.next_attempt_at.is_some(), listed, handed_out)
    };
    let (open, held) =
        ((DeliveryState::Pending, None, true, 0, 1), (DeliveryState::Held, Some(Reason::Paused), false, 1, 0));
    assert_eq!(shown().await, open);
    change(&*store, &hook, at(20), |config| config.paused = true).await;
    assert_eq!(shown().await, held);
    let registry = store.registry(acme).await.unwrap().unwrap();
    assert_eq!(registry.webhooks.len(), 1, "it is matched as ever");
    // What is disabled besides is told as that: a pause alone would not keep it.
    change(&*store, &hook, at(21), |config| config.enabled = false).await;
    assert_eq!(shown().await.1, Some(Reason::WebhookDisabled));
    change(&*store, &hook, at(22), |config| (config.enabled, config.paused) = (true, false)).await;
    assert_eq!(shown().await, open);
}

/// See the name.
pub async fn why_a_verification_failed_is_kept_and_is_no_change(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    store.record_verification(hook.key, Some("answered 500".into())).await.unwrap();
    let now = store.webhook(acme, hook.id).await.unwrap().unwrap();
    assert_eq!((now.verification_error.as_deref(), now.revision), (Some("answered 500"), hook.revision));
    store.record_verification(hook.key, None).await.unwrap();
    assert_eq!(store.webhook(acme, hook.id).await.unwrap().unwrap().verification_error, None);
}
