//! Event types by tenant.

use std::sync::Arc;

use gatepost_core::catalogue::EventTypeDefinition;
use gatepost_core::{EventSeq, TenantKey, Timestamp};

use super::{at, event, publish, tenant};
use crate::{Created, EventTypeRow, PublishedType, Store, TenantTypeRow};

fn declared(name: &str, description: &str, seconds: i64) -> EventTypeRow {
    EventTypeRow {
        name: name.parse().expect("an event type"),
        definition: Some(EventTypeDefinition {
            family: "user".into(),
            description: description.into(),
            example: serde_json::value::RawValue::from_string("{ \"kept\" :  \"as given\" }".into()).ok(),
            examples: Default::default(),
            schema: None,
            urgency: Default::default(),
            deprecated: false,
        }),
        created_at: at(seconds),
        updated_at: at(seconds),
    }
}

fn row(from: EventTypeRow, last_published: Option<Timestamp>) -> TenantTypeRow {
    let EventTypeRow { name, definition, created_at, updated_at } = from;
    TenantTypeRow { name, definition, created_at, updated_at, last_published }
}

fn published(tenant: TenantKey, name: &str, seconds: i64) -> PublishedType {
    PublishedType { tenant, name: name.parse().expect("an event type"), at: at(seconds) }
}

fn names(rows: &[TenantTypeRow]) -> Vec<&str> {
    rows.iter().map(|row| row.name.as_str()).collect()
}

/// See the name.
pub async fn a_tenants_types_are_its_own(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let other = tenant(&*store, "other").await.key;
    for name in ["user.b", "user.a", "user.c"] {
        assert_eq!(store.put_tenant_type(acme, declared(name, "first", 1)).await.unwrap(), Some(Created::Yes));
    }
    assert_eq!(store.put_tenant_type(acme, declared("user.a", "second", 2)).await.unwrap(), Some(Created::No));
    let replaced = EventTypeRow { created_at: at(1), ..declared("user.a", "second", 2) };
    assert_eq!(store.tenant_type(acme, "user.a").await.unwrap(), Some(row(replaced, None)));
    let first = store.tenant_types(acme, None, true, 2).await.unwrap();
    let second = store.tenant_types(acme, Some("user.b"), true, 2).await.unwrap();
    assert_eq!((names(&first), names(&second)), (vec!["user.a", "user.b"], vec!["user.c"]));
    // Neither the server's catalogue nor another tenant has them.
    assert_eq!(store.event_type("user.a").await.unwrap(), None);
    assert_eq!(store.tenant_type(other, "user.a").await.unwrap(), None);
    assert!(store.tenant_types(other, None, false, 10).await.unwrap().is_empty());
    assert!(!store.delete_tenant_type(other, "user.a").await.unwrap());
    assert!(store.delete_tenant_type(acme, "user.a").await.unwrap());
    assert!(!store.delete_tenant_type(acme, "user.a").await.unwrap());
    assert_eq!(store.tenant_type(acme, "user.a").await.unwrap(), None);
}

/// See the name.
pub async fn the_latest_publish_of_a_type_is_noted(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    store.put_tenant_type(acme, declared("user.a", "d", 1)).await.unwrap();
    let notes = vec![published(acme, "user.a", 5), published(acme, "user.x", 6)];
    store.note_published(notes, EventSeq(10)).await.unwrap();
    // An earlier time does not win, and a note sent again changes nothing.
    let again = vec![published(acme, "user.a", 4), published(acme, "user.x", 6)];
    store.note_published(again, EventSeq(9)).await.unwrap();
    let a = store.tenant_type(acme, "user.a").await.unwrap().unwrap();
    assert_eq!(a, row(declared("user.a", "d", 1), Some(at(5))));
    let x = store.tenant_type(acme, "user.x").await.unwrap().unwrap();
    assert_eq!((x.definition, x.created_at, x.last_published), (None, at(6), Some(at(6))));
    assert_eq!(names(&store.tenant_types(acme, None, false, 10).await.unwrap()), ["user.a", "user.x"]);
    assert_eq!(names(&store.tenant_types(acme, None, true, 10).await.unwrap()), ["user.a"]);
    // One that was published outlives its declaration.
    assert!(store.delete_tenant_type(acme, "user.a").await.unwrap());
    let left = store.tenant_type(acme, "user.a").await.unwrap().unwrap();
    assert_eq!((left.definition, left.last_published), (None, Some(at(5))));
}

/// See the name.
pub async fn types_not_noted_yet_are_found_in_the_events(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let other = tenant(&*store, "other").await.key;
    assert_eq!(store.unnoted_types(10).await.unwrap(), Default::default());
    for (tenant, name, seconds) in [(acme, "a", 1), (other, "a", 2), (acme, "b", 3), (acme, "a", 4)] {
        publish(&*store, tenant, at(seconds), vec![event(name, &[])]).await;
    }
    let mut page = store.unnoted_types(3).await.unwrap();
    page.types.sort_by_key(|one| one.at);
    assert_eq!(page.types, [published(acme, "a", 1), published(other, "a", 2), published(acme, "b", 3)]);
    store.note_published(page.types, page.upto.unwrap()).await.unwrap();
    let page = store.unnoted_types(3).await.unwrap();
    assert_eq!(page.types, [published(acme, "a", 4)]);
    store.note_published(page.types, page.upto.unwrap()).await.unwrap();
    assert_eq!(store.unnoted_types(3).await.unwrap(), Default::default());
    assert_eq!(store.tenant_type(acme, "a").await.unwrap().unwrap().last_published, Some(at(4)));
    assert_eq!(store.tenant_type(other, "a").await.unwrap().unwrap().last_published, Some(at(2)));
}

/// See the name.
pub async fn a_deleted_tenants_types_go_with_it(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    store.put_tenant_type(acme.key, declared("user.a", "d", 1)).await.unwrap();
    store.delete_tenant(&acme.id, at(2)).await.unwrap();
    assert_eq!(store.tenant_type(acme.key, "user.a").await.unwrap(), None);
    assert_eq!(store.put_tenant_type(acme.key, declared("user.b", "d", 1)).await.unwrap(), None);
    // A note that comes late is left out.
    store.note_published(vec![published(acme.key, "user.x", 3)], EventSeq(1)).await.unwrap();
    while store.sweep(at(4), 1).await.unwrap().more {}
    let again = tenant(&*store, "acme").await.key;
    assert!(store.tenant_types(again, None, false, 10).await.unwrap().is_empty());
}
