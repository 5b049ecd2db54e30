//! Data of the first release, after the migration that added answers under keys and types by tenant.

use gatepost_core::{EventSeq, TenantKey, Timestamp};

use crate::PublishedType;
use crate::sqlite::schema::{Place, open_writer};
use crate::sqlite::tenant_types;

#[test]
fn what_was_published_before_is_found_after() {
    let conn = open_writer(&Place::Memory, 1_000).unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/V1__first.sql")).unwrap();
    conn.execute_batch(
        "INSERT INTO tenants(key, id, environment, settings, registry_version, created_at, updated_at)
         VALUES (7, 'acme', 'production', '{}', 0, 1, 1);
         INSERT INTO events(seq, tenant, fingerprint, type, ts, accepted_at, urgency, registry_version, first_delivery,
             delivery_count, format, data)
         VALUES (1, 7, x'00', 'user.created', 1, 10, 1, 0, 1, 0, 0, x'31'),
                (2, 7, x'00', 'my.type', 1, 20, 1, 0, 1, 0, 0, x'31'),
                (3, 7, x'00', 'user.created', 1, 30, 1, 0, 1, 0, 0, x'31');",
    )
    .unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/V6__idempotency.sql")).unwrap();
    let mut page = tenant_types::unnoted(&conn, 10).unwrap();
    page.types.sort_by_key(|one| one.at);
    let published = |name: &str, at| PublishedType {
        tenant: TenantKey(7),
        name: name.parse().unwrap(),
        at: Timestamp::from_micros(at),
    };
    assert_eq!(page.types, [published("my.type", 20), published("user.created", 30)]);
    assert_eq!(page.upto, Some(EventSeq(3)));
}
