//! Erasing what is kept about a person, and proving who was told.

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::event::Subject;
use gatepost_core::webhook::{Batch, Webhook};
use gatepost_core::{DeliverySeq, EventSeq, TenantKey};

use super::jobs::{job, settle};
use super::{about, at, attempt, change, event, named, publish, settlement, tenant, try_publish, webhook};
use crate::{
    Accepted, Cleared, DeliveryQuery, Erased, Erasure, Job, JobState, NewEvent, Next, PublishOutcome, RetryOutcome,
    Settled, Stage, Store, Task, Told, ToldQuery,
};

const ALIAS: &str = "erased:0123456789abcdef";

fn of(subject: &str, subject_type: Option<&str>) -> Task {
    let subject_type = subject_type.map(str::to_owned);
    Task::Erase(Erasure { subject: Some(subject.to_owned()), subject_type, alias: ALIAS.to_owned(), within: None })
}

/// An erasure from its beginning to its end, two events at a time.
async fn erase(store: &dyn Store, tenant: TenantKey, number: u128, task: Task) -> (Job, Vec<Erased>) {
    let mut now = job(store, tenant, number, task).await;
    let mut steps = Vec::new();
    while now.stage != Stage::Clearing {
        let step = store.erase(now.key, at(2_000), 2).await.unwrap();
        let next = step.job.clone().unwrap();
        assert!(next.state == JobState::Running && next.done <= next.total, "{next:?}");
        now = next;
        steps.push(step);
    }
    assert!(matches!(&now.task, Task::Erase(Erasure { subject: None, .. })), "{now:?}");
    let mut position = 0;
    loop {
        match store.clear_traces(position).await.unwrap() {
            Cleared::UpTo(next) => position = next,
            Cleared::Blocked(_) => {}
            Cleared::Wholly => break,
        }
    }
    let done = store.end_job(now.key, None, at(2_001)).await.unwrap().unwrap();
    assert_eq!((done.state, done.done), (JobState::Done, done.total));
    (done, steps)
}

fn personal(subject: &str, to: &[&Webhook]) -> NewEvent {
    let data = Bytes::from(format!("{{\"mail\":\"{subject}@example.com\"}}"));
    NewEvent {
        data,
        attributes: Some(Bytes::from_static(b"{\"ip\":\"10.1.1.1\"}")),
        ..about(subject, event("user.changed", to))
    }
}

async fn one(store: &dyn Store, seconds: i64, subject: &str, to: &[&Webhook]) -> Accepted {
    publish(store, to[0].tenant, at(seconds), vec![personal(subject, to)]).await.remove(0)
}

async fn told(store: &dyn Store, tenant: TenantKey, subject: &str, limit: usize) -> Vec<Told> {
    let mut query = ToldQuery {
        tenant,
        subject: subject.to_owned(),
        alias: ALIAS.to_owned(),
        subject_type: None,
        limit,
        after: None,
    };
    let mut rows = Vec::new();
    loop {
        let page = store.told(query.clone()).await.unwrap();
        assert!(page.rows.len() <= limit);
        rows.extend(page.rows);
        query.after = page.next;
        if query.after.is_none() {
            return rows;
        }
    }
}

fn pairs(rows: &[Told]) -> Vec<(EventSeq, DeliverySeq)> {
    rows.iter().map(|row| (row.event, row.delivery.seq)).collect()
}

/// See the name.
pub async fn what_is_kept_about_a_person_goes_and_the_bare_record_stays(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let mut mine = Vec::new();
    for n in 0..5 {
        mine.push(one(&*store, 100 + n, "anna", &[&hook]).await);
    }
    let other = one(&*store, 110, "bert", &[&hook]).await;
    for accepted in mine.iter().chain([&other]) {
        let due = &accepted.deliveries[0];
        let mut failed = settlement(due, at(200), 500, Next::Retry(at(300)));
        failed.freeze = Some(Bytes::from_static(b"the body as sent"));
        store.settle(vec![failed]).await.unwrap();
        let again = super::due(&*store, hook.key, at(400)).await;
        let again = again.iter().find(|next| next.seq == due.seq).unwrap();
        settle(&*store, again, 200, Next::Delivered).await;
    }
    let before = store.delivery(acme, mine[0].deliveries[0].seq).await.unwrap().unwrap();
    assert!(before.body.is_some() && before.attempts.iter().all(|attempt| attempt.response.is_some()));
    let (done, steps) = erase(&*store, acme, 1, of("anna", None)).await;
    assert_eq!((done.total, done.done), (5, 5));
    assert!(steps.iter().all(|step| step.cancelled.is_empty() && step.dues.is_empty()));
    for accepted in &mine {
        let event = store.event(acme, &accepted.event.id).await.unwrap().unwrap();
        assert_eq!((&event.data[..], event.attributes), (&b"null"[..], None));
        let subject = Subject { kind: Some("user".into()), id: ALIAS.into() };
        assert_eq!((event.subject, event.accepted_at), (Some(subject), accepted.event.accepted_at));
        assert_eq!((event.event_type, event.timestamp), (accepted.event.event_type.clone(), accepted.event.timestamp));
        let detail = store.delivery(acme, accepted.deliveries[0].seq).await.unwrap().unwrap();
        assert_eq!((detail.row.state, detail.row.attempts, detail.body), (DeliveryState::Delivered, 2, None));
        let statuses: Vec<_> = detail.attempts.iter().map(|attempt| attempt.status).collect();
        assert_eq!(statuses, [Some(500), Some(200)]);
        assert!(detail.attempts.iter().all(|attempt| attempt.response.is_none()));
    }
    let spared = store.delivery(acme, other.deliveries[0].seq).await.unwrap().unwrap();
    assert!(spared.body.is_some() && spared.attempts.iter().all(|attempt| attempt.response.is_some()));
    assert_eq!(spared.events.first().data, other.event.data);
    // Asked for again, there is nothing left to do.
    assert_eq!(erase(&*store, acme, 2, of("anna", None)).await.0.total, 0);
}

/// See the name.
pub async fn p5_a_person_is_erased_in_one_tenant_alone(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let other = tenant(&*store, "other").await.key;
    let (here, there) = (webhook(&*store, acme, 1).await, webhook(&*store, other, 2).await);
    one(&*store, 100, "anna", &[&here]).await;
    let theirs = one(&*store, 100, "anna", &[&there]).await;
    assert_eq!(erase(&*store, acme, 1, of("anna", None)).await.0.total, 1);
    let event = store.event(other, &theirs.event.id).await.unwrap().unwrap();
    assert_eq!(event.data, theirs.event.data);
    assert_eq!(told(&*store, other, "anna", 10).await.len(), 1);
    let deliveries = store.delivery(other, theirs.deliveries[0].seq).await.unwrap().unwrap();
    assert_eq!(deliveries.row.state, DeliveryState::Pending);
}

/// See the name.
pub async fn a_type_of_subject_is_erased_alone(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let mut events = Vec::new();
    for kind in [Some("user"), Some("group"), None] {
        let subject = Subject { kind: kind.map(str::to_owned), id: "x1".to_owned() };
        let new = NewEvent { subject: Some(subject), ..event("a.b", &[&hook]) };
        events.push(publish(&*store, acme, at(100), vec![new]).await.remove(0));
    }
    assert_eq!(erase(&*store, acme, 1, of("x1", Some("group"))).await.0.total, 1);
    let mut left = Vec::new();
    for accepted in &events {
        let event = store.event(acme, &accepted.event.id).await.unwrap().unwrap();
        left.push(event.subject.unwrap().id);
    }
    assert_eq!(left, ["x1", ALIAS, "x1"]);
}

/// See the name.
pub async fn what_is_published_afterwards_is_not_erased(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    one(&*store, 100, "anna", &[&hook]).await;
    let made = job(&*store, acme, 1, of("anna", None)).await;
    assert_eq!(store.erase(made.key, at(200), 5).await.unwrap().job.unwrap().total, 1);
    let later = one(&*store, 201, "anna", &[&hook]).await;
    let step = store.erase(made.key, at(202), 5).await.unwrap().job.unwrap();
    assert_eq!((step.stage, step.done), (Stage::Clearing, 1));
    let event = store.event(acme, &later.event.id).await.unwrap().unwrap();
    assert_eq!(event.subject.unwrap().id, "anna");
}

/// See the name.
pub async fn what_was_not_sent_never_is(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let mine = one(&*store, 100, "anna", &[&hook]).await;
    let due = mine.deliveries[0].clone();
    let (_, steps) = erase(&*store, acme, 1, of("anna", None)).await;
    let cancelled: Vec<_> = steps.iter().flat_map(|step| step.cancelled.clone()).collect();
    assert_eq!(cancelled, [(hook.key, due.seq)]);
    assert!(super::due(&*store, hook.key, at(9_000)).await.is_empty());
    let row = store.delivery(acme, due.seq).await.unwrap().unwrap().row;
    assert_eq!((row.state, row.reason), (DeliveryState::Cancelled, Some(Reason::ByUser)));
    assert!(matches!(store.retry(acme, due.seq, at(2_500)).await.unwrap(), RetryOutcome::Erased));
    // An attempt was under way: its answer must not bring anything back.
    let mut late = settlement(&due, at(1_999), 500, Next::Retry(at(3_000)));
    late.freeze = Some(Bytes::from_static(b"anna@example.com"));
    assert_eq!(store.settle(vec![late]).await.unwrap().results, [Settled::Superseded]);
    let detail = store.delivery(acme, due.seq).await.unwrap().unwrap();
    assert_eq!((detail.row.state, detail.body), (DeliveryState::Cancelled, None));
    assert_eq!((detail.attempts.len(), &detail.attempts[0].response), (1, &None));
    assert_eq!(detail.attempts[0].status, attempt(1, at(0), 500).status);
}

/// See the name.
pub async fn an_erased_event_is_known_by_its_id(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let new = || named("e1", 7, personal("anna", &[&hook]));
    publish(&*store, acme, at(100), vec![new()]).await;
    erase(&*store, acme, 1, of("anna", None)).await;
    let again = publish(&*store, acme, at(3_000), vec![new()]).await.remove(0);
    assert!(again.duplicate && again.deliveries.is_empty());
    assert_eq!(again.event.data, Bytes::from_static(b"null"));
    let other = try_publish(&*store, acme, at(3_001), vec![named("e1", 8, personal("anna", &[&hook]))]).await;
    assert!(matches!(other, PublishOutcome::Conflict { index: 0 }), "{other:?}");
}

/// See the name.
pub async fn other_peoples_events_of_a_batch_are_owed_by_a_new_one(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    change(&*store, &hook, at(1), |config| config.batch = Some(Batch { max_events: 4, ..Batch::default() })).await;
    let hook = store.webhook(acme, hook.id).await.unwrap().unwrap();
    let mut events = Vec::new();
    for subject in ["bert", "anna", "anna", "carl"] {
        events.push(one(&*store, 100, subject, &[&hook]).await);
    }
    let batch = super::due(&*store, hook.key, at(300)).await.remove(0);
    assert_eq!(batch.events.all().len(), 4);
    let (_, steps) = erase(&*store, acme, 1, of("anna", None)).await;
    let cancelled: Vec<_> = steps.iter().flat_map(|step| step.cancelled.clone()).collect();
    assert_eq!(cancelled, [(hook.key, batch.seq)]);
    let rest = super::due(&*store, hook.key, at(9_000)).await;
    assert_eq!(rest.len(), 1);
    let ids: Vec<_> = rest[0].events.all().iter().map(|event| event.seq).collect();
    assert_eq!(ids, [events[0].event.seq, events[3].event.seq]);
    assert_ne!(rest[0].seq, batch.seq);
    let first = store.delivery(acme, batch.seq).await.unwrap().unwrap();
    assert_eq!((first.row.state, first.row.event_ids.len()), (DeliveryState::Cancelled, 4));
    // A batch that was sent keeps neither its body nor its answer.
    let mut failed = settlement(&rest[0], at(9_001), 500, Next::End(DeliveryState::Failed, Reason::Exhausted));
    failed.freeze = Some(Bytes::from_static(b"all of them"));
    store.settle(vec![failed]).await.unwrap();
    erase(&*store, acme, 2, of("carl", None)).await;
    let detail = store.delivery(acme, rest[0].seq).await.unwrap().unwrap();
    assert_eq!(
        (detail.row.state, detail.body.clone(), &detail.attempts[0].response),
        (DeliveryState::Failed, None, &None)
    );
    assert_eq!(detail.events.first().data, events[0].event.data);
}

/// See the name.
pub async fn an_ordered_queue_goes_on_behind_what_is_erased(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    change(&*store, &hook, at(1), |config| config.ordering = gatepost_core::webhook::Ordering::Webhook).await;
    let hook = store.webhook(acme, hook.id).await.unwrap().unwrap();
    one(&*store, 100, "anna", &[&hook]).await;
    let behind = one(&*store, 101, "bert", &[&hook]).await;
    let (_, steps) = erase(&*store, acme, 1, of("anna", None)).await;
    assert!(steps.iter().any(|step| step.wakes.iter().any(|wake| wake.webhook == hook.key && wake.at.is_some())));
    let due = super::due(&*store, hook.key, at(9_000)).await;
    assert_eq!(due.iter().map(|due| due.events.first().seq).collect::<Vec<_>>(), [behind.event.seq]);
}

/// See the name.
pub async fn a_person_erased_is_found_by_what_stands_for_them(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let mine = one(&*store, 100, "anna", &[&hook]).await;
    assert!(!store.only_erased(acme, "anna", ALIAS).await.unwrap());
    erase(&*store, acme, 1, of("anna", None)).await;
    assert!(store.only_erased(acme, "anna", ALIAS).await.unwrap());
    let query = DeliveryQuery { subject: Some(ALIAS.to_owned()), ..DeliveryQuery::of(acme, super::page(10, None)) };
    let rows = store.deliveries(query).await.unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [mine.deliveries[0].seq]);
    one(&*store, 3_000, "anna", &[&hook]).await;
    assert!(!store.only_erased(acme, "anna", ALIAS).await.unwrap(), "they are back");
}

/// See the name.
pub async fn who_was_told_is_proved_page_by_page(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let (one_hook, two) = (webhook(&*store, acme, 1).await, webhook(&*store, acme, 2).await);
    let mut wanted = Vec::new();
    for n in 0..4 {
        let accepted = one(&*store, 100 + n, "anna", &[&one_hook, &two]).await;
        one(&*store, 100 + n, "bert", &[&one_hook]).await;
        wanted.extend(accepted.deliveries.iter().map(|due| (accepted.event.seq, due.seq)));
        if n == 0 {
            let due = &accepted.deliveries[0];
            store.settle(vec![settlement(due, at(150), 503, Next::Retry(at(160)))]).await.unwrap();
            let again = super::due(&*store, one_hook.key, at(160)).await;
            let again = again.iter().find(|next| next.seq == due.seq).unwrap();
            settle(&*store, again, 204, Next::Delivered).await;
        }
    }
    wanted.reverse();
    for limit in [1, 2, 3, 8, 50] {
        assert_eq!(pairs(&told(&*store, acme, "anna", limit).await), wanted, "pages of {limit}");
    }
    assert!(told(&*store, acme, "nobody", 5).await.is_empty());
    let rows = told(&*store, acme, "anna", 50).await;
    let first = rows.last().unwrap();
    assert_eq!((first.webhook_name.as_str(), first.url.as_str()), ("hook1", "https://hook1.example/in"));
    assert_eq!(first.first_attempt.as_ref().unwrap().status, Some(503));
    assert_eq!(first.last_attempt.as_ref().unwrap().status, Some(204));
    assert_eq!((first.delivery.state, first.erased), (DeliveryState::Delivered, false));
    assert!(rows[0].first_attempt.is_none() && rows[0].last_attempt.is_none());
    // What was called then, not what is registered now.
    change(&*store, &one_hook, at(500), |config| config.url = "https://moved.example/".into()).await;
    let rows = told(&*store, acme, "anna", 50).await;
    assert_eq!(rows.last().unwrap().url, "https://hook1.example/in");
    // It outlives the erasure, and covers what came after it.
    erase(&*store, acme, 1, of("anna", None)).await;
    let back = one(&*store, 3_000, "anna", &[&two]).await;
    let mut all = vec![(back.event.seq, back.deliveries[0].seq)];
    all.extend(wanted);
    for limit in [1, 3, 50] {
        let rows = told(&*store, acme, "anna", limit).await;
        assert_eq!(pairs(&rows), all, "pages of {limit}");
        assert_eq!(rows.iter().filter(|row| row.erased).count(), 8);
        assert_eq!(rows.last().unwrap().last_attempt.as_ref().unwrap().status, Some(204));
    }
}

/// See the name.
pub async fn proof_names_batches_once_per_event(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    change(&*store, &hook, at(1), |config| config.batch = Some(Batch { max_events: 3, ..Batch::default() })).await;
    let hook = store.webhook(acme, hook.id).await.unwrap().unwrap();
    let mut events = Vec::new();
    for subject in ["anna", "bert", "anna"] {
        events.push(one(&*store, 100, subject, &[&hook]).await);
    }
    let batch = super::due(&*store, hook.key, at(300)).await.remove(0);
    let rows = told(&*store, acme, "anna", 1).await;
    assert_eq!(pairs(&rows), [(events[2].event.seq, batch.seq), (events[0].event.seq, batch.seq)]);
    assert_eq!(rows[0].event_id, events[2].event.id);
}
