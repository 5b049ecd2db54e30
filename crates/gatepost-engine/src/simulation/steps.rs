//! What happens in a history: publishers, owners, operators and misfortune, by chance.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use gatepost_core::event::{EventType, Subject, Urgency};
use gatepost_core::retry::RetryOverride;
use gatepost_core::webhook::{Batch, Ordering};
use gatepost_core::{DeliveryId, EventId, WebhookKey};
use gatepost_store::{PageRequest, Store as _};

use super::ledger::{self, Kind};
use super::receivers::{Manner, hook_of, url};
use super::world::{Hook, Published, World};
use crate::error::{ConflictCode, Error};
use crate::ops::{PublishInput, WebhookInput};

const PATTERNS: [&str; 5] = ["*", "user.*", "user.created", "group.changed", "gatepost.*"];
const TYPES: [&str; 3] = ["user.created", "user.deleted", "group.changed"];
const EVEN: &str = "data.n % 2 == 0";
const HOOKS_MAX: usize = 12;

fn short<T>(answer: &Option<Result<T, Error>>) -> String {
    match answer {
        None => "the process died".to_owned(),
        Some(Ok(_)) => "yes".to_owned(),
        Some(Err(error)) => error.to_string(),
    }
}

impl World {
    /// One thing happens.
    pub(crate) fn step(&mut self) {
        if self.clock_dice.one_in(50) {
            self.set_clock();
        }
        match self.dice.below(100) {
            0..=29 => self.publish(),
            30..=33 => self.publish_again(),
            34..=39 => self.create_hook(),
            40..=45 => self.change_hook(),
            46 => self.delete_hook(),
            47..=50 => self.retry(),
            51..=54 => self.cancel(),
            55..=60 => self.change_manner(),
            61..=63 => {
                let rate = self.dice.of(&[0, 0, 20, 80, 200]);
                self.tell(|| format!("{rate} of 1000 store calls fail"));
                self.fail(rate);
            }
            64..=65 => self.crash(),
            66..=67 => {
                let (calls, after) = (self.dice.below(20), self.dice.one_in(2));
                self.store.die_in(calls, after);
            }
            68..=69 => self.sweep(),
            70..=79 => {
                let millis = 1 + self.dice.below(100);
                let target = self.after(Duration::from_millis(millis));
                self.advance_to(target);
            }
            80..=86 => {
                let seconds = 1 + self.dice.below(12);
                let target = self.after(Duration::from_secs(seconds));
                self.advance_to(target);
            }
            _ => {
                if let Some(next) = self.next_event() {
                    let target = next.max(self.now());
                    self.advance_to(target);
                }
            }
        }
        // Sometimes several things happen before the lane runs.
        if !self.dice.one_in(4) {
            self.pump();
        }
    }

    fn some_tenant(&mut self) -> usize {
        self.dice.index(self.tenants.len())
    }

    /// The webhooks an event goes to, by the registry as its owners know it.
    fn matching(&self, tenant: usize, event_type: &EventType, number: u64) -> BTreeSet<WebhookKey> {
        let wants = |hook: &&Hook| {
            let by_type = match hook.pattern {
                "*" => true,
                "user.*" => event_type.as_str().starts_with("user."),
                exact => event_type.as_str() == exact,
            };
            hook.tenant == tenant
                && hook.enabled
                && !hook.deleted
                && by_type
                && (!hook.even || number.is_multiple_of(2))
        };
        self.hooks.iter().filter(wants).map(|hook| hook.key).collect()
    }

    pub(crate) fn input_of(event: &Published) -> PublishInput {
        PublishInput {
            id: event.caller_id.clone(),
            fallback: None,
            event_type: event.event_type.clone(),
            timestamp: None,
            subject: event.subject.clone(),
            data: event.data.clone(),
            attributes: None,
            urgency: Some(event.urgency),
            trace: None,
        }
    }

    fn publish(&mut self) {
        let tenant = self.some_tenant();
        // Now and then a backlog.
        let count = if self.dice.one_in(6) { 8 + self.dice.below(12) } else { 1 + self.dice.below(3) };
        let first = self.events.len();
        for position in first..first + count as usize {
            let number = position as u64;
            let event_type: EventType = self.dice.of(&TYPES).parse().expect("an event type");
            let own_id = self.dice.one_in(2);
            // Spaces and long forms: what is re-serialised shows.
            let data =
                Bytes::from(format!("{{ \"n\":{number} ,\"x\" : 1.00,\"s\":\"\\u0041 {}\"}}", self.dice.below(1_000)));
            let subject = self.some_subject();
            self.events.push(Published {
                tenant,
                number,
                caller_id: own_id.then(|| format!("ev-{number}").parse::<EventId>().expect("an id")),
                goes_to: vec![self.matching(tenant, &event_type, number)],
                event_type,
                urgency: self.dice.of(&Urgency::ALL),
                subject,
                data,
                id: None,
                repeated: false,
            });
        }
        let inputs: Vec<_> = self.events[first..].iter().map(World::input_of).collect();
        let (engine, id) = (self.engine(), self.tenants[tenant].id.clone());
        let answer = self.run(async move { engine.publish(&id, inputs, count > 1).await });
        self.tell(|| format!("publish {count} in tenant {tenant}: {}", short(&answer)));
        match answer {
            Some(Ok(list)) => {
                for (offset, published) in list.into_iter().enumerate() {
                    self.accepted(first + offset, &published, false);
                }
            }
            None | Some(Err(Error::Store(_))) => {
                self.in_doubt.push((first..self.events.len()).collect());
            }
            Some(Err(error)) => self.violate(Kind::WrongAnswer, format!("publish answered {error}")),
        }
    }

    fn some_subject(&mut self) -> Option<Subject> {
        let id = self.dice.of(&[None, Some("anna"), Some("anna"), Some("bert"), Some("cleo")])?;
        Some(Subject { kind: self.dice.one_in(2).then(|| "user".to_owned()), id: id.to_owned() })
    }

    fn accepted(&mut self, position: usize, published: &crate::ops::Published, again: bool) {
        let event = &self.events[position];
        let mut wrong = Vec::new();
        if again {
            if event.id.is_some() && !published.duplicate {
                wrong.push((Kind::WrongAnswer, "a repeated event was not called a duplicate"));
            }
            if event.id.as_ref().is_some_and(|id| *id != published.event.id) {
                wrong.push((Kind::WrongIds, "a repeated event has another id"));
            }
        } else if published.duplicate {
            wrong.push((Kind::WrongAnswer, "a new event was called a duplicate"));
        }
        if !event.goes_to.iter().any(|set| set.len() == published.deliveries as usize) {
            wrong.push((Kind::WrongMatch, "an event was answered with another number of deliveries"));
        }
        if published.event.data != event.data {
            wrong.push((Kind::WrongBytes, "an event was answered with other data"));
        }
        for (kind, text) in wrong {
            self.violate(kind, format!("{text}: event {position}"));
        }
        self.events[position].id = Some(published.event.id.clone());
    }

    /// The same event again, or another one under its id.
    fn publish_again(&mut self) {
        let own: Vec<_> = (0..self.events.len()).filter(|i| self.events[*i].caller_id.is_some()).collect();
        if own.is_empty() {
            return;
        }
        let position = self.dice.of(&own);
        let event = self.events[position].clone();
        let other = self.dice.one_in(3) && event.id.is_some();
        let mut input = World::input_of(&event);
        if other {
            input.data = Bytes::from_static(b"[\"something else\"]");
        } else if event.id.is_none() {
            // If the first call did not happen, this one is what counts.
            let now = self.matching(event.tenant, &event.event_type, event.number);
            self.events[position].goes_to.push(now);
        }
        self.events[position].repeated = true;
        let (engine, id) = (self.engine(), self.tenants[event.tenant].id.clone());
        let answer = self.run(async move { engine.publish(&id, vec![input], false).await });
        match answer {
            Some(Ok(_)) if other => self.violate(Kind::WrongAnswer, "another body under a taken id was accepted"),
            Some(Ok(list)) => self.accepted(position, &list[0], true),
            Some(Err(Error::Conflict { code: ConflictCode::EventIdConflict, .. })) if other => {}
            None | Some(Err(Error::Store(_))) => {}
            Some(Err(error)) => self.violate(Kind::WrongAnswer, format!("publishing again answered {error}")),
        }
    }

    pub(crate) fn input_for(
        hook: usize,
        pattern: &str,
        even: bool,
        waits: &[f64],
        max_in_flight: u32,
        enabled: bool,
    ) -> WebhookInput {
        WebhookInput {
            name: Some(format!("hook {hook}")),
            url: Some(url(hook)),
            events: Some(vec![pattern.to_owned()]),
            filter: even.then(|| EVEN.to_owned()),
            retry: Some(RetryOverride { waits: Some(waits.to_vec()), ..RetryOverride::default() }),
            timeout_ms: Some(3_000),
            max_in_flight: Some(max_in_flight),
            enabled: Some(enabled),
            ..WebhookInput::default()
        }
    }

    pub(crate) fn create_hook(&mut self) {
        if self.hooks.len() >= HOOKS_MAX {
            return;
        }
        let tenant = self.some_tenant();
        let manner = Manner::any(&mut self.dice);
        let receiver = self.receivers.add(manner);
        let (pattern, even) = (self.dice.of(&PATTERNS), self.dice.one_in(6));
        let waits: Vec<f64> = self.dice.of(&[vec![], vec![0.5], vec![1.0, 2.0], vec![0.2, 5.0, 30.0], vec![1.0; 6]]);
        let mut input =
            World::input_for(receiver, pattern, even, &waits, self.dice.of(&[1, 2, 32]), !self.dice.one_in(8));
        input.profile = Some(self.dice.of(&["standard", "standard", "cloudevents"]).to_owned());
        let ordering = self.dice.of(&[Ordering::None, Ordering::None, Ordering::Subject, Ordering::Webhook]);
        let batch = self.some_batch(ordering);
        (input.ordering, input.batch) = (Some(ordering), batch);
        let (engine, owner) = (self.engine(), self.tenants[tenant].clone());
        let answer = self.run(async move { engine.create_webhook(&owner, input).await.map(|(view, _)| view.webhook) });
        self.tell(|| format!("create webhook of receiver {receiver} ({manner:?}): {}", short(&answer)));
        if let Some(Err(error)) = &answer
            && !matches!(error, Error::Store(_))
        {
            return self.violate(Kind::WrongAnswer, format!("creating a webhook answered {error}"));
        }
        let sure = matches!(answer, Some(Ok(_)));
        let all = PageRequest { after: None, limit: 10 * HOOKS_MAX };
        let kept = self.disk.webhooks(self.tenants[tenant].key, all).now_or_never();
        let kept = kept.expect("inline").expect("the disk is well").rows;
        let found = kept.into_iter().find(|w| hook_of(&w.config.url) == receiver);
        match found {
            Some(webhook) => {
                ledger::open(&self.ledger).closed(receiver, sure && !webhook.config.enabled);
                ledger::open(&self.ledger).ordered(receiver, ordering);
                self.hooks.push(Hook {
                    tenant,
                    receiver,
                    id: webhook.id,
                    key: webhook.key,
                    pattern,
                    even,
                    waits,
                    ordering,
                    batch,
                    enabled: webhook.config.enabled,
                    deleted: false,
                });
            }
            None if sure => self.violate(Kind::Lost, "a registered webhook is not there"),
            None => {}
        }
    }

    fn some_batch(&mut self, ordering: Ordering) -> Option<Batch> {
        (ordering != Ordering::Subject && self.dice.one_in(3)).then(|| Batch {
            max_events: self.dice.of(&[1, 2, 5, 100]),
            max_wait_ms: self.dice.of(&[0, 20, 1_000, 20_000]),
            max_bytes: 1_024,
        })
    }

    fn change_hook(&mut self) {
        let Some(position) = self.some_hook() else { return };
        let enabled = if self.dice.one_in(4) { self.hooks[position].enabled } else { !self.hooks[position].enabled };
        let max_in_flight = self.dice.of(&[1, 2, 32]);
        if self.dice.one_in(3) {
            self.hooks[position].batch = self.some_batch(self.hooks[position].ordering);
        }
        self.put_hook(position, enabled, max_in_flight);
    }

    /// Its owner changes a webhook; whether it is known to have happened.
    pub(crate) fn put_hook(&mut self, position: usize, enabled: bool, max_in_flight: u32) -> bool {
        let hook = self.hooks[position].clone();
        let mut input = World::input_for(hook.receiver, hook.pattern, hook.even, &hook.waits, max_in_flight, enabled);
        (input.ordering, input.batch) = (Some(hook.ordering), hook.batch);
        let (engine, owner) = (self.engine(), self.tenants[hook.tenant].clone());
        let answer = self.run(async move {
            let present = engine.webhook(&owner, hook.id).await?.webhook;
            engine.update_webhook(&owner, hook.id, present.revision, input).await
        });
        let sure = matches!(answer, Some(Ok(_)));
        self.tell(|| format!("webhook of receiver {}: enabled {enabled}: {}", hook.receiver, short(&answer)));
        if let Some(Err(error)) = &answer
            && !matches!(error, Error::Store(_))
        {
            self.violate(Kind::WrongAnswer, format!("changing a webhook answered {error}"));
        }
        self.recall(position..position + 1);
        if sure && self.hooks[position].enabled != enabled {
            self.violate(Kind::Lost, "a change of a webhook is not there");
        }
        ledger::open(&self.ledger).closed(hook.receiver, sure && !enabled);
        sure
    }

    fn delete_hook(&mut self) {
        let Some(position) = self.some_hook() else { return };
        let hook = self.hooks[position].clone();
        let (engine, owner) = (self.engine(), self.tenants[hook.tenant].clone());
        let answer = self.run(async move { engine.delete_webhook(&owner, hook.id).await });
        let sure = matches!(answer, Some(Ok(())));
        self.tell(|| format!("delete webhook of receiver {}: {}", hook.receiver, short(&answer)));
        self.recall(position..position + 1);
        if sure && !self.hooks[position].deleted {
            self.violate(Kind::Lost, "a deleted webhook is still there");
        }
        ledger::open(&self.ledger).closed(hook.receiver, sure);
    }

    fn some_hook(&mut self) -> Option<usize> {
        let live: Vec<_> = (0..self.hooks.len()).filter(|i| !self.hooks[*i].deleted).collect();
        if live.is_empty() { None } else { Some(self.dice.of(&live)) }
    }

    fn change_manner(&mut self) {
        if let Some(position) = self.some_hook() {
            let manner = Manner::any(&mut self.dice);
            let receiver = self.hooks[position].receiver;
            self.tell(|| format!("receiver {receiver}: {manner:?}"));
            self.receivers.behave(receiver, manner);
        }
    }

    /// Any delivery there is, with its tenant.
    fn some_delivery(&mut self) -> Option<(usize, DeliveryId, usize)> {
        let tenant = self.some_tenant();
        let query = gatepost_store::DeliveryQuery::of(self.tenants[tenant].key, PageRequest { limit: 50, after: None });
        let page = self.disk.deliveries(query).now_or_never().expect("inline").expect("the disk is well");
        if page.rows.is_empty() {
            return None;
        }
        let row = self.dice.of(&page.rows);
        let position = self.hooks.iter().position(|hook| hook.key == row.webhook)?;
        Some((tenant, row.id(), position))
    }

    fn retry(&mut self) {
        let Some((tenant, id, hook)) = self.some_delivery() else { return };
        let (engine, owner) = (self.engine(), self.tenants[tenant].clone());
        let answer = self.run(async move { engine.retry_delivery(&owner, id).await });
        self.tell(|| format!("retry {id}: {}", short(&answer)));
        let takes = self.hooks[hook].enabled && !self.hooks[hook].deleted;
        match answer {
            Some(Ok(_)) if takes => ledger::open(&self.ledger).reopened(id.seq()),
            None | Some(Err(Error::Store(_))) => ledger::open(&self.ledger).reopened(id.seq()),
            Some(Err(Error::Conflict { .. })) if !takes => {}
            other => self.violate(Kind::WrongAnswer, format!("a retry answered {other:?}")),
        }
    }

    fn cancel(&mut self) {
        let Some((tenant, id, _)) = self.some_delivery() else { return };
        let (engine, owner) = (self.engine(), self.tenants[tenant].clone());
        let answer = self.run(async move { engine.cancel_delivery(&owner, id).await });
        self.tell(|| format!("cancel {id}: {}", short(&answer)));
        match answer {
            Some(Ok(_)) => ledger::open(&self.ledger).cancelled(id.seq(), true),
            None | Some(Err(Error::Store(_))) => ledger::open(&self.ledger).cancelled(id.seq(), false),
            Some(Err(Error::Conflict { code: ConflictCode::DeliveryTerminal, .. })) => {}
            other => self.violate(Kind::WrongAnswer, format!("a cancellation answered {other:?}")),
        }
    }

    pub(crate) fn sweep(&mut self) {
        let (store, now) = (std::sync::Arc::clone(&self.store), self.now());
        // Whether it worked does not matter: it is asked again and again.
        let _ = self.run(async move { store.sweep(now, 3).await });
    }
}
