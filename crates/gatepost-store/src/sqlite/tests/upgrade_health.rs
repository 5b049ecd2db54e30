//! V4 on a database with data of V1.

use rusqlite::Connection;

use crate::sqlite::schema::{Place, migrate, open_writer};

fn at_v1() -> Connection {
    let conn = open_writer(&Place::Memory, 1_000).unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/V1__first.sql")).unwrap();
    conn
}

#[test]
fn what_v1_held_is_neither_held_nor_ill_after_v4() {
    let conn = at_v1();
    conn.execute_batch(
        "INSERT INTO tenants(id, environment, settings, registry_version, created_at, updated_at)
             VALUES ('acme', 'production', '{}', 3, 1, 1);
         INSERT INTO webhooks(tenant, id, revision, enabled, config, sealed_secrets, created_at, updated_at)
             VALUES (1, x'00000000000000000000000000000001', 1, 1, '{}', x'01', 1, 1);",
    )
    .unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/V4__health.sql")).unwrap();
    let row: (i64, i64, Option<String>, Option<i64>) = conn
        .query_row("SELECT verified, must_verify, verification_error, farewell FROM webhooks", [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })
        .unwrap();
    assert_eq!(row, (0, 0, None, None));
    let required: i64 = conn.query_row("SELECT must_verify FROM tenants", [], |row| row.get(0)).unwrap();
    assert_eq!(required, 0);
    for table in ["own_events", "webhook_health", "tenant_revisions"] {
        let rows: i64 = conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}

#[test]
fn a_new_database_has_it_too() {
    let mut conn = open_writer(&Place::Memory, 1_000).unwrap();
    migrate(&mut conn).unwrap();
    conn.prepare("SELECT farewell FROM webhooks").unwrap();
}
