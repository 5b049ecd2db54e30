//! V3 on a database with data of V1: what was owed then is owed still, and waits for nobody.

use gatepost_core::event::Urgency;
use gatepost_core::{DeliverySeq, EventSeq, TenantKey, Timestamp, WebhookKey};
use refinery::{Migration, Runner};

use crate::DueQuery;
use crate::sqlite::deliveries::{due, of_event};
use crate::sqlite::schema::{Place, migrate, open_writer};

#[test]
fn what_v1_owed_is_owed_after_v3() {
    let mut conn = open_writer(&Place::Memory, 1_000).unwrap();
    let first = Migration::unapplied("V1__first", include_str!("../../../migrations/sqlite/V1__first.sql")).unwrap();
    Runner::new(&[first]).set_grouped(true).run(&mut conn).unwrap();
    let config = serde_json::to_string(&crate::conformance::config("old")).unwrap();
    conn.execute(
        "INSERT INTO tenants(id, environment, settings, registry_version, created_at, updated_at)
         VALUES ('acme', 'production', '{}', 1, 1, 1)",
        [],
    )
    .unwrap();
    conn.execute(
        "INSERT INTO webhooks(tenant, id, revision, enabled, config, sealed_secrets, created_at, updated_at)
         VALUES (1, x'00000000000000000000000000000001', 1, 1, ?1, x'01', 1, 1)",
        [config],
    )
    .unwrap();
    conn.execute_batch(
        "INSERT INTO events(seq, tenant, fingerprint, type, ts, accepted_at, urgency, registry_version,
             first_delivery, delivery_count, format, data)
         VALUES (1, 1, x'00', 'user.created', 5, 5, 1, 1, 1, 1, 0, x'7b7d'),
                (2, 1, x'00', 'user.deleted', 6, 6, 1, 1, 2, 0, 0, x'7b7d');
         INSERT INTO deliveries(seq, tenant, webhook, event_seq, revision, state, urgency, due, attempts, budget_start,
             manual, generation, created_at)
         VALUES (1, 1, 1, 1, 1, 0, 1, 5, 0, 0, 0, 0, 5);",
    )
    .unwrap();
    migrate(&mut conn).unwrap();

    let query = DueQuery {
        webhook: WebhookKey(1),
        urgency: Urgency::Normal,
        now: Timestamp::from_secs(1),
        after: None,
        limit: 10,
        max_bytes: 1 << 20,
    };
    let (page, open) = due(&conn, &query).unwrap();
    assert_eq!(page.rows.iter().map(|due| (due.seq, due.ordered)).collect::<Vec<_>>(), [(DeliverySeq(1), false)]);
    assert!(page.rows[0].events.single().is_some() && open.is_empty());
    let listed = |event| of_event(&conn, TenantKey(1), EventSeq(event), 10).unwrap();
    assert_eq!((listed(1).len(), listed(1)[0].batch, listed(2).len()), (1, false, 0));
}
