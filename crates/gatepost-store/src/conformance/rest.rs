//! Named values, event types, keys, health.

use std::sync::Arc;

use gatepost_core::KeyId;
use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::event::Urgency;

use super::{at, event, page, publish, tenant};
use crate::{Created, EventTypeRow, KeyRow, NewEvent, Scope, Store, StoreError};

/// See the name.
pub async fn named_values_are_set_once_or_replaced(store: Arc<dyn Store>) {
    assert_eq!(store.meta("a").await.unwrap(), None);
    assert_eq!(store.init_meta("a", b"one").await.unwrap(), b"one");
    assert_eq!(store.init_meta("a", b"two").await.unwrap(), b"one");
    store.set_meta("a", b"\x00three").await.unwrap();
    store.set_meta("b", b"").await.unwrap();
    assert_eq!(store.meta("a").await.unwrap().as_deref(), Some(&b"\x00three"[..]));
    assert_eq!(store.meta("b").await.unwrap().as_deref(), Some(&b""[..]));
}

fn declared(name: &str, description: &str, seconds: i64) -> EventTypeRow {
    let raw = |text: &str| serde_json::value::RawValue::from_string(text.to_owned()).ok();
    EventTypeRow {
        name: name.parse().expect("an event type"),
        definition: Some(EventTypeDefinition {
            family: "user".into(),
            description: description.into(),
            example: raw("{ \"kept\" :  \"as given\" }"),
            examples: Default::default(),
            schema: raw("{}").map(Arc::from),
            urgency: Urgency::Urgent,
            deprecated: true,
        }),
        created_at: at(seconds),
        updated_at: at(seconds),
    }
}

/// See the name.
pub async fn event_types_are_declared_replaced_and_listed_by_name(store: Arc<dyn Store>) {
    for name in ["user.b", "user.a", "user.c"] {
        assert_eq!(store.put_event_type(declared(name, "first", 1)).await.unwrap(), Created::Yes);
    }
    assert_eq!(store.event_type("user.a").await.unwrap(), Some(declared("user.a", "first", 1)));
    assert_eq!(store.put_event_type(declared("user.a", "second", 2)).await.unwrap(), Created::No);
    let replaced = EventTypeRow { created_at: at(1), ..declared("user.a", "second", 2) };
    assert_eq!(store.event_type("user.a").await.unwrap(), Some(replaced));
    let first = store.event_types(None, 2).await.unwrap();
    let second = store.event_types(Some("user.b"), 2).await.unwrap();
    let names: Vec<&str> = first.iter().chain(&second).map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["user.a", "user.b", "user.c"]);
    assert!(store.delete_event_type("user.a").await.unwrap());
    assert!(!store.delete_event_type("user.a").await.unwrap());
    assert_eq!(store.event_type("user.a").await.unwrap(), None);
}

/// See the name.
pub async fn a_type_that_was_seen_outlives_its_declaration(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let new = || NewEvent { undeclared: true, ..event("user.x", &[]) };
    publish(&*store, acme, at(1), vec![new()]).await;
    assert!(!store.delete_event_type("user.x").await.unwrap());
    assert_eq!(store.put_event_type(declared("user.x", "now declared", 2)).await.unwrap(), Created::Yes);
    assert!(store.delete_event_type("user.x").await.unwrap());
    let seen = store.event_type("user.x").await.unwrap().unwrap();
    assert_eq!((seen.definition, seen.created_at), (None, at(1)));
    // One that was declared and is not any more is seen again when it is published again.
    store.put_event_type(declared("user.y", "declared", 2)).await.unwrap();
    store.delete_event_type("user.y").await.unwrap();
    publish(&*store, acme, at(3), vec![NewEvent { undeclared: true, ..event("user.y", &[]) }]).await;
    assert_eq!(store.event_type("user.y").await.unwrap().unwrap().definition, None);
}

fn key(number: u8, tenant: Option<&str>) -> KeyRow {
    KeyRow {
        id: KeyId::from_bytes([number; 16]),
        name: format!("key {number}"),
        hash: [number; 32],
        scopes: vec![Scope::Publish, Scope::Read],
        tenant: tenant.map(|id| id.parse().expect("a tenant id")),
        expires_at: (number == 2).then(|| at(99)),
        created_at: at(i64::from(number)),
    }
}

/// See the name.
pub async fn keys_are_kept_and_paged_newest_first(store: Arc<dyn Store>) {
    let all = [key(1, None), key(2, Some("acme")), KeyRow { scopes: Scope::ALL.to_vec(), ..key(3, None) }];
    for key in &all {
        store.create_key(key.clone()).await.unwrap();
    }
    // Asked again because the answer was lost.
    store.create_key(all[0].clone()).await.unwrap();
    let first = store.keys(page(2, None)).await.unwrap();
    assert_eq!(first.rows, [all[2].clone(), all[1].clone()]);
    let second = store.keys(page(2, first.next)).await.unwrap();
    assert_eq!((second.rows.as_slice(), second.next), (&all[..1], None));
    assert!(store.delete_key(all[1].id).await.unwrap());
    assert!(!store.delete_key(all[1].id).await.unwrap());
    assert_eq!(store.keys(page(10, None)).await.unwrap().rows.len(), 2);
}

/// See the name.
pub async fn a_deleted_tenants_keys_go_with_it(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    for key in [key(1, None), key(2, Some("acme")), key(3, Some("other"))] {
        store.create_key(key).await.unwrap();
    }
    store.delete_tenant(&acme.id, at(1)).await.unwrap().unwrap();
    tenant(&*store, "acme").await;
    let left = store.keys(page(10, None)).await.unwrap().rows;
    assert_eq!(left, [key(3, Some("other")), key(1, None)]);
}

/// See the name.
pub async fn a_healthy_store_says_so(store: Arc<dyn Store>) {
    store.check().await.unwrap();
    let before = store.stats().await.unwrap();
    store.check().await.unwrap();
    let after = store.stats().await.unwrap();
    assert_eq!((after.commits, after.requests), (before.commits + 1, before.requests + 1));
    assert_eq!(after.queued, 0);
}

/// See the name.
pub async fn a_closed_store_says_so(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    store.close().await;
    store.close().await;
    assert!(matches!(store.tenant(&acme.id).await, Err(StoreError::Closed)));
    assert!(matches!(store.set_meta("a", b"b").await, Err(StoreError::Closed)));
    assert!(matches!(store.check().await, Err(StoreError::Closed)));
}
