//! The samples of the documentation, run: receivers in Python and TypeScript, a caller in Python. What is
//! not on the machine is left out, and said.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use super::{Stage, TENANT, question, verdict};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/samples").join(name)
}

/// A receiver under way; it ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a receiver on a free port; `None`: its program is not there, or does not know its language.
fn start(program: &str, file: &Path) -> Option<(Running, String)> {
    let mut command = Command::new(program);
    command.arg(file).arg("0").env("HOOK_SECRET", SECRET).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running(command.spawn().ok()?);
    let mut line = String::new();
    BufReader::new(running.0.stdout.take()?).read_line(&mut line).ok()?;
    let port: u16 = line.trim().strip_prefix("listening on ")?.parse().ok()?;
    Some((running, format!("http://127.0.0.1:{port}/")))
}

/// What both receivers do: a test passes, a change is made, a taken number is refused.
fn holds(url: &str) {
    let stage = Stage::new();
    for point in ["preCreateUser", "validateUser"] {
        stage.register(url, point, json!({"secret": SECRET, "timeout_ms": 10_000}));
        let long = json!({"max_total_ms": 20_000});
        stage.server.put(&format!("/v1/tenants/{TENANT}/points/{point}"), long).expect(200);
    }
    let decision = stage.operate("createUser", question());
    assert_eq!(verdict(&decision), ("allow", "receiver"), "{decision:#}");
    assert_eq!(decision["object"]["user"]["department"], "Sales");
    let mut taken = question();
    taken["object"]["user"]["mobile"] = json!("9876543210");
    let decision = stage.operate("createUser", taken);
    assert_eq!((verdict(&decision), &decision["messages"][0]["code"]), (("deny", "receiver"), &json!("MOBILE_TAKEN")));
    // Another secret, another sender.
    let refused = stage.try_register(url, "validateUpdateUser", Value::Null);
    assert!(refused.expect_problem(409, "hook_unverified").text().contains("status_4xx"));
}

#[test]
fn the_receiver_in_python() {
    match start("python3", &sample("receiver.py")) {
        Some((_running, url)) => holds(&url),
        None => eprintln!("SKIPPED: there is no python3 that runs docs/samples/receiver.py"),
    }
}

#[test]
fn the_receiver_in_typescript() {
    let folder = tempfile::tempdir().unwrap();
    // Node strips types by itself since 22.18; else by the compiler, whose opinion of types it is to have or
    // not to have is not ours.
    let compiled = Command::new("tsc")
        .args(["--target", "es2022", "--module", "es2022", "--moduleResolution", "bundler", "--outDir"])
        .arg(folder.path())
        .arg(sample("receiver.ts"))
        .output();
    std::fs::write(folder.path().join("package.json"), "{\"type\":\"module\"}").unwrap();
    let file = match compiled {
        Ok(_) if folder.path().join("receiver.js").exists() => folder.path().join("receiver.js"),
        _ => sample("receiver.ts"),
    };
    match start("node", &file) {
        Some((_running, url)) => holds(&url),
        None => eprintln!("SKIPPED: there is no node (22.18, or with tsc) that runs docs/samples/receiver.ts"),
    }
}

#[test]
fn the_caller_in_python() {
    let stage = Stage::new();
    let refuse = super::native(|_| json!({"decision": "deny", "messages": [{"code": "X", "text": "Not her."}]}));
    let run = || {
        let mut command = Command::new("python3");
        command.arg(sample("caller.py")).args([TENANT, "ada"]);
        let key = crate::harness::ADMIN_KEY;
        command.env("GATEPOST_URL", stage.server.url()).env("GATEPOST_KEY", key).output()
    };
    let Ok(made) = run() else { return eprintln!("SKIPPED: there is no python3") };
    assert_eq!(String::from_utf8_lossy(&made.stdout), "created {\"login\": \"ada\"}\n", "{made:?}");
    let told = &stage.server.all("/v1/tenants/acme/invocations")[0];
    assert_eq!((&told["outcome"]["state"], &told["subject"]["id"]), (&json!("committed"), &json!("ada")));
    stage.hook("v", "validateUser", json!({}), refuse);
    let refused = run().unwrap();
    assert_eq!(String::from_utf8_lossy(&refused.stderr), "refused (receiver): Not her.\n", "{refused:?}");
}
