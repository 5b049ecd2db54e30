//! Receivers without a network: every one behaves as the seed says, in virtual time.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gatepost_core::delivery::{Outcome, Response, Timings};
use gatepost_core::{Clock as _, DeliveryId, DeliverySeq, Timestamp};
use gatepost_testkit::ManualClock;
use tokio::sync::oneshot;

use super::dice::Dice;
use super::ledger::{self, Request, Shared};
use crate::net::{Exchange, OutgoingRequest};
use crate::transport::Transport;

/// How a receiver answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Manner {
    Well,
    Status(u16),
    /// 429 or 503, asking for so many seconds.
    Later(u16, u32),
    Silent,
    Reset,
    Refuses,
    /// Any of the others, by chance.
    Moody,
    /// Well, after some seconds.
    Slow,
    /// Our own side fails.
    NoDescriptors,
}

impl Manner {
    pub(crate) fn any(dice: &mut Dice) -> Manner {
        match dice.below(20) {
            0..=5 => Manner::Well,
            6..=7 => Manner::Status(500),
            8 => Manner::Status(404),
            9 => Manner::Later(429, 1 + dice.below(40) as u32),
            10 => Manner::Later(503, 1 + dice.below(40) as u32),
            11 => Manner::Status(410),
            12..=13 => Manner::Silent,
            14 => Manner::Reset,
            15 => Manner::Refuses,
            16..=17 => Manner::Moody,
            18 => Manner::Slow,
            _ => Manner::NoDescriptors,
        }
    }
}

struct Pending {
    at: Timestamp,
    /// Requests that end at the same moment end in the order they began.
    order: u64,
    delivery: DeliverySeq,
    exchange: Exchange,
    reply: oneshot::Sender<Exchange>,
}

struct Net {
    dice: Dice,
    manners: Vec<Manner>,
    pending: Vec<Pending>,
    order: u64,
}

/// All receivers: `https://r0.sim.example/`, `https://r1.sim.example/`, ...
pub(crate) struct Receivers {
    clock: Arc<ManualClock>,
    ledger: Shared,
    net: Mutex<Net>,
}

/// The URL of a receiver.
pub(crate) fn url(hook: usize) -> String {
    format!("https://r{hook}.sim.example/in")
}

/// The receiver behind a URL.
pub(crate) fn hook_of(url: &str) -> usize {
    let digits = url.trim_start_matches("https://r").split('.').next().unwrap_or_default();
    digits.parse().expect("only receivers of the simulation are called")
}

impl Receivers {
    pub(crate) fn new(clock: Arc<ManualClock>, ledger: Shared, dice: Dice) -> Self {
        let net = Net { dice, manners: Vec::new(), pending: Vec::new(), order: 0 };
        Receivers { clock, ledger, net: Mutex::new(net) }
    }

    fn net(&self) -> MutexGuard<'_, Net> {
        self.net.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new receiver; its number.
    pub(crate) fn add(&self, manner: Manner) -> usize {
        let mut net = self.net();
        net.manners.push(manner);
        net.manners.len() - 1
    }

    pub(crate) fn behave(&self, hook: usize, manner: Manner) {
        self.net().manners[hook] = manner;
    }

    pub(crate) fn all_well(&self) {
        self.net().manners.fill(Manner::Well);
    }

    /// When the next request ends.
    pub(crate) fn next_end(&self) -> Option<Timestamp> {
        self.net().pending.iter().map(|p| p.at).min()
    }

    /// Ends what is over by now; whether there was something.
    pub(crate) fn end_due(&self) -> bool {
        let now = self.clock.steady();
        let mut net = self.net();
        // Nobody listens any more to one whose webhook was deleted: it ended then.
        let (mut due, later): (Vec<_>, Vec<_>) =
            net.pending.drain(..).partition(|p| p.at <= now || p.reply.is_closed());
        net.pending = later;
        drop(net);
        due.sort_by_key(|p| (p.at, p.order));
        let some = !due.is_empty();
        for pending in due {
            let exchange = pending.exchange;
            let (outcome, local_fault) = match pending.reply.is_closed() {
                true => (Outcome::Reset, false),
                false => (exchange.outcome, exchange.local_fault),
            };
            ledger::open(&self.ledger).answered(pending.delivery, outcome, local_fault);
            // Nobody listens when the engine crashed; then it was not heard, and is cleared there.
            let _ = pending.reply.send(exchange);
        }
        some
    }

    /// The engine is gone, and every request with it.
    pub(crate) fn cut_off(&self) {
        self.net().pending.clear();
    }

    fn arrive(&self, request: &OutgoingRequest<'_>) -> oneshot::Receiver<Exchange> {
        let (now, shown) = (self.clock.steady(), self.clock.now());
        let header = |name: &str| {
            let found = request.headers.iter().find(|(n, _)| n.as_str() == name);
            found.and_then(|(_, value)| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let delivery_id = header("gatepost-delivery-id");
        let delivery = delivery_id.parse::<DeliveryId>().map_or(DeliverySeq(-1), DeliveryId::seq);
        let hook = hook_of(request.target.url());
        ledger::open(&self.ledger).requested(Request {
            hook,
            delivery,
            delivery_id,
            event_id: header("gatepost-event-id"),
            webhook_id: header("webhook-id"),
            attempt: header("gatepost-attempt").parse().unwrap_or(0),
            body: request.body.clone(),
            at: now,
            shown,
        });
        let (reply, answer) = oneshot::channel();
        let mut net = self.net();
        let manner = net.manners[hook];
        let (took, exchange) = exchange(&mut net.dice, manner, shown, request.timeout);
        if exchange.status == Some(410) {
            ledger::open(&self.ledger).gone = true;
        }
        net.order += 1;
        let order = net.order;
        net.pending.push(Pending { at: now.saturating_add(took), order, delivery, exchange, reply });
        answer
    }
}

impl Transport for Receivers {
    fn send<'a>(&'a self, request: OutgoingRequest<'a>) -> Pin<Box<dyn Future<Output = Exchange> + Send + 'a>> {
        Box::pin(async move {
            match self.arrive(&request).await {
                Ok(exchange) => exchange,
                Err(_) => std::future::pending().await,
            }
        })
    }
}

fn exchange(dice: &mut Dice, manner: Manner, now: Timestamp, timeout: Duration) -> (Duration, Exchange) {
    let quick = Duration::from_micros(500 + dice.below(40_000));
    let (took, outcome, status, retry_after) = match manner {
        Manner::Well => (quick, Outcome::Ok, Some(200), None),
        Manner::Status(status) => (quick, Outcome::of_status(status), Some(status), None),
        Manner::Later(status, seconds) => (quick, Outcome::HttpStatus, Some(status), Some(seconds)),
        Manner::Silent => (timeout, Outcome::Timeout, None, None),
        Manner::Reset => (quick, Outcome::Reset, None, None),
        Manner::Refuses => (quick, Outcome::Connect, None, None),
        Manner::Slow => (Duration::from_millis(1_100 + dice.below(4_000)), Outcome::Ok, Some(204), None),
        Manner::NoDescriptors => (quick, Outcome::Connect, None, None),
        Manner::Moody => loop {
            let other = Manner::any(dice);
            if !matches!(other, Manner::Moody | Manner::Status(410)) {
                return exchange(dice, other, now, timeout);
            }
        },
    };
    let headers = retry_after.map(|s| ("Retry-After".to_owned(), s.to_string())).into_iter().collect();
    let exchange = Exchange {
        started_at: now,
        outcome,
        status,
        error: (outcome != Outcome::Ok).then(|| outcome.as_str().to_owned()),
        timings: Timings { total_us: took.as_micros() as u32, ..Timings::default() },
        response: status.map(|_| Response { headers, ..Response::default() }),
        local_fault: manner == Manner::NoDescriptors,
        unusable: false,
        resend: Default::default(),
    };
    (took, exchange)
}
