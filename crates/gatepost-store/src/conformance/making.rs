//! Events that go to very many webhooks: committed whole, their deliveries made after.

use std::sync::Arc;

use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::event::Urgency;
use gatepost_core::tenant::{Retention, TenantSettings};
use gatepost_core::webhook::{Batch, Ordering, Webhook};
use gatepost_core::{DeliverySeq, TenantKey};

use super::jobs::{job, replay};
use super::ordering::{all_due, end, ordered};
use super::own_events::noted;
use super::{about, at, change, due, event, named, page, publish, tenant, webhook};
use crate::{
    Accepted, DeliveryQuery, DeliveryRow, Due, Erasure, JobState, Made, NewEvent, Next, Publish, PublishOutcome,
    PutTenant, ReplayScope, RetentionCursor, Selection, Stage, Store, Task, Turn, Wake,
};

/// More webhooks than an event's deliveries are made at once for, in any store.
const CROWD: u128 = 150;

async fn crowd(store: &dyn Store, tenant: TenantKey, from: u128) -> Vec<Webhook> {
    let mut list = Vec::new();
    for number in from..from + CROWD {
        list.push(webhook(store, tenant, number).await);
    }
    list
}

fn to_all(event_type: &str, hooks: &[Webhook]) -> NewEvent {
    event(event_type, &hooks.iter().collect::<Vec<_>>())
}

async fn one(store: &dyn Store, tenant: TenantKey, seconds: i64, new: NewEvent) -> Accepted {
    publish(store, tenant, at(seconds), vec![new]).await.remove(0)
}

/// Makes everything there is to make, in small steps.
async fn make_all(store: &dyn Store) -> (Vec<Due>, Vec<Wake>) {
    let (mut dues, mut wakes, mut last) = (Vec::new(), Vec::new(), None);
    loop {
        let Made { tenant, dues: more_dues, wakes: more_wakes, more, .. } =
            store.make(Turn::After(last), 1).await.unwrap();
        dues.extend(more_dues);
        wakes.extend(more_wakes);
        last = tenant;
        if !more {
            return (dues, wakes);
        }
    }
}

async fn rows(store: &dyn Store, accepted: &Accepted) -> Vec<DeliveryRow> {
    store.deliveries_of(accepted.event.tenant, accepted.event.seq, 1_000).await.unwrap()
}

/// See the name.
pub async fn deliveries_left_for_later_are_made_as_if_with_their_event(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hooks = crowd(&*store, acme, 1).await;
    let wide = one(&*store, acme, 10, named("wide", 1, to_all("user.created", &hooks))).await;
    assert_eq!((wide.delivery_count, wide.later, wide.deliveries.len()), (150, 150, 0));
    assert_eq!(store.last_unmade(acme).await.unwrap(), Some(wide.event.seq));
    assert!(rows(&*store, &wide).await.is_empty() && due(&*store, hooks[0].key, at(20)).await.is_empty());
    let next = one(&*store, acme, 11, event("a.b", &[&hooks[0]])).await;
    assert_eq!((next.later, next.deliveries.len()), (0, 1), "few are made at once, whatever waits");
    // It is known as it was accepted, made or not.
    let again = one(&*store, acme, 12, named("wide", 1, to_all("user.created", &hooks))).await;
    assert_eq!((again.duplicate, again.delivery_count, again.later), (true, 150, 0));

    let (dues, wakes) = make_all(&*store).await;
    assert!(wakes.is_empty());
    let rows = rows(&*store, &wide).await;
    assert_eq!(rows.len(), hooks.len());
    for (row, hook) in rows.iter().zip(&hooks) {
        assert_eq!((row.webhook, row.state, row.created_at), (hook.key, DeliveryState::Pending, at(10)));
        assert_eq!(row.next_attempt_at, Some(at(10)));
    }
    let numbers: Vec<_> = rows.iter().map(|row| row.seq).collect();
    assert!(numbers.is_sorted() && numbers[149] < next.deliveries[0].seq, "their numbers were set aside");
    assert_eq!(dues.iter().map(|due| due.seq).collect::<Vec<_>>(), numbers);
    for made in &dues {
        let due = due(&*store, made.webhook, at(20)).await.remove(0);
        assert_eq!((due.seq, due.created_at, due.due, due.revision), (made.seq, at(10), at(10), made.revision));
    }
    assert_eq!(store.last_unmade(acme).await.unwrap(), None);
    let nothing = store.make(Turn::After(None), 100).await.unwrap();
    assert_eq!((nothing.tenant, nothing.rows, nothing.more), (None, 0, false));
    let listed = store.deliveries(DeliveryQuery::of(acme, page(250, None))).await.unwrap();
    assert_eq!(listed.rows.len(), 151);
}

/// See the name.
pub async fn a_call_of_many_events_leaves_what_is_too_much_together(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hooks = crowd(&*store, acme, 1).await;
    let call = (0..40).map(|_| to_all("a.b", &hooks[..100])).collect();
    let accepted = publish(&*store, acme, at(10), call).await;
    let later = accepted.iter().filter(|one| one.later > 0).count();
    assert!((1..40).contains(&later), "some are made at once and some are not: {later}");
    assert!(accepted.iter().all(|one| one.delivery_count == 100 && one.later as usize + one.deliveries.len() == 100));
    let (dues, _) = make_all(&*store).await;
    assert_eq!(dues.len(), later * 100);
    for one in &accepted {
        let webhooks: Vec<_> = rows(&*store, one).await.into_iter().map(|row| row.webhook).collect();
        assert_eq!(webhooks, hooks[..100].iter().map(|hook| hook.key).collect::<Vec<_>>());
    }
}

/// See the name.
pub async fn queues_keep_the_order_of_acceptance_past_what_is_not_made(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let mut hooks = crowd(&*store, acme, 1).await;
    for ordering in [Ordering::Webhook, Ordering::Subject] {
        hooks[3] = ordered(&*store, &hooks[3], ordering).await;
        let wide = one(&*store, acme, 10, about("anna", to_all("user.created", &hooks))).await;
        let small = one(&*store, acme, 11, about("anna", event("a.b", &[&hooks[3], &hooks[4]]))).await;
        assert_eq!((small.later, small.deliveries.len()), (1, 1), "behind the other; who waits for nobody goes");
        let later = one(&*store, acme, 12, about("anna", event("a.c", &[&hooks[3]]))).await;
        assert_eq!(later.later, 1);
        assert!(due(&*store, hooks[3].key, at(20)).await.is_empty());
        let (_, wakes) = make_all(&*store).await;
        let free = one(&*store, acme, 13, about("anna", event("a.d", &[&hooks[3]]))).await;
        assert_eq!(free.later, 0);
        let mut first = wakes.iter().find(|wake| wake.webhook == hooks[3].key).expect("its queue woke").seq;
        for (accepted, seconds) in [&wide, &small, &later, &free].into_iter().zip(20..) {
            let own = rows(&*store, accepted).await.into_iter().find(|row| row.webhook == hooks[3].key).unwrap();
            let due: Vec<DeliverySeq> =
                all_due(&*store, hooks[3].key, seconds).await.into_iter().map(|due| due.seq).collect();
            assert_eq!((due, first), (vec![own.seq], own.seq));
            let next = end(&*store, &hooks[3], own.seq, seconds, Next::Delivered).await;
            first = next.first().map_or(first, |wake| wake.seq);
        }
    }
}

/// See the name.
pub async fn batches_take_events_in_the_order_of_acceptance(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let mut hooks = crowd(&*store, acme, 1).await;
    let batch = Some(Batch { max_events: 3, max_wait_ms: 60_000, max_bytes: 1 << 20 });
    change(&*store, &hooks[0], at(1), |config| config.batch = batch).await;
    hooks[0] = store.webhook(acme, hooks[0].id).await.unwrap().unwrap();
    let mut order = vec![one(&*store, acme, 10, event("a.b", &[&hooks[0]])).await];
    order.push(one(&*store, acme, 11, to_all("a.c", &hooks)).await);
    order.push(one(&*store, acme, 12, event("a.d", &[&hooks[0]])).await);
    order.push(one(&*store, acme, 13, event("a.e", &[&hooks[0]])).await);
    assert_eq!(order.iter().map(|one| one.later).collect::<Vec<_>>(), [0, 150, 1, 1]);
    make_all(&*store).await;
    let full = due(&*store, hooks[0].key, at(20)).await;
    assert_eq!(full.len(), 1);
    let events: Vec<_> = full[0].events.all().iter().map(|event| event.seq).collect();
    assert_eq!(events, order[..3].iter().map(|one| one.event.seq).collect::<Vec<_>>());
    assert_eq!(rows(&*store, &order[1]).await.len(), 150);
}

/// See the name.
pub async fn the_most_urgent_are_made_first_and_tenants_take_turns(store: Arc<dyn Store>) {
    let (acme, beta) = (tenant(&*store, "acme").await.key, tenant(&*store, "beta").await.key);
    let (mine, theirs) = (crowd(&*store, acme, 1).await, crowd(&*store, beta, 1_000).await);
    let of = |urgency, hooks| NewEvent { urgency, ..to_all("a.b", hooks) };
    one(&*store, acme, 10, of(Urgency::Bulk, &mine)).await;
    let urgent = one(&*store, acme, 11, of(Urgency::Urgent, &mine)).await;
    let other = one(&*store, beta, 12, of(Urgency::Bulk, &theirs)).await;
    let (mut last, mut turns, mut first) = (None, Vec::new(), Vec::new());
    for _ in 0..4 {
        let made = store.make(Turn::After(last), 1).await.unwrap();
        assert!(made.more && made.rows < 150);
        last = made.tenant;
        turns.push(made.tenant.unwrap());
        first.extend(made.dues.iter().map(|due| due.events.first().seq));
    }
    assert_eq!(turns, [acme, beta, acme, beta]);
    assert!(first.iter().all(|seq| [urgent.event.seq, other.event.seq].contains(seq)), "{first:?}");
    let of_beta = store.make(Turn::Of(beta), 1_000).await.unwrap();
    assert_eq!((of_beta.tenant, of_beta.left_from, of_beta.more), (Some(beta), None, true));
    let nothing = store.make(Turn::Of(beta), 1_000).await.unwrap();
    assert_eq!((nothing.tenant, nothing.rows, nothing.more), (None, 0, true));
}

/// See the name.
pub async fn quotas_count_what_is_not_made(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hooks = crowd(&*store, acme, 1).await;
    one(&*store, acme, 10, to_all("a.b", &hooks)).await;
    assert_eq!(store.pending_count(acme, 1_000).await.unwrap(), 150);
    store.make(Turn::Of(acme), 1).await.unwrap();
    assert_eq!(store.pending_count(acme, 1_000).await.unwrap(), 150, "some are made, some are not");
    assert_eq!(store.pending_count(acme, 20).await.unwrap(), 20);
}

/// See the name.
pub async fn what_became_of_webhooks_meanwhile_holds_for_what_is_made(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hooks = crowd(&*store, acme, 1).await;
    let wide = one(&*store, acme, 10, to_all("a.b", &hooks)).await;
    change(&*store, &hooks[0], at(11), |config| config.enabled = false).await;
    store.delete_webhook(acme, hooks[149].id, at(12)).await.unwrap().unwrap();
    while store.sweep(at(13), 100).await.unwrap().more {}
    make_all(&*store).await;
    let shown = async || {
        let rows = rows(&*store, &wide).await;
        let of = |row: &DeliveryRow| (row.state, row.reason);
        (of(&rows[0]), of(&rows[1]), of(&rows[149]))
    };
    let expected = (
        (DeliveryState::Held, Some(Reason::WebhookDisabled)),
        (DeliveryState::Pending, None),
        (DeliveryState::Cancelled, Some(Reason::WebhookDeleted)),
    );
    assert_eq!(shown().await, expected);
    assert!(due(&*store, hooks[149].key, at(20)).await.is_empty());
    // It is written down as well, and nothing of it is left among what is owed.
    while store.sweep(at(14), 100).await.unwrap().more {}
    change(&*store, &hooks[0], at(15), |config| config.enabled = true).await;
    assert_eq!(shown().await.2, expected.2);
    assert_eq!(store.owed(None, 1_000).await.unwrap().len(), 149);
}

/// See the name.
pub async fn a_deleted_tenants_unmade_deliveries_go_with_it(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let hooks = crowd(&*store, acme.key, 1).await;
    for seconds in 10..13 {
        one(&*store, acme.key, seconds, to_all("a.b", &hooks)).await;
    }
    store.make(Turn::Of(acme.key), 1).await.unwrap();
    store.delete_tenant(&acme.id, at(20)).await.unwrap();
    store.sweep(at(21), 2).await.unwrap();
    // Whatever is asked for between two steps does no harm.
    store.make(Turn::After(None), 1).await.unwrap();
    while store.sweep(at(22), 50).await.unwrap().more {}
    let left = store.make(Turn::After(None), 1_000).await.unwrap();
    assert_eq!((left.tenant, left.rows, left.more), (None, 0, false));
    // Numbers set aside are not given out again.
    let beta = tenant(&*store, "beta").await.key;
    let hook = webhook(&*store, beta, 5_000).await;
    let next = one(&*store, beta, 30, event("a.b", &[&hook])).await;
    assert!(next.deliveries[0].seq.0 > 3 * 150, "{:?}", next.deliveries[0].seq);
}

/// See the name.
pub async fn p2_retention_waits_for_what_is_not_made(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let retention = Retention { events_days: 1, attempts_days: 1 };
    let settings = Some(TenantSettings { retention, ..TenantSettings::default() });
    let id = "acme".parse().unwrap();
    store.put_tenant(PutTenant { id, name: None, environment: None, settings, now: at(1) }).await.unwrap();
    let hooks = crowd(&*store, acme, 1).await;
    let before = one(&*store, acme, 9, event("a.b", &[])).await;
    let wide = one(&*store, acme, 10, to_all("a.b", &hooks)).await;
    let after = one(&*store, acme, 11, event("a.b", &[])).await;
    let mut cursor = Some(RetentionCursor::START);
    while let Some(next) = cursor {
        cursor = store.retain(at(30 * 86_400), next, 100).await.unwrap().next;
    }
    let there = async |accepted: &Accepted| store.event(acme, &accepted.event.id).await.unwrap().is_some();
    assert!(!there(&before).await && there(&wide).await && there(&after).await);
    assert_eq!(make_all(&*store).await.0.len(), 150);
}

/// See the name.
pub async fn an_erasure_cancels_what_was_not_made(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hooks = crowd(&*store, acme, 1).await;
    let small = one(&*store, acme, 9, about("anna", event("a.b", &[&hooks[0]]))).await;
    let wide = one(&*store, acme, 10, about("anna", to_all("a.b", &hooks))).await;
    let task = Erasure { subject: Some("anna".into()), subject_type: None, alias: "erased:0".into(), within: None };
    let mut now = job(&*store, acme, 1, Task::Erase(task)).await;
    for _ in 0..4 {
        now = store.erase(now.key, at(2_000), 10).await.unwrap().job.unwrap();
    }
    assert_eq!((now.stage, now.done), (Stage::Working, 1), "as far as it may");
    assert_eq!(rows(&*store, &small).await[0].state, DeliveryState::Cancelled);
    make_all(&*store).await;
    while now.stage != Stage::Clearing {
        now = store.erase(now.key, at(2_001), 10).await.unwrap().job.unwrap();
    }
    let rows = rows(&*store, &wide).await;
    assert!(rows.len() == 150 && rows.iter().all(|row| row.state == DeliveryState::Cancelled));
    assert!(due(&*store, hooks[7].key, at(3_000)).await.is_empty());
}

/// See the name.
pub async fn an_erasure_goes_through_very_many_deliveries_in_steps(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hooks = crowd(&*store, acme, 1).await;
    let twice = [hooks.clone(), hooks].concat();
    let wide = one(&*store, acme, 10, about("anna", to_all("a.b", &twice))).await;
    let (dues, _) = make_all(&*store).await;
    let task = Erasure { subject: Some("anna".into()), subject_type: None, alias: "erased:0".into(), within: None };
    let mut now = job(&*store, acme, 1, Task::Erase(task)).await;
    let mut steps = 0;
    while now.stage != Stage::Clearing {
        let step = store.erase(now.key, at(2_000 + steps), 10).await.unwrap();
        assert!(step.cancelled.len() <= 250, "{}", step.cancelled.len());
        now = step.job.unwrap();
        steps += 1;
        if steps == 2 {
            assert_eq!((now.stage, now.done), (Stage::Working, 0), "half of it is done");
            // Reopened by hand meanwhile, one is cancelled all the same.
            store.retry(acme, dues[0].seq, at(2_002)).await.unwrap();
        }
    }
    let all = rows(&*store, &wide).await;
    assert!(all.len() == 300 && all.iter().all(|row| row.state == DeliveryState::Cancelled));
}

/// See the name.
pub async fn a_replay_of_what_was_missed_does_not_repeat_what_is_not_made(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hooks = crowd(&*store, acme, 1).await;
    let missed = one(&*store, acme, 100, event("a.b", &[&hooks[1]])).await;
    let wide = one(&*store, acme, 101, to_all("a.b", &hooks)).await;
    let mut now = job(&*store, acme, 1, replay(&hooks[0], ReplayScope::Missed, at(100), at(900))).await;
    let found = store.replay_candidates(&now, 10, 1 << 20).await.unwrap();
    let selection = Selection {
        job: now.key,
        position: now.position,
        events: found.to_match.iter().map(|event| event.seq).collect(),
        scanned_to: found.scanned_to,
        upto: found.upto,
        end: true,
        now: at(1_001),
    };
    now = store.replay_select(selection).await.unwrap().unwrap();
    let step = store.replay_deliver(now.key, at(1_002), 10).await.unwrap();
    assert_eq!((step.made, step.job.unwrap().state), (1, JobState::Running), "the rest waits");
    make_all(&*store).await;
    let step = store.replay_deliver(now.key, at(1_003), 10).await.unwrap();
    assert_eq!((step.made, step.job.unwrap().state), (0, JobState::Done));
    assert_eq!((rows(&*store, &missed).await.len(), rows(&*store, &wide).await.len()), (2, 150));
}

/// See the name.
pub async fn a_farewell_among_very_many_is_known_by_its_number(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hooks = crowd(&*store, acme, 1).await;
    let gone = webhook(&*store, acme, 900).await;
    for note in noted(&*store).await {
        store.forget_noted(note.number).await.unwrap();
    }
    store.delete_webhook(acme, gone.id, at(20)).await.unwrap().unwrap();
    let number = noted(&*store).await[0].number;
    let registry_version = store.registry(acme).await.unwrap().unwrap().version;
    let mut to = hooks.iter().collect::<Vec<_>>();
    to.push(&gone);
    let events = vec![event("gatepost.webhook.deleted", &to)];
    let call = Publish { tenant: acme, registry_version, now: at(50), events };
    let Some(PublishOutcome::Accepted(accepted)) = store.publish_noted(number, call, Some(gone.key)).await.unwrap()
    else {
        panic!("not accepted")
    };
    assert_eq!(accepted[0].later, 151);
    let (dues, _) = make_all(&*store).await;
    let farewell = dues.iter().find(|due| due.webhook == gone.key).unwrap().seq;
    assert_eq!(store.webhook_by_key(gone.key).await.unwrap().unwrap().farewell, Some(farewell));
    assert_eq!(due(&*store, gone.key, at(60)).await[0].seq, farewell);
}
