//! Jobs and replays.

use std::collections::BTreeMap;
use std::sync::Arc;

use gatepost_core::delivery::{DeliveryState, Reason};
use gatepost_core::webhook::Webhook;
use gatepost_core::{DeliverySeq, EventSeq, JobId, TenantKey, Timestamp};

use super::{at, change, event, page, publish, settlement, tenant, webhook};
use crate::{
    Accepted, CANCELLED, CancelJobOutcome, Due, Job, JobState, NewJob, Next, Replay, ReplayScope, Selection, Stage,
    Store, Task,
};

/// The first job id, the second, …
fn job_id(number: u128) -> JobId {
    JobId::from_bytes((5_000 + number).to_be_bytes())
}

/// A replay to ask for.
pub(super) fn replay(webhook: &Webhook, scope: ReplayScope, since: Timestamp, until: Timestamp) -> Task {
    Task::Replay(Replay { webhook: webhook.id, webhook_key: webhook.key.0, scope, since, until })
}

/// Makes a job.
pub(super) async fn job(store: &dyn Store, tenant: TenantKey, number: u128, task: Task) -> Job {
    let new = NewJob { tenant, id: job_id(number), task, now: at(1_000) };
    store.create_job(new).await.unwrap().unwrap()
}

/// Settles a delivery.
pub(super) async fn settle(store: &dyn Store, due: &Due, status: u16, next: Next) {
    store.settle(vec![settlement(due, at(20), status, next)]).await.unwrap();
}

/// Publishes `count` events that match `to`, one a second from the hundredth on.
async fn events(store: &dyn Store, tenant: TenantKey, count: i64, to: &[&Webhook]) -> Vec<Accepted> {
    let mut accepted = Vec::new();
    for n in 0..count {
        accepted.extend(publish(store, tenant, at(100 + n), vec![event("user.created", to)]).await);
    }
    accepted
}

/// Does a replay's choosing, in steps of three events: everything that is to be matched matches.
async fn choose(store: &dyn Store, mut job: Job) -> Job {
    while job.stage == Stage::Counting {
        let found = store.replay_candidates(&job, 3, 1 << 20).await.unwrap();
        let mut events = found.chosen;
        events.extend(found.to_match.iter().map(|event| event.seq));
        let selection = Selection {
            job: job.key,
            position: job.position,
            events,
            scanned_to: found.scanned_to,
            upto: found.upto,
            end: found.end,
            now: at(1_001),
        };
        let next = store.replay_select(selection.clone()).await.unwrap().unwrap();
        // Sent again, because the answer was lost, it changes nothing.
        assert_eq!(store.replay_select(selection).await.unwrap().unwrap(), next);
        assert!(next.state == JobState::Running && next.done == 0, "{next:?}");
        job = next;
    }
    job
}

/// Makes a replay's deliveries, in steps of two.
async fn deliver(store: &dyn Store, mut job: Job) -> (Job, Vec<Due>) {
    let mut made = Vec::new();
    while !job.state.is_final() {
        let step = store.replay_deliver(job.key, at(1_002), 2).await.unwrap();
        assert_eq!(step.made, step.dues.len());
        made.extend(step.dues);
        let next = step.job.unwrap();
        assert!(next.done <= next.total && next.done - job.done <= 2 || next.state == JobState::Done, "{next:?}");
        job = next;
    }
    (job, made)
}

/// A replay from its beginning to its end; the events it made deliveries of.
async fn run(store: &dyn Store, number: u128, webhook: &Webhook, scope: ReplayScope) -> (Job, Vec<EventSeq>) {
    let job = job(store, webhook.tenant, number, replay(webhook, scope, at(100), at(900))).await;
    assert_eq!((job.state, job.total, job.done), (JobState::Queued, 0, 0));
    let (job, made) = deliver(store, choose(store, job).await).await;
    (job, made.iter().map(|due| due.events.first().seq).collect())
}

fn seqs(accepted: &[Accepted], wanted: &[usize]) -> Vec<EventSeq> {
    wanted.iter().map(|&index| accepted[index].event.seq).collect()
}

/// See the name.
pub async fn a_job_is_made_once_found_and_listed(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let task = replay(&hook, ReplayScope::All, at(0), at(9));
    let one = job(&*store, acme, 1, task.clone()).await;
    assert_eq!(job(&*store, acme, 1, task.clone()).await, one);
    let two = job(&*store, acme, 2, task.clone()).await;
    assert_eq!((one.created_at, one.updated_at, &one.task, one.stage), (at(1_000), at(1_000), &task, Stage::Counting));
    assert_eq!(store.job(acme, one.id).await.unwrap(), Some(one.clone()));
    assert_eq!(store.job(acme, job_id(9)).await.unwrap(), None);
    let first = store.jobs(acme, page(1, None)).await.unwrap();
    assert_eq!(first.rows, std::slice::from_ref(&two));
    let second = store.jobs(acme, page(1, first.next)).await.unwrap();
    assert_eq!((second.rows, second.next), (vec![one], None));
    let gone = NewJob { tenant: TenantKey(99), id: job_id(3), task, now: at(0) };
    assert_eq!(store.create_job(gone).await.unwrap(), None);
}

/// See the name.
pub async fn p5_another_tenants_job_does_not_exist(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let other = tenant(&*store, "other").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let mine = job(&*store, acme, 1, replay(&hook, ReplayScope::All, at(0), at(9))).await;
    assert_eq!(store.job(other, mine.id).await.unwrap(), None);
    assert!(store.jobs(other, page(10, None)).await.unwrap().rows.is_empty());
    let cancelled = store.cancel_job(other, mine.id, at(5)).await.unwrap();
    assert_eq!(cancelled, CancelJobOutcome::NotFound);
}

/// See the name.
pub async fn open_jobs_are_answered_tenant_by_tenant(store: Arc<dyn Store>) {
    assert!(store.open_jobs(None, 5).await.unwrap().is_empty());
    let mut keys = Vec::new();
    for (index, name) in ["one", "two", "three"].into_iter().enumerate() {
        let key = tenant(&*store, name).await.key;
        let hook = webhook(&*store, key, index as u128).await;
        for number in 0..2 {
            let number = index as u128 * 10 + number;
            job(&*store, key, number, replay(&hook, ReplayScope::All, at(0), at(9))).await;
        }
        keys.push(key);
    }
    let of = |after: Option<TenantKey>| {
        let store = Arc::clone(&store);
        async move {
            let open = store.open_jobs(after, 5).await.unwrap();
            (open.first().map(|job| job.tenant), open.len())
        }
    };
    assert_eq!(of(None).await, (Some(keys[0]), 2));
    assert_eq!(of(Some(keys[0])).await, (Some(keys[1]), 2));
    assert_eq!(of(Some(keys[2])).await, (Some(keys[0]), 2), "round and round");
    store.end_job(store.open_jobs(Some(keys[0]), 1).await.unwrap()[0].key, None, at(50)).await.unwrap();
    assert_eq!(of(Some(keys[0])).await, (Some(keys[1]), 1));
    store.delete_tenant(&"three".parse().unwrap(), at(60)).await.unwrap();
    assert_eq!(of(Some(keys[1])).await, (Some(keys[0]), 2));
}

/// See the name.
pub async fn a_cancelled_job_has_failed_and_does_nothing_more(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    events(&*store, acme, 5, &[]).await;
    let made = job(&*store, acme, 1, replay(&hook, ReplayScope::Missed, at(0), at(900))).await;
    let chosen = choose(&*store, made).await;
    assert_eq!((chosen.total, chosen.done), (5, 0));
    let step = store.replay_deliver(chosen.key, at(1_002), 2).await.unwrap();
    assert_eq!(step.job.unwrap().done, 2);
    let CancelJobOutcome::Cancelled(cancelled) = store.cancel_job(acme, chosen.id, at(2_000)).await.unwrap() else {
        panic!("not cancelled");
    };
    assert_eq!((cancelled.state, cancelled.error.as_deref()), (JobState::Failed, Some(CANCELLED)));
    assert_eq!((cancelled.total, cancelled.done, cancelled.updated_at), (5, 2, at(2_000)));
    let again = store.replay_deliver(chosen.key, at(2_001), 2).await.unwrap();
    assert!(again.job.is_none() && again.dues.is_empty());
    let again = store.cancel_job(acme, chosen.id, at(2_002)).await.unwrap();
    assert_eq!(again, CancelJobOutcome::Final(JobState::Failed));
    assert!(store.open_jobs(None, 5).await.unwrap().is_empty());
    // What it had still to do is swept.
    let mut rows = 0;
    loop {
        let swept = store.sweep(at(2_003), 2).await.unwrap();
        rows += swept.rows;
        if !swept.more {
            break;
        }
    }
    assert_eq!(rows, 3);
}

/// See the name.
pub async fn a_replay_of_what_failed_takes_it_once_unless_it_was_delivered_since(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let other = webhook(&*store, acme, 2).await;
    let accepted = events(&*store, acme, 6, &[&hook, &other]).await;
    let end = |state, reason| Next::End(state, reason);
    let due = |index: usize| accepted[index].deliveries[0].clone();
    settle(&*store, &due(0), 500, end(DeliveryState::Failed, Reason::Exhausted)).await;
    settle(&*store, &due(1), 200, Next::Delivered).await;
    settle(&*store, &due(2), 410, end(DeliveryState::Cancelled, Reason::Gone)).await;
    store.cancel(acme, due(3).seq, at(30)).await.unwrap();
    settle(&*store, &due(5), 400, end(DeliveryState::Failed, Reason::Rejected)).await;
    // What failed for somebody else is not this webhook's.
    settle(&*store, &accepted[4].deliveries[1].clone(), 400, end(DeliveryState::Failed, Reason::Rejected)).await;
    let (job, made) = run(&*store, 1, &hook, ReplayScope::Failed).await;
    assert_eq!((job.state, job.total, job.done), (JobState::Done, 3, 3));
    assert_eq!(made, seqs(&accepted, &[0, 2, 5]));
    // Still tried: nothing is left to take up.
    assert_eq!(run(&*store, 2, &hook, ReplayScope::Failed).await.1, []);
    let replayed = replays_of(&*store, acme, accepted[0].event.seq).await;
    assert_eq!(replayed.len(), 1);
    let row = store.delivery(acme, replayed[0]).await.unwrap().unwrap();
    let origin = store.replay_of(replayed[0]).await.unwrap().unwrap();
    assert_eq!((origin.job, origin.delivery), (Some(job_id(1)), Some(due(0).id())));
    assert_eq!(store.replay_of(due(0).seq).await.unwrap(), None);
    assert_eq!((row.row.state, row.row.attempts, row.revision), (DeliveryState::Pending, 0, hook.revision));
    assert_eq!(row.row.next_attempt_at, Some(at(1_002)));
    // Failed once more: it is taken up again, and repeats the later one.
    let again = super::due(&*store, hook.key, at(2_000)).await;
    let again = again.iter().find(|due| due.seq == replayed[0]).unwrap();
    settle(&*store, again, 500, end(DeliveryState::Failed, Reason::Exhausted)).await;
    let (job, made) = run(&*store, 3, &hook, ReplayScope::Failed).await;
    assert_eq!((job.total, made), (1, seqs(&accepted, &[0])));
    let last = *replays_of(&*store, acme, accepted[0].event.seq).await.last().unwrap();
    let origin = store.replay_of(last).await.unwrap().unwrap();
    assert_eq!(origin.delivery.map(|id| id.seq()), Some(replayed[0]));
}

/// Deliveries made of an event after its acceptance.
async fn replays_of(store: &dyn Store, tenant: TenantKey, event: EventSeq) -> Vec<DeliverySeq> {
    let rows = store.deliveries_of(tenant, event, 100).await.unwrap();
    let mut list = Vec::new();
    for row in rows {
        if store.replay_of(row.seq).await.unwrap().is_some() {
            list.push(row.seq);
        }
    }
    list
}

/// See the name.
pub async fn a_replay_of_what_was_missed_takes_events_without_a_delivery(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let other = webhook(&*store, acme, 2).await;
    let mut accepted = events(&*store, acme, 4, &[&other]).await;
    accepted.extend(events(&*store, acme, 1, &[&hook]).await);
    accepted.extend(events(&*store, acme, 2, &[]).await);
    let (job, made) = run(&*store, 1, &hook, ReplayScope::Missed).await;
    assert_eq!((job.state, job.total, job.done), (JobState::Done, 6, 6));
    assert_eq!(made, seqs(&accepted, &[0, 1, 2, 3, 5, 6]));
    let (job, made) = run(&*store, 2, &hook, ReplayScope::Missed).await;
    assert_eq!((job.state, job.total, made), (JobState::Done, 0, vec![]));
}

/// See the name.
pub async fn a_replay_of_all_takes_every_event_of_its_window(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let foreign = tenant(&*store, "foreign").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let accepted = events(&*store, acme, 9, &[&hook]).await;
    events(&*store, foreign, 3, &[]).await;
    // By when they were accepted: the first second is in it, the last is not.
    let task = replay(&hook, ReplayScope::All, at(102), at(107));
    let made = job(&*store, acme, 1, task).await;
    let (job, dues) = deliver(&*store, choose(&*store, made).await).await;
    assert_eq!((job.state, job.total, job.done), (JobState::Done, 5, 5));
    let made: Vec<EventSeq> = dues.iter().map(|due| due.events.first().seq).collect();
    assert_eq!(made, seqs(&accepted, &[2, 3, 4, 5, 6]));
    for due in &dues {
        assert_eq!((due.attempts, due.generation, due.due, due.webhook), (0, 0, at(1_002), hook.key));
    }
    // They are owed like any other.
    assert_eq!(super::due(&*store, hook.key, at(2_000)).await.len(), 14);
}

/// See the name.
pub async fn a_replay_is_shaped_by_the_webhook_as_it_is_now(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    events(&*store, acme, 2, &[&hook]).await;
    let made = job(&*store, acme, 1, replay(&hook, ReplayScope::All, at(0), at(900))).await;
    let chosen = choose(&*store, made).await;
    change(&*store, &hook, at(950), |config| config.url = "https://new.example/".into()).await;
    let (_, dues) = deliver(&*store, chosen).await;
    assert!(dues.iter().all(|due| due.revision == hook.revision + 1), "{dues:?}");
}

/// See the name.
pub async fn what_came_first_meanwhile_counts_as_done(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let accepted = events(&*store, acme, 3, &[]).await;
    let one = job(&*store, acme, 1, replay(&hook, ReplayScope::Missed, at(0), at(900))).await;
    let two = job(&*store, acme, 2, replay(&hook, ReplayScope::Missed, at(0), at(900))).await;
    let (one, two) = (choose(&*store, one).await, choose(&*store, two).await);
    assert_eq!((one.total, two.total), (3, 3));
    let (one, made) = deliver(&*store, one).await;
    assert_eq!((one.done, made.len()), (3, 3));
    let (two, made) = deliver(&*store, two).await;
    assert_eq!((two.state, two.total, two.done, made.len()), (JobState::Done, 3, 3, 0), "nothing twice");
    for event in &accepted {
        assert_eq!(store.deliveries_of(acme, event.event.seq, 10).await.unwrap().len(), 1);
    }
}

/// See the name.
pub async fn a_replay_fails_when_its_webhook_is_deleted(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    events(&*store, acme, 3, &[]).await;
    let made = job(&*store, acme, 1, replay(&hook, ReplayScope::Missed, at(0), at(900))).await;
    let chosen = choose(&*store, made).await;
    store.delete_webhook(acme, hook.id, at(950)).await.unwrap();
    let (job, made) = deliver(&*store, chosen).await;
    assert_eq!((job.state, job.done, made.len()), (JobState::Failed, 0, 0));
    assert!(job.error.unwrap().contains("deleted"));
}

/// See the name.
pub async fn a_backlog_is_counted_up_to_a_limit(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let accepted = events(&*store, acme, 4, &[&hook]).await;
    assert_eq!(store.backlog(hook.key, at(101), 10).await.unwrap(), 2, "those that are due");
    assert_eq!(store.backlog(hook.key, at(500), 10).await.unwrap(), 4);
    assert_eq!(store.backlog(hook.key, at(500), 3).await.unwrap(), 3);
    settle(&*store, &accepted[0].deliveries[0].clone(), 200, Next::Delivered).await;
    assert_eq!(store.backlog(hook.key, at(500), 10).await.unwrap(), 3);
}

/// See the name.
pub async fn a_replay_under_ordering_stands_at_the_tail(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    change(&*store, &hook, at(1), |config| config.ordering = gatepost_core::webhook::Ordering::Webhook).await;
    let hook = store.webhook(acme, hook.id).await.unwrap().unwrap();
    let accepted = events(&*store, acme, 3, &[&hook]).await;
    let made = job(&*store, acme, 1, replay(&hook, ReplayScope::All, at(0), at(900))).await;
    let chosen = choose(&*store, made).await;
    let step = store.replay_deliver(chosen.key, at(1_002), 10).await.unwrap();
    assert_eq!((step.made, step.dues.len()), (3, 0), "they wait for what stands before them");
    assert_eq!(step.job.unwrap().state, JobState::Done);
    let mut order = Vec::new();
    let mut times: BTreeMap<EventSeq, u32> = BTreeMap::new();
    loop {
        let due = super::due(&*store, hook.key, at(3_000)).await;
        assert!(due.len() <= 1, "one after the other: {due:?}");
        let Some(head) = due.first() else { break };
        let event = head.events.first().seq;
        *times.entry(event).or_default() += 1;
        order.push(event);
        let mut done = settlement(head, at(20), 200, Next::Delivered);
        done.ordered = true;
        store.settle(vec![done]).await.unwrap();
    }
    assert_eq!(order, [seqs(&accepted, &[0, 1, 2]), seqs(&accepted, &[0, 1, 2])].concat());
}
