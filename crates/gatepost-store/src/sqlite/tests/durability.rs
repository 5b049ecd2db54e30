//! Group commits, failures, crashes, the folder's lock.

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use gatepost_core::{EventId, TenantKey, WebhookKey};

use crate::conformance::{at, event, named, one_delivery, page, publish, settlement, tenant, webhook, webhook_id};
use crate::sqlite::checkpoint::Sizes;
use crate::sqlite::error::DbError;
use crate::sqlite::queue::Lane;
use crate::sqlite::writer::Tx;
use crate::sqlite::{Options, meta};
use crate::{EventQuery, NewEvent, NewWebhook, Next, Publish, PublishOutcome, SqliteStore, Store, StoreError};

fn open(folder: &Path) -> Arc<SqliteStore> {
    Arc::new(SqliteStore::open(folder, Options::default()).unwrap())
}

/// The writer, standing still in the middle of a group.
struct Stall {
    release: mpsc::Sender<()>,
    task: tokio::task::JoinHandle<crate::Result<()>>,
}

impl Stall {
    async fn begin(store: &Arc<SqliteStore>) -> Self {
        let (release, released) = mpsc::channel();
        let (started, has_started) = tokio::sync::oneshot::channel();
        let store = Arc::clone(store);
        let task = tokio::spawn(async move {
            let work = move |_: &mut Tx<'_>| {
                let _ = started.send(());
                let _ = released.recv();
                Ok(())
            };
            store.write(Lane::Other, 0, work).await
        });
        has_started.await.unwrap();
        Stall { release, task }
    }

    async fn end(self) {
        drop(self.release);
        self.task.await.unwrap().unwrap();
    }
}

/// Waits until `count` requests are queued behind a stalled writer.
async fn queued(store: &SqliteStore, count: u64) {
    while store.stats().await.unwrap().queued < count {
        tokio::task::yield_now().await;
    }
}

async fn all_events(store: &dyn Store, tenant: TenantKey) -> Vec<EventId> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let query = EventQuery::of(tenant, page(250, after));
        let answer = store.events(query).await.unwrap();
        found.extend(answer.rows.into_iter().map(|(event, _)| event.id));
        after = answer.next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn requests_that_wait_share_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let acme = tenant(&*store, "acme").await.key;
    let before = store.stats().await.unwrap();
    let stall = Stall::begin(&store).await;
    let mut tasks = Vec::new();
    for index in 0..50 {
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move {
            let events = vec![named(&format!("e{index}"), 1, event("a.b", &[]))];
            publish(&*store, acme, at(1), events).await
        }));
    }
    queued(&store, 50).await;
    stall.end().await;
    for task in tasks {
        task.await.unwrap();
    }
    let after = store.stats().await.unwrap();
    assert_eq!((after.commits - before.commits, after.requests - before.requests), (1, 51));
    assert_eq!(all_events(&*store, acme).await.len(), 50);
    assert!(after.bytes > 0);
}

#[tokio::test]
async fn a_failing_request_takes_back_its_own_changes_alone() {
    let folder = tempfile::tempdir().unwrap();
    let stores = [open(folder.path()), Arc::new(SqliteStore::open_inline().unwrap())];
    for store in stores {
        // First of its group, and in the middle of one.
        let fail = |name: &'static str| {
            store.write(Lane::Other, 0, move |tx| {
                meta::set(tx, name, b"half")?;
                Err::<(), _>(DbError::corrupt("test", "failing on purpose"))
            })
        };
        let panic = store.write(Lane::Other, 0, |tx| {
            meta::set(tx, "panicked", b"half")?;
            if tx.numbers.event >= 0 {
                panic!("on purpose");
            }
            Ok(())
        });
        let (one, two, three, four, five) =
            tokio::join!(fail("first"), store.set_meta("a", b"1"), fail("middle"), panic, store.set_meta("b", b"2"),);
        assert!(matches!(
            (one, three, four),
            (Err(StoreError::Corrupt(_)), Err(StoreError::Corrupt(_)), Err(StoreError::Corrupt(_)))
        ));
        assert!(two.is_ok() && five.is_ok());
        for (name, value) in [("first", None), ("middle", None), ("panicked", None), ("a", Some("1")), ("b", Some("2"))]
        {
            assert_eq!(store.meta(name).await.unwrap().as_deref(), value.map(str::as_bytes), "{name}");
        }
    }
}

#[tokio::test]
async fn p1_a_failed_commit_is_answered_to_its_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let stall = Stall::begin(&store).await;
    let mut tasks = Vec::new();
    for index in 0..5 {
        let store = Arc::clone(&store);
        tasks.push(tokio::spawn(async move { store.set_meta(&format!("m{index}"), b"1").await }));
    }
    queued(&store, 5).await;
    store.fail_commits(1);
    drop(stall.release);
    tasks.push(stall.task);
    for task in tasks {
        assert!(matches!(task.await.unwrap(), Err(StoreError::Unavailable(_))));
    }
    for index in 0..5 {
        assert_eq!(store.meta(&format!("m{index}")).await.unwrap(), None);
    }
    store.set_meta("m0", b"2").await.unwrap();
}

#[tokio::test]
async fn p1_a_publish_whose_commit_failed_did_not_happen() {
    let folder = tempfile::tempdir().unwrap();
    for store in [open(folder.path()), Arc::new(SqliteStore::open_inline().unwrap())] {
        let acme = tenant(&*store, "acme").await.key;
        let hook = webhook(&*store, acme, 1).await;
        let new = || vec![NewEvent { undeclared: true, ..named("x", 1, event("new.type", &[&hook])) }];
        store.fail_commits(2);
        for _ in 0..2 {
            let call = Publish { tenant: acme, registry_version: 1, now: at(1), events: new() };
            assert!(matches!(store.publish(call).await, Err(StoreError::Unavailable(_))));
            assert!(all_events(&*store, acme).await.is_empty());
            assert_eq!(store.event_type("new.type").await.unwrap(), None);
            assert!(store.owed(None, 10).await.unwrap().is_empty());
        }
        let accepted = publish(&*store, acme, at(2), new()).await.remove(0);
        assert!(!accepted.duplicate);
        assert_eq!(store.deliveries_of(acme, accepted.event.seq, 10).await.unwrap().len(), 1);
        // The names known were forgotten with the commit that failed.
        assert!(store.event_type("new.type").await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let new = |id: &str| vec![NewEvent { data: vec![b'1'; 40_000].into(), ..named(id, 1, event("a.b", &[&hook])) }];
    store.limit_pages(Some(200)).await.unwrap();
    let mut accepted = HashSet::new();
    let mut refused = 0;
    for index in 0..40 {
        let id = format!("e{index}");
        let call = Publish { tenant: acme, registry_version: 1, now: at(1), events: new(&id) };
        match store.publish(call).await {
            Ok(PublishOutcome::Accepted(_)) => drop(accepted.insert(id.parse::<EventId>().unwrap())),
            Err(StoreError::Unavailable(_)) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(!accepted.is_empty() && refused > 0, "{} accepted, {refused} refused", accepted.len());
    let kept = || async { all_events(&*store, acme).await.into_iter().collect::<HashSet<_>>() };
    assert_eq!(kept().await, accepted);
    store.limit_pages(None).await.unwrap();
    publish(&*store, acme, at(2), new("after")).await;
    accepted.insert("after".parse().unwrap());
    assert_eq!(kept().await, accepted);
    let owed = store.owed(None, 10).await.unwrap();
    assert_eq!(owed.len(), 1);
    assert_eq!(crate::conformance::due(&*store, hook.key, at(9)).await.len(), accepted.len());
}

#[tokio::test]
async fn p1_what_was_answered_is_there_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let acme = tenant(&*store, "acme").await.key;
    let hook = webhook(&*store, acme, 1).await;
    let mut made = Vec::new();
    for index in 0..30 {
        let due = one_delivery(&*store, &hook).await;
        if index % 3 == 0 {
            store.settle(vec![settlement(&due, at(20), 500, Next::Retry(at(60)))]).await.unwrap();
        }
        made.push(due);
    }
    // The files as they lie there now, log and all: what another process would find.
    let image = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), image.path().join(entry.file_name())).unwrap();
    }
    let before: Vec<_> = {
        let mut all = Vec::new();
        for due in &made {
            all.push(store.delivery(acme, due.seq).await.unwrap().unwrap());
        }
        all
    };
    drop(store);
    for place in [folder.path(), image.path()] {
        let store = open(place);
        for (due, expected) in made.iter().zip(&before) {
            assert_eq!(store.delivery(acme, due.seq).await.unwrap().as_ref(), Some(expected));
        }
        let next = one_delivery(&*store, &hook).await;
        assert!(next.seq > made[29].seq && next.events.first().seq > made[29].events.first().seq);
    }
}

#[tokio::test]
async fn closing_finishes_what_is_queued() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let stall = Stall::begin(&store).await;
    let waiting = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.set_meta("a", b"1").await })
    };
    queued(&store, 1).await;
    let closing = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.close().await })
    };
    while !matches!(store.meta("a").await, Err(StoreError::Closed)) {
        tokio::task::yield_now().await;
    }
    stall.end().await;
    waiting.await.unwrap().unwrap();
    closing.await.unwrap();
    // Closed, the folder is free, even while the store still lives.
    assert_eq!(open(folder.path()).meta("a").await.unwrap().as_deref(), Some(&b"1"[..]));
}

#[tokio::test]
async fn p10_a_full_queue_is_told_and_accepting_stops_before_recording() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { queue_requests: 4, ..Options::default() };
    let store = Arc::new(SqliteStore::open(folder.path(), options).unwrap());
    let acme = tenant(&*store, "acme").await.key;
    let stall = Stall::begin(&store).await;
    let mut waiting = Vec::new();
    for count in 1..=3 {
        let store2 = Arc::clone(&store);
        waiting.push(tokio::spawn(async move { store2.set_meta("a", b"1").await }));
        queued(&store, count).await;
    }
    let call = Publish { tenant: acme, registry_version: 0, now: at(1), events: vec![event("a.b", &[])] };
    assert!(matches!(store.publish(call).await, Err(StoreError::Overloaded)));
    let store2 = Arc::clone(&store);
    waiting.push(tokio::spawn(async move { store2.settle(Vec::new()).await.map(drop) }));
    queued(&store, 4).await;
    assert!(matches!(store.settle(Vec::new()).await, Err(StoreError::Overloaded)));
    stall.end().await;
    for task in waiting {
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p4_every_event_accepted_after_a_creation_is_matched_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let acme = tenant(&*store, "acme").await.key;
    let answered: Arc<Mutex<Vec<WebhookKey>>> = Arc::default();
    let running = Arc::new(AtomicUsize::new(8));
    let mut publishers = Vec::new();
    for _ in 0..8 {
        let (store, answered, running) = (Arc::clone(&store), Arc::clone(&answered), Arc::clone(&running));
        publishers.push(tokio::spawn(async move {
            // As the engine does: a snapshot, renewed only when the store says that it is stale.
            let mut registry = store.registry(acme).await.unwrap().unwrap();
            let (mut stale, mut last) = (0, 0);
            while last < 12 {
                let known = answered.lock().unwrap().clone();
                loop {
                    let mut event = event("a.b", &[]);
                    event.matches = Arc::new(registry.webhooks.unfiltered(&event.event_type));
                    let (registry_version, events) = (registry.version, vec![event]);
                    let call = Publish { tenant: acme, registry_version, now: at(1), events };
                    match store.publish(call).await.unwrap() {
                        PublishOutcome::Accepted(accepted) => {
                            let matched: HashSet<_> = accepted[0].deliveries.iter().map(|due| due.webhook).collect();
                            assert!(known.iter().all(|key| matched.contains(key)), "a blind spot");
                            break;
                        }
                        PublishOutcome::StaleRegistry(_) => {
                            stale += 1;
                            registry = store.registry(acme).await.unwrap().unwrap();
                        }
                        other => panic!("{other:?}"),
                    }
                }
                last = known.len();
            }
            running.fetch_sub(1, Ordering::SeqCst);
            stale
        }));
    }
    for number in 1..=12 {
        let hook = webhook(&*store, acme, number).await;
        answered.lock().unwrap().push(hook.key);
        tokio::task::yield_now().await;
    }
    let mut stale = 0;
    for publisher in publishers {
        stale += publisher.await.unwrap();
    }
    assert!(stale > 0, "nobody raced");
    assert_eq!(running.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_log_is_bounded_and_a_reader_in_an_old_snapshot_stalls_nobody_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { soft: 64, hard: 512 };
    let store = Arc::new(SqliteStore::open_with(folder.path(), Options::default(), sizes).unwrap());
    let acme = tenant(&*store, "acme").await.key;
    let large = || vec![NewEvent { data: vec![b'1'; 64 << 10].into(), ..event("a.b", &[]) }];
    // About 18 pages each: 5,400 pages go through the log.
    let mut highest = 0;
    for _ in 0..300 {
        publish(&*store, acme, at(1), large()).await;
        highest = highest.max(store.wal.pages());
    }
    assert!(highest < 2 * sizes.hard, "the log grew to {highest} pages");

    let (release, released) = mpsc::channel::<()>();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let reading = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            let hold = move |conn: &rusqlite::Connection| {
                meta::meta(conn, "a")?;
                let _ = started.send(());
                let _ = released.recv();
                Ok(())
            };
            store.read(hold).await
        })
    };
    has_started.await.unwrap();
    for _ in 0..40 {
        publish(&*store, acme, at(1), large()).await;
    }
    assert!(store.wal.pages() > sizes.hard, "the snapshot keeps the log");
    drop(release);
    reading.await.unwrap().unwrap();
    let mut steps = 0;
    while store.wal.pages() > sizes.hard {
        publish(&*store, acme, at(1), large()).await;
        steps += 1;
        assert!(steps < 200, "the log does not start anew");
    }
}

#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let refused = |result: crate::Result<SqliteStore>| match result {
        Err(StoreError::Unavailable(text)) => assert!(text.contains("in use by another process"), "{text}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened twice"),
    };
    refused(SqliteStore::open(folder.path(), Options::default()));
    // And from another process: this very test program, asked for the probe below.
    let probe = || {
        let me = std::env::current_exe().unwrap();
        let out = std::process::Command::new(me)
            .args(["--exact", "sqlite::tests::durability::probe_from_another_process", "--nocapture"])
            .env("GATEPOST_TEST_PROBE", folder.path())
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    assert!(probe().contains("probe: in use"));
    drop(store);
    assert!(probe().contains("probe: opened"));
}

/// Does nothing unless [`a_folder_in_use_is_refused`] runs it.
#[test]
fn probe_from_another_process() {
    if let Some(folder) = std::env::var_os("GATEPOST_TEST_PROBE") {
        match SqliteStore::open(Path::new(&folder), Options::default()) {
            Ok(_) => println!("probe: opened"),
            Err(StoreError::Unavailable(text)) if text.contains("in use") => println!("probe: in use"),
            Err(other) => println!("probe: {other}"),
        }
    }
}

#[tokio::test]
async fn p7_nothing_of_the_folder_can_be_read_by_others() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let store = open(&path);
    let acme = tenant(&*store, "acme").await.key;
    let config = crate::conformance::config("x");
    let new =
        NewWebhook { tenant: acme, id: webhook_id(1), config, sealed_secrets: vec![1], must_verify: false, now: at(0) };
    store.create_webhook(new).await.unwrap().unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn a_file_that_is_no_database_is_damage() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gatepost.db"), [b'x'; 8_192]).unwrap();
    let result = SqliteStore::open(folder.path(), Options::default());
    assert!(matches!(result.err(), Some(StoreError::Corrupt(_))));
}
