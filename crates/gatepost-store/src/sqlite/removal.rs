//! Removing many deliveries and events at once.
//!
//! Numbers of one tenant's rows mostly follow each other: each stretch of them goes by one statement
//! for each table, which costs a fraction of as many statements as there are rows.

use rusqlite::Connection;

use super::error::DbResult;

/// What is kept beside a delivery: whether there is any in a stretch of numbers, and its removal.
const BESIDE_DELIVERIES: [(&str, &str); 5] = [
    (
        "SELECT 1 FROM attempts WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
        "DELETE FROM attempts WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
    ),
    (
        "SELECT 1 FROM bodies WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
        "DELETE FROM bodies WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
    ),
    (
        "SELECT 1 FROM batch_events WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
        "DELETE FROM batch_events WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
    ),
    (
        "SELECT 1 FROM queue_places WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
        "DELETE FROM queue_places WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
    ),
    (
        "SELECT 1 FROM subject_links WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
        "DELETE FROM subject_links WHERE delivery_seq >= ?1 AND delivery_seq <= ?2",
    ),
];
const BESIDE_EVENTS: [(&str, &str); 1] = [(
    "SELECT 1 FROM delivery_links WHERE event_seq >= ?1 AND event_seq <= ?2",
    "DELETE FROM delivery_links WHERE event_seq >= ?1 AND event_seq <= ?2",
)];

/// Removes deliveries and everything that is kept with them; `seqs` in order.
pub(super) fn deliveries(conn: &Connection, seqs: &[i64]) -> DbResult<()> {
    let removal = "DELETE FROM deliveries WHERE seq >= ?1 AND seq <= ?2";
    remove(conn, seqs, &BESIDE_DELIVERIES, removal)
}

/// Removes events whose deliveries are gone; `seqs` in order.
pub(super) fn events(conn: &Connection, seqs: &[i64]) -> DbResult<()> {
    remove(conn, seqs, &BESIDE_EVENTS, "DELETE FROM events WHERE seq >= ?1 AND seq <= ?2")
}

fn remove(conn: &Connection, seqs: &[i64], beside: &[(&str, &str)], removal: &str) -> DbResult<()> {
    let (Some(lowest), Some(highest)) = (seqs.first(), seqs.last()) else { return Ok(()) };
    let mut removals = Vec::with_capacity(beside.len() + 1);
    for (any, removal) in beside {
        // Most of the time there is nothing anywhere between, not even of other tenants.
        if conn.prepare_cached(any)?.exists((lowest, highest))? {
            removals.push(*removal);
        }
    }
    removals.push(removal);
    for sql in removals {
        let mut delete = conn.prepare_cached(sql)?;
        for (from, to) in stretches(seqs) {
            delete.execute((from, to))?;
        }
    }
    Ok(())
}

/// The stretches of numbers that follow each other, each with its first and its last.
fn stretches(seqs: &[i64]) -> impl Iterator<Item = (i64, i64)> + '_ {
    seqs.chunk_by(|one, next| one + 1 == *next).filter_map(|stretch| Some((*stretch.first()?, *stretch.last()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_follow_each_other_are_one_stretch() {
        let of = |seqs: &[i64]| stretches(seqs).collect::<Vec<_>>();
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[7]), [(7, 7)]);
        assert_eq!(of(&[1, 2, 3, 5, 6, 9]), [(1, 3), (5, 6), (9, 9)]);
    }
}
