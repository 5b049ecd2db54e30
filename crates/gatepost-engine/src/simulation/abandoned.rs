//! Callers that go away: an operation is dropped after its commit and before its answer. What was
//! committed counts all the same, soon, and not when the next routine look finds it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use gatepost_core::event::Urgency;
use gatepost_core::webhook::Webhook;
use gatepost_store::Store as _;

use super::ledger;
use super::receivers::Manner;
use super::world::{Size, World};
use crate::ops::PublishInput;

const SOON: Duration = Duration::from_secs(2);

/// A world with one webhook of the first tenant, on receiver 0.
fn world(manner: Manner) -> (World, std::sync::Arc<Webhook>) {
    let world = World::new(0, Size::Large, None);
    assert_eq!(world.receivers.add(manner), 0);
    let engine = world.engine();
    let input = World::input_for(0, "*", false, &[30.0], 4, true);
    let created = engine.create_webhook(&world.tenants[0], input).now_or_never().unwrap().unwrap();
    (world, created.0.webhook)
}

fn event() -> PublishInput {
    PublishInput {
        id: None,
        fallback: None,
        event_type: "user.created".parse().unwrap(),
        timestamp: None,
        subject: None,
        data: Bytes::from_static(b"{\"n\":0}"),
        attributes: None,
        urgency: Some(Urgency::Normal),
        trace: None,
    }
}

fn requests(world: &World) -> u64 {
    ledger::open(&world.ledger).requests
}

fn publish(world: &World) -> bool {
    world
        .engine()
        .publish(&world.tenants[0].id, vec![event()], false)
        .now_or_never()
        .is_some_and(|answer| answer.is_ok())
}

fn enable(world: &World, webhook: &Webhook, enabled: bool) -> bool {
    let engine = world.engine();
    let update = async {
        let present = engine.webhook(&world.tenants[0], webhook.id).await?.webhook;
        let input = World::input_for(0, "*", false, &[30.0], 4, enabled);
        engine.update_webhook(&world.tenants[0], webhook.id, present.revision, input).await
    };
    update.now_or_never().is_some_and(|answer| answer.is_ok())
}

#[test]
fn p1_an_event_whose_publisher_hung_up_is_delivered_all_the_same() {
    let (mut world, _) = world(Manner::Well);
    assert!(publish(&world));
    world.pump();
    world.advance_to(world.after(SOON));
    assert_eq!(requests(&world), 1);

    world.store.die_in(0, true);
    assert!(!publish(&world), "the answer never comes");
    world.store.revive();
    world.pump();
    world.advance_to(world.after(SOON));
    assert_eq!(requests(&world), 2);
}

#[test]
fn p2_a_webhook_whose_owner_hung_up_while_enabling_it_gets_what_was_held() {
    let (mut world, webhook) = world(Manner::Status(500));
    assert!(publish(&world));
    world.pump();
    world.advance_to(world.after(SOON));
    assert!(enable(&world, &webhook, false));
    world.advance_to(world.after(Duration::from_secs(40)));
    assert_eq!(requests(&world), 1, "held");

    // The webhook is read twice, and its health once, before it is written.
    world.store.die_in(3, true);
    assert!(!enable(&world, &webhook, true), "the answer never comes");
    world.store.revive();
    world.pump();
    let enabled = world.disk.webhook_by_key(webhook.key).now_or_never().unwrap().unwrap().unwrap().config.enabled;
    assert!(enabled, "but it happened");
    world.advance_to(world.after(SOON));
    assert_eq!(requests(&world), 2);
}

#[test]
fn p2_a_delivery_reopened_by_somebody_who_hung_up_goes_out_again() {
    let (mut world, _) = world(Manner::Well);
    assert!(publish(&world));
    world.pump();
    world.advance_to(world.after(SOON));
    let id = ledger::open(&world.ledger).deliveries.values().next().unwrap().requests[0].delivery_id.parse().unwrap();
    ledger::open(&world.ledger).reopened(gatepost_core::DeliveryId::seq(id));

    world.store.die_in(1, true);
    assert!(world.engine().retry_delivery(&world.tenants[0], id).now_or_never().is_none());
    world.store.revive();
    world.pump();
    world.advance_to(world.after(SOON));
    assert_eq!(requests(&world), 2);
    assert!(!world.is_broken());
}
