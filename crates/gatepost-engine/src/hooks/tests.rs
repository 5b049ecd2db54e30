//! What needs a scripted receiver, a failing store or a clock in hand; the rest goes through the
//! binary.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use gatepost_core::delivery::{Outcome, Response, Timings};
use gatepost_core::hooks::decision::{Cause, Verdict};
use gatepost_core::hooks::failure::FailureClass;
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_core::{TenantId, Timestamp};
use gatepost_store::fault::{Call, Fault};
use gatepost_store::{FaultStore, SqliteStore, StoreError};
use gatepost_testkit::{ManualClock, SeededEntropy};
use serde_json::{Map, Value, json};

use super::{ADMITTED, ADMITTED_OF_TENANT, Ask, AskError, AskTarget, Recording};
use crate::engine::{Engine, EngineParts, Limits};
use crate::net::{EgressPolicy, Exchange, OutgoingRequest};
use crate::ops::TenantInput;
use crate::transport::Transport;

type Answering = Box<dyn Fn(&Value) -> (u16, Value) + Send + Sync>;

/// Answers every request at once, and counts them.
struct Receiver {
    answer: Mutex<Answering>,
    asked: AtomicUsize,
    bodies: Mutex<Vec<Bytes>>,
    /// Requests that are never answered from now on.
    silent: AtomicUsize,
    /// While closed, no request is answered.
    open: tokio::sync::watch::Sender<bool>,
}

impl Receiver {
    fn new() -> Arc<Self> {
        let answer: Answering = Box::new(|question| (200, json!({"id": question["id"], "decision": "allow"})));
        Arc::new(Receiver {
            answer: Mutex::new(answer),
            asked: AtomicUsize::new(0),
            bodies: Mutex::default(),
            silent: AtomicUsize::new(0),
            open: tokio::sync::watch::channel(true).0,
        })
    }

    fn answers(&self, answer: impl Fn(&Value) -> (u16, Value) + Send + Sync + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

struct Door(Arc<Receiver>);

impl Transport for Door {
    fn send<'a>(&'a self, request: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        let question = serde_json::from_slice(&request.body).unwrap_or_default();
        self.0.bodies.lock().unwrap().push(request.body.clone());
        let (status, body) = (self.0.answer.lock().unwrap())(&question);
        let response = Response { headers: Vec::new(), body: Bytes::from(body.to_string()), truncated: false };
        let silent = self.0.silent.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        let mut open = self.0.open.subscribe();
        let exchange = Exchange {
            started_at: Timestamp::EPOCH,
            outcome: Outcome::of_status(status),
            status: Some(status),
            error: None,
            timings: Timings::default(),
            response: Some(response),
            local_fault: false,
            unusable: false,
            resend: Default::default(),
        };
        Box::pin(async move {
            if silent || open.wait_for(|open| *open).await.is_err() {
                return std::future::pending().await;
            }
            exchange
        })
    }
}

struct World {
    engine: Engine,
    receiver: Arc<Receiver>,
    clock: Arc<ManualClock>,
    /// Whether the store fails from now on, before or after it did what it was asked.
    failing: Arc<Mutex<Fault>>,
    tenant: Tenant,
    _recording: Recording,
}

async fn world() -> World {
    let (receiver, clock) = (Receiver::new(), Arc::new(ManualClock::default()));
    let failing = Arc::new(Mutex::new(Fault::None));
    let fault = Arc::clone(&failing);
    let inner = Arc::new(SqliteStore::open_inline().unwrap());
    let store = FaultStore::new(inner, move |_: Call| *fault.lock().unwrap());
    let parts = EngineParts {
        store: Arc::new(store),
        clock: clock.clone(),
        entropy: Arc::new(SeededEntropy::new(1)),
        transport: Arc::new(Door(Arc::clone(&receiver))),
        policy: Arc::new(EgressPolicy::new(Vec::new())),
        master_key: Key::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap(),
        admin_key: Secret::new("gp_admin"),
        public_url: "http://127.0.0.1:8080".to_owned(),
        limits: Limits::default(),
    };
    let engine = Engine::assemble(parts).await.unwrap_or_else(|error| panic!("{error}")).0;
    let tenant = engine.put_tenant(acme(), TenantInput::default()).await.unwrap().0;
    let _recording = Recording::start(&engine);
    World { engine, receiver, clock, failing, tenant, _recording }
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

fn members(value: Value) -> Map<String, Value> {
    let Value::Object(members) = value else { panic!("an object") };
    members
}

impl World {
    async fn hook(&self, point: &str, more: Value) -> gatepost_core::HookId {
        let mut hook = json!({"name": "n", "point": point, "url": "https://r.example/", "mode": "enforce"});
        hook.as_object_mut().unwrap().extend(members(more));
        self.engine.create_hook(&self.tenant, members(hook)).await.unwrap().0.hook.id
    }

    fn question(&self, point: &str, key: Option<&str>) -> Ask {
        Ask {
            tenant: acme(),
            target: AskTarget::Point(point.to_owned()),
            body: Bytes::from_static(br#"{"object":{"user":{"login":"ada"}}}"#),
            timeout: None,
            hop: None,
            accept: None,
            idempotency_key: key.map(str::to_owned),
            trace: None,
            caller: None,
        }
    }

    async fn ask(&self, point: &str, key: Option<&str>) -> Result<Value, AskError> {
        let told = self.engine.ask(self.question(point, key)).await?;
        Ok(serde_json::from_slice(&told.body).unwrap())
    }

    fn fail(&self, fault: Fault) {
        *self.failing.lock().unwrap() = fault;
    }
}

#[tokio::test(start_paused = true)]
async fn p9_the_store_is_not_asked_between_question_and_answer() {
    let world = world().await;
    world.hook("validateUser", json!({})).await;
    world.ask("validateUser", None).await.unwrap();
    world.fail(Fault::Before);
    for _ in 0..10 {
        let decision = world.ask("validateUser", None).await.unwrap();
        assert_eq!(decision["cause"], "receiver");
    }
}

#[tokio::test(start_paused = true)]
async fn p9_where_nothing_is_known_the_points_own_policy_is_told() {
    let world = world().await;
    world.fail(Fault::Before);
    for (target, verdict, value) in [
        (AskTarget::Point("validateUser".into()), Some(Verdict::Deny), Value::Null),
        (AskTarget::Point("preCreateUser".into()), Some(Verdict::Allow), Value::Null),
        (AskTarget::Point("runDeprovision".into()), Some(Verdict::Allow), json!(false)),
        (AskTarget::Point("policyMap".into()), Some(Verdict::Allow), json!("theirs")),
        (AskTarget::Operation("createUser".into()), Some(Verdict::Deny), Value::Null),
        (AskTarget::Point("theirOwn".into()), None, Value::Null),
    ] {
        let body = Bytes::from_static(br#"{"object":{"user":{}},"default":{"mappedValue":"theirs"}}"#);
        let ask = Ask { target: target.clone(), body, ..world.question("x", None) };
        let Err(AskError::Unable { decision, reason }) = world.engine.ask(ask).await else { panic!("{target:?}") };
        assert!(matches!(reason, StoreError::Unavailable(_)));
        assert_eq!(decision.as_ref().map(|decision| decision.decision), verdict, "{target:?}");
        if let Some(decision) = decision {
            assert_eq!((decision.cause, decision.value), (Cause::Gatepost, value.into()));
            let (AskTarget::Point(name) | AskTarget::Operation(name)) = target;
            assert_eq!(decision.point, name);
        }
    }
    let body = br#"{"object":{"user":{"email":"a@b"}},"attributes":[{"targetAttribute":"x","default":"one"},
        {"targetAttribute":"y","cymmetrifield":"email"}]}"#;
    let target = AskTarget::Operation("provision".into());
    let ask = Ask { target, body: Bytes::from_static(body), ..world.question("x", None) };
    let Err(AskError::Unable { decision: Some(decision), .. }) = world.engine.ask(ask).await else {
        panic!("no store")
    };
    assert_eq!((decision.decision, decision.values), (Verdict::Allow, Some(vec!["one".into(), "a@b".into()])));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_does_not_concern_the_endpoint_leaves_its_circuit_open() {
    let world = world().await;
    let hook = world.hook("validateUser", json!({})).await;
    world.receiver.answers(|_| (500, json!({})));
    for _ in 0..5 {
        assert_eq!(world.ask("validateUser", None).await.unwrap()["cause"], "policy_on_failure");
    }
    let circuit = async |patch: Value| {
        let view = world.engine.update_hook(&world.tenant, hook, &members(patch)).await.unwrap();
        format!("{:?}", view.circuit)
    };
    assert_eq!(circuit(json!({"name": "another", "timeout_ms": 900})).await, "Open");
    let asked = world.receiver.asked();
    for _ in 0..3 {
        assert_eq!(world.ask("validateUser", None).await.unwrap()["cause"], "circuit_open");
    }
    assert_eq!(world.receiver.asked(), asked, "nobody was asked");
    world.engine.inner.hooks.recorder.flush().await;
    let counters = world.engine.hook(&world.tenant, hook).await.unwrap().hook.counters;
    assert_eq!((counters.asked, counters.failed), (5, 5), "what was not sent was not asked");
    // The probing goes on, and finds the receiver well.
    world.receiver.answers(|question| (200, json!({"id": question["id"], "decision": "allow"})));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.ask("validateUser", None).await.unwrap()["cause"], "receiver");
    // Another secret, another address: another endpoint, of which nothing is known.
    for patch in [
        json!({"mode": "observe", "headers": {"x-tenant": "a"}}),
        json!({"mode": "observe", "url": "https://other.example/", "headers": {"x-tenant": "a"}}),
    ] {
        world.engine.update_hook(&world.tenant, hook, &members(json!({"mode": "enforce"}))).await.unwrap();
        world.receiver.answers(|_| (500, json!({})));
        for _ in 0..5 {
            world.ask("validateUser", None).await.unwrap();
        }
        assert_eq!(circuit(json!({"name": "third"})).await, "Open");
        assert_eq!(circuit(patch).await, "Closed");
        world.receiver.answers(|question| (200, json!({"id": question["id"], "decision": "allow"})));
    }
}

#[tokio::test(start_paused = true)]
async fn p7_a_committed_operation_of_which_nothing_is_kept_must_say_its_object() {
    let world = world().await;
    world.hook("validateUser", json!({"receives_secrets": true})).await;
    world.receiver.answers(|question| {
        (200, json!({"id": question["id"], "decision": "deny", "messages": [{"code": "X", "text": "not Welcome@123"}]}))
    });
    let body = br#"{"object":{"user":{"login":"ada"}},"secrets":{"passwordText":"Welcome@123"}}"#;
    let target = AskTarget::Operation("createUser".into());
    let ask = Ask { target, body: Bytes::from_static(body), ..world.question("x", None) };
    let told = world.engine.ask(ask).await.unwrap();
    let decision: Value = serde_json::from_slice(&told.body).unwrap();
    let id = decision["id"].as_str().unwrap().parse().unwrap();
    let refused = world.engine.tell_outcome(&world.tenant, id, json!({"committed": true}).into()).await.unwrap_err();
    assert!(matches!(&refused, crate::Error::Conflict { message, .. } if message.contains("`object`")), "{refused:?}");
    let whole = json!({"committed": true, "object": {"user": {"login": "ada"}}});
    assert!(!world.engine.tell_outcome(&world.tenant, id, whole.clone().into()).await.unwrap().repeated);
    assert!(world.engine.tell_outcome(&world.tenant, id, whole.into()).await.unwrap().repeated);
}

#[tokio::test(start_paused = true)]
async fn a_change_whose_answer_was_lost_is_known_as_soon_as_the_store_can_say_so() {
    let world = world().await;
    let hook = world.hook("validateUser", json!({})).await;
    world.ask("validateUser", None).await.unwrap();
    world.fail(Fault::After);
    let off = members(json!({"enabled": false}));
    world.engine.update_hook(&world.tenant, hook, &off).await.unwrap_err();
    // The old one serves while nobody knows better.
    assert_eq!(world.ask("validateUser", None).await.unwrap()["cause"], "receiver");
    world.fail(Fault::None);
    // A change that did not happen leaves things as they are; one that did is seen.
    let changed = world.engine.update_hook(&world.tenant, hook, &off).await.unwrap();
    assert!(!changed.hook.config.enabled);
    assert_eq!(world.ask("validateUser", None).await.unwrap()["cause"], "no_hooks");
    world.fail(Fault::After);
    world.engine.delete_hook(&world.tenant, hook).await.unwrap_err();
    world.fail(Fault::None);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.engine.hook(&world.tenant, hook).await.unwrap_err();
    assert_eq!(world.ask("validateUser", None).await.unwrap()["cause"], "no_hooks");
}

#[tokio::test(start_paused = true)]
async fn p10_more_invocations_than_there_is_room_for_are_told_so() {
    let world = world().await;
    world.hook("validateUser", json!({})).await;
    let hooks = &world.engine.inner.hooks;
    hooks.held.under_way.store(ADMITTED, Ordering::SeqCst);
    assert!(matches!(world.ask("validateUser", None).await, Err(AskError::Saturated)));
    hooks.held.under_way.store(0, Ordering::SeqCst);
    world.ask("validateUser", None).await.unwrap();
    assert!(hooks.held.is_empty(), "every place is given back");
}

#[tokio::test(start_paused = true)]
async fn a_strict_point_answers_nothing_it_could_not_write_down() {
    let world = world().await;
    world.engine.put_point(&world.tenant, "validateUser", members(json!({"audit": "strict"}))).await.unwrap();
    world.hook("validateUser", json!({})).await;
    let decision = world.ask("validateUser", None).await.unwrap();
    let id = decision["id"].as_str().unwrap().parse().unwrap();
    // No flush, no lingering: it was there before the answer.
    assert!(world.engine.inner.store.invocation(world.tenant.key, id).await.unwrap().is_some());
    world.fail(Fault::Before);
    let refused = world.ask("validateUser", None).await;
    let Err(AskError::Unable { decision: Some(decision), .. }) = refused else { panic!("it was not written down") };
    assert_eq!(
        (decision.decision, decision.cause),
        (Verdict::Allow, Cause::Gatepost),
        "the receiver's, not the policy's"
    );
    // A no at a point whose own policy lets pass stays a no.
    world.fail(Fault::None);
    world.engine.put_point(&world.tenant, "preCreateUser", members(json!({"audit": "strict"}))).await.unwrap();
    world.hook("preCreateUser", json!({})).await;
    world
        .receiver
        .answers(|question| (200, json!({"id": question["id"], "decision": "deny", "messages": [{"code": "TAKEN"}]})));
    world.fail(Fault::Before);
    let refused = world.ask("preCreateUser", None).await;
    let Err(AskError::Unable { decision: Some(decision), .. }) = refused else { panic!("it was not written down") };
    assert_eq!((decision.decision, decision.cause), (Verdict::Deny, Cause::Gatepost));
    assert_eq!(decision.messages[0].code, "TAKEN");
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_known_under_its_key_for_a_minute() {
    let world = world().await;
    world.hook("validateUser", json!({})).await;
    let before = world.receiver.asked();
    let first = world.ask("validateUser", Some("k")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(world.ask("validateUser", Some("k")).await.unwrap(), first);
    assert_eq!(world.receiver.asked(), before + 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_ne!(world.ask("validateUser", Some("k")).await.unwrap()["id"], first["id"]);
    assert_eq!(world.receiver.asked(), before + 2);
    let other = Ask { body: Bytes::from_static(b"{}"), ..world.question("validateUser", Some("k")) };
    assert!(matches!(world.engine.ask(other).await, Err(AskError::KeyReused)));
}

#[tokio::test(start_paused = true)]
async fn p7_a_kept_notification_ends_with_its_delivery_its_grant_or_its_time() {
    for end in ["delivered", "no grant", "too late"] {
        let world = world().await;
        let members_of_hook = json!({"receives_secrets": true, "secret_retry": "encrypted"});
        let hook = world.hook("changePassword", members_of_hook).await;
        world.receiver.answers(|_| (503, json!({})));
        let body = br#"{"object":{"user":{}},"secrets":{"passwordText":"Welcome@123"}}"#;
        let ask = Ask { body: Bytes::from_static(body), ..world.question("changePassword", None) };
        world.engine.ask(ask).await.unwrap();
        world.engine.inner.hooks.recorder.flush().await;
        let first = world.receiver.bodies.lock().unwrap().last().cloned().unwrap();
        world.clock.advance(Duration::from_secs(3));
        assert!(world.engine.retry_secrets().await, "due after two seconds");
        let again = world.receiver.bodies.lock().unwrap().last().cloned().unwrap();
        assert_eq!(again, first, "the same bytes");
        let asked = world.receiver.asked();
        assert!(!world.engine.retry_secrets().await, "not at once");
        match end {
            "delivered" => world.receiver.answers(|_| (200, json!({}))),
            "no grant" => {
                let patch = members(json!({"receives_secrets": false, "secret_retry": "none", "mode": "observe"}));
                world.engine.update_hook(&world.tenant, hook, &patch).await.unwrap();
            }
            _ => {
                world.clock.advance(Duration::from_secs(16 * 60));
            }
        }
        world.clock.advance(Duration::from_secs(60));
        assert!(world.engine.retry_secrets().await, "{end}");
        let more = usize::from(end == "delivered");
        assert_eq!(world.receiver.asked(), asked + more, "{end}");
        world.clock.advance(Duration::from_secs(600));
        assert!(!world.engine.retry_secrets().await, "{end}: nothing is left");
    }
}

#[tokio::test(start_paused = true)]
async fn the_bypass_of_the_whole_server_holds_at_once() {
    let world = world().await;
    world.hook("validateUser", json!({})).await;
    world.engine.bypass_hooks(true);
    assert_eq!(world.ask("validateUser", None).await.unwrap()["cause"], "hooks_disabled");
    world.engine.bypass_hooks(false);
    assert_eq!(world.ask("validateUser", None).await.unwrap()["cause"], "receiver");
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_nobody_tells_becomes_unknown_and_is_counted() {
    let world = world().await;
    let decision = world.ask("validateUser", None).await.unwrap();
    let id = decision["id"].as_str().unwrap().parse().unwrap();
    world.engine.invocation(&world.tenant, id).await.unwrap();
    world.clock.advance(Duration::from_secs(61));
    let step = world.engine.inner.store.keep_up_hooks(world.engine.now(), None, 10).await.unwrap();
    assert_eq!(step.unknown, 1);
    let told = world.engine.tell_outcome(&world.tenant, id, json!({"committed": true}).into()).await.unwrap();
    assert!(!told.repeated, "late is better than never");
}

#[tokio::test]
async fn p5_who_waits_for_a_full_receiver_waits_at_its_own_cost() {
    let world = world().await;
    world.hook("validateUser", json!({"max_in_flight": 1, "timeout_ms": 30_000})).await;
    let long = members(json!({"max_total_ms": 30_000}));
    world.engine.put_point(&world.tenant, "validateUser", long).await.unwrap();
    world.receiver.open.send_replace(false);
    let ask = || {
        let (engine, question) = (world.engine.clone(), world.question("validateUser", None));
        tokio::spawn(async move { engine.ask(question).await })
    };
    let held = &world.engine.inner.hooks.held;
    let mut callers = Vec::new();
    while held.waiting.load(Ordering::SeqCst) < ADMITTED_OF_TENANT {
        // One after another: all at once would be more than may be under way.
        callers.push(ask());
        while world.receiver.asked() < 2 || held.waiting.load(Ordering::SeqCst) + 1 < callers.len() {
            assert!(!callers[callers.len() - 1].is_finished(), "it waits");
            tokio::task::yield_now().await;
        }
        assert!(callers.len() <= ADMITTED_OF_TENANT + 1, "all of them wait");
    }
    assert_eq!(held.under_way.load(Ordering::SeqCst), 1, "the one that is asked");
    // One more is told so; nobody else is concerned, nor this tenant's other receivers.
    assert!(matches!(ask().await.unwrap(), Err(AskError::Saturated)));
    assert_eq!(world.ask("preCreateUser", None).await.unwrap()["cause"], "no_hooks");
    let other = world.engine.put_tenant("other".parse().unwrap(), TenantInput::default()).await.unwrap().0;
    let question = Ask { tenant: other.id, ..world.question("validateUser", None) };
    world.engine.ask(question).await.unwrap();
    world.receiver.open.send_replace(true);
    for caller in callers {
        let told = caller.await.unwrap().unwrap();
        let decision: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!((&decision["decision"], &decision["cause"]), (&json!("allow"), &json!("receiver")));
    }
    assert!(held.is_empty(), "every place is given back");
}

#[tokio::test(start_paused = true)]
async fn a_question_waits_for_a_place_no_longer_than_its_budget() {
    let world = world().await;
    let hook = world.hook("validateUser", json!({"max_in_flight": 1, "timeout_ms": 30_000})).await;
    world.receiver.open.send_replace(false);
    let (engine, first) = (world.engine.clone(), world.question("validateUser", None));
    let first = tokio::spawn(async move { engine.ask(first).await });
    while world.receiver.asked() < 2 {
        tokio::task::yield_now().await;
    }
    let asked = world.receiver.asked();
    let began = tokio::time::Instant::now();
    let short = Ask { timeout: Some("200".into()), ..world.question("validateUser", None) };
    let told: Value = serde_json::from_slice(&world.engine.ask(short).await.unwrap().body).unwrap();
    assert_eq!((&told["cause"], &told["hooks"][0]["failure"]), (&json!("budget_exhausted"), &json!("budget")));
    assert_eq!(began.elapsed(), Duration::from_millis(195), "what a place may be waited for");
    assert_eq!((&told["waited_us"], told["hooks"][0]["attempts"].as_u64()), (&json!(195_000), Some(0)));
    assert_eq!(world.receiver.asked(), asked, "it was never asked");
    // More places, and the next one finds one at once.
    world.receiver.open.send_replace(true);
    first.await.unwrap().unwrap();
    world.receiver.silent.store(1, Ordering::SeqCst);
    world.engine.update_hook(&world.tenant, hook, &members(json!({"max_in_flight": 2}))).await.unwrap();
    let (engine, stuck) = (world.engine.clone(), world.question("validateUser", None));
    let stuck = tokio::spawn(async move { engine.ask(stuck).await });
    while world.receiver.silent.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    let told = world.ask("validateUser", None).await.unwrap();
    assert_eq!((&told["cause"], &told["waited_us"]), (&json!("receiver"), &json!(0)));
    stuck.abort();
}

#[tokio::test(start_paused = true)]
async fn p9_a_twin_is_answered_within_its_own_budget() {
    let world = world().await;
    world.hook("validateUser", json!({"timeout_ms": 2_000})).await;
    world.receiver.silent.store(1, Ordering::SeqCst);
    let (engine, first) = (world.engine.clone(), world.question("validateUser", Some("k")));
    let first = tokio::spawn(async move { engine.ask(first).await });
    while world.receiver.silent.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    let began = tokio::time::Instant::now();
    let twin = Ask { timeout: Some("100".into()), ..world.question("validateUser", Some("k")) };
    let told: Value = serde_json::from_slice(&world.engine.ask(twin).await.unwrap().body).unwrap();
    assert!(began.elapsed() <= Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!((&told["decision"], &told["cause"]), (&json!("deny"), &json!("budget_exhausted")));
    let first: Value = serde_json::from_slice(&first.await.unwrap().unwrap().body).unwrap();
    assert_eq!((&first["cause"], &first["id"]), (&json!("policy_on_failure"), &told["id"]), "one invocation");
    // Decided, it is the same for everybody.
    assert_eq!(world.ask("validateUser", Some("k")).await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_decision_is_the_same_one_with_what_is_secret_in_it() {
    let world = world().await;
    let may = json!({"receives_secrets": true, "may_change": ["/user/securityQuestion", "/user/hint"]});
    world.hook("preCreateUser", may).await;
    let body = br#"{"object":{"user":{"login":"ada","securityQuestion":{"pet":"Rex the dog"}}}}"#;
    for (key, user) in
        [("changed", json!({"securityQuestion": {"pet": "Tom the cat"}})), ("repeated", json!({"hint": "Rex the dog"}))]
    {
        let answer = user.clone();
        world.receiver.answers(move |question| {
            (200, json!({"id": question["id"], "decision": "allow", "object": {"user": answer}}))
        });
        let ask = || Ask { body: Bytes::from_static(body), ..world.question("preCreateUser", Some(key)) };
        let first = world.engine.ask(ask()).await.unwrap().body;
        let asked = world.receiver.asked();
        let decision: Value = serde_json::from_slice(&first).unwrap();
        let (name, value) = user.as_object().unwrap().iter().next().unwrap();
        assert_eq!(&decision["object"]["user"][name], value, "{key}");
        assert_eq!(world.engine.ask(ask()).await.unwrap().body, first, "{key}");
        let cymmetri = Ask { accept: Some("application/vnd.cymmetri+json".into()), ..ask() };
        let reply: Value = serde_json::from_slice(&world.engine.ask(cymmetri).await.unwrap().body).unwrap();
        assert_eq!(&reply["response"]["data"][name], value, "{key}");
        assert_eq!(world.receiver.asked(), asked, "{key}: nobody is asked again");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idempotent_hook_that_is_silent_is_asked_again_in_time() {
    let world = world().await;
    let hook = world.hook("validateUser", json!({"idempotent": true, "timeout_ms": 1_000})).await;
    let ask = async || {
        world.receiver.silent.store(1, Ordering::SeqCst);
        let before = world.receiver.asked();
        let decision = world.ask("validateUser", None).await.unwrap();
        (world.receiver.asked() - before, decision)
    };
    let (asked, decision) = ask().await;
    assert_eq!((asked, &decision["cause"]), (2, &json!("receiver")));
    assert_eq!((&decision["hooks"][0]["attempts"], &decision["took_us"]), (&json!(2), &json!(500_000)));
    world.engine.update_hook(&world.tenant, hook, &members(json!({"idempotent": false}))).await.unwrap();
    let (asked, decision) = ask().await;
    assert_eq!((asked, &decision["hooks"][0]["failure"]), (1, &json!("timeout")));
    assert_eq!(decision["took_us"], 1_000_000);
}

#[tokio::test]
async fn p5_costly_answers_wait_for_their_tenants_turn_and_hold_up_nobody_else() {
    let world = world().await;
    let other = world.engine.put_tenant("other".parse().unwrap(), TenantInput::default()).await.unwrap().0;
    for tenant in [&world.tenant, &other] {
        let hook = json!({"name": "n", "point": "preCreateUser", "url": "https://r.example/", "mode": "enforce",
            "timeout_ms": 30_000});
        world.engine.create_hook(tenant, members(hook)).await.unwrap();
        let long = members(json!({"max_total_ms": 30_000}));
        world.engine.put_point(tenant, "preCreateUser", long).await.unwrap();
    }
    let many: Map<String, Value> = (0..2_000).map(|n| (format!("m{n}"), json!(n))).collect();
    world.receiver.answers(move |question| {
        let user = if question["tenant"] == "acme" { json!(many) } else { json!({"small": 1}) };
        (200, json!({"id": question["id"], "decision": "allow", "object": {"user": user}}))
    });
    // Costly to read, and then refused.
    world.hook("validateUser", json!({"timeout_ms": 30_000})).await;
    let long = members(json!({"max_total_ms": 30_000}));
    world.engine.put_point(&world.tenant, "validateUser", long).await.unwrap();
    let turn = world.engine.inner.hooks.turns.take(world.tenant.key).await;
    let before = world.receiver.asked();
    let ask = |point: &'static str| {
        let (engine, question) = (world.engine.clone(), world.question(point, None));
        tokio::spawn(async move { engine.ask(question).await })
    };
    let costly: Vec<_> = ["preCreateUser", "preCreateUser", "validateUser"].map(ask).into();
    while world.receiver.asked() < before + 3 {
        tokio::task::yield_now().await;
    }
    // Their receiver has answered; they wait for their turn, and others do not wait for them.
    for _ in 0..50 {
        let question = Ask { tenant: other.id.clone(), ..world.question("preCreateUser", None) };
        let told: Value = serde_json::from_slice(&world.engine.ask(question).await.unwrap().body).unwrap();
        assert_eq!(told["object"]["user"]["small"], 1);
    }
    assert!(costly.iter().all(|asked| !asked.is_finished()), "it is not their turn");
    // Nor their own tenant's light ones.
    world.receiver.answers(|question| (200, json!({"id": question["id"], "decision": "allow"})));
    assert_eq!(world.ask("preCreateUser", None).await.unwrap()["cause"], "receiver");
    drop(turn);
    let done = (json!(1999), json!("receiver"));
    for (asked, expected) in costly.into_iter().zip([done.clone(), done, (Value::Null, json!("invalid_answer"))]) {
        let told: Value = serde_json::from_slice(&asked.await.unwrap().unwrap().body).unwrap();
        assert_eq!((told["object"]["user"]["m1999"].clone(), told["cause"].clone()), expected);
    }
}

#[tokio::test]
async fn p5_what_is_held_against_a_schema_is_worked_on_in_its_tenants_turn() {
    let world = world().await;
    let schema = json!({"properties": {"user": {"maxProperties": 9}}});
    let point = json!({"kind": "mutate", "max_total_ms": 30_000, "schema": schema});
    world.engine.put_point(&world.tenant, "own", members(point)).await.unwrap();
    world.hook("own", json!({"may_change": ["/user"], "timeout_ms": 30_000})).await;
    world.receiver.answers(|question| {
        (200, json!({"id": question["id"], "decision": "allow", "object": {"user": {"small": 1}}}))
    });
    let turn = world.engine.inner.hooks.turns.take(world.tenant.key).await;
    let before = world.receiver.asked();
    let (engine, question) = (world.engine.clone(), world.question("own", None));
    let asked = tokio::spawn(async move { engine.ask(question).await });
    while world.receiver.asked() == before {
        tokio::task::yield_now().await;
    }
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert!(!asked.is_finished(), "it is not its turn");
    drop(turn);
    let told: Value = serde_json::from_slice(&asked.await.unwrap().unwrap().body).unwrap();
    assert_eq!((&told["object"]["user"]["small"], &told["cause"]), (&json!(1), &json!("receiver")));
}

#[tokio::test(start_paused = true)]
async fn p9_a_costly_answer_whose_turn_does_not_come_is_answered_within_the_budget() {
    let world = world().await;
    world.hook("preCreateUser", json!({})).await;
    let large = "x".repeat(100_000);
    world.receiver.answers(move |question| {
        (200, json!({"id": question["id"], "decision": "allow", "object": {"user": {"large": large}}}))
    });
    let turn = world.engine.inner.hooks.turns.take(world.tenant.key).await;
    let told = world.ask("preCreateUser", None).await.unwrap();
    assert_eq!((&told["decision"], &told["cause"]), (&json!("allow"), &json!("budget_exhausted")));
    assert_eq!((&told["degraded"][0]["failure"], &told["patch"]), (&json!("budget"), &json!([])));
    assert!(told["took_us"].as_u64().unwrap() <= 3_000_000);
    drop(turn);
    assert_eq!(world.ask("preCreateUser", None).await.unwrap()["cause"], "receiver");
}

#[tokio::test(start_paused = true)]
async fn a_hook_on_trial_waits_for_no_place() {
    let world = world().await;
    world.hook("validateUser", json!({"mode": "observe", "max_in_flight": 1})).await;
    world.receiver.silent.store(1, Ordering::SeqCst);
    world.ask("validateUser", None).await.unwrap();
    while world.receiver.silent.load(Ordering::SeqCst) > 0 {
        tokio::task::yield_now().await;
    }
    let decision = world.ask("validateUser", None).await.unwrap();
    let id = decision["id"].as_str().unwrap().parse().unwrap();
    let failure = loop {
        world.engine.inner.hooks.recorder.flush().await;
        let kept = world.engine.invocation(&world.tenant, id).await.unwrap().invocation;
        if let Some((_, trial)) = kept.trials.first() {
            break trial.row.failure;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(failure, Some(FailureClass::Budget), "it was not asked");
}
