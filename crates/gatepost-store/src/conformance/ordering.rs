//! Ordering: deliveries that go out one after the other.

use std::sync::Arc;

use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::event::Urgency;
use gatepost_core::webhook::{Ordering, Webhook};
use gatepost_core::{DeliverySeq, WebhookKey};

use super::{about, at, change, event, publish, settlement, tenant, webhook};
use crate::{CancelOutcome, Due, DueQuery, NewEvent, Next, RetryOutcome, Settled, Store, Wake};

/// A webhook with this ordering, as it is after the change.
pub(super) async fn ordered(store: &dyn Store, hook: &Webhook, ordering: Ordering) -> Webhook {
    change(store, hook, at(1), |config| config.ordering = ordering).await;
    store.webhook(hook.tenant, hook.id).await.unwrap().unwrap()
}

/// Publishes one event to `hook`, about `subject`; its delivery.
pub(super) async fn owe(
    store: &dyn Store,
    hook: &Webhook,
    subject: &str,
    urgency: Urgency,
    seconds: i64,
) -> DeliverySeq {
    let new = NewEvent { urgency, ..event("user.changed", &[hook]) };
    let new = if subject.is_empty() { new } else { about(subject, new) };
    let accepted = publish(store, hook.tenant, at(seconds), vec![new]).await.remove(0);
    store.deliveries_of(hook.tenant, accepted.event.seq, 10).await.unwrap()[0].seq
}

/// Everything due by then, most urgent first.
pub(super) async fn all_due(store: &dyn Store, webhook: WebhookKey, seconds: i64) -> Vec<Due> {
    let mut list = Vec::new();
    for urgency in Urgency::ALL {
        let query = DueQuery { webhook, urgency, now: at(seconds), after: None, limit: 100, max_bytes: 1 << 20 };
        list.extend(store.due(query).await.unwrap().rows);
    }
    list
}

async fn due_numbers(store: &dyn Store, hook: &Webhook, seconds: i64) -> Vec<DeliverySeq> {
    all_due(store, hook.key, seconds).await.into_iter().map(|due| due.seq).collect()
}

/// Records the outcome of an attempt for what is due; what became due by it.
pub(super) async fn end(store: &dyn Store, hook: &Webhook, seq: DeliverySeq, seconds: i64, next: Next) -> Vec<Wake> {
    let due = all_due(store, hook.key, seconds).await.into_iter().find(|due| due.seq == seq).expect("it is due");
    let status = if next == Next::Delivered { 200 } else { 500 };
    let answer = store.settle(vec![settlement(&due, at(seconds), status, next)]).await.unwrap();
    assert_eq!(answer.results, [Settled::Recorded]);
    answer.wakes
}

/// See the name.
pub async fn only_the_first_of_a_subjects_queue_is_due(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let hook = ordered(&*store, &hook, Ordering::Subject).await;
    let mut made = Vec::new();
    for (subject, seconds) in [("anna", 10), ("bert", 11), ("anna", 12), ("", 13), ("", 14), ("anna", 15)] {
        made.push(owe(&*store, &hook, subject, Urgency::Normal, seconds).await);
    }
    let [anna1, bert, anna2, none1, none2, anna3] = made[..] else { panic!("six of them") };
    assert_eq!(due_numbers(&*store, &hook, 20).await, [anna1, bert, none1, none2]);
    let waiting = store.delivery(acme, anna2).await.unwrap().unwrap().row;
    assert_eq!((waiting.state, waiting.reason, waiting.next_attempt_at), (DeliveryState::Pending, None, None));

    // A failing one holds back its own subject only.
    end(&*store, &hook, anna1, 20, Next::Retry(at(100))).await;
    assert_eq!(due_numbers(&*store, &hook, 90).await, [bert, none1, none2]);
    assert_eq!(end(&*store, &hook, bert, 30, Next::Delivered).await, [], "nobody waits for it");
    let wakes = end(&*store, &hook, anna1, 100, Next::Delivered).await;
    assert_eq!(wakes.iter().map(|wake| wake.seq).collect::<Vec<_>>(), [anna2]);
    let due = wakes[0].at.expect("its place is known").1;
    assert!(due >= at(100) && due <= at(101), "{due}");
    assert_eq!(due_numbers(&*store, &hook, 101).await, [none1, none2, anna2]);
    end(&*store, &hook, anna2, 110, Next::End(DeliveryState::Failed, Reason::Exhausted)).await;
    assert_eq!(due_numbers(&*store, &hook, 120).await, [none1, none2, anna3], "an end of any kind lets the next go");
}

/// See the name.
pub async fn under_webhook_all_deliveries_are_one_queue(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let hook = ordered(&*store, &hook, Ordering::Webhook).await;
    let events = ["anna", "bert", "anna"].map(|id| about(id, event("user.changed", &[&hook]))).to_vec();
    let accepted = publish(&*store, acme, at(10), events).await;
    assert!(accepted.iter().all(|a| a.deliveries.is_empty() && a.delivery_count == 1), "{accepted:?}");
    let wakes: Vec<_> = accepted.iter().flat_map(|accepted| &accepted.wakes).collect();
    assert_eq!(wakes.len(), 1, "{wakes:?}");
    let first = wakes[0].seq;
    for position in 0..3 {
        let numbers = due_numbers(&*store, &hook, 20 + position).await;
        assert_eq!(numbers, [DeliverySeq(first.0 + position)]);
        end(&*store, &hook, numbers[0], 20 + position, Next::Delivered).await;
    }
    assert!(due_numbers(&*store, &hook, 99).await.is_empty());
    assert!(store.owed(None, 10).await.unwrap().is_empty());
}

/// See the name.
pub async fn the_first_is_as_urgent_as_the_most_urgent_behind_it(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let hook = ordered(&*store, &hook, Ordering::Subject).await;
    let first = owe(&*store, &hook, "anna", Urgency::Bulk, 10).await;
    let normal = owe(&*store, &hook, "anna", Urgency::Normal, 11).await;
    let urgency = |list: &[Due]| list.iter().map(|due| (due.seq, due.urgency)).collect::<Vec<_>>();
    assert_eq!(urgency(&all_due(&*store, hook.key, 20).await), [(first, Urgency::Normal)]);
    let hurried = about("anna", NewEvent { urgency: Urgency::Urgent, ..event("user.changed", &[&hook]) });
    let accepted = publish(&*store, acme, at(12), vec![hurried]).await.remove(0);
    let wake = accepted.wakes[0];
    assert_eq!((wake.seq, wake.at), (first, Some((Urgency::Urgent, at(10)))));
    let urgent = store.deliveries_of(acme, accepted.event.seq, 1).await.unwrap()[0].seq;
    assert_eq!(urgency(&all_due(&*store, hook.key, 20).await), [(first, Urgency::Urgent)]);
    assert_eq!(store.owed(None, 10).await.unwrap()[0].earliest, [Some(at(10)), None, None]);

    let wakes = end(&*store, &hook, first, 20, Next::Retry(at(30))).await;
    assert_eq!(wakes[0].at, Some((Urgency::Urgent, at(30))), "its urgency now, whatever it was handed out with");
    end(&*store, &hook, first, 30, Next::Delivered).await;
    assert_eq!(urgency(&all_due(&*store, hook.key, 40).await), [(normal, Urgency::Urgent)]);
    let CancelOutcome::Cancelled(_, wakes) = store.cancel(acme, urgent, at(40)).await.unwrap() else {
        panic!("not cancelled")
    };
    assert_eq!(wakes[0].seq, normal);
    assert_eq!(urgency(&all_due(&*store, hook.key, 41).await), [(normal, Urgency::Normal)], "nothing hurries it now");
}

/// See the name.
pub async fn a_cancel_of_the_first_lets_the_next_go(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let hook = ordered(&*store, &hook, Ordering::Webhook).await;
    let mut made = Vec::new();
    for seconds in 10..14 {
        made.push(owe(&*store, &hook, "", Urgency::Normal, seconds).await);
    }
    let CancelOutcome::Cancelled(_, wakes) = store.cancel(acme, made[1], at(20)).await.unwrap() else {
        panic!("not cancelled")
    };
    assert_eq!(wakes, [], "it was not the first");
    assert_eq!(due_numbers(&*store, &hook, 20).await, [made[0]]);
    let CancelOutcome::Cancelled(_, wakes) = store.cancel(acme, made[0], at(21)).await.unwrap() else {
        panic!("not cancelled")
    };
    assert_eq!(wakes.iter().map(|wake| wake.seq).collect::<Vec<_>>(), [made[2]]);
    assert_eq!(due_numbers(&*store, &hook, 22).await, [made[2]]);
}

/// See the name.
pub async fn a_retry_by_hand_goes_to_the_end_of_its_queue(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let hook = ordered(&*store, &hook, Ordering::Subject).await;
    let mut made = Vec::new();
    for seconds in 10..13 {
        made.push(owe(&*store, &hook, "anna", Urgency::Normal, seconds).await);
    }
    end(&*store, &hook, made[0], 20, Next::End(DeliveryState::Failed, Reason::Rejected)).await;
    let RetryOutcome::Reopened(_, wakes) = store.retry(acme, made[0], at(21)).await.unwrap() else {
        panic!("not reopened")
    };
    assert!(wakes.iter().any(|wake| wake.seq == made[0] && wake.at.is_none()), "it waits: {wakes:?}");
    let row = store.delivery(acme, made[0]).await.unwrap().unwrap().row;
    assert_eq!((row.state, row.next_attempt_at), (DeliveryState::Pending, None));
    // One that is the first gives way as well.
    let RetryOutcome::Reopened(_, wakes) = store.retry(acme, made[1], at(22)).await.unwrap() else {
        panic!("not reopened")
    };
    assert!(wakes.iter().any(|wake| wake.seq == made[2] && wake.at.is_some()), "{wakes:?}");
    for (expected, seconds) in [(made[2], 30), (made[0], 31), (made[1], 32)] {
        assert_eq!(due_numbers(&*store, &hook, seconds).await, [expected]);
        end(&*store, &hook, expected, seconds, Next::Delivered).await;
    }
    // Alone, it is due at once.
    let RetryOutcome::Reopened(due, wakes) = store.retry(acme, made[1], at(40)).await.unwrap() else {
        panic!("not reopened")
    };
    assert_eq!((due.due, due.manual, due.attempts, due.budget_start), (at(40), true, 1, 1));
    assert!(wakes.iter().any(|wake| wake.seq == made[1] && wake.at == Some((Urgency::Normal, at(40)))), "{wakes:?}");
}

/// See the name.
pub async fn a_queue_stays_while_its_webhook_takes_nothing(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let hook = ordered(&*store, &hook, Ordering::Webhook).await;
    let (first, second) =
        (owe(&*store, &hook, "", Urgency::Normal, 10).await, owe(&*store, &hook, "", Urgency::Normal, 11).await);
    change(&*store, &hook, at(20), |config| config.enabled = false).await;
    assert!(due_numbers(&*store, &hook, 30).await.is_empty());
    for seq in [first, second] {
        let row = store.delivery(acme, seq).await.unwrap().unwrap().row;
        assert_eq!((row.state, row.reason), (DeliveryState::Held, Some(Reason::WebhookDisabled)));
    }
    store.cancel(acme, first, at(31)).await.unwrap();
    change(&*store, &hook, at(40), |config| config.enabled = true).await;
    assert_eq!(due_numbers(&*store, &hook, 41).await, [second]);
}

/// See the name.
pub async fn deliveries_keep_the_order_they_were_accepted_under(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let plain = webhook(&*store, acme, 1).await;
    let free = owe(&*store, &plain, "anna", Urgency::Normal, 10).await;
    let hook = ordered(&*store, &plain, Ordering::Subject).await;
    let mut queued = Vec::new();
    for seconds in 11..13 {
        queued.push(owe(&*store, &hook, "anna", Urgency::Normal, seconds).await);
    }
    assert_eq!(due_numbers(&*store, &hook, 20).await, [free, queued[0]]);
    let hook = ordered(&*store, &plain, Ordering::None).await;
    let later = owe(&*store, &hook, "anna", Urgency::Normal, 21).await;
    assert_eq!(due_numbers(&*store, &hook, 22).await, [free, queued[0], later], "what was queued stays so");
    // Reopened, a delivery is what the webhook asks for now.
    let RetryOutcome::Reopened(due, _) = store.retry(acme, queued[1], at(23)).await.unwrap() else {
        panic!("not reopened")
    };
    assert!(!due.ordered);
    assert_eq!(due_numbers(&*store, &hook, 24).await, [free, queued[0], later, queued[1]]);
}

/// See the name.
pub async fn p2_an_outcome_recorded_again_wakes_the_queue_again(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let hook = ordered(&*store, &hook, Ordering::Webhook).await;
    let first = owe(&*store, &hook, "", Urgency::Normal, 10).await;
    owe(&*store, &hook, "", Urgency::Normal, 11).await;
    let due = all_due(&*store, hook.key, 20).await.remove(0);
    assert!(due.ordered);
    let sent = settlement(&due, at(20), 200, Next::Delivered);
    store.settle(vec![sent.clone()]).await.unwrap();
    let again = store.settle(vec![sent]).await.unwrap();
    assert_eq!(again.results, [Settled::Recorded]);
    assert!(again.wakes.iter().any(|wake| wake.webhook == hook.key && wake.at.is_none()), "{:?}", again.wakes);
    assert_eq!(store.delivery(acme, first).await.unwrap().unwrap().row.attempts, 1);
}

/// See the name.
pub async fn a_deleted_webhooks_queue_goes_with_it(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let hook = webhook(&*store, acme.key, 1).await;
    let hook = ordered(&*store, &hook, Ordering::Webhook).await;
    let mut made = Vec::new();
    for seconds in 10..15 {
        made.push(owe(&*store, &hook, "", Urgency::Normal, seconds).await);
    }
    let under_way = all_due(&*store, hook.key, 20).await.remove(0);
    store.delete_webhook(acme.key, hook.id, at(21)).await.unwrap().unwrap();
    store.settle(vec![settlement(&under_way, at(20), 200, Next::Delivered)]).await.unwrap();
    while store.sweep(at(30), 2).await.unwrap().more {}
    for seq in &made {
        let row = store.delivery(acme.key, *seq).await.unwrap().unwrap().row;
        assert_eq!((row.state, row.reason), (DeliveryState::Cancelled, Some(Reason::WebhookDeleted)));
    }
    assert!(due_numbers(&*store, &hook, 99).await.is_empty());
    store.delete_tenant(&acme.id, at(40)).await.unwrap();
    while store.sweep(at(41), 2).await.unwrap().more {}
}
