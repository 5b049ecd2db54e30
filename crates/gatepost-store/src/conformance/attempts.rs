//! Settling: recording what attempts came to.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::DeliverySeq;
use gatepost_core::delivery::{DeliveryState, Reason, Response};

use super::{at, due, one_delivery, settlement, tenant, webhook};
use crate::{CancelOutcome, Due, Next, RetryOutcome, Settled, Settlement, Store};

async fn settle(store: &dyn Store, settlement: Settlement) -> Settled {
    store.settle(vec![settlement]).await.unwrap().results.remove(0)
}

async fn reopen(store: &dyn Store, made: &Due, seconds: i64) -> Due {
    match store.retry(made.tenant, made.seq, at(seconds)).await.unwrap() {
        RetryOutcome::Reopened(due, _) => *due,
        other => panic!("not reopened: {other:?}"),
    }
}

/// See the name.
pub async fn a_first_success_ends_a_delivery(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let made = one_delivery(&*store, &hook).await;
    let sent = settlement(&made, at(20), 200, Next::Delivered);
    assert_eq!(settle(&*store, sent.clone()).await, Settled::Recorded);
    let detail = store.delivery(acme, made.seq).await.unwrap().unwrap();
    assert_eq!((detail.row.state, detail.row.reason, detail.row.attempts), (DeliveryState::Delivered, None, 1));
    assert_eq!((detail.row.next_attempt_at, detail.row.updated_at), (None, sent.attempt.ended_at()));
    assert_eq!((detail.attempts, detail.body), (vec![(*sent.attempt).clone()], None));
    assert!(due(&*store, hook.key, at(9_999)).await.is_empty());
    assert!(store.owed(None, 10).await.unwrap().is_empty());
}

/// See the name.
pub async fn a_failure_moves_the_due_time_and_keeps_the_body(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let made = one_delivery(&*store, &hook).await;
    let body = Bytes::from_static(b"{\"as\": \"sent\"}");
    let mut failed = settlement(&made, at(20), 500, Next::Retry(at(60)));
    failed.freeze = Some(body.clone());
    assert_eq!(settle(&*store, failed.clone()).await, Settled::Recorded);
    assert!(due(&*store, hook.key, at(59)).await.is_empty());
    let again = due(&*store, hook.key, at(60)).await.remove(0);
    assert_eq!((again.seq, again.due, again.attempts, again.budget_start), (made.seq, at(60), 1, 0));
    assert_eq!((&again.body, again.generation, again.manual), (&Some(body.clone()), made.generation, false));
    assert_eq!((again.created_at, again.revision, &again.events), (made.created_at, made.revision, &made.events));
    let second = settlement(&again, at(61), 200, Next::Delivered);
    assert_eq!(settle(&*store, second.clone()).await, Settled::Recorded);
    let detail = store.delivery(acme, made.seq).await.unwrap().unwrap();
    assert_eq!((detail.row.state, detail.row.attempts), (DeliveryState::Delivered, 2));
    assert_eq!(
        (detail.attempts, detail.body),
        (vec![(*failed.attempt).clone(), (*second.attempt).clone()], Some(body))
    );
}

/// See the name.
pub async fn p3_the_first_body_kept_stays(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let made = one_delivery(&*store, &hook).await;
    let mut failed = settlement(&made, at(20), 500, Next::Retry(at(60)));
    failed.freeze = Some(Bytes::from_static(b"first"));
    settle(&*store, failed).await;
    let again = due(&*store, hook.key, at(60)).await.remove(0);
    let mut second = settlement(&again, at(60), 500, Next::Retry(at(90)));
    second.freeze = Some(Bytes::from_static(b"other"));
    settle(&*store, second).await;
    let third = due(&*store, hook.key, at(90)).await.remove(0);
    assert_eq!(third.body.as_deref(), Some(&b"first"[..]));
}

/// See the name.
pub async fn attempts_large_and_small_are_listed_in_order(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    for sizes in [[0, 16_000, 0], [16_000, 0, 16_000]] {
        let made = one_delivery(&*store, &hook).await;
        let mut expected = Vec::new();
        let mut present = made.clone();
        for (number, size) in (1_u32..).zip(sizes) {
            let seconds = i64::from(number) * 100;
            let mut failed = settlement(&present, at(seconds), 500, Next::Retry(at(seconds + 100)));
            Arc::make_mut(&mut failed.attempt).response =
                Some(Response { body: vec![0xee; size].into(), ..Response::default() });
            assert_eq!(settle(&*store, failed.clone()).await, Settled::Recorded);
            expected.push((*failed.attempt).clone());
            present.attempts = number;
        }
        let detail = store.delivery(acme, made.seq).await.unwrap().unwrap();
        assert_eq!((detail.attempts, detail.row.attempts), (expected, 3));
        store.cancel(acme, made.seq, at(1_000)).await.unwrap();
    }
}

/// See the name.
pub async fn a_final_failure_has_its_reason(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let cases = [
        (DeliveryState::Failed, Reason::Exhausted),
        (DeliveryState::Failed, Reason::NoAnswer),
        (DeliveryState::Failed, Reason::Rejected),
        (DeliveryState::Failed, Reason::Gone),
        (DeliveryState::Cancelled, Reason::Gone),
    ];
    for (state, reason) in cases {
        let made = one_delivery(&*store, &hook).await;
        assert_eq!(settle(&*store, settlement(&made, at(20), 500, Next::End(state, reason))).await, Settled::Recorded);
        let row = store.delivery(acme, made.seq).await.unwrap().unwrap().row;
        assert_eq!((row.state, row.reason, row.next_attempt_at), (state, Some(reason), None));
    }
    assert!(due(&*store, hook.key, at(9_999)).await.is_empty());
}

/// See the name.
pub async fn p2_a_settlement_sent_again_changes_nothing(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    for next in [Next::Delivered, Next::Retry(at(60)), Next::End(DeliveryState::Failed, Reason::Exhausted)] {
        let made = one_delivery(&*store, &hook).await;
        let sent = settlement(&made, at(20), 500, next);
        assert_eq!(settle(&*store, sent.clone()).await, Settled::Recorded);
        let before = store.delivery(acme, made.seq).await.unwrap();
        assert_eq!(settle(&*store, sent).await, Settled::Recorded);
        assert_eq!(store.delivery(acme, made.seq).await.unwrap(), before);
        store.cancel(acme, made.seq, at(30)).await.unwrap();
    }
}

/// See the name.
pub async fn p2_a_settlement_after_a_cancel_is_superseded(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let made = one_delivery(&*store, &hook).await;
    assert!(matches!(store.cancel(acme, made.seq, at(15)).await.unwrap(), CancelOutcome::Cancelled(..)));
    let late = settlement(&made, at(14), 200, Next::Delivered);
    assert_eq!(settle(&*store, late.clone()).await, Settled::Superseded);
    let detail = store.delivery(acme, made.seq).await.unwrap().unwrap();
    assert_eq!((detail.row.state, detail.row.reason), (DeliveryState::Cancelled, Some(Reason::ByUser)));
    assert_eq!((detail.attempts.as_slice(), detail.row.attempts), (std::slice::from_ref(&*late.attempt), 1));
    // Its answer lost and sent again: not kept twice.
    assert_eq!(settle(&*store, late).await, Settled::Superseded);
    assert_eq!(store.delivery(acme, made.seq).await.unwrap().unwrap(), detail);
}

/// See the name.
pub async fn a_late_settlement_does_not_use_up_the_new_budget(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let made = one_delivery(&*store, &hook).await;
    let reopened = reopen(&*store, &made, 30).await;
    assert_eq!((reopened.attempts, reopened.budget_start, reopened.manual), (0, 0, true));
    // The attempt of before comes in while the new one, begun at the same moment, is under way.
    let (old, new) = (
        settlement(&made, at(30), 500, Next::End(DeliveryState::Failed, Reason::Exhausted)),
        settlement(&reopened, at(30), 500, Next::Retry(at(90))),
    );
    assert_eq!(settle(&*store, old.clone()).await, Settled::Superseded);
    assert_eq!(settle(&*store, new.clone()).await, Settled::Recorded);
    assert_eq!(settle(&*store, new).await, Settled::Recorded);
    assert_eq!(settle(&*store, old).await, Settled::Superseded);
    let now = due(&*store, hook.key, at(90)).await.remove(0);
    assert_eq!((now.attempts, now.budget_start, now.generation), (2, 1, reopened.generation));
    let detail = store.delivery(acme, made.seq).await.unwrap().unwrap();
    assert_eq!(detail.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((detail.row.state, detail.row.attempts), (DeliveryState::Pending, 2));
}

/// See the name.
pub async fn settling_several_answers_for_each(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let (one, two) = (one_delivery(&*store, &hook).await, one_delivery(&*store, &hook).await);
    store.cancel(acme, one.seq, at(11)).await.unwrap();
    let settled = store
        .settle(vec![settlement(&one, at(20), 200, Next::Delivered), settlement(&two, at(20), 200, Next::Delivered)])
        .await
        .unwrap();
    assert_eq!(settled.results, [Settled::Superseded, Settled::Recorded]);
    assert!(store.settle(Vec::new()).await.unwrap().results.is_empty());
}

/// See the name.
pub async fn a_settlement_of_nothing_is_superseded(store: Arc<dyn Store>) {
    let (acme, other) = (tenant(&*store, "acme").await.key, tenant(&*store, "other").await.key);
    let hook = webhook(&*store, acme, 1).await;
    let made = one_delivery(&*store, &hook).await;
    let good = settlement(&made, at(20), 200, Next::Delivered);
    let unknown = Settlement { seq: DeliverySeq(987_654), ..good.clone() };
    let foreign = Settlement { tenant: other, ..good.clone() };
    assert_eq!(store.settle(vec![unknown, foreign]).await.unwrap().results, [Settled::Superseded; 2]);
    let detail = store.delivery(acme, made.seq).await.unwrap().unwrap();
    assert_eq!((detail.row.state, detail.attempts.len()), (DeliveryState::Pending, 0));
}

/// See the name.
pub async fn a_pause_is_only_ever_prolonged(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    for (pause, expected) in [(100, 100), (500, 500), (200, 500)] {
        let made = one_delivery(&*store, &hook).await;
        let mut told = settlement(&made, at(20), 429, Next::Retry(at(600)));
        told.pause_until = Some(at(pause));
        settle(&*store, told).await;
        let now = store.webhook(acme, hook.id).await.unwrap().unwrap();
        assert_eq!((now.paused_until, now.revision), (Some(at(expected)), hook.revision));
    }
    assert_eq!(store.registry(acme).await.unwrap().unwrap().version, 1);
}

/// See the name.
pub async fn a_settlement_after_the_webhook_was_deleted_keeps_the_attempt(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    for (number, swept) in [(1, false), (2, true)] {
        let hook = webhook(&*store, acme, number).await;
        let made = one_delivery(&*store, &hook).await;
        store.delete_webhook(acme, hook.id, at(15)).await.unwrap().unwrap();
        if swept {
            while store.sweep(at(16), 10).await.unwrap().more {}
        }
        let late = settlement(&made, at(14), 200, Next::Delivered);
        for _ in 0..2 {
            assert_eq!(settle(&*store, late.clone()).await, Settled::Superseded);
            let detail = store.delivery(acme, made.seq).await.unwrap().unwrap();
            assert_eq!((detail.row.state, detail.row.reason), (DeliveryState::Cancelled, Some(Reason::WebhookDeleted)));
            assert_eq!(detail.attempts, std::slice::from_ref(&*late.attempt));
        }
    }
}
