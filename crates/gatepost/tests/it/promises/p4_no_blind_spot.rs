//! P4: once a webhook's creation, enabling or change of subscription is answered, every event
//! accepted after that answer is matched against it.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{Server, receiver, text, wait_until};

/// Changes the registry while eight threads publish. After each answer one more event, a marker, is
/// published: whatever is in the feed behind the marker was accepted after the answer.
struct Race {
    server: Server,
    /// Per event, how many answers had been received when its publishing began.
    begun: Mutex<HashMap<String, usize>>,
    answers: AtomicUsize,
    over: AtomicBool,
}

/// Ends the publishing, also when the test fails: a scope waits for its threads.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// From which marker (and answer) on a webhook has to match everything, until which.
struct Claim {
    webhook: String,
    from: (usize, String),
    until: Option<String>,
}

impl Race {
    fn publish(&self) {
        let mut client = self.server.client();
        while !self.over.load(Ordering::SeqCst) {
            let answers = self.answers.load(Ordering::SeqCst);
            let reply = client.post("/v1/tenants/acme/events", json!({"type": "user.updated", "data": {}})).expect(202);
            self.begun.lock().unwrap().insert(text(&reply.json(), "id"), answers);
        }
    }

    /// Notes that a change was answered; gives what is accepted after it.
    fn answered(&self) -> (usize, String) {
        let answers = self.answers.fetch_add(1, Ordering::SeqCst) + 1;
        let marker = self.server.publish("acme", "user.updated", json!({"marker": answers}));
        // The race must be one: some events have to be published between the changes.
        let published = self.begun.lock().unwrap().len();
        wait_until("others to publish", || (self.begun.lock().unwrap().len() > published + 8).then_some(()));
        (answers, marker)
    }

    fn patch(&self, webhook: &str, patch: Value) {
        self.server.patch(&format!("/v1/tenants/acme/webhooks/{webhook}"), patch).expect(200);
    }
}

#[test]
fn p4_every_event_accepted_after_the_answer_is_matched() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let race = Race { server, begun: Mutex::default(), answers: AtomicUsize::new(0), over: AtomicBool::new(false) };
    let mut claims = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| race.publish());
        }
        let _over = Over(&race.over);
        let url = inbox.url("/");
        for round in 0..6 {
            // Created.
            let created = race.server.webhook("acme", &url, json!({"events": ["user.*"]}));
            claims.push(Claim { webhook: created, from: race.answered(), until: None });
            // Subscribed to something else, then to this.
            let changed = race.server.webhook("acme", &url, json!({"events": ["other.type"]}));
            race.answered();
            race.patch(&changed, json!({"events": ["other.type", "user.updated"]}));
            claims.push(Claim { webhook: changed, from: race.answered(), until: None });
            // Registered disabled, then enabled, and at last disabled again.
            let enabled =
                race.server.webhook("acme", &url, json!({"enabled": false, "filter": "type == \"user.updated\""}));
            race.answered();
            race.patch(&enabled, json!({"enabled": true}));
            let from = race.answered();
            let until = (round % 2 == 0).then(|| {
                // Published by us before the change is asked for: up to here it matches.
                let last = race.server.publish("acme", "user.updated", json!({"last": round}));
                race.patch(&enabled, json!({"enabled": false}));
                last
            });
            claims.push(Claim { webhook: enabled, from, until });
        }
    });

    let mut feed = race.server.all("/v1/tenants/acme/events?order=asc");
    // What Gatepost tells of the changes themselves is not asked for here.
    feed.retain(|event| !text(event, "type").starts_with("gatepost."));
    let feed: Vec<String> = feed.iter().map(|e| text(e, "id")).collect();
    let position: HashMap<&str, usize> = feed.iter().enumerate().map(|(n, id)| (id.as_str(), n)).collect();
    let begun = race.begun.lock().unwrap();
    assert!(begun.keys().all(|id| position.contains_key(id.as_str())), "an accepted event is not in the feed");
    for claim in &claims {
        let path = format!("/v1/tenants/acme/deliveries?webhook_id={}", claim.webhook);
        let rows = race.server.all(&path);
        let matched: HashSet<&str> = rows.iter().filter_map(|row| row["event_ids"][0].as_str()).collect();
        assert_eq!(matched.len(), rows.len(), "{} matched an event twice", claim.webhook);
        let from = position[claim.from.1.as_str()];
        let until = claim.until.as_ref().map_or(feed.len() - 1, |id| position[id.as_str()]);
        for id in &feed[from..=until] {
            assert!(matched.contains(id.as_str()), "{} missed {id}", claim.webhook);
        }
        // And whatever began to be published after the answer, wherever the feed has it.
        for (id, answers) in begun.iter().filter(|(_, answers)| **answers >= claim.from.0) {
            let still = position[id.as_str()] <= until;
            assert!(
                !still || matched.contains(id.as_str()),
                "{} missed {id}, begun after {answers} answers",
                claim.webhook
            );
        }
    }
    // What nobody disabled is delivered, all of it.
    race.server.wait_settled("acme");
    let states: HashSet<String> =
        race.server.all("/v1/tenants/acme/deliveries").iter().map(|row| text(row, "state")).collect();
    assert!(states.is_subset(&HashSet::from(["delivered".to_owned(), "held".to_owned()])), "{states:?}");
}

#[test]
fn p4_after_a_deletion_nothing_new_is_owed() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let id = server.webhook("acme", &inbox.url("/"), json!({}));
    server.delete(&format!("/v1/tenants/acme/webhooks/{id}")).expect(204);
    let answer = server.publish_event("acme", json!({"type": "user.created"}));
    assert_eq!(answer["deliveries"], 0);
}
