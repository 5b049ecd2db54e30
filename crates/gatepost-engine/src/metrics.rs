//! Counters and histograms. One registry per server, so that two servers in one process do not mix.
//!
//! No tenant, webhook or event appears as a label: their number is unbounded, and `/metrics` needs
//! no key.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gatepost_core::delivery::{DeliveryState, Outcome, Reason};
use gatepost_core::event::Urgency;
use gatepost_store::StoreStats;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of latency buckets, in seconds.
const BUCKETS: [f64; 14] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct UrgencyLabel {
    urgency: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndLabel {
    state: &'static str,
    reason: &'static str,
}

/// How one API request ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct HttpLabel {
    /// The request's method.
    pub method: &'static str,
    /// The route's template, such as `/v1/tenants/{tenant}`.
    pub route: &'static str,
    /// The status answered.
    pub status: u16,
}

/// Everything measured.
pub struct Metrics {
    registry: Registry,
    events: Family<UrgencyLabel, Counter>,
    deliveries: Family<UrgencyLabel, Counter>,
    attempts: Family<OutcomeLabel, Counter>,
    attempt_seconds: Histogram,
    ended: Family<EndLabel, Counter>,
    in_flight: Gauge,
    heads: Gauge,
    webhooks: Gauge,
    store_errors: Counter,
    store_commits: Counter,
    store_requests: Counter,
    store_queued: Gauge<i64>,
    store_bytes: Gauge<i64>,
    http: Family<HttpLabel, Counter<u64, AtomicU64>>,
    http_seconds: Histogram,
}

impl Metrics {
    /// An empty set.
    pub fn new() -> Arc<Self> {
        let mut m = Metrics {
            registry: Registry::with_prefix("gatepost"),
            events: Family::default(),
            deliveries: Family::default(),
            attempts: Family::default(),
            attempt_seconds: Histogram::new(BUCKETS),
            ended: Family::default(),
            in_flight: Gauge::default(),
            heads: Gauge::default(),
            webhooks: Gauge::default(),
            store_errors: Counter::default(),
            store_commits: Counter::default(),
            store_requests: Counter::default(),
            store_queued: Gauge::default(),
            store_bytes: Gauge::default(),
            http: Family::default(),
            http_seconds: Histogram::new(BUCKETS),
        };
        m.register();
        Arc::new(m)
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("events_accepted", "Events accepted, by urgency", self.events.clone());
        r.register("deliveries_created", "Deliveries made by accepted events, by urgency", self.deliveries.clone());
        r.register("attempts", "Requests made for deliveries, by outcome", self.attempts.clone());
        r.register_with_unit(
            "attempt_duration",
            "How long requests for deliveries took",
            Unit::Seconds,
            self.attempt_seconds.clone(),
        );
        r.register("deliveries_ended", "Deliveries that became terminal, by state and reason", self.ended.clone());
        r.register("attempts_in_flight", "Requests for deliveries under way", self.in_flight.clone());
        r.register("heads_in_memory", "Deliveries held in memory ahead of their attempt", self.heads.clone());
        r.register("webhooks_active", "Webhooks with something to do", self.webhooks.clone());
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
    }

    pub(crate) fn event_accepted(&self, urgency: Urgency, deliveries: u32) {
        let label = UrgencyLabel { urgency: urgency.as_str() };
        self.events.get_or_create(&label).inc();
        self.deliveries.get_or_create(&label).inc_by(u64::from(deliveries));
    }

    pub(crate) fn attempt(&self, outcome: Outcome, total_us: u32) {
        self.attempts.get_or_create(&OutcomeLabel { outcome: outcome.as_str() }).inc();
        self.attempt_seconds.observe(f64::from(total_us) / 1e6);
    }

    pub(crate) fn delivery_ended(&self, state: DeliveryState, reason: Option<Reason>) {
        let label = EndLabel { state: state.as_str(), reason: reason.map_or("none", Reason::as_str) };
        self.ended.get_or_create(&label).inc();
    }

    pub(crate) fn lane(&self, in_flight: usize, heads: usize, webhooks: usize) {
        self.in_flight.set(in_flight as i64);
        self.heads.set(heads as i64);
        self.webhooks.set(webhooks as i64);
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
        text
    }
}
