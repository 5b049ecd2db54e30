//! `gatepost backup` and `gatepost restore`, through the binary.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gatepost_testkit::Script;
use serde_json::json;

use crate::harness::{Options, Ran, Server, receiver, run, text, verify, wait_until};

/// Base64 of 32 bytes.
const OTHER_MASTER: &str = "Zm9yIHRlc3RzIG9ubHk6IG1hc3RlciBrZXkgIzIhISE=";

fn backup(server: &Server, args: &[&str]) -> Ran {
    let data = server.data_dir();
    let all = [&["backup"][..], args, &["--data-dir", data.to_str().unwrap()]].concat();
    run(server.folder(), &all, &[])
}

fn restore(folder: &Path, file: &Path, env: &[(&str, &str)], args: &[&str]) -> Ran {
    let data = folder.join("data");
    let all = [&["restore", file.to_str().unwrap(), "--data-dir", data.to_str().unwrap()][..], args].concat();
    run(folder, &all, env)
}

#[test]
fn a_backup_made_under_load_holds_everything_accepted_before_it_and_what_was_owed_is_delivered() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    inbox.script(Script::status(503));
    let policy = json!({"retry": {"waits": vec![1; 30], "jitter": 0, "retry_after": {"statuses": []}}});
    let secret = text(&server.create_webhook("acme", &inbox.url("/"), policy), "secret");

    let accepted = Mutex::new(BTreeSet::new());
    let (numbers, going) = (AtomicUsize::new(0), AtomicBool::new(true));
    let file = server.folder().join("load.backup");
    let before = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = server.client();
                while going.load(Ordering::SeqCst) {
                    let id = format!("n{}", numbers.fetch_add(1, Ordering::SeqCst));
                    let event = json!({"type": "user.created", "id": id, "data": {"filler": "x".repeat(2_000)}});
                    client.post("/v1/tenants/acme/events", event).expect(202);
                    accepted.lock().unwrap().insert(id);
                }
            });
        }
        wait_until("some load", || (accepted.lock().unwrap().len() > 300).then_some(()));
        let before = accepted.lock().unwrap().clone();
        backup(&server, &[file.to_str().unwrap()]).expect(0);
        // It did not stand still meanwhile, and goes on.
        let then = accepted.lock().unwrap().len();
        wait_until("the load to go on", || (accepted.lock().unwrap().len() > then).then_some(()));
        going.store(false, Ordering::SeqCst);
        before
    });
    server.kill9();

    let folder = tempfile::tempdir().unwrap();
    let key = server.data_dir().join("master.key");
    restore(folder.path(), &file, &[], &["--master-key-file", key.to_str().unwrap()]).expect(0);
    inbox.script(Script::status(204));
    inbox.forget();
    let restored =
        Server::try_in(folder, Options::default()).unwrap_or_else(|(status, said)| panic!("{status}\n{said}"));
    let feed: BTreeSet<String> = restored
        .all("/v1/tenants/acme/events?order=asc&type=user.created")
        .iter()
        .map(|event| text(event, "id"))
        .collect();
    let lost: Vec<_> = before.difference(&feed).collect();
    assert!(lost.is_empty(), "accepted before the backup and not in it: {lost:?}");
    restored.wait_settled("acme");
    let received = inbox.received();
    let told: BTreeSet<String> =
        received.iter().map(|request| request.header("webhook-id").unwrap().to_owned()).collect();
    assert_eq!(told, feed, "what was owed is not what was delivered");
    // The sealed secret opens under the restored master key.
    verify(&secret, &received[0]);
}

#[test]
fn a_backup_of_a_stopped_server_is_the_same_and_never_replaces_a_file() {
    let mut server = Server::start();
    server.create_tenant("acme");
    server.publish_event("acme", json!({"type": "a.b", "id": "kept"}));
    server.terminate();
    let made = backup(&server, &["one.backup", "--json"]).expect(0).json();
    assert_eq!((&made["with_keys"], &made["format"]), (&json!(false), &json!(1)));
    assert_eq!(text(&made, "master_key").len(), 32);
    let again = backup(&server, &["one.backup"]).expect(1);
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    // In a folder it gets a name of its own.
    let dir = server.folder().join("many");
    std::fs::create_dir(&dir).unwrap();
    let ran = backup(&server, &[dir.to_str().unwrap()]).expect(0);
    let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(ran.stdout.contains(&*names[0].to_string_lossy()) && ran.stdout.contains("not in it"), "{}", ran.stdout);
    // What is there is private, and of the keys nothing is in it.
    let bytes = std::fs::read(server.folder().join("one.backup")).unwrap();
    let key = std::fs::read_to_string(server.data_dir().join("master.key")).unwrap();
    assert!(!bytes.windows(key.trim().len()).any(|w| w == key.trim().as_bytes()), "the master key is in the backup");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(server.folder().join("one.backup")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let folder = tempfile::tempdir().unwrap();
    let env = [("GATEPOST_MASTER_KEY", key.trim())];
    let done = restore(folder.path(), &server.folder().join("one.backup"), &env, &["--json"]).expect(0).json();
    assert_eq!(done["sha256"], made["sha256"]);
    // A key of the settings is nobody's to write down.
    assert!(!folder.path().join("data/master.key").exists());
    let options = Options::default().env("GATEPOST_MASTER_KEY", key.trim());
    let restored = Server::try_in(folder, options).unwrap_or_else(|(status, said)| panic!("{status}\n{said}"));
    assert_eq!(restored.event("acme", "kept")["type"], "a.b");
    // A folder without a store has nothing to back up.
    let nothing = run(restored.folder(), &["backup", "x.backup", "--data-dir", "nowhere"], &[]).expect(1);
    assert!(nothing.stderr.contains("no store"), "{}", nothing.stderr);
}

#[test]
fn with_its_keys_a_backup_is_all_there_is() {
    let mut server = Server::with(Options::default().without("GATEPOST_ADMIN_KEY"));
    let admin = std::fs::read_to_string(server.data_dir().join("admin.key")).unwrap();
    server.client_with(admin.trim()).put("/v1/tenants/acme", json!({})).expect(201);
    backup(&server, &["all.backup", "--with-keys"]).expect(0);
    server.kill9();
    let folder = tempfile::tempdir().unwrap();
    restore(folder.path(), &server.folder().join("all.backup"), &[], &[]).expect(0);
    let options = Options::default().without("GATEPOST_ADMIN_KEY");
    let restored = Server::try_in(folder, options).unwrap_or_else(|(status, said)| panic!("{status}\n{said}"));
    restored.client_with(admin.trim()).get("/v1/tenants/acme").expect(200);
    use std::os::unix::fs::PermissionsExt;
    for name in ["master.key", "admin.key", "gatepost.db"] {
        let mode = std::fs::metadata(restored.data_dir().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_restore_refuses_what_would_not_work_and_leaves_nothing_behind() {
    let mut server = Server::start();
    server.create_tenant("acme");
    server.publish_event("acme", json!({"type": "a.b", "data": "x".repeat(100_000)}));
    backup(&server, &["one.backup"]).expect(0);
    backup(&server, &["keys.backup", "--with-keys"]).expect(0);
    let file = server.folder().join("one.backup");
    let key = server.data_dir().join("master.key");
    let right = ["--master-key-file", key.to_str().unwrap()];

    let refused = |what: &str, ran: Ran, words: &[&str], folder: &Path| {
        assert!(ran.code == Some(1) || ran.code == Some(2), "{what}: {:?} {}", ran.code, ran.stdout);
        for word in words {
            assert!(ran.stderr.contains(word), "{what}: {}", ran.stderr);
        }
        assert!(!folder.join("data/gatepost.db").exists(), "{what}: there is a store");
        assert!(!folder.join("data/gatepost.db.restoring").exists(), "{what}: there is a draft");
    };
    let fresh = || tempfile::tempdir().unwrap();

    let folder = fresh();
    let ran = restore(folder.path(), &file, &[], &[]);
    refused("no key", ran, &["--master-key-file", "GATEPOST_MASTER_KEY"], folder.path());
    let ran = restore(folder.path(), &file, &[("GATEPOST_MASTER_KEY", OTHER_MASTER)], &[]);
    refused("another key", ran, &["fingerprint"], folder.path());
    let ran =
        restore(folder.path(), &server.folder().join("keys.backup"), &[("GATEPOST_MASTER_KEY", OTHER_MASTER)], &[]);
    refused("another key beside the right one", ran, &["leave this one out"], folder.path());
    // Not even the folder was made so far.
    assert!(!folder.path().join("data").exists());

    let mut damaged = std::fs::read(&file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let path = folder.path().join("damaged");
    std::fs::write(&path, &damaged).unwrap();
    refused("a flipped bit", restore(folder.path(), &path, &[], &right), &["damaged", "checksum"], folder.path());
    std::fs::write(&path, &damaged[..middle]).unwrap();
    refused("half of it", restore(folder.path(), &path, &[], &right), &["damaged"], folder.path());
    std::fs::write(&path, "no archive").unwrap();
    refused("no backup", restore(folder.path(), &path, &[], &right), &["no backup"], folder.path());
    // As it was found: there was no folder.
    assert!(!folder.path().join("data").exists());
    refused(
        "no file",
        restore(folder.path(), &folder.path().join("none"), &[], &right),
        &["cannot be read"],
        folder.path(),
    );
    // None of that stands in the way of the right one, nor does the right key lying there.
    std::fs::create_dir_all(folder.path().join("data")).unwrap();
    std::fs::copy(&key, folder.path().join("data/master.key")).unwrap();
    restore(folder.path(), &file, &[], &[]).expect(0);
    let ran = restore(folder.path(), &file, &[], &right).expect(1);
    assert!(ran.stderr.contains("not empty"), "{}", ran.stderr);
    let other = fresh();
    std::fs::create_dir_all(other.path().join("data")).unwrap();
    std::fs::write(other.path().join("data/notes.txt"), "mine").unwrap();
    refused(
        "a folder with something",
        restore(other.path(), &file, &[], &right),
        &["not empty", "notes.txt"],
        other.path(),
    );
    server.terminate();
}
