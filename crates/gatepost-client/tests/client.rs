//! The client against a scripted server, and against nobody.

use std::time::Duration;

use gatepost_client::{Answer, Client, Event, Fallback, Outcome, PublishError, Question, Source, Unanswered, Verdict};
use gatepost_testkit::{Blackhole, ClosedPort, Gate, Receiver, Script};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

fn client(url: &str) -> Client {
    Client::builder(url, "gp_secret_key")
        .fallback("validateUser", Fallback::deny("LATER", "Please try again later."))
        .publish_for(LONG)
        .build()
        .expect("a good address and key")
}

fn accepted() -> Script {
    Script::with(|request| {
        let event = request.json();
        let body = json!({"id": event["id"], "type": event["type"], "timestamp": "2026-11-22T10:00:00Z",
                          "deliveries": 2, "duplicate": false});
        Script::status(202).body(body.to_string())
    })
}

fn decision(decision: &str) -> Script {
    let body = json!({"id": "inv_1", "point": "p", "decision": decision, "cause": "receiver", "messages": []});
    Script::status(200).body(body.to_string())
}

fn why(answer: &Answer) -> &Unanswered {
    match &answer.source {
        Source::Fallback(why) => why,
        Source::Gatepost => panic!("Gatepost answered: {answer:?}"),
    }
}

#[tokio::test]
async fn p1_an_event_is_tried_under_one_id_until_it_is_accepted() {
    let server = Receiver::start();
    let problem = json!({"status": 503, "code": "store_unavailable", "title": "Unavailable"}).to_string();
    server.next([
        Script::status(503).body(problem),
        Script::status(429).header("retry-after", 0),
        Script::status(202).body("not json"),
        accepted(),
    ]);
    let event = Event::new("user.created", json!({"login": "ada"})).subject("user", "u1");
    let published = client(&server.url("")).tenant("acme").publish(&event).await.unwrap();
    assert_eq!((published.id.as_str(), published.deliveries, published.duplicate), (event.event_id(), 2, false));
    let received = server.received();
    assert_eq!(received.len(), 4);
    for request in &received {
        assert_eq!(request.path, "/v1/tenants/acme/events");
        assert_eq!(request.header("authorization"), Some("Bearer gp_secret_key"));
        assert_eq!(request.json()["id"], event.event_id());
    }
    let bodies: Vec<_> = received.iter().map(|request| &request.body).collect();
    assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]), "the same bytes each time");
}

#[tokio::test]
async fn a_refused_event_is_not_tried_again() {
    let server = Receiver::start();
    let problem = json!({"status": 422, "code": "invalid", "title": "Invalid", "detail": "a bad member",
                         "errors": [{"pointer": "/type", "message": "is required"}]});
    server.script(Script::status(422).body(problem.to_string()));
    let refused = client(&server.url("")).tenant("acme").publish(&Event::new("x", 1)).await.unwrap_err();
    let PublishError::Refused(problem) = refused else { panic!("{refused}") };
    assert_eq!((problem.status, problem.code.as_str(), problem.errors[0].pointer.as_str()), (422, "invalid", "/type"));
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn publishing_gives_up_when_its_time_is_over() {
    let nobody = ClosedPort::new();
    let client = Client::builder(format!("http://{}", nobody.addr()), "k").publish_for(Duration::ZERO).build().unwrap();
    let error = client.tenant("acme").publish(&Event::new("x.y", Value::Null)).await.unwrap_err();
    assert!(matches!(error, PublishError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_batch_is_published_whole() {
    let server = Receiver::start();
    let one = |id: &str| json!({"id": id, "type": "a.b", "timestamp": "t", "deliveries": 0, "duplicate": id == "2"});
    server.script(Script::status(202).body(json!({"events": [one("1"), one("2")]}).to_string()));
    let events = [Event::new("a.b", 1).id("1"), Event::new("a.b", 2).id("2")];
    let published = client(&server.url("")).tenant("acme").publish_all(&events).await.unwrap();
    assert_eq!(published.iter().map(|p| (p.id.as_str(), p.duplicate)).collect::<Vec<_>>(), [("1", false), ("2", true)]);
    assert_eq!(server.received()[0].path, "/v1/tenants/acme/events/batch");
}

#[tokio::test]
async fn a_decision_is_gateposts_own() {
    let server = Receiver::start();
    server.script(decision("allow"));
    let tenant = client(&server.url("")).tenant("acme");
    let question = Question::new().object(json!({"user": {"login": "ada"}}));
    let answer = tenant.invoke("validateUser", &question, LONG).await;
    assert_eq!(
        (answer.verdict, &answer.source, answer.id.as_deref()),
        (Verdict::Allow, &Source::Gatepost, Some("inv_1"))
    );
    server.script(decision("deny"));
    assert!(!tenant.operation("createUser", &question, Duration::from_millis(2_000)).await.is_allowed());
    let received = server.received();
    assert_eq!(received[0].path, "/v1/tenants/acme/points/validateUser/invoke");
    assert_eq!(received[1].path, "/v1/tenants/acme/operations/createUser/invoke");
    let told: u64 = received[1].header("gatepost-timeout-ms").unwrap().parse().unwrap();
    assert!((1..=1_975).contains(&told), "never more than what is left of the deadline: {told}");
    assert_ne!(received[0].header("idempotency-key"), received[1].header("idempotency-key"));
}

#[tokio::test]
async fn p9_there_is_an_answer_when_gatepost_is_not_there() {
    let (nobody, silent) = (ClosedPort::new(), Blackhole::at(std::net::Ipv4Addr::LOCALHOST));
    let tenant = client(&format!("http://{}", nobody.addr())).tenant("acme");
    let question = Question::new().default_value(json!({"mappedValue": "a@b"}));
    let answer = tenant.invoke("validateUser", &question, LONG).await;
    assert!(matches!(why(&answer), Unanswered::NotReached(_)), "{answer:?}");
    assert_eq!((answer.verdict, answer.messages[0].code.as_deref()), (Verdict::Deny, Some("LATER")));
    assert!(tenant.invoke("preCreateUser", &question, LONG).await.is_allowed(), "nobody is stopped by accident");
    assert_eq!(tenant.invoke("policyMap", &question, LONG).await.value, Some(json!("a@b")));
    assert_eq!(tenant.invoke("runDeprovision", &question, LONG).await.value, Some(json!(false)));
    // A server that takes the connection and says nothing.
    let tenant = client(&format!("http://{}", silent.addr())).tenant("acme");
    let answer = tenant.invoke("preCreateUser", &question, Duration::from_millis(20)).await;
    assert_eq!((why(&answer), answer.is_allowed()), (&Unanswered::Late, true));
}

#[tokio::test]
async fn p9_nothing_outlives_the_deadline() {
    let server = Receiver::start();
    let gate = Gate::new();
    server.script(decision("allow").behind(&gate));
    let tenant = client(&server.url("")).tenant("acme");
    let answer = tenant.invoke("validateUser", &Question::new(), Duration::from_millis(50)).await;
    assert_eq!((why(&answer), answer.verdict), (&Unanswered::Late, Verdict::Deny));
    gate.open();
}

#[tokio::test]
async fn a_refused_question_falls_back_and_says_so() {
    let server = Receiver::start();
    let tenant = client(&server.url("")).tenant("acme");
    let problem = |status: u16| json!({"status": status, "code": "c", "title": "t", "detail": "d"}).to_string();
    for (status, refused) in [(401, true), (404, true), (422, true), (429, false), (500, false), (503, false)] {
        server.script(Script::status(status).body(problem(status)));
        let answer = tenant.invoke("preCreateUser", &Question::new(), LONG).await;
        assert!(answer.is_allowed());
        match why(&answer) {
            Unanswered::Refused(problem) => assert!(refused && problem.status == status, "{status}: {problem}"),
            Unanswered::Unavailable(problem) => assert!(!refused && problem.status == status, "{status}: {problem}"),
            other => panic!("{status}: {other}"),
        }
    }
    // Gatepost cannot ask anybody, but still says what stands.
    let body = json!({"decision": "deny", "cause": "gatepost", "status": 503}).to_string();
    server.script(Script::status(503).body(body));
    let answer = tenant.invoke("preCreateUser", &Question::new(), LONG).await;
    assert_eq!((answer.verdict, &answer.source), (Verdict::Deny, &Source::Gatepost));
    server.script(Script::status(200).body("<html>"));
    assert_eq!(why(&tenant.invoke("preCreateUser", &Question::new(), LONG).await), &Unanswered::Unreadable(200));
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_nobody_a_decision() {
    let server = Receiver::start();
    server.next([Script::Close, decision("allow")]);
    let tenant = client(&server.url("")).tenant("acme");
    let answer = tenant.invoke("validateUser", &Question::new(), LONG).await;
    assert_eq!(answer.source, Source::Gatepost, "{answer:?}");
    let received = server.received();
    assert_eq!(received.len(), 2);
    assert_eq!(
        received[0].header("idempotency-key"),
        received[1].header("idempotency-key"),
        "one question, asked twice"
    );
}

#[tokio::test]
async fn an_outcome_is_told() {
    let server = Receiver::start();
    server.next([Script::status(503), Script::status(200).body("{}")]);
    let tenant = client(&server.url("")).tenant("acme");
    tenant.outcome("inv_1", &Outcome::committed().uid("7")).await.unwrap();
    let received = server.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[1].path, "/v1/tenants/acme/invocations/inv_1/outcome");
    assert_eq!(received[1].json(), json!({"committed": true, "uid": "7"}));
    server.script(Script::status(409).body(json!({"code": "outcome_conflict"}).to_string()));
    let refused = tenant.outcome("inv_1", &Outcome::aborted()).await.unwrap_err();
    assert!(matches!(refused, PublishError::Refused(_)), "{refused}");
}

#[test]
fn p7_the_key_is_never_printed() {
    let client = Client::builder("http://127.0.0.1:1", "gp_secret_key").build().unwrap();
    let printed = format!("{client:?} {:?}", client.tenant("acme"));
    assert!(!printed.contains("gp_secret_key"), "{printed}");
}

#[test]
fn a_wrong_address_is_told_at_once() {
    for url in ["", "gatepost", "ftp://x", "http://", "http://x/?a=1"] {
        assert!(Client::builder(url, "k").build().is_err(), "{url}");
    }
    assert!(Client::builder("http://x", "a\nb").build().is_err());
    assert!(Client::builder("http://x", "k").extra_ca("nonsense").build().is_err());
}
