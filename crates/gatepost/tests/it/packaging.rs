//! What is shipped beside the binary fits it.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn the_unit_starts_what_there_is_with_settings_there_are() {
    let unit = read("packaging/gatepost.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/gatepost ")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("gatepost.toml");
    std::fs::write(&settings, read("packaging/gatepost.toml")).unwrap();
    // The settings file shipped is one that is read, and the command line one that is understood.
    let start = start.replace("/etc/gatepost/gatepost.toml", settings.to_str().unwrap());
    let mut args: Vec<&str> = start.split_whitespace().collect();
    assert_eq!(args.remove(0), "serve");
    let shown = crate::harness::run(folder.path(), &[&["config", "show", "--json"][..], &args].concat(), &[]).expect(0);
    assert!(shown.stdout.contains("gatepost.toml:"), "{}", shown.stdout);
    // Commands that are given the same file find the same folder.
    let data_dir = shown.json().as_array().unwrap().iter().find(|row| row["name"] == "data_dir").unwrap().clone();
    assert_eq!(data_dir["value"], "/var/lib/gatepost", "{data_dir}");
    assert!(!unit.contains("GATEPOST_DATA_DIR"), "the unit must not say it again");
    for line in
        ["NoNewPrivileges=yes", "ProtectSystem=strict", "DynamicUser=yes", "StateDirectory=gatepost", "UMask=0077"]
    {
        assert!(unit.lines().any(|l| l == line), "{line}");
    }
    let checked = Command::new("systemd-analyze").arg("verify").arg(root().join("packaging/gatepost.service")).output();
    let Ok(checked) = checked else {
        eprintln!("no systemd-analyze here: the unit is not verified");
        return;
    };
    let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
    let about_us =
        complaints.lines().filter(|line| line.contains("gatepost.service") && !line.contains("is not executable"));
    let about_us: Vec<_> = about_us.collect();
    assert!(about_us.is_empty(), "{about_us:?}");
}

#[test]
fn the_package_is_made_of_files_there_are() {
    let manifest: toml::Table = read("crates/gatepost/Cargo.toml").parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let folder = root().join("crates/gatepost");
    for asset in deb["assets"].as_array().unwrap() {
        let source = asset[0].as_str().unwrap();
        if source.starts_with("target/") {
            continue;
        }
        let fixed = folder.join(source.split('*').next().unwrap());
        assert!(fixed.exists(), "{source}");
    }
    let unit = folder.join(deb["systemd-units"]["unit-scripts"].as_str().unwrap()).join("gatepost.service");
    assert!(unit.exists(), "{}", unit.display());
    assert!(folder.join(deb["license-file"][0].as_str().unwrap()).exists());
    let conffile = deb["conf-files"][0].as_str().unwrap().trim_start_matches('/');
    assert!(deb["assets"].as_array().unwrap().iter().any(|asset| asset[1].as_str() == Some(conffile)), "{conffile}");
}

#[test]
fn the_image_runs_as_nobody_and_keeps_its_data() {
    let dockerfile = read("Dockerfile");
    let base = dockerfile.lines().find_map(|line| line.strip_prefix("FROM rust:")).unwrap();
    let wanted: toml::Table = read("Cargo.toml").parse().unwrap();
    let version = wanted["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(base.starts_with(version), "the image is built with {base}, the sources want {version}");
    for line in ["USER nonroot", "VOLUME [\"/data\"]", "CMD [\"serve\"]", "STOPSIGNAL SIGTERM"] {
        assert!(dockerfile.lines().any(|l| l == line), "{line}");
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("gatepost.toml"), read("packaging/container.toml")).unwrap();
    let shown = crate::harness::run(folder.path(), &["config", "show", "--json"], &[]).expect(0);
    assert!(shown.stdout.contains("\"/data\"") && shown.stdout.contains("0.0.0.0:8080"), "{}", shown.stdout);
    assert!(dockerfile.contains("packaging/container.toml") && !dockerfile.contains("GATEPOST_DATA_DIR"));
    let ignored = read(".dockerignore");
    assert!(ignored.lines().any(|line| line == "target"));
}
