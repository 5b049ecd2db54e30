//! How long every list takes on a small store and on a large one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Run;
use super::asking::{self, Question, Times};
use super::measure::median;
use super::past::{Came, Happened, Past};
use super::process::{Folder, ServerProcess};
use super::report::Bar;

const SCENARIO: &str = "lists";
/// Deliveries of the small store.
const SMALL: usize = 10_000;
/// The tenant most deliveries are of; one with a single event; and others that share the rest.
const MAIN: &str = "lists";
const SINGLE: &str = "single";
const OTHERS: usize = 10;
/// One in so many deliveries is of the others, another of whom each time.
const SHARE: usize = 5;
/// What there is little of: so many events, evenly spread, in either store.
const FEW: usize = 20;
/// When it all happened: within what is kept, and long enough ago to be over.
const THEN: (Duration, Duration) = (Duration::from_secs(8 * 86_400), Duration::from_secs(86_400));
/// Calls of each list in one round.
const CALLS: usize = 200;
/// Keys, jobs and invocations of either store.
const BESIDE: usize = 60;
/// The lists shown by name.
const WORST: usize = 5;
/// A server that has just started is left alone for a moment.
const SETTLE: Duration = Duration::from_secs(2);

/// Where a store is.
enum Place {
    /// Gone at the end.
    Passing(Folder),
    /// Kept for the next run.
    Kept(PathBuf),
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Place::Passing(folder) => folder.path(),
            Place::Kept(path) => path,
        }
    }
}

/// A server on a filled store, and what to ask it.
struct Filled {
    server: ServerProcess,
    questions: Vec<Question>,
    // After the server: it must have ended when the folder goes.
    _place: Place,
}

impl Run {
    /// Every list, call by call in turn on both stores.
    pub(super) async fn lists(&mut self) -> Result<()> {
        let small = self.filled(SMALL).await?;
        let large = self.filled(self.rows.deliveries).await?;
        tokio::time::sleep(SETTLE).await;
        ensure!(small.questions.len() == large.questions.len(), "the stores differ in more than their size");
        let mut rounds: Vec<Vec<[Times; 2]>> = Vec::new();
        for round in 1..=self.rounds {
            self.say(format_args!("{SCENARIO}: round {round} of {}", self.rounds));
            let stores = [&small, &large].map(|store| (store.server.addr(), store.questions.clone()));
            let stores: [(SocketAddr, Vec<Question>); 2] = stores;
            let calls = self.count.map_or(CALLS, |count| count.min(CALLS));
            rounds.push(asking::compare(stores, calls, self.watch).await?);
        }
        self.judge(&small.questions, &rounds);
        for (store, which) in [(&small, "small"), (&large, "large")] {
            if store.server.errors() > 0 {
                self.report
                    .problem(SCENARIO, format_args!("{} errors in the {which} store's log", store.server.errors()));
            }
        }
        Ok(())
    }

    fn judge(&mut self, questions: &[Question], rounds: &[Vec<[Times; 2]>]) {
        struct Judged {
            name: String,
            ratios: Vec<f64>,
            small: Vec<f64>,
            large: Vec<f64>,
        }
        let of =
            |index: usize, store: usize| rounds.iter().map(move |round| round[index][store].p99).collect::<Vec<_>>();
        let mut judged: Vec<Judged> = Vec::new();
        for (index, question) in questions.iter().enumerate() {
            if let Some(why) = rounds.iter().flat_map(|round| &round[index]).find_map(|times| times.failure.as_ref()) {
                self.report.problem(SCENARIO, format_args!("{}: {why}", question.name));
            }
            let (small, large) = (of(index, 0), of(index, 1));
            let ratios = large.iter().zip(&small).map(|(large, small)| large / small).collect();
            judged.push(Judged { name: question.name.clone(), ratios, small, large });
        }
        judged.sort_by(|a, b| median(&b.ratios).total_cmp(&median(&a.ratios)));
        let deliveries = self.rows.deliveries;
        let report = &mut self.report;
        let name = |what: &str| format!("{what}, p99 at {deliveries} deliveries ÷ at {SMALL}");
        if let Some(worst) = judged.first() {
            report.add(SCENARIO, name("worst list"), "", &worst.ratios, Bar::below(3.0, 1.5));
        }
        let middle: Vec<f64> = judged.iter().map(|one| median(&one.ratios)).collect();
        report.add(SCENARIO, name("median list"), "", &[median(&middle)], None);
        report.add(SCENARIO, "lists compared", "", &[judged.len() as f64], None);
        for one in judged.iter().take(WORST) {
            report.add(SCENARIO, format!("{}: ratio", one.name), "", &one.ratios, None);
            report.add(SCENARIO, format!("{}: small", one.name), "ms", &one.small, None);
            report.add(SCENARIO, format!("{}: large", one.name), "ms", &one.large, None);
        }
        let slowest = |a: &&Judged, b: &&Judged| median(&a.large).total_cmp(&median(&b.large));
        if let Some(one) = judged.iter().max_by(slowest) {
            report.add(SCENARIO, format!("slowest list, {}", one.name), "ms", &one.large, None);
        }
        for one in judged.iter().rev() {
            let [ratio, small, large] = [&one.ratios, &one.small, &one.large].map(|of| median(of));
            self.say(format_args!("{ratio:7.2} {small:9.3} ms {large:9.3} ms  {}", one.name));
        }
    }

    /// A server on a store with so many deliveries.
    async fn filled(&self, deliveries: usize) -> Result<Filled> {
        let place = match &self.keep {
            Some(parent) => {
                Place::Kept(std::path::absolute(parent)?.join(format!("gatepost-bench-lists-{deliveries}")))
            }
            None => Place::Passing(Folder::new(self.dir.as_ref())?),
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let done = place.path().join("filled");
        if !done.exists() {
            if let Place::Kept(path) = &place {
                // What is there was not finished.
                let _ = std::fs::remove_dir_all(path);
            }
            let began = Instant::now();
            let mut server = ServerProcess::start(&self.program, place.path(), any).await?;
            register(&server).await?;
            server.kill()?;
            self.fill(place.path(), deliveries).await?;
            let server = ServerProcess::start(&self.program, place.path(), any).await?;
            beside(&server).await?;
            std::fs::write(&done, b"")?;
            let seconds = began.elapsed().as_secs_f64();
            self.say(format_args!("{SCENARIO}: {deliveries} deliveries made in {seconds:.0} s"));
        }
        let server = ServerProcess::start(&self.program, place.path(), any).await?;
        let questions = questions(&server).await?;
        Ok(Filled { server, questions, _place: place })
    }

    async fn fill(&self, folder: &Path, deliveries: usize) -> Result<()> {
        let past = Past::open(folder).await?;
        let mut owners = vec![past.owner(MAIN).await?, past.owner(SINGLE).await?];
        for other in 0..OTHERS {
            owners.push(past.owner(&format!("other-{other}")).await?);
        }
        // Where the few of something are.
        let every = deliveries / FEW;
        let each = |number: usize| {
            let happened = |to, came| Happened {
                id: number
                    .is_multiple_of(2)
                    .then(|| format!("{:016x}", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))),
                event_type: "user.created",
                subject: Some(format!("user-{}", number % 1_000)),
                pad: 100,
                to: vec![(to, came)],
            };
            if number == deliveries / 2 {
                return (1, happened("one", Came::Delivered));
            }
            if number % SHARE == 1 {
                return (2 + number / SHARE % OTHERS, happened("one", Came::Delivered));
            }
            let mut event = happened("ferriskey", Came::Delivered);
            match number % every {
                5 => event.event_type = "user.rare",
                7 => event.subject = Some("few".into()),
                9 => event.to = vec![("quiet", Came::Delivered)],
                12 => event.to = vec![("ferriskey", Came::Failed)],
                14 => event.to = vec![("held", Came::Owed)],
                17 => event.to = vec![("ferriskey", Came::Late)],
                _ if number.is_multiple_of(10) => event.subject = Some("common".into()),
                _ => {}
            }
            (0, event)
        };
        let began = Instant::now();
        past.happen(deliveries, THEN, each, &owners, |done| {
            self.say(format_args!("{SCENARIO}: {done} deliveries after {:.0} s", began.elapsed().as_secs_f64()));
        })
        .await?;
        past.close().await;
        Ok(())
    }
}

/// Tenants, webhooks, keys.
async fn register(server: &ServerProcess) -> Result<()> {
    let others: Vec<String> = (0..OTHERS).map(|other| format!("other-{other}")).collect();
    for tenant in [MAIN, SINGLE].into_iter().chain(others.iter().map(String::as_str)) {
        server.call(Method::PUT, &format!("/v1/tenants/{tenant}"), Some(&json!({}))).await?;
        let webhooks: &[(&str, &str)] = match tenant {
            MAIN => &[
                ("ferriskey", "ferriskey"),
                ("quiet", "ferriskey"),
                ("held", "standard"),
                ("nothing", "standard"),
                ("cryptr", "cryptr"),
                ("okta", "okta"),
            ],
            _ => &[("one", "standard")],
        };
        for (name, profile) in webhooks {
            let events = match *profile {
                "okta" => "user.lifecycle.create",
                "cryptr" => "sso_saml.*",
                _ => "*",
            };
            // Nobody listens there, and nothing is sent.
            let webhook =
                json!({"name": name, "url": "http://127.0.0.1:9/hook", "events": [events], "profile": profile});
            server.call(Method::POST, &format!("/v1/tenants/{tenant}/webhooks"), Some(&webhook)).await?;
        }
    }
    for number in 0..BESIDE {
        let key = json!({"name": format!("key {number}"), "scopes": ["read"], "tenant": MAIN});
        server.call(Method::POST, "/v1/keys", Some(&key)).await?;
    }
    Ok(())
}

/// What every store has as much of, made when the past is there: jobs, hooks, invocations, and the webhook
/// whose deliveries are held.
async fn beside(server: &ServerProcess) -> Result<()> {
    let main = format!("/v1/tenants/{MAIN}");
    let held = webhook(server, "held").await?;
    server.call(Method::PATCH, &format!("{main}/webhooks/{held}"), Some(&json!({"enabled": false}))).await?;
    let nothing = webhook(server, "nothing").await?;
    for number in 0..BESIDE {
        let replay = json!({"since": "2000-01-01T00:00:00Z", "until": "2000-01-02T00:00:00Z", "scope": "failed"});
        server.call(Method::POST, &format!("{main}/webhooks/{nothing}/replay"), Some(&replay)).await?;
        let question = json!({
            "subject": {"type": "user", "id": format!("user-{}", number % 3)}, "object": {"user": {"login": "u-1"}},
        });
        server.call(Method::POST, &format!("{main}/points/validateUser/invoke"), Some(&question)).await?;
    }
    for number in 0..5 {
        let hook = json!({
            "name": format!("hook {number}"), "point": "validateUser", "mode": "observe", "url": "http://127.0.0.1:9/hook",
        });
        server.call(Method::POST, &format!("{main}/hooks"), Some(&hook)).await?;
    }
    // Jobs have ended, invocations are written down.
    tokio::time::sleep(SETTLE).await;
    Ok(())
}

/// The id of a webhook of the main tenant.
async fn webhook(server: &ServerProcess, name: &str) -> Result<String> {
    let list = server.call(Method::GET, &format!("/v1/tenants/{MAIN}/webhooks"), None).await?;
    let found = list["data"].as_array().into_iter().flatten().find(|webhook| webhook["name"] == name);
    Ok(text(found.with_context(|| format!("there is no webhook {name}"))?, "id")?.to_owned())
}

fn text<'a>(value: &'a Value, member: &str) -> Result<&'a str> {
    value[member].as_str().with_context(|| format!("an answer has no {member}"))
}

/// The value as it stands in a query.
fn encoded(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    value.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Every list of the API: its beginning, far inside, and with filters that much, little and nothing passes.
async fn questions(server: &ServerProcess) -> Result<Vec<Question>> {
    let main = format!("/v1/tenants/{MAIN}");
    let single = format!("/v1/tenants/{SINGLE}");
    let other = "/v1/tenants/other-3".to_owned();
    let get = async |path: String| server.call(Method::GET, &path, None).await;
    // The tenth of twenty that are evenly spread is in the middle.
    let half = FEW / 2;
    let middle = async |path: String| -> Result<String> {
        let list = get(path).await?;
        Ok(encoded(text(&list, "next_cursor")?))
    };
    let event_deep = middle(format!("{main}/events?subject=few&limit={half}")).await?;
    let feed_deep = middle(format!("{main}/events?order=asc&subject=few&limit={half}")).await?;
    let delivery_deep = middle(format!("{main}/deliveries?subject=few&limit={half}")).await?;
    let told_deep = middle(format!("{main}/subjects/few/deliveries?limit={half}")).await?;
    let few = get(format!("{main}/deliveries?subject=few&limit={half}")).await?;
    let in_middle = few["data"].as_array().and_then(|rows| rows.last()).context("nothing is about the few")?;
    let (when, delivery) = (text(in_middle, "created_at")?, text(in_middle, "id")?);
    let event = in_middle["event_ids"][0].as_str().context("a delivery has no event")?;
    let other_deep = middle(format!("{other}/deliveries?limit=50")).await?;
    let mut feed_end = String::new();
    let newest = get(format!("{main}/events?limit=1")).await?;
    ensure!(newest["data"].as_array().is_some_and(|rows| rows.len() == 1), "there are no events");
    // A feed that shows nothing comes to the end over what it does not show.
    let mut cursor = feed_deep.clone();
    for _ in 0..100_000 {
        let list = get(format!("{main}/events?order=asc&type=nothing&limit=1&cursor={cursor}")).await?;
        let next = encoded(text(&list, "next_cursor")?);
        if next == cursor {
            feed_end = next;
            break;
        }
        cursor = next;
    }
    let [ferriskey, quiet, held, nothing] = {
        let mut ids: [String; 4] = Default::default();
        for (id, name) in ids.iter_mut().zip(["ferriskey", "quiet", "held", "nothing"]) {
            *id = webhook(server, name).await?;
        }
        ids
    };
    let native = get(format!("/compat/ferriskey/realms/{MAIN}/webhooks")).await?;
    let native = |name: &str| -> Result<String> {
        let found = native["data"].as_array().into_iter().flatten().find(|webhook| webhook["name"] == name);
        Ok(text(found.with_context(|| format!("FerrisKey has no webhook {name}"))?, "id")?.to_owned())
    };
    let (fk, fk_quiet) = (native("ferriskey")?, native("quiet")?);
    let fk = format!("/compat/ferriskey/realms/{MAIN}/webhooks/{fk}/deliveries");
    let fk_quiet = format!("/compat/ferriskey/realms/{MAIN}/webhooks/{fk_quiet}/deliveries");
    let key = json!({"name": "bench", "scopes": ["read"], "tenant": MAIN});
    let key = server.call(Method::POST, "/v1/keys", Some(&key)).await?;
    let bound = format!("Bearer {}", text(&key, "key")?);

    let mut all = Vec::new();
    let mine = server.authorization();
    let mut ask = |name: &str, path: String| all.push(Question { name: name.to_owned(), path, key: mine.clone() });
    for (name, path) in [
        ("tenants", "/v1/tenants".to_owned()),
        ("keys", "/v1/keys".to_owned()),
        ("event types", "/v1/event-types".to_owned()),
        ("event types of a tenant", format!("/v1/event-types?tenant={MAIN}")),
        ("webhooks", format!("{main}/webhooks")),
        ("jobs", format!("{main}/jobs")),
        ("hooks", format!("{main}/hooks")),
        ("points", format!("{main}/points")),
        ("invocations", format!("{main}/invocations")),
        ("invocations about one", format!("{main}/invocations?subject=user-1")),
        ("invocations, none match", format!("{main}/invocations?cause=receiver")),
        ("setup: webhooks", format!("{main}/setup/webhooks")),
        ("setup: hooks", format!("{main}/setup/hooks")),
        ("setup: event types", format!("{main}/setup/event_types")),
    ] {
        ask(name, path);
    }
    for (name, query) in [
        ("", String::new()),
        ("250 rows", "limit=250".into()),
        ("deep", format!("cursor={event_deep}")),
        ("a common type", "type=user.created".into()),
        ("a common type, deep", format!("type=user.created&cursor={event_deep}")),
        ("a rare type", "type=user.rare".into()),
        ("no such type", "type=nothing".into()),
        ("no such type, deep", format!("type=nothing&cursor={event_deep}")),
        ("a common subject", "subject=common".into()),
        ("a common subject, deep", format!("subject=common&cursor={event_deep}")),
        ("a rare subject", "subject=few".into()),
        ("no such subject", "subject=nobody".into()),
        ("a common subject, no such type", "subject=common&type=nothing".into()),
        ("a common subject type", "subject_type=user".into()),
        ("no such subject type", "subject_type=nothing".into()),
        ("after the middle", format!("after={}", encoded(when))),
        ("before the middle", format!("before={}", encoded(when))),
        ("before all", "before=2000-01-01T00:00:00Z".into()),
        ("feed", "order=asc".into()),
        ("feed, deep", format!("order=asc&cursor={feed_deep}")),
        ("feed, at its end", format!("order=asc&cursor={feed_end}")),
        ("feed of no such type", "order=asc&type=nothing".into()),
        ("feed of a common subject", "order=asc&subject=common".into()),
    ] {
        ask(&format!("events {name}"), format!("{main}/events?{query}"));
    }
    for (name, query) in [
        ("", String::new()),
        ("250 rows", "limit=250".into()),
        ("deep", format!("cursor={delivery_deep}")),
        ("a busy webhook", format!("webhook_id={ferriskey}")),
        ("a busy webhook, deep", format!("webhook_id={ferriskey}&cursor={delivery_deep}")),
        ("a quiet webhook", format!("webhook_id={quiet}")),
        ("a quiet webhook, deep", format!("webhook_id={quiet}&cursor={delivery_deep}")),
        ("a webhook without any", format!("webhook_id={nothing}")),
        ("of an event", format!("event_id={}", encoded(event))),
        ("of no event", "event_id=nothing".into()),
        ("a common subject", "subject=common".into()),
        ("a common subject, deep", format!("subject=common&cursor={delivery_deep}")),
        ("a common subject, failed", "subject=common&state=failed".into()),
        ("a rare subject", "subject=few".into()),
        ("no such subject", "subject=nobody".into()),
        ("a common subject type", "subject_type=user".into()),
        ("no such subject type", "subject_type=nothing".into()),
        ("delivered", "state=delivered".into()),
        ("failed", "state=failed".into()),
        ("failed, deep", format!("state=failed&cursor={delivery_deep}")),
        ("held", "state=held".into()),
        ("held of its webhook", format!("state=held&webhook_id={held}")),
        ("pending", "state=pending".into()),
        ("cancelled", "state=cancelled".into()),
        ("since the middle", format!("since={}", encoded(when))),
        ("until the middle", format!("until={}", encoded(when))),
        ("until the middle, failed", format!("until={}&state=failed", encoded(when))),
        ("of a moment", format!("since={0}&until={0}", encoded(when))),
        ("to come", "since=2999-01-01T00:00:00Z".into()),
    ] {
        ask(&format!("deliveries {name}"), format!("{main}/deliveries?{query}"));
    }
    for (name, path) in [
        ("told about a common subject", format!("{main}/subjects/common/deliveries")),
        ("told about a common subject, deep", format!("{main}/subjects/common/deliveries?cursor={told_deep}")),
        ("told about a rare subject", format!("{main}/subjects/few/deliveries")),
        ("told about nobody", format!("{main}/subjects/nobody/deliveries")),
        ("told about a rare subject, csv", format!("{main}/subjects/few/deliveries?format=csv")),
        ("events of a tenant with one", format!("{single}/events")),
        ("events of a tenant with one, no such type", format!("{single}/events?type=nothing")),
        ("deliveries of a tenant with one", format!("{single}/deliveries")),
        ("deliveries of a tenant with one, failed", format!("{single}/deliveries?state=failed")),
        ("events of a small tenant", format!("{other}/events")),
        ("deliveries of a small tenant", format!("{other}/deliveries")),
        ("deliveries of a small tenant, deep", format!("{other}/deliveries?cursor={other_deep}")),
        ("one event", format!("{main}/events/{}", encoded(event))),
        ("one delivery", format!("{main}/deliveries/{delivery}")),
        ("FerrisKey webhooks", format!("/compat/ferriskey/realms/{MAIN}/webhooks")),
        ("FerrisKey deliveries", fk.clone()),
        ("FerrisKey deliveries, page 20", format!("{fk}?page=20")),
        ("FerrisKey deliveries, failed", format!("{fk}?status=failed")),
        ("FerrisKey deliveries, by status", format!("{fk}?order_by=status")),
        ("FerrisKey deliveries, of a moment", format!("{fk}?created_from={0}&created_to={0}", encoded(when))),
        ("FerrisKey deliveries of a quiet webhook", fk_quiet),
        ("metrics", "/metrics".to_owned()),
    ] {
        ask(name, path);
    }
    for (name, path) in
        [("Cryptr webhooks", "/compat/cryptr/api/v2/webhooks"), ("Okta hooks", "/compat/okta/api/v1/eventHooks")]
    {
        let mut key = http::HeaderValue::from_str(&bound)?;
        key.set_sensitive(true);
        all.push(Question { name: name.into(), path: path.into(), key });
    }
    Ok(all)
}
