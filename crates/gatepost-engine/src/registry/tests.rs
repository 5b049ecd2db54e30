use std::sync::{Mutex, Weak};

use futures_util::FutureExt as _;
use gatepost_core::Timestamp;
use gatepost_core::tenant::TenantSettings;
use gatepost_store::fault::Fault;
use gatepost_store::{FaultStore, PutTenant, SqliteStore};

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
    let generation = tenants.known.read().unwrap().generation;
    let read = done(TenantState::read(&store, &acme())).unwrap().unwrap();

    done(store.delete_tenant(&acme(), NOW)).unwrap();
    tenants.forget(&acme());
    assert!(tenants.keep(&acme(), generation, read).is_none());
    assert!(get(&tenants, &store).is_none(), "deleted");

    let second = put(&store, "10.0.0.0/8");
    assert_ne!(first.key, second.key);
    assert_eq!(get(&tenants, &store).unwrap().key, second.key);
}

#[test]
fn of_two_readers_the_first_ones_state_is_both_ones() {
    let (store, tenants) = (SqliteStore::open_inline().unwrap(), Tenants::default());
    put(&store, "10.0.0.0/8");
    let late = done(TenantState::read(&store, &acme())).unwrap().unwrap();
    let first = get(&tenants, &store).unwrap();
    let second = tenants.keep(&acme(), 0, late).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
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
