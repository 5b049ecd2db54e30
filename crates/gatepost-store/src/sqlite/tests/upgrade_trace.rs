//! Data of the first release, after the migration that added the publisher's trace.

use gatepost_core::EventSeq;

use crate::sqlite::row::event_by_seq;
use crate::sqlite::schema::{Place, open_writer};

#[test]
fn events_of_before_have_no_publishers_trace() {
    let conn = open_writer(&Place::Memory, 1_000).unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/V1__first.sql")).unwrap();
    conn.execute_batch(
        "INSERT INTO events(seq, tenant, fingerprint, type, ts, accepted_at, urgency, registry_version, first_delivery,
             delivery_count, format, data)
         VALUES (1, 7, x'00', 'user.created', 1, 10, 1, 0, 1, 0, 0, x'31')",
    )
    .unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/V7__trace.sql")).unwrap();
    let event = event_by_seq(&conn, EventSeq(1)).unwrap().unwrap();
    assert_eq!((event.trace, &*event.data), (None, &b"1"[..]));
}
