//! Tenants and their webhooks.

use std::sync::Arc;

use gatepost_core::grouping::Grouping;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::tenant::{Environment, TenantSettings};
use gatepost_core::{TenantId, TenantKey};

use super::{
    at, attempt, change, config, due, event, one_delivery, page, publish, settlement, tenant, try_publish, webhook,
    webhook_id,
};
use crate::{
    CancelOutcome, Created, DeliveryQuery, EventQuery, NewWebhook, Next, Publish, PublishOutcome, PutTenant,
    RetryOutcome, Settled, Store, UpdateOutcome, WebhookUpdate,
};

/// See the name.
pub async fn tenants_are_made_once_and_changed_by_member(store: Arc<dyn Store>) {
    let id: TenantId = "acme".parse().unwrap();
    let put =
        PutTenant { id: id.clone(), name: Some(Some("Acme".into())), environment: None, settings: None, now: at(1) };
    let (made, created) = store.put_tenant(put.clone()).await.unwrap();
    assert_eq!((created, made.environment, made.registry_version), (Created::Yes, Environment::Production, 0));
    assert_eq!((made.created_at, made.updated_at, &made.settings), (at(1), at(1), &TenantSettings::default()));
    let settings = TenantSettings { allow_nets: vec!["10.0.0.0/8".into()], ..TenantSettings::default() };
    let more = PutTenant {
        name: None,
        environment: Some(Environment::Sandbox),
        settings: Some(settings.clone()),
        now: at(2),
        ..put.clone()
    };
    let (changed, created) = store.put_tenant(more).await.unwrap();
    assert_eq!((created, changed.key, changed.name.as_deref()), (Created::No, made.key, Some("Acme")));
    assert_eq!((changed.environment, &changed.settings), (Environment::Sandbox, &settings));
    assert_eq!((changed.created_at, changed.updated_at), (at(1), at(2)));
    let (cleared, _) = store.put_tenant(PutTenant { name: Some(None), now: at(3), ..put }).await.unwrap();
    assert_eq!(
        (cleared.name.as_deref(), cleared.environment, &cleared.settings),
        (None, Environment::Sandbox, &settings)
    );
    assert_eq!(store.tenant(&id).await.unwrap(), Some(cleared.clone()));
    assert_eq!(store.tenant_by_key(cleared.key).await.unwrap(), Some(cleared));
    assert_eq!(store.tenant(&"other".parse().unwrap()).await.unwrap(), None);
}

/// See the name.
pub async fn tenants_are_paged_newest_first(store: Arc<dyn Store>) {
    for name in ["a", "b", "c", "d", "e"] {
        tenant(&*store, name).await;
    }
    store.delete_tenant(&"c".parse().unwrap(), at(1)).await.unwrap().unwrap();
    let first = store.tenants(page(2, None)).await.unwrap();
    let second = store.tenants(page(2, first.next)).await.unwrap();
    let names: Vec<&str> = first.rows.iter().chain(&second.rows).map(|t| t.id.as_str()).collect();
    assert_eq!((names, second.next), (vec!["e", "d", "b", "a"], None));
}

/// See the name.
pub async fn a_deleted_tenant_does_not_exist_for_any_method(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let (key, id) = (acme.key, acme.id.clone());
    let hook = webhook(&*store, key, 1).await;
    let accepted = publish(&*store, key, at(10), vec![event("a.b", &[&hook])]).await.remove(0);
    let made = &accepted.deliveries[0];
    assert_eq!(store.delete_tenant(&id, at(20)).await.unwrap().unwrap().key, key);

    for _swept in [false, true] {
        assert_eq!(store.tenant(&id).await.unwrap(), None);
        assert_eq!(store.tenant_by_key(key).await.unwrap(), None);
        assert_eq!(store.delete_tenant(&id, at(21)).await.unwrap(), None);
        assert!(store.tenants(page(10, None)).await.unwrap().rows.is_empty());
        let new = NewWebhook {
            tenant: key,
            id: webhook_id(9),
            config: config("x"),
            sealed_secrets: vec![],
            must_verify: false,
            now: at(21),
        };
        assert_eq!(store.create_webhook(new).await.unwrap(), None);
        assert_eq!(store.delete_webhook(key, hook.id, at(21)).await.unwrap(), None);
        assert_eq!(store.webhook(key, hook.id).await.unwrap(), None);
        assert_eq!(store.webhook_by_key(hook.key).await.unwrap(), None);
        assert!(store.webhooks(key, page(10, None)).await.unwrap().rows.is_empty());
        assert!(store.registry(key).await.unwrap().is_none());
        assert!(store.registry_at(key, 1, 10).await.unwrap().webhooks.is_empty());
        let outcome = try_publish(&*store, key, at(21), vec![event("a.b", &[])]).await;
        assert!(matches!(outcome, PublishOutcome::NoTenant), "{outcome:?}");
        assert_eq!(store.event(key, &accepted.event.id).await.unwrap(), None);
        assert_eq!(store.delivery(key, made.seq).await.unwrap(), None);
        assert!(store.deliveries_of(key, accepted.event.seq, 10).await.unwrap().is_empty());
        assert!(store.events(all_events(key)).await.unwrap().rows.is_empty());
        assert!(store.deliveries(all_deliveries(key)).await.unwrap().rows.is_empty());
        assert!(store.owed(None, 10).await.unwrap().is_empty());
        assert!(due(&*store, hook.key, at(100)).await.is_empty());
        assert!(matches!(store.retry(key, made.seq, at(21)).await.unwrap(), RetryOutcome::NotFound));
        assert!(matches!(store.cancel(key, made.seq, at(21)).await.unwrap(), CancelOutcome::NotFound));
        let settled = store.settle(vec![settlement(made, at(11), 200, Next::Delivered)]).await.unwrap();
        assert_eq!(settled.results, [Settled::Superseded]);
        sweep_all(&*store, 100).await;
    }
}

fn all_events(tenant: TenantKey) -> EventQuery {
    EventQuery::of(tenant, page(100, None))
}

fn all_deliveries(tenant: TenantKey) -> DeliveryQuery {
    DeliveryQuery::of(tenant, page(100, None))
}

/// Sweeps until nothing is left; how many steps that took.
async fn sweep_all(store: &dyn Store, max_rows: usize) -> usize {
    for step in 1..1_000 {
        let progress = store.sweep(at(1_000), max_rows).await.unwrap();
        assert!(progress.rows <= max_rows, "{progress:?}");
        if !progress.more {
            return step;
        }
        assert!(progress.rows > 0, "a step that does nothing and has more to do");
    }
    panic!("sweeping does not end");
}

/// See the name.
pub async fn a_tenant_made_again_starts_empty(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let hook = webhook(&*store, acme.key, 1).await;
    one_delivery(&*store, &hook).await;
    store.delete_tenant(&acme.id, at(20)).await.unwrap().unwrap();
    let again = tenant(&*store, "acme").await;
    assert_ne!(again.key, acme.key);
    assert_eq!(again.registry_version, 0);
    assert!(store.events(all_events(again.key)).await.unwrap().rows.is_empty());
    assert!(store.webhooks(again.key, page(10, None)).await.unwrap().rows.is_empty());
    // Even where the versions coincide, what was matched for the earlier one is refused.
    let other = webhook(&*store, again.key, 2).await;
    let versions = store.registry(again.key).await.unwrap().unwrap().version;
    let late =
        |tenant, hook| Publish { tenant, registry_version: versions, now: at(21), events: vec![event("a.b", &[hook])] };
    assert!(matches!(store.publish(late(acme.key, &hook)).await.unwrap(), PublishOutcome::NoTenant));
    assert!(matches!(store.publish(late(again.key, &other)).await.unwrap(), PublishOutcome::Accepted(_)));
    sweep_all(&*store, 100).await;
    assert_eq!(store.tenant(&acme.id).await.unwrap().unwrap().key, again.key);
}

/// See the name.
pub async fn deleted_tenants_are_removed_in_small_steps_and_numbers_are_not_reused(store: Arc<dyn Store>) {
    let (keep, acme) = (tenant(&*store, "keep").await, tenant(&*store, "acme").await);
    let (kept, hook) = (webhook(&*store, keep.key, 1).await, webhook(&*store, acme.key, 2).await);
    let mine = one_delivery(&*store, &kept).await;
    let mut last = None;
    for _ in 0..10 {
        let made = one_delivery(&*store, &hook).await;
        let retry = settlement(&made, at(11), 500, Next::Retry(at(99)));
        store.settle(vec![retry]).await.unwrap();
        last = Some(made);
    }
    let last = last.unwrap();
    store.delete_tenant(&acme.id, at(20)).await.unwrap().unwrap();
    assert!(sweep_all(&*store, 4).await > 5);
    assert!(store.delivery(keep.key, mine.seq).await.unwrap().is_some());
    let next = one_delivery(&*store, &kept).await;
    assert!(next.seq > last.seq && next.events.first().seq > last.events.first().seq);
}

/// See the name.
pub async fn every_change_of_webhooks_grows_the_registry_version(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let new = NewWebhook {
        tenant: acme,
        id: webhook_id(1),
        config: config("x"),
        sealed_secrets: vec![9],
        must_verify: false,
        now: at(1),
    };
    let made = store.create_webhook(new.clone()).await.unwrap().unwrap();
    assert_eq!((made.version, made.webhook.revision, made.webhook.tenant), (1, 1, acme));
    assert_eq!((&made.webhook.config, &made.webhook.sealed_secrets), (&new.config, &vec![9]));
    assert_eq!((made.webhook.created_at, made.webhook.deleted_at), (at(1), None));
    assert_eq!(store.webhook(acme, new.id).await.unwrap(), Some(made.webhook.clone()));
    let update = WebhookUpdate {
        tenant: acme,
        id: new.id,
        expected_revision: 1,
        config: config("y"),
        sealed_secrets: vec![8],
        disabled_reason: Some("gone".into()),
        must_verify: false,
        told_as: Some(OwnEvent::WebhookUpdated),
        now: at(2),
    };
    let UpdateOutcome::Updated(changed) = store.update_webhook(update).await.unwrap() else { panic!("not updated") };
    assert_eq!((changed.version, changed.webhook.revision), (2, 2));
    assert_eq!((changed.webhook.config.name.as_str(), &changed.webhook.sealed_secrets), ("y", &vec![8]));
    assert_eq!((changed.webhook.disabled_reason.as_deref(), changed.webhook.updated_at), (Some("gone"), at(2)));
    let registry = store.registry(acme).await.unwrap().unwrap();
    assert_eq!((registry.version, registry.webhooks.version(), registry.webhooks.len()), (2, 2, 1));
    let known = registry.webhooks.get(changed.webhook.key).expect("what is there is matched");
    assert_eq!((known.revision, known.grouping), (2, Grouping::of(&changed.webhook.config)));
    change(&*store, &changed.webhook, at(2), |config| config.enabled = false).await;
    let registry = store.registry(acme).await.unwrap().unwrap();
    assert_eq!((registry.version, registry.webhooks.len()), (3, 0), "nothing goes to a disabled one");
    let gone = store.delete_webhook(acme, new.id, at(3)).await.unwrap().unwrap();
    assert_eq!((gone.version, gone.webhook.deleted_at), (4, Some(at(3))));
    let registry = store.registry(acme).await.unwrap().unwrap();
    assert_eq!((registry.version, registry.webhooks.len()), (4, 0));
    assert_eq!(store.webhook(acme, new.id).await.unwrap(), None);
    assert_eq!(store.delete_webhook(acme, new.id, at(4)).await.unwrap(), None);
    assert_eq!(store.webhook_by_key(made.webhook.key).await.unwrap().unwrap().deleted_at, Some(at(3)));
    assert_eq!(store.tenant_by_key(acme).await.unwrap().unwrap().registry_version, 4);
}

/// See the name.
pub async fn an_update_of_an_older_revision_is_stale(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    change(&*store, &hook, at(1), |config| config.name = "second".into()).await;
    let late = WebhookUpdate {
        tenant: acme,
        id: hook.id,
        expected_revision: hook.revision,
        config: config("late"),
        sealed_secrets: vec![],
        disabled_reason: None,
        must_verify: false,
        told_as: Some(OwnEvent::WebhookUpdated),
        now: at(2),
    };
    assert_eq!(store.update_webhook(late.clone()).await.unwrap(), UpdateOutcome::Stale);
    assert_eq!(store.webhook(acme, hook.id).await.unwrap().unwrap().config.name, "second");
    assert_eq!(store.registry(acme).await.unwrap().unwrap().version, 2);
    let unknown = WebhookUpdate { id: webhook_id(9), ..late };
    assert_eq!(store.update_webhook(unknown).await.unwrap(), UpdateOutcome::NotFound);
}

/// See the name.
pub async fn creating_again_with_the_same_id_changes_nothing(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let new = NewWebhook {
        tenant: acme,
        id: webhook_id(1),
        config: config("x"),
        sealed_secrets: vec![9],
        must_verify: false,
        now: at(1),
    };
    let first = store.create_webhook(new.clone()).await.unwrap().unwrap();
    let again = store.create_webhook(NewWebhook { now: at(2), ..new }).await.unwrap().unwrap();
    assert_eq!(first, again);
    assert_eq!(store.registry(acme).await.unwrap().unwrap().webhooks.len(), 1);
}

/// See the name.
pub async fn p5_another_tenants_webhook_does_not_exist(store: Arc<dyn Store>) {
    let (acme, other) = (tenant(&*store, "acme").await.key, tenant(&*store, "other").await.key);
    let hook = webhook(&*store, acme, 1).await;
    assert_eq!(store.webhook(other, hook.id).await.unwrap(), None);
    assert_eq!(store.delete_webhook(other, hook.id, at(1)).await.unwrap(), None);
    let update = WebhookUpdate {
        tenant: other,
        id: hook.id,
        expected_revision: 1,
        config: config("mine"),
        sealed_secrets: vec![],
        disabled_reason: None,
        must_verify: false,
        told_as: Some(OwnEvent::WebhookUpdated),
        now: at(1),
    };
    assert_eq!(store.update_webhook(update).await.unwrap(), UpdateOutcome::NotFound);
    assert!(store.webhooks(other, page(10, None)).await.unwrap().rows.is_empty());
    assert!(store.registry(other).await.unwrap().unwrap().webhooks.is_empty());
    assert_eq!(store.webhook(acme, hook.id).await.unwrap(), Some(hook));
}

/// See the name.
pub async fn webhooks_are_paged_newest_first(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    for number in 1..=5 {
        webhook(&*store, acme, number).await;
    }
    store.delete_webhook(acme, webhook_id(3), at(1)).await.unwrap().unwrap();
    let first = store.webhooks(acme, page(2, None)).await.unwrap();
    let second = store.webhooks(acme, page(2, first.next)).await.unwrap();
    let ids: Vec<_> = first.rows.iter().chain(&second.rows).map(|webhook| webhook.id).collect();
    assert_eq!((ids, second.next), ([5, 4, 2, 1].map(webhook_id).to_vec(), None));
}

/// See the name.
pub async fn the_registry_of_the_past_can_be_asked_for(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let one = webhook(&*store, acme, 1).await; // version 1
    let two = webhook(&*store, acme, 2).await; // 2
    change(&*store, &one, at(1), |config| config.name = "renamed".into()).await; // 3
    store.delete_webhook(acme, two.id, at(2)).await.unwrap().unwrap(); // 4
    let three = webhook(&*store, acme, 3).await; // 5
    let (hook1, renamed, hook2, hook3) = (Some("hook1"), Some("renamed"), Some("hook2"), Some("hook3"));
    let cases = [
        (0, vec![(one.key, None), (three.key, None)]),
        (1, vec![(one.key, hook1), (three.key, None)]),
        (2, vec![(one.key, hook1), (two.key, hook2), (three.key, None)]),
        (3, vec![(one.key, renamed), (two.key, hook2), (three.key, None)]),
        (4, vec![(one.key, renamed), (three.key, None)]),
        (5, vec![(one.key, renamed), (three.key, hook3)]),
        (99, vec![(one.key, renamed), (three.key, hook3)]),
    ];
    for (version, expected) in cases {
        let then = store.registry_at(acme, version, 10).await.unwrap();
        let found: Vec<_> =
            then.webhooks.iter().map(|w| (w.key, w.config.as_ref().map(|config| config.name.as_str()))).collect();
        assert_eq!((found, then.truncated), (expected, false), "version {version}");
    }
    let cut = store.registry_at(acme, 2, 2).await.unwrap();
    assert_eq!((cut.webhooks.len(), cut.truncated), (2, true));
}

/// See the name.
pub async fn what_was_registered_is_known_by_revision(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await;
    let (one, two) = (webhook(&*store, acme.key, 1).await, webhook(&*store, acme.key, 2).await);
    change(&*store, &one, at(1), |config| config.name = "second".into()).await;
    change(&*store, &one, at(2), |config| config.name = "third".into()).await;
    store.delete_webhook(acme.key, one.id, at(3)).await.unwrap().unwrap(); // revision 4
    let names = |revisions: &'static [u32]| {
        let store = Arc::clone(&store);
        async move {
            let found = store.webhook_configs(one.key, revisions).await.unwrap();
            found.into_iter().map(|(revision, config)| (revision, config.name)).collect::<Vec<_>>()
        }
    };
    assert_eq!(names(&[3, 1, 3, 77]).await, [(1, "hook1".to_owned()), (3, "third".to_owned())]);
    assert_eq!(names(&[4]).await, []);
    assert_eq!(names(&[]).await, []);
    assert_eq!(store.webhook_configs(two.key, &[1, 2]).await.unwrap().len(), 1);
    store.delete_tenant(&acme.id, at(4)).await.unwrap().unwrap();
    assert_eq!(names(&[1]).await, []);
}

/// See the name.
pub async fn the_last_test_is_kept_and_is_no_change(store: Arc<dyn Store>) {
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let test = attempt(1, at(5), 204);
    store.record_test(hook.key, test.clone()).await.unwrap();
    let now = store.webhook(acme, hook.id).await.unwrap().unwrap();
    assert_eq!((now.last_test, now.revision, now.updated_at), (Some(test), hook.revision, hook.updated_at));
    assert_eq!(store.registry(acme).await.unwrap().unwrap().version, 1);
}
