//! What the sources themselves must keep (ARCHITECTURE.md): the arrows between crates, and the
//! invariants that are absences.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The most lines a file of ours may have.
const LINES: usize = 700;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file under `folder` with this extension, with its text.
fn sources(folder: &Path, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let name = part.as_os_str().to_string_lossy();
        name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs") || name.starts_with("tests_")
    })
}

/// The code of a file: without comments and without what follows its unit tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The code of a crate, file by file.
fn crate_code(name: &str) -> Vec<(PathBuf, String)> {
    let files = sources(&root().join("crates").join(name).join("src"), "rs");
    files.into_iter().filter(|(path, _)| !is_test(path)).map(|(path, text)| (path, code(&text))).collect()
}

#[test]
fn the_arrows_between_crates_are_those_of_the_architecture() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let shipped = package["dependencies"].as_array().unwrap().iter().filter(|d| d["kind"].is_null());
        let ours = shipped.filter_map(|d| d["name"].as_str()).filter(|n| n.starts_with("gatepost"));
        arrows.insert(name.to_owned(), ours.map(str::to_owned).collect());
    }
    let expected = [
        ("gatepost", &["gatepost-api", "gatepost-bench", "gatepost-core", "gatepost-engine", "gatepost-store"][..]),
        ("gatepost-api", &["gatepost-core", "gatepost-engine"]),
        ("gatepost-bench", &["gatepost-core", "gatepost-engine", "gatepost-store"]),
        ("gatepost-engine", &["gatepost-core", "gatepost-store"]),
        ("gatepost-store", &["gatepost-core"]),
        ("gatepost-core", &[]),
        ("gatepost-client", &[]),
        ("gatepost-receiver", &[]),
        ("gatepost-testkit", &["gatepost-core"]),
    ];
    let expected: BTreeMap<String, BTreeSet<String>> = expected
        .into_iter()
        .map(|(name, to)| (name.to_owned(), to.iter().map(|&to| to.to_owned()).collect()))
        .collect();
    assert_eq!(arrows, expected);
}

#[test]
fn engine_and_store_name_no_profile() {
    for name in ["gatepost-engine", "gatepost-store"] {
        for (path, code) in crate_code(name) {
            let lower = code.to_lowercase();
            for profile in ["cryptr", "okta", "ferriskey", "cymmetri"] {
                // Reserved header names are data about the wire, not about a system.
                let named = lower.lines().find(|l| l.contains(profile) && !l.contains(&format!("{profile}-")));
                assert!(named.is_none(), "{} names {profile}: {}", path.display(), named.unwrap_or_default());
            }
        }
    }
    for (path, text) in sources(&root().join("crates/gatepost-store/migrations"), "sql") {
        let lower = text.to_lowercase();
        assert!(!["cryptr", "okta", "ferriskey", "cymmetri"].iter().any(|p| lower.contains(p)), "{}", path.display());
    }
}

#[test]
fn core_does_no_io() {
    let banned = [
        "tokio",
        "std::fs",
        "std::net",
        "std::process",
        "std::env",
        "rusqlite",
        "hyper",
        "SystemTime::now",
        "Instant::now",
        "Timestamp::now",
        "thread::sleep",
        "rand::rng",
    ];
    for (path, code) in crate_code("gatepost-core") {
        for word in banned {
            // Addresses are values, not I/O.
            let code = code.replace("std::net::IpAddr", "").replace("std::net::SocketAddr", "");
            assert!(!code.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn the_crate_for_receivers_has_no_network_and_no_runtime() {
    for (path, code) in crate_code("gatepost-receiver") {
        for word in ["tokio", "std::net", "std::fs", "std::env", "std::thread", "hyper", "reqwest", "async_std"] {
            assert!(!code.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn nothing_but_net_opens_connections_and_nothing_but_the_store_speaks_sql() {
    for name in ["gatepost-core", "gatepost-store", "gatepost-engine", "gatepost-api", "gatepost-bench", "gatepost"] {
        for (path, code) in crate_code(name) {
            let within = |folder: &str| path.components().any(|part| part.as_os_str() == folder);
            // The benchmark is compared with a client that is not ours, and must have one.
            let may_connect = (name == "gatepost-engine" && within("net")) || name == "gatepost-bench";
            if !may_connect {
                for word in ["TcpStream::connect", "TcpSocket::new", "client::conn", "legacy::Client"] {
                    assert!(!code.contains(word), "{} has {word}", path.display());
                }
            }
            if name != "gatepost-store" {
                for word in ["rusqlite", "SELECT ", "INSERT INTO", "DELETE FROM"] {
                    assert!(!code.contains(word), "{} has {word}", path.display());
                }
            }
            if name == "gatepost-api" {
                assert!(!code.contains("gatepost_store"), "{} sees the store", path.display());
            }
        }
    }
}

#[test]
fn no_file_is_a_thicket_and_nothing_is_left_for_later() {
    // Put together here, so that this file does not have them.
    let later = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X:"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
    ];
    let silenced = [["#[all", "ow("].concat(), ["#![all", "ow("].concat(), ["#[ign", "ore"].concat()];
    // Folders of one machine, where they begin a text: in the middle of one they may be a JSON pointer.
    let paths = ["work", "root", "tmp", "home"].map(|folder| format!("\"/{folder}/"));
    for (path, text) in sources(&root().join("crates"), "rs") {
        let lines = text.lines().count();
        assert!(lines <= LINES, "{} has {lines} lines", path.display());
        for word in later.iter().chain(&silenced) {
            assert!(!text.contains(word.as_str()), "{} has {word}", path.display());
        }
        if !path.ends_with("architecture.rs") {
            for word in &paths {
                assert!(!text.contains(word.as_str()), "{} has {word}", path.display());
            }
        }
    }
}

#[test]
fn migrations_are_numbered_without_a_gap() {
    let folder = root().join("crates/gatepost-store/migrations");
    let mut numbers: Vec<u32> = sources(&folder, "sql")
        .iter()
        .map(|(path, _)| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let number =
                name.strip_prefix('V').and_then(|rest| rest.split_once("__")).map(|(number, _)| number.parse());
            number.and_then(Result::ok).unwrap_or_else(|| panic!("{name} is no migration's name"))
        })
        .collect();
    numbers.sort_unstable();
    assert!(!numbers.is_empty());
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u32), "{numbers:?}");
}

#[test]
fn every_crate_begins_with_its_contract() {
    for name in [
        "gatepost",
        "gatepost-api",
        "gatepost-bench",
        "gatepost-client",
        "gatepost-core",
        "gatepost-engine",
        "gatepost-receiver",
        "gatepost-store",
        "gatepost-testkit",
    ] {
        let text = std::fs::read_to_string(root().join("crates").join(name).join("src/lib.rs")).unwrap();
        assert!(text.starts_with(&format!("//! # {name}: ")), "{name}/src/lib.rs does not begin with its contract");
    }
}

#[test]
fn errors_and_routes_are_documented() {
    let openapi = std::fs::read_to_string(root().join("docs/openapi.json")).unwrap();
    let openapi: Value = serde_json::from_str(&openapi).unwrap();
    assert!(openapi["openapi"].as_str().unwrap().starts_with("3.1"));
    let errors = std::fs::read_to_string(root().join("docs/errors.md")).unwrap();
    for code in ["validation_failed", "store_unavailable", "event_id_conflict", "tenant_not_found"] {
        assert!(errors.contains(&format!("`{code}`")), "{code} is not in docs/errors.md");
    }
}
