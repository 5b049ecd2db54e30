//! Pages of events and deliveries: a bounded number of rows is read for each.

use gatepost_core::{DeliverySeq, EventSeq, TenantKey, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params_from_iter};

use super::deliveries::row_by_seq;
use super::error::DbResult;
use super::owe::subject_key;
use super::row::{count, deleted_for, event, event_columns, is_live, paused, state_number, unverified};
use super::{batches, publish, registry};
use crate::{DeliveryQuery, DeliveryRow, EventPage, EventQuery, Order, Page};

/// Rows looked at for one page, at most: what a filter that matches nothing costs, however many rows
/// there are. A small store reads as many, so its lists are hardly faster.
const SCAN: i64 = crate::LOOKED_AT as i64;
/// Ids of events on one page of deliveries, about: batches have many.
const PAGE_IDS: usize = 10_000;
/// Numbers grow with time, but not strictly: requests reach the writer in another order than they
/// read the clock, and clocks are corrected. A window in time is widened by this much before it is
/// turned into a window of numbers; the exact comparison follows on the rows.
const DISORDER_US: i64 = 60_000_000;

/// A column that grows with the number of its row.
#[derive(Clone, Copy)]
pub(super) enum Growing {
    EventAccepted,
    EventFirstDelivery,
    DeliveryCreated,
}

impl Growing {
    fn highest(self) -> &'static str {
        match self {
            Growing::EventAccepted | Growing::EventFirstDelivery => "SELECT max(seq) FROM events",
            Growing::DeliveryCreated => "SELECT max(seq) FROM deliveries",
        }
    }

    fn probe(self) -> &'static str {
        match self {
            Growing::EventAccepted => "SELECT seq, accepted_at FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1",
            Growing::EventFirstDelivery => {
                "SELECT seq, first_delivery FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1"
            }
            Growing::DeliveryCreated => "SELECT seq, created_at FROM deliveries WHERE seq >= ?1 ORDER BY seq LIMIT 1",
        }
    }
}

/// The lowest number from which on the column is `value` or more: some forty reads by number.
pub(super) fn seek(conn: &Connection, column: Growing, value: i64) -> rusqlite::Result<i64> {
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
pub(super) struct Window {
    pub(super) from: i64,
    pub(super) to: i64,
}

/// The window of numbers that holds every row from `since` on and before `until`.
pub(super) fn window(
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

/// A page of events, with about `page_bytes` of payload on it at most.
pub(super) fn events(conn: &Connection, query: &EventQuery, page_bytes: usize) -> DbResult<EventPage> {
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
    let scan = EventScan::new(query, window, page_bytes);
    // Where this page's reading stops, if there are rows beyond it. Without a filter on the rows
    // themselves it stops where the page is full.
    let stop = if scan.filtered { scan.stop(conn)? } else { None };
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
    page_bytes: usize,
    /// Not every row that is read is shown.
    filtered: bool,
}

impl EventScan {
    fn new(query: &EventQuery, window: Window, page_bytes: usize) -> Self {
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
        let filtered = query.event_type.is_some()
            || query.subject_type.is_some()
            || query.after.is_some()
            || query.before.is_some();
        EventScan { ascending: query.order == Order::Ascending, source, key, window, page_bytes, filtered }
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
            if page.rows.len() == query.page.limit || bytes > self.page_bytes {
                return Ok(true);
            }
            let event = event(row, 0)?;
            bytes += event.data.len() + event.attributes.as_ref().map_or(0, bytes::Bytes::len);
            page.rows.push((event, row.get(14)?));
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
    let empty = Page { rows: Vec::new(), next: None };
    if !is_live(conn, query.tenant)? {
        return Ok(empty);
    }
    let webhook = match query.webhook {
        Some(id) => match registry::any_by_id(conn, query.tenant, id)? {
            Some(webhook) => Some(webhook.key.0),
            None => return Ok(empty),
        },
        None => None,
    };
    let event = match &query.event {
        Some(id) => match publish::event_seq(conn, query.tenant, id)? {
            Some(seq) => Some(seq),
            None => return Ok(empty),
        },
        None => None,
    };
    let mut window = window(conn, Growing::DeliveryCreated, query.since, query.until)?;
    window.to = window.to.min(query.page.after.unwrap_or(i64::MAX));
    let wanted = Wanted::new(query, webhook);
    // Most pages are full after a few rows; only where they are not, it is worth reading more.
    let few = count(query.page.limit).saturating_add(1).min(SCAN);
    let page = match (event, &query.subject) {
        (Some(event), _) => fill(conn, query, &wanted, of_event(conn, event, window)?)?,
        (None, None) => fill(conn, query, &Wanted::default(), of_tenant(conn, query.tenant, &wanted, window, few)?)?,
        (None, Some(subject)) => {
            let page = fill(conn, query, &wanted, of_subject(conn, query.tenant, subject, window, few)?)?;
            if page.next.is_none() || page.rows.len() == query.page.limit || few == SCAN {
                return Ok(page);
            }
            fill(conn, query, &wanted, of_subject(conn, query.tenant, subject, window, SCAN)?)?
        }
    };
    Ok(page)
}

/// Reads rows until the page is full.
fn fill(
    conn: &Connection,
    query: &DeliveryQuery,
    wanted: &Wanted,
    candidates: Candidates,
) -> DbResult<Page<DeliveryRow>> {
    let mut page = Page { rows: Vec::new(), next: None };
    let mut ids = 0;
    for seq in &candidates.seqs {
        if page.rows.len() == query.page.limit || ids > PAGE_IDS {
            page.next = page.rows.last().map(|row: &DeliveryRow| row.seq.0);
            return Ok(page);
        }
        if !wanted.takes(conn, query.tenant, *seq)? {
            continue;
        }
        if let Some(row) = row_by_seq(conn, query.tenant, DeliverySeq(*seq))?
            && is_about(conn, &row, query)?
        {
            ids += row.event_ids.len();
            page.rows.push(row);
        }
    }
    page.next = candidates.next;
    Ok(page)
}

/// What a list of deliveries is filtered by, as far as one row tells: asked by SQL, so that a row that
/// is not wanted costs a fraction of one that is shown.
#[derive(Default)]
struct Wanted {
    /// Parameters 5 to 10 of [`wanted`]; none: every row is wanted.
    values: Option<[Value; 6]>,
}

/// The state of the delivery `d` as shown: what its webhook's state means for a pending one is derived
/// ([`row_by_seq`] does the same for the rows of a page).
macro_rules! shown_state {
    () => {
        concat!(
            "CASE d.state WHEN 0 THEN (SELECT CASE WHEN (",
            deleted_for!(),
            ") IS NOT NULL THEN 4 WHEN w.enabled = 0 OR ",
            paused!(),
            " OR ",
            unverified!(),
            " THEN 1 ELSE 0 END FROM webhooks w WHERE w.key = d.webhook) ELSE d.state END"
        )
    };
}

/// The condition on the delivery `d`. Of a batch, the types of subjects and events are looked at later.
macro_rules! wanted {
    () => {
        concat!(
            "(?5 IS NULL OR d.webhook = ?5) AND d.created_at >= ?7 AND d.created_at < ?8
             AND (?6 IS NULL OR ?6 = ",
            shown_state!(),
            ") AND (?9 IS NULL OR d.grouping & 2
                    OR EXISTS (SELECT 1 FROM events e WHERE e.seq = d.event_seq AND e.subject_type = ?9))
             AND (?10 IS NULL OR d.grouping & 2
                    OR EXISTS (SELECT 1 FROM events e WHERE e.seq = d.event_seq AND e.type = ?10))"
        )
    };
}

impl Wanted {
    fn new(query: &DeliveryQuery, webhook: Option<i64>) -> Self {
        let DeliveryQuery { state, since, until, subject_type, event_type, .. } = query;
        let by_time = since.is_some() || until.is_some();
        if webhook.is_none() && state.is_none() && !by_time && subject_type.is_none() && event_type.is_none() {
            return Wanted::default();
        }
        let number = |number: Option<i64>| number.map_or(Value::Null, Value::Integer);
        let values = [
            number(webhook),
            number(state.map(state_number)),
            Value::Integer(since.map_or(i64::MIN, Timestamp::as_micros)),
            Value::Integer(until.map_or(i64::MAX, Timestamp::as_micros)),
            subject_type.clone().map_or(Value::Null, Value::Text),
            event_type.as_ref().map_or(Value::Null, |kind| Value::Text(kind.as_str().to_owned())),
        ];
        Wanted { values: Some(values) }
    }

    fn bind(values: &[Value; 6], first: [i64; 4]) -> impl Iterator<Item = Value> {
        first.map(Value::Integer).into_iter().chain(values.iter().cloned())
    }

    /// Whether a delivery is wanted.
    fn takes(&self, conn: &Connection, tenant: TenantKey, seq: i64) -> DbResult<bool> {
        let Some(values) = &self.values else { return Ok(true) };
        let sql = concat!("SELECT 1 FROM deliveries d WHERE d.tenant = ?1 AND d.seq = ?2 AND ?3 = ?4 AND ", wanted!());
        Ok(conn.prepare_cached(sql)?.exists(params_from_iter(Self::bind(values, [tenant.0, seq, 0, 0])))?)
    }
}

/// Whether a delivery is about the subject, and of the type, asked for: of a batch, one of its events.
fn is_about(conn: &Connection, row: &DeliveryRow, query: &DeliveryQuery) -> DbResult<bool> {
    let (id, kind) = (query.subject.as_deref(), query.subject_type.as_deref());
    let event_type = query.event_type.as_ref();
    if id.is_none() && kind.is_none() && event_type.is_none() {
        return Ok(true);
    }
    if row.batch {
        return batches::is_about(conn, row.seq, id, kind, event_type);
    }
    if event_type.is_some_and(|wanted| *wanted != row.event_type) {
        return Ok(false);
    }
    if id.is_none() && kind.is_none() {
        return Ok(true);
    }
    let Some(subject) = &row.subject else { return Ok(false) };
    Ok(id.is_none_or(|id| subject.id == id) && kind.is_none_or(|kind| subject.kind.as_deref() == Some(kind)))
}

/// Numbers of deliveries worth looking at.
struct Candidates {
    /// Highest first, at most [`SCAN`] or a few more.
    seqs: Vec<i64>,
    /// Where to go on, if there may be more.
    next: Option<i64>,
}

impl Candidates {
    /// What was found when at most `limit` were asked for.
    fn of(seqs: Vec<i64>, limit: i64) -> Self {
        let next = if count(seqs.len()) == limit { seqs.last().copied() } else { None };
        Candidates { seqs, next }
    }
}

fn of_event(conn: &Connection, event: EventSeq, window: Window) -> DbResult<Candidates> {
    let found = numbers(
        conn,
        "SELECT d.seq FROM events e CROSS JOIN deliveries d
             ON d.seq >= max(e.first_delivery, ?2) AND d.seq < min(e.first_delivery + e.delivery_count, ?3)
                AND d.event_seq = e.seq
         WHERE e.seq = ?1
         UNION SELECT delivery_seq FROM delivery_links
             WHERE event_seq = ?1 AND delivery_seq >= ?2 AND delivery_seq < ?3
         ORDER BY 1 DESC LIMIT ?4",
        (event.0, window.from, window.to, SCAN),
    )?;
    Ok(Candidates::of(found, SCAN))
}

/// A tenant's deliveries, as far as they are wanted.
fn of_tenant(
    conn: &Connection,
    tenant: TenantKey,
    wanted: &Wanted,
    window: Window,
    limit: i64,
) -> DbResult<Candidates> {
    let Some(values) = &wanted.values else {
        let found = numbers(
            conn,
            "SELECT seq FROM deliveries INDEXED BY deliveries_by_tenant
             WHERE tenant = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq DESC LIMIT ?4",
            (tenant.0, window.from, window.to, limit),
        )?;
        return Ok(Candidates::of(found, limit));
    };
    // The index alone tells where this page's reading stops, if there are rows beyond.
    let bounds = numbers(
        conn,
        "SELECT seq FROM deliveries INDEXED BY deliveries_by_tenant
         WHERE tenant = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq DESC LIMIT 2 OFFSET ?4",
        (tenant.0, window.from, window.to, SCAN - 1),
    )?;
    let stop = if let [stop, _] = bounds[..] { Some(stop) } else { None };
    let sql = concat!(
        "SELECT d.seq FROM deliveries d INDEXED BY deliveries_by_tenant
         WHERE d.tenant = ?1 AND d.seq >= ?2 AND d.seq < ?3 AND ",
        wanted!(),
        " ORDER BY d.seq DESC LIMIT ?4"
    );
    let first = [tenant.0, stop.unwrap_or(window.from), window.to, limit];
    let seqs = numbers(conn, sql, params_from_iter(Wanted::bind(values, first)))?;
    let next = if count(seqs.len()) == limit { seqs.last().copied() } else { stop };
    Ok(Candidates { seqs, next })
}

/// By the index of subjects: their events' own deliveries; and by that of links: batches and what was
/// made later. Of each, at most `limit` rows are read.
fn of_subject(conn: &Connection, tenant: TenantKey, subject: &str, window: Window, limit: i64) -> DbResult<Candidates> {
    let linked = numbers(
        conn,
        "SELECT delivery_seq FROM subject_links
         WHERE tenant = ?1 AND subject = ?2 AND delivery_seq >= ?3 AND delivery_seq < ?4
         ORDER BY delivery_seq DESC LIMIT ?5",
        (tenant.0, subject_key(subject), window.from, window.to, limit),
    )?;
    let linked = Candidates::of(linked, limit);
    // Events whose deliveries all have numbers past the window are skipped without reading them.
    let events_to = if window.to == i64::MAX { i64::MAX } else { seek(conn, Growing::EventFirstDelivery, window.to)? };
    let mut found = conn.prepare_cached(
        "SELECT d.seq, e.first_delivery FROM events e INDEXED BY events_by_subject LEFT JOIN deliveries d
             ON d.seq >= max(e.first_delivery, ?3) AND d.seq < min(e.first_delivery + e.delivery_count, ?4)
                AND d.event_seq = e.seq
         WHERE e.tenant = ?1 AND e.subject_id = ?2 AND e.seq < ?5
         ORDER BY e.seq DESC, d.seq DESC LIMIT ?6",
    )?;
    let mut rows = found.query((tenant.0, subject, window.from, window.to, events_to, limit))?;
    // Events without a delivery of their own count as well: a page reads so many rows, whatever it finds.
    let (mut own, mut read, mut last) = (Vec::new(), 0, 0);
    while let Some(row) = rows.next()? {
        read += 1;
        let seq: Option<i64> = row.get(0)?;
        last = seq.unwrap_or(row.get(1)?);
        own.extend(seq);
    }
    let full = read == limit && last > window.from;
    // Below this, one of the two was not read.
    let next = linked.next.max(full.then_some(last));
    let mut seqs = own;
    seqs.extend(linked.seqs);
    seqs.sort_unstable_by_key(|seq| std::cmp::Reverse(*seq));
    seqs.dedup();
    if let Some(next) = next {
        seqs.retain(|seq| *seq >= next);
    }
    Ok(Candidates { seqs, next })
}

fn numbers(conn: &Connection, sql: &str, params: impl rusqlite::Params) -> DbResult<Vec<i64>> {
    let mut found = conn.prepare_cached(sql)?;
    let rows = found.query_map(params, |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
