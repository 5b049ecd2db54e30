//! What is done for one tenant.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

use crate::answer::{Answer, Fallback};
use crate::client::Client;
use crate::error::{Problem, PublishError, Unanswered};
use crate::event::{Event, Published, fresh_id};
use crate::question::{Outcome, Question};
use crate::transport::{NoReply, Reply};

/// The first pause between two tries of publishing; each next one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause, unless the server asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What Gatepost is told to leave of the deadline for its answer's way back, at most.
const WAY_BACK_MAX: Duration = Duration::from_millis(25);

/// One tenant of a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tenant {
    client: Client,
    path: String,
}

/// What to do after a try to publish.
enum Next {
    Again { why: String, not_before: Duration },
    Refused(Box<Problem>),
}

impl Tenant {
    pub(crate) fn new(client: Client, id: String) -> Self {
        // Ids need no escaping; anything else must not reach another path.
        let path = format!("/v1/tenants/{}", escape(&id));
        Tenant { client, path }
    }

    /// Publishes an event. `Ok`: Gatepost has it on disk, with everything it owes for it.
    ///
    /// Tried again, under the same id, when Gatepost is not reached, has no room (429) or cannot store
    /// (503), until [`ClientBuilder::publish_for`](crate::ClientBuilder::publish_for) is over.
    ///
    /// # Errors
    /// [`PublishError::Refused`] when Gatepost says no; [`PublishError::Unavailable`] when the time is over.
    pub async fn publish(&self, event: &Event) -> Result<Published, PublishError> {
        self.accepted(&format!("{}/events", self.path), json_of(event)).await
    }

    /// Publishes events, all or none, at most 1,000. Otherwise like [`Tenant::publish`].
    ///
    /// # Errors
    /// As [`Tenant::publish`].
    pub async fn publish_all(&self, events: &[Event]) -> Result<Vec<Published>, PublishError> {
        #[derive(Serialize)]
        struct All<'a> {
            events: &'a [Event],
        }
        #[derive(Deserialize)]
        struct Accepted {
            events: Vec<Published>,
        }
        let accepted: Accepted =
            self.accepted(&format!("{}/events/batch", self.path), json_of(&All { events })).await?;
        Ok(accepted.events)
    }

    async fn accepted<T: for<'de> Deserialize<'de>>(&self, path: &str, body: Bytes) -> Result<T, PublishError> {
        let end = Instant::now() + self.client.inner.publish_for;
        let mut pause = FIRST_PAUSE;
        let mut last = "not tried".to_owned();
        loop {
            let sent = timeout_at(end, self.client.inner.transport.post(path, body.clone(), &[])).await;
            let Ok(reply) = sent else {
                return Err(PublishError::Unavailable(format!(
                    "the time was over while waiting for an answer; before: {last}"
                )));
            };
            let next = match reply {
                Ok(reply) if reply.status == 202 => match serde_json::from_slice(&reply.body) {
                    Ok(accepted) => return Ok(accepted),
                    Err(error) => Next::Again { why: format!("unreadable answer: {error}"), not_before: pause },
                },
                Ok(reply) => after(&reply),
                Err(NoReply(why)) => Next::Again { why, not_before: Duration::ZERO },
            };
            match next {
                Next::Refused(problem) => return Err(PublishError::Refused(problem)),
                Next::Again { why, not_before } => {
                    last = why;
                    let wait = not_before.max(jittered(pause));
                    if Instant::now() + wait >= end {
                        return Err(PublishError::Unavailable(last));
                    }
                    sleep(wait).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Asks the hooks of a point. Always answers within `deadline`: see [`Answer::source`].
    pub async fn invoke(&self, point: &str, question: &Question, deadline: Duration) -> Answer {
        self.ask("points", point, question, deadline).await
    }

    /// Asks the hooks of an operation (`createUser`, `updateUser`, `provision`): all its points in one call.
    /// Its fallback is the one set under the operation's name.
    pub async fn operation(&self, operation: &str, question: &Question, deadline: Duration) -> Answer {
        self.ask("operations", operation, question, deadline).await
    }

    async fn ask(&self, kind: &str, name: &str, question: &Question, deadline: Duration) -> Answer {
        let path = format!("{}/{kind}/{}/invoke", self.path, escape(name));
        let end = Instant::now() + deadline;
        match timeout_at(end, self.decision(&path, json_of(question), end)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => self.fall_back(name, question, why),
            Err(_) => self.fall_back(name, question, Unanswered::Late),
        }
    }

    async fn decision(&self, path: &str, body: Bytes, end: Instant) -> Result<Answer, Unanswered> {
        // One key for both tries: should the first have arrived after all, its decision is answered again.
        let key = fresh_id();
        let mut again = true;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let theirs = left - (left / 10).min(WAY_BACK_MAX);
            let timeout = theirs.as_millis().max(1).to_string();
            let headers = [("gatepost-timeout-ms", timeout), ("idempotency-key", key.clone())];
            match self.client.inner.transport.post(path, body.clone(), &headers).await {
                Ok(reply) => return decided(&reply),
                // A connection that was closed while nobody used it is noticed only now.
                Err(NoReply(_)) if again => again = false,
                Err(NoReply(why)) => return Err(Unanswered::NotReached(why)),
            }
        }
    }

    fn fall_back(&self, name: &str, question: &Question, why: Unanswered) -> Answer {
        match self.client.inner.fallbacks.get(name) {
            Some(fallback) => Answer::fallback(fallback, question, why),
            None => Answer::fallback(&Fallback::of_point(name), question, why),
        }
    }

    /// Tells Gatepost what was done after an invocation: it drives the post events. A fallback has no
    /// invocation and needs none. Tried again like [`Tenant::publish`]; the same outcome twice is once.
    ///
    /// # Errors
    /// As [`Tenant::publish`].
    pub async fn outcome(&self, invocation: &str, outcome: &Outcome) -> Result<(), PublishError> {
        let path = format!("{}/invocations/{}/outcome", self.path, escape(invocation));
        let body = json_of(outcome);
        let end = Instant::now() + self.client.inner.publish_for;
        let mut pause = FIRST_PAUSE;
        loop {
            let sent = timeout_at(end, self.client.inner.transport.post(&path, body.clone(), &[])).await;
            let (why, not_before) = match sent {
                Err(_) => {
                    return Err(PublishError::Unavailable("the time was over while waiting for an answer".into()));
                }
                Ok(Ok(reply)) if reply.status == 200 => return Ok(()),
                Ok(Ok(reply)) => match after(&reply) {
                    Next::Refused(problem) => return Err(PublishError::Refused(problem)),
                    Next::Again { why, not_before } => (why, not_before),
                },
                Ok(Err(NoReply(why))) => (why, Duration::ZERO),
            };
            let wait = not_before.max(jittered(pause));
            if Instant::now() + wait >= end {
                return Err(PublishError::Unavailable(why));
            }
            sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// What a status other than the wanted one means.
fn after(reply: &Reply) -> Next {
    let problem = reply.problem();
    match reply.status {
        429 | 500..=599 => {
            Next::Again { why: problem.to_string(), not_before: Duration::from_secs(reply.retry_after.unwrap_or(0)) }
        }
        _ => Next::Refused(problem),
    }
}

/// Gatepost's decision: 200 always is one; 503 is one where Gatepost could still say what stands.
fn decided(reply: &Reply) -> Result<Answer, Unanswered> {
    let answer = if matches!(reply.status, 200 | 503) { Answer::read(&reply.body) } else { None };
    match (answer, reply.status) {
        (Some(answer), _) => Ok(answer),
        (None, 200..=299) => Err(Unanswered::Unreadable(reply.status)),
        (None, 429 | 500..=599) => Err(Unanswered::Unavailable(reply.problem())),
        (None, _) => Err(Unanswered::Refused(reply.problem())),
    }
}

/// Between half and all of it, so that platforms restarted together do not come back together.
fn jittered(pause: Duration) -> Duration {
    use rand::RngExt as _;
    #[expect(clippy::disallowed_methods, reason = "a program of its own: there is no Entropy to take")]
    let part = rand::rng().random_range(0.5..=1.0);
    pause.mul_f64(part)
}

fn json_of(value: &impl Serialize) -> Bytes {
    // Maps with text keys, texts, numbers: they always serialise.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// A path segment (RFC 3986, section 3.3).
fn escape(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    // A lone `.` or `..` would be taken away on the way.
    if out == "." || out == ".." { out.replace('.', "%2E") } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_stay_segments() {
        for (segment, escaped) in [
            ("acme", "acme"),
            ("a.b-c_d", "a.b-c_d"),
            ("../x", "..%2Fx"),
            ("..", "%2E%2E"),
            ("a?b#c", "a%3Fb%23c"),
            ("é", "%C3%A9"),
        ] {
            assert_eq!(escape(segment), escaped);
        }
    }
}
