//! One history's world: the engine between a store that fails and receivers that misbehave, and time
//! that moves only when it is moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use gatepost_core::event::{EventType, Subject, Urgency};
use gatepost_core::seal::Key;
use gatepost_core::secret::Secret;
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook;
use gatepost_core::{Clock, EventId, TenantKey, Timestamp, WebhookId, WebhookKey};
use gatepost_store::fault::Fault;
use gatepost_store::sqlite::MakingSizes;
use gatepost_store::{FaultStore, SqliteStore, Store, Turn};
use gatepost_testkit::{ManualClock, SeededEntropy};
use tokio::sync::mpsc::UnboundedReceiver;

use super::dice::Dice;
use super::ledger::{self, Kind, Ledger, Shared};
use super::receivers::Receivers;
use super::store::{Bug, SimStore};
use crate::deliver::scheduler::audit::Planted;
use crate::deliver::{Effect, Lane};
use crate::engine::{Engine, EngineParts, Limits};
use crate::net::EgressPolicy;
use crate::ops::TenantInput;
use crate::{LaneLimits, Transport};

/// How much room the engine has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// So little that everything overflows.
    Tiny,
    /// As a server has it.
    Large,
}

impl Size {
    fn limits(self) -> LaneLimits {
        match self {
            Size::Tiny => LaneLimits {
                slots: 3,
                extra_slots: 4_096,
                window: 4,
                heads: 12,
                head_bytes: 1 << 20,
                flight_bytes: 12 << 10,
                unsettled: 6,
            },
            Size::Large => LaneLimits::default(),
        }
    }
}

/// A webhook as its owner knows it.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) tenant: usize,
    pub(crate) receiver: usize,
    pub(crate) id: WebhookId,
    pub(crate) key: WebhookKey,
    pub(crate) pattern: &'static str,
    /// Wants events with an even number only (by a filter).
    pub(crate) even: bool,
    pub(crate) waits: Vec<f64>,
    /// Stays as it is made.
    pub(crate) ordering: webhook::Ordering,
    pub(crate) batch: Option<webhook::Batch>,
    pub(crate) enabled: bool,
    pub(crate) deleted: bool,
}

/// An event as its publisher knows it.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) tenant: usize,
    pub(crate) number: u64,
    pub(crate) caller_id: Option<EventId>,
    pub(crate) event_type: EventType,
    pub(crate) urgency: Urgency,
    pub(crate) subject: Option<Subject>,
    pub(crate) data: bytes::Bytes,
    /// Webhooks it must go to: one set per time it may have been accepted.
    pub(crate) goes_to: Vec<BTreeSet<WebhookKey>>,
    /// Set once the engine said yes.
    pub(crate) id: Option<EventId>,
    pub(crate) repeated: bool,
}

/// A clock whose steady time is what it shows.
struct Wall(Arc<ManualClock>);

impl Clock for Wall {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

struct Life {
    engine: Engine,
    lane: Lane,
    effects: UnboundedReceiver<Effect>,
}

/// See the module.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) entropy: Arc<SeededEntropy>,
    /// What is on disk: asked by the checks, never by the engine.
    pub(crate) disk: Arc<SqliteStore>,
    faulty: Arc<FaultStore>,
    rate: Arc<AtomicU64>,
    pub(crate) store: Arc<SimStore>,
    pub(crate) receivers: Arc<Receivers>,
    pub(crate) ledger: Shared,
    policy: Arc<EgressPolicy>,
    life: Option<Life>,
    size: Size,
    bug: Option<Bug>,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) hooks: Vec<Hook>,
    pub(crate) events: Vec<Published>,
    /// Calls of which it is not known whether they happened: positions in `events`.
    pub(crate) in_doubt: Vec<Vec<usize>>,
    pub(crate) crashes: u32,
    /// Nothing is put off any more.
    pub(crate) healed: bool,
    /// Whose deliveries were made last.
    made_last: Option<TenantKey>,
    /// The clock was ever set; it is behind now.
    pub(crate) clock_was_set: bool,
    clock_is_behind: bool,
    /// Of its own, so that other histories stay what they are.
    pub(super) clock_dice: Dice,
    /// Picks of each other tenant since the last one of this tenant, while it waited.
    turns: BTreeMap<TenantKey, BTreeMap<TenantKey, u32>>,
}

/// Picks of one tenant between two of another that waits: more would not be in turn.
const TURN: u32 = 2;
/// Moves without progress after which the engine is taken to run in circles.
const CIRCLES: u32 = 2_000;
/// Base64 of 32 bytes.
const MASTER: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Of three histories one makes all deliveries with their events, as a server with few webhooks does; one
/// leaves nearly all of them for later, and one those of the larger calls.
fn sizes(seed: u64) -> MakingSizes {
    match seed % 3 {
        0 => MakingSizes::default(),
        1 => MakingSizes { few: 0, alone: 0, together: 0, part: 1 },
        _ => MakingSizes { few: 1, alone: 3, together: 6, part: 2 },
    }
}

impl World {
    pub(crate) fn new(seed: u64, size: Size, bug: Option<Bug>) -> World {
        let clock = Arc::new(ManualClock::default());
        let aloud = std::env::var_os("GATEPOST_SEED").is_some();
        let ledger: Shared = Arc::new(std::sync::Mutex::new(Ledger { aloud, ..Ledger::default() }));
        let disk = Arc::new(SqliteStore::open_inline().expect("memory is there"));
        disk.set_sizes(sizes(seed));
        let rate = Arc::new(AtomicU64::new(0));
        let faulty = Arc::new(FaultStore::new(Arc::clone(&disk) as Arc<dyn Store>, {
            let (rate, dice) = (Arc::clone(&rate), std::sync::Mutex::new(Dice::new(seed, 1)));
            move |_| {
                let roll = dice.lock().expect("no panic while rolling").below(1_000);
                let rate = rate.load(Ordering::Relaxed);
                match roll {
                    roll if roll < rate => Fault::Before,
                    roll if roll < rate * 2 => Fault::After,
                    _ => Fault::None,
                }
            }
        }));
        let inner = Arc::clone(&faulty) as Arc<dyn Store>;
        let store = Arc::new(SimStore::new(inner, Arc::clone(&ledger), bug, Dice::new(seed, 2)));
        let receivers = Receivers::new(Arc::clone(&clock), Arc::clone(&ledger), Dice::new(seed, 3));
        let mut world = World {
            dice: Dice::new(seed, 4),
            clock,
            entropy: Arc::new(SeededEntropy::new(seed)),
            disk,
            faulty,
            rate,
            store,
            receivers: Arc::new(receivers),
            ledger,
            policy: Arc::new(EgressPolicy::new(Vec::new())),
            life: None,
            size,
            bug,
            tenants: Vec::new(),
            hooks: Vec::new(),
            events: Vec::new(),
            in_doubt: Vec::new(),
            crashes: 0,
            healed: false,
            made_last: None,
            clock_was_set: false,
            clock_is_behind: false,
            clock_dice: Dice::new(seed, 6),
            turns: BTreeMap::new(),
        };
        world.start();
        for name in ["acme", "beta", "cora"] {
            let id = name.parse().expect("a tenant id");
            let engine = world.engine();
            let put = engine.put_tenant(id, TenantInput::default());
            let (tenant, _) = put.now_or_never().expect("inline").expect("healthy");
            world.tenants.push(tenant);
        }
        world
    }

    pub(crate) fn engine(&self) -> Engine {
        self.life.as_ref().expect("a world has an engine").engine.clone()
    }

    /// The present moment, as waits are measured.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.steady()
    }

    /// Somebody sets the clock: back by a day, or forward again. That it was is noted, as a server does.
    pub(crate) fn set_clock(&mut self) {
        const DAY: i64 = 86_400_000_000;
        let step = if self.clock_is_behind && self.clock_dice.one_in(2) { DAY } else { -DAY };
        self.clock.step(step);
        self.clock_was_set = true;
        self.clock_is_behind = self.clock.now() < self.now();
        self.tell(|| format!("the clock is set by {} s", step / 1_000_000));
        let note = crate::waits::Note::of(&self.engine().inner.waits).to_bytes();
        self.disk.set_meta(crate::waits::NOTE, &note).now_or_never().expect("inline").expect("the disk is well");
    }

    pub(crate) fn violate(&self, kind: Kind, text: impl Into<String>) {
        ledger::open(&self.ledger).violate(kind, text);
    }

    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        ledger::open(&self.ledger).tell(self.now(), what);
    }

    pub(crate) fn is_broken(&self) -> bool {
        !ledger::open(&self.ledger).violations.is_empty()
    }

    /// Of a thousand store calls so many fail before, and as many after they were applied.
    pub(crate) fn fail(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    fn parts(&self) -> EngineParts {
        EngineParts {
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            clock: match self.bug {
                Some(Bug::WaitsByTheClock) => Arc::new(Wall(Arc::clone(&self.clock))),
                _ => Arc::clone(&self.clock) as _,
            },
            entropy: Arc::clone(&self.entropy) as _,
            transport: Arc::clone(&self.receivers) as Arc<dyn Transport>,
            policy: Arc::clone(&self.policy),
            master_key: Key::from_base64(MASTER).expect("a key"),
            admin_key: Secret::new("gp_admin_key_of_the_simulation".to_owned()),
            public_url: "http://127.0.0.1:8080".to_owned(),
            limits: Limits { lane: self.size.limits(), ..Limits::default() },
        }
    }

    /// Starts the engine; as often as it takes, when the store fails meanwhile.
    fn start(&mut self) {
        self.store.revive();
        let planted = Planted {
            claims_twice: self.bug == Some(Bug::DoubleClaim),
            favourite: (self.bug == Some(Bug::Favourite)).then_some(TenantKey(1)),
        };
        for attempt in 0.. {
            // Whoever runs it sees to it that the store is well, after a while.
            self.faulty.set_healthy(attempt > 2);
            if let Some(Ok((engine, mut lane, effects))) = Engine::assemble(self.parts()).now_or_never() {
                lane.scheduler_mut().plant(planted);
                self.life = Some(Life { engine, lane, effects });
                break;
            }
        }
        self.faulty.set_healthy(false);
    }

    /// The process is killed and started again; the disk stays.
    pub(crate) fn crash(&mut self) {
        self.tell(|| "the process dies".to_owned());
        self.life = None;
        self.receivers.cut_off();
        self.turns.clear();
        self.crashes += 1;
        ledger::open(&self.ledger).life += 1;
        self.start();
        self.recall(0..self.hooks.len());
    }

    /// Runs an operation; `None`: the process died under it.
    pub(crate) fn run<T>(&mut self, operation: impl Future<Output = T>) -> Option<T> {
        let answer = operation.now_or_never();
        if answer.is_none() {
            assert!(self.store.is_dead(), "an operation waits for something that is not the store");
            self.crash();
        }
        answer
    }

    /// Lets the engine do everything it can do now.
    pub(crate) fn pump(&mut self) {
        let (mut still, mut turns) = (0, 0);
        // Now and then what is left to be made stays so for a while.
        let makes = self.healed || !self.dice.one_in(4);
        while still < 2 {
            let before = (self.store.calls(), ledger::open(&self.ledger).requests);
            let Some(life) = &mut self.life else { return };
            life.lane.turn(life.engine.waiting());
            life.lane.take_in_ready();
            let effect = life.effects.try_recv().ok();
            let moved = effect.is_some() | self.receivers.end_due();
            if let Some(effect) = effect {
                let engine = self.engine();
                // Even when the process died under it, it may have happened.
                let _ = self.run(async move { engine.take_effect(effect).await });
                self.recall(0..self.hooks.len());
            }
            let moved = self.tell_own() | (makes && self.make_some()) | moved;
            if self.store.is_dead() {
                self.crash();
            }
            self.look_at_picks();
            let after = (self.store.calls(), ledger::open(&self.ledger).requests);
            still = if moved || before != after { 0 } else { still + 1 };
            turns += 1;
            if turns > CIRCLES {
                return self.violate(Kind::Spin, "the lane finds no rest");
            }
        }
        // A 410 disables a webhook together with its outcome, whoever hears of it when.
        if ledger::open(&self.ledger).gone {
            self.recall(0..self.hooks.len());
        }
        self.look_at_scheduler();
    }

    /// Makes a part of what was left to be made. Whether there was anything to do.
    fn make_some(&mut self) -> bool {
        let (engine, turn) = (self.engine(), Turn::After(self.made_last));
        if self.store.is_dead() || !engine.inner.making.any() {
            return false;
        }
        if let Some(Ok(made)) = self.run(async move { engine.make_some(turn, 1).await }) {
            self.made_last = made.tenant;
        }
        true
    }

    /// Bounds and bookkeeping, whenever the lane rests.
    fn look_at_scheduler(&mut self) {
        let limits = self.size.limits();
        let now = self.now();
        let Some(life) = &self.life else { return };
        let scheduler = life.lane.scheduler();
        let webhooks = scheduler.webhooks();
        // Each class may have its assured few beyond the limit, and a read one window.
        let allowed = limits.heads + limits.window + webhooks * 3 * 5;
        let (heads, promised) = (scheduler.heads(), scheduler.promised());
        let mut wrong: Vec<(Kind, String)> =
            scheduler.faults().into_iter().map(|text| (Kind::Unbounded, text)).collect();
        wrong.extend(scheduler.forgotten(now).into_iter().map(|key| (Kind::Idle, format!("{key:?} is in no line"))));
        if heads > allowed {
            wrong.push((Kind::Unbounded, format!("{heads} heads and {promised} promised, of {allowed}")));
        }
        if scheduler.in_flight() > scheduler.most_in_flight() {
            wrong.push((Kind::Unbounded, format!("{} requests under way", scheduler.in_flight())));
        }
        // Whoever hears of everything knows how urgent the first of each queue has become.
        if self.faulty.faults() == 0 && self.crashes == 0 {
            for (tenant, seq, urgency) in scheduler.ordered_heads() {
                let kept = self.disk.delivery(tenant, seq).now_or_never().expect("inline").expect("the disk is well");
                let most = kept.map(|detail| detail.urgency);
                if most != Some(urgency) {
                    wrong.push((Kind::Urgency, format!("{seq:?} is taken for {urgency:?} and is {most:?}")));
                }
            }
        }
        for (kind, text) in wrong {
            self.violate(kind, text);
        }
    }

    /// Urgency within a tenant, turns between tenants.
    fn look_at_picks(&mut self) {
        let Some(life) = &mut self.life else { return };
        let mut wrong: Vec<(Kind, String)> = Vec::new();
        for pick in life.lane.scheduler_mut().take_picks() {
            if pick.overlooked {
                wrong.push((Kind::Urgency, format!("{pick:?}")));
            }
            self.turns.remove(&pick.tenant);
            self.turns.retain(|tenant, _| pick.waiting.contains(tenant));
            for waiting in &pick.waiting {
                let count = self.turns.entry(*waiting).or_default().entry(pick.tenant).or_default();
                *count += 1;
                if *count > TURN {
                    wrong.push((
                        Kind::Unfair,
                        format!("{waiting:?} waits while {:?} has its turn {count} times", pick.tenant),
                    ));
                }
            }
        }
        for (kind, text) in wrong {
            self.violate(kind, text);
        }
    }

    /// When something happens next by itself.
    pub(crate) fn next_event(&self) -> Option<Timestamp> {
        let lane = self.life.as_ref().and_then(|life| life.lane.next_wake());
        [lane, self.receivers.next_end()].into_iter().flatten().min()
    }

    /// Moves time to `target`, stopping wherever something happens.
    pub(crate) fn advance_to(&mut self, target: Timestamp) {
        let mut stands = 0;
        while let Some(next) = self.next_event().filter(|next| *next <= target) {
            if next <= self.now() {
                stands += 1;
                if stands > 3 {
                    return self.violate(Kind::Spin, format!("something is due at {next} for good"));
                }
            } else {
                stands = 0;
                self.clock.advance(next.since(self.now()));
            }
            self.pump();
            if self.is_broken() {
                return;
            }
        }
        self.clock.advance(target.since(self.now()));
        self.pump();
    }

    /// Whether nothing is under way and nothing waits in memory.
    pub(crate) fn rests(&self) -> bool {
        let lane = self.life.as_ref().map(|life| life.lane.scheduler());
        lane.is_none_or(|s| s.in_flight() == 0 && s.heads() == 0 && s.webhooks() == 0)
            && self.receivers.next_end().is_none()
    }

    /// Webhooks that are owed something now, may be sent to, and for which nothing is done.
    pub(crate) fn neglected(&self) -> Vec<usize> {
        if self.receivers.next_end().is_some() {
            return Vec::new();
        }
        let now = self.now();
        let owed = self.disk.owed(None, 10_000).now_or_never().expect("inline").expect("the disk is well");
        let forgotten = self.rests();
        let owed = owed.into_iter().filter(|o| forgotten || o.earliest.iter().flatten().any(|due| *due <= now));
        let paused = |key| {
            let found = self.disk.webhook_by_key(key).now_or_never().expect("inline").expect("the disk is well");
            found.and_then(|webhook| webhook.paused_until).is_some_and(|until| until > now)
        };
        owed.filter(|o| forgotten || !paused(o.webhook))
            .filter_map(|o| self.hooks.iter().find(|h| h.key == o.webhook))
            .map(|hook| hook.receiver)
            .collect()
    }

    /// Looks up what has become of the webhooks, after a change whose answer is not the whole truth.
    pub(crate) fn recall(&mut self, hooks: std::ops::Range<usize>) {
        for hook in &mut self.hooks[hooks] {
            let found = self.disk.webhook_by_key(hook.key).now_or_never().expect("inline").expect("the disk is well");
            let webhook = found.expect("no tenant is deleted here");
            let (enabled, deleted) = (webhook.config.enabled, webhook.deleted_at.is_some());
            if (enabled, deleted) != (hook.enabled, hook.deleted) {
                (hook.enabled, hook.deleted) = (enabled, deleted);
                // Its owner was not told: nothing is held against the engine until then.
                ledger::open(&self.ledger).closed(hook.receiver, false);
            }
        }
    }

    pub(crate) fn after(&self, time: Duration) -> Timestamp {
        self.now().saturating_add(time)
    }
}
