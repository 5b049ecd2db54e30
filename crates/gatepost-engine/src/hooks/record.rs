//! Records of invocations: made after the answer, written in batches, without anything secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use gatepost_core::echo::Known;
use gatepost_core::hooks::decision::{Decision, HookResult, HookRow, Verdict};
use gatepost_core::hooks::failure::FailureClass;
use gatepost_core::hooks::hook::Mode;
use gatepost_core::hooks::invocation::Invocation;
use gatepost_core::hooks::json::{Map, Pointer, Value, held_by};
use gatepost_core::hooks::outcome::ACCEPTED_FOR;
use gatepost_core::hooks::points::Capture;
use gatepost_core::hooks::redact;
use gatepost_core::own_events::OwnEvent;
use gatepost_core::{Entropy, HookId, TenantId, TenantKey, Timestamp};
use gatepost_store::StoreError;
use gatepost_store::hooks::{
    HookCounters, InvocationBatch, InvocationBody, InvocationRecord, KeptSecret, NewInvocation, NewTrial,
};
use serde_json::json;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;

use super::ask::{Ask, Noting};
use super::drive::Drive;
use super::probe::mask_decision;
use crate::engine::Engine;
use crate::metrics::Metrics;

/// Entries that may wait to be written (P10). Beyond, or with more bytes in their bodies than there is
/// room for, bodies are left out first, then records.
const WAITING: usize = 32_768;
/// Past this share of it bodies are left out.
const WITHOUT_BODIES: usize = WAITING / 2;
/// Entries written at once.
const BATCH: usize = 500;
/// How long the first of a batch waits for others: a crash loses at most what is younger.
const LINGER: Duration = Duration::from_millis(25);
/// How long somebody who looks at records waits for the latest to be written.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// How long captured bodies are kept.
const CAPTURED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// One in so many invocations is sampled.
const SAMPLE: u64 = 100;

/// What a record says about the question, taken while it is there.
pub(super) struct Asking {
    pub(super) question: Question,
    pub(super) resolved: String,
}

/// The question without its secrets.
pub(super) struct Question {
    native: Value,
    sha256: Option<String>,
    key: Option<String>,
    trace_id: Option<String>,
}

impl Question {
    /// Of an invocation, whose secret members were taken out when it was read.
    pub(super) fn of(ask: &Ask, invocation: &Invocation) -> Self {
        // A hash of something with a password in it would let people try passwords.
        let sha256 = invocation.secrets.is_empty().then(|| hex(&gatepost_core::hashing::sha256(&ask.body)));
        Question {
            native: native(invocation),
            sha256,
            key: ask.caller.map(|key| key.to_string()),
            trace_id: ask.trace.map(|trace| format!("{:032x}", u128::from_be_bytes(trace.trace_id))),
        }
    }
}

/// An invocation in the native form, to be kept and to be tried again.
pub(super) fn native(invocation: &Invocation) -> Value {
    let mut out = Map::new();
    for (name, value) in [
        ("subject", &invocation.subject),
        ("actor", &invocation.actor),
        ("object", &invocation.object),
        ("old_object", &invocation.old_object),
        ("context", &invocation.context),
        ("default", &invocation.default),
    ] {
        if !value.is_null() && value.as_object().is_none_or(|members| !members.holds_nothing()) {
            out.insert(name.into(), value.clone());
        }
    }
    if !invocation.attributes.is_empty() {
        let attribute = |a: &gatepost_core::hooks::invocation::Attribute| {
            let mut members = a.context.clone();
            members.insert("default".into(), a.default.clone());
            Value::Object(members)
        };
        out.insert("attributes".into(), invocation.attributes.iter().map(attribute).collect());
    }
    Value::Object(out)
}

/// The hash of an object, as it was but for what is redacted.
fn hash_of(object: &Value, redacted: &[Pointer]) -> String {
    let hash = |object: &Value| hex(&gatepost_core::hashing::sha256(object.to_string().as_bytes()));
    if redacted.is_empty() {
        return hash(object);
    }
    let mut object = object.clone();
    redact::strip(&mut object, redacted);
    hash(&object)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Something to be written down.
enum Entry {
    Invocation(Box<NewInvocation>),
    Trial(TenantKey, Box<NewTrial>, HookCounters),
    Secret(KeptSecret),
    Own(TenantId, OwnEvent, String, serde_json::Value),
    /// Says when everything before it is on disk.
    Flush(oneshot::Sender<()>),
}

impl Entry {
    fn body_bytes(&self) -> usize {
        match self {
            Entry::Invocation(new) => new.body.as_ref().map_or(0, |(body, _)| bytes_of(body)),
            Entry::Trial(..) | Entry::Secret(_) | Entry::Own(..) | Entry::Flush(_) => 0,
        }
    }
}

/// What a kept body holds in memory, about.
fn bytes_of(body: &InvocationBody) -> usize {
    held_by(&body.question) + held_by(&body.object)
}

/// Where records go: never waits, never blocks.
pub(crate) struct Recorder {
    sender: mpsc::Sender<Entry>,
    receiver: Mutex<Option<mpsc::Receiver<Entry>>>,
    waiting: Arc<AtomicUsize>,
    /// What the bodies hold that wait or are being written, and what they may.
    body_bytes: AtomicUsize,
    body_bytes_max: usize,
    began: Instant,
    /// When the last record, and the last secret, came: seconds after `began`. At the start there may
    /// be some from before it.
    last_record: AtomicU64,
    last_secret: AtomicU64,
    metrics: Arc<Metrics>,
}

impl Recorder {
    pub(crate) fn new(metrics: Arc<Metrics>, body_bytes_max: usize) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Recorder {
            sender,
            receiver: Mutex::new(Some(receiver)),
            waiting: Arc::default(),
            body_bytes: AtomicUsize::new(0),
            body_bytes_max,
            began: Instant::now(),
            last_record: AtomicU64::new(0),
            last_secret: AtomicU64::new(0),
            metrics,
        }
    }

    /// When the last record came, in seconds of the lane's clock.
    pub(super) fn last_record(&self) -> u64 {
        self.last_record.load(Ordering::Relaxed)
    }

    /// When the last secret was kept, in seconds of the lane's clock.
    pub(super) fn last_secret(&self) -> u64 {
        self.last_secret.load(Ordering::Relaxed)
    }

    /// There is something new to look after.
    pub(super) fn noted(&self) {
        self.last_record.store(self.now_s(), Ordering::Relaxed);
    }

    fn now_s(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    fn put(&self, entry: Entry) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if let Err(TrySendError::Full(entry) | TrySendError::Closed(entry)) = self.sender.try_send(entry) {
            self.body_bytes.fetch_sub(entry.body_bytes(), Ordering::Relaxed);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.metrics.hooks.record_dropped();
        }
    }

    /// Keeps a record.
    pub(super) fn record(&self, mut new: NewInvocation) {
        if let Some(held) = new.body.as_ref().map(|(body, _)| bytes_of(body)) {
            let before = self.body_bytes.fetch_add(held, Ordering::Relaxed);
            if before + held > self.body_bytes_max || self.waiting.load(Ordering::Relaxed) > WITHOUT_BODIES {
                self.body_bytes.fetch_sub(held, Ordering::Relaxed);
                new.body = None;
            }
        }
        self.noted();
        self.put(Entry::Invocation(Box::new(new)));
    }

    /// Keeps a trial.
    pub(super) fn trial(&self, tenant: TenantKey, trial: NewTrial, counts: HookCounters) {
        self.put(Entry::Trial(tenant, Box::new(trial), counts));
    }

    /// Keeps a secret notification for another try.
    pub(super) fn secret(&self, kept: KeptSecret) {
        self.last_secret.store(self.now_s(), Ordering::Relaxed);
        self.put(Entry::Secret(kept));
    }

    /// Tells an own event.
    pub(super) fn tell(&self, tenant: TenantId, event: OwnEvent, hook: String, data: serde_json::Value) {
        self.put(Entry::Own(tenant, event, hook, data));
    }

    /// Waits until everything recorded so far is on disk, or cannot be for now.
    pub(super) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        if self.sender.try_send(Entry::Flush(done)).is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // Whoever looks at records must not wait for a store that is away.
        let _ = tokio::time::timeout(FLUSH_PATIENCE, written).await;
    }
}

/// What is known of a decision besides itself.
pub(super) struct Seen {
    /// A receiver repeated a secret of the question: what it led to must not be kept.
    pub(super) repeats_secret: bool,
    /// Secrets of hooks their own receivers repeated: what is kept is masked.
    pub(super) repeated: Vec<Known>,
    /// The caller went away before.
    pub(super) abandoned: bool,
}

impl Engine {
    /// The record of a decision.
    pub(super) fn record_of(
        &self,
        drive: &Drive,
        decision: &Arc<Decision>,
        noting: &Noting,
        asking: Asking,
        seen: &Seen,
    ) -> NewInvocation {
        let &Seen { repeats_secret, ref repeated, abandoned } = seen;
        let Asking { mut question, resolved } = asking;
        if redact::strip_question(&mut question.native, &noting.redact) {
            // A hash of something with a password in it would let people try passwords.
            question.sha256 = None;
        }
        let mut kept = Decision::clone(decision);
        repeated.iter().for_each(|known| mask_decision(known, &mut kept));
        let mut object = std::mem::take(&mut kept.object);
        redact::strip(&mut object, &noting.redact);
        redact::strip_patch(&mut kept.patch, &noting.redact);
        if repeats_secret {
            // What a receiver repeated may stand anywhere in what it led to.
            kept.patch.clear();
            kept.value = Value::Null;
            kept.values = None;
            for row in &mut kept.hooks {
                row.changed = None;
            }
        }
        let chain = drive.chain();
        let asked = chain.invocation();
        let subject_id = asked.subject.get("id").and_then(Value::as_str).map(str::to_owned);
        let allowed = decision.decision == Verdict::Allow;
        let body = (!repeats_secret).then(|| self.body_until(decision, noting)).flatten();
        NewInvocation {
            tenant: drive.snapshot.tenant.key,
            id: noting.id,
            at: noting.at,
            point: resolved,
            subject_id,
            awaits_outcome: allowed && !decision.dry_run && !abandoned,
            record: InvocationRecord {
                decision: kept,
                subject: asked.subject.clone(),
                actor: asked.actor.clone(),
                key: question.key,
                trace_id: question.trace_id,
                hop: noting.hop,
                request_sha256: question.sha256,
                object_sha256: (!repeats_secret && !object.is_null())
                    .then(|| hash_of(&decision.object, &noting.redact)),
                abandoned,
            },
            body: body.map(|until| (InvocationBody { question: question.native, object }, until)),
        }
    }

    /// Until when question and object are kept, if they are.
    fn body_until(&self, decision: &Decision, noting: &Noting) -> Option<Timestamp> {
        let failed = decision.hooks.iter().any(|row| row.failure.is_some());
        let captured = match noting.capture {
            Capture::Off => false,
            Capture::Failures => failed,
            Capture::Sampled => failed || self.inner.entropy.next_u64().is_multiple_of(SAMPLE),
            Capture::All => true,
        };
        let captured = captured.then(|| noting.at.saturating_add(CAPTURED_FOR));
        // What a committed operation's event carries, unless its outcome says otherwise. A platform may
        // go on against a no, too.
        let owed = (noting.operation && !decision.dry_run).then(|| noting.at.saturating_add(ACCEPTED_FOR));
        captured.max(owed)
    }

    /// Puts a record on disk before the answer (`strict`).
    pub(super) async fn record_now(&self, new: NewInvocation, within: Duration) -> Result<(), StoreError> {
        self.inner.hooks.recorder.noted();
        let counts = counts_of(&new);
        let batch = InvocationBatch { invocations: vec![new], counts, ..InvocationBatch::default() };
        match tokio::time::timeout(within, self.inner.store.record_invocations(batch)).await {
            Ok(written) => written,
            Err(_) => Err(StoreError::Unavailable("the record was not written in time".to_owned())),
        }
    }

    /// Writes what is recorded, until everybody who records is gone or `stop` says so.
    pub(super) async fn keep_recording(self, mut stop: oneshot::Receiver<()>) {
        let recorder = &self.inner.hooks.recorder;
        let Some(mut receiver) = recorder.receiver.lock().await.take() else { return };
        let mut entries = Vec::with_capacity(BATCH);
        let mut stopping = false;
        while !stopping {
            tokio::select! {
                taken = receiver.recv_many(&mut entries, 1) => if taken == 0 { return },
                _ = &mut stop => stopping = true,
            }
            let hurried = |entries: &[Entry]| entries.iter().any(|entry| matches!(entry, Entry::Flush(_)));
            if !stopping && !hurried(&entries) {
                let until = Instant::now() + LINGER;
                while entries.len() < BATCH && !hurried(&entries) {
                    let more = receiver.recv_many(&mut entries, BATCH);
                    if tokio::time::timeout_at(until, more).await.is_err() {
                        break;
                    }
                }
            }
            while let Ok(entry) = receiver.try_recv() {
                entries.push(entry);
                if entries.len() >= BATCH && !stopping {
                    break;
                }
            }
            recorder.waiting.fetch_sub(entries.len(), Ordering::Relaxed);
            let held: usize = entries.iter().map(Entry::body_bytes).sum();
            self.write_down(std::mem::take(&mut entries), stopping).await;
            recorder.body_bytes.fetch_sub(held, Ordering::Relaxed);
        }
    }

    async fn write_down(&self, entries: Vec<Entry>, last_chance: bool) {
        let mut batch = InvocationBatch::default();
        let (mut flushes, mut secrets, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            match entry {
                Entry::Invocation(new) => {
                    batch.counts.extend(counts_of(&new));
                    batch.invocations.push(*new);
                }
                Entry::Trial(tenant, trial, counts) => {
                    batch.counts.push((tenant, trial.hook, counts));
                    batch.trials.push(*trial);
                }
                Entry::Secret(kept) => secrets.push(kept),
                Entry::Own(tenant, event, hook, data) => told.push((tenant, event, hook, data)),
                Entry::Flush(done) => flushes.push(done),
            }
        }
        batch.counts = together(batch.counts);
        let store = &self.inner.store;
        let writing = || store.record_invocations(batch.clone());
        if !batch.is_empty() && !self.until_written(last_chance || !flushes.is_empty(), writing).await {
            self.inner.metrics.hooks.records_dropped(batch.invocations.len());
        }
        for kept in secrets {
            self.until_written(last_chance, || store.keep_secret(kept.clone())).await;
        }
        for (tenant, event, hook, data) in told {
            self.tell_own(&tenant, event, &hook, data).await;
        }
        for done in flushes {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }

    /// Repeats a write while the store is away; whether it was done. New records wait meanwhile, and
    /// are dropped and counted when there are too many.
    async fn until_written<F>(&self, once: bool, write: impl Fn() -> F) -> bool
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        let mut wait = Duration::from_millis(50);
        loop {
            match write().await {
                Ok(()) => return true,
                Err(StoreError::Closed | StoreError::Corrupt(_)) => return false,
                Err(error) if once || self.draining() => {
                    tracing::warn!(%error, "records of invocations were not written");
                    return false;
                }
                Err(error) => tracing::debug!(%error, "records of invocations wait for the store"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(1));
        }
    }
}

/// What a record adds to its hooks' counters.
fn counts_of(new: &NewInvocation) -> Vec<(TenantKey, HookId, HookCounters)> {
    use HookResult::{Cancelled, Changed, Deny, Failed, Observing, SkippedCondition, SkippedSideEffects};
    let decision = &new.record.decision;
    if decision.dry_run {
        return Vec::new();
    }
    let counted = decision.hooks.iter().filter(|row| {
        // One that was cut short was asked, if its question went out.
        let asked = row.attempts > 0 || row.result != Cancelled;
        row.mode == Mode::Enforce
            && !matches!(row.result, SkippedCondition | SkippedSideEffects | Observing)
            && asked
            && was_sent(row)
    });
    let count = |row: &HookRow| HookCounters {
        asked: 1,
        denied: u64::from(row.result == Deny),
        changed: u64::from(row.result == Changed),
        failed: u64::from(row.result == Failed),
        ..HookCounters::default()
    };
    counted.map(|row| (new.tenant, row.id, count(row))).collect()
}

/// Whether a question really went out: what was not asked has neither answered nor failed.
pub(super) fn was_sent(row: &HookRow) -> bool {
    match row.failure {
        Some(FailureClass::CircuitOpen | FailureClass::Budget | FailureClass::ConditionError) => false,
        // Where there is no way to call the receiver at all.
        Some(FailureClass::Connect) => row.attempts > 0,
        _ => true,
    }
}

fn together(counts: Vec<(TenantKey, HookId, HookCounters)>) -> Vec<(TenantKey, HookId, HookCounters)> {
    let mut sums = std::collections::BTreeMap::<(TenantKey, HookId), HookCounters>::new();
    for (tenant, hook, more) in counts {
        sums.entry((tenant, hook)).or_default().add(&more);
    }
    sums.into_iter().map(|((tenant, hook), sum)| (tenant, hook, sum)).collect()
}

/// An invocation as an outside `json!` sees it: for own events.
pub(super) fn summary(id: &str, decision: &Decision, subject: &Value) -> serde_json::Value {
    json!({
        "id": id, "point": decision.point, "decision": decision.decision, "cause": decision.cause,
        "subject": subject.readable(),
    })
}
