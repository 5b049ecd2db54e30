//! Which deliveries of a webhook wait for each other: in a queue (DESIGN 4.4), or for company in a
//! batch (DESIGN 7).

use crate::WebhookKey;
use crate::event::Subject;
use crate::hashing::sha256;
use crate::webhook::{Batch, Ordering, Webhook, WebhookConfig};

/// How what a webhook is owed waits for each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grouping {
    /// In which order deliveries go out.
    pub ordering: Ordering,
    /// When events go out together.
    pub batch: Option<Batch>,
}

/// The name of a queue within its webhook: of the deliveries in it only the first may be tried.
pub type QueueName = [u8; 16];

impl Grouping {
    /// What a webhook asks for.
    pub fn of(config: &WebhookConfig) -> Self {
        Grouping { ordering: config.ordering, batch: config.batch }
    }

    /// The queue that a delivery about `subject` stands in; `None`: it waits for nobody. Under
    /// [`Ordering::Subject`] that holds for what is about nobody, and for batches, which are about
    /// many. Two subjects are the same when both their types and their ids are.
    pub fn queue(&self, subject: Option<&Subject>) -> Option<QueueName> {
        match self.ordering {
            Ordering::None => None,
            Ordering::Webhook => Some([0; 16]),
            Ordering::Subject if self.batch.is_some() => None,
            Ordering::Subject => subject.map(subject_queue),
        }
    }
}

/// A hash, so that a name is short and outlives nothing that is erased about a person.
fn subject_queue(subject: &Subject) -> QueueName {
    let kind = subject.kind.as_deref().map_or(String::new(), |kind| format!("{}:{kind}", kind.len()));
    let hash = sha256(format!("{kind}/{}", subject.id).as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&hash[..16]);
    name
}

/// A webhook an event goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Match {
    /// Which.
    pub webhook: WebhookKey,
    /// Its revision: what the body is rendered from.
    pub revision: u32,
    /// What its deliveries wait for, at that revision.
    pub grouping: Grouping,
}

impl Match {
    /// `webhook`, as it is now.
    pub fn of(webhook: &Webhook) -> Self {
        Match { webhook: webhook.key, revision: webhook.revision, grouping: Grouping::of(&webhook.config) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(kind: Option<&str>, id: &str) -> Subject {
        Subject { kind: kind.map(str::to_owned), id: id.to_owned() }
    }

    #[test]
    fn queues_are_of_nobody_of_a_subject_or_of_the_webhook() {
        let of = |ordering, subject: Option<&Subject>| Grouping { ordering, batch: None }.queue(subject);
        let anna = subject(Some("user"), "anna");
        assert_eq!(of(Ordering::None, Some(&anna)), None);
        assert_eq!(of(Ordering::Subject, None), None, "about nobody: waits for nobody");
        assert_eq!(of(Ordering::Webhook, None), of(Ordering::Webhook, Some(&anna)));
        assert!(of(Ordering::Webhook, None).is_some());
        let others = [
            subject(Some("user"), "bert"),
            subject(Some("group"), "anna"),
            subject(None, "anna"),
            subject(None, "user/anna"),
            subject(Some(""), "anna"),
            subject(Some("user/an"), "na"),
        ];
        for other in &others {
            assert_ne!(of(Ordering::Subject, Some(&anna)), of(Ordering::Subject, Some(other)), "{other:?}");
        }
        assert_eq!(of(Ordering::Subject, Some(&anna)), of(Ordering::Subject, Some(&anna.clone())));
    }

    #[test]
    fn a_batch_is_about_many_and_stands_in_no_subjects_queue() {
        let grouping = Grouping { ordering: Ordering::Subject, batch: Some(Batch::default()) };
        assert_eq!(grouping.queue(Some(&subject(None, "anna"))), None);
        let grouping = Grouping { ordering: Ordering::Webhook, ..grouping };
        assert!(grouping.queue(None).is_some());
    }
}
