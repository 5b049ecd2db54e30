//! When each tenant last published each type.
//!
//! Publishing only notes it in memory; every few seconds what was noted goes to the store in one write,
//! with the number of the event up to which it is complete. After a crash what is missing is found in
//! the events after that number.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_core::event::EventType;
use gatepost_core::{EventSeq, TenantKey, Timestamp};
use gatepost_store::{Accepted, PublishedType, StoreError};

use crate::engine::Engine;

/// Between two writes.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// Events looked at in one step of finding what is missing.
const STEP: usize = 2_000;
/// Steps before the server is ready: more than a crash leaves to be found.
const STEPS_AT_START: usize = 50;

type Times = HashMap<TenantKey, HashMap<EventType, Timestamp>>;

/// What is noted and not yet written.
#[derive(Default)]
pub(crate) struct PublishedLog(Mutex<Log>);

#[derive(Default)]
struct Log {
    noted: Times,
    /// Being written now: still to be shown.
    writing: Times,
    /// The last event heard of.
    heard: Option<EventSeq>,
    /// The last event heard of when the last write began. Events may be heard of a little out of
    /// order; up to here, a whole interval ago, all have been.
    complete: Option<EventSeq>,
    /// Complete up to here, in the store.
    written: Option<EventSeq>,
    /// What an earlier life of the server left out has been found.
    caught_up: bool,
}

fn later(times: &mut HashMap<EventType, Timestamp>, name: &EventType, at: Timestamp) {
    match times.get_mut(name) {
        Some(present) => *present = (*present).max(at),
        None => {
            times.insert(name.clone(), at);
        }
    }
}

impl PublishedLog {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Events of one tenant were accepted.
    pub(crate) fn accepted(&self, accepted: &[Accepted]) {
        let Some(first) = accepted.first() else { return };
        let mut log = self.lock();
        let times = log.noted.entry(first.event.tenant).or_default();
        let (mut heard, mut before) = (None, None);
        for one in accepted.iter().filter(|one| !one.duplicate) {
            // A batch is mostly of one type, and all of one moment.
            let noted = Some((&one.event.event_type, one.event.accepted_at));
            if before != noted {
                later(times, &one.event.event_type, one.event.accepted_at);
                before = noted;
            }
            heard = heard.max(Some(one.event.seq));
        }
        log.heard = log.heard.max(heard);
    }

    /// What is not written yet of one tenant.
    pub(crate) fn unwritten(&self, tenant: TenantKey) -> HashMap<EventType, Timestamp> {
        let log = self.lock();
        let mut times = log.writing.get(&tenant).cloned().unwrap_or_default();
        for (name, at) in log.noted.get(&tenant).into_iter().flatten() {
            later(&mut times, name, *at);
        }
        times
    }

    /// Takes what is to be written, unless there is nothing. `last`: nothing will be heard of any more.
    fn begin_write(&self, last: bool) -> Option<(Vec<PublishedType>, EventSeq)> {
        let mut log = self.lock();
        if !log.caught_up {
            return None;
        }
        let complete = if last { log.heard } else { log.complete };
        let upto = complete.max(log.written).unwrap_or(EventSeq(0));
        log.complete = log.heard;
        if log.noted.is_empty() && log.written == Some(upto) {
            return None;
        }
        log.writing = std::mem::take(&mut log.noted);
        let types = log.writing.iter().flat_map(|(tenant, times)| {
            times.iter().map(|(name, at)| PublishedType { tenant: *tenant, name: name.clone(), at: *at })
        });
        Some((types.collect(), upto))
    }

    fn end_write(&self, written: Option<EventSeq>) {
        let mut log = self.lock();
        let written_types = std::mem::take(&mut log.writing);
        match written {
            Some(upto) => log.written = log.written.max(Some(upto)),
            // To be written again, with what came since.
            None => {
                for (tenant, times) in written_types {
                    let noted = log.noted.entry(tenant).or_default();
                    for (name, at) in times {
                        later(noted, &name, at);
                    }
                }
            }
        }
    }
}

impl Engine {
    /// Looks through what a crash left unnoted, before anybody asks. After a long time (or an upgrade) there
    /// may be more than starting should wait for: the rest is found in the background.
    pub(crate) async fn begin_published_types(&self) {
        if let Err(error) = self.catch_up_published_types(STEPS_AT_START).await {
            tracing::warn!(%error, "what was published could not be looked through; trying again");
        }
    }

    /// Writes down what was published, for good.
    pub(crate) async fn keep_published_types(self) {
        while let Err(error) = self.catch_up_published_types(usize::MAX).await {
            tracing::warn!(%error, "what was published could not be looked through; trying again");
            tokio::time::sleep(FLUSH_EVERY).await;
        }
        loop {
            tokio::time::sleep(FLUSH_EVERY).await;
            self.write_published_types(false).await;
        }
    }

    /// Finds what an earlier life of the server did not write any more.
    async fn catch_up_published_types(&self, steps: usize) -> Result<(), StoreError> {
        let store = &self.inner.store;
        for _ in 0..steps {
            let page = store.unnoted_types(STEP).await?;
            let Some(upto) = page.upto else {
                self.inner.published.lock().caught_up = true;
                break;
            };
            store.note_published(page.types, upto).await?;
            let mut log = self.inner.published.lock();
            log.written = log.written.max(Some(upto));
        }
        Ok(())
    }

    /// Writes what was noted. Should that fail, it stays noted.
    pub(crate) async fn write_published_types(&self, last: bool) {
        let Some((types, upto)) = self.inner.published.begin_write(last) else { return };
        let written = self.inner.store.note_published(types, upto).await;
        if let Err(error) = &written {
            tracing::warn!(%error, "when types were last published could not be written; trying again");
        }
        self.inner.published.end_write(written.is_ok().then_some(upto));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use gatepost_core::EventId;
    use gatepost_core::event::Event;

    use super::*;

    fn accepted(seq: i64, tenant: i64, name: &str, at: i64) -> Accepted {
        let accepted_at = Timestamp::from_secs(at);
        let event = Event {
            seq: EventSeq(seq),
            tenant: TenantKey(tenant),
            id: EventId::numbered(accepted_at, EventSeq(seq)),
            event_type: name.parse().unwrap(),
            timestamp: accepted_at,
            accepted_at,
            subject: None,
            urgency: Default::default(),
            attributes: None,
            data: Bytes::from_static(b"null"),
            registry_version: 0,
            trace: None,
        };
        let (deliveries, wakes) = (Vec::new(), Vec::new());
        Accepted { event: Arc::new(event), delivery_count: 0, duplicate: false, deliveries, joined: 0, later: 0, wakes }
    }

    #[test]
    fn what_is_written_is_complete_up_to_an_interval_ago() {
        let log = PublishedLog::default();
        log.accepted(&[accepted(1, 7, "a", 10)]);
        assert_eq!(log.begin_write(false), None, "not caught up");
        log.lock().caught_up = true;
        log.lock().written = Some(EventSeq(0));
        let (types, upto) = log.begin_write(false).unwrap();
        assert_eq!((types.len(), upto), (1, EventSeq(0)));
        log.accepted(&[accepted(3, 7, "a", 12), accepted(4, 7, "b", 12)]);
        // Shown while it is being written, and after that failed.
        assert_eq!(log.unwritten(TenantKey(7)).len(), 2);
        log.end_write(None);
        assert_eq!(log.unwritten(TenantKey(7))[&"a".parse().unwrap()], Timestamp::from_secs(12));
        let (types, upto) = log.begin_write(false).unwrap();
        assert_eq!((types.len(), upto), (2, EventSeq(1)));
        log.end_write(Some(upto));
        assert!(log.unwritten(TenantKey(7)).is_empty());
        // Nothing new; but it is complete further on now.
        let (types, upto) = log.begin_write(false).unwrap();
        assert_eq!((types.len(), upto), (0, EventSeq(4)));
        log.end_write(Some(upto));
        assert_eq!(log.begin_write(false), None);
        assert_eq!(log.begin_write(true), None);
    }
}
