//! Answers under idempotency keys.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::TenantKey;

use super::{at, event, named, tenant, webhook};
use crate::{
    Accepted, IdempotencyRecord, IdempotentRequest, MakeAnswer, NewEvent, Publish, PublishOutcome, PublishedOnce,
    RecordedAnswer, Store,
};

/// A request that came at `seconds` and is known for a hundred.
fn request(scope: u8, fingerprint: u8, seconds: i64) -> IdempotentRequest {
    IdempotentRequest {
        scope: [scope; 16],
        fingerprint: [fingerprint; 16],
        now: at(seconds),
        expires_at: at(seconds + 100),
    }
}

fn answer(body: &str) -> RecordedAnswer {
    RecordedAnswer {
        status: 201,
        headers: vec![("location".into(), "/v1/x".into())],
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

/// The ids of what was accepted.
fn ids() -> MakeAnswer {
    MakeAnswer::new(|accepted: &[Accepted]| {
        let ids: Vec<&str> = accepted.iter().map(|one| one.event.id.as_str()).collect();
        answer(&ids.join(","))
    })
}

async fn once(
    store: &dyn Store,
    tenant: TenantKey,
    request: IdempotentRequest,
    events: Vec<NewEvent>,
) -> PublishedOnce {
    let registry_version = store.registry(tenant).await.unwrap().map_or(0, |registry| registry.version);
    let publish = Publish { tenant, registry_version, now: request.now, events };
    store.publish_once(publish, request, ids()).await.unwrap()
}

/// See the name.
pub async fn the_first_request_under_a_key_is_known_from_its_beginning(store: Arc<dyn Store>) {
    assert_eq!(store.idempotency([1; 16], at(0)).await.unwrap(), None);
    let begun = IdempotencyRecord { fingerprint: [5; 16], started_at: at(0), answer: None };
    assert_eq!(store.begin_idempotent(request(1, 5, 0)).await.unwrap(), begun);
    // Another request changes nothing, whatever it is.
    assert_eq!(store.begin_idempotent(request(1, 6, 10)).await.unwrap(), begun);
    store.record_answer([1; 16], at(0), answer("one")).await.unwrap();
    let answered = IdempotencyRecord { answer: Some(answer("one")), ..begun };
    assert_eq!(store.idempotency([1; 16], at(20)).await.unwrap(), Some(answered.clone()));
    assert_eq!(store.begin_idempotent(request(1, 6, 20)).await.unwrap(), answered);
    assert_eq!(store.idempotency([2; 16], at(20)).await.unwrap(), None);
}

/// See the name.
pub async fn a_request_that_changed_nothing_is_forgotten_but_an_answer_is_not(store: Arc<dyn Store>) {
    store.begin_idempotent(request(1, 5, 0)).await.unwrap();
    // Of another beginning: not this one.
    store.forget_idempotent([1; 16], at(1)).await.unwrap();
    assert!(store.idempotency([1; 16], at(2)).await.unwrap().is_some());
    store.forget_idempotent([1; 16], at(0)).await.unwrap();
    assert_eq!(store.idempotency([1; 16], at(2)).await.unwrap(), None);
    store.begin_idempotent(request(1, 6, 3)).await.unwrap();
    // The late answer of the first is nobody's any more.
    store.record_answer([1; 16], at(0), answer("late")).await.unwrap();
    assert_eq!(store.idempotency([1; 16], at(4)).await.unwrap().unwrap().answer, None);
    store.record_answer([1; 16], at(3), answer("kept")).await.unwrap();
    store.forget_idempotent([1; 16], at(3)).await.unwrap();
    assert_eq!(store.idempotency([1; 16], at(4)).await.unwrap().unwrap().answer, Some(answer("kept")));
}

/// See the name.
pub async fn records_expire_and_are_swept_in_small_steps(store: Arc<dyn Store>) {
    for scope in 0..5 {
        store.begin_idempotent(request(scope, 5, i64::from(scope))).await.unwrap();
    }
    assert!(store.idempotency([0; 16], at(99)).await.unwrap().is_some());
    assert_eq!(store.idempotency([0; 16], at(100)).await.unwrap(), None);
    // A key used again after its time is a new use.
    let again = store.begin_idempotent(request(0, 9, 101)).await.unwrap();
    assert_eq!(again, IdempotencyRecord { fingerprint: [9; 16], started_at: at(101), answer: None });
    let first = store.sweep(at(103), 2).await.unwrap();
    assert_eq!((first.rows, first.more), (2, true));
    let second = store.sweep(at(103), 2).await.unwrap();
    assert_eq!((second.rows, second.more), (1, false));
    assert!(store.idempotency([4; 16], at(103)).await.unwrap().is_some());
    assert!(store.idempotency([0; 16], at(103)).await.unwrap().is_some());
    assert_eq!(store.sweep(at(103), 2).await.unwrap().rows, 0);
}

/// See the name.
pub async fn p1_a_publish_and_its_answer_are_one(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let first = once(&*store, acme, request(1, 5, 10), vec![event("user.created", &[&hook])]).await;
    let PublishedOnce::Done(PublishOutcome::Accepted(accepted)) = first else { panic!("{first:?}") };
    assert_eq!((accepted.len(), accepted[0].deliveries.len()), (1, 1));
    let kept = store.idempotency([1; 16], at(11)).await.unwrap().unwrap();
    assert_eq!((kept.fingerprint, kept.started_at), ([5; 16], at(10)));
    assert_eq!(kept.answer, Some(answer(accepted[0].event.id.as_str())));
    // Again: nothing is published.
    let again = once(&*store, acme, request(1, 5, 12), vec![event("user.created", &[&hook])]).await;
    assert!(matches!(&again, PublishedOnce::Known(record) if *record == kept), "{again:?}");
    assert_eq!(store.deliveries_of(acme, accepted[0].event.seq, 10).await.unwrap().len(), 1);
    // Under another key it is another event.
    let other = once(&*store, acme, request(2, 5, 12), vec![event("user.created", &[])]).await;
    let PublishedOnce::Done(PublishOutcome::Accepted(other)) = other else { panic!("{other:?}") };
    assert_ne!(other[0].event.seq, accepted[0].event.seq);
}

/// See the name.
pub async fn a_publish_that_is_refused_leaves_its_key_unused(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    once(&*store, acme, request(1, 1, 0), vec![named("a", 1, event("user.created", &[]))]).await;
    let conflict = once(&*store, acme, request(2, 2, 1), vec![named("a", 2, event("user.created", &[]))]).await;
    assert!(matches!(conflict, PublishedOnce::Done(PublishOutcome::Conflict { index: 0 })), "{conflict:?}");
    let stale = Publish { tenant: acme, registry_version: 77, now: at(2), events: vec![event("user.created", &[])] };
    let stale = store.publish_once(stale, request(2, 2, 2), ids()).await.unwrap();
    assert!(matches!(stale, PublishedOnce::Done(PublishOutcome::StaleRegistry(0))), "{stale:?}");
    assert_eq!(store.idempotency([2; 16], at(3)).await.unwrap(), None);
    let duplicate = once(&*store, acme, request(3, 1, 4), vec![named("a", 1, event("user.created", &[]))]).await;
    let PublishedOnce::Done(PublishOutcome::Accepted(duplicate)) = duplicate else { panic!("{duplicate:?}") };
    assert!(duplicate[0].duplicate);
    assert!(store.idempotency([3; 16], at(5)).await.unwrap().is_some());
}
