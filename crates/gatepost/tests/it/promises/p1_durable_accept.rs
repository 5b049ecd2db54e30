//! P1: a 202 means the event, its deliveries and its id are flushed to disk, in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use gatepost_core::Entropy;
use gatepost_testkit::{Gate, Script};
use serde_json::{Value, json};

use crate::harness::{Options, Server, receiver, run, seeded, slow_tier, text, wait_until};

/// Whether a process can be traced here. Where the tests must be complete (`CI=true`) it has to be.
fn strace_works() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let traced = Command::new("strace").args(["-f", "-D", "-o"]).arg(&trace).arg("true").status();
    let works = traced.is_ok_and(|status| status.success());
    if !works {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "strace must work where CI=true");
        eprintln!("\n!!!! SKIPPED: no strace here, so nothing proves that a 202 follows its flush !!!!\n");
    }
    works
}

/// A system call of a trace, at its beginning or its end.
struct Call<'a> {
    pid: &'a str,
    name: &'a str,
    text: &'a str,
    begins: bool,
    ends: bool,
}

fn calls(trace: &str) -> impl Iterator<Item = Call<'_>> {
    trace.lines().filter_map(|line| {
        let (pid, rest) = line.split_once(' ')?;
        let rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix("<... ") {
            let (name, text) = rest.split_once(" resumed>")?;
            return Some(Call { pid, name, text, begins: false, ends: true });
        }
        let (name, text) = rest.split_once('(')?;
        Some(Call { pid, name, text, begins: true, ends: !text.ends_with("<unfinished ...>") })
    })
}

/// What the ids of the events in a trace begin with; two digits follow.
const MARK: &str = "marked-";

/// Text as `strace -xx` writes it.
fn traced(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut traced, byte| {
        write!(traced, "\\x{byte:02x}").expect("a string takes everything");
        traced
    })
}

/// The ids of events in what a call wrote.
fn marks(text: &str) -> impl Iterator<Item = &str> {
    let mark = traced(MARK);
    let digits = 2 * traced("0").len();
    let starts: Vec<usize> = text.match_indices(&mark).map(|(at, _)| at + mark.len()).collect();
    starts.into_iter().filter_map(move |at| text.get(at..at + digits))
}

/// Whether the file of a call is the write-ahead log.
fn is_log(text: &str) -> bool {
    text.contains(&format!("{}>", traced("-wal")))
}

/// Whether a write to the log is the head of a commit's last frame: 24 bytes, the second four of
/// which, the size of the database after the commit, are not zero (SQLite's file format, 4.2).
fn is_last_head(text: &str) -> bool {
    let Some((_, bytes)) = text.split_once('"') else { return false };
    text.contains(", 24, ") && bytes.get(16..32).is_some_and(|size| size != r"\x00\x00\x00\x00")
}

/// Reads a trace as a whole: how many events were acknowledged in a 202, each after the end of a flush
/// of the write-ahead log that began when the whole commit with the event's id had been written.
///
/// What another commit writes meanwhile does not matter: the next one may begin before the answer is on
/// its way.
fn acknowledged_after_flush(trace: &str) -> Result<usize, String> {
    // Writes to the log so far, of which how many are surely flushed, and for each thread what it
    // is flushing.
    let (mut written, mut flushed, mut flushing) = (0_u64, 0_u64, HashMap::new());
    // Where the commit with an event ends, once it is written, and the events of the commit being written.
    let (mut ends, mut in_commit, mut last_frame) = (HashMap::new(), HashSet::new(), false);
    let mut acknowledged = HashSet::new();
    for call in calls(trace) {
        match call.name {
            "pwrite64" if call.begins && is_log(call.text) => {
                written += 1;
                in_commit.extend(marks(call.text));
                if std::mem::replace(&mut last_frame, is_last_head(call.text)) {
                    // A page carries what was on it before: the first commit is the one.
                    for mark in in_commit.drain() {
                        ends.entry(mark).or_insert(written);
                    }
                }
            }
            "pwritev" | "write" | "writev" if call.begins && is_log(call.text) => {
                return Err(format!("the log is written by {}, which nobody here understands", call.name));
            }
            "fdatasync" | "fsync" => {
                if call.begins && is_log(call.text) {
                    flushing.insert(call.pid, written);
                }
                if call.ends
                    && let Some(upto) = flushing.remove(call.pid)
                    && call.text.ends_with("= 0")
                {
                    flushed = flushed.max(upto);
                }
            }
            "write" | "writev" | "sendto" | "sendmsg" if call.begins && call.text.contains(&traced("HTTP/1.1 202")) => {
                for mark in marks(call.text) {
                    let end = *ends.get(mark).ok_or_else(|| format!("{mark}: its 202 left before its commit"))?;
                    if flushed < end {
                        return Err(format!("{mark}: its 202 left before the log was flushed ({flushed} < {end})"));
                    }
                    acknowledged.insert(mark);
                }
            }
            _ => {}
        }
    }
    Ok(acknowledged.len())
}

#[test]
fn p1_the_reading_of_a_trace_can_fail() {
    let log = traced("/d/gatepost.db-wal");
    let head = |size: &str| {
        format!("7 pwrite64(5<{log}>, \"{}{}{}\", 24, 0) = 24\n", traced("page"), size, traced("0123456789abcdef"))
    };
    let (head, last) = (head(&traced("\0\0\0\0")), head(&traced("\0\0\0H")));
    let page = |text: &str| format!("7 pwrite64(5<{log}>, \"{}\"..., 4096, 24) = 4096\n", traced(text));
    let (other, one, both) = (page("x"), page("..marked-01.."), page("marked-02marked-01"));
    let sync = format!("7 fdatasync(5<{log}>) = 0\n");
    let begun = format!("7 fdatasync(5<{log}> <unfinished ...>\n");
    let ended = "7 <... fdatasync resumed>) = 0\n".to_owned();
    let elsewhere = format!("7 fdatasync(4<{}>) = 0\n", traced("/d/gatepost.db"));
    let failed = format!("7 fdatasync(5<{log}>) = -1 EIO (Input/output error)\n");
    let otherwise = format!("7 writev(5<{log}>, [], 0) = 0\n");
    let answer = |id: &str| {
        format!(
            "8 writev(9<TCP:[1]>, [{{iov_base=\"{}\", iov_len=9}}], 1) = 9\n",
            traced(&format!("HTTP/1.1 202 \"{id}\""))
        )
    };
    let (first, second) = (answer("marked-01"), answer("marked-02"));
    for (good, lines) in [
        (Some(1), vec![&last, &one, &sync, &first]),
        (Some(2), vec![&last, &one, &sync, &first, &last, &both, &begun, &ended, &second]),
        (Some(1), vec![&sync, &head, &one, &last, &other, &begun, &ended, &first]),
        // The next commit has begun, or is even written, when the answer leaves.
        (Some(1), vec![&last, &one, &sync, &head, &first, &other]),
        (Some(1), vec![&last, &one, &sync, &last, &other, &first]),
        (None, vec![&last, &one, &first]),
        (None, vec![&first]),
        (None, vec![&last, &one, &elsewhere, &first]),
        (None, vec![&last, &one, &failed, &first]),
        (None, vec![&otherwise, &last, &one, &sync, &first]),
        (None, vec![&last, &one, &begun, &first, &ended]),
        (None, vec![&head, &one, &begun, &last, &other, &ended, &first]),
        (None, vec![&head, &one, &sync, &last, &other, &first]),
        (None, vec![&last, &one, &sync, &first, &second]),
        (None, vec![&last, &one, &sync, &first, &last, &both, &second]),
        (None, vec![&last, &other, &sync, &first, &last, &one, &sync]),
    ] {
        let trace: String = lines.iter().map(|line| line.as_str()).collect();
        assert_eq!(acknowledged_after_flush(&trace).ok(), good, "{trace}");
    }
}

#[test]
fn p1_no_202_before_the_flush_of_its_commit() {
    if !strace_works() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let wrapper = [
        "strace",
        "-f",
        "-D",
        "-y",
        "-xx",
        // Whole pages of the log.
        "-s",
        "4096",
        "-e",
        "trace=fdatasync,fsync,pwrite64,pwritev,write,writev,sendto,sendmsg",
        "-o",
        trace.to_str().unwrap(),
    ];
    let mut server = Server::with(Options::default().under(&wrapper));
    server.create_tenant("acme");
    // Deliveries are part of the commit.
    let silent = receiver();
    silent.script(Script::Hang);
    server.webhook("acme", &silent.url("/"), json!({"timeout_ms": 60_000}));
    for n in 0..30 {
        server.publish_event("acme", format!(r#"{{"id":"{MARK}{n:02}","type":"user.created"}}"#));
    }
    let two = [30, 31].map(|n| json!({"id": format!("{MARK}{n}"), "type": "user.created"}));
    server.post("/v1/tenants/acme/events/batch", json!({"events": two})).expect(202);
    server.kill9();
    // The tracer writes on until it has seen the end of what it traces.
    let trace = wait_until("the end of the trace", || {
        let trace = std::fs::read_to_string(&trace).unwrap();
        trace.contains("+++ killed by SIGKILL +++").then_some(trace)
    });
    assert_eq!(acknowledged_after_flush(&trace), Ok(32));
}

/// What was answered 202: the data of each id, as sent.
type Accepted = Mutex<BTreeMap<String, String>>;

/// Data that would not survive being read and written again.
fn odd_data(entropy: &dyn Entropy, n: usize) -> String {
    let filler = "x".repeat((entropy.next_u64() % 3_000) as usize);
    format!("{{ \"n\" : {n}.0,\t\"big\":123456789012345678901234567890, \"a\":\"\\u00e9\\/\",\"fill\":\"{filler}\" }}")
}

#[test]
fn p1_kill_9_under_load_loses_nothing_accepted() {
    let entropy = seeded("p1_kill_9", 20_260_101);
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let failing = receiver();
    failing.script(Script::status(500));
    server.webhook("acme", &inbox.url("/"), json!({"max_in_flight": 64}));
    server.webhook("acme", &failing.url("/"), json!({"retry": {"waits": [0.2, 0.2, 0.2]}}));

    let accepted = Accepted::default();
    let numbers = AtomicUsize::new(0);
    let mut looked_at = HashSet::new();
    for round in 0..if slow_tier() { 100 } else { 6 } {
        load_until_killed(&mut server, &entropy, &numbers, &accepted);
        server.restart();
        let accepted = accepted.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, data) in accepted.iter().filter(|(id, _)| looked_at.insert((*id).clone())) {
            let view = server.get(&format!("/v1/tenants/acme/events/{}", id.replace('/', "%2F"))).expect(200);
            assert!(view.text().contains(&format!("\"data\":{data}")), "round {round}: {id} has other data: {view:?}");
            assert_eq!(view.json()["deliveries"].as_array().map(Vec::len), Some(2), "round {round}: {id}");
        }
    }

    let accepted = accepted.into_inner().unwrap();
    server.wait_settled("acme");
    let mut bodies: HashMap<String, Vec<u8>> = HashMap::new();
    for request in inbox.received() {
        let id = request.header("webhook-id").expect("every delivery names its event").to_owned();
        let first = bodies.entry(id.clone()).or_insert_with(|| request.body.to_vec());
        assert_eq!(*first, request.body, "{id} went out with two bodies");
    }
    for (id, data) in &accepted {
        let body = String::from_utf8_lossy(bodies.get(id).unwrap_or_else(|| panic!("{id} never arrived")));
        assert!(body.ends_with(&format!("\"data\":{data}}}")), "{id} arrived as {body}");
    }
    // What was not answered may have been accepted, but then whole.
    let mut feed = server.all("/v1/tenants/acme/events?order=asc");
    // Gatepost told of the two webhooks as well.
    feed.retain(|event| !text(event, "type").starts_with("gatepost."));
    let mut batches: HashMap<String, usize> = HashMap::new();
    let mut kept = HashSet::new();
    for event in &feed {
        assert_eq!(event["deliveries"], 2, "{event}");
        let id = text(event, "id");
        if let Some((_, batch)) = id.split_once("/of/") {
            *batches.entry(batch.to_owned()).or_default() += 1;
        }
        assert!(kept.insert(id), "{event} is there twice");
    }
    assert!(accepted.keys().all(|id| kept.contains(id)), "an accepted event is gone");
    assert!(batches.values().all(|count| *count == BATCH), "half a batch was accepted: {batches:?}");
}

/// Events of a batch.
const BATCH: usize = 5;

/// An event's id; of one in a batch, it names the batch.
fn id_of(n: usize, first: usize, count: usize) -> String {
    if count == 1 { format!("e:{n}") } else { format!("e:{n}/of/{first}") }
}

/// Publishes from four threads, single events and batches, and kills the server somewhere in it.
fn load_until_killed(server: &mut Server, entropy: &dyn Entropy, numbers: &AtomicUsize, accepted: &Accepted) {
    let kill_after = 20 + (entropy.next_u64() % 150) as usize;
    let done = AtomicUsize::new(0);
    let gone = AtomicBool::new(false);
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    std::thread::scope(|scope| {
        for (thread, mut client) in clients.into_iter().enumerate() {
            let (done, gone) = (&done, &gone);
            scope.spawn(move || {
                while !gone.load(Ordering::SeqCst) {
                    let count = if thread == 0 { BATCH } else { 1 };
                    let first = numbers.fetch_add(count, Ordering::SeqCst);
                    let events: Vec<(String, String)> =
                        (first..first + count).map(|n| (id_of(n, first, count), odd_data(entropy, n))).collect();
                    let texts: Vec<String> = events
                        .iter()
                        .map(|(id, data)| format!("{{\"id\":\"{id}\",\"type\":\"user.updated\",\"data\":{data}}}"))
                        .collect();
                    let (path, body) = match &texts[..] {
                        [one] => ("/v1/tenants/acme/events", one.clone()),
                        many => ("/v1/tenants/acme/events/batch", format!("{{\"events\":[{}]}}", many.join(","))),
                    };
                    // No answer: the server is gone, or going.
                    let Ok(reply) = client.try_send("POST", path, &[], body) else { return };
                    assert_eq!(reply.status, 202, "{reply:?}");
                    accepted.lock().unwrap().extend(events);
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        wait_until("enough to be accepted", || (done.load(Ordering::SeqCst) >= kill_after).then_some(()));
        server.kill9();
        gone.store(true, Ordering::SeqCst);
    });
}

#[test]
fn p1_a_full_store_refuses_and_goes_on_by_itself() {
    // The limit is the process's own, on the size of any file; soft, so that it can be lifted.
    let limit = ["bash", "-c", r#"trap "" XFSZ; ulimit -S -f 8192; exec "$0" "$@""#];
    let mut server = Server::with(Options::default().under(&limit));
    server.create_tenant("acme");
    let gate = Gate::new();
    let inbox = receiver();
    inbox.script(Script::status(204).behind(&gate));
    server.webhook("acme", &inbox.url("/"), json!({"timeout_ms": 60_000}));

    // Half a MiB each, then less and less, until the last page is taken. Full is when ten in a row
    // are refused: in between the log may be moved into the database and leave room once more.
    let (mut accepted, mut refused, mut sizes) = (Vec::new(), Vec::new(), HashMap::new());
    let publish = |id: &str, size: usize| {
        let event = json!({"id": id, "type": "user.created", "data": {"filler": "x".repeat(size)}});
        server.post("/v1/tenants/acme/events", event)
    };
    for size in [500_000, 20_000, 500] {
        let mut in_a_row = 0;
        while in_a_row < 10 {
            let id = format!("e:{}", sizes.len());
            sizes.insert(id.clone(), size);
            assert!(sizes.len() < 2_000, "the store is never full");
            let reply = publish(&id, size);
            if reply.status == 202 {
                accepted.push(id);
                in_a_row = 0;
            } else {
                reply.clone().expect_problem(503, "store_unavailable");
                assert!(reply.header("retry-after").is_some(), "{:?}", reply.headers);
                refused.push(id);
                in_a_row += 1;
            }
        }
    }
    assert!(!accepted.is_empty(), "nothing fitted at all");
    // Changes are refused the same way. Looking whether the store can be written takes what a page or
    // two there may be left.
    let readiness =
        wait_until("readiness to be lost", || Some(server.get("/readyz")).filter(|reply| reply.status != 200));
    assert_eq!((readiness.status, &readiness.json()["status"]), (503, &json!("store_unavailable")));
    let change = json!({"name": "n", "description": "x".repeat(1_000), "url": inbox.url("/2"), "events": ["*"]});
    server.post("/v1/tenants/acme/webhooks", change).expect_problem(503, "store_unavailable");

    // Reading goes on, nothing refused is there, everything accepted is.
    let listed: Vec<String> = server.all("/v1/tenants/acme/events").iter().map(|e| text(e, "id")).collect();
    for id in &accepted {
        assert!(listed.contains(id), "{id} was accepted and is not there");
    }
    for id in &refused {
        assert!(!listed.contains(id), "{id} was refused and is there");
        server.get(&format!("/v1/tenants/acme/events/{id}")).expect_problem(404, "event_not_found");
    }
    // So does delivering.
    gate.open();
    inbox.wait_for_blocking(accepted.len());

    // With room again, the same process goes on by itself, and what was refused can be sent again.
    let lifted = Command::new("prlimit").arg("--fsize=unlimited").arg(format!("--pid={}", server.pid())).status();
    assert!(lifted.unwrap().success());
    let again = &refused[0];
    wait_until("the store to take events again", || (publish(again, sizes[again]).status == 202).then_some(()));
    wait_until("readiness", || (server.get("/readyz").status == 200).then_some(()));
    server.wait_settled("acme");
    for id in accepted.iter().chain([again]) {
        let deliveries = server.deliveries_of("acme", id);
        assert!(!deliveries.is_empty() && deliveries.iter().all(|d| d["state"] == "delivered"), "{id}: {deliveries:?}");
    }
    assert_eq!(server.terminate().code(), Some(0));
}

#[test]
fn p1_ids_survive_a_crash_and_mean_the_same_event() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let event = r#"{"id":"order-1","type":"user.created","data":{"a":1.0}}"#;
    let first = server.publish_event("acme", event);
    assert_eq!(first["duplicate"], false);
    server.kill9();
    server.restart();
    let second = server.publish_event("acme", event);
    assert_eq!(second["duplicate"], true);
    for member in ["id", "type", "timestamp", "deliveries"] {
        assert_eq!(first[member], second[member], "{member}");
    }
    let other = r#"{"id":"order-1","type":"user.created","data":{"a":1}}"#;
    server.post("/v1/tenants/acme/events", other).expect_problem(409, "event_id_conflict");
    assert_eq!(server.all("/v1/tenants/acme/events").len(), 1);
}

#[test]
fn p1_an_idempotency_key_survives_a_crash_with_its_events() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    server.webhook("acme", &inbox.url("/"), json!({}));
    let batch = json!({"events": [{"type": "a.b", "data": 1}, {"type": "a.c", "data": 2}]});
    let one = r#"{"type":"user.created","data":{"a":1.0}}"#;
    let send = |server: &Server| {
        let keyed = |path: &str, body: &str| {
            let path = format!("/v1/tenants/acme/{path}");
            server.send("POST", &path, &[("idempotency-key", "k")], body).expect(202)
        };
        [keyed("events", one), keyed("events/batch", &batch.to_string())]
    };
    let first = send(&server);
    server.kill9();
    server.restart();
    let again = send(&server);
    for (first, again) in first.iter().zip(&again) {
        assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
        assert_eq!(first.json(), again.json());
    }
    server.wait_settled("acme");
    let published = |event: &Value| !text(event, "type").starts_with("gatepost.");
    let feed: Vec<Value> = server.all("/v1/tenants/acme/events?order=asc").into_iter().filter(published).collect();
    assert_eq!(feed.len(), 3, "{feed:?}");
    assert_eq!(feed[0]["id"], again[0].json()["id"]);
    assert_eq!(server.all("/v1/tenants/acme/deliveries").len(), 3);
}

/// Sends under a key of its own each until the server dies, and answers how often it was answered.
fn keyed_load_until_killed(
    server: &mut Server,
    path: &str,
    body: impl Fn(usize) -> Value + Sync,
    from: usize,
) -> usize {
    let (done, gone) = (AtomicUsize::new(0), AtomicBool::new(false));
    let numbers = AtomicUsize::new(from);
    let clients: Vec<_> = (0..4).map(|_| server.client()).collect();
    std::thread::scope(|scope| {
        for mut client in clients {
            let (done, gone, numbers, body) = (&done, &gone, &numbers, &body);
            scope.spawn(move || {
                while !gone.load(Ordering::SeqCst) {
                    let n = numbers.fetch_add(1, Ordering::SeqCst);
                    let key = format!("key {n}");
                    let sent = client.try_send("POST", path, &[("idempotency-key", &key)], body(n));
                    let Ok(reply) = sent else { return };
                    assert!(matches!(reply.status, 201 | 202), "{reply:?}");
                    done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        wait_until("enough to be answered", || (done.load(Ordering::SeqCst) >= 40).then_some(()));
        server.kill9();
        gone.store(true, Ordering::SeqCst);
    });
    numbers.load(Ordering::SeqCst)
}

#[test]
fn p1_whatever_a_crash_cut_off_is_done_once_under_its_key() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let event = |n: usize| json!({"type": "user.created", "data": {"n": n}});
    let webhook = |n: usize| json!({"name": format!("w{n}"), "url": "http://127.0.0.1:9/", "events": ["never.sent"]});
    let mut from = 0;
    for _ in 0..if slow_tier() { 30 } else { 3 } {
        let upto = keyed_load_until_killed(&mut server, "/v1/tenants/acme/events", event, from);
        server.restart();
        // Every one of them again, answered before or not: each is there, and once.
        for n in from..upto {
            let key = format!("key {n}");
            server.send("POST", "/v1/tenants/acme/events", &[("idempotency-key", &key)], event(n)).expect(202);
        }
        let upto = keyed_load_until_killed(&mut server, "/v1/tenants/acme/webhooks", webhook, upto);
        server.restart();
        for n in from..upto {
            let key = format!("key {n}");
            server.send("POST", "/v1/tenants/acme/webhooks", &[("idempotency-key", &key)], webhook(n)).expect(201);
        }
        from = upto;
    }
    let mut numbers: Vec<u64> =
        server.all("/v1/tenants/acme/events").iter().filter_map(|event| event["data"]["n"].as_u64()).collect();
    numbers.sort_unstable();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "an event is there twice: {numbers:?}");
    let mut names: Vec<String> = server.all("/v1/tenants/acme/webhooks").iter().map(|w| text(w, "name")).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), count), (from, from), "a webhook is there twice or missing");
}

#[test]
fn p1_one_data_folder_has_one_server() {
    let server = Server::start();
    let data = server.data_dir();
    let env = [
        ("GATEPOST_DATA_DIR", data.to_str().unwrap()),
        ("GATEPOST_LISTEN", "127.0.0.1:0"),
        ("GATEPOST_ADMIN_KEY", "another-key-of-more-than-thirty-two"),
    ];
    let second = run(server.folder(), &["serve"], &env).expect(1);
    assert!(second.stderr.contains("in use"), "{}", second.stderr);
    assert_eq!(server.get("/v1/tenants").expect(200).json()["data"], Value::Array(Vec::new()));
}
