//! Publishing, and looking at what was published.

use std::sync::Arc;

use gatepost_core::catalogue;
use gatepost_core::event::{Event, EventType};
use gatepost_core::filter::{Facts, FilterBudget, FilterCost, TooCostly};
use gatepost_core::grouping::Match;
use gatepost_core::matching::{self, MatchFacts, TenantRegistry};
use gatepost_core::tenant::Tenant;
use gatepost_core::{EventId, TenantId, TenantKey, Timestamp};
use gatepost_store::{EventPage, EventQuery, HistoricWebhook, NewEvent, Order, Publish, PublishOutcome};

use super::{EventDetail, Matching, PublishInput, Published};
use crate::deliver::Command;
use crate::engine::Engine;
use crate::error::{ConflictCode, Error, FieldError, Kind, Result};
use crate::idempotency::PublishKey;
use crate::quotas::Entry;
use crate::registry::TenantState;
use crate::spans;
use crate::tenant_types::TypesOf;

/// Deliveries and matching rows shown with one event.
const SHOWN_WITH_EVENT: usize = 1_000;
/// Webhooks found by the events of one call without taking long: less than a millisecond.
const FOUND_QUICKLY: usize = 16_384;
/// A publish that meets a changed registry matches again; a change costs a commit, so nobody can
/// keep this going.
const MATCH_AGAIN: usize = 100;

impl Engine {
    /// Accepts events, all or none, and hands their deliveries to the lane (P1, P4).
    ///
    /// `batch`: field errors are prefixed with `/events/{i}`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for types that may not be published, data the type's schema refuses and
    /// data on which the tenant's filters cost too much, [`Error::Conflict`] for an id taken by another body, [`Error::NotFound`] for an unknown tenant, and the store's.
    pub async fn publish(&self, tenant: &TenantId, inputs: Vec<PublishInput>, batch: bool) -> Result<Vec<Published>> {
        self.publish_under(tenant, inputs, batch, None).await
    }

    /// As [`Engine::publish`], under an idempotency key if there is one.
    pub(crate) async fn publish_under(
        &self,
        tenant: &TenantId,
        inputs: Vec<PublishInput>,
        batch: bool,
        mut key: Option<&mut PublishKey<'_>>,
    ) -> Result<Vec<Published>> {
        self.wait_for_deliveries().await?;
        let mut checked: Option<(TenantKey, TypesOf)> = None;
        let mut entry = None;
        let mut inputs = inputs;
        for _ in 0..MATCH_AGAIN {
            let state = self.tenant_state(tenant).await?;
            let present = state.tenant.load_full();
            let types = match &checked {
                Some((tenant, types)) if *tenant == present.key => types.clone(),
                _ => {
                    let types = self.types_loaded(present.key).await?;
                    inputs = self.checked(&present, &types, inputs, batch).await?;
                    checked = Some((present.key, types.clone()));
                    entry = Some(self.let_in(&present, inputs.len())?);
                    types
                }
            };
            let publish;
            (publish, inputs) = self.matched(&state, &types, inputs, batch).await?;
            let room = self.room_for(present.settings.quotas, &publish).await?;
            let doubt = self.inner.inbox.unless_resolved(Command::LookForOwed);
            let unheard = self.inner.making.unless_heard();
            let writing = self.inner.inbox.budget.writing(publish.events.len());
            let outcome = match key.as_mut() {
                Some(key) => key.publish(&*self.inner.store, publish).await?,
                None => self.inner.store.publish(publish).await?,
            };
            drop(writing);
            doubt.resolved();
            unheard.heard();
            match outcome {
                PublishOutcome::Accepted(accepted) => {
                    room.filled(&accepted);
                    entry.into_iter().for_each(Entry::used);
                    return Ok(self.hand_over(accepted));
                }
                PublishOutcome::StaleRegistry(version) => {
                    state.catch_up(&*self.inner.store, version).await?;
                }
                PublishOutcome::NoTenant => {
                    // Deleted, and perhaps made again under a new number.
                    self.inner.tenants.forget(tenant);
                    self.tenant_state(tenant).await?;
                }
                PublishOutcome::Conflict { index } => {
                    self.give_way(&state, &mut inputs, index, batch).await?;
                }
            }
        }
        Err(changing_too_fast())
    }

    /// Accepts an event that tells of something that has happened, and was promised to be told: no schema, no
    /// quota and no haste of others refuses it (P6). With an id, the same is published once.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown tenant, [`Error::Conflict`] for an id taken by another body, and the
    /// store's.
    pub(crate) async fn publish_told(&self, tenant: &TenantId, input: PublishInput) -> Result<()> {
        let mut inputs = vec![input];
        for _ in 0..MATCH_AGAIN {
            let state = self.tenant_state(tenant).await?;
            let publish;
            (publish, inputs) = self.matched_told(&state, inputs).await?;
            let doubt = self.inner.inbox.unless_resolved(Command::LookForOwed);
            let unheard = self.inner.making.unless_heard();
            let outcome = self.inner.store.publish(publish).await?;
            doubt.resolved();
            unheard.heard();
            match outcome {
                PublishOutcome::Accepted(accepted) => {
                    self.hand_over(accepted);
                    return Ok(());
                }
                PublishOutcome::StaleRegistry(version) => state.catch_up(&*self.inner.store, version).await?,
                PublishOutcome::NoTenant => {
                    self.inner.tenants.forget(tenant);
                    self.tenant_state(tenant).await?;
                }
                PublishOutcome::Conflict { index } => return self.give_way(&state, &mut inputs, index, false).await,
            }
        }
        Err(changing_too_fast())
    }

    /// What is to be stored. Filters that may take a while run elsewhere, in the tenant's turn, and so do
    /// events that find very many webhooks: no tenant's matching holds up anybody else's calls (P5).
    pub(crate) async fn matched(
        &self,
        state: &Arc<TenantState>,
        types: &TypesOf,
        inputs: Vec<PublishInput>,
        batch: bool,
    ) -> Result<(Publish, Vec<PublishInput>)> {
        let registry = state.registry();
        let mut cost = FilterCost::default();
        for input in &inputs {
            cost += registry.filter_cost(&facts_of(input));
        }
        if cost.is_quick() && !finds_many(&registry, &inputs) {
            return Ok((self.match_all(state, &registry, types, &inputs, batch)?, inputs));
        }
        let (engine, state, types) = (self.clone(), Arc::clone(state), types.clone());
        let tenant = state.tenant.load().key;
        self.inner
            .filter_turns
            .run(tenant, move || {
                // Webhooks may have changed while others had their turn.
                let publish = engine.match_all(&state, &state.registry(), &types, &inputs, batch)?;
                Ok((publish, inputs))
            })
            .await?
    }

    fn match_all(
        &self,
        state: &TenantState,
        registry: &TenantRegistry,
        types: &TypesOf,
        inputs: &[PublishInput],
        batch: bool,
    ) -> Result<Publish> {
        let now = self.now();
        let mut budget = FilterBudget::of_publish();
        let tenant = state.tenant.load().key;
        let mut last: Option<(&EventType, Arc<Vec<Match>>)> = None;
        let events = inputs
            .iter()
            .enumerate()
            .map(|(index, input)| {
                let matches = match &last {
                    // Without filters the type decides.
                    Some((of, known)) if *of == &input.event_type && !registry.has_filters() => Arc::clone(known),
                    _ => {
                        let found = registry.matching(&facts_of(input), &mut budget);
                        let found = found.map_err(|TooCostly| too_costly(batch.then_some(index)))?;
                        match &last {
                            // Events that match the same share it: there may be very many of both.
                            Some((_, known)) if **known == found => Arc::clone(known),
                            _ => Arc::new(found),
                        }
                    }
                };
                last = Some((&input.event_type, Arc::clone(&matches)));
                Ok(self.new_event(input, types, matches, now))
            })
            .collect::<Result<_>>()?;
        Ok(Publish { tenant, registry_version: registry.version(), now, events })
    }

    /// What is stored of an event that goes to these webhooks.
    pub(crate) fn new_event(
        &self,
        input: &PublishInput,
        types: &TypesOf,
        matches: Arc<Vec<Match>>,
        now: Timestamp,
    ) -> NewEvent {
        let (urgency, declared) = types.urgency(&input.event_type);
        NewEvent {
            caller_id: input.id.clone(),
            fingerprint: self.fingerprint(input),
            event_type: input.event_type.clone(),
            undeclared: !declared,
            timestamp: input.timestamp.unwrap_or(now),
            subject: input.subject.clone(),
            urgency: input.urgency.unwrap_or(urgency),
            attributes: input.attributes.clone(),
            data: input.data.clone(),
            trace: input.trace,
            matches,
        }
    }

    /// What makes two events with one id the same: every member, `data` by its bytes (SETTLED); but
    /// the timestamp, which counts only where both say one, is the store's to compare. A keyed hash,
    /// so that the store tells nothing about the content. Kept for every event: the id we gave one can
    /// be sent again too.
    fn fingerprint(&self, input: &PublishInput) -> [u8; 16] {
        let subject = input.subject.as_ref();
        let parts: [Option<&[u8]>; 6] = [
            Some(input.event_type.as_str().as_bytes()),
            subject.and_then(|s| s.kind.as_deref()).map(str::as_bytes),
            subject.map(|s| s.id.as_bytes()),
            input.urgency.map(|u| u.as_str().as_bytes()),
            input.attributes.as_deref(),
            Some(&input.data),
        ];
        self.inner.fingerprint_key.hash(&parts)
    }

    /// An id is taken by another body. A CloudEvent of another source then takes the id made of its
    /// source and id; everything else is the caller's mistake.
    async fn give_way(
        &self,
        state: &TenantState,
        inputs: &mut [PublishInput],
        index: usize,
        batch: bool,
    ) -> Result<()> {
        let input = &mut inputs[index];
        let id = input.id.clone().map(|id| id.to_string()).unwrap_or_default();
        if let Some(identity) = input.fallback.take() {
            let taken = match &input.id {
                Some(id) => self.inner.store.event(state.tenant.load().key, id).await?,
                None => None,
            };
            let same_source = taken.is_some_and(|e| source_of(&e).as_deref() == Some(identity.source.as_str()));
            if !same_source {
                input.id = Some(identity.id);
                return Ok(());
            }
        }
        let place = if batch { format!(" (at /events/{index})") } else { String::new() };
        Err(Error::Conflict {
            code: ConflictCode::EventIdConflict,
            message: format!("the event id {id:?} is taken by an event with another body{place}"),
        })
    }

    pub(crate) fn hand_over(&self, accepted: Vec<gatepost_store::Accepted>) -> Vec<Published> {
        let mut published = Vec::with_capacity(accepted.len());
        let (mut deliveries, mut wakes) = (Vec::new(), Vec::new());
        self.inner.published.accepted(&accepted);
        self.inner.streams.accepted(&accepted);
        self.inner.metrics.accepted(&accepted);
        if accepted.iter().any(|event| event.later > 0) {
            self.inner.making.note();
        }
        for event in accepted {
            if !event.duplicate {
                spans::published(&event.event, event.delivery_count, || self.now());
            }
            append(&mut deliveries, event.deliveries);
            append(&mut wakes, event.wakes);
            published.push(Published {
                event: event.event,
                deliveries: event.delivery_count,
                duplicate: event.duplicate,
            });
        }
        if !deliveries.is_empty() {
            self.inner.inbox.send(Command::Offer(deliveries));
        }
        if !wakes.is_empty() {
            self.inner.inbox.send(Command::Wake(wakes));
        }
        published
    }

    /// One event with its deliveries and why each webhook did or did not match.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant has no such event.
    pub async fn event(&self, tenant: &Tenant, id: &EventId) -> Result<EventDetail> {
        let store = &self.inner.store;
        let event = store.event(tenant.key, id).await?.ok_or(Error::NotFound(Kind::Event))?;
        let all_made = self.all_made(tenant.key).await?;
        let mut deliveries = store.deliveries_of(tenant.key, event.seq, SHOWN_WITH_EVENT + 1).await?;
        let deliveries_truncated = deliveries.len() > SHOWN_WITH_EVENT || !all_made;
        deliveries.truncate(SHOWN_WITH_EVENT);
        let history = store.registry_at(tenant.key, event.registry_version, SHOWN_WITH_EVENT).await?;
        let (webhooks, must_verify) = (history.webhooks, history.must_verify);
        let filtered = webhooks.iter().any(|w| w.config.as_ref().is_some_and(|config| config.filter.is_some()));
        let (event, (matching, cut)) = if filtered {
            let work = move || {
                let explained = explain_all(&event, &webhooks, must_verify, FilterBudget::of_explanation());
                (event, explained)
            };
            self.inner.filter_turns.run(tenant.key, work).await?
        } else {
            let explained = explain_all(&event, &webhooks, must_verify, FilterBudget::of_explanation());
            (event, explained)
        };
        let matching_truncated = history.truncated || cut;
        Ok(EventDetail { event, deliveries, deliveries_truncated, matching, matching_truncated })
    }

    /// A page of events.
    ///
    /// # Errors
    /// [`Error::Conflict`] for a feed that stands before what retention has removed; the store's.
    pub async fn events(&self, mut query: EventQuery) -> Result<EventPage> {
        query.subject = self.subject_as_kept(query.tenant, query.subject).await?;
        let (tenant, cursor) = (query.tenant, query.page.after.filter(|_| query.order == Order::Ascending));
        let page = self.inner.store.events(query).await?;
        // Asked afterwards: what was removed before the page was read is known by then.
        if let Some(cursor) = cursor
            && cursor < self.inner.store.feed_floor(tenant).await?
        {
            return Err(Error::Conflict {
                code: ConflictCode::CursorExpired,
                message: "events after this cursor were removed by the tenant's retention".into(),
            });
        }
        Ok(page)
    }

    /// The catalogue's example of a type, as published by `trigger`.
    pub fn example_of(&self, event_type: &EventType) -> Option<Arc<gatepost_core::catalogue::EventTypeDefinition>> {
        self.inner.catalogue.get(event_type).and_then(|view| view.definition)
    }
}

/// Whether to find the webhooks of these events takes long enough to do it elsewhere.
fn finds_many(registry: &TenantRegistry, inputs: &[PublishInput]) -> bool {
    if registry.len().saturating_mul(inputs.len()) <= FOUND_QUICKLY {
        return false;
    }
    let mut left = FOUND_QUICKLY;
    inputs.iter().any(|input| {
        left -= registry.found_up_to(&input.event_type, left);
        left == 0
    })
}

/// Appends; the first as it is, which with one event is all there is.
fn append<T>(all: &mut Vec<T>, mut more: Vec<T>) {
    if all.is_empty() {
        *all = more;
    } else {
        all.append(&mut more);
    }
}

fn changing_too_fast() -> Error {
    Error::Conflict {
        code: ConflictCode::ConcurrentChange,
        message: "the tenant's webhooks change faster than the event can be matched: try again".into(),
    }
}

pub(crate) fn facts_of(input: &PublishInput) -> MatchFacts<'_> {
    MatchFacts {
        event_type: &input.event_type,
        subject: input.subject.as_ref(),
        data: &input.data,
        attributes: input.attributes.as_deref(),
    }
}

/// The answer to data on which the tenant's filters cost too much, of a batch's event if it is one.
fn too_costly(index: Option<usize>) -> Error {
    let (pointer, remedy) = match index {
        Some(index) => (format!("/events/{index}/data"), "send fewer events at once, or smaller data"),
        None => ("/data".to_owned(), "send smaller data"),
    };
    let message = format!(
        "the filters of the tenant's webhooks cost too much together on data of this size: {remedy}, or have fewer or \
         simpler filters for this type (comprehensions and matches cost most)"
    );
    Error::Invalid(vec![FieldError::new(pointer, message)])
}

/// Why each webhook did or did not match, until `budget` is spent, and whether it was.
fn explain_all(
    event: &Event,
    webhooks: &[HistoricWebhook],
    must_verify: bool,
    mut budget: FilterBudget,
) -> (Vec<Matching>, bool) {
    let facts = MatchFacts {
        event_type: &event.event_type,
        subject: event.subject.as_ref(),
        data: &event.data,
        attributes: event.attributes.as_deref(),
    };
    let facts = Facts::new(&facts);
    let mut rows = Vec::with_capacity(webhooks.len());
    for webhook in webhooks {
        match matching::explain(webhook.config.as_ref(), must_verify, &facts, &mut budget) {
            Ok(reason) => rows.push(Matching { webhook_id: webhook.id, reason }),
            Err(TooCostly) => return (rows, true),
        }
    }
    (rows, false)
}

/// Why events of a type cannot be published, if they cannot.
pub fn unpublishable(event_type: &EventType) -> Option<&'static str> {
    if event_type.is_own() {
        Some("the gatepost family is Gatepost's own and cannot be published")
    } else if catalogue::is_point_only(event_type) {
        Some("this type carries secrets and is only ever asked as a blocking point, never stored as an event")
    } else {
        None
    }
}

/// The CloudEvents source an event came with.
fn source_of(event: &Event) -> Option<String> {
    gatepost_core::json::text_member(event.attributes.as_deref()?, "source")
}

#[cfg(test)]
mod tests;
