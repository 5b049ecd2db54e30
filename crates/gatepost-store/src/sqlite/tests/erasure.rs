//! What is erased is gone from the files, not merely out of sight.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::Response;
use gatepost_core::event::Subject;
use gatepost_core::webhook::Webhook;
use gatepost_core::{JobId, TenantKey};

use crate::conformance::{about, at, event, publish, settlement, tenant, webhook};
use crate::sqlite::Options;
use crate::{Cleared, Erasure, JobStore, NewEvent, NewJob, Next, SqliteStore, Stage, Store, Task};

const SECRETS: [&str; 5] = ["ANNASDATA", "ANNASATTRIBUTE", "ANNASBODY", "ANNASANSWER", "anna-the-subject"];

/// Which of `words` stand in any file of the folder.
fn found(folder: &Path, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        for word in words {
            let times = bytes.windows(word.len()).filter(|window| *window == word.as_bytes()).count();
            if times > 0 {
                found.push(format!("{word} {times} times in {}", path.file_name().unwrap().display()));
            }
        }
    }
    found
}

fn personal(who: &str, n: usize, hook: &Webhook) -> NewEvent {
    let (name, subject) = if who == "anna" { ("ANNAS", "anna-the-subject") } else { ("BERTS", "bert-the-subject") };
    // Some are small, some fill pages of their own.
    let fill = "x".repeat((n * 997) % 9_000);
    NewEvent {
        data: Bytes::from(format!("{{\"a\":\"{name}DATA\",\"b\":\"{fill}\",\"c\":\"{name}DATA\"}}")),
        attributes: Some(Bytes::from(format!("{{\"ip\":\"{name}ATTRIBUTE\"}}"))),
        ..about(subject, event("user.changed", &[hook]))
    }
}

/// A delivery fails, and is delivered at the second attempt.
async fn told(store: &dyn Store, hook: &Webhook, tenant: TenantKey, who: &str, n: usize) {
    let seconds = 100 + n as i64;
    let accepted = publish(store, tenant, at(seconds), vec![personal(who, n, hook)]).await.remove(0);
    let name = if who == "anna" { "ANNAS" } else { "BERTS" };
    let answer = |n: usize| Response {
        headers: vec![("x-answer".into(), format!("{name}ANSWER"))],
        body: Bytes::from(format!("{}{name}ANSWER", "y".repeat(n % 1_500))),
        truncated: false,
    };
    let mut first = settlement(&accepted.deliveries[0], at(seconds), 500, Next::Retry(at(seconds + 1)));
    Arc::make_mut(&mut first.attempt).response = Some(answer(n * 31));
    first.freeze = Some(Bytes::from(format!("{name}BODY{}{name}BODY", "z".repeat((n * 463) % 6_000))));
    store.settle(vec![first]).await.unwrap();
    let again = crate::conformance::due(store, hook.key, at(seconds + 1)).await;
    let again = again.iter().find(|due| due.seq == accepted.deliveries[0].seq).unwrap();
    let mut second = settlement(again, at(seconds + 1), 200, Next::Delivered);
    Arc::make_mut(&mut second.attempt).response = Some(answer(n * 17));
    store.settle(vec![second]).await.unwrap();
}

#[tokio::test]
async fn what_was_erased_is_in_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Options::default()).unwrap();
    let acme = tenant(&store, "acme").await.key;
    let hook = webhook(&store, acme, 1).await;
    for n in 0..400 {
        told(&store, &hook, acme, if n % 3 == 0 { "anna" } else { "bert" }, n).await;
    }
    assert!(!found(folder.path(), &SECRETS).is_empty());
    let task = Task::Erase(Erasure {
        subject: Some("anna-the-subject".into()),
        subject_type: None,
        alias: "erased:somebody".into(),
        within: None,
    });
    let id = JobId::from_bytes([7; 16]);
    let mut job = store.create_job(NewJob { tenant: acme, id, task, now: at(900) }).await.unwrap().unwrap();
    while job.stage != Stage::Clearing {
        job = store.erase(job.key, at(901), 25).await.unwrap().job.unwrap();
    }
    assert_eq!((job.total, job.done), (134, 134));
    let (mut position, mut steps) = (0, 0);
    loop {
        steps += 1;
        match store.clear_traces(position).await.unwrap() {
            Cleared::UpTo(next) => position = next,
            Cleared::Blocked(_) => {}
            Cleared::Wholly => break,
        }
    }
    assert!(steps >= 2, "in small steps: {steps}");
    store.end_job(job.key, None, at(902)).await.unwrap();
    assert_eq!(found(folder.path(), &SECRETS), Vec::<String>::new());
    // Nobody else's is gone.
    let bert = found(folder.path(), &["BERTSDATA", "BERTSBODY", "BERTSANSWER"]);
    assert!(bert.len() >= 3, "{bert:?}");
    store.close().await;
    let whole = rusqlite::Connection::open(folder.path().join("gatepost.db")).unwrap();
    let sound: String = whole.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(sound, "ok");
    drop(whole);
    assert_eq!(found(folder.path(), &SECRETS), Vec::<String>::new());
    let store = SqliteStore::open(folder.path(), Options::default()).unwrap();
    let rows = store.events(all(acme)).await.unwrap().rows;
    let subject = Subject { kind: Some("user".into()), id: "erased:somebody".into() };
    assert!(rows.iter().any(|(event, _)| event.subject.as_ref() == Some(&subject)));
}

fn all(tenant: TenantKey) -> crate::EventQuery {
    crate::EventQuery {
        order: crate::Order::Descending,
        ..crate::EventQuery::of(tenant, crate::conformance::page(250, None))
    }
}
