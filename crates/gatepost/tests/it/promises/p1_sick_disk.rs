//! P1 on a disk that fails a flush and loses what it was to flush: nothing accepted is lost, because the
//! server ends at once, and because the start trusts nothing that was not flushed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gatepost_core::Entropy;
use serde_json::json;

use crate::harness::{Options, Server, seeded, slow_tier};

const DATABASE: &str = "gatepost.db";
const LOG: &str = "gatepost.db-wal";
/// The log is copied about every 17 events of this size.
const EVENT_BYTES: usize = 240_000;

/// The library that makes the disk sick. Nothing where it cannot be: then that is said loudly.
fn sick_disk(folder: &Path) -> Option<PathBuf> {
    if !cfg!(target_os = "linux") {
        eprintln!("\n!!!! SKIPPED: no disk can be made to fail here !!!!\n");
        return None;
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/harness/sick_disk.c");
    let library = folder.join("sick_disk.so");
    let built = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .status();
    // Whoever builds SQLite has a C compiler.
    assert!(built.is_ok_and(|status| status.success()), "sick_disk.c is not compiled");
    Some(library)
}

/// A server on a sick disk.
struct Sick {
    library: PathBuf,
    disk: tempfile::TempDir,
    server: Server,
    accepted: BTreeSet<String>,
    number: AtomicUsize,
}

impl Sick {
    fn options(library: &Path, folder: &Path, disk: &Path, sick: Option<(&str, u64)>) -> Options {
        let options = Options::default()
            .env("LD_PRELOAD", library.display())
            .env("SICK_FOLDER", folder.canonicalize().unwrap().join("data").display())
            .env("SICK_DISK", disk.display());
        match sick {
            Some((file, number)) => options.env("SICK_FILE", file).env("SICK_NUMBER", number),
            None => options,
        }
    }

    /// Flush number `number` of `file` will fail. Nothing: it was one of the first start's, which failed.
    fn start(library: &Path, file: &str, number: u64) -> Option<Sick> {
        let (folder, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let options = Sick::options(library, folder.path(), disk.path(), Some((file, number)));
        match Server::try_in(folder, options) {
            Ok(server) => {
                let (library, number) = (library.to_owned(), AtomicUsize::new(0));
                Some(Sick { library, disk, server, accepted: BTreeSet::new(), number })
            }
            Err((status, said)) => {
                assert!(status.code() == Some(1) && said.contains("I/O error"), "{status}\n{said}");
                None
            }
        }
    }

    /// Publishes from several threads until the server does not answer any more, or `most` were taken.
    fn publish(&mut self, most: usize) {
        let (accepted, number) = (Mutex::new(BTreeSet::new()), &self.number);
        let clients: Vec<_> = (0..3).map(|_| self.server.client()).collect();
        std::thread::scope(|scope| {
            for mut client in clients {
                let accepted = &accepted;
                scope.spawn(move || {
                    while accepted.lock().unwrap().len() < most {
                        let id = format!("e{}", number.fetch_add(1, Ordering::SeqCst));
                        let event = json!({"id": id, "type": "user.created", "data": "x".repeat(EVENT_BYTES)});
                        match client.try_send("POST", "/v1/tenants/acme/events", &[], event.to_string()) {
                            Ok(reply) if reply.status == 202 => drop(accepted.lock().unwrap().insert(id)),
                            Ok(reply) => assert_eq!(reply.status, 503, "{reply:?}"),
                            Err(_) => return,
                        }
                    }
                });
            }
        });
        self.accepted.append(&mut accepted.into_inner().unwrap());
    }

    fn says_so_and_ends(&mut self) {
        let status: ExitStatus = self.server.wait_exit();
        assert_eq!(status.code(), Some(1), "{}", self.server.said());
        assert!(self.server.said().contains("a flush to disk failed"), "{}", self.server.said());
    }

    /// The machine starts anew: what is there is what came to the disk. Everything accepted must be.
    fn lose_power_and_look(&mut self, what: &str) {
        self.server.kill9();
        let data = self.server.data_dir();
        for name in [DATABASE, LOG, "gatepost.db-shm", "gatepost.db-journal"] {
            let (place, kept) = (data.join(name), self.disk.path().join(name));
            let _ = std::fs::remove_file(&place);
            if kept.exists() {
                std::fs::copy(&kept, &place).unwrap();
            }
        }
        self.server.restart_with(Options::default());
        for id in &self.accepted {
            let reply = self.server.get(&format!("/v1/tenants/acme/events/{id}"));
            assert_eq!(reply.status, 200, "{what}: {id} of {} is lost", self.accepted.len());
        }
        assert!(self.server.terminate().success());
        let found = rusqlite::Connection::open(data.join(DATABASE))
            .and_then(|conn| conn.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)));
        assert_eq!(found.as_deref(), Ok("ok"), "{what}");
    }

    /// The server starts on what the system remembers, and accepts more.
    fn go_on(&mut self, events: usize) {
        let folder = self.server.folder().to_owned();
        let options = Sick::options(&self.library, &folder, self.disk.path(), None);
        self.server.restart_with(options);
        let made = self.server.put("/v1/tenants/acme", json!({}));
        assert!(made.status < 300, "{made:?}");
        self.publish(events);
    }
}

/// Each `file` of the first few flushes it gets, at random: with the power lost at once, or only after the
/// server has gone on for a while on the same machine.
fn over_flushes_of(file: &str, first: u64, span: u64, seed: u64) {
    let entropy = seeded(file, seed);
    let temp = tempfile::tempdir().unwrap();
    let Some(library) = sick_disk(temp.path()) else { return };
    for round in 0..if slow_tier() { 40 } else { 4 } {
        let number = first + entropy.next_u64() % span;
        let what = format!("flush {number} of {file}, round {round}");
        let Some(mut sick) = Sick::start(&library, file, number) else { continue };
        // A restart on a disk that is well finds the tenant; the sick one may fail with it.
        let made = sick.server.client().try_send("PUT", "/v1/tenants/acme", &[], "{}".to_owned());
        if made.is_ok_and(|reply| reply.status < 300) {
            sick.publish(400);
        }
        sick.says_so_and_ends();
        match round % 4 {
            // What follows a lost commit in the log.
            0 => sick.go_on(3),
            // More than the log holds before it begins anew.
            2 => sick.go_on(60),
            _ => {}
        }
        sick.lose_power_and_look(&what);
    }
}

#[test]
fn p1_a_failed_flush_of_the_database_loses_nothing_accepted() {
    over_flushes_of(DATABASE, 3, 4, 20_261_201);
}

#[test]
fn p1_a_failed_flush_of_the_log_loses_nothing_accepted() {
    over_flushes_of(LOG, 5, 40, 20_261_202);
}
