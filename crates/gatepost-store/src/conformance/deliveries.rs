//! Deliveries: what is owed, and what people do with them.

use std::sync::Arc;

use gatepost_core::DeliverySeq;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::event::Urgency;
use gatepost_core::webhook::Webhook;

use super::{at, change, due, event, one_delivery, page, publish, settlement, tenant, webhook};
use crate::{CancelOutcome, DeliveryQuery, DeliveryRow, DueQuery, NewEvent, Next, RetryOutcome, Store};

fn query(webhook: &Webhook, urgency: Urgency, now: i64) -> DueQuery {
    DueQuery { webhook: webhook.key, urgency, now: at(now), after: None, limit: 100, max_bytes: 1 << 20 }
}

async fn row(store: &dyn Store, webhook: &Webhook, seq: DeliverySeq) -> DeliveryRow {
    store.delivery(webhook.tenant, seq).await.unwrap().unwrap().row
}

/// See the name.
pub async fn due_deliveries_come_earliest_first_page_by_page(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let mut made = Vec::new();
    for seconds in [50, 30, 30, 10, 40] {
        let accepted = publish(&*store, acme, at(seconds), vec![event("a.b", &[&hook])]).await;
        made.push(accepted[0].deliveries[0].seq);
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let ask = DueQuery { after, limit: 2, ..query(&hook, Urgency::Normal, 45) };
        let page = store.due(ask).await.unwrap();
        assert_eq!(page.next_due, Some(at(50)));
        seen.extend(page.rows.iter().map(|due| due.seq));
        after = page.rows.last().map(|due| (due.due, due.seq));
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, [made[3], made[1], made[2], made[4]]);
}

/// See the name.
pub async fn a_page_of_due_deliveries_is_bounded_in_bytes(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    for _ in 0..4 {
        let new = NewEvent { data: vec![b'1'; 10_000].into(), ..event("a.b", &[&hook]) };
        publish(&*store, acme, at(10), vec![new]).await;
    }
    for (max_bytes, rows) in [(0, 1), (9_000, 1), (15_000, 2), (1 << 20, 4)] {
        let page = store.due(DueQuery { max_bytes, ..query(&hook, Urgency::Normal, 10) }).await.unwrap();
        assert_eq!((page.rows.len(), page.more), (rows, rows < 4), "{max_bytes}");
    }
}

/// See the name.
pub async fn due_looks_at_one_urgency_and_says_when_the_next_is_due(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    for (seconds, urgency) in (10..).zip(Urgency::ALL) {
        publish(&*store, acme, at(seconds), vec![NewEvent { urgency, ..event("a.b", &[&hook]) }]).await;
    }
    for (seconds, urgency) in (10..).zip(Urgency::ALL) {
        let early = store.due(query(&hook, urgency, seconds - 1)).await.unwrap();
        assert!(early.rows.is_empty() && !early.more);
        assert_eq!(early.next_due, Some(at(seconds)));
        let page = store.due(query(&hook, urgency, seconds)).await.unwrap();
        assert_eq!((page.rows.len(), page.rows[0].urgency, page.more, page.next_due), (1, urgency, false, None));
    }
}

/// See the name.
pub async fn owed_tells_where_to_look(store: Arc<dyn Store>) {
    let (acme, other) = (tenant(&*store, "acme").await.key, tenant(&*store, "other").await.key);
    let mut hooks = Vec::new();
    for number in 1..=6 {
        hooks.push(webhook(&*store, if number == 4 { other } else { acme }, number).await);
    }
    publish(&*store, acme, at(20), vec![event("a.b", &[&hooks[0], &hooks[1], &hooks[2], &hooks[4]])]).await;
    let urgent = NewEvent { urgency: Urgency::Urgent, ..event("a.b", &[&hooks[0]]) };
    publish(&*store, acme, at(15), vec![urgent, event("a.b", &[&hooks[0]])]).await;
    publish(&*store, other, at(30), vec![NewEvent { urgency: Urgency::Bulk, ..event("a.b", &[&hooks[3]]) }]).await;
    change(&*store, &hooks[1], at(40), |config| config.enabled = false).await;
    store.delete_webhook(acme, hooks[2].id, at(40)).await.unwrap().unwrap();

    let first = store.owed(None, 2).await.unwrap();
    let second = store.owed(first.last().map(|owed| owed.webhook), 2).await.unwrap();
    let found: Vec<_> = first.iter().chain(&second).map(|owed| (owed.webhook, owed.tenant, owed.earliest)).collect();
    let expected = [
        (hooks[0].key, acme, [Some(at(15)), Some(at(15)), None]),
        (hooks[3].key, other, [None, None, Some(at(30))]),
        (hooks[4].key, acme, [None, Some(at(20)), None]),
    ];
    assert_eq!(found, expected);
    assert_eq!((first.len(), store.owed(Some(hooks[4].key), 2).await.unwrap()), (2, vec![]));
}

/// See the name.
pub async fn a_disabled_webhooks_deliveries_are_held_and_resume(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let (waiting, done) = (one_delivery(&*store, &hook).await, one_delivery(&*store, &hook).await);
    store.settle(vec![settlement(&done, at(11), 200, Next::Delivered)]).await.unwrap();
    change(&*store, &hook, at(20), |config| config.enabled = false).await;
    let held = row(&*store, &hook, waiting.seq).await;
    assert_eq!((held.state, held.reason), (DeliveryState::Held, Some(Reason::WebhookDisabled)));
    assert_eq!(held.next_attempt_at, None);
    assert_eq!(row(&*store, &hook, done.seq).await.state, DeliveryState::Delivered);
    assert!(due(&*store, hook.key, at(99)).await.is_empty());
    // An attempt that was under way when it was disabled counts.
    let failed = settlement(&waiting, at(19), 500, Next::Retry(at(60)));
    store.settle(vec![failed]).await.unwrap();
    assert_eq!(row(&*store, &hook, waiting.seq).await.state, DeliveryState::Held);
    change(&*store, &hook, at(30), |config| config.enabled = true).await;
    let resumed = row(&*store, &hook, waiting.seq).await;
    assert_eq!((resumed.state, resumed.reason, resumed.next_attempt_at), (DeliveryState::Pending, None, Some(at(60))));
    assert_eq!(due(&*store, hook.key, at(99)).await[0].attempts, 1);
}

/// See the name.
pub async fn a_deleted_webhooks_deliveries_are_cancelled_at_once(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let (waiting, done) = (one_delivery(&*store, &hook).await, one_delivery(&*store, &hook).await);
    store.settle(vec![settlement(&done, at(11), 200, Next::Delivered)]).await.unwrap();
    store.delete_webhook(acme, hook.id, at(20)).await.unwrap().unwrap();
    let gone = row(&*store, &hook, waiting.seq).await;
    assert_eq!((gone.state, gone.reason), (DeliveryState::Cancelled, Some(Reason::WebhookDeleted)));
    assert_eq!((gone.next_attempt_at, gone.updated_at, gone.webhook_id), (None, at(20), hook.id));
    assert_eq!(row(&*store, &hook, done.seq).await.state, DeliveryState::Delivered);
    assert!(due(&*store, hook.key, at(99)).await.is_empty());
    assert!(store.owed(None, 10).await.unwrap().is_empty());
}

/// See the name.
pub async fn writing_cancellations_down_changes_nothing_visible(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let (hook, empty, keep) =
        (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await, webhook(&*store, acme, 3).await);
    for _ in 0..7 {
        one_delivery(&*store, &hook).await;
    }
    let kept = one_delivery(&*store, &keep).await;
    store.delete_webhook(acme, hook.id, at(20)).await.unwrap().unwrap();
    store.delete_webhook(acme, empty.id, at(20)).await.unwrap().unwrap();
    let all = || store.deliveries(DeliveryQuery::of(acme, page(100, None)));
    let before = all().await.unwrap();
    let mut steps = 0;
    while store.sweep(at(500), 3).await.unwrap().more {
        assert_eq!(all().await.unwrap(), before);
        steps += 1;
        assert!(steps < 50, "sweeping does not end");
    }
    assert!(steps >= 2);
    assert_eq!(all().await.unwrap(), before);
    assert_eq!(row(&*store, &keep, kept.seq).await.state, DeliveryState::Pending);
    assert_eq!(store.sweep(at(500), 3).await.unwrap().rows, 0);
}

/// See the name.
pub async fn a_retry_reopens_any_delivery_with_a_new_budget(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    for next in [
        Next::Delivered,
        Next::Retry(at(999)),
        Next::End(DeliveryState::Failed, Reason::Exhausted),
        Next::End(DeliveryState::Cancelled, Reason::Gone),
    ] {
        let made = one_delivery(&*store, &hook).await;
        let mut sent = settlement(&made, at(11), 500, next);
        sent.freeze = Some(b"as sent"[..].into());
        store.settle(vec![sent]).await.unwrap();
        let RetryOutcome::Reopened(again, _) = store.retry(acme, made.seq, at(50)).await.unwrap() else {
            panic!("not reopened")
        };
        assert_eq!((again.seq, again.due, again.attempts, again.budget_start), (made.seq, at(50), 1, 1));
        assert!(again.manual && again.generation > made.generation);
        assert_eq!((again.body.as_deref(), &again.events), (Some(&b"as sent"[..]), &made.events));
        assert_eq!(again.id(), made.id());
        let now = row(&*store, &hook, made.seq).await;
        assert_eq!((now.state, now.reason, now.next_attempt_at), (DeliveryState::Pending, None, Some(at(50))));
        assert_eq!(now.updated_at, at(50));
        let found = due(&*store, hook.key, at(50)).await;
        assert_eq!((found.len(), found[0].seq, found[0].manual), (1, made.seq, true));
        store.cancel(acme, made.seq, at(51)).await.unwrap();
    }
}

/// See the name.
pub async fn a_retry_is_refused_while_the_webhook_takes_nothing(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let made = one_delivery(&*store, &hook).await;
    assert!(matches!(store.retry(acme, DeliverySeq(987), at(20)).await.unwrap(), RetryOutcome::NotFound));
    change(&*store, &hook, at(20), |config| config.enabled = false).await;
    assert!(matches!(store.retry(acme, made.seq, at(21)).await.unwrap(), RetryOutcome::WebhookDisabled));
    store.delete_webhook(acme, hook.id, at(22)).await.unwrap().unwrap();
    assert!(matches!(store.retry(acme, made.seq, at(23)).await.unwrap(), RetryOutcome::WebhookDeleted));
}

/// See the name.
pub async fn a_cancel_ends_what_is_not_terminal(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let (waiting, done, held) =
        (one_delivery(&*store, &hook).await, one_delivery(&*store, &hook).await, one_delivery(&*store, &hook).await);
    store.settle(vec![settlement(&done, at(11), 200, Next::Delivered)]).await.unwrap();
    let CancelOutcome::Cancelled(cancelled, _) = store.cancel(acme, waiting.seq, at(20)).await.unwrap() else {
        panic!("not cancelled")
    };
    assert_eq!((cancelled.state, cancelled.reason), (DeliveryState::Cancelled, Some(Reason::ByUser)));
    assert_eq!((cancelled.updated_at, cancelled.next_attempt_at), (at(20), None));
    assert_eq!(*cancelled, row(&*store, &hook, waiting.seq).await);
    let terminal = |state| CancelOutcome::Terminal(state);
    assert_eq!(store.cancel(acme, waiting.seq, at(21)).await.unwrap(), terminal(DeliveryState::Cancelled));
    assert_eq!(store.cancel(acme, done.seq, at(21)).await.unwrap(), terminal(DeliveryState::Delivered));
    change(&*store, &hook, at(22), |config| config.enabled = false).await;
    assert!(matches!(store.cancel(acme, held.seq, at(23)).await.unwrap(), CancelOutcome::Cancelled(..)));
    let last = one_delivery(&*store, &hook).await;
    store.delete_webhook(acme, hook.id, at(24)).await.unwrap().unwrap();
    assert_eq!(store.cancel(acme, last.seq, at(25)).await.unwrap(), terminal(DeliveryState::Cancelled));
    assert_eq!(store.cancel(acme, DeliverySeq(987), at(25)).await.unwrap(), CancelOutcome::NotFound);
}

/// See the name.
pub async fn p5_another_tenants_delivery_does_not_exist(store: Arc<dyn Store>) {
    let (acme, other) = (tenant(&*store, "acme").await.key, tenant(&*store, "other").await.key);
    let hook = webhook(&*store, acme, 1).await;
    let made = one_delivery(&*store, &hook).await;
    assert_eq!(store.delivery(other, made.seq).await.unwrap(), None);
    assert!(matches!(store.retry(other, made.seq, at(20)).await.unwrap(), RetryOutcome::NotFound));
    assert_eq!(store.cancel(other, made.seq, at(20)).await.unwrap(), CancelOutcome::NotFound);
    assert!(store.deliveries_of(other, made.events.first().seq, 10).await.unwrap().is_empty());
    assert_eq!(row(&*store, &hook, made.seq).await.state, DeliveryState::Pending);
}

/// See the name.
pub async fn an_events_deliveries_are_listed_oldest_first(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let (one, two, three) =
        (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await, webhook(&*store, acme, 3).await);
    let accepted =
        publish(&*store, acme, at(10), vec![event("a.b", &[&two, &one, &three]), event("c.d", &[&one])]).await;
    let listed = store.deliveries_of(acme, accepted[0].event.seq, 10).await.unwrap();
    assert_eq!(listed.iter().map(|d| d.webhook).collect::<Vec<_>>(), [two.key, one.key, three.key]);
    assert_eq!(store.deliveries_of(acme, accepted[0].event.seq, 2).await.unwrap(), listed[..2]);
}
