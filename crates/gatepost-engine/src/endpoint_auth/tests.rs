//! Endpoint auth against real sockets: what arrives, how often tokens are asked for, and what is told
//! when there is none.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use gatepost_core::delivery::Outcome;
use gatepost_testkit::{Cert, ClosedPort, Gate, ManualClock, Receiver, Script, TestCa, TokenServer};
use http::Method;
use ipnet::IpNet;

use super::*;
use crate::net::{Client, ClientOptions, EgressPolicy, ScriptedResolver, Target};

const PATIENT: Duration = Duration::from_secs(20);

struct World {
    auth: EndpointAuth,
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
}

fn world() -> World {
    World::new(&["127.0.0.1/32"], None)
}

impl World {
    fn new(allow: &[&str], ca: Option<&TestCa>) -> World {
        let clock = Arc::new(ManualClock::default());
        let nets = allow.iter().map(|net| net.parse().unwrap()).collect();
        let client = Client::new(ClientOptions {
            policy: Arc::new(EgressPolicy::new(nets)),
            resolver: Arc::new(ScriptedResolver::new().name("localhost", &["127.0.0.1"])),
            clock: clock.clone(),
            user_agent: HeaderValue::from_static("Gatepost/test"),
            extra_ca_pem: ca.map(|ca| ca.pem().as_bytes().to_vec()),
        })
        .unwrap();
        let metrics = Metrics::new();
        let auth = EndpointAuth::new(Arc::new(client), clock.clone(), Arc::clone(&metrics));
        World { auth, clock, metrics }
    }

    async fn post(&self, receiver: &Receiver, auth: &Prepared) -> Exchange {
        self.post_with(receiver, auth, PATIENT, &[]).await
    }

    async fn post_with(&self, receiver: &Receiver, auth: &Prepared, timeout: Duration, nets: &[IpNet]) -> Exchange {
        let target = Target::parse(&receiver.url("/hook")).unwrap();
        let request = OutgoingRequest {
            target: &target,
            method: Method::POST,
            headers: [(HeaderName::from_static("webhook-id"), HeaderValue::from_static("evt_1"))].into(),
            title_case: false,
            body: Bytes::from_static(b"{}"),
            timeout,
            allow_nets: nets,
            identity: None,
            http1: false,
            fresh: false,
        };
        self.auth.send(Some(auth), request).await
    }

    async fn ok(&self, receiver: &Receiver, auth: &Prepared) {
        let exchange = self.post(receiver, auth).await;
        assert_eq!(exchange.outcome, Outcome::Ok, "{:?}", exchange.error);
    }
}

fn prepared(auth: Registered, secret: &str) -> Prepared {
    Prepared::new(TenantKey(1), &auth, &Secret::new(secret)).unwrap()
}

fn oauth2_of(tenant: i64, url: &str, secret: &str) -> Prepared {
    let auth = Registered::Oauth2 {
        token_url: url.to_owned(),
        client_id: "gatepost".to_owned(),
        scope: Some("hooks".to_owned()),
        audience: None,
    };
    Prepared::new(TenantKey(tenant), &auth, &Secret::new(secret)).unwrap()
}

fn oauth2(server: &TokenServer) -> Prepared {
    oauth2_of(1, &server.url(), "hush")
}

fn tokens_seen(receiver: &Receiver) -> Vec<String> {
    let bearer = |r: gatepost_testkit::Received| r.header("authorization").unwrap_or_default().to_owned();
    receiver.received().into_iter().map(bearer).collect()
}

#[tokio::test]
async fn simple_proofs_arrive_as_their_standards_say() {
    let (world, receiver) = (world(), Receiver::start());
    let cases = [
        (prepared(Registered::Bearer, "t0k"), "authorization", "Bearer t0k"),
        (
            prepared(Registered::Basic { username: "Aladdin".into() }, "open sesame"),
            "authorization",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
        (prepared(Registered::Basic { username: "test".into() }, "123£"), "authorization", "Basic dGVzdDoxMjPCow=="),
        (prepared(Registered::Header { name: "X-Api-Key".into() }, "k e y"), "x-api-key", "k e y"),
    ];
    for (auth, name, value) in cases {
        receiver.forget();
        world.ok(&receiver, &auth).await;
        let received = &receiver.received()[0];
        assert_eq!((received.header(name), received.header("webhook-id")), (Some(value), Some("evt_1")));
    }
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_until_shortly_before_it_expires() {
    let (world, receiver, server) = (world(), Receiver::start(), TokenServer::start());
    let auth = oauth2(&server);
    for _ in 0..3 {
        world.ok(&receiver, &auth).await;
    }
    assert_eq!((server.issued(), tokens_seen(&receiver)), (1, vec!["Bearer token-1".to_owned(); 3]));
    let asked = &server.received()[0];
    assert_eq!(asked.body, "grant_type=client_credentials&scope=hooks");
    assert_eq!(asked.header("authorization"), Some("Basic Z2F0ZXBvc3Q6aHVzaA=="));

    // Within its last minutes it is still used, and the next one is fetched beside.
    world.clock.advance(Duration::from_secs(3_400));
    receiver.forget();
    world.ok(&receiver, &auth).await;
    server.receiver().wait_for(2).await;
    assert_eq!(tokens_seen(&receiver), ["Bearer token-1"]);
    while tokens_seen(&receiver).last().is_some_and(|last| last == "Bearer token-1") {
        world.ok(&receiver, &auth).await;
    }
    assert_eq!((server.issued(), tokens_seen(&receiver).last().unwrap().as_str()), (2, "Bearer token-2"));

    // Past its end there is nothing to use: the request waits for the new one.
    world.clock.advance(Duration::from_secs(3_571));
    receiver.forget();
    world.ok(&receiver, &auth).await;
    assert_eq!((server.issued(), tokens_seen(&receiver)), (3, vec!["Bearer token-3".to_owned()]));
    assert!(world.metrics.text(&Default::default()).contains("oauth_token_fetches_total{outcome=\"ok\"} 3"));
}

#[tokio::test]
async fn a_token_without_life_is_used_once() {
    let (world, receiver, server) = (world(), Receiver::start(), TokenServer::start());
    server.lifetime(0);
    let auth = oauth2(&server);
    for _ in 0..2 {
        world.ok(&receiver, &auth).await;
    }
    assert_eq!(tokens_seen(&receiver), ["Bearer token-1", "Bearer token-2"]);
}

#[tokio::test]
async fn requests_at_once_share_one_fetch() {
    let (world, receiver, server) = (world(), Receiver::start(), TokenServer::start());
    let gate = Gate::new();
    server.receiver().next([Script::Hold(
        gate.clone(),
        Box::new(Script::status(200).body(r#"{"access_token":"shared","expires_in":60}"#)),
    )]);
    let auth = oauth2(&server);
    let requests = join_all((0..20).map(|_| world.post(&receiver, &auth)));
    let opening = async {
        server.receiver().wait_for(1).await;
        gate.open();
    };
    let (exchanges, ()) = tokio::join!(requests, opening);
    assert!(exchanges.iter().all(|exchange| exchange.outcome == Outcome::Ok));
    assert_eq!((server.received().len(), tokens_seen(&receiver)), (1, vec!["Bearer shared".to_owned(); 20]));
}

#[tokio::test]
async fn a_401_is_repeated_once_with_another_token() {
    let (world, receiver, server) = (world(), Receiver::start(), TokenServer::start());
    let auth = oauth2(&server);
    receiver.next([Script::status(401)]);
    world.ok(&receiver, &auth).await;
    assert_eq!(tokens_seen(&receiver), ["Bearer token-1", "Bearer token-2"]);
    let ids: Vec<_> =
        receiver.received().iter().map(|r| (r.header("webhook-id").map(str::to_owned), r.body.clone())).collect();
    assert_eq!(ids[0], ids[1], "it is the same attempt");

    // Refused with the new one too: that is the answer, and the token endpoint is left alone a while.
    receiver.forget();
    receiver.script(Script::status(401));
    let exchange = world.post(&receiver, &auth).await;
    assert_eq!((exchange.status, server.issued(), receiver.count()), (Some(401), 3, 2));
    for _ in 0..5 {
        assert_eq!(world.post(&receiver, &auth).await.status, Some(401));
    }
    assert_eq!((server.issued(), receiver.count()), (3, 7), "an endpoint cannot make us ask for tokens at will");
    world.clock.advance(Duration::from_secs(6));
    receiver.script(Script::status(204));
    receiver.next([Script::status(401)]);
    world.ok(&receiver, &auth).await;
    assert_eq!(server.issued(), 4);

    // Requests at once that meet the same 401 share the new token.
    receiver.forget();
    receiver.script(Script::with(|request| {
        let old = request.header("authorization") == Some("Bearer token-4");
        Script::status(if old { 401 } else { 204 })
    }));
    let exchanges = join_all((0..10).map(|_| world.post(&receiver, &auth))).await;
    assert!(exchanges.iter().all(|exchange| exchange.outcome == Outcome::Ok));
    assert_eq!(server.issued(), 5);
}

#[tokio::test]
async fn p7_without_a_token_the_attempt_fails_and_says_where() {
    let (world, receiver, server) = (world(), Receiver::start(), TokenServer::start());
    let refusal = |status, body: &'static str| Script::status(status).body(body);
    let url = server.url();
    let closed = ClosedPort::new();
    let cases: [(Script, Outcome, &str); 7] = [
        (
            refusal(401, r#"{"error":"invalid_client","error_description":"hush"}"#),
            Outcome::Connect,
            "it answered 401 (invalid_client)",
        ),
        (refusal(500, "hush"), Outcome::Connect, "it answered 500"),
        (refusal(200, "hush"), Outcome::Connect, "its answer is not JSON"),
        (Script::redirect("http://127.0.0.1:1/"), Outcome::Connect, "it answered 302"),
        (Script::Reset, Outcome::Reset, "it closed the connection"),
        (Script::Garbage, Outcome::Protocol, "what it sent is not HTTP"),
        (Script::Hang, Outcome::Timeout, "it did not answer within"),
    ];
    for (number, (script, outcome, text)) in cases.into_iter().enumerate() {
        server.receiver().script(script);
        // A client of its own each, so that what one case left behind is not the next one's.
        let auth = oauth2_of(number as i64, &url, "hush");
        let timeout = if outcome == Outcome::Timeout { Duration::from_millis(50) } else { PATIENT };
        let exchange = world.post_with(&receiver, &auth, timeout, &[]).await;
        let error = exchange.error.unwrap();
        assert_eq!((exchange.outcome, exchange.status, exchange.local_fault), (outcome, None, false), "{error}");
        let begin = format!("no token from the token endpoint {url}: ");
        assert!(error.starts_with(&begin) && error.contains(text) && !error.contains("hush"), "{error}");
        assert!(exchange.response.is_none());
    }
    let exchange = world.post(&receiver, &oauth2_of(1, &format!("http://{}/token", closed.addr()), "hush")).await;
    assert_eq!(exchange.outcome, Outcome::Connect);
    assert_eq!(receiver.count(), 0, "nothing was sent without its proof");
}

#[tokio::test]
async fn a_server_that_reads_the_form_only_is_asked_so_and_remembered() {
    let (world, receiver, server) = (world(), Receiver::start(), TokenServer::start());
    let refused = Script::status(401).body(r#"{"error":"invalid_client"}"#);
    server.lifetime(0);
    server.receiver().next([refused]);
    let auth = oauth2(&server);
    for _ in 0..2 {
        world.ok(&receiver, &auth).await;
    }
    let asked = server.received();
    let forms: Vec<_> = asked.iter().map(|r| r.header("authorization").is_none()).collect();
    assert_eq!(forms, [false, true, true]);
    assert_eq!(asked[1].body, "grant_type=client_credentials&scope=hooks&client_id=gatepost&client_secret=hush");
}

#[tokio::test]
async fn p8_a_token_endpoint_is_judged_like_any_other() {
    let receiver = Receiver::builder().bind(([127, 0, 0, 2], 0)).start();
    let server = TokenServer::of(Receiver::builder().bind(([127, 0, 0, 3], 0)), |builder| builder.start());
    let world = World::new(&["127.0.0.2/32"], None);
    let auth = oauth2(&server);
    let exchange = world.post(&receiver, &auth).await;
    assert_eq!(exchange.outcome, Outcome::BlockedAddress, "{:?}", exchange.error);
    assert!(exchange.error.unwrap().contains("token endpoint"));
    assert_eq!((server.received().len(), receiver.count()), (0, 0));
    // What is opened to the tenant is opened to its token endpoint.
    let nets: Vec<IpNet> = vec!["127.0.0.3/32".parse().unwrap()];
    let exchange = world.post_with(&receiver, &auth, PATIENT, &nets).await;
    assert_eq!((exchange.outcome, server.issued()), (Outcome::Ok, 1), "{:?}", exchange.error);
}

#[tokio::test]
async fn p5_tenants_share_no_token() {
    let (world, receiver, server) = (world(), Receiver::start(), TokenServer::start());
    for tenant in [1, 2, 1, 2] {
        world.ok(&receiver, &oauth2_of(tenant, &server.url(), "hush")).await;
    }
    let seen = tokens_seen(&receiver);
    assert_eq!(seen, ["Bearer token-1", "Bearer token-2", "Bearer token-1", "Bearer token-2"]);
    // A changed secret is another client.
    world.ok(&receiver, &oauth2_of(1, &server.url(), "changed")).await;
    assert_eq!(server.issued(), 3);
}

#[tokio::test]
async fn tokens_come_over_tls_with_the_extra_ca() {
    let ca = TestCa::new();
    let receiver = Receiver::start();
    let server = TokenServer::of(Receiver::builder().tls(&ca, Cert::Good), |builder| builder.start());
    let stranger = world();
    let exchange = stranger.post(&receiver, &oauth2(&server)).await;
    assert_eq!(exchange.outcome, Outcome::Tls, "{:?}", exchange.error);
    let world = World::new(&["127.0.0.1/32"], Some(&ca));
    world.ok(&receiver, &oauth2(&server)).await;
}

#[tokio::test]
async fn p10_grants_are_bounded() {
    let (world, receiver, server) = (world(), Receiver::start(), TokenServer::start());
    // Looked at from inside: thousands of real fetches would only take time.
    for number in 0..4_200 {
        let Kind::Token(grant) = &*oauth2_of(number, &server.url(), "hush").0 else { unreachable!() };
        world.auth.tokens.note_for_test(grant);
    }
    assert_eq!(world.auth.tokens.len_for_test(), 4_096);
    world.ok(&receiver, &oauth2(&server)).await;
    assert_eq!(world.auth.tokens.len_for_test(), 4_096);
}

mod mtls {
    use super::*;

    fn of(client: &gatepost_testkit::ClientCert) -> Prepared {
        prepared(Registered::Mtls { certificate: client.certificate.clone() }, &client.private_key)
    }

    #[tokio::test]
    async fn a_client_certificate_opens_the_door_and_nothing_else_does() {
        let (ca, other_ca) = (TestCa::new(), TestCa::new());
        for h2 in [false, true] {
            let receiver = Receiver::builder().mtls(&ca, h2).start();
            let world = World::new(&["127.0.0.1/32"], Some(&ca));
            let exchange = world.post(&receiver, &of(&other_ca.client("stranger"))).await;
            assert_eq!(exchange.outcome, Outcome::Tls, "{:?}", exchange.error);
            let exchange = world.post(&receiver, &prepared(Registered::Bearer, "t")).await;
            assert_eq!(exchange.outcome, Outcome::Tls, "{:?}", exchange.error);
            assert!(exchange.error.unwrap().contains("wants a client certificate"));
            assert_eq!(receiver.count(), 0);
            world.ok(&receiver, &of(&ca.client("friend"))).await;
            assert_eq!(receiver.count(), 1);
        }
    }

    #[tokio::test]
    async fn p5_identities_share_no_connection() {
        let ca = TestCa::new();
        for h2 in [false, true] {
            let receiver = Receiver::builder().mtls(&ca, h2).start();
            let world = World::new(&["127.0.0.1/32"], Some(&ca));
            let (one, two) = (of(&ca.client("one")), of(&ca.client("two")));
            for auth in [&one, &two, &one, &two] {
                world.ok(&receiver, auth).await;
            }
            let connections: Vec<_> = receiver.received().iter().map(|r| r.connection).collect();
            assert_eq!(connections[0], connections[2], "one's own connection is used again");
            assert_eq!(connections[1], connections[3]);
            assert_ne!(connections[0], connections[1]);
            let nobody = world.post(&receiver, &prepared(Registered::Bearer, "t")).await;
            assert_eq!(nobody.outcome, Outcome::Tls, "a connection of somebody's is nobody else's");
        }
    }
}

#[tokio::test]
async fn a_token_answer_of_64_kib_is_read_and_a_longer_one_told_as_that() {
    let (world, receiver, idp) = (world(), Receiver::start(), Receiver::start());
    let grant = |length: usize| {
        let frame = r#"{"access_token":"t","token_type":"BearerToken","id_token":""}"#.len();
        let body =
            format!(r#"{{"access_token":"t","token_type":"BearerToken","id_token":"{}"}}"#, "x".repeat(length - frame));
        Script::status(200).body(body)
    };
    let rows = [
        (grant(64 * 1024), None),
        (grant(64 * 1024 + 1), Some("its answer is too large: at most 64 KiB of it are read")),
        (Script::EndlessBody, Some("its answer is too large: at most 64 KiB of it are read")),
        (Script::CutBody, Some("its answer broke off before its end")),
        (grant(1_000).header("content-encoding", "gzip"), Some("its answer is compressed (gzip)")),
    ];
    for (at, (script, refused)) in rows.into_iter().enumerate() {
        idp.script(script);
        let auth = oauth2_of(at as i64, &idp.url("/token"), "hush");
        let exchange = world.post(&receiver, &auth).await;
        let error = exchange.error.unwrap_or_default();
        assert_eq!(exchange.outcome == Outcome::Ok, refused.is_none(), "{at}: {error}");
        assert!(error.contains(refused.unwrap_or_default()), "{at}: {error}");
    }
    assert_eq!(tokens_seen(&receiver), ["Bearer t"]);
}
