//! The commands, as people and scripts run them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Options, Ran, Server, command, receiver, run, run_against, text, verify};

/// The sample of Cryptr's own document.
const CRYPTR_SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../gatepost-core/fixtures/cryptr_event.json");

fn here(args: &[&str]) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), args, &[])
}

/// A file for a command to read.
fn file(server: &Server, name: &str, content: &str) -> String {
    let path = server.folder().join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

#[test]
fn every_command_has_help_with_an_example() {
    let help = here(&["--help"]).expect(0).stdout;
    for name in [
        "serve",
        "demo",
        "listen",
        "publish",
        "trigger",
        "keys",
        "event-types",
        "apply",
        "export",
        "backup",
        "restore",
        "config",
    ] {
        assert!(help.contains(&format!("\n  {name} ")), "{name} is not in the help:\n{help}");
        let own = here(&[name, "--help"]).expect(0).stdout;
        assert!(own.contains("Example") && own.contains(&format!("gatepost {name}")), "{name} has no example:\n{own}");
    }
    for (command, actions) in [
        ("keys", &["create", "list", "delete", "rotate-master"][..]),
        ("event-types", &["list", "show", "put", "delete"]),
        ("config", &["show"]),
    ] {
        for action in actions {
            let own = here(&[command, action, "--help"]).expect(0).stdout;
            assert!(own.contains("Example"), "{command} {action} has no example:\n{own}");
        }
    }
}

#[test]
fn exit_codes_are_0_done_1_failed_2_usage() {
    here(&["--version"]).expect(0);
    for usage in [
        &["no-such-command"][..],
        &[],
        &["serve", "--no-such-flag"],
        &["serve", "--listen", "nowhere"],
        &["serve", "--allow-nets", "10.0.0.0/99"],
        &["publish"],
        &["publish", "x.json", "--tenant", "NOT A TENANT"],
        &["trigger", "not a type", "--tenant", "acme"],
        &["keys", "create", "k", "--scopes", "everything"],
        &["config", "show", "--config", "/no/such/file"],
    ] {
        let ran = here(usage).expect(2);
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{usage:?} says nothing about it");
    }
    // Nobody listens there: failed, not misused.
    let nobody = "http://127.0.0.1:1";
    for failed in [
        &["keys", "list", "--url", nobody, "--key", "k"][..],
        &["trigger", "user.created", "--tenant", "acme", "--url", nobody, "--key", "k"],
        &["publish", "/no/such/file.json", "--tenant", "acme", "--url", nobody, "--key", "k"],
    ] {
        let ran = here(failed).expect(1);
        assert!(ran.stderr.starts_with("error: "), "{failed:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
}

#[test]
fn errors_of_the_server_are_told_with_code_and_place() {
    let server = Server::start();
    server.create_tenant("acme");
    let wrong_key =
        run(server.folder(), &["keys", "list"], &[("GATEPOST_URL", &server.url()), ("GATEPOST_KEY", "wrong")]);
    let wrong_key = wrong_key.expect(1);
    assert!(wrong_key.stderr.contains("unauthorized"), "{}", wrong_key.stderr);
    let nobody = run_against(&server, &["trigger", "user.created", "--tenant", "nobody"]).expect(1);
    assert!(nobody.stderr.contains("tenant_not_found"), "{}", nobody.stderr);
    let path = file(&server, "bad.ndjson", "{\"type\":\"a.b\"}\n{\"type\":\"not a type\"}\n");
    let bad = run_against(&server, &["publish", &path, "--tenant", "acme"]).expect(1);
    assert!(bad.stderr.contains("line 2") && bad.stderr.contains("/type"), "{}", bad.stderr);
    let path = file(&server, "broken.json", "{\"type\":\"a.b\",\n \"data\": }");
    let broken = run_against(&server, &["publish", &path, "--tenant", "acme"]).expect(1);
    assert!(broken.stderr.contains('2'), "{}", broken.stderr);
    assert!(server.all("/v1/tenants/acme/events").is_empty(), "something of it was accepted");
}

#[test]
fn publish_sends_the_cryptr_sample_byte_for_byte() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let secret = text(&server.create_webhook("acme", &inbox.url("/"), json!({"events": ["dir_sync.*"]})), "secret");
    let args = ["publish", CRYPTR_SAMPLE, "--tenant", "acme", "--type", "dir_sync.user.update.success"];
    let ran = run_against(&server, &args).expect(0);
    assert!(ran.stdout.contains("1 event"), "{}", ran.stdout);
    let request = inbox.wait_for_blocking(1).remove(0);
    verify(&secret, &request);
    let sample = std::fs::read_to_string(CRYPTR_SAMPLE).unwrap();
    let body = String::from_utf8_lossy(&request.body).into_owned();
    assert!(body.ends_with(&format!("\"data\":{}}}", sample.trim())), "{body}");
    assert_eq!(request.json()["type"], "dir_sync.user.update.success");
}

#[test]
fn publish_reads_json_lists_and_ndjson_and_many_events() {
    let server = Server::start();
    server.create_tenant("acme");
    let one = file(&server, "one.json", r#"{"type":"a.b", "id":"one", "data":{ "x" : 1.0 }}"#);
    let list = file(&server, "list.json", r#"[{"type":"a.b","id":"two"},{"type":"a.b","id":"three"}]"#);
    let wrapped = file(&server, "wrapped.json", r#"{"events":[{"type":"a.b","id":"four"}]}"#);
    let lines: String = (0..2_500).map(|n| format!("{{\"type\":\"a.c\",\"id\":\"n:{n}\",\"data\":{n}}}\n")).collect();
    let many = file(&server, "many.ndjson", &lines);
    for (path, count) in [(&one, 1), (&list, 2), (&wrapped, 1), (&many, 2_500)] {
        let ran = run_against(&server, &["publish", path, "--tenant", "acme", "--json"]).expect(0).json();
        assert_eq!((&ran["published"], &ran["duplicates"]), (&json!(count), &json!(0)));
        assert_eq!(ran["events"].as_array().map(Vec::len), Some(count));
    }
    // Again is no harm.
    let again = run_against(&server, &["publish", &many, "--tenant", "acme", "--json"]).expect(0).json();
    assert_eq!(again["duplicates"], 2_500);
    let feed = server.all("/v1/tenants/acme/events?order=asc&type=a.c");
    assert_eq!(feed.len(), 2_500);
    assert!(feed.iter().enumerate().all(|(n, event)| event["data"] == n), "the file's order is not kept");
    assert!(server.get("/v1/tenants/acme/events/one").expect(200).text().contains("\"data\":{ \"x\" : 1.0 }"));
    // From stdin.
    let mut child = command(server.folder(), &[])
        .args(["publish", "-", "--tenant", "acme"])
        .envs([("GATEPOST_URL", server.url().as_str()), ("GATEPOST_KEY", ADMIN_KEY)])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"{\"type\":\"a.d\",\"id\":\"stdin\"}\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(server.event("acme", "stdin")["type"], "a.d");
}

#[test]
fn trigger_publishes_the_catalogues_example() {
    let server = Server::start();
    server.create_tenant("acme");
    let answer = run_against(&server, &["trigger", "user.created", "--tenant", "acme", "--json"]).expect(0).json();
    let event = server.event("acme", &text(&answer, "id"));
    let declared = server.get("/v1/event-types/user.created").expect(200).json();
    assert!(declared["example"].is_object());
    assert_eq!(event["data"], declared["example"]);
    let args = [
        "trigger",
        "user.created",
        "--tenant",
        "acme",
        "--data",
        r#"{"name":"Ada"}"#,
        "--subject",
        "user-17",
        "--json",
    ];
    let answer = run_against(&server, &args).expect(0).json();
    let event = server.event("acme", &text(&answer, "id"));
    assert_eq!((&event["data"], &event["subject"]["id"]), (&json!({"name": "Ada"}), &json!("user-17")));
    let unknown = run_against(&server, &["trigger", "no.such.type", "--tenant", "acme"]).expect(1);
    assert!(unknown.stderr.contains("no.such.type"), "{}", unknown.stderr);
}

#[test]
fn keys_are_made_shown_once_listed_and_taken_away() {
    let server = Server::start();
    server.create_tenant("acme");
    let args = ["keys", "create", "platform", "--scopes", "publish,read", "--tenant", "acme", "--json"];
    let made = run_against(&server, &args).expect(0).json();
    let key = text(&made, "key");
    let mut client = server.client_with(&key);
    client.post("/v1/tenants/acme/events", json!({"type": "a.b"})).expect(202);
    client.post("/v1/tenants/acme/webhooks", json!({})).expect_problem(403, "forbidden");
    let listed = run_against(&server, &["keys", "list", "--json"]).expect(0);
    assert_eq!(listed.json()[0]["id"], made["id"]);
    let table = run_against(&server, &["keys", "list"]).expect(0);
    assert!(table.stdout.contains("platform"), "{}", table.stdout);
    assert!(!listed.stdout.contains(&key) && !table.stdout.contains(&key));
    run_against(&server, &["keys", "delete", &text(&made, "id")]).expect(0);
    client.post("/v1/tenants/acme/events", json!({"type": "a.b"})).expect_problem(401, "unauthorized");
    run_against(&server, &["keys", "delete", &text(&made, "id")]).expect(1);
}

#[test]
fn event_types_are_listed_declared_shown_and_deleted() {
    let server = Server::start();
    let listed = run_against(&server, &["event-types", "list", "--json"]).expect(0).json();
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    for name in ["user.created", "dir_sync.user.update.success", "cymmetri.postCreateUser", "user.lifecycle.create"] {
        assert!(names.contains(&name), "{name} is not in the catalogue: {names:?}");
    }
    assert!(names.is_sorted(), "{names:?}");
    let path = file(&server, "type.json", r#"{"description":"An order","urgency":"bulk","example":{"n":1.0}}"#);
    run_against(&server, &["event-types", "put", "order.placed", &path]).expect(0);
    let shown = run_against(&server, &["event-types", "show", "order.placed"]).expect(0).stdout;
    assert!(shown.contains("An order") && shown.contains("bulk"), "{shown}");
    let shown = run_against(&server, &["event-types", "show", "order.placed", "--json"]).expect(0).stdout;
    assert!(shown.contains(r#"{"n":1.0}"#), "{shown}");
    run_against(&server, &["event-types", "delete", "order.placed"]).expect(0);
    run_against(&server, &["event-types", "show", "order.placed"]).expect(1);
}

#[test]
fn config_show_names_each_value_with_its_origin() {
    let folder = tempfile::tempdir().unwrap();
    let toml = folder.path().join("other.toml");
    std::fs::write(&toml, "listen = \"127.0.0.1:7001\"\nallow_nets = [\"10.0.0.0/8\"]\nlog = \"warn\"\n").unwrap();
    let args = ["config", "show", "--json", "--config", toml.to_str().unwrap(), "--log", "debug"];
    let secret = "Zm9yIHRlc3RzIG9ubHk6IG1hc3RlciBrZXkgIzEhISE=";
    let env = [
        ("GATEPOST_ALLOW_NETS", "192.168.0.0/16"),
        ("GATEPOST_MASTER_KEY", secret),
        ("GATEPOST_ADMIN_KEY", "hidden-key-of-more-than-thirty-two"),
    ];
    let ran = run(folder.path(), &args, &env).expect(0);
    assert!(!ran.stdout.contains(secret) && !ran.stdout.contains("hidden-key"));
    let rows = ran.json();
    let row = |name: &str| {
        rows.as_array().unwrap().iter().find(|r| r["name"] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let origin = |name: &str| text(&row(name), "origin");
    assert_eq!(row("listen")["value"], "127.0.0.1:7001");
    assert!(origin("listen").contains("other.toml:1"), "{}", origin("listen"));
    assert_eq!(
        (row("allow_nets")["value"].clone(), origin("allow_nets")),
        (json!("192.168.0.0/16"), "environment GATEPOST_ALLOW_NETS".into())
    );
    assert_eq!((row("log")["value"].clone(), origin("log")), (json!("debug"), "flag --log".into()));
    assert_eq!(origin("data_dir"), "default");
    assert_eq!((&row("master_key")["set"], &row("master_key")["value"]), (&json!(true), &Value::Null));
    // For people: a table, secrets hidden.
    let table = run(folder.path(), &["config", "show"], &env).expect(0).stdout;
    assert!(table.contains("GATEPOST_LISTEN") && table.contains("***") && !table.contains("hidden-key"), "{table}");
}

/// `listen` on a free port.
struct Listening {
    child: Child,
    stdout: BufReader<std::process::ChildStdout>,
    url: String,
}

fn listen(folder: &std::path::Path, args: &[&str]) -> Listening {
    let mut child = command(folder, &[])
        .args(["listen", "--addr", "127.0.0.1:0", "--json"])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut welcome = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut welcome).unwrap();
    let url =
        welcome.split_whitespace().find(|word| word.starts_with("http://")).unwrap_or_else(|| panic!("{welcome}"));
    let stdout = BufReader::new(child.stdout.take().unwrap());
    Listening { url: url.to_owned(), stdout, child }
}

impl Listening {
    fn lines(mut self) -> Vec<Value> {
        let lines = self.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        lines
    }
}

#[test]
fn listen_verifies_counts_and_misbehaves_as_told() {
    let server = Server::start();
    server.create_tenant("acme");
    let secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let other = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=";
    let good = listen(server.folder(), &["--secret", secret, "--count", "2"]);
    let failing = listen(server.folder(), &["--secret", other, "--status", "503", "--count", "2"]);
    let over = json!({"secret": secret, "retry": {"waits": [0.1], "jitter": 0, "retry_after": {"statuses": []}}});
    for url in [&good.url, &failing.url] {
        server.webhook("acme", url, over.clone());
    }
    let event = server.publish("acme", "user.created", json!({"n": 1}));
    let second = server.publish("acme", "user.created", json!({"n": 2}));
    let lines = good.lines();
    let mut ids: Vec<String> = lines.iter().map(|line| text(line, "event_id")).collect();
    ids.sort();
    let mut expected = vec![event.clone(), second];
    expected.sort();
    assert_eq!(ids, expected);
    for line in &lines {
        assert_eq!(
            (&line["signature"]["verified"], &line["answered"], &line["type"]),
            (&json!(true), &json!(204), &json!("user.created"))
        );
    }
    for line in failing.lines() {
        assert_eq!((&line["signature"]["verified"], &line["answered"]), (&json!(false), &json!(503)));
    }
}

#[test]
fn serve_takes_flags_over_the_environment_and_prints_where_it_listens() {
    let taken = receiver();
    let options = Options::default()
        .env("GATEPOST_LISTEN", taken.addr())
        .arg("--listen")
        .arg("127.0.0.1:0")
        .arg("--max-body-bytes")
        .arg("2048");
    let server = Server::with(options);
    assert_ne!(server.addr(), taken.addr());
    server.create_tenant("acme");
    let big = json!({"type": "a.b", "data": "x".repeat(3_000)});
    server.post("/v1/tenants/acme/events", big).expect_problem(413, "payload_too_large");
    // An address that is taken is failure, not silence.
    let Err((status, output)) = Server::try_with(Options::default().env("GATEPOST_LISTEN", taken.addr())) else {
        panic!("two servers listen on one address")
    };
    assert_eq!(status.code(), Some(1), "{output}");
    assert!(output.contains("cannot listen"), "{output}");
    // Nor is PostgreSQL accepted and ignored.
    let Err((status, output)) =
        Server::try_with(Options::default().env("GATEPOST_DATABASE_URL", "postgres://u:secret-word@h/d"))
    else {
        panic!("a database nobody uses")
    };
    assert_eq!(status.code(), Some(2), "{output}");
    assert!(!output.contains("secret-word"), "{output}");
}

#[test]
fn a_second_terminal_finds_the_server_and_its_key_by_itself() {
    // As in the README: `serve` and the other commands in one folder, with no setting at all.
    let server = Server::with(
        Options::default()
            .without("GATEPOST_ADMIN_KEY")
            .without("GATEPOST_DATA_DIR")
            .arg("--data-dir")
            .arg("gatepost-data"),
    );
    assert!(server.folder().join("gatepost-data").join("admin.key").exists());
    let ran = run(server.folder(), &["keys", "list", "--url", &server.url(), "--json"], &[]).expect(0);
    assert_eq!(ran.json(), json!([]));
}

#[test]
fn failures_are_json_where_json_is_asked_for() {
    let server = Server::start();
    server.create_tenant("acme");
    let fails = |args: &[&str], code| {
        let ran = crate::harness::run_against(&server, args).expect(code);
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
        serde_json::from_str::<serde_json::Value>(&ran.stderr).unwrap_or_else(|_| panic!("no JSON: {}", ran.stderr))
    };
    let refused = fails(&["replay", "--tenant", "acme", "--webhook", "wh_nope", "--since", "1h", "--json"], 1);
    assert_eq!((&refused["exit_code"], &refused["problem"]["code"]), (&json!(1), &json!("webhook_not_found")));
    let usage = fails(&["hooks", "observe-report", "--tenant", "acme", "--since", "1w", "--json"], 2);
    assert!(usage["exit_code"] == 2 && usage["error"].as_str().unwrap().contains("30m"), "{usage}");
    crate::harness::run_against(&server, &["hooks", "observe-report", "--tenant", "acme", "--since", "1h"]).expect(0);
}

#[test]
fn a_slip_in_an_event_type_is_told() {
    let server = Server::start();
    server.create_tenant("acme");
    let ran = crate::harness::run_against(&server, &["trigger", "user.craeted", "--tenant", "acme"]).expect(1);
    assert!(ran.stderr.contains("did you mean user.created?"), "{}", ran.stderr);
    let made = server.create_webhook("acme", "http://somewhere.example/", json!({"events": ["user.craeted"]}));
    let warnings = made["warnings"].to_string();
    assert!(warnings.contains("user.created") && warnings.contains("plain http"), "{warnings}");
}
