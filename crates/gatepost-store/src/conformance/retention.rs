//! Retention.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::tenant::{Retention, TenantSettings};
use gatepost_core::webhook::{Batch, Webhook};
use gatepost_core::{TenantKey, Timestamp};

use super::jobs::{job, replay, settle};
use super::{at, change, event, page, publish, settlement, tenant, webhook};
use crate::{Accepted, Due, Next, PutTenant, ReplayScope, Retained, RetentionCursor, RetryOutcome, Store};

const DAY: i64 = 86_400;

async fn keeping(store: &dyn Store, events_days: u32, attempts_days: u32) -> TenantKey {
    let key = tenant(store, "acme").await.key;
    let settings = TenantSettings { retention: Retention { events_days, attempts_days }, ..TenantSettings::default() };
    let id = "acme".parse().unwrap();
    let put = PutTenant { id, name: None, environment: None, settings: Some(settings), now: at(1) };
    store.put_tenant(put).await.unwrap();
    key
}

/// A pass of retention in small steps; what it came to together.
async fn pass(store: &dyn Store, now: Timestamp, max_rows: usize) -> Retained {
    let mut all = Retained::default();
    let mut cursor = RetentionCursor::START;
    for _ in 0..10_000 {
        let step = store.retain(now, cursor, max_rows).await.unwrap();
        assert!(step.events + step.expired + step.attempts <= max_rows + 2, "{step:?}");
        all.events += step.events;
        all.attempts += step.attempts;
        all.expired += step.expired;
        all.others += step.others;
        match step.next {
            Some(next) => cursor = next,
            None => return all,
        }
    }
    panic!("the pass does not end");
}

async fn one(store: &dyn Store, seconds: i64, to: &[&Webhook]) -> Accepted {
    publish(store, to[0].tenant, at(seconds), vec![event("user.created", to)]).await.remove(0)
}

async fn delivered(store: &dyn Store, due: &Due, seconds: i64) {
    store.settle(vec![settlement(due, at(seconds), 200, Next::Delivered)]).await.unwrap();
}

async fn exists(store: &dyn Store, accepted: &Accepted) -> bool {
    store.event(accepted.event.tenant, &accepted.event.id).await.unwrap().is_some()
}

/// See the name.
pub async fn old_events_go_with_their_deliveries(store: Arc<dyn Store>) {
    let acme = keeping(&*store, 2, 30).await;
    let other = tenant(&*store, "other").await.key;
    let (hook, theirs) = (webhook(&*store, acme, 1).await, webhook(&*store, other, 2).await);
    let mut old = Vec::new();
    for n in 0..25 {
        let accepted = one(&*store, n, &[&hook]).await;
        let mut failed = settlement(&accepted.deliveries[0], at(n), 500, Next::Retry(at(n + 10)));
        failed.freeze = Some(Bytes::from_static(b"body"));
        store.settle(vec![failed]).await.unwrap();
        let again = super::due(&*store, hook.key, at(n + 10)).await.remove(0);
        delivered(&*store, &again, n + 10).await;
        old.push(accepted);
    }
    let kept = one(&*store, DAY, &[&hook]).await;
    delivered(&*store, &kept.deliveries[0], DAY).await;
    let foreign = one(&*store, 5, &[&theirs]).await;
    delivered(&*store, &foreign.deliveries[0], 5).await;
    assert_eq!(pass(&*store, at(2 * DAY), 7).await, Retained::default(), "not a moment too early");
    assert_eq!(store.feed_floor(acme).await.unwrap(), 0);
    let done = pass(&*store, at(2 * DAY + 3_600), 7).await;
    assert_eq!((done.events, done.expired, done.attempts), (25, 0, 0));
    for accepted in &old {
        assert!(!exists(&*store, accepted).await);
        assert!(store.delivery(acme, accepted.deliveries[0].seq).await.unwrap().is_none());
        let retried = store.retry(acme, accepted.deliveries[0].seq, at(3 * DAY)).await.unwrap();
        assert!(matches!(retried, RetryOutcome::NotFound));
    }
    assert!(exists(&*store, &kept).await && exists(&*store, &foreign).await);
    assert_eq!(store.feed_floor(acme).await.unwrap(), old[24].event.seq.0);
    assert_eq!(store.feed_floor(other).await.unwrap(), 0);
    // Numbers are never given out twice.
    let next = one(&*store, 3 * DAY, &[&hook]).await;
    assert!(next.event.seq > foreign.event.seq && next.deliveries[0].seq > foreign.deliveries[0].seq);
}

/// See the name.
pub async fn the_highest_numbers_removed_are_not_given_out_again(store: Arc<dyn Store>) {
    let acme = keeping(&*store, 1, 30).await;
    let hook = webhook(&*store, acme, 1).await;
    let last = one(&*store, 0, &[&hook]).await;
    delivered(&*store, &last.deliveries[0], 0).await;
    assert_eq!(pass(&*store, at(9 * DAY), 10).await.events, 1);
    let next = one(&*store, 9 * DAY, &[&hook]).await;
    assert_eq!(next.event.seq.0, last.event.seq.0 + 1);
    assert_eq!(next.deliveries[0].seq.0, last.deliveries[0].seq.0 + 1);
}

/// See the name.
pub async fn work_still_owed_is_never_removed(store: Arc<dyn Store>) {
    let acme = keeping(&*store, 1, 1).await;
    let (hook, slow) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    let owed = one(&*store, 0, &[&hook, &slow]).await;
    delivered(&*store, &owed.deliveries[0], 1).await;
    let mut failed = settlement(&owed.deliveries[1], at(5), 500, Next::Retry(at(30 * DAY)));
    failed.freeze = Some(Bytes::from_static(b"body"));
    store.settle(vec![failed]).await.unwrap();
    let gone = one(&*store, 0, &[&hook]).await;
    delivered(&*store, &gone.deliveries[0], 1).await;
    for max_rows in [1, 3, 50] {
        pass(&*store, at(20 * DAY), max_rows).await;
    }
    assert!(exists(&*store, &owed).await && !exists(&*store, &gone).await);
    assert_eq!(store.delivery(acme, owed.deliveries[1].seq).await.unwrap().unwrap().body, Some("body".into()));
    let due = super::due(&*store, slow.key, at(30 * DAY)).await;
    assert_eq!(due[0].events.first().data, owed.event.data);
    delivered(&*store, &due[0], 30 * DAY).await;
    pass(&*store, at(30 * DAY + 60), 10).await;
    assert!(exists(&*store, &owed).await, "what ended just now can still be seen");
    assert_eq!(pass(&*store, at(32 * DAY), 10).await.events, 1);
    assert!(!exists(&*store, &owed).await);
}

/// See the name.
pub async fn what_is_held_longer_than_is_kept_expires_and_can_be_seen(store: Arc<dyn Store>) {
    let acme = keeping(&*store, 3, 3).await;
    let (off, unverified) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    let ordered = webhook(&*store, acme, 3).await;
    change(&*store, &ordered, at(1), |config| config.ordering = gatepost_core::webhook::Ordering::Webhook).await;
    let ordered = store.webhook(acme, ordered.id).await.unwrap().unwrap();
    let paused = webhook(&*store, acme, 4).await;
    let old = one(&*store, 10, &[&off, &unverified, &ordered, &paused]).await;
    change(&*store, &paused, at(20), |config| config.paused = true).await;
    let young = one(&*store, 2 * DAY, &[&off, &ordered]).await;
    change(&*store, &off, at(20), |config| config.enabled = false).await;
    change(&*store, &ordered, at(20), |config| config.enabled = false).await;
    let present = store.webhook(acme, unverified.id).await.unwrap().unwrap();
    let update = crate::WebhookUpdate {
        tenant: acme,
        id: unverified.id,
        expected_revision: present.revision,
        config: present.config,
        sealed_secrets: present.sealed_secrets,
        disabled_reason: None,
        must_verify: true,
        told_as: None,
        now: at(30),
    };
    store.update_webhook(update).await.unwrap();
    let done = pass(&*store, at(4 * DAY), 10).await;
    assert_eq!((done.events, done.expired), (0, 4));
    for row in store.deliveries_of(acme, old.event.seq, 10).await.unwrap() {
        assert_eq!(
            (row.state, row.reason, row.updated_at),
            (DeliveryState::Failed, Some(Reason::Expired), at(4 * DAY))
        );
    }
    let held = store.deliveries_of(acme, young.event.seq, 10).await.unwrap();
    assert!(held.iter().all(|row| row.state == DeliveryState::Held), "{held:?}");
    // Enabled again, what was not given up goes out: the queue is not stuck behind what was.
    change(&*store, &ordered, at(4 * DAY + 1), |config| config.enabled = true).await;
    let due = super::due(&*store, ordered.key, at(5 * DAY)).await;
    assert_eq!(due.iter().map(|due| due.events.first().seq).collect::<Vec<_>>(), [young.event.seq]);
    let late = store.deliveries_of(acme, old.event.seq, 10).await.unwrap();
    assert_eq!(late.len(), 4, "given up yesterday: somebody should see it");
    assert_eq!(pass(&*store, at(5 * DAY + 60), 10).await.events, 1);
    assert!(!exists(&*store, &old).await);
}

/// See the name.
pub async fn attempts_and_bodies_go_earlier_than_events(store: Arc<dyn Store>) {
    let acme = keeping(&*store, 30, 2).await;
    let hook = webhook(&*store, acme, 1).await;
    let early = one(&*store, 0, &[&hook]).await;
    delivered(&*store, &early.deliveries[0], 1).await;
    let slow = one(&*store, 10, &[&hook]).await;
    let mut failed = settlement(&slow.deliveries[0], at(10), 500, Next::Retry(at(4 * DAY)));
    failed.freeze = Some(Bytes::from_static(b"body"));
    store.settle(vec![failed]).await.unwrap();
    let detail = |accepted: &Accepted| {
        let (store, seq) = (Arc::clone(&store), accepted.deliveries[0].seq);
        async move { store.delivery(acme, seq).await.unwrap().unwrap() }
    };
    assert_eq!(pass(&*store, at(2 * DAY), 5).await.attempts, 0);
    assert_eq!(pass(&*store, at(2 * DAY + 3_700), 5).await.attempts, 1);
    let bare = detail(&early).await;
    assert_eq!((bare.row.state, bare.row.attempts, bare.attempts.len()), (DeliveryState::Delivered, 1, 0));
    assert_eq!(
        (detail(&slow).await.attempts.len(), detail(&slow).await.body.is_some()),
        (1, true),
        "it is still tried"
    );
    let again = super::due(&*store, hook.key, at(4 * DAY)).await.remove(0);
    delivered(&*store, &again, 4 * DAY).await;
    assert_eq!(pass(&*store, at(5 * DAY), 5).await.attempts, 0, "over for a day only");
    assert_eq!(pass(&*store, at(9 * DAY + 7_300), 5).await.attempts, 1);
    assert_eq!((detail(&slow).await.attempts.len(), detail(&slow).await.body), (0, None));
    assert!(exists(&*store, &early).await && exists(&*store, &slow).await);
    // Each is looked at a few times, not for ever.
    assert_eq!(pass(&*store, at(20 * DAY), 5).await, Retained::default());
}

/// See the name.
pub async fn a_batch_is_kept_as_long_as_one_of_its_events(store: Arc<dyn Store>) {
    let acme = keeping(&*store, 1, 30).await;
    let (hook, slow) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    change(&*store, &hook, at(1), |config| config.batch = Some(Batch { max_events: 2, ..Batch::default() })).await;
    let hook = store.webhook(acme, hook.id).await.unwrap().unwrap();
    let first = one(&*store, 10, &[&hook]).await;
    // Its other delivery is tried for a long time.
    let second = one(&*store, 10, &[&hook, &slow]).await;
    let batch = super::due(&*store, hook.key, at(100)).await.remove(0);
    assert_eq!(batch.events.all().len(), 2);
    let mut failed = settlement(&batch, at(100), 500, Next::End(DeliveryState::Failed, Reason::Exhausted));
    failed.freeze = Some(Bytes::from_static(b"both"));
    store.settle(vec![failed]).await.unwrap();
    assert_eq!(pass(&*store, at(5 * DAY), 10).await.events, 1);
    assert!(!exists(&*store, &first).await && exists(&*store, &second).await);
    let left = store.delivery(acme, batch.seq).await.unwrap().unwrap();
    assert_eq!((left.row.event_ids.clone(), left.body), (vec![second.event.id.clone()], None));
    let rows = store.deliveries_of(acme, second.event.seq, 10).await.unwrap();
    assert_eq!(rows.len(), 2, "each once: {rows:?}");
    let due = super::due(&*store, slow.key, at(5 * DAY)).await.remove(0);
    delivered(&*store, &due, 5 * DAY).await;
    assert_eq!(pass(&*store, at(9 * DAY), 10).await.events, 1);
    assert!(store.delivery(acme, batch.seq).await.unwrap().is_none());
}

/// See the name.
pub async fn what_only_explained_old_events_goes_with_them(store: Arc<dyn Store>) {
    let acme = keeping(&*store, 1, 30).await;
    let (hook, gone) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    let old = one(&*store, 10, &[&hook, &gone]).await;
    for due in &old.deliveries {
        delivered(&*store, due, 11).await;
    }
    for n in 0..3 {
        change(&*store, &hook, at(20 + n), |config| config.url = format!("https://x{n}.example/")).await;
    }
    store.delete_webhook(acme, gone.id, at(30)).await.unwrap();
    while store.sweep(at(31), 10).await.unwrap().more {}
    let ended = job(&*store, acme, 1, replay(&hook, ReplayScope::All, at(0), at(9))).await;
    store.end_job(ended.key, None, at(40)).await.unwrap();
    let open = job(&*store, acme, 2, replay(&hook, ReplayScope::All, at(0), at(9))).await;
    let hook = store.webhook(acme, hook.id).await.unwrap().unwrap();
    let young = one(&*store, 4 * DAY, &[&hook]).await;
    assert_eq!(pass(&*store, at(3_600), 10).await, Retained::default());
    let done = pass(&*store, at(5 * DAY + 60), 10).await;
    assert_eq!(done.events, 1);
    assert!(store.webhook_by_key(gone.key).await.unwrap().is_none());
    let configs = store.webhook_configs(hook.key, &[1, 2, 3, 4]).await.unwrap();
    assert_eq!(configs.keys().copied().collect::<Vec<_>>(), [4], "the one that counts stays");
    let jobs = store.jobs(acme, page(10, None)).await.unwrap().rows;
    assert_eq!(jobs.iter().map(|job| job.id).collect::<Vec<_>>(), [open.id]);
    let history = store.registry_at(acme, young.event.registry_version, 10).await.unwrap();
    assert_eq!(history.webhooks.len(), 1);
    assert!(history.webhooks[0].config.is_some(), "younger events are explained as before");
    let detail = store.delivery(acme, young.deliveries[0].seq).await.unwrap().unwrap();
    assert_eq!(detail.revision, 4);
}

/// See the name.
pub async fn retention_looks_at_many_tenants_in_one_pass(store: Arc<dyn Store>) {
    let mut last = None;
    for n in 0..250 {
        last = Some(tenant(&*store, &format!("t{n}")).await.key);
    }
    let hook = webhook(&*store, last.unwrap(), 1).await;
    let old = one(&*store, 0, &[&hook]).await;
    settle(&*store, &old.deliveries[0], 200, Next::Delivered).await;
    assert_eq!(pass(&*store, at(40 * DAY), 10).await.events, 1);
    assert!(!exists(&*store, &old).await);
}

/// See the name.
pub async fn an_event_with_very_many_deliveries_goes_in_small_steps(store: Arc<dyn Store>) {
    let acme = keeping(&*store, 2, 30).await;
    let mut hooks = Vec::new();
    for number in 0..150 {
        hooks.push(webhook(&*store, acme, 10 + number).await);
    }
    // So many webhooks that one event has more deliveries than are removed together.
    let all: Vec<&Webhook> = std::iter::repeat_n(&hooks, 8).flatten().collect();
    let before = one(&*store, 10, &[&hooks[0]]).await;
    let wide = one(&*store, 11, &all).await;
    let after = one(&*store, 12, &[&hooks[0]]).await;
    let mut dues: Vec<Due> = [&before, &after].into_iter().flat_map(|one| one.deliveries.clone()).collect();
    while let made = store.make(crate::Turn::Of(acme), 500).await.unwrap()
        && made.tenant.is_some()
    {
        dues.extend(made.dues);
    }
    assert_eq!(dues.len(), all.len() + 2);
    for due in &dues {
        delivered(&*store, due, 20).await;
    }
    let (now, mut cursor, mut steps, mut most) = (at(10 * DAY), RetentionCursor::START, 0, 0);
    loop {
        let step = store.retain(now, cursor, 100).await.unwrap();
        most = most.max(step.others.max(step.events));
        steps += 1;
        let Some(next) = step.next else { break };
        cursor = next;
    }
    assert!(most <= 100 && steps >= all.len() / 100, "{steps} steps, of {most} at most");
    for gone in [&before, &wide, &after] {
        assert!(!exists(&*store, gone).await);
    }
    for due in [&dues[0], &dues[700]] {
        assert!(store.delivery(acme, due.seq).await.unwrap().is_none());
    }
}
