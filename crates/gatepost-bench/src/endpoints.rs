//! Many endpoints far away: whether a server keeps its connections, and how soon it delivers then.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Method;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Run;
use super::faraway::{Faraway, Kind, Seen};
use super::ledger::Ledger;
use super::load::{Applied, Form, Load, Pace};
use super::measure::{cpu_by_thread, millis, percentile, process_cpu, resident};
use super::process::{Folder, ServerProcess};
use super::report::{Bar, Report};

const SCENARIO: &str = "endpoints";
/// How far away they are.
const ROUND_TRIP: Duration = Duration::from_millis(100);
/// Events a second.
const PER_SECOND: u32 = 500;
/// One endpoint in so many is dead.
const DEAD_IN: usize = 100;
/// Connections of the publishers: more than are ever needed at once, unless the server stalls.
const PUBLISHERS: usize = 64;
/// Tenants and webhooks made at once.
const MAKERS: usize = 32;
/// How much shorter the phase without dead endpoints is.
const ALONE: u32 = 4;
/// Without any arrival for so long, nothing more is expected; the longest it takes to record outcomes.
const SILENCE: Duration = Duration::from_secs(30);
/// How often counters are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Descriptors a process needs besides its endpoints'.
const OTHER_DESCRIPTORS: u64 = 400;
const EXTRA_CA: &str = "endpoints-ca.pem";
const MIB: f64 = (1 << 20) as f64;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Endpoints.
    pub(super) count: usize,
    /// Of the steady load.
    pub(super) length: Duration,
    /// They speak HTTP/2.
    pub(super) http2: bool,
}

/// A server with as many tenants as there are endpoints, one webhook each.
struct Far {
    server: Arc<ServerProcess>,
    receivers: Faraway,
    _folder: Folder,
}

/// What came of one phase.
struct Phase {
    applied: Applied,
    /// From when an event was due to its arrival, for those whose endpoint lives.
    waits: Vec<u64>,
    seen: Seen,
    lost: u64,
    duplicates: u64,
}

impl Phase {
    fn wait(&self, percent: f64) -> f64 {
        millis(percentile(&mut self.waits.clone(), percent))
    }
}

/// Which endpoint each event goes to: at random, the same in every run (SplitMix64).
fn at_random(endpoints: &[usize], events: usize) -> Vec<usize> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    };
    // There are far fewer endpoints than words.
    (0..events).map(|_| endpoints[(next() % endpoints.len() as u64) as usize]).collect()
}

/// Each connection has two ends, of which one is in this process, where every endpoint listens too.
fn check_descriptors(endpoints: usize) -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused, what there is decides.
    let _ = setrlimit(Resource::Nofile, limit);
    let needed = 2 * endpoints as u64 + OTHER_DESCRIPTORS;
    let granted = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    ensure!(
        granted >= needed,
        "{endpoints} endpoints need {needed} open files and this system grants {granted}; \
         raise the hard limit (ulimit -Hn) or ask for fewer with --endpoints"
    );
    Ok(())
}

/// How many of these events were accepted and have not arrived.
fn missing(ledger: &Ledger, numbers: &[usize]) -> u64 {
    let missing = |number: &&usize| ledger.is_accepted(**number) && ledger.arrival(**number).is_none();
    numbers.iter().filter(missing).count() as u64
}

impl Far {
    async fn set(run: &Run, plan: Plan) -> Result<Far> {
        check_descriptors(plan.count)?;
        let kind = Kind { count: plan.count, dead: plan.count / DEAD_IN, round_trip: ROUND_TRIP, http2: plan.http2 };
        let receivers = Faraway::start(kind, run.watch)?;
        let folder = Folder::new(run.dir.as_ref())?;
        std::fs::write(folder.path().join(EXTRA_CA), receivers.ca_pem())?;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = ServerProcess::start_with(&run.program, folder.path(), any, &["--extra-ca", EXTRA_CA]).await?;
        let far = Far { server: Arc::new(server), receivers, _folder: folder };
        far.register().await?;
        Ok(far)
    }

    /// Makes the tenants and their webhooks.
    async fn register(&self) -> Result<()> {
        let urls: Arc<[String]> = (0..self.receivers.kind().count).map(|at| self.receivers.url(at)).collect();
        let next = Arc::new(AtomicUsize::new(0));
        let mut makers = JoinSet::new();
        for _ in 0..MAKERS {
            let (server, urls, next) = (Arc::clone(&self.server), Arc::clone(&urls), Arc::clone(&next));
            makers.spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(url) = urls.get(at) else { return anyhow::Ok(()) };
                    let tenant = format!("/v1/tenants/bench-{at}");
                    server.call(Method::PUT, &tenant, Some(&json!({}))).await?;
                    let webhook = json!({ "name": "far away", "url": url, "events": ["*"] });
                    server.call(Method::POST, &format!("{tenant}/webhooks"), Some(&webhook)).await?;
                }
            });
        }
        while let Some(made) = makers.join_next().await {
            made.context("a maker panicked")??;
        }
        Ok(())
    }

    fn resident(&self) -> f64 {
        resident(self.server.pid()).map_or(f64::NAN, |(now, _)| now as f64 / MIB)
    }

    /// One event after the other to the endpoints given, each when it is due.
    async fn play(&self, run: &Run, endpoints: &[usize]) -> Result<Phase> {
        let ledger = Arc::new(Ledger::new(endpoints.len(), 1));
        self.receivers.watch(&ledger);
        let (before, recorded) = (self.receivers.seen(), self.recorded().await?);
        let load = Load {
            addr: self.server.addr(),
            paths: endpoints.iter().map(|at| format!("/v1/tenants/bench-{at}/events")).collect(),
            key: Some(self.server.authorization()),
            form: Form::Event { urgency: None },
            // One more than it takes: rounding must not leave one out.
            pace: Pace::Open(PER_SECOND, Duration::from_secs_f64((endpoints.len() + 1) as f64 / f64::from(PER_SECOND))),
            connections: PUBLISHERS,
            ledger: Arc::clone(&ledger),
        };
        let applied = load.apply(run.watch).await?;
        let kind = self.receivers.kind();
        let healthy: Vec<usize> = (0..endpoints.len()).filter(|number| !kind.is_dead(endpoints[*number])).collect();
        self.arrive(&ledger, &healthy, recorded).await?;
        let due = |number: usize| Load::due(PER_SECOND, applied.began, number);
        let waits = healthy.iter().filter_map(|n| Some(ledger.arrival(*n)?.saturating_sub(due(*n))));
        Ok(Phase {
            waits: waits.collect(),
            seen: self.receivers.seen().since(before),
            lost: missing(&ledger, &healthy),
            duplicates: ledger.balance().duplicates,
            applied,
        })
    }

    /// Waits until all of these events arrived, or nothing comes any more; and until that is recorded.
    async fn arrive(&self, ledger: &Ledger, numbers: &[usize], recorded: f64) -> Result<()> {
        let (mut seen, mut since) = (ledger.distinct(), Instant::now());
        while missing(ledger, numbers) > 0 && since.elapsed() < SILENCE {
            tokio::time::sleep(LOOK).await;
            let now = ledger.distinct();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
        let until = Instant::now() + SILENCE;
        while self.recorded().await? - recorded < ledger.distinct() as f64 && Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Deliveries that came to an end.
    async fn recorded(&self) -> Result<f64> {
        Ok(self.server.metrics().await?.sum("gatepost_deliveries_ended_total"))
    }
}

/// What the server and the receivers spent so far.
struct Cpu {
    server: Option<f64>,
    receivers: Option<f64>,
    threads: BTreeMap<String, f64>,
}

impl Cpu {
    fn read(far: &Far) -> Cpu {
        let pid = far.server.pid();
        Cpu { server: process_cpu(pid), receivers: far.receivers.cpu(), threads: cpu_by_thread(pid) }
    }

    fn since(&self, before: &Cpu) -> Cpu {
        let less = |after: Option<f64>, before: Option<f64>| Some(after? - before?);
        let threads = self.threads.iter().map(|(name, cpu)| {
            let spent = cpu - before.threads.get(name).copied().unwrap_or(0.0);
            (name.clone(), spent.max(0.0))
        });
        Cpu {
            server: less(self.server, before.server),
            receivers: less(self.receivers, before.receivers),
            threads: threads.collect(),
        }
    }
}

/// The server's memory, in MiB.
struct Resident {
    before: f64,
    met: f64,
    after: f64,
}

/// The three phases: each endpoint that lives is met once; a steady load on those; a steady load on all.
struct Phases {
    first: Phase,
    alone: Phase,
    steady: Phase,
}

impl Run {
    /// A steady load on many endpoints far away, some of them dead.
    pub(super) async fn endpoints(&mut self) -> Result<()> {
        let plan = self.endpoints;
        self.say(format_args!("{SCENARIO}: making {} tenants with one webhook each", plan.count));
        let far = Far::set(self, plan).await?;
        let kind = far.receivers.kind();
        let living: Vec<usize> = (0..plan.count).filter(|at| !kind.is_dead(*at)).collect();
        let all: Vec<usize> = (0..plan.count).collect();
        let events = |length: Duration| (f64::from(PER_SECOND) * length.as_secs_f64()).ceil() as usize;

        self.say(format_args!("{SCENARIO}: meeting each of the {} that live", living.len()));
        let before = far.resident();
        let first = far.play(self, &living).await?;
        let met = far.resident();
        let alone_for = plan.length / ALONE;
        self.say(format_args!("{SCENARIO}: {PER_SECOND}/s to those that live, {} s", alone_for.as_secs()));
        let alone = far.play(self, &at_random(&living, events(alone_for))).await?;
        self.say(format_args!("{SCENARIO}: {PER_SECOND}/s to all, {} s", plan.length.as_secs()));
        let cpu = Cpu::read(&far);
        let steady = far.play(self, &at_random(&all, events(plan.length))).await?;
        let cpu = Cpu::read(&far).since(&cpu);
        let resident = Resident { before, met, after: far.resident() };

        let waiting = far.server.metrics().await?.sum("gatepost_attempts_in_flight");
        let phases = Phases { first, alone, steady };
        phases.figures(&far, &mut self.report);
        phases.problems(&far, &mut self.report);
        let (arrivals, report) = (phases.steady.seen.arrivals as f64, &mut self.report);
        let mut add = |name: &str, unit, value: f64| report.add(SCENARIO, name, unit, &[value], None);
        add("requests to dead endpoints under way at the end", "", waiting);
        add("server resident before the first delivery", "MiB", resident.before);
        add("server resident once all are met", "MiB", resident.met);
        add("server resident at the end", "MiB", resident.after);
        let more = (resident.met - resident.before) * 1_024.0 / living.len() as f64;
        add("more memory for each endpoint met", "KiB", more);
        let each = |cpu: Option<f64>| cpu.map_or(f64::NAN, |cpu| cpu * 1e6 / arrivals);
        add("server CPU per delivery", "µs", each(cpu.server));
        add("receivers' CPU per delivery", "µs", each(cpu.receivers));
        report.threads(SCENARIO, &cpu.threads);
        Ok(())
    }
}

impl Phases {
    fn each(&self) -> [&Phase; 3] {
        [&self.first, &self.alone, &self.steady]
    }

    fn lost(&self) -> u64 {
        self.each().iter().map(|phase| phase.lost).sum()
    }

    fn figures(&self, far: &Far, report: &mut Report) {
        let Phases { first, alone, steady } = self;
        let in_all = far.receivers.seen();
        let published = millis(percentile(&mut steady.applied.waits.clone(), 99.0));
        let duplicates: u64 = self.each().iter().map(|phase| phase.duplicates).sum();
        let mut add = |name: &str, unit, value: f64, bar| report.add(SCENARIO, name, unit, &[value], bar);
        add("endpoints", "", far.receivers.kind().count as f64, None);
        add("deliveries to those that live", "", steady.waits.len() as f64, None);
        add("reused connection, once met", "", steady.seen.reused(), Bar::above(0.9, 0.98));
        add("reused connection, first meetings included", "", in_all.reused(), None);
        add("healthy p99", "ms", steady.wait(99.0), Bar::below(1_000.0, 250.0));
        add("healthy p50", "ms", steady.wait(50.0), None);
        add("healthy, the longest", "ms", steady.wait(100.0), None);
        add("p99 without dead endpoints", "ms", alone.wait(99.0), None);
        add("first meetings p50", "ms", first.wait(50.0), None);
        add("first meetings p99", "ms", first.wait(99.0), None);
        add("publish answered, p99", "ms", published, None);
        add("lost", "", self.lost() as f64, Bar::below(0.0, 0.0));
        add("duplicates", "", duplicates as f64, None);
        add("connections to dead endpoints", "", steady.seen.to_dead as f64, None);
    }

    /// What must not have happened.
    fn problems(&self, far: &Far, report: &mut Report) {
        for phase in self.each() {
            if phase.applied.failed > 0 {
                let why = phase.applied.failure.as_deref().unwrap_or("unknown");
                report.problem(SCENARIO, format_args!("{} requests failed ({why})", phase.applied.failed));
            }
        }
        let (lost, errors, strays) = (self.lost(), far.server.errors(), far.receivers.seen().strays);
        if lost > 0 {
            report.problem(SCENARIO, format_args!("{lost} accepted events did not arrive"));
        }
        if errors > 0 {
            report.problem(SCENARIO, format_args!("{errors} errors in the server's log"));
        }
        if strays > 0 {
            report.problem(SCENARIO, format_args!("{strays} requests nobody expected"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_spread_over_the_endpoints_by_chance_and_the_same_way_each_time() {
        let endpoints: Vec<usize> = (0..100).filter(|at| at % 2 == 0).collect();
        let chosen = at_random(&endpoints, 10_000);
        assert_eq!(chosen, at_random(&endpoints, 10_000));
        assert!(chosen.iter().all(|at| endpoints.contains(at)));
        for at in endpoints {
            let times = chosen.iter().filter(|chosen| **chosen == at).count();
            assert!((100..=300).contains(&times), "{at}: {times} times of 200 expected");
        }
    }

    #[test]
    fn too_many_endpoints_for_this_system_are_refused_in_words() {
        assert!(check_descriptors(1).is_ok());
        if getrlimit(Resource::Nofile).current.is_some() {
            let refused = check_descriptors(usize::MAX / 4).unwrap_err().to_string();
            assert!(refused.contains("--endpoints"), "{refused}");
        }
    }
}
