//! Data of the first release, after the migration that brought blocking hooks.

use gatepost_core::TenantKey;
use gatepost_core::hooks::points::PointSettings;

use crate::Created;
use crate::hooks::StoredPoint;
use crate::sqlite::MakingSizes;
use crate::sqlite::hooks::{put_point, registry};
use crate::sqlite::schema::{Place, open_writer};
use crate::sqlite::writer::{Numbers, Tx};

#[test]
fn tenants_of_before_have_no_hooks_and_may_get_some() {
    let conn = open_writer(&Place::Memory, 1_000).unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/V1__first.sql")).unwrap();
    conn.execute_batch(
        "INSERT INTO tenants(key, id, environment, settings, registry_version, created_at, updated_at)
         VALUES (7, 'acme', 'production', '{\"allow_nets\":[]}', 3, 1, 1)",
    )
    .unwrap();
    conn.execute_batch(include_str!("../../../migrations/sqlite/V2__hooks.sql")).unwrap();
    let acme = "acme".parse().unwrap();
    let before = registry(&conn, &acme).unwrap().unwrap();
    assert_eq!((before.tenant.key, before.version, before.hooks.len(), before.points.len()), (TenantKey(7), 0, 0, 0));
    let mut numbers = Numbers { event: 1, delivery: 1 };
    let mut known_types = Default::default();
    let waits = Default::default();
    let mut unmade = false;
    let wal = crate::sqlite::checkpoint::Wal::new(crate::sqlite::checkpoint::Sizes::default());
    let tx = Tx::new(&conn, &mut numbers, &mut known_types, &mut unmade, MakingSizes::default(), &wal, &waits);
    let at = gatepost_core::Timestamp::from_secs(1);
    let point = StoredPoint {
        name: "validateUser".into(),
        definition: None,
        settings: PointSettings::default(),
        created_at: at,
        updated_at: at,
    };
    assert_eq!(put_point(&tx, TenantKey(7), &point).unwrap(), Some((point, Created::Yes)));
    assert_eq!(registry(&conn, &acme).unwrap().unwrap().version, 1);
}
