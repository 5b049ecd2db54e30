//! `gatepost hooks`, and `trigger` of a type that is only asked.

use serde_json::{Value, json};

use super::{Stage, body, deny, question};
use crate::harness::{run_against, text};

#[test]
fn hooks_are_listed_and_tried() {
    let stage = Stage::new();
    let hook = stage.hook("Check-mobile", "validateUser", json!({}), body("{}"));
    let ran = run_against(&stage.server, &["hooks", "list", "--tenant", "acme"]);
    let listed = ran.expect(0).stdout;
    assert!(listed.contains("Check-mobile") && listed.contains(&hook) && listed.contains("enforce"), "{listed}");
    let ran = run_against(&stage.server, &["hooks", "list", "--tenant", "acme", "--json"]);
    let listed = ran.json();
    assert_eq!(text(&listed[0], "id"), hook);
    let ran = run_against(&stage.server, &["hooks", "try", &hook, "--tenant", "acme", "--sample"]);
    let tried = ran.expect(0).stdout;
    assert!(tried.contains("test passed") && tried.contains("the hook is verified"), "{tried}");
    stage.receiver.script_path("/Check-mobile", gatepost_testkit::Script::status(500));
    let ran = run_against(&stage.server, &["hooks", "try", &hook, "--tenant", "acme"]);
    let tried = ran.expect(1).stdout;
    assert!(tried.contains("status_5xx"), "{tried}");
}

#[test]
fn the_report_adds_up_what_hooks_on_trial_would_have_done() {
    let stage = Stage::new();
    stage.receiver.script_path("/t", deny("No"));
    stage.register(&stage.receiver.url("/t"), "validateUser", json!({"mode": "observe", "name": "On-trial"}));
    stage.trials(&stage.ask("validateUser", question()), 1);
    stage.receiver.script_path("/t", gatepost_testkit::Script::status(503));
    stage.trials(&stage.ask("validateUser", question()), 1);
    let ran = run_against(&stage.server, &["hooks", "observe-report", "--tenant", "acme", "--json"]);
    let report = ran.expect(0).json();
    let row = &report["hooks"][0];
    assert_eq!(
        (&report["invocations"], &row["asked"], &row["deny"], &row["fail_closed"]),
        (&json!(2), &json!(2), &json!(1), &json!(1))
    );
    assert_eq!(row["failures"], json!({"status_5xx": 1}));
    let ran = run_against(&stage.server, &["hooks", "observe-report", "--tenant", "acme"]);
    let report = ran.expect(0).stdout;
    assert!(report.contains("2 invocations") && report.contains("On-trial"), "{report}");
}

#[test]
fn triggering_a_type_that_is_only_asked_invokes_its_point() {
    let stage = Stage::new();
    stage.hook("p", "changePassword", json!({}), body("{}"));
    let ran = run_against(&stage.server, &["trigger", "cymmetri.changePassword", "--tenant", "acme"]);
    let said = ran.expect(0).stdout;
    assert!(said.contains("invoked changePassword") && said.contains("allow"), "{said}");
    assert_eq!(stage.asked_at("/p").len(), 2);
    assert_eq!(stage.server.all("/v1/tenants/acme/events?type=cymmetri.changePassword"), Vec::<Value>::new());
}
