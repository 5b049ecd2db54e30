//! Clients made of docs/openapi.json by others' generators drive the real binary, and a linter reads it.
//!
//! `GATEPOST_TEST_CLIENTS` names the folder that `scripts/clients.sh` filled; without it nothing is tested, and
//! that is said.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{ADMIN_KEY, Server};

fn generators() -> Option<PathBuf> {
    let folder = std::env::var_os("GATEPOST_TEST_CLIENTS").map(PathBuf::from).filter(|folder| folder.is_dir());
    if folder.is_none() {
        eprintln!("SKIPPED: no generated clients; run scripts/clients.sh and set GATEPOST_TEST_CLIENTS");
    }
    folder
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// What a command printed.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[test]
fn a_python_client_made_of_the_description_works() {
    let Some(folder) = generators() else { return };
    let made = tempfile::tempdir().expect("a folder");
    let client = made.path().join("client");
    run(Command::new(folder.join("py/bin/openapi-python-client"))
        .args(["generate", "--meta", "none", "--path"])
        .arg(root().join("docs/openapi.json"))
        .arg("--output-path")
        .arg(client.join("gatepost_client")));
    let server = Server::start();
    let drive = root().join("scripts/clients/drive.py");
    let said = run(Command::new(folder.join("py/bin/python")).arg(drive).arg(&client).args([&server.url(), ADMIN_KEY]));
    assert!(said.contains("driven"), "{said}");
}

#[test]
fn typescript_made_of_the_description_is_strict_and_works() {
    let Some(folder) = generators() else { return };
    // Inside, so that modules are found.
    let made = tempfile::tempdir_in(&folder).expect("a folder");
    let tool = |name: &str| Command::new(folder.join("node_modules/.bin").join(name));
    run(tool("openapi-typescript").arg(root().join("docs/openapi.json")).arg("-o").arg(made.path().join("api.ts")));
    std::fs::copy(root().join("scripts/clients/drive.ts"), made.path().join("drive.ts")).expect("copied");
    std::fs::write(made.path().join("package.json"), "{\"type\":\"module\"}").expect("written");
    run(tool("tsc").current_dir(made.path()).args([
        "--strict",
        "--noUncheckedIndexedAccess",
        "--target",
        "es2022",
        "--module",
        "nodenext",
        "--moduleResolution",
        "nodenext",
        "--types",
        "node",
        "--skipLibCheck",
        "drive.ts",
    ]));
    let server = Server::start();
    let said = run(Command::new("node").current_dir(made.path()).arg("drive.js").args([&server.url(), ADMIN_KEY]));
    assert!(said.contains("driven"), "{said}");
}

#[test]
fn a_linter_finds_no_error_in_the_description() {
    let Some(folder) = generators() else { return };
    let document = root().join("docs/openapi.json");
    let mut lint = Command::new(folder.join("node_modules/.bin/redocly"));
    let said = run(lint.current_dir(&folder).arg("lint").arg(document).args(["--format", "summary"]));
    assert!(said.contains("description is valid"), "{said}");
}
