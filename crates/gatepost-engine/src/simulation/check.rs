//! The end of a history: everything is healed and runs to its end; then what is on disk is compared
//! with what publishers, owners and receivers know.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use futures_util::FutureExt as _;
use gatepost_core::Timestamp;
use gatepost_core::delivery::{AttemptRecord, DeliveryState, Outcome, Reason};
use gatepost_core::event::Event;
use gatepost_core::webhook::Ordering;
use gatepost_store::{DeliveryDetail, DeliveryQuery, DeliveryRow, EventQuery, Order, PageRequest, Store as _};

use super::ledger::{self, Journal, Kind};
use super::world::{Hook, World};

/// After the last fault, reads are tried again and requests under way are over within this time.
const GRACE: Duration = Duration::from_secs(8);
/// By then everything must have come to its end: budgets, pauses and silences are far shorter.
const PATIENCE: Duration = Duration::from_secs(1_200);

impl World {
    /// Heals everything, lets it run, and checks.
    pub(crate) fn finish(&mut self) {
        self.tell(|| "all is healed".to_owned());
        self.fail(0);
        self.store.revive();
        self.receivers.all_well();
        self.healed = true;
        // What is under way comes to its end first: a 410 disables what was just enabled.
        self.advance_to(self.after(GRACE));
        for position in 0..self.hooks.len() {
            if !self.hooks[position].deleted && !self.put_hook(position, true, 32) && !self.is_broken() {
                self.violate(Kind::WrongAnswer, "a healthy engine does not enable a webhook");
            }
        }
        let deadline = self.now().saturating_add(PATIENCE);
        self.advance_to(self.after(GRACE));
        loop {
            let neglected = self.neglected();
            if !neglected.is_empty() {
                self.violate(Kind::Idle, format!("receivers {neglected:?} are owed something and nothing happens"));
            }
            if self.is_broken() || self.rests() {
                break;
            }
            match self.next_event() {
                Some(next) if next <= deadline => self.advance_to(next.max(self.now())),
                _ => break,
            }
        }
        while self.disk.sweep(self.now(), 100).now_or_never().is_some_and(|p| p.is_ok_and(|p| p.more)) {}
        self.check();
    }

    fn check(&mut self) {
        let mut there: HashMap<(usize, u64), Event> = HashMap::new();
        let mut numbers: BTreeSet<u64> = BTreeSet::new();
        for tenant in 0..self.tenants.len() {
            let (own, published): (Vec<_>, Vec<_>) =
                self.stored_events(tenant).into_iter().partition(|event| event.event_type.is_own());
            self.check_own(tenant, &own);
            for event in published {
                let number =
                    serde_json::from_slice::<serde_json::Value>(&event.data).ok().and_then(|v| v["n"].as_u64());
                match number {
                    Some(number) if numbers.insert(number) => {
                        there.insert((tenant, number), event);
                    }
                    _ => self.violate(
                        Kind::WrongMatch,
                        format!("event {} was never published, or is there twice", event.id),
                    ),
                }
            }
        }
        for event in &self.events {
            let found = there.remove(&(event.tenant, event.number));
            match (&event.id, found) {
                (Some(id), None) => self.violate(Kind::Lost, format!("event {id} was accepted and is not there")),
                (Some(id), Some(found)) if *id != found.id => {
                    self.violate(Kind::WrongIds, format!("event {id} is there as {}", found.id))
                }
                (_, Some(found)) => self.check_event(event, &found),
                (None, None) => {}
            }
        }
        for ((_, number), _) in there {
            self.violate(Kind::WrongMatch, format!("event {number} is another tenant's"));
        }
        self.check_doubtful_calls(&numbers);
        self.check_order();
    }

    /// In each queue nothing was tried before everything that was accepted earlier had come to its end
    /// (DESIGN 4.4). What a person reopened or cancelled holds nobody up.
    fn check_order(&self) {
        for hook in self.hooks.iter().filter(|hook| !hook.deleted) {
            let mut free: BTreeMap<Option<(Option<String>, String)>, Timestamp> = BTreeMap::new();
            for row in self.stored_deliveries(hook) {
                let queue = match hook.ordering {
                    Ordering::Webhook => None,
                    Ordering::Subject => match &row.subject {
                        Some(subject) => Some((subject.kind.clone(), subject.id.clone())),
                        None => continue,
                    },
                    Ordering::None => continue,
                };
                let free = free.entry(queue).or_insert(Timestamp::EPOCH);
                let journal = ledger::open(&self.ledger).deliveries.get(&row.seq).cloned().unwrap_or_default();
                if let Some(first) = journal.requests.first().filter(|first| !self.clock_was_set && first.at < *free) {
                    let text = format!("delivery {} was tried at {}, before {free}", row.id(), first.at);
                    self.violate(Kind::OutOfOrder, text);
                }
                if !journal.reopened && !journal.cancelled {
                    *free = row.updated_at.max(*free);
                }
            }
        }
    }

    /// All deliveries to a webhook, in the order they were made.
    fn stored_deliveries(&self, hook: &Hook) -> Vec<DeliveryRow> {
        let mut query = DeliveryQuery {
            webhook: Some(hook.id),
            ..DeliveryQuery::of(self.tenants[hook.tenant].key, PageRequest { limit: 250, after: None })
        };
        let mut list = Vec::new();
        loop {
            let page = self.disk.deliveries(query.clone()).now_or_never().expect("inline").expect("the disk is well");
            list.extend(page.rows);
            let Some(next) = page.next else { break };
            query.page.after = Some(next);
        }
        list.reverse();
        list
    }

    fn stored_events(&self, tenant: usize) -> Vec<Event> {
        let query = EventQuery {
            order: Order::Ascending,
            ..EventQuery::of(self.tenants[tenant].key, PageRequest { limit: 250, after: None })
        };
        let mut list = Vec::new();
        let mut after = None;
        loop {
            let query = EventQuery { page: PageRequest { limit: 250, after }, ..query.clone() };
            let page = self.disk.events(query).now_or_never().expect("inline").expect("the disk is well");
            if page.rows.is_empty() {
                return list;
            }
            list.extend(page.rows.into_iter().map(|(event, _)| event));
            after = page.next;
        }
    }

    /// P1: a call of which nobody knows happened whole or not at all.
    fn check_doubtful_calls(&self, there: &BTreeSet<u64>) {
        for call in &self.in_doubt {
            if call.iter().any(|position| self.events[*position].repeated) {
                continue;
            }
            let count = call.iter().filter(|position| there.contains(&self.events[**position].number)).count();
            if count != 0 && count != call.len() {
                self.violate(Kind::HalfAccepted, format!("{count} of {} events of one call are there", call.len()));
            }
        }
    }

    fn check_event(&self, published: &super::world::Published, event: &Event) {
        let name = event.id.to_string();
        if event.data != published.data
            || event.event_type != published.event_type
            || event.urgency != published.urgency
        {
            self.violate(Kind::Lost, format!("event {name} is not kept as it was given"));
        }
        let rows = self
            .disk
            .deliveries_of(event.tenant, event.seq, 1_000)
            .now_or_never()
            .expect("inline")
            .expect("the disk is well");
        let webhooks: BTreeSet<_> = rows.iter().map(|row| row.webhook).collect();
        if webhooks.len() != rows.len() || !published.goes_to.contains(&webhooks) {
            self.violate(
                Kind::WrongMatch,
                format!("event {name} goes to {webhooks:?}, not to {:?}", published.goes_to),
            );
        }
        for row in rows {
            let detail =
                self.disk.delivery(event.tenant, row.seq).now_or_never().expect("inline").expect("the disk is well");
            let Some(detail) = detail else {
                self.violate(Kind::Lost, format!("delivery {} is gone", row.id()));
                continue;
            };
            let journal = ledger::open(&self.ledger).deliveries.get(&row.seq).cloned().unwrap_or_default();
            for (kind, text) in self.wrong_of(published, &detail, &journal) {
                self.violate(kind, format!("delivery {}: {text} ({:?}/{:?})", row.id(), row.state, row.reason));
            }
        }
    }

    /// What is wrong with one delivery at the end.
    fn wrong_of(
        &self,
        published: &super::world::Published,
        detail: &DeliveryDetail,
        journal: &Journal,
    ) -> Vec<(Kind, String)> {
        let mut wrong = Vec::new();
        let mut must = |holds: bool, kind: Kind, text: &str| {
            if !holds {
                wrong.push((kind, text.to_owned()));
            }
        };
        let (row, attempts) = (&detail.row, &detail.attempts);
        let Some(hook) = self.hooks.iter().find(|hook| hook.key == row.webhook) else {
            return vec![(Kind::WrongMatch, "to no webhook".to_owned())];
        };
        must(row.state.is_terminal(), Kind::NotDone, "has not come to an end");
        must(row.state.is_terminal() || !journal.is_over(), Kind::LostSettle, "its end was not recorded");
        let numbered = attempts.iter().enumerate().all(|(i, a)| a.number as usize == i + 1);
        must(
            numbered && row.attempts as usize == attempts.len(),
            Kind::WrongEnd,
            "its attempts are not numbered in order",
        );

        // Receivers and disk agree.
        let starts = |list: &mut dyn Iterator<Item = i64>| {
            let mut counts: BTreeMap<i64, u32> = BTreeMap::new();
            list.for_each(|at| *counts.entry(at).or_default() += 1);
            counts
        };
        let seen = starts(&mut journal.requests.iter().map(|r| r.shown.as_micros()));
        let kept = starts(&mut attempts.iter().map(|a| a.started_at.as_micros()));
        let all_seen = kept.iter().all(|(at, count)| seen.get(at).is_some_and(|s| s >= count));
        must(all_seen, Kind::WrongEnd, "an attempt is kept that no receiver saw");
        if self.crashes == 0 {
            must(journal.heard.len() == attempts.len(), Kind::WrongEnd, "an attempt is not kept");
        }
        let whole = journal.requests.iter().all(|r| {
            r.hook == hook.receiver && r.body.windows(published.data.len()).any(|part| part == &published.data[..])
        });
        must(whole, Kind::WrongBytes, "a request does not hold the event's data as given");

        // The end follows from the attempts.
        let yes = |a: &AttemptRecord| a.outcome == Outcome::Ok;
        let budget = hook.waits.len() + 1;
        let by_hand = journal.reopened || journal.cancelled;
        let explained = match (row.state, row.reason) {
            (DeliveryState::Delivered, None) => attempts.iter().any(yes) && journal.heard.contains(&Outcome::Ok),
            (DeliveryState::Failed, Some(Reason::Exhausted)) => {
                if by_hand {
                    attempts.len() >= budget
                } else {
                    attempts.len() == budget && !attempts.iter().any(yes)
                }
            }
            (DeliveryState::Failed, Some(Reason::Gone)) => attempts.iter().any(|a| a.status == Some(410)),
            (DeliveryState::Cancelled, Some(Reason::ByUser)) => journal.cancelled,
            (DeliveryState::Cancelled, Some(Reason::WebhookDeleted)) => hook.deleted,
            _ => !row.state.is_terminal(),
        };
        must(explained, Kind::WrongEnd, "its end does not follow from its attempts");
        must(
            row.state != DeliveryState::Cancelled || row.reason.is_some(),
            Kind::WrongEnd,
            "cancelled without a reason",
        );
        if !by_hand {
            must(
                row.state != DeliveryState::Delivered || attempts.last().is_some_and(yes),
                Kind::WrongEnd,
                "went on after a yes",
            );
            must(attempts.len() <= budget, Kind::WrongEnd, "more attempts than its budget has");
            // By the clock's times, which say nothing once it was set; the ledger knows better anyway.
            must(
                self.clock_was_set || spaced(attempts, &hook.waits),
                Kind::TooEarly,
                "an attempt came before its wait was over",
            );
        }
        wrong
    }
}

/// Whether attempts keep the schedule: each wait with its jitter of a tenth, and longer if asked.
fn spaced(attempts: &[AttemptRecord], waits: &[f64]) -> bool {
    attempts.windows(2).zip(waits).all(|(pair, wait)| {
        let asked = pair[0].response.as_ref().and_then(|r| r.headers.iter().find(|(name, _)| name == "Retry-After"));
        let asked = asked.and_then(|(_, value)| value.parse::<f64>().ok()).unwrap_or(0.0);
        // Microseconds are cut on the way.
        let least = Duration::from_secs_f64((wait * 0.9).max(asked)).saturating_sub(Duration::from_micros(2));
        pair[1].started_at.since(pair[0].ended_at()) >= least
    })
}
