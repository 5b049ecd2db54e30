//! What operations tell the lane: handed over in batches, so that one wake-up serves many.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use gatepost_core::event::Urgency;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::Webhook;
use gatepost_core::{DeliverySeq, TenantId, TenantKey, Timestamp, WebhookKey};
use gatepost_store::{Due, Wake};
use tokio::sync::Notify;

use super::budget::Budget;

/// One thing the lane should know.
pub(crate) enum Command {
    /// Deliveries just committed.
    Offer(Vec<Due>),
    /// Deliveries that became due otherwise, or are no longer as memory has them.
    Wake(Vec<Wake>),
    /// A delivery is no longer owed.
    Cancelled {
        /// To whom it was owed.
        webhook: WebhookKey,
        /// Which.
        seq: DeliverySeq,
    },
    /// A webhook was changed or deleted.
    WebhookChanged {
        /// As it is now.
        webhook: Arc<Webhook>,
        /// It was disabled and now is not.
        reopened: bool,
    },
    /// A tenant's settings were changed.
    TenantChanged(Tenant),
    /// A tenant was deleted.
    TenantDeleted(TenantKey),
    /// Deliveries may have been made or reopened, and nobody knows which: look what the store holds.
    LookForOwed,
    /// A tenant or its webhooks may have been changed, and nobody knows how: look what the store holds.
    InDoubt(TenantId),
    /// Start nothing more, finish what is under way.
    Drain,
}

/// Everything said since the lane last listened.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) commands: Vec<Command>,
    pub(crate) stored: HashMap<(WebhookKey, usize), (TenantKey, Timestamp)>,
    offers: usize,
    offer_bytes: usize,
}

impl Said {
    /// Leaves it at the fact that the store holds something due then.
    fn store_holds(&mut self, tenant: TenantKey, webhook: WebhookKey, urgency: Urgency, due: Timestamp) {
        let (_, earliest) = self.stored.entry((webhook, urgency.rank())).or_insert((tenant, due));
        *earliest = (*earliest).min(due);
    }
}

/// What deliveries hold in memory. Those of one event come one after the other and share it.
fn offer_bytes(dues: &[Due]) -> usize {
    let mut last = None;
    dues.iter()
        .map(|due| {
            let event = due.events.first();
            let shared = last.replace(event).is_some_and(|last| Arc::ptr_eq(last, event));
            let data = if shared { 0 } else { due.events.data_len() };
            data + due.body.as_ref().map_or(0, |body| body.len())
        })
        .sum()
}

/// See [`Inbox::unless_resolved`].
#[must_use = "a doubt that is dropped at once is told at once"]
pub(crate) struct Doubt<'a> {
    inbox: &'a Inbox,
    command: Option<Command>,
}

impl Doubt<'_> {
    /// The lane knows all there is to know.
    pub(crate) fn resolved(mut self) {
        self.command = None;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if let Some(command) = self.command.take() {
            self.inbox.send(command);
        }
    }
}

/// The lane's letter box.
pub(crate) struct Inbox {
    said: Mutex<Said>,
    notify: Notify,
    pub(crate) budget: Budget,
    /// Deliveries that may wait here with their payloads, and the bytes of those.
    offers: usize,
    offer_bytes: usize,
}

#[cfg(test)]
impl Default for Inbox {
    fn default() -> Self {
        Inbox::new(&crate::Limits::default())
    }
}

impl Inbox {
    /// An empty one.
    pub(crate) fn new(limits: &crate::Limits) -> Self {
        let (offers, offer_bytes) = (limits.offers, limits.offer_bytes);
        Inbox { said: Mutex::default(), notify: Notify::new(), budget: Budget::default(), offers, offer_bytes }
    }

    /// Tells the lane something. Never waits.
    pub(crate) fn send(&self, command: Command) {
        let bytes = if let Command::Offer(dues) = &command { offer_bytes(dues) } else { 0 };
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match command {
            Command::Offer(dues)
                if said.offers + dues.len() > self.offers || said.offer_bytes + bytes > self.offer_bytes =>
            {
                for due in dues {
                    said.store_holds(due.tenant, due.webhook, due.urgency, due.due);
                }
            }
            Command::Wake(mut wakes) => {
                if said.offers + wakes.len() > self.offers {
                    // Those whose place is not known are few: they come of calls about one delivery.
                    for wake in wakes.extract_if(.., |wake| wake.at.is_some()) {
                        if let Some((urgency, due)) = wake.at {
                            said.store_holds(wake.tenant, wake.webhook, urgency, due);
                        }
                    }
                }
                said.offers += wakes.len();
                said.commands.push(Command::Wake(wakes));
            }
            Command::Offer(dues) => {
                said.offers += dues.len();
                said.offer_bytes += bytes;
                said.commands.push(Command::Offer(dues));
            }
            other => said.commands.push(other),
        }
        self.budget.unseen(said.offers);
        drop(said);
        self.notify.notify_one();
    }

    /// Says `command` unless told that there is no need: for changes whose answer may be lost (the
    /// store fails after the commit) or never awaited (the caller goes away in between).
    pub(crate) fn unless_resolved(&self, command: Command) -> Doubt<'_> {
        Doubt { inbox: self, command: Some(command) }
    }

    /// Takes everything said so far.
    pub(crate) fn take(&self) -> Said {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        self.budget.unseen(0);
        std::mem::take(&mut *said)
    }

    /// Waits until something is said (or was, since the last wait).
    pub(crate) async fn listen(&self) {
        self.notify.notified().await;
    }
}
