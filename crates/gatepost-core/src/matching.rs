//! Which webhooks an event matches, and why.
//!
//! A tenant's webhooks are indexed by pattern: an event costs as much as the webhooks it finds, not
//! as much as there are. Registries never change; a change makes a new one that shares what it
//! did not touch, so that a publisher keeps the one it looked at (P4). What is kept of a webhook is what
//! matching asks for, and texts that several of them have are kept once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use self::bucket::Bucket;
use self::trie::Trie;
use crate::WebhookKey;
use crate::event::{EventType, Subject};
use crate::filter::{self, Facts, Filter, FilterBudget, FilterCost, FilterError, FilterResult, TooCostly};
use crate::grouping::{Grouping, Match};
use crate::hashing::sha256;
use crate::own_events::OwnEvent;
use crate::pattern::{BadPattern, EventPattern, PatternSet};
use crate::profiles::{self, Address, FilterData, Profile};
use crate::standing;
use crate::webhook::{Webhook, WebhookConfig};

mod bucket;
mod trie;

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
    /// The revision this was compiled from.
    pub revision: u32,
    /// What it asks for, in as few patterns as that takes.
    pub patterns: PatternSet,
    /// What it asks for beyond the type.
    pub filter: Option<Filter>,
    /// What its deliveries wait for.
    pub grouping: Grouping,
    /// Where its profile addresses by path: types without one do not match.
    paths: Option<Box<Paths>>,
    /// What its filter sees as `data`, where that is what its format sends.
    shape: Option<FilterData>,
    /// Whether it takes anything: enabled, and verified where that is required.
    pub enabled: bool,
}

/// See [`Subscription::paths`].
#[derive(Clone)]
struct Paths {
    profile: &'static dyn Profile,
    own: BTreeMap<String, String>,
}

impl Paths {
    fn of(config: &WebhookConfig) -> Option<Box<Self>> {
        let profile = profiles::profile_or_default(&config.profile);
        profile.by_path().then(|| Box::new(Paths { profile, own: config.paths.clone() }))
    }
}

impl std::fmt::Debug for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(&self.own).finish()
    }
}

impl Subscription {
    /// Compiles a webhook as kept. A deleted one takes nothing. `require_all`: the tenant's setting
    /// `require_verification`.
    ///
    /// # Errors
    /// When what is kept was written under other rules and cannot be read any more.
    pub fn compile(webhook: &Webhook, require_all: bool) -> Result<Self, BadSubscription> {
        let Webhook { key, revision, config, .. } = webhook;
        let filter = config.filter.as_deref().map(Filter::compile).transpose()?;
        let mut compiled = Self::of((*key, *revision), config, require_all, filter)?;
        compiled.enabled &= webhook.deleted_at.is_none();
        Ok(compiled)
    }

    fn of(
        (key, revision): (WebhookKey, u32),
        config: &WebhookConfig,
        require_all: bool,
        filter: Option<Filter>,
    ) -> Result<Self, BadSubscription> {
        Ok(Subscription {
            key,
            revision,
            patterns: asked_for(config).map_err(BadSubscription::Patterns)?.reduced(),
            filter,
            grouping: Grouping::of(config),
            paths: Paths::of(config),
            shape: shape_of(config),
            enabled: standing::takes(config, require_all),
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
        Ok(evaluate(filter, self.shape, &shared, budget)? == FilterResult::True)
    }

    fn has_address(&self, event_type: &EventType) -> bool {
        self.paths.as_deref().is_none_or(|paths| profiles::path(paths.profile, &paths.own, event_type).is_some())
    }

    fn to_match(&self) -> Match {
        Match { webhook: self.key, revision: self.revision, grouping: self.grouping }
    }
}

/// A filter judges what the receiver would get.
fn evaluate(
    filter: &Filter,
    shape: Option<FilterData>,
    facts: &Facts<'_>,
    budget: &mut FilterBudget,
) -> Result<FilterResult, TooCostly> {
    match shape {
        None => filter.evaluate_within(facts, budget),
        Some(shape) => filter.evaluate_within(&*facts.shaped_by(shape, budget)?, budget),
    }
}

fn shape_of(config: &WebhookConfig) -> Option<FilterData> {
    let _ = config.filter.as_ref()?;
    profiles::format_of(&config.profile, config.format.as_deref()).ok()?.filter_data()
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

/// What a webhook with a pattern or two takes in memory, about, and a filter of some twenty characters besides.
const WEBHOOK_BYTES: usize = 300;
const FILTER_BYTES: usize = 650;

/// The enabled webhooks of one tenant, indexed; immutable.
#[derive(Clone, Debug, Default)]
pub struct TenantRegistry {
    version: u64,
    len: usize,
    /// How many of them have a filter.
    filtered: usize,
    by_key: Trie<WebhookKey, Arc<Subscription>>,
    /// By patterns of one type each.
    exact: Trie<Arc<str>, Bucket>,
    /// By prefixes.
    below: Trie<Arc<str>, Bucket>,
    all: Bucket,
}

impl TenantRegistry {
    /// A registry of these webhooks. Disabled ones, to which nothing goes, are left out; of two with the same
    /// key the later counts.
    pub fn new(version: u64, subscriptions: impl IntoIterator<Item = Arc<Subscription>>) -> Self {
        let mut registry = TenantRegistry { version, ..TenantRegistry::default() };
        subscriptions.into_iter().for_each(|subscription| registry.put(subscription));
        registry
    }

    /// Which change to the tenant's webhooks this reflects.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How many webhooks there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it takes, about.
    pub fn size(&self) -> usize {
        self.len * WEBHOOK_BYTES + self.filtered * FILTER_BYTES
    }

    /// Whether any of them has a filter: otherwise an event's type alone decides to whom it goes.
    pub fn has_filters(&self) -> bool {
        self.filtered > 0
    }

    /// How many an event of this type finds, filters and paths apart, counted no further than `at_most`.
    pub fn found_up_to(&self, event_type: &EventType, at_most: usize) -> usize {
        self.buckets(event_type).flat_map(Bucket::iter).take(at_most).count()
    }

    /// The webhook with this key, if it is enabled.
    pub fn get(&self, key: WebhookKey) -> Option<&Arc<Subscription>> {
        self.by_key.get(&key).map(|(_, subscription)| subscription)
    }

    /// Every webhook, by ascending key.
    pub fn subscriptions(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.by_key.iter().map(|(_, subscription)| subscription)
    }

    /// A registry in which `subscription` is new, or takes the place of the one with its key.
    #[must_use]
    pub fn with(&self, version: u64, subscription: Arc<Subscription>) -> Self {
        let mut next = TenantRegistry { version, ..self.clone() };
        next.put(subscription);
        next
    }

    /// A registry in which there is no webhook with this key.
    #[must_use]
    pub fn without(&self, version: u64, key: WebhookKey) -> Self {
        let mut next = TenantRegistry { version, ..self.clone() };
        next.take_out(key);
        next
    }

    /// The webhooks an event goes to, each once with its revision, by ascending key. Filters run
    /// only where a pattern hit, and share one parse of the event's JSON.
    ///
    /// # Errors
    /// When the filters together cost more than is left of `budget`.
    pub fn matching(&self, facts: &MatchFacts<'_>, budget: &mut FilterBudget) -> Result<Vec<Match>, TooCostly> {
        let mut shared = None;
        let mut matches = Vec::new();
        for bucket in self.buckets(facts.event_type) {
            let hits = bucket.iter();
            matches.reserve(hits.size_hint().0);
            for subscription in hits {
                if !subscription.has_address(facts.event_type) {
                    continue;
                }
                if let Some(filter) = &subscription.filter {
                    let shared = match &mut shared {
                        Some(shared) => shared,
                        none => {
                            let facts = none.insert(Facts::new(facts));
                            budget.spend(filter::of_conversion(facts.size()))?;
                            facts
                        }
                    };
                    if evaluate(filter, subscription.shape, shared, budget)? != FilterResult::True {
                        continue;
                    }
                }
                matches.push(subscription.to_match());
            }
        }
        Ok(by_key(matches))
    }

    /// The webhooks without a filter that an event of a type goes to.
    pub fn unfiltered(&self, event_type: &EventType) -> Vec<Match> {
        let hits = self.buckets(event_type).flat_map(Bucket::iter);
        let hits = hits.filter(|subscription| subscription.filter.is_none() && subscription.has_address(event_type));
        by_key(hits.map(|subscription| subscription.to_match()).collect())
    }

    /// A bound on what the filters cost that such an event meets, from its size alone: what can be
    /// told without evaluating anything. Zero where no filter is met.
    pub fn filter_cost(&self, facts: &MatchFacts<'_>) -> FilterCost {
        let mut total = FilterCost::default();
        if self.filtered == 0 {
            return total;
        }
        let bytes = Facts::new(facts).size();
        let hits = self.buckets(facts.event_type).flat_map(Bucket::iter);
        let mut shaped = false;
        for (filter, shape) in hits.filter_map(|hit| Some((hit.filter.as_ref()?, hit.shape))) {
            if total == FilterCost::default() {
                total += FilterCost(filter::of_conversion(bytes));
            }
            let seen = if shape.is_some() { filter::shaped_size(bytes) } else { bytes };
            if shape.is_some() && !std::mem::replace(&mut shaped, true) {
                total += FilterCost(filter::of_conversion(seen));
            }
            total += filter.cost_at_most(seen);
        }
        total
    }

    /// Those who ask for a type, by the patterns that find them: no webhook is in two of these, because the
    /// patterns of one never ask for the same type ([`PatternSet::reduced`]).
    fn buckets<'r>(&'r self, event_type: &'r EventType) -> impl Iterator<Item = &'r Bucket> {
        let text = event_type.as_str();
        let all = (!event_type.is_own()).then_some(&self.all);
        let exact = self.exact.get(text).map(|(_, bucket)| bucket);
        // Most tenants ask for no prefix: then nothing of the text is looked at.
        let dotted = if self.below.is_empty() { "" } else { text };
        let below = dotted.match_indices('.').filter_map(|(dot, _)| self.below.get(&text[..dot]));
        all.into_iter().chain(exact).chain(below.map(|(_, bucket)| bucket))
    }

    fn put(&mut self, mut subscription: Arc<Subscription>) {
        self.take_out(subscription.key);
        if !subscription.enabled {
            return;
        }
        self.share_texts(Arc::make_mut(&mut subscription));
        self.len += 1;
        self.filtered += usize::from(subscription.filter.is_some());
        self.by_key.insert(subscription.key, Arc::clone(&subscription));
        for pattern in subscription.patterns.iter() {
            match pattern {
                EventPattern::All => self.all.insert(Arc::clone(&subscription)),
                EventPattern::Below(prefix) => put_under(&mut self.below, prefix, &subscription),
                EventPattern::Exact(exact) => put_under(&mut self.exact, exact.shared(), &subscription),
            }
        }
    }

    /// Of each text one copy, whoever has it.
    fn share_texts(&self, subscription: &mut Subscription) {
        for pattern in subscription.patterns.iter_mut() {
            match pattern {
                EventPattern::All => {}
                EventPattern::Below(prefix) => {
                    if let Some((same, _)) = self.below.get(prefix) {
                        *prefix = Arc::clone(same);
                    }
                }
                EventPattern::Exact(exact) => {
                    if let Some((same, _)) = self.exact.get(exact.as_str()) {
                        exact.share(same);
                    }
                }
            }
        }
    }

    fn take_out(&mut self, key: WebhookKey) {
        let Some(old) = self.by_key.remove(&key) else { return };
        self.len -= 1;
        self.filtered -= usize::from(old.filter.is_some());
        for pattern in old.patterns.iter() {
            match pattern {
                EventPattern::All => self.all.remove(key),
                EventPattern::Below(prefix) => take_from_under(&mut self.below, prefix, key),
                EventPattern::Exact(exact) => take_from_under(&mut self.exact, exact.as_str(), key),
            }
        }
    }
}

fn put_under(index: &mut Trie<Arc<str>, Bucket>, pattern: &Arc<str>, subscription: &Arc<Subscription>) {
    match index.get_mut(pattern) {
        Some(bucket) => bucket.insert(Arc::clone(subscription)),
        None => index.insert(Arc::clone(pattern), Bucket::One(Arc::clone(subscription))),
    }
}

fn take_from_under(index: &mut Trie<Arc<str>, Bucket>, pattern: &str, key: WebhookKey) {
    let Some(bucket) = index.get_mut(pattern) else { return };
    bucket.remove(key);
    if bucket.is_empty() {
        index.remove(pattern);
    }
}

/// By ascending key: so they are, unless several patterns found some; then it is a merge of those runs.
fn by_key(mut matches: Vec<Match>) -> Vec<Match> {
    if !matches.is_sorted_by_key(|found| found.webhook) {
        matches.sort_by_key(|found| found.webhook);
    }
    matches
}

/// Makes a [`TenantRegistry`] of webhooks as they are read, one at a time. The same filter is compiled
/// once, and kept once, for all who have it.
#[derive(Debug)]
pub struct RegistryBuilder {
    registry: TenantRegistry,
    require_all: bool,
    /// By the hash of their source, which may be long.
    filters: HashMap<[u8; 32], Filter>,
}

impl RegistryBuilder {
    /// `require_all`: the tenant's setting `require_verification`.
    pub fn new(version: u64, require_all: bool) -> Self {
        let registry = TenantRegistry { version, ..TenantRegistry::default() };
        RegistryBuilder { registry, require_all, filters: HashMap::new() }
    }

    /// Adds a webhook, by its key and revision and as it is registered.
    ///
    /// # Errors
    /// As [`Subscription::compile`]; then it is left out.
    pub fn add(&mut self, key: WebhookKey, revision: u32, config: &WebhookConfig) -> Result<(), BadSubscription> {
        if !standing::takes(config, self.require_all) {
            return Ok(());
        }
        let filter = config.filter.as_deref().map(|source| self.filter(source)).transpose()?;
        let subscription = Subscription::of((key, revision), config, self.require_all, filter)?;
        self.registry.put(Arc::new(subscription));
        Ok(())
    }

    fn filter(&mut self, source: &str) -> Result<Filter, FilterError> {
        let name = sha256(source.as_bytes());
        if let Some(known) = self.filters.get(&name) {
            return Ok(known.clone());
        }
        let filter = Filter::compile(source)?;
        self.filters.insert(name, filter.clone());
        Ok(filter)
    }

    /// What was added.
    pub fn build(self) -> TenantRegistry {
        self.registry
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
    Ok(match evaluate(&filter, shape_of(config), facts, budget)? {
        FilterResult::True => MatchReason::Matched,
        FilterResult::False => MatchReason::FilterFalse,
        FilterResult::Error => MatchReason::FilterError,
    })
}

#[cfg(test)]
mod tests;
