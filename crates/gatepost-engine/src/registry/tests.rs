use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, Weak};

use futures_util::FutureExt as _;
use gatepost_core::tenant::TenantSettings;
use gatepost_core::{Timestamp, WebhookId};
use gatepost_store::fault::Fault;
use gatepost_store::{FaultStore, NewWebhook, PutTenant, SqliteStore};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn done<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("an inline store answers at once")
}

fn put(store: &dyn Store, net: &str) -> Tenant {
    let settings = Some(TenantSettings { allow_nets: vec![net.to_owned()], ..TenantSettings::default() });
    let put = PutTenant { id: acme(), name: None, environment: None, settings, now: NOW };
    done(store.put_tenant(put)).unwrap().0
}

fn get(tenants: &Tenants, store: &dyn Store) -> Option<Arc<TenantState>> {
    done(tenants.get(store, &acme())).unwrap()
}

fn nets(state: &TenantState) -> Vec<String> {
    state.tenant.load().settings.allow_nets.clone()
}

#[test]
fn what_was_read_before_a_forgetting_is_not_kept_after_it() {
    let (store, tenants) = (SqliteStore::open_inline().unwrap(), Tenants::default());
    let first = put(&store, "10.0.0.0/8");
    let place = tenants.place(&acme());
    let read = done(TenantState::read(&store, &acme())).unwrap().unwrap();

    done(store.delete_tenant(&acme(), NOW)).unwrap();
    tenants.forget(&acme());
    assert!(tenants.keep(&acme(), &place, read).is_none());
    assert!(get(&tenants, &store).is_none(), "deleted");

    let second = put(&store, "10.0.0.0/8");
    assert_ne!(first.key, second.key);
    assert_eq!(get(&tenants, &store).unwrap().key, second.key);
}

/// How often a store is asked for a tenant's webhooks, and what it does then.
fn counting(then: impl Fn(usize) -> Fault + Send + Sync + 'static) -> (FaultStore, Arc<AtomicUsize>) {
    let disk: Arc<dyn Store> = Arc::new(SqliteStore::open_inline().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let store = FaultStore::new(disk, move |call| match call.method {
        "registry" => then(counted.fetch_add(1, Ordering::SeqCst)),
        _ => Fault::None,
    });
    (store, asked)
}

#[test]
fn of_two_readers_one_reads_and_its_state_is_both_ones() {
    let (store, asked) = counting(|_| Fault::None);
    let tenants = Tenants::default();
    put(&store, "10.0.0.0/8");
    let place = tenants.place(&acme());
    let turn = done(place.reading.lock());
    let id = acme();
    let (mut first, mut second) = (Box::pin(tenants.get(&store, &id)), Box::pin(tenants.get(&store, &id)));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none(), "somebody reads");
    drop(turn);
    let first = done(first).unwrap().unwrap();
    assert!(Arc::ptr_eq(&first, &done(second).unwrap().unwrap()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[test]
fn a_reading_that_fails_or_finds_nobody_leaves_nothing_behind() {
    let (store, asked) = counting(|number| if number == 0 { Fault::Before } else { Fault::None });
    let tenants = Tenants::default();
    assert!(get(&tenants, &store).is_none());
    assert!(tenants.known.read().unwrap().by_id.is_empty());
    put(&store, "10.0.0.0/8");
    assert!(done(tenants.get(&store, &acme())).is_err());
    assert!(tenants.known.read().unwrap().by_id.is_empty());
    assert!(get(&tenants, &store).is_some());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn p10_tenants_nobody_uses_leave_memory_and_come_back() {
    let store = SqliteStore::open_inline().unwrap();
    let tenants = Tenants { room: 10 * TENANT, ..Tenants::default() };
    let id = |number: usize| format!("t{number}").parse::<TenantId>().unwrap();
    for number in 0..200 {
        let put = PutTenant { id: id(number), name: None, environment: None, settings: None, now: NOW };
        done(store.put_tenant(put)).unwrap();
        done(tenants.get(&store, &id(number))).unwrap().unwrap();
        // One is used all the time.
        done(tenants.get(&store, &id(0))).unwrap().unwrap();
        let held = tenants.known.read().unwrap().by_id.len();
        assert!(held <= 10, "{held}");
        assert!(tenants.cached(&id(number)).is_some(), "the one that was asked for stays");
    }
    let held = (0..200).filter(|number| tenants.known.read().unwrap().by_id.contains_key(&id(*number))).count();
    assert!(held >= 7, "{held}");
    assert_eq!(done(tenants.get(&store, &id(77))).unwrap().unwrap().tenant.load().id, id(77));
}

/// A reader that is overtaken by a change, between its reading of the tenant and of the webhooks,
/// reads again.
#[test]
fn an_overtaken_reader_reads_again() {
    let disk: Arc<dyn Store> = Arc::new(SqliteStore::open_inline().unwrap());
    let tenants = Arc::new(Tenants::default());
    put(&*disk, "10.0.0.0/8");
    let overtakes = Mutex::new(Some((Arc::clone(&disk), Arc::downgrade(&tenants))));
    let store = FaultStore::new(Arc::clone(&disk), move |call| {
        if call.method == "registry"
            && let Some((disk, tenants)) = overtakes.lock().unwrap().take()
        {
            let tenants = Weak::upgrade(&tenants).unwrap();
            let id = acme();
            let changing = tenants.changing(&id);
            let tenant = put(&*disk, "192.168.0.0/16");
            done(changing.put(&*disk, tenant.key));
        }
        Fault::None
    });
    assert_eq!(nets(&get(&tenants, &store).unwrap()), ["192.168.0.0/16"]);
    assert_eq!(nets(&get(&tenants, &store).unwrap()), ["192.168.0.0/16"], "and that is what is kept");
}

#[test]
fn a_change_of_members_keeps_the_compiled_webhooks_and_shows_at_once() {
    let (store, tenants) = (SqliteStore::open_inline().unwrap(), Tenants::default());
    put(&store, "10.0.0.0/8");
    let before = get(&tenants, &store).unwrap();
    let id = acme();
    let changing = tenants.changing(&id);
    let tenant = put(&store, "192.168.0.0/16");
    done(changing.put(&store, tenant.key));
    let after = get(&tenants, &store).unwrap();
    assert!(Arc::ptr_eq(&before, &after));
    assert_eq!(nets(&after), ["192.168.0.0/16"]);
}

#[test]
fn a_tenant_made_again_takes_nothing_over() {
    let (store, tenants) = (SqliteStore::open_inline().unwrap(), Tenants::default());
    put(&store, "10.0.0.0/8");
    let old = get(&tenants, &store).unwrap();
    // Deleted by somebody who told nobody.
    done(store.delete_tenant(&acme(), NOW)).unwrap();
    let id = acme();
    let changing = tenants.changing(&id);
    let tenant = put(&store, "192.168.0.0/16");
    done(changing.put(&store, tenant.key));
    let new = get(&tenants, &store).unwrap();
    assert_eq!((new.key, nets(&new)), (tenant.key, vec!["192.168.0.0/16".to_owned()]));
    assert_eq!((old.tenant.load().key, nets(&old)), (old.key, vec!["10.0.0.0/8".to_owned()]));
}

#[test]
fn a_change_that_is_abandoned_is_looked_up() {
    let (store, tenants) = (SqliteStore::open_inline().unwrap(), Tenants::default());
    put(&store, "10.0.0.0/8");
    get(&tenants, &store).unwrap();
    let id = acme();
    let changing = tenants.changing(&id);
    done(store.delete_tenant(&acme(), NOW)).unwrap();
    drop(changing);
    assert!(get(&tenants, &store).is_none());
}

fn webhook(store: &dyn Store, tenant: TenantKey, number: u128) -> RegistryChange {
    let new = NewWebhook {
        tenant,
        id: WebhookId::from_bytes(number.to_be_bytes()),
        config: gatepost_store::conformance::config("hook"),
        sealed_secrets: Vec::new(),
        must_verify: false,
        now: NOW,
    };
    done(store.create_webhook(new)).unwrap().unwrap()
}

#[test]
fn changes_that_come_out_of_order_are_taken_in_one_by_one() {
    let (store, asked) = counting(|_| Fault::None);
    let tenants = Tenants::default();
    let key = put(&store, "10.0.0.0/8").key;
    let state = get(&tenants, &store).unwrap();
    let changes: Vec<_> = (1..=4).map(|number| webhook(&store, key, number)).collect();
    let shown = || (state.registry().version(), state.registry().len());
    for (number, expected) in [(1, (0, 0)), (2, (0, 0)), (0, (3, 3)), (2, (3, 3)), (3, (4, 4))] {
        done(state.apply(&store, &changes[number])).unwrap();
        assert_eq!(shown(), expected, "after change {number}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "the store was not asked again");
    // One whose predecessor never comes; a publisher that is refused reads, and nothing is left to wait.
    webhook(&store, key, 5);
    let sixth = webhook(&store, key, 6);
    done(state.apply(&store, &sixth)).unwrap();
    assert_eq!(shown(), (4, 4));
    done(state.catch_up(&store, 6)).unwrap();
    assert_eq!((shown(), state.changing.try_lock().unwrap().len()), ((6, 6), 0));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // Without a publisher, too many of them.
    webhook(&store, key, 7);
    for number in 0..=EARLY_MAX as u128 {
        let change = webhook(&store, key, 8 + number);
        done(state.apply(&store, &change)).unwrap();
    }
    assert_eq!((shown(), state.changing.try_lock().unwrap().len()), ((8 + EARLY_MAX as u64, 8 + EARLY_MAX), 0));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

/// A publisher hears of a change from the store before it is applied.
#[test]
fn many_webhooks_are_not_read_anew_for_a_change_that_is_about_to_arrive() {
    let (store, asked) = counting(|_| Fault::None);
    let tenants = Tenants::default();
    let key = put(&store, "10.0.0.0/8").key;
    let many = LARGE as u64 + 1;
    (1..=many).for_each(|number| drop(webhook(&store, key, number.into())));
    let state = get(&tenants, &store).unwrap();
    assert_eq!((state.registry().len(), asked.load(Ordering::SeqCst)), (LARGE + 1, 1));
    let change = webhook(&store, key, 5_000);
    // Its clock stands still but for those who wait.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (publisher, owner) = tokio::join!(state.catch_up(&store, many + 1), async {
            tokio::task::yield_now().await;
            state.apply(&store, &change).await
        });
        publisher.and(owner).unwrap();
        assert_eq!((state.registry().version(), asked.load(Ordering::SeqCst)), (many + 1, 1));
        // One that does not: it was made by others.
        webhook(&store, key, 5_001);
        state.catch_up(&store, many + 2).await.unwrap();
        assert_eq!((state.registry().version(), asked.load(Ordering::SeqCst)), (many + 2, 2));
    });
}
