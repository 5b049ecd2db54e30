//! `gatepost apply` and `gatepost export`, through the binary.

use serde_json::{Value, json};

use crate::harness::{ADMIN_KEY, Ran, Server, receiver, run, text, verify};

const SETUP: &str = r#"
tenant = "acme"

[[event_types]]
name = "order.placed"
description = "An order"
urgency = "bulk"
example = { json = '{"n":1.50,"note":null}' }
[event_types.schema]
type = "object"
required = ["n"]

[[webhooks]]
name = "orders"
url = "http://127.0.0.1:9/orders"
events = ["order.*"]
filter = "data.n > 0.0"
secret = { env = "ORDERS_SECRET" }
timeout_ms = 2000
headers = { x-api-key = { env = "ORDERS_X_API_KEY" }, "X-Plain" = "plain" }
retry = { waits = [0.5, 5], jitter = 0 }

[[webhooks]]
name = "audit"
url = "http://127.0.0.1:9/audit"
events = ["*"]
auth = { type = "basic", username = "u", password = { env = "AUDIT_PASSWORD" } }
enabled = false
"#;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const OTHER_SECRET: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDI=";

const ENV: [(&str, &str); 4] = [
    ("ORDERS_SECRET", SECRET),
    ("ORDERS_X_API_KEY", "hidden-key-771"),
    ("AUDIT_PASSWORD", "hidden-password-772"),
    ("ORDERS_X_PLAIN", "plain"),
];

fn file(server: &Server, name: &str, content: &str) -> String {
    let path = server.folder().join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

fn with_env(server: &Server, args: &[&str], env: &[(&str, &str)]) -> Ran {
    let url = server.url();
    let all: Vec<(&str, &str)> =
        [("GATEPOST_URL", url.as_str()), ("GATEPOST_KEY", ADMIN_KEY)].into_iter().chain(env.iter().copied()).collect();
    run(server.folder(), args, &all)
}

fn apply(server: &Server, args: &[&str]) -> Ran {
    with_env(server, &[&["apply"][..], args].concat(), &ENV)
}

/// An export without what only this tenant has: its id.
fn of(export: &str, tenant: &str) -> String {
    export.replace(&format!("\"{tenant}\""), "\"?\"")
}

fn webhooks(server: &Server, tenant: &str) -> Vec<Value> {
    let mut rows = server.all(&format!("/v1/tenants/{tenant}/webhooks"));
    rows.sort_by_key(|row| text(row, "name"));
    rows
}

#[test]
fn a_setup_is_planned_made_and_then_as_declared() {
    let server = Server::start();
    server.create_tenant("acme");
    let path = file(&server, "setup.toml", SETUP);
    let plan = apply(&server, &[&path, "--plan"]).expect(3);
    for line in ["+ webhook orders", "+ webhook audit", "+ event type order.placed", "3 to create", "timeout_ms: 2000"]
    {
        assert!(plan.stdout.contains(line), "{line} is not in {}", plan.stdout);
    }
    assert!(!plan.stdout.contains("hidden") && !plan.stdout.contains("whsec_"), "{}", plan.stdout);
    assert!(webhooks(&server, "acme").is_empty(), "a plan made something");

    let ran = apply(&server, &[&path, "--json"]).expect(0);
    let done = ran.json();
    assert_eq!((&done["create"], &done["unchanged"]), (&json!(3), &json!(0)));
    assert!(done["changes"].as_array().unwrap().iter().all(|change| change["applied"] == true), "{done:#}");
    assert!(!ran.stdout.contains("hidden") && !ran.stdout.contains(SECRET), "{}", ran.stdout);
    // A secret that was made is told this once, one that was given is not.
    let told: Vec<_> = done["changes"].as_array().unwrap().iter().map(|change| change["secret"].is_string()).collect();
    assert_eq!(told, [false, false, true]);
    let rows = webhooks(&server, "acme");
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["enabled"], &rows[1]["timeout_ms"]), (&json!(false), &json!(2_000)));
    assert_eq!(rows[1]["headers"], json!({"x-api-key": "***", "X-Plain": "***"}));
    let types = server.get("/v1/event-types/order.placed?tenant=acme").expect(200);
    assert!(types.text().contains(r#"{"n":1.50,"note":null}"#), "{types:?}");
    // The schema counts.
    server
        .post("/v1/tenants/acme/events", json!({"type": "order.placed", "data": {}}))
        .expect_problem(422, "validation_failed");

    let again = apply(&server, &[&path]).expect(0);
    assert!(again.stdout.contains("no changes"), "{}", again.stdout);
    assert_eq!(webhooks(&server, "acme"), rows, "a second run touched something");
    let again = apply(&server, &[&path, "--json"]).expect(0).json();
    assert_eq!((&again["changes"], &again["unchanged"]), (&json!([]), &json!(3)));
}

#[test]
fn what_differs_is_shown_and_changed_and_nothing_else() {
    let server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let setup = SETUP.replace("http://127.0.0.1:9/orders", &inbox.url("/orders"));
    let path = file(&server, "setup.toml", &setup);
    apply(&server, &[&path, "--yes"]).expect(0);
    let before = webhooks(&server, "acme");

    let changed = setup
        .replace("timeout_ms = 2000\n", "")
        .replace("jitter = 0", "gone = \"final\"")
        .replace("\"X-Plain\" = \"plain\"", "x-new = \"new\"")
        .replace("urgency = \"bulk\"", "urgency = \"urgent\"");
    let path = file(&server, "setup.toml", &changed);
    let env = [("ORDERS_SECRET", OTHER_SECRET), ("ORDERS_X_API_KEY", "hidden-key-773"), ENV[2]];
    let plan = with_env(&server, &["apply", &path, "--plan"], &env).expect(3).stdout;
    for line in [
        "~ webhook orders",
        "timeout_ms: 2000 -> (cleared)",
        "retry.gone: \"final\"",
        "retry.jitter: 0",
        "headers.X-Plain: \"***\" -> (cleared)",
        "headers.x-new: (another value)",
        "headers.x-api-key: (another value)",
        "secret: (another one",
        "~ event type order.placed",
        "urgency: \"bulk\" -> \"urgent\"",
        "0 to create, 2 to change, 0 to delete, 1 as declared",
    ] {
        assert!(plan.contains(line), "{line} is not in {plan}");
    }
    assert!(!plan.contains("hidden") && !plan.contains("whsec"), "{plan}");
    with_env(&server, &["apply", &path], &env).expect(0);
    let rows = webhooks(&server, "acme");
    assert_eq!(rows[0], before[0], "what is as declared was touched");
    assert_eq!(rows[1]["id"], before[1]["id"]);
    assert_eq!((&rows[1]["timeout_ms"], &rows[1]["retry"]["jitter"]), (&Value::Null, &Value::Null));
    let again = with_env(&server, &["apply", &path], &env).expect(0);
    assert!(again.stdout.contains("no changes"), "{}", again.stdout);
    // The new values are the ones used.
    server.publish("acme", "order.placed", json!({"n": 1.5}));
    let request = inbox.wait_for_blocking(1).remove(0);
    assert_eq!((request.header("x-api-key"), request.header("x-new")), (Some("hidden-key-773"), Some("new")));
    assert_eq!(request.header("x-plain"), None);
    verify(OTHER_SECRET, &request);
    verify(SECRET, &request);
    // What Gatepost or a person switched off stays off: the file says nothing about it.
    let id = text(&rows[1], "id");
    server.patch(&format!("/v1/tenants/acme/webhooks/{id}"), json!({"enabled": false})).expect(200);
    let again = with_env(&server, &["apply", &path], &env).expect(0);
    assert!(again.stdout.contains("no changes"), "{}", again.stdout);
}

#[test]
fn nothing_is_applied_if_anything_is_wrong_and_every_error_has_its_place() {
    let server = Server::start();
    server.create_tenant("acme");
    let wrong = "[[event_types]]\nname = \"order.placed\"\nurgency = \"soon\"\n\n[[webhooks]]\nname = \"good\"\n\
                 url = \"http://127.0.0.1:9/\"\nevents = [\"*\"]\n\n[[webhooks]]\nname = \"bad\"\n\
                 events = [\"a.b\", \"x*\"]\ncolour = \"red\"\nretry = { waits = [-1] }\n";
    let path = file(&server, "wrong.toml", wrong);
    let ran = apply(&server, &[&path, "--tenant", "acme", "--yes"]).expect(1);
    for place in [
        "wrong.toml:3:1: event type order.placed, urgency",
        "wrong.toml:10:1: webhook bad, url: is required",
        "wrong.toml:12:18: webhook bad, events.1",
        "wrong.toml:13:1: webhook bad, colour: unknown member",
        "wrong.toml:14:20: webhook bad, retry.waits.0",
    ] {
        assert!(ran.stderr.contains(place), "{place} is not in:\n{}", ran.stderr);
    }
    assert!(webhooks(&server, "acme").is_empty() && ran.stdout.is_empty(), "{}", ran.stdout);
    server.get("/v1/event-types/order.placed?tenant=acme").expect(404);

    // What can be known without the server is told before it is asked.
    let path = file(
        &server,
        "odd.json",
        "{\n  \"webhook\": [],\n  \"webhooks\": [{\"name\": \"a\", \"secret\": {\"env\": \"UNSET_42\"}}]\n}",
    );
    let ran =
        run(server.folder(), &["apply", &path, "--tenant", "acme", "--url", "http://127.0.0.1:1", "--key", "k"], &[])
            .expect(1);
    assert!(
        ran.stderr.contains("odd.json:2:") && ran.stderr.contains("odd.json:3:") && ran.stderr.contains("UNSET_42"),
        "{}",
        ran.stderr
    );
    // Two of one name are one too many, in the file and at the server.
    let path = file(&server, "twice.toml", "[[webhooks]]\nname = 'a'\n[[webhooks]]\nname = 'a'\n");
    let ran = apply(&server, &[&path, "--tenant", "acme"]).expect(1);
    assert!(ran.stderr.contains("twice.toml:4:") && ran.stderr.contains("line 2"), "{}", ran.stderr);
    for _ in 0..2 {
        server.webhook("acme", "http://127.0.0.1:9/", json!({"name": "twin"}));
    }
    let path = file(&server, "twin.toml", "[[webhooks]]\nname = 'twin'\nurl = 'http://127.0.0.1:9/'\nevents = ['*']\n");
    let ran = apply(&server, &[&path, "--tenant", "acme"]).expect(1);
    assert!(ran.stderr.contains("twin.toml:2:1: 2 webhooks"), "{}", ran.stderr);
    // A profile is fixed.
    let path = file(&server, "profile.toml", "[[webhooks]]\nname = 'p'\nurl = 'http://127.0.0.1:9/'\nevents = ['*']\n");
    apply(&server, &[&path, "--tenant", "acme"]).expect(0);
    let path = file(
        &server,
        "profile.toml",
        "[[webhooks]]\nname = 'p'\nprofile = 'cloudevents'\nurl = 'http://127.0.0.1:9/'\nevents = ['*']\n",
    );
    let ran = apply(&server, &[&path, "--tenant", "acme"]).expect(1);
    assert!(ran.stderr.contains("profile.toml:3:1") && ran.stderr.contains("fixed at creation"), "{}", ran.stderr);
    let usage = apply(&server, &[&path]).expect(2);
    assert!(usage.stderr.contains("--tenant"), "{}", usage.stderr);
}

#[test]
fn pruning_deletes_what_the_file_does_not_have_and_only_when_told_to() {
    let server = Server::start();
    server.create_tenant("acme");
    let path = file(&server, "setup.toml", SETUP);
    apply(&server, &[&path]).expect(0);
    server.webhook("acme", "http://127.0.0.1:9/", json!({"name": "stray"}));
    let kept = apply(&server, &[&path]).expect(0);
    assert!(kept.stdout.contains("no changes"), "{}", kept.stdout);
    let asked = apply(&server, &[&path, "--prune"]).expect(2);
    assert!(asked.stdout.contains("- webhook stray") && asked.stderr.contains("--yes"), "{}", asked.stderr);
    assert_eq!(webhooks(&server, "acme").len(), 3);
    apply(&server, &[&path, "--prune", "--yes"]).expect(0);
    assert_eq!(webhooks(&server, "acme").len(), 2);
    // A file that says nothing of event types leaves them alone.
    let only = file(&server, "only.toml", "webhooks = []\n");
    apply(&server, &[&only, "--tenant", "acme", "--prune", "--yes"]).expect(0);
    assert!(webhooks(&server, "acme").is_empty());
    server.get("/v1/event-types/order.placed?tenant=acme").expect(200);
    let none = file(&server, "none.toml", "event_types = []\n");
    apply(&server, &[&none, "--tenant", "acme", "--prune", "--yes"]).expect(0);
    server.get("/v1/event-types/order.placed?tenant=acme").expect(404);
}

#[test]
fn what_was_tried_in_a_sandbox_is_repeated_in_production() {
    let server = Server::start();
    for tenant in ["sandbox", "acme"] {
        server.create_tenant(tenant);
    }
    let path = file(&server, "setup.toml", SETUP);
    apply(&server, &[&path, "--tenant", "sandbox"]).expect(0);
    for format in ["toml", "json"] {
        let export =
            |tenant: &str| with_env(&server, &["export", "--tenant", tenant, "--format", format], &[]).expect(0);
        let first = export("sandbox");
        assert!(!first.stdout.contains("hidden") && !first.stdout.contains("whsec_") && !first.stdout.contains("***"));
        assert!(first.stderr.contains("ORDERS_SECRET") && first.stderr.contains("AUDIT_PASSWORD"), "{}", first.stderr);
        let path = file(&server, &format!("exported.{format}"), &first.stdout);
        let env: Vec<(&str, &str)> = ENV.into_iter().chain([("AUDIT_SECRET", OTHER_SECRET)]).collect();
        with_env(&server, &["apply", &path, "--tenant", "acme"], &env).expect(0);
        assert_eq!(of(&export("acme").stdout, "acme"), of(&first.stdout, "sandbox"));
        // The same names and values: nothing to do where it came from, but for the secret nobody knows.
        let back = with_env(&server, &["apply", &path, "--tenant", "acme"], &env).expect(0);
        assert!(back.stdout.contains("no changes"), "{}", back.stdout);
        with_env(&server, &["apply", &path, "--tenant", "acme", "--plan"], &env).expect(0);
    }
    // Without the signing secrets, new ones are made and told.
    server.create_tenant("other");
    let bare = with_env(&server, &["export", "--tenant", "sandbox", "--new-secrets"], &[]).expect(0).stdout;
    assert!(!bare.contains("_SECRET"), "{bare}");
    let path = file(&server, "bare.toml", &bare);
    let made = with_env(&server, &["apply", &path, "--tenant", "other"], &ENV).expect(0).stdout;
    assert_eq!(made.matches("whsec_").count(), 2, "{made}");
}

#[test]
fn hooks_are_declared_like_webhooks() {
    let server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    let setup = "[[hooks]]\nname = 'veto'\npoint = 'preCreateUser'\nurl = 'http://127.0.0.1:9/veto'\norder = 7\n\
                 secret = { env = 'VETO_SECRET' }\nheaders = { x-k = { env = 'VETO_X_K' } }\n";
    let env = [("VETO_SECRET", SECRET), ("VETO_X_K", "hidden-775")];
    let path = file(&server, "hooks.toml", setup);
    let made = with_env(&server, &["apply", &path, "--tenant", "acme"], &env).expect(0).stdout;
    assert!(
        made.contains("+ hook veto") && made.contains("order: 7") && made.contains("made hook veto (hook_"),
        "{made}"
    );
    assert!(!made.contains("hidden") && !made.contains("whsec"), "{made}");
    let again = with_env(&server, &["apply", &path, "--tenant", "acme"], &env).expect(0);
    assert!(again.stdout.contains("no changes"), "{}", again.stdout);
    let exported = with_env(&server, &["export", "--tenant", "acme"], &[]).expect(0).stdout;
    let copy = file(&server, "copy.toml", &exported);
    with_env(&server, &["apply", &copy, "--tenant", "other"], &env).expect(0);
    assert_eq!(
        of(&with_env(&server, &["export", "--tenant", "other"], &[]).expect(0).stdout, "other"),
        of(&exported, "acme")
    );
    // A change goes to the one there is.
    let id = text(&server.all("/v1/tenants/acme/hooks")[0], "id");
    let path = file(&server, "hooks.toml", &setup.replace("order = 7\n", "timeout_ms = 900\n"));
    let env = [("VETO_SECRET", OTHER_SECRET), ("VETO_X_K", "hidden-776")];
    let changed = with_env(&server, &["apply", &path, "--tenant", "acme"], &env).expect(0).stdout;
    for line in
        ["~ hook veto", "order: 7 -> (cleared)", "timeout_ms: 900", "headers.x-k: (another value)", "secret: (another"]
    {
        assert!(changed.contains(line), "{line} is not in {changed}");
    }
    let hooks = server.all("/v1/tenants/acme/hooks");
    assert_eq!((hooks.len(), text(&hooks[0], "id")), (1, id));
    assert_eq!((&hooks[0]["order"], &hooks[0]["timeout_ms"]), (&json!(100), &json!(900)));
    let again = with_env(&server, &["apply", &path, "--tenant", "acme"], &env).expect(0);
    assert!(again.stdout.contains("no changes"), "{}", again.stdout);
    let wrong = file(
        &server,
        "wrong.toml",
        "[[hooks]]\nname = 'x'\npoint = 'preCreateUser'\nurl = 'http://127.0.0.1:9/'\norder = 'first'\n",
    );
    let ran = with_env(&server, &["apply", &wrong, "--tenant", "acme"], &[]).expect(1);
    assert!(ran.stderr.contains("wrong.toml:5:1: hook x, order"), "{}", ran.stderr);
    let none = file(&server, "none.toml", "hooks = []\n");
    with_env(&server, &["apply", &none, "--tenant", "acme", "--prune", "--yes"], &[]).expect(0);
    assert!(server.all("/v1/tenants/acme/hooks").is_empty());
}

#[test]
fn a_setup_has_the_tenant_and_its_own_points_in_it() {
    let server = Server::start();
    let settings = json!({"strict_types": true, "quotas": {"webhooks": 7}, "retention": {"events_days": 9}});
    server.put("/v1/tenants/rich", json!({"name": "Rich", "environment": "sandbox", "settings": settings})).expect(201);
    let point = json!({"kind": "gate", "path": "badge", "max_total_ms": 700, "sample": {"object": {"a": null}},
        "on_failure": {"value": true}});
    server.put("/v1/tenants/rich/points/beforeBadge", point).expect(201);
    server.put("/v1/tenants/rich/points/validateUser", json!({"audit": "strict"})).expect(200);
    let hook = json!({"name": "H2", "point": "beforeBadge", "url": "http://127.0.0.1:9/", "mode": "observe"});
    server.post("/v1/tenants/rich/hooks", hook).expect(201);
    for (format, tenant) in [("toml", "rich2"), ("json", "rich3")] {
        let export = |tenant: &str| {
            let args = ["export", "--tenant", tenant, "--format", format, "--new-secrets"];
            with_env(&server, &args, &[]).expect(0).stdout
        };
        let first = export("rich");
        let path = file(&server, &format!("rich.{format}"), &first);
        let apply = |more: &[&str], code| {
            with_env(&server, &[&["apply", &path, "--tenant", tenant], more].concat(), &[]).expect(code)
        };
        // The tenant is made first, and with it everything else.
        let plan = apply(&["--plan"], 3).stdout;
        assert!(plan.contains(&format!("+ tenant {tenant}")) && plan.contains("\"strict_types\":true"), "{plan}");
        server.get(&format!("/v1/tenants/{tenant}")).expect(404);
        let made = apply(&["--json"], 0).json();
        assert_eq!(made["create"], json!(4), "tenant, points and hook: {made:#}");
        assert_eq!(made["update"], json!(0), "{made:#}");
        assert_eq!(of(&export(tenant), tenant), of(&first, "rich"));
        assert!(apply(&["--plan"], 0).stdout.contains("no changes"));
        // Another tenant's name and environment stay its own; a change of a point is one of its members.
        server.put(&format!("/v1/tenants/{tenant}"), json!({"name": "Own", "environment": "production"})).expect(200);
        apply(&["--plan"], 0);
        server.put(&format!("/v1/tenants/{tenant}/points/beforeBadge"), json!({"serial": true})).expect(200);
        server.put(&format!("/v1/tenants/{tenant}"), json!({"settings": {"strict_types": false}})).expect(200);
        let changed = apply(&["--yes"], 0).stdout;
        for line in [
            &format!("~ tenant {tenant}"),
            "settings.strict_types: true",
            "~ point beforeBadge",
            "serial: true -> (cleared)",
        ] {
            assert!(changed.contains(line), "{line} is not in {changed}");
        }
        assert_eq!(server.get(&format!("/v1/tenants/{tenant}/points/beforeBadge")).json()["serial"], false);
        assert_eq!(server.get(&format!("/v1/tenants/{tenant}")).json()["environment"], "production");
    }
    // What is wrong is told with its place, before anything is done.
    let wrong = "[tenant]\nid = 'rich'\n[tenant.settings]\nstrict_types = 1\n[[points]]\nname = 'beforeBadge'\nkind = 'value'\n";
    let path = file(&server, "wrong.toml", wrong);
    let told = with_env(&server, &["apply", &path], &[]).expect(1).stderr;
    assert!(told.contains("wrong.toml:4:") && told.contains("point beforeBadge, kind"), "{told}");
    let none = file(&server, "none.toml", "points = []\n");
    let refused = with_env(&server, &["apply", &none, "--tenant", "rich", "--prune", "--yes"], &[]).expect(1).stderr;
    assert!(refused.contains("point_in_use"), "{refused}");
}

#[test]
fn two_of_one_name_are_written_apart() {
    let server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    for path in ["first", "second"] {
        server.webhook("acme", &format!("http://127.0.0.1:9/{path}"), json!({"name": "twin"}));
    }
    let ran = with_env(&server, &["export", "--tenant", "acme", "--new-secrets"], &[]).expect(0);
    assert!(ran.stderr.contains("twin (2)"), "{}", ran.stderr);
    let path = file(&server, "twins.toml", &ran.stdout);
    with_env(&server, &["apply", &path, "--tenant", "other"], &[]).expect(0);
    let made = webhooks(&server, "other");
    let named: Vec<_> = made.iter().map(|row| (text(row, "name"), text(row, "url"))).collect();
    let expected = [("twin", "first"), ("twin (2)", "second")];
    let expected = expected.map(|(name, path)| (name.to_owned(), format!("http://127.0.0.1:9/{path}")));
    assert_eq!(named, expected, "who had the name first keeps it");
    with_env(&server, &["apply", &path, "--tenant", "other", "--plan"], &[]).expect(0);
}

#[test]
fn a_setup_is_the_business_of_those_who_manage_it() {
    let server = Server::start();
    for tenant in ["acme", "other"] {
        server.create_tenant(tenant);
    }
    server.webhook("acme", "http://127.0.0.1:9/", json!({"headers": {"x-k": "hidden-771"}}));
    let reader = server.create_key(&["read"], Some("acme"));
    let mut client = server.client_with(&reader);
    let page = client.get("/v1/tenants/acme/setup/webhooks").expect(200);
    assert!(
        page.json()["data"][0]["declaration"]["headers"] == json!({"x-k": "***"}) && !page.text().contains("hidden")
    );
    client.get("/v1/tenants/acme/setup/nothing").expect_problem(404, "not_found");
    client.post("/v1/tenants/acme/setup/plan", json!({})).expect_problem(403, "forbidden");
    client.get("/v1/tenants/other/setup/webhooks").expect_problem(404, "tenant_not_found");
    let manager = server.create_key(&["manage"], Some("acme"));
    let mut client = server.client_with(&manager);
    client.post("/v1/tenants/other/setup/plan", json!({})).expect_problem(404, "tenant_not_found");
    let answer = client.post("/v1/tenants/acme/setup/plan", json!({})).expect(200).json();
    assert_eq!(answer, json!({"tenant": null, "event_types": [], "points": [], "webhooks": [], "hooks": []}));
    // Another tenant's webhook is none.
    let foreign = server.webhook("other", "http://127.0.0.1:9/", json!({}));
    let body = json!({"webhooks": [{"id": foreign, "name": "x", "url": "http://127.0.0.1:9/", "events": ["*"]}], "hook": 1,
        "hooks": [{"id": "hook_1"}]});
    let pointers = client.post("/v1/tenants/acme/setup/plan", body).expect_problem(422, "validation_failed").pointers();
    assert_eq!(pointers, ["/hook", "/hooks/0/id", "/webhooks/0/id"]);
    // Pages go on.
    for n in 0..3 {
        server.webhook("acme", "http://127.0.0.1:9/", json!({"name": format!("w{n}")}));
    }
    let mut seen = 0;
    let mut path = "/v1/tenants/acme/setup/webhooks?limit=2".to_owned();
    loop {
        let page = client.get(&path).expect(200).json();
        seen += page["data"].as_array().unwrap().len();
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/tenants/acme/setup/webhooks?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, 4);
}
