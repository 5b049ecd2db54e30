//! Instructions of the embedded store on the hot path, counted by Valgrind: scripts/instructions.sh.
//!
//! The store is in memory and works on the calling thread: SQLite's work is all there, waiting for the disk
//! is not.

#![expect(missing_docs, reason = "what the macros make of a benchmark has none")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use gatepost_store::conformance::{at, config, event, settlement, webhook_id};
use gatepost_store::{
    Due, NewEvent, NewWebhook, Next, Publish, PublishOutcome, PutTenant, Settlement, SqliteStore, Store,
};
use gungraun::{library_benchmark, library_benchmark_group, main};

/// Requests, each a transaction of its own.
const REQUESTS: usize = 20;
/// Outcomes recorded together.
const GROUP: usize = 64;

/// An inline store answers at once.
fn done<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("an inline store answers at once"),
    }
}

struct World {
    store: SqliteStore,
    requests: Vec<Publish>,
    settlements: Vec<Vec<Settlement>>,
}

/// A tenant with some webhooks, and requests of so many events for all of them. Everything was done before,
/// so that statements are prepared and the first pages are there.
fn world(webhooks: usize, events: usize) -> World {
    let store = SqliteStore::open_inline().expect("there is memory");
    let id = "acme".parse().expect("a tenant id");
    let put = PutTenant { id, name: None, environment: None, settings: None, now: at(0) };
    let tenant = done(store.put_tenant(put)).expect("the store is well").0.key;
    let mut hooks = Vec::new();
    for number in 0..webhooks {
        let new = NewWebhook {
            tenant,
            id: webhook_id(number as u128),
            config: config("hook"),
            sealed_secrets: vec![1; 60],
            must_verify: false,
            now: at(0),
        };
        let made = done(store.create_webhook(new)).expect("the store is well").expect("the tenant is there");
        hooks.push(made.webhook);
    }
    let hooks: Vec<_> = hooks.iter().collect();
    let one = || NewEvent { data: Bytes::from(vec![b'1'; 1_000]), ..event("user.created", &hooks) };
    let request = |_| Publish {
        tenant,
        registry_version: webhooks as u64,
        now: at(1),
        events: std::iter::repeat_with(one).take(events).collect(),
    };
    let mut world = World { store, requests: (0..REQUESTS).map(request).collect(), settlements: Vec::new() };
    let early = publish_all(&mut world);
    groups(&early[..early.len() / 2]).into_iter().for_each(|group| settle_one(&world.store, group));
    world.requests = (0..REQUESTS).map(request).collect();
    world
}

fn publish_all(world: &mut World) -> Vec<Due> {
    let mut deliveries = Vec::new();
    for request in std::mem::take(&mut world.requests) {
        match done(world.store.publish(request)) {
            Ok(PublishOutcome::Accepted(accepted)) => {
                deliveries.extend(accepted.into_iter().flat_map(|e| e.deliveries))
            }
            other => panic!("{other:?}"),
        }
    }
    deliveries
}

fn groups(deliveries: &[Due]) -> Vec<Vec<Settlement>> {
    let settled = |due: &Due| settlement(due, at(2), 200, Next::Delivered);
    deliveries.chunks(GROUP).map(|group| group.iter().map(settled).collect()).collect()
}

fn settle_one(store: &SqliteStore, group: Vec<Settlement>) {
    let count = group.len();
    let answer = done(store.settle(group)).expect("the store is well");
    assert_eq!(answer.results.len(), count);
}

/// The same with everything published, and outcomes to record.
fn delivered(webhooks: usize, events: usize) -> World {
    let mut world = world(webhooks, events);
    let deliveries = publish_all(&mut world);
    world.settlements = groups(&deliveries);
    world.settlements.retain(|group| group.len() == GROUP);
    assert!(!world.settlements.is_empty());
    world
}

#[library_benchmark]
#[bench::one_event_one_webhook(args = (1, 1), setup = world)]
#[bench::one_event_ten_webhooks(args = (10, 1), setup = world)]
#[bench::hundred_events_one_webhook(args = (1, 100), setup = world)]
fn publish(mut world: World) -> (World, Vec<Due>) {
    let deliveries = publish_all(&mut world);
    (world, deliveries)
}

#[library_benchmark]
#[bench::group_of_64(args = (1, 64), setup = delivered)]
fn settle(mut world: World) -> World {
    for group in std::mem::take(&mut world.settlements) {
        settle_one(&world.store, group);
    }
    world
}

library_benchmark_group!(name = store, benchmarks = [publish, settle]);
main!(library_benchmark_groups = store);
