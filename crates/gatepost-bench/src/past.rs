//! What happened before: events of days ago, with their deliveries and attempts.
//!
//! The server's clock cannot be set back, and a million requests take their time. So the past is
//! written by the store's own code, as the server calls it (`publish`, `settle`), between two runs of
//! the server on the folder: what is there afterwards is what a server of then would have left. Tenants
//! and webhooks are made through the API before.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use gatepost_core::delivery::{
    AttemptRecord, DeliveryState, Outcome, Reason, Response, Sent, SentValue, Timings, Trigger,
};
use gatepost_core::event::{Subject, Urgency};
use gatepost_core::grouping::Match;
use gatepost_core::webhook::Webhook;
use gatepost_core::{Clock as _, TenantKey, Timestamp};
use gatepost_engine::SystemClock;
use gatepost_store::sqlite::Options;
use gatepost_store::{
    Due, JobStore as _, NewEvent, Next, PageRequest, Publish, PublishOutcome, RetentionCursor, Settled, Settlement,
    SqliteStore, Store,
};

/// Events of one commit.
const GROUP: usize = 500;
/// So far in the future nothing of today is kept.
const FAR: Duration = Duration::from_secs(400 * 86_400);
/// What a receiver took to answer, and to fail.
const TOOK: Duration = Duration::from_millis(20);

/// A store while no server runs on it.
pub(super) struct Past {
    store: Arc<SqliteStore>,
}

/// Whose past.
#[derive(Clone)]
pub(super) struct Owner {
    tenant: TenantKey,
    version: u64,
    webhooks: Vec<Webhook>,
}

/// An event to have happened.
pub(super) struct Happened {
    /// The caller's id.
    pub(super) id: Option<String>,
    /// Its type.
    pub(super) event_type: &'static str,
    /// About whom.
    pub(super) subject: Option<String>,
    /// Bytes of padding in its data.
    pub(super) pad: usize,
    /// To which of its owner's webhooks it went, by their names, and what came of it.
    pub(super) to: Vec<(&'static str, Came)>,
}

/// What came of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Came {
    /// It was delivered at once.
    Delivered,
    /// At the second attempt.
    Late,
    /// Never.
    Failed,
    /// It is owed still.
    Owed,
}

impl Past {
    /// Opens the store in `folder`.
    ///
    /// # Errors
    /// A server runs on it, or it is no store of this version.
    pub(super) async fn open(folder: &Path) -> Result<Past> {
        let store = SqliteStore::open(folder, Options::default())?;
        // What was told of making tenants and webhooks is younger than what is to have happened, and would
        // come before it.
        let (later, mut cursor) = (SystemClock.now().saturating_add(FAR), RetentionCursor::START);
        while let Some(next) = store.retain(later, cursor, GROUP).await?.next {
            cursor = next;
        }
        Ok(Past { store: Arc::new(store) })
    }

    /// A tenant with its webhooks.
    pub(super) async fn owner(&self, tenant: &str) -> Result<Owner> {
        let found = self.store.tenant(&tenant.parse()?).await?;
        let found = found.with_context(|| format!("there is no tenant {tenant}"))?;
        let page = PageRequest { limit: 1_000, after: None };
        let webhooks = self.store.webhooks(found.key, page).await?.rows;
        Ok(Owner { tenant: found.key, version: found.registry_version, webhooks })
    }

    /// Lets `count` events happen, evenly between `from` and `to` ago. `each` says what event so many is,
    /// and whose. `told` hears now and then how far it is.
    pub(super) async fn happen(
        &self,
        count: usize,
        (from, to): (Duration, Duration),
        each: impl Fn(usize) -> (usize, Happened),
        owners: &[Owner],
        mut told: impl FnMut(usize),
    ) -> Result<()> {
        let now = SystemClock.now();
        let each = &each;
        let mut settling: Option<tokio::task::JoinHandle<Result<()>>> = None;
        for first in (0..count).step_by(GROUP) {
            let last = (first + GROUP).min(count);
            let passed = from.saturating_sub(to).mul_f64(first as f64 / count as f64);
            let then = now.saturating_sub(from).saturating_add(passed);
            let mut groups: Vec<(Vec<NewEvent>, Vec<Vec<Came>>)> = vec![Default::default(); owners.len()];
            for number in first..last {
                let (owner, happened) = each(number);
                let came = happened.to.iter().map(|(_, came)| *came).collect();
                groups[owner].0.push(owners[owner].event(number, happened, then)?);
                groups[owner].1.push(came);
            }
            let mut settlements = Vec::new();
            for (owner, (events, came)) in owners.iter().zip(groups).filter(|(_, group)| !group.0.is_empty()) {
                let publish = Publish { tenant: owner.tenant, registry_version: owner.version, now: then, events };
                let PublishOutcome::Accepted(accepted) = self.store.publish(publish).await? else {
                    bail!("the past was not accepted");
                };
                for (one, came) in accepted.into_iter().zip(came) {
                    ensure!(one.deliveries.len() == came.len(), "the past has other deliveries than it should");
                    settlements.extend(one.deliveries.into_iter().zip(came));
                }
            }
            // One group of deliveries ends while the next one is accepted.
            if let Some(settling) = settling.take() {
                settling.await??;
            }
            settling = Some(tokio::spawn(settle(self.store.clone(), settlements)));
            if first / 100_000 != last / 100_000 {
                told(last);
            }
        }
        if let Some(settling) = settling {
            settling.await??;
        }
        Ok(())
    }

    /// Everything is on disk.
    pub(super) async fn close(self) {
        self.store.close().await;
    }
}

impl Owner {
    fn event(&self, number: usize, happened: Happened, then: Timestamp) -> Result<NewEvent> {
        let mut matches = Vec::with_capacity(happened.to.len());
        for (name, _) in &happened.to {
            let webhook = self.webhooks.iter().find(|webhook| webhook.config.name == *name);
            matches.push(Match::of(webhook.with_context(|| format!("there is no webhook {name}"))?));
        }
        let mut fingerprint = [0; 16];
        fingerprint[..8].copy_from_slice(&number.to_be_bytes());
        let data = format!(r#"{{"user":"u-{number}","pad":"{}"}}"#, "x".repeat(happened.pad));
        Ok(NewEvent {
            caller_id: happened.id.map(|id| id.parse()).transpose()?,
            fingerprint,
            event_type: happened.event_type.parse()?,
            undeclared: false,
            timestamp: then,
            subject: happened.subject.map(|id| Subject { kind: Some("user".into()), id }),
            urgency: Urgency::Normal,
            attributes: None,
            data: Bytes::from(data),
            trace: None,
            matches: Arc::new(matches),
        })
    }
}

async fn settle(store: Arc<SqliteStore>, ended: Vec<(Due, Came)>) -> Result<()> {
    // A second attempt needs the first to be recorded.
    let late: Vec<_> = ended.iter().filter(|(_, came)| *came == Came::Late).cloned().collect();
    for (attempt, ended) in [(1, ended), (2, late)] {
        let settlements: Vec<Settlement> = ended
            .iter()
            .filter(|(_, came)| *came != Came::Owed)
            .map(|(due, came)| outcome(due, *came, attempt))
            .collect();
        if settlements.is_empty() {
            continue;
        }
        let answer = store.settle(settlements).await?;
        ensure!(answer.results.iter().all(|settled| *settled == Settled::Recorded), "the past was not recorded");
    }
    Ok(())
}

/// What an attempt came to, as the server records it.
fn outcome(due: &Due, came: Came, attempt: u32) -> Settlement {
    let failed = came == Came::Failed || (came == Came::Late && attempt == 1);
    let started_at = due.due.saturating_add(TOOK * 2 * (attempt - 1));
    let status = if failed { 503 } else { 200 };
    let next = match came {
        Came::Late if failed => Next::Retry(started_at.saturating_add(TOOK)),
        Came::Failed => Next::End(DeliveryState::Failed, Reason::Exhausted),
        _ => Next::Delivered,
    };
    let signature = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=".to_owned();
    Settlement {
        tenant: due.tenant,
        webhook: due.webhook,
        seq: due.seq,
        generation: due.generation,
        ordered: due.ordered,
        attempt: Arc::new(AttemptRecord {
            number: attempt,
            started_at,
            trigger: Trigger::Scheduled,
            outcome: Outcome::of_status(status),
            status: Some(status),
            error: failed.then(|| "answered 503".to_owned()),
            timings: Timings { first_byte_us: Some(19_000), total_us: 20_000, ..Timings::default() },
            sent: Sent {
                revision: due.revision,
                signed: vec![SentValue::EventId, SentValue::StartedAt, SentValue::Text(signature)],
            },
            response: Some(Response {
                headers: vec![
                    ("content-length".into(), "0".into()),
                    ("date".into(), "Sun, 22 Nov 2026 08:49:37 GMT".into()),
                ],
                ..Response::default()
            }),
            resent: false,
        }),
        next,
        freeze: (failed && attempt == 1).then(|| due.events.first().data.clone()),
        pause_until: None,
        disable: None,
        tell: false,
    }
}
