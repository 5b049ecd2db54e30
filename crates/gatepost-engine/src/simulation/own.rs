//! Gatepost's own events in a history: each thing is told exactly once, and never the failing of what
//! tells.

use std::collections::BTreeMap;

use futures_util::FutureExt as _;
use gatepost_core::delivery::DeliveryState;
use gatepost_core::event::Event;
use gatepost_store::{OwnEventStore as _, Store as _};
use serde_json::Value;

use super::ledger::{self, Kind};
use super::world::World;

/// What a deleted webhook may still be sent.
pub(crate) const FAREWELL: &str = "gatepost.webhook.deleted";

/// Whether a body is the event that tells a webhook of its own deletion.
pub(crate) fn is_farewell(body: &[u8]) -> bool {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return false };
    body["type"] == FAREWELL
}

impl World {
    /// Publishes what is noted and writes health down, as the server does by itself; whether there was
    /// something to do.
    pub(crate) fn tell_own(&mut self) -> bool {
        let engine = self.engine();
        let (behind, noted) = (engine.inner.health.is_behind(), engine.inner.own_events.is_noted());
        if behind {
            let engine = engine.clone();
            // Told again as it was, should the store fail.
            let _ = self.run(async move { engine.note_health().await });
        }
        if noted {
            let engine = self.engine();
            let _ = self.run(async move { engine.tell_noted().await });
        }
        behind || noted
    }

    /// Own events of a tenant, at the end.
    pub(crate) fn check_own(&mut self, tenant: usize, own: &[Event]) {
        let left = self.disk.noted(0, 1_000).now_or_never().expect("inline").expect("the disk is well");
        if !left.is_empty() {
            self.violate(Kind::WrongNews, format!("{} own events were never told", left.len()));
        }
        let mut about: BTreeMap<(String, String), u32> = BTreeMap::new();
        for event in own {
            let data: Value = serde_json::from_slice(&event.data).unwrap_or_default();
            let id = data["id"].as_str().unwrap_or_default().to_owned();
            *about.entry((event.event_type.to_string(), id)).or_default() += 1;
            if data["event_type"].as_str().is_some_and(|of| of.starts_with("gatepost.")) {
                self.violate(Kind::WrongNews, format!("{} tells of the failing of an own event", event.id));
            }
            self.check_told(event);
        }
        let count = |name: &str, id: &str| about.get(&(name.to_owned(), id.to_owned())).copied().unwrap_or(0);
        for hook in self.hooks.iter().filter(|hook| hook.tenant == tenant) {
            let webhook = self.disk.webhook_by_key(hook.key).now_or_never().expect("inline").expect("well");
            let webhook = webhook.expect("no tenant is deleted here");
            let id = webhook.id.to_string();
            let told = |name| count(name, &id);
            // Every revision is one change, and every change is told once.
            let changes =
                told("gatepost.webhook.updated") + told("gatepost.webhook.disabled") + told("gatepost.webhook.deleted");
            if told("gatepost.webhook.created") != 1 || webhook.revision != 1 + changes {
                self.violate(Kind::WrongNews, format!("{id} is at revision {}: {about:?}", webhook.revision));
            }
            if (told("gatepost.webhook.deleted") == 1) != webhook.deleted_at.is_some() {
                self.violate(Kind::WrongNews, format!("the deletion of {id} was not told"));
            }
        }
        self.check_given_up(tenant, &about);
    }

    /// Each delivery that failed was told of; once, unless somebody reopened it.
    fn check_given_up(&mut self, tenant: usize, about: &BTreeMap<(String, String), u32>) {
        let journals = ledger::open(&self.ledger).deliveries.clone();
        let key = self.tenants[tenant].key;
        for (seq, journal) in journals {
            let detail = self.disk.delivery(key, seq).now_or_never().expect("inline").expect("the disk is well");
            let Some(detail) = detail else { continue };
            let id = detail.row.id().to_string();
            let told = about.get(&("gatepost.delivery.exhausted".to_owned(), id.clone())).copied().unwrap_or(0);
            let failed = detail.row.state == DeliveryState::Failed && !detail.events.are_own();
            let right = match (failed, journal.reopened) {
                (true, true) => told >= 1,
                (false, true) => true,
                (failed, false) => told == u32::from(failed),
            };
            if !right {
                self.violate(Kind::WrongNews, format!("{id} is {:?} and was told {told} times", detail.row.state));
            }
        }
    }

    /// An own event's deliveries came to an end, and hold what was published.
    fn check_told(&mut self, event: &Event) {
        let rows = self.disk.deliveries_of(event.tenant, event.seq, 1_000).now_or_never();
        for row in rows.expect("inline").expect("the disk is well") {
            if !row.state.is_terminal() {
                self.violate(Kind::NotDone, format!("{} of {} has not come to an end", row.id(), event.event_type));
            }
            let journal = ledger::open(&self.ledger).deliveries.get(&row.seq).cloned().unwrap_or_default();
            let whole = |body: &[u8]| body.windows(event.data.len()).any(|part| part == &event.data[..]);
            if !journal.requests.iter().all(|request| whole(&request.body)) {
                self.violate(Kind::WrongBytes, format!("{} does not hold the event's data", row.id()));
            }
        }
    }
}
