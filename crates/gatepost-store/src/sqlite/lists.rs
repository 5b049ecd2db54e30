//! Pages of events and deliveries: a bounded number of rows is read for each.

use gatepost_core::{DeliverySeq, EventSeq, TenantKey, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::deliveries::row_by_seq;
use super::error::DbResult;
use super::row::{count, event, event_columns, is_live};
use super::{publish, registry};
use crate::{DeliveryQuery, DeliveryRow, EventPage, EventQuery, Order, Page};

/// Rows looked at for one page, at most.
const SCAN: i64 = 2_000;
/// Payload bytes on one page, about.
const PAGE_BYTES: usize = 8 << 20;
/// Numbers grow with time, but not strictly: requests reach the writer in another order than they
/// read the clock, and clocks are corrected. A window in time is widened by this much before it is
/// turned into a window of numbers; the exact comparison follows on the rows.
const DISORDER_US: i64 = 60_000_000;

/// A column that grows with the number of its row.
#[derive(Clone, Copy)]
enum Growing {
    EventFirstDelivery,
    DeliveryCreated,
}

impl Growing {
    fn highest(self) -> &'static str {
        match self {
            Growing::EventFirstDelivery => "SELECT max(seq) FROM events",
            Growing::DeliveryCreated => "SELECT max(seq) FROM deliveries",
        }
    }

    fn probe(self) -> &'static str {
        match self {
            Growing::EventFirstDelivery => {
                "SELECT seq, first_delivery FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1"
            }
            Growing::DeliveryCreated => "SELECT seq, created_at FROM deliveries WHERE seq >= ?1 ORDER BY seq LIMIT 1",
        }
    }
}

/// The lowest number from which on the column is `value` or more: some forty reads by number.
fn seek(conn: &Connection, column: Growing, value: i64) -> rusqlite::Result<i64> {
    let highest: Option<i64> = conn.prepare_cached(column.highest())?.query_row([], |row| row.get(0))?;
    let mut probe = conn.prepare_cached(column.probe())?;
    let (mut low, mut high) = (1_i64, highest.unwrap_or(0) + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, i64)> = probe.query_row([middle], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        match found {
            Some((seq, at)) if at < value => low = seq + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// Numbers from `from` up to, not including, `to`.
#[derive(Clone, Copy)]
struct Window {
    from: i64,
    to: i64,
}

/// The window of numbers that holds every row from `since` on and before `until`.
fn window(
    conn: &Connection,
    column: Growing,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> rusqlite::Result<Window> {
    let mut window = Window { from: 1, to: i64::MAX };
    if let Some(since) = since {
        window.from = seek(conn, column, since.as_micros().saturating_sub(DISORDER_US))?;
    }
    if let Some(until) = until {
        // One past the time: `until` may be exclusive or not.
        window.to = seek(conn, column, until.as_micros().saturating_add(DISORDER_US + 1))?;
        let end: Option<i64> = conn.prepare_cached(column.highest())?.query_row([], |row| row.get(0))?;
        if window.to > end.unwrap_or(0) {
            window.to = i64::MAX;
        }
    }
    Ok(window)
}

pub(super) fn events(conn: &Connection, query: &EventQuery) -> DbResult<EventPage> {
    let ascending = query.order == Order::Ascending;
    // An event's own time says nothing about its number: publishers send events late, and import old ones.
    let mut window = Window { from: 1, to: i64::MAX };
    match (query.page.after, ascending) {
        (Some(cursor), true) => window.from = window.from.max(cursor.saturating_add(1)),
        (Some(cursor), false) => window.to = window.to.min(cursor),
        (None, _) => {}
    }
    let mut page = EventPage { rows: Vec::new(), next: None };
    if !is_live(conn, query.tenant)? {
        page.next = ascending.then(|| query.page.after.unwrap_or(0));
        return Ok(page);
    }
    let scan = EventScan::new(query, window);
    // Where this page's reading stops, if there are rows beyond it.
    let stop = scan.stop(conn)?;
    let full = scan.read(conn, query, stop, &mut page)?;
    page.next = match (full, stop) {
        (true, _) => page.rows.last().map(|(event, _)| event.seq.0),
        (false, Some(stop)) => Some(stop),
        (false, None) if ascending => Some(scan.end(conn)?.unwrap_or_else(|| query.page.after.unwrap_or(0))),
        (false, None) => None,
    };
    Ok(page)
}

/// The rows an event list goes through: by tenant, or by subject.
struct EventScan {
    ascending: bool,
    source: &'static str,
    key: Vec<Value>,
    window: Window,
}

impl EventScan {
    fn new(query: &EventQuery, window: Window) -> Self {
        let tenant = Value::Integer(query.tenant.0);
        let (source, key) = match &query.subject {
            Some(subject) => (
                "events e INDEXED BY events_by_subject WHERE e.tenant = ?1 AND e.subject_id = ?2",
                vec![tenant, Value::Text(subject.clone())],
            ),
            None => {
                ("events e INDEXED BY events_by_tenant WHERE e.tenant = ?1 AND ?2 IS NULL", vec![tenant, Value::Null])
            }
        };
        EventScan { ascending: query.order == Order::Ascending, source, key, window }
    }

    fn order(&self) -> &'static str {
        if self.ascending { "ASC" } else { "DESC" }
    }

    fn values(&self, more: impl IntoIterator<Item = Value>) -> Vec<Value> {
        let bounds = [Value::Integer(self.window.from), Value::Integer(self.window.to)];
        self.key.iter().cloned().chain(bounds).chain(more).collect()
    }

    /// The last row of the bounded stretch when there are more behind it.
    fn stop(&self, conn: &Connection) -> DbResult<Option<i64>> {
        let sql = format!(
            "SELECT e.seq FROM {} AND e.seq >= ?3 AND e.seq < ?4 ORDER BY e.seq {} LIMIT 2 OFFSET {}",
            self.source,
            self.order(),
            SCAN - 1,
        );
        let mut found = conn.prepare_cached(&sql)?;
        let mut rows = found.query(params_from_iter(self.values([])))?;
        let Some(last) = rows.next()?.map(|row| row.get(0)).transpose()? else { return Ok(None) };
        Ok(rows.next()?.map(|_| last))
    }

    /// Reads matching rows up to `stop`. Whether the page became full with more to come.
    fn read(&self, conn: &Connection, query: &EventQuery, stop: Option<i64>, page: &mut EventPage) -> DbResult<bool> {
        let sql = format!(
            concat!(
                "SELECT ",
                event_columns!(),
                ", e.delivery_count FROM {} AND e.seq >= ?3 AND e.seq < ?4
                   AND (?5 IS NULL OR e.type = ?5) AND (?6 IS NULL OR e.subject_type = ?6)
                   AND e.ts > ?7 AND e.ts < ?8 ORDER BY e.seq {} LIMIT ?9"
            ),
            self.source,
            self.order(),
        );
        let text = |text: Option<&str>| text.map_or(Value::Null, |text| Value::Text(text.to_owned()));
        let mut values = self.values([
            text(query.event_type.as_ref().map(|t| t.as_str())),
            text(query.subject_type.as_deref()),
            Value::Integer(query.after.map_or(i64::MIN, Timestamp::as_micros)),
            Value::Integer(query.before.map_or(i64::MAX, Timestamp::as_micros)),
            Value::Integer(count(query.page.limit).saturating_add(1)),
        ]);
        if let Some(stop) = stop {
            let (bound, value) = if self.ascending { (3, stop + 1) } else { (2, stop) };
            values[bound] = Value::Integer(value);
        }
        let mut found = conn.prepare_cached(&sql)?;
        let mut rows = found.query(params_from_iter(values))?;
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            if page.rows.len() == query.page.limit || bytes > PAGE_BYTES {
                return Ok(true);
            }
            let event = event(row, 0)?;
            bytes += event.data.len() + event.attributes.as_ref().map_or(0, bytes::Bytes::len);
            page.rows.push((event, row.get(13)?));
        }
        Ok(false)
    }

    /// The last row there is: what a feed has seen when it is at the end.
    fn end(&self, conn: &Connection) -> DbResult<Option<i64>> {
        let sql = format!("SELECT max(e.seq) FROM {} AND e.seq >= ?3 AND e.seq < ?4", self.source);
        Ok(conn.prepare_cached(&sql)?.query_row(params_from_iter(self.values([])), |row| row.get(0))?)
    }
}

pub(super) fn deliveries(conn: &Connection, query: &DeliveryQuery) -> DbResult<Page<DeliveryRow>> {
    let mut page = Page { rows: Vec::new(), next: None };
    if !is_live(conn, query.tenant)? {
        return Ok(page);
    }
    let webhook = match query.webhook {
        Some(id) => match registry::any_by_id(conn, query.tenant, id)? {
            Some(webhook) => Some(webhook.key),
            None => return Ok(page),
        },
        None => None,
    };
    let event = match &query.event {
        Some(id) => match publish::event_seq(conn, query.tenant, id)? {
            Some(seq) => Some(seq),
            None => return Ok(page),
        },
        None => None,
    };
    let mut window = window(conn, Growing::DeliveryCreated, query.since, query.until)?;
    window.to = window.to.min(query.page.after.unwrap_or(i64::MAX));
    let candidates = candidates(conn, query, event, window)?;
    let matches = |row: &DeliveryRow| {
        webhook.is_none_or(|key| row.webhook == key)
            && query.state.is_none_or(|state| row.state == state)
            && query.since.is_none_or(|since| row.created_at >= since)
            && query.until.is_none_or(|until| row.created_at < until)
            && query.subject.as_ref().is_none_or(|id| row.subject.as_ref().is_some_and(|s| s.id == *id))
            && query
                .subject_type
                .as_ref()
                .is_none_or(|kind| row.subject.as_ref().is_some_and(|s| s.kind.as_ref() == Some(kind)))
    };
    for seq in &candidates {
        if page.rows.len() == query.page.limit {
            page.next = page.rows.last().map(|row: &DeliveryRow| row.seq.0);
            return Ok(page);
        }
        page.rows.extend(row_by_seq(conn, query.tenant, DeliverySeq(*seq))?.filter(matches));
    }
    if count(candidates.len()) == SCAN {
        page.next = candidates.last().copied();
    }
    Ok(page)
}

/// Numbers of deliveries worth looking at, highest first, at most [`SCAN`].
fn candidates(conn: &Connection, query: &DeliveryQuery, event: Option<EventSeq>, window: Window) -> DbResult<Vec<i64>> {
    let tenant = query.tenant;
    if let Some(event) = event {
        return numbers(
            conn,
            "SELECT d.seq FROM events e CROSS JOIN deliveries d
                 ON d.seq >= max(e.first_delivery, ?2) AND d.seq < min(e.first_delivery + e.delivery_count, ?3)
             WHERE e.seq = ?1
             UNION ALL SELECT delivery_seq FROM delivery_links
                 WHERE event_seq = ?1 AND delivery_seq >= ?2 AND delivery_seq < ?3
             ORDER BY 1 DESC LIMIT ?4",
            (event.0, window.from, window.to, SCAN),
        );
    }
    if let Some(subject) = &query.subject {
        return of_subject(conn, tenant, subject, window);
    }
    // Without a filter on the rows themselves, a page needs no more than it shows.
    let filtered = query.webhook.is_some()
        || query.subject_type.is_some()
        || query.state.is_some()
        || query.since.is_some()
        || query.until.is_some();
    let limit = if filtered { SCAN } else { count(query.page.limit).saturating_add(1).min(SCAN) };
    numbers(
        conn,
        "SELECT seq FROM deliveries INDEXED BY deliveries_by_tenant
         WHERE tenant = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4",
        (tenant.0, window.from, window.to, limit),
    )
}

/// By the index of subjects: their events' own deliveries, and those made later (which are few).
fn of_subject(conn: &Connection, tenant: TenantKey, subject: &str, window: Window) -> DbResult<Vec<i64>> {
    // Events whose deliveries all have numbers past the window are skipped without reading them.
    let events_to = if window.to == i64::MAX { i64::MAX } else { seek(conn, Growing::EventFirstDelivery, window.to)? };
    let mut list = numbers(
        conn,
        "SELECT d.seq FROM events e INDEXED BY events_by_subject CROSS JOIN deliveries d
             ON d.seq >= max(e.first_delivery, ?3) AND d.seq < min(e.first_delivery + e.delivery_count, ?4)
         WHERE e.tenant = ?1 AND e.subject_id = ?2 AND e.seq < ?5
         ORDER BY e.seq DESC, d.seq DESC LIMIT ?6",
        (tenant.0, subject, window.from, window.to, events_to, SCAN),
    )?;
    let linked = conn.prepare_cached("SELECT 1 FROM delivery_links LIMIT 1")?.exists([])?;
    if linked {
        list.extend(numbers(
            conn,
            "SELECT l.delivery_seq FROM events e INDEXED BY events_by_subject
             CROSS JOIN delivery_links l ON l.event_seq = e.seq
             WHERE e.tenant = ?1 AND e.subject_id = ?2 AND l.delivery_seq >= ?3 AND l.delivery_seq < ?4
             ORDER BY l.delivery_seq DESC LIMIT ?5",
            (tenant.0, subject, window.from, window.to, SCAN),
        )?);
        list.sort_unstable_by_key(|seq| std::cmp::Reverse(*seq));
        list.truncate(usize::try_from(SCAN).unwrap_or(usize::MAX));
    }
    Ok(list)
}

fn numbers(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> DbResult<Vec<i64>> {
    let mut found = conn.prepare_cached(sql)?;
    let rows = found.query_map(params, |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
