//! Counters and histograms. One registry per server, so that two servers in one process do not mix.
//!
//! No tenant, webhook or event appears as a label: their number is unbounded, and `/metrics` needs
//! no key.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use gatepost_core::delivery::{DeliveryState, Outcome, Reason};
use gatepost_core::event::Urgency;
use gatepost_store::{Accepted, HealthCounts, StoreStats};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::hooks::HookMetrics;
use crate::process;

/// Upper bounds of latency buckets, in seconds.
const BUCKETS: [f64; 16] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0, 60.0];
/// Upper bounds of how long events take to their receivers, in seconds: a retry may come days later.
const ARRIVAL: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0];
/// Kinds of jobs, and how they end.
const JOBS: ([&str; 2], [&str; 2]) = (["replay", "erase"], ["done", "failed"]);
/// Why deliveries end besides what receivers answer.
const ENDS: [(DeliveryState, Option<Reason>); 10] = [
    (DeliveryState::Delivered, None),
    (DeliveryState::Failed, Some(Reason::Exhausted)),
    (DeliveryState::Failed, Some(Reason::NoAnswer)),
    (DeliveryState::Failed, Some(Reason::Rejected)),
    (DeliveryState::Failed, Some(Reason::Gone)),
    (DeliveryState::Failed, Some(Reason::Expired)),
    (DeliveryState::Cancelled, Some(Reason::Gone)),
    (DeliveryState::Cancelled, Some(Reason::ByUser)),
    (DeliveryState::Cancelled, Some(Reason::WebhookDeleted)),
    (DeliveryState::Cancelled, Some(Reason::TenantDeleted)),
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabel {
    version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UrgencyLabel {
    urgency: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QuotaLabel {
    quota: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerificationLabel {
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndLabel {
    state: &'static str,
    reason: &'static str,
}

impl EndLabel {
    fn of(state: DeliveryState, reason: Option<Reason>) -> Self {
        EndLabel { state: state.as_str(), reason: reason.map_or("none", Reason::as_str) }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabel {
    kind: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WhatLabel {
    what: &'static str,
}

/// How one API request ended.
#[derive(Clone, Debug, PartialEq, Eq, EncodeLabelSet)]
pub struct HttpLabel {
    /// The request's method.
    pub method: &'static str,
    /// The route's template, such as `/v1/tenants/{tenant}`.
    pub route: &'static str,
    /// The status answered.
    pub status: u16,
}

/// Looked up at every request: there are some dozens, of which few have these in common, so reading whole
/// routes would cost more than it tells.
impl Hash for HttpLabel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (route, method) = (self.route.len() as u64, self.method.len() as u64);
        state.write_u64(u64::from(self.status) << 32 | route << 16 | method);
    }
}

/// Everything measured.
pub struct Metrics {
    registry: Registry,
    /// Of blocking hooks.
    pub(crate) hooks: HookMetrics,
    events: Family<UrgencyLabel, Counter>,
    deliveries: Family<UrgencyLabel, Counter>,
    /// The counters of those two, by urgency: found once, not at every publish.
    accepted: [OnceLock<(Counter, Counter)>; Urgency::ALL.len()],
    attempts: Family<OutcomeLabel, Counter>,
    /// The counters of the usual case, found once.
    attempts_ok: OnceLock<Counter>,
    ended_delivered: OnceLock<Counter>,
    batches: Counter,
    batch_events: Counter,
    attempt_seconds: Histogram,
    arrival_seconds: Histogram,
    build: Family<BuildLabel, Gauge>,
    ended: Family<EndLabel, Counter>,
    jobs_begun: Family<KindLabel, Counter>,
    jobs_ended: Family<JobLabel, Counter>,
    replayed: Counter,
    removed: Family<WhatLabel, Counter>,
    in_flight: Gauge,
    heads: Gauge,
    webhooks: Gauge,
    token_fetches: Family<OutcomeLabel, Counter>,
    quota_refusals: Family<QuotaLabel, Counter>,
    wrong_keys: Family<OutcomeLabel, Counter>,
    rate_waits: Counter,
    publish_waits: Family<OutcomeLabel, Counter>,
    verifications: Family<VerificationLabel, Counter>,
    failing: Gauge<i64>,
    disabled: Gauge<i64>,
    store_errors: Counter,
    store_commits: Counter,
    store_requests: Counter,
    store_queued: Gauge<i64>,
    store_bytes: Gauge<i64>,
    http: Family<HttpLabel, Counter<u64, AtomicU64>>,
    http_seconds: Histogram,
    idempotent_replays: Counter,
    stream_listeners: Gauge,
    stream_resets: Counter,
}

impl Metrics {
    /// An empty set.
    pub fn new() -> Arc<Self> {
        let mut m = Metrics {
            registry: Registry::with_prefix("gatepost"),
            hooks: HookMetrics::default(),
            events: Family::default(),
            deliveries: Family::default(),
            accepted: Default::default(),
            attempts: Family::default(),
            attempts_ok: OnceLock::new(),
            ended_delivered: OnceLock::new(),
            batches: Counter::default(),
            batch_events: Counter::default(),
            attempt_seconds: Histogram::new(BUCKETS),
            arrival_seconds: Histogram::new(ARRIVAL),
            build: Family::default(),
            ended: Family::default(),
            jobs_begun: Family::default(),
            jobs_ended: Family::default(),
            replayed: Counter::default(),
            removed: Family::default(),
            in_flight: Gauge::default(),
            heads: Gauge::default(),
            webhooks: Gauge::default(),
            token_fetches: Family::default(),
            quota_refusals: Family::default(),
            wrong_keys: Family::default(),
            rate_waits: Counter::default(),
            publish_waits: Family::default(),
            verifications: Family::default(),
            failing: Gauge::default(),
            disabled: Gauge::default(),
            store_errors: Counter::default(),
            store_commits: Counter::default(),
            store_requests: Counter::default(),
            store_queued: Gauge::default(),
            store_bytes: Gauge::default(),
            http: Family::default(),
            http_seconds: Histogram::new(BUCKETS),
            idempotent_replays: Counter::default(),
            stream_listeners: Gauge::default(),
            stream_resets: Counter::default(),
        };
        m.register();
        m.begin();
        Arc::new(m)
    }

    /// Every counter is there from the start: the first of anything is seen as a change from zero.
    fn begin(&self) {
        self.build.get_or_create(&BuildLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        for urgency in Urgency::ALL.map(Urgency::as_str) {
            drop(self.events.get_or_create(&UrgencyLabel { urgency }));
            drop(self.deliveries.get_or_create(&UrgencyLabel { urgency }));
        }
        for outcome in Outcome::ALL.map(Outcome::as_str) {
            drop(self.attempts.get_or_create(&OutcomeLabel { outcome }));
        }
        for (state, reason) in ENDS {
            drop(self.ended.get_or_create(&EndLabel::of(state, reason)));
        }
        for kind in JOBS.0 {
            drop(self.jobs_begun.get_or_create(&KindLabel { kind }));
            for state in JOBS.1 {
                drop(self.jobs_ended.get_or_create(&JobLabel { kind, state }));
            }
        }
        for what in ["events", "attempts", "others"] {
            drop(self.removed.get_or_create(&WhatLabel { what }));
        }
        for outcome in ["ok", "unreadable", "refused", "timeout", "connect", "dns", "tls", "reset"] {
            drop(self.token_fetches.get_or_create(&OutcomeLabel { outcome }));
        }
        for quota in ["webhooks", "events_per_s", "pending"] {
            drop(self.quota_refusals.get_or_create(&QuotaLabel { quota }));
        }
        for outcome in ["unauthorized", "refused"] {
            drop(self.wrong_keys.get_or_create(&OutcomeLabel { outcome }));
        }
        for outcome in ["went_on", "refused"] {
            drop(self.publish_waits.get_or_create(&OutcomeLabel { outcome }));
        }
        for result in ["passed", "failed"] {
            drop(self.verifications.get_or_create(&VerificationLabel { result }));
        }
        self.hooks.begin();
    }

    /// An API route that can be asked: its answers are counted from zero.
    pub fn http_route(&self, label: &HttpLabel) {
        drop(self.http.get_or_create(label));
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        self.hooks.register(r);
        r.register("events_accepted", "Events accepted, by urgency", self.events.clone());
        r.register("deliveries_created", "Deliveries made by accepted events, by urgency", self.deliveries.clone());
        r.register("batches", "Batches tried for the first time", self.batches.clone());
        r.register("batch_events", "Events in those batches", self.batch_events.clone());
        r.register("attempts", "Requests made for deliveries, by outcome", self.attempts.clone());
        r.register_with_unit(
            "attempt_duration",
            "How long requests for deliveries took",
            Unit::Seconds,
            self.attempt_seconds.clone(),
        );
        r.register_with_unit(
            "accepted_to_delivered",
            "From an event's acceptance to its receiver's yes, by delivery (of a batch: its first event's)",
            Unit::Seconds,
            self.arrival_seconds.clone(),
        );
        r.register("build_info", "Always 1; the version that runs", self.build.clone());
        r.register("deliveries_ended", "Deliveries that became terminal, by state and reason", self.ended.clone());
        r.register("jobs_begun", "Jobs (replays, erasures) asked for, by kind", self.jobs_begun.clone());
        r.register("jobs_ended", "Jobs that ended, by kind and state", self.jobs_ended.clone());
        r.register("deliveries_replayed", "Deliveries made by replays", self.replayed.clone());
        r.register("retention_removed", "Rows removed by retention, by what they were", self.removed.clone());
        r.register("attempts_in_flight", "Requests for deliveries under way", self.in_flight.clone());
        r.register("heads_in_memory", "Deliveries held in memory ahead of their attempt", self.heads.clone());
        r.register("webhooks_active", "Webhooks with something to do", self.webhooks.clone());
        r.register("quota_refusals", "Calls refused because a tenant's quota is used up", self.quota_refusals.clone());
        r.register("wrong_keys", "Requests with a key nobody has, by how they were answered", self.wrong_keys.clone());
        r.register(
            "rate_limit_waits",
            "Times a webhook with something to send waited for its rate_limit_per_s",
            self.rate_waits.clone(),
        );
        r.register(
            "publish_waits",
            "Publishes that waited because deliveries did not keep up, by how that ended",
            self.publish_waits.clone(),
        );
        r.register("oauth_token_fetches", "Requests to token endpoints, by outcome", self.token_fetches.clone());
        r.register("verifications", "Verifications of endpoints, by result", self.verifications.clone());
        r.register("webhooks_failing", "Webhooks whose endpoint is failing", self.failing.clone());
        r.register("webhooks_disabled", "Webhooks Gatepost disabled", self.disabled.clone());
        r.register("store_errors", "Store calls of the delivery lane that failed", self.store_errors.clone());
        r.register("store_commits", "Group commits", self.store_commits.clone());
        r.register("store_requests", "Requests those commits carried", self.store_requests.clone());
        r.register("store_queue", "Requests waiting for a commit", self.store_queued.clone());
        r.register_with_unit(
            "store_size",
            "Size of the store, its log included",
            Unit::Bytes,
            self.store_bytes.clone(),
        );
        r.register("http_requests", "API requests answered", self.http.clone());
        r.register_with_unit(
            "http_request_duration",
            "How long API requests took",
            Unit::Seconds,
            self.http_seconds.clone(),
        );
        let replays = self.idempotent_replays.clone();
        r.register("idempotent_replays", "Answers given again under an idempotency key", replays);
        r.register("stream_listeners", "Streams of changes being listened to", self.stream_listeners.clone());
        r.register("stream_resets", "Times a listener missed changes", self.stream_resets.clone());
    }

    /// Counts what a publish made.
    pub(crate) fn accepted(&self, accepted: &[Accepted]) {
        let mut made = Urgency::ALL.map(|_| (0, 0));
        for one in accepted.iter().filter(|one| !one.duplicate) {
            let (events, deliveries) = &mut made[one.event.urgency.rank()];
            *events += 1;
            *deliveries += u64::from(one.delivery_count - one.joined);
        }
        for (urgency, (events, deliveries)) in Urgency::ALL.into_iter().zip(made) {
            if events > 0 {
                let (all_events, all_deliveries) = self.accepted[urgency.rank()].get_or_init(|| {
                    let label = UrgencyLabel { urgency: urgency.as_str() };
                    (self.events.get_or_create_owned(&label), self.deliveries.get_or_create_owned(&label))
                });
                all_events.inc_by(events);
                all_deliveries.inc_by(deliveries);
            }
        }
    }

    /// Events accepted so far.
    pub(crate) fn events_accepted(&self) -> u64 {
        Urgency::ALL.iter().map(|u| self.events.get_or_create(&UrgencyLabel { urgency: u.as_str() }).get()).sum()
    }

    /// A batch was tried for the first time.
    pub(crate) fn batch_tried(&self, events: usize) {
        self.batches.inc();
        self.batch_events.inc_by(events as u64);
    }

    pub(crate) fn attempt(&self, outcome: Outcome, total_us: u32) {
        let by_label = || self.attempts.get_or_create_owned(&OutcomeLabel { outcome: outcome.as_str() });
        match outcome {
            Outcome::Ok => self.attempts_ok.get_or_init(by_label).inc(),
            _ => by_label().inc(),
        };
        self.attempt_seconds.observe(f64::from(total_us) / 1e6);
    }

    pub(crate) fn job_begun(&self, kind: &'static str) {
        self.jobs_begun.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn job_ended(&self, kind: &'static str, state: &'static str) {
        self.jobs_ended.get_or_create(&JobLabel { kind, state }).inc();
    }

    pub(crate) fn replayed(&self, deliveries: usize) {
        self.replayed.inc_by(deliveries as u64);
    }

    pub(crate) fn retained(&self, events: usize, attempts: usize, others: usize) {
        for (what, count) in [("events", events), ("attempts", attempts), ("others", others)] {
            self.removed.get_or_create(&WhatLabel { what }).inc_by(count as u64);
        }
    }

    pub(crate) fn delivery_ended(&self, state: DeliveryState, reason: Option<Reason>) {
        let label = EndLabel::of(state, reason);
        let by_label = || self.ended.get_or_create_owned(&label);
        match (state, reason) {
            (DeliveryState::Delivered, None) => self.ended_delivered.get_or_init(by_label).inc(),
            _ => by_label().inc(),
        };
    }

    /// A delivery arrived so long after its event was accepted.
    pub(crate) fn arrived(&self, after: Duration) {
        self.arrival_seconds.observe(after.as_secs_f64());
    }

    pub(crate) fn lane(&self, in_flight: usize, heads: usize, webhooks: usize) {
        self.in_flight.set(in_flight as i64);
        self.heads.set(heads as i64);
        self.webhooks.set(webhooks as i64);
    }

    /// Counts a call refused by a quota.
    pub(crate) fn quota_refused(&self, quota: &'static str) {
        self.quota_refusals.get_or_create(&QuotaLabel { quota }).inc();
    }

    /// Counts a key nobody has; `refused`: too many came from there.
    pub fn wrong_key(&self, refused: bool) {
        let outcome = if refused { "refused" } else { "unauthorized" };
        self.wrong_keys.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a publish that waited for deliveries, and whether it then went on.
    pub(crate) fn publish_waited(&self, accepted: bool) {
        let outcome = if accepted { "went_on" } else { "refused" };
        self.publish_waits.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts waits for a webhook's rate limit.
    pub(crate) fn rate_waited(&self, times: u64) {
        if times > 0 {
            self.rate_waits.inc_by(times);
        }
    }

    /// Counts a request to a token endpoint.
    pub(crate) fn token_fetched(&self, outcome: &'static str) {
        self.token_fetches.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(crate) fn idempotent_replay(&self) {
        self.idempotent_replays.inc();
    }

    pub(crate) fn stream_began(&self) {
        self.stream_listeners.inc();
    }

    pub(crate) fn stream_ended(&self) {
        self.stream_listeners.dec();
    }

    pub(crate) fn stream_reset(&self) {
        self.stream_resets.inc();
    }

    pub(crate) fn verification(&self, passed: bool) {
        let label = VerificationLabel { result: if passed { "passed" } else { "failed" } };
        self.verifications.get_or_create(&label).inc();
    }

    /// How many webhooks are not well.
    pub(crate) fn health(&self, counts: HealthCounts) {
        self.failing.set(i64::try_from(counts.failing).unwrap_or(i64::MAX));
        self.disabled.set(i64::try_from(counts.disabled).unwrap_or(i64::MAX));
    }

    pub(crate) fn store_error(&self) {
        self.store_errors.inc();
    }

    /// Counts an API request.
    pub fn http_request(&self, label: &HttpLabel, seconds: f64) {
        self.http.get_or_create(label).inc();
        self.http_seconds.observe(seconds);
    }

    /// Everything in the OpenMetrics text format.
    pub(crate) fn text(&self, store: &StoreStats) -> String {
        // The store counts by itself; these follow it.
        self.store_commits.inner().store(store.commits, Ordering::Relaxed);
        self.store_requests.inner().store(store.requests, Ordering::Relaxed);
        self.store_queued.set(store.queued as i64);
        self.store_bytes.set(store.bytes as i64);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        // The process's own have no prefix, as everywhere; the text ends with a mark.
        let end = text.rfind("# EOF").unwrap_or(text.len());
        text.insert_str(end, &process::metrics());
        text
    }
}
