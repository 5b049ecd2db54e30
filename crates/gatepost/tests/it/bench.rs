//! `gatepost bench`: the command measures the program it is, and says what went wrong.

use serde_json::Value;

use crate::harness::run;

#[test]
fn it_measures_this_program_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["bench", "one-to-one", "--rounds", "1", "--seconds", "1", "--count", "100", "--json", "--dir", "."];
    let ran = run(folder.path(), &args, &[]).expect(0);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["problems"], serde_json::json!([]));
    let figure = |scenario: &str, name: &str| {
        let figures = report["figures"].as_array().unwrap();
        let found = figures.iter().find(|figure| figure["scenario"] == scenario && figure["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} of {scenario} in {report}"))["value"].as_f64().unwrap()
    };
    // What they are is this machine's affair.
    assert!(figure("one-to-one", "deliveries") > 0.0);
    assert!(figure("raw", "C: requests/s, 64 connections") > 0.0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_could_not_be_measured_is_said_and_is_exit_code_1() {
    let folder = tempfile::tempdir().unwrap();
    let ran = run(folder.path(), &["bench", "hooks", "--rounds", "1", "--program", "./no-such-program"], &[]).expect(1);
    assert!(ran.stdout.contains("PROBLEM: hooks: could not be measured: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("no-such-program cannot be started"), "{}", ran.stdout);
    assert!(ran.stderr.contains("error: 1 problem while measuring"), "{}", ran.stderr);
}
