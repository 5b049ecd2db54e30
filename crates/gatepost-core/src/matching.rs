//! Which webhooks an event matches, and why.
//!
//! A tenant's webhooks are indexed by pattern: an event costs as much as the webhooks it finds, not
//! as much as there are. Registries never change; a change makes a new one that shares everything it
//! did not touch, so that a publisher keeps the one it looked at (P4).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::event::{EventType, Subject};
use crate::filter::{self, Facts, Filter, FilterBudget, FilterCost, FilterError, FilterResult, TooCostly};
use crate::grouping::{Grouping, Match};
use crate::own_events::OwnEvent;
use crate::pattern::{BadPattern, EventPattern, PatternSet};
use crate::profiles::{self, Address};
use crate::standing;
use crate::webhook::{Webhook, WebhookConfig};
use crate::{WebhookId, WebhookKey};

/// What matching looks at.
#[derive(Clone, Copy, Debug)]
pub struct MatchFacts<'a> {
    /// What happened.
    pub event_type: &'a EventType,
    /// About whom.
    pub subject: Option<&'a Subject>,
    /// The event's `data`, as given.
    pub data: &'a [u8],
    /// The event's `attributes`, as given.
    pub attributes: Option<&'a [u8]>,
}

/// Why a webhook's subscription cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSubscription {
    /// Patterns that are none, with their positions in `events`.
    #[error("{} of the patterns cannot be read", .0.len())]
    Patterns(Vec<(usize, BadPattern)>),
    /// A filter that is none.
    #[error("filter {0}")]
    Filter(#[from] FilterError),
}

/// One webhook, as far as matching needs it.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The store's number.
    pub key: WebhookKey,
    /// Its id.
    pub id: WebhookId,
    /// The revision this was compiled from.
    pub revision: u32,
    /// What it asks for.
    pub patterns: PatternSet,
    /// What it asks for beyond the type.
    pub filter: Option<Filter>,
    /// What its deliveries wait for.
    pub grouping: Grouping,
    /// Its registration, where its profile addresses by path: types without one do not match.
    paths: Option<Arc<WebhookConfig>>,
    /// Whether it takes anything: enabled, and verified where that is required.
    pub enabled: bool,
}

impl Subscription {
    /// Compiles a webhook as kept. A deleted one takes nothing. `require_all`: the tenant's setting
    /// `require_verification`.
    ///
    /// # Errors
    /// When what is kept was written under other rules and cannot be read any more.
    pub fn compile(webhook: &Webhook, require_all: bool) -> Result<Self, BadSubscription> {
        let (patterns, filter) = compile(&webhook.config)?;
        Ok(Subscription {
            key: webhook.key,
            id: webhook.id,
            revision: webhook.revision,
            patterns,
            filter,
            grouping: Grouping::of(&webhook.config),
            paths: by_path(&webhook.config).then(|| Arc::new(webhook.config.clone())),
            enabled: standing::takes(&webhook.config, require_all) && webhook.deleted_at.is_none(),
        })
    }

    /// The same webhook, taking what it would take if it were not deleted: to tell it of that.
    #[must_use]
    pub fn before_deletion(mut self, webhook: &Webhook, require_all: bool) -> Self {
        self.enabled = standing::takes(&webhook.config, require_all);
        self
    }

    /// Whether it goes to this webhook: what [`TenantRegistry::matching`] says of each.
    ///
    /// # Errors
    /// When its filter costs more than is left of `budget`.
    pub fn wants(&self, facts: &MatchFacts<'_>, budget: &mut FilterBudget) -> Result<bool, TooCostly> {
        if !self.enabled || !self.patterns.matches(facts.event_type) || !self.has_address(facts.event_type) {
            return Ok(false);
        }
        let Some(filter) = &self.filter else { return Ok(true) };
        let shared = Facts::new(facts);
        budget.spend(filter::of_conversion(shared.size()))?;
        Ok(filter.evaluate_within(&shared, budget)? == FilterResult::True)
    }

    fn has_address(&self, event_type: &EventType) -> bool {
        self.paths.as_deref().is_none_or(|config| profiles::address(config, event_type) != Address::Nowhere)
    }
}

fn by_path(config: &WebhookConfig) -> bool {
    profiles::profile_or_default(&config.profile).by_path()
}

/// What a webhook's `events` ask for, own events that its profile has other names for included: who asks
/// for that name (not merely for all) asks for the event.
fn asked_for(config: &WebhookConfig) -> Result<PatternSet, Vec<(usize, BadPattern)>> {
    let mut patterns = PatternSet::parse(&config.events)?;
    let profile = profiles::profile_or_default(&config.profile);
    for own in OwnEvent::ALL {
        let Some(Ok(name)) = profile.own_name(own).map(|name| name.parse::<EventType>()) else { continue };
        if patterns.iter().any(|pattern| *pattern != EventPattern::All && pattern.matches(&name)) {
            patterns = patterns.with(EventPattern::Exact(own.event_type()));
        }
    }
    Ok(patterns)
}

fn compile(config: &WebhookConfig) -> Result<(PatternSet, Option<Filter>), BadSubscription> {
    let patterns = asked_for(config).map_err(BadSubscription::Patterns)?;
    let filter = config.filter.as_deref().map(Filter::compile).transpose()?;
    Ok((patterns, filter))
}

/// The webhooks under one pattern.
type Bucket = Arc<Vec<Arc<Subscription>>>;

/// The enabled webhooks of one tenant, indexed; immutable.
#[derive(Clone, Debug, Default)]
pub struct TenantRegistry {
    version: u64,
    by_key: Arc<BTreeMap<WebhookKey, Arc<Subscription>>>,
    exact: Arc<HashMap<EventType, Bucket>>,
    below: Arc<HashMap<Box<str>, Bucket>>,
    all: Bucket,
}

impl TenantRegistry {
    /// A registry of these webhooks. Disabled ones are known but in no index; of two with the same
    /// key the later counts.
    pub fn new(version: u64, subscriptions: impl IntoIterator<Item = Arc<Subscription>>) -> Self {
        let by_key: BTreeMap<_, _> = subscriptions.into_iter().map(|s| (s.key, s)).collect();
        let mut registry = TenantRegistry { version, ..TenantRegistry::default() };
        for subscription in by_key.values().filter(|s| s.enabled) {
            registry.index(subscription);
        }
        registry.by_key = Arc::new(by_key);
        registry
    }

    /// Which change to the tenant's webhooks this reflects.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many webhooks there are, disabled ones included.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The webhook with this key.
    pub fn get(&self, key: WebhookKey) -> Option<&Arc<Subscription>> {
        self.by_key.get(&key)
    }

    /// Every webhook, by ascending key.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.by_key.values()
    }

    /// A registry in which `subscription` is new, or takes the place of the one with its key.
    #[must_use]
    pub fn with(&self, version: u64, subscription: Arc<Subscription>) -> Self {
        let mut next = self.without(version, subscription.key);
        if subscription.enabled {
            next.index(&subscription);
        }
        Arc::make_mut(&mut next.by_key).insert(subscription.key, subscription);
        next
    }

    /// A registry in which there is no webhook with this key.
    #[must_use]
    pub fn without(&self, version: u64, key: WebhookKey) -> Self {
        let mut next = self.clone();
        next.version = version;
        if let Some(old) = self.by_key.get(&key) {
            Arc::make_mut(&mut next.by_key).remove(&key);
            if old.enabled {
                next.unindex(old);
            }
        }
        next
    }

    /// The webhooks an event goes to, each once with its revision, by ascending key. Filters run
    /// only where a pattern hit, and share one parse of the event's JSON.
    ///
    /// # Errors
    /// When the filters together cost more than is left of `budget`.
    pub fn matching(&self, facts: &MatchFacts<'_>, budget: &mut FilterBudget) -> Result<Vec<Match>, TooCostly> {
        let shared = Facts::new(facts);
        let hits = self.hits(facts.event_type);
        if hits.iter().any(|subscription| subscription.filter.is_some()) {
            budget.spend(filter::of_conversion(shared.size()))?;
        }
        let mut matches = Vec::with_capacity(hits.len());
        for subscription in hits {
            let wanted = match &subscription.filter {
                Some(filter) => filter.evaluate_within(&shared, budget)? == FilterResult::True,
                None => true,
            };
            if wanted {
                let Subscription { key: webhook, revision, grouping, .. } = *subscription;
                matches.push(Match { webhook, revision, grouping });
            }
        }
        Ok(matches)
    }

    /// The webhooks without a filter that an event of a type goes to.
    pub fn unfiltered(&self, event_type: &EventType) -> Vec<Match> {
        let hits = self.hits(event_type).into_iter().filter(|subscription| subscription.filter.is_none());
        hits.map(|s| Match { webhook: s.key, revision: s.revision, grouping: s.grouping }).collect()
    }

    /// A bound on what the filters cost that such an event meets, from its size alone: what can be
    /// told without evaluating anything. Zero where no filter is met.
    pub fn filter_cost(&self, facts: &MatchFacts<'_>) -> FilterCost {
        let bytes = Facts::new(facts).size();
        let mut total = FilterCost::default();
        // Finding a webhook under several of its patterns makes a bound larger, not wrong.
        for filter in self.pattern_hits(facts.event_type).into_iter().filter_map(|hit| hit.filter.as_ref()) {
            if total == FilterCost::default() {
                total += FilterCost(filter::of_conversion(bytes));
            }
            total += filter.cost_at_most(bytes);
        }
        total
    }

    /// The webhooks that ask for a type, each once, by ascending key.
    fn hits(&self, event_type: &EventType) -> Vec<&Subscription> {
        let mut hits = self.pattern_hits(event_type);
        // A webhook may be found under several of its patterns.
        hits.sort_unstable_by_key(|subscription| subscription.key);
        hits.dedup_by_key(|subscription| subscription.key);
        hits.retain(|subscription| subscription.has_address(event_type));
        hits
    }

    fn pattern_hits(&self, event_type: &EventType) -> Vec<&Subscription> {
        fn extend<'r>(hits: &mut Vec<&'r Subscription>, bucket: Option<&'r Bucket>) {
            hits.extend(bucket.into_iter().flat_map(|bucket| bucket.iter()).map(|s| &**s));
        }
        let mut hits = Vec::new();
        if !event_type.is_own() {
            extend(&mut hits, Some(&self.all));
        }
        extend(&mut hits, self.exact.get(event_type));
        if !self.below.is_empty() {
            let text = event_type.as_str();
            for (dot, _) in text.match_indices('.') {
                extend(&mut hits, self.below.get(&text[..dot]));
            }
        }
        hits
    }

    fn index(&mut self, subscription: &Arc<Subscription>) {
        for pattern in subscription.patterns.iter() {
            let bucket = match pattern {
                EventPattern::All => &mut self.all,
                EventPattern::Below(prefix) => Arc::make_mut(&mut self.below).entry(prefix.clone()).or_default(),
                EventPattern::Exact(exact) => Arc::make_mut(&mut self.exact).entry(exact.clone()).or_default(),
            };
            Arc::make_mut(bucket).push(Arc::clone(subscription));
        }
    }

    fn unindex(&mut self, subscription: &Subscription) {
        fn drop_from(bucket: &mut Bucket, key: WebhookKey) -> bool {
            Arc::make_mut(bucket).retain(|s| s.key != key);
            bucket.is_empty()
        }
        for pattern in subscription.patterns.iter() {
            match pattern {
                EventPattern::All => {
                    drop_from(&mut self.all, subscription.key);
                }
                EventPattern::Below(prefix) => {
                    let below = Arc::make_mut(&mut self.below);
                    if below.get_mut(prefix).is_some_and(|bucket| drop_from(bucket, subscription.key)) {
                        below.remove(prefix);
                    }
                }
                EventPattern::Exact(exact) => {
                    let map = Arc::make_mut(&mut self.exact);
                    if map.get_mut(exact).is_some_and(|bucket| drop_from(bucket, subscription.key)) {
                        map.remove(exact);
                    }
                }
            }
        }
    }
}

/// Why an event does or does not go to a webhook, as the event's matching trace says it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MatchReason {
    /// It goes there.
    Matched,
    /// No pattern asks for its type.
    NoPattern,
    /// The filter said no.
    FilterFalse,
    /// The filter gave no answer.
    FilterError,
    /// The webhook was disabled.
    Disabled,
    /// The webhook must be verified and was not.
    Unverified,
    /// The webhook's profile has no path for the type.
    NoPath,
    /// The webhook was made after the event.
    CreatedLater,
}

impl MatchReason {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            MatchReason::Matched => "matched",
            MatchReason::NoPattern => "no_pattern",
            MatchReason::FilterFalse => "filter_false",
            MatchReason::FilterError => "filter_error",
            MatchReason::Disabled => "disabled",
            MatchReason::Unverified => "unverified",
            MatchReason::NoPath => "no_path",
            MatchReason::CreatedLater => "created_later",
        }
    }
}

/// Explains one webhook's answer to an event, from its registration as it was when the event was
/// accepted (`None`: there was none yet) and the tenant's `require_verification` as it was then. Agrees with [`TenantRegistry::matching`].
///
/// # Errors
/// When compiling and evaluating its filter costs more than is left of `budget`.
pub fn explain(
    config: Option<&WebhookConfig>,
    require_all: bool,
    facts: &Facts<'_>,
    budget: &mut FilterBudget,
) -> Result<MatchReason, TooCostly> {
    let Some(config) = config else { return Ok(MatchReason::CreatedLater) };
    if !config.enabled {
        return Ok(MatchReason::Disabled);
    }
    if standing::is_unverified(config, require_all) {
        return Ok(MatchReason::Unverified);
    }
    if !asked_for(config).is_ok_and(|patterns| patterns.matches(facts.event_type())) {
        return Ok(MatchReason::NoPattern);
    }
    if profiles::address(config, facts.event_type()) == Address::Nowhere {
        return Ok(MatchReason::NoPath);
    }
    let Some(source) = config.filter.as_deref() else { return Ok(MatchReason::Matched) };
    budget.spend(filter::of_compiling(source))?;
    let Ok(filter) = Filter::compile(source) else { return Ok(MatchReason::FilterError) };
    Ok(match filter.evaluate_within(facts, budget)? {
        FilterResult::True => MatchReason::Matched,
        FilterResult::False => MatchReason::FilterFalse,
        FilterResult::Error => MatchReason::FilterError,
    })
}

#[cfg(test)]
mod tests;
