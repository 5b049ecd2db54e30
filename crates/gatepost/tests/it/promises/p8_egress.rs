//! P8: no request of ours reaches an address outside the egress policy; redirects are not followed.

use gatepost_testkit::{Cert, Receiver, Script, Signer, TestCa};
use serde_json::{Value, json};

use crate::harness::{Options, Server, receiver, text, webhook_body};

/// Spellings of addresses that must not be called, and of nothing at all.
const REFUSED: [&str; 74] = [
    // Loopback, in every spelling a lenient parser would take.
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://0x7f.0x0.0x0.0x1/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://127.0.0.01/",
    "https://127.0.0.1./",
    "https://127。0。0。1/",
    "https://１２７.0.0.1/",
    "https://①②⑦.0.0.1/",
    "https://%31%32%37.0.0.1/",
    "https://localhost/",
    "https://LOCALHOST/",
    "https://localhost./",
    "https://a.localhost/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::1%25lo]/",
    "https://[::1%lo]/",
    "https://[::]/",
    "https://0.0.0.0/",
    "https://0/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[::ffff:0:127.0.0.1]/",
    // Private, shared, link-local, metadata.
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://168.63.129.16/",
    "https://[fd00:ec2::254]/",
    "https://[fe80::1]/",
    "https://[fc00::1]/",
    "https://[fec0::1]/",
    "https://[::ffff:10.0.0.1]/",
    // Documentation, benchmarking, multicast, reserved, broadcast.
    "https://192.0.0.1/",
    "https://192.0.2.1/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://198.51.100.1/",
    "https://203.0.113.1/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[ff02::1]/",
    "https://[2001:db8::1]/",
    "https://[3fff::1]/",
    "https://[5f00::1]/",
    // IPv4 wrapped into IPv6.
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::1]/",
    "https://[2001::1]/",
    "https://[100::1]/",
    // Not something to call at all.
    "https://user:password@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/#fragment",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://exa mple.com/",
    "https://example.com/\r\nX-Injected: 1",
    "https:///path",
    "ftp://example.com/",
    "file:///etc/passwd",
    "//example.com/",
    "",
];

fn refused(server: &Server, url: &str) -> Result<(), String> {
    let reply = server.post("/v1/tenants/acme/webhooks", webhook_body(url, json!({})));
    if reply.status != 422 {
        return Err(format!("{url:?} was answered {reply:?}"));
    }
    let pointers = reply.pointers();
    if pointers != ["/url"] { Err(format!("{url:?} is blamed on {pointers:?}")) } else { Ok(()) }
}

#[test]
fn p8_no_spelling_of_an_inner_address_is_taken() {
    let server = Server::with(Options::default().without("GATEPOST_ALLOW_NETS"));
    server.create_tenant("acme");
    let wrong: Vec<String> = REFUSED.iter().filter_map(|url| refused(&server, url).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Nor is plain http, to wherever.
    for url in ["http://example.com/", "http://93.184.216.34/", "HTTP://example.com/"] {
        refused(&server, url).unwrap();
    }
    // Public ones are taken, the odd but correct spelling included.
    for url in [
        "https://example.com/",
        "https://EXAMPLE.com:8443/a?b=c",
        "https://93.184.216.34/",
        "https://[2606:4700::1111]/",
    ] {
        server.webhook("acme", url, json!({}));
    }
    // A change goes through the same gate.
    let hook = text(&server.all("/v1/tenants/acme/webhooks")[0], "id");
    for url in ["https://127.0.0.1/", "http://example.com/", "https://0x7f.1/"] {
        let reply = server.patch(&format!("/v1/tenants/acme/webhooks/{hook}"), json!({"url": url})).expect(422);
        assert_eq!(reply.pointers(), ["/url"]);
    }
}

#[test]
fn p8_allowed_networks_are_allowed_and_no_more() {
    let server = Server::with(Options::default().env("GATEPOST_ALLOW_NETS", "127.0.0.0/8,10.1.0.0/16"));
    server.create_tenant("acme");
    for url in [
        "https://127.0.0.1/",
        "http://127.0.0.1:81/",
        "http://10.1.2.3/",
        "https://10.1.255.255:1/",
        "http://intranet.example/",
    ] {
        server.webhook("acme", url, json!({}));
    }
    for url in [
        "http://10.2.0.1/",
        "https://10.2.0.1/",
        "https://[::1]/",
        "https://192.168.0.1/",
        "http://93.184.216.34/",
        "http://0x7f.1/",
    ] {
        refused(&server, url).unwrap();
    }
}

/// The only attempt of an event's only delivery, once that has failed for good.
fn blocked(server: &Server, event: &str) -> Value {
    let view = server.wait_event("acme", event, "failed");
    assert_eq!((&view["reason"], &view["attempts"]), (&json!("rejected"), &json!(1)), "{view:#}");
    view["attempt_list"][0].clone()
}

#[test]
fn p8_what_is_no_longer_allowed_is_refused_at_every_connect() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let inbox = receiver();
    let hook = server.webhook("acme", &inbox.url("/"), json!({"name": "literal"}));
    let event = server.publish("acme", "user.created", json!({}));
    server.wait_event("acme", &event, "delivered");
    // The network is closed again: the webhook is there still, its address is not reached any more.
    let closed = Options::default().without("GATEPOST_ALLOW_NETS");
    server.restart_with(closed.clone());
    let event = server.publish("acme", "user.created", json!({}));
    let attempt = blocked(&server, &event);
    assert_eq!((&attempt["outcome"], &attempt["status"]), (&json!("blocked_address"), &json!(null)));
    assert!(!attempt["error"].as_str().unwrap().contains("127.0.0"), "{attempt:#}");
    // Neither for a test.
    let tested = server.post(&format!("/v1/tenants/acme/webhooks/{hook}/test"), json!({})).expect(200).json();
    assert_eq!((&tested["delivered"], &tested["status"]), (&json!(false), &json!(null)), "{tested:#}");
    // Other networks do not help, and neither does TLS.
    server.restart_with(Options::default().env("GATEPOST_ALLOW_NETS", "10.0.0.0/8"));
    let event = server.publish("acme", "user.created", json!({}));
    assert_eq!(blocked(&server, &event)["outcome"], "blocked_address");
    assert_eq!(inbox.connections(), 1);
    // A tenant to which it is opened alone reaches it.
    server.put("/v1/tenants/acme", json!({"settings": {"allow_nets": ["127.0.0.1/32"]}})).expect(200);
    let event = server.publish("acme", "user.created", json!({}));
    server.wait_event("acme", &event, "delivered");
    server.create_tenant("other");
    let reply = server.post("/v1/tenants/other/webhooks", webhook_body(&inbox.url("/"), json!({}))).expect(422);
    assert_eq!(reply.pointers(), ["/url"]);
}

#[test]
fn p8_redirects_are_not_followed() {
    let server = Server::start();
    server.create_tenant("acme");
    let (inbox, elsewhere) = (receiver(), receiver());
    server.webhook("acme", &inbox.url("/"), json!({"retry": {"waits": []}}));
    for status in [301, 302, 303, 307, 308] {
        inbox.script(Script::status(status).header("location", elsewhere.url("/caught")));
        let event = server.publish("acme", "user.created", json!({}));
        let view = server.wait_event("acme", &event, "failed");
        let attempt = &view["attempt_list"][0];
        assert_eq!((&attempt["outcome"], &attempt["status"]), (&json!("http_status"), &json!(status)));
    }
    assert_eq!((inbox.count(), elsewhere.connections()), (5, 0));
}

#[test]
fn p8_our_own_address_is_never_a_target() {
    let mut server = Server::start();
    server.create_tenant("acme");
    let port = server.addr().port();
    for url in [format!("http://127.0.0.1:{port}/v1/tenants"), format!("http://127.0.0.1:{port}/")] {
        refused(&server, &url).unwrap();
    }
    // Registered while the address was somebody else's, ours from the restart on.
    let other = receiver();
    let addr = other.addr();
    server.webhook("acme", &other.url("/healthz"), json!({}));
    drop(other);
    server.restart_with(Options::default().env("GATEPOST_LISTEN", addr));
    assert_eq!(server.addr(), addr);
    let event = server.publish("acme", "user.created", json!({}));
    assert_eq!(blocked(&server, &event)["outcome"], "blocked_address");
    // Listening on every address of the machine, each of them is ours.
    server.restart_with(Options::default().env("GATEPOST_LISTEN", format!("0.0.0.0:{}", addr.port())));
    let mut local = crate::harness::Client::new(addr, crate::harness::ADMIN_KEY);
    let url = format!("http://127.0.0.1:{}/", addr.port());
    let reply = local.post("/v1/tenants/acme/webhooks", webhook_body(&url, json!({})));
    assert_eq!(reply.status, 422, "{reply:?}");
}

#[test]
fn p8_tls_is_checked_against_the_systems_and_the_extra_authorities() {
    let ca = TestCa::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), ca.pem()).unwrap();
    let trusting = Options::default().env("GATEPOST_EXTRA_CA", file.path().display());
    let mut server = Server::with(trusting);
    server.create_tenant("acme");
    let good = Receiver::builder().tls(&ca, Cert::Good).start_on_thread();
    let h2 = Receiver::builder().h2(&ca).start_on_thread();
    let by_address = Receiver::builder().tls_as(&ca, Cert::Good, &["127.0.0.1"], false).start_on_thread();
    let bad: Vec<Receiver> = [Cert::Expired, Cert::NotYetValid, Cert::WrongName, Cert::SelfSigned]
        .into_iter()
        .map(|cert| Receiver::builder().tls(&ca, cert).start_on_thread())
        .collect();
    let taken = [&good, &h2, &by_address].map(|r| server.webhook("acme", &r.url("/"), json!({"retry": {"waits": []}})));
    for receiver in &bad {
        server.webhook("acme", &receiver.url("/"), json!({"retry": {"waits": []}}));
    }
    let outcomes = |server: &Server| {
        let event = server.publish("acme", "user.created", json!({}));
        server.wait_settled("acme");
        let rows = server.deliveries_of("acme", &event);
        assert_eq!(rows.len(), 7);
        rows.into_iter()
            .map(|row| {
                let view = server.delivery("acme", &text(&row, "id"));
                (text(&view, "webhook_id"), text(&view["attempt_list"][0], "outcome"))
            })
            .collect::<Vec<_>>()
    };
    for (hook, outcome) in outcomes(&server) {
        assert_eq!(outcome == "ok", taken.contains(&hook), "{hook}: {outcome}");
        assert!(outcome == "ok" || outcome == "tls", "{hook}: {outcome}");
    }
    assert_eq!(h2.received()[0].version, "HTTP/2");
    assert_eq!(good.received()[0].version, "HTTP/1.1");
    assert!(bad.iter().all(|receiver| receiver.count() == 0));
    // Without the extra authority nobody here is trusted.
    server.restart_with(Options::default());
    assert!(outcomes(&server).iter().all(|(_, outcome)| outcome == "tls"));
    assert_eq!([&good, &h2, &by_address].map(Receiver::count), [1, 1, 1]);
}

#[test]
fn p8_a_certificate_in_the_extra_file_is_trusted_for_its_names_alone() {
    let ca = TestCa::new();
    let all = [Signer::ItselfAsAuthority, Signer::Itself, Signer::Authority].map(|signer| (signer, Cert::Good));
    let bad = [(Signer::ItselfAsAuthority, Cert::Expired), (Signer::ItselfAsAuthority, Cert::WrongName)];
    let (mut pems, mut receivers) = (String::new(), Vec::new());
    for (signer, cert) in all.into_iter().chain(bad) {
        let (pem, config) = ca.known_by_itself(signer, cert, &["127.0.0.1"]);
        pems.push_str(&pem);
        receivers.push(Receiver::builder().tls_config(config).start_on_thread());
    }
    // What openssl itself makes of a plain `req -x509`, when it is there.
    if let Some((pem, config)) = TestCa::made_by_openssl("127.0.0.1") {
        pems.push_str(&pem);
        receivers.insert(0, Receiver::builder().tls_config(config).start_on_thread());
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), pems).unwrap();
    let server = Server::with(Options::default().env("GATEPOST_EXTRA_CA", file.path().display()));
    server.create_tenant("acme");
    let expired = receivers.len() - 2;
    for (at, receiver) in receivers.iter().enumerate() {
        let name = format!("to.{at}");
        server.webhook("acme", &receiver.url("/"), json!({"retry": {"waits": []}, "events": [name]}));
        let event = server.publish("acme", &name, json!({}));
        if at < expired {
            server.wait_event("acme", &event, "delivered");
            assert_eq!(receiver.count(), 1);
        } else {
            let failed = &server.wait_event("acme", &event, "failed")["attempt_list"][0];
            assert_eq!(failed["outcome"], "tls", "{failed:#}");
            let words = if at == expired { "has expired: renew it" } else { "another host name: add this one" };
            assert!(text(failed, "error").contains(words), "{failed:#}");
            assert_eq!(receiver.count(), 0);
        }
    }
}

#[test]
fn p8_proxies_of_the_environment_are_not_used() {
    let proxy = receiver();
    let inbox = receiver();
    let options = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
        .into_iter()
        .fold(Options::default(), |options, name| options.env(name, proxy.url("")));
    let server = Server::with(options);
    server.create_tenant("acme");
    server.webhook("acme", &inbox.url("/"), json!({}));
    let event = server.publish("acme", "user.created", json!({}));
    server.wait_event("acme", &event, "delivered");
    assert_eq!((inbox.count(), proxy.connections()), (1, 0));
}
