//! Who is let in: connections in bounded number, and whose goes when there is no room.
//!
//! A connection costs the server something before anybody was asked for a key. So what has not proven
//! itself (no request on it was answered to a right key) has to be quick, may take only part of the room,
//! and is the first to go, the longest idle one before all others: strangers shut nobody out (P5, P10).

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a connection that never brought a request may take to bring the whole head of its first one.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// How long any head may take from its first byte on.
const WHOLE_HEAD: Duration = Duration::from_secs(10);
/// How often it is looked whose time is up.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// One part of so many is kept for those who proved themselves.
const RESERVE: usize = 8;
/// Of the room for strangers, one peer may take one part of so many.
const PEER_SHARE: usize = 2;
/// When there is no room, one in so many of those who may go does: looking for them costs a walk.
const GO_AT_ONCE: usize = 64;

/// Where a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum At {
    /// Nothing came yet.
    Fresh,
    /// Part of a head.
    Head,
    /// A request is under way.
    Busy,
    /// Between requests.
    Idle,
}

/// One connection, as the door knows it.
pub(crate) struct Visitor {
    peer: IpAddr,
    at: AtomicU8,
    /// Milliseconds, by the door's clock, since it is there.
    since: AtomicU64,
    proven: AtomicBool,
    told_to_go: AtomicBool,
    waker: AtomicWaker,
    clock: Instant,
}

impl Visitor {
    fn move_to(&self, at: At) {
        self.at.store(at as u8, Ordering::Relaxed);
        self.since.store(millis(self.clock), Ordering::Relaxed);
    }

    /// Bytes came.
    pub(crate) fn came(&self) {
        let at = self.at.load(Ordering::Relaxed);
        if at == At::Fresh as u8 || at == At::Idle as u8 {
            self.move_to(At::Head);
        }
    }

    /// A request begins.
    pub(crate) fn begins(&self) {
        self.move_to(At::Busy);
    }

    /// A request was answered; `proven`: to somebody with a right key.
    pub(crate) fn answered(&self, proven: bool) {
        if proven {
            self.proven.store(true, Ordering::Relaxed);
        }
        self.move_to(At::Idle);
    }

    /// Who it is.
    pub(crate) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Wakes this task when it is told to go.
    pub(crate) fn listen(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Whether it has to go.
    pub(crate) fn must_go(&self) -> bool {
        self.told_to_go.load(Ordering::Relaxed)
    }

    fn go(&self) {
        self.told_to_go.store(true, Ordering::Relaxed);
        self.waker.wake();
    }

    fn is(&self, at: At) -> bool {
        self.at.load(Ordering::Relaxed) == at as u8
    }

    fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}

fn millis(clock: Instant) -> u64 {
    u64::try_from(clock.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The door of one listener.
pub(crate) struct Door {
    room: usize,
    clock: Instant,
    inside: Mutex<Inside>,
    left: Notify,
}

#[derive(Default)]
struct Inside {
    next: u64,
    visitors: HashMap<u64, Arc<Visitor>>,
}

/// A place inside, given back when it is dropped.
pub(crate) struct Place {
    door: Arc<Door>,
    number: u64,
    /// Who has it.
    pub(crate) visitor: Arc<Visitor>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.inside().visitors.remove(&self.number);
        self.door.left.notify_one();
    }
}

impl Door {
    /// With room for so many.
    pub(crate) fn new(room: usize) -> Arc<Self> {
        let room = room.max(1);
        Arc::new(Door { room, clock: Instant::now(), inside: Mutex::default(), left: Notify::new() })
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one in. Waits only when everybody inside is in the middle of a request.
    pub(crate) async fn admit(self: &Arc<Self>, peer: IpAddr) -> Place {
        loop {
            match self.try_admit(peer) {
                Some(place) => return place,
                None => self.left.notified().await,
            }
        }
    }

    fn try_admit(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let mut inside = self.inside();
        let going = inside.make_room(self.room, peer);
        if inside.visitors.len() >= self.room + going {
            return None;
        }
        let visitor = Arc::new(Visitor {
            peer,
            at: AtomicU8::new(At::Fresh as u8),
            since: AtomicU64::new(millis(self.clock)),
            proven: AtomicBool::new(false),
            told_to_go: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            clock: self.clock,
        });
        inside.next += 1;
        let number = inside.next;
        inside.visitors.insert(number, Arc::clone(&visitor));
        Some(Place { door: Arc::clone(self), number, visitor })
    }

    /// Sends away whoever takes too long over a head.
    pub(crate) fn look(&self) {
        let now = millis(self.clock);
        for visitor in self.inside().visitors.values() {
            let at_most = match () {
                () if visitor.is(At::Fresh) => FIRST_HEAD,
                () if visitor.is(At::Head) => WHOLE_HEAD,
                () => continue,
            };
            if now.saturating_sub(visitor.since.load(Ordering::Relaxed)) > at_most.as_millis() as u64 {
                visitor.go();
            }
        }
    }
}

impl Inside {
    /// Sends away as many as it takes for one more, if there are any to send; answers how many are still
    /// counted but on their way out.
    fn make_room(&mut self, room: usize, peer: IpAddr) -> usize {
        // Nearly always: not so many that anybody has to be looked at.
        let strangers_room = room - room.div_ceil(RESERVE).min(room - 1);
        if self.visitors.len() < strangers_room / PEER_SHARE {
            return 0;
        }
        let staying: Vec<&Arc<Visitor>> = self.visitors.values().filter(|v| !v.must_go()).collect();
        let going = self.visitors.len() - staying.len();
        let strangers = || staying.iter().filter(|v| !v.is_proven());
        let of_peer = strangers().filter(|v| v.peer == peer).count();
        let sent = if of_peer >= strangers_room / PEER_SHARE {
            send_away(strangers().filter(|v| v.peer == peer && !v.is(At::Busy)))
        } else if strangers().count() >= strangers_room {
            let idle = send_away(strangers().filter(|v| !v.is(At::Busy)));
            if idle > 0 || staying.len() < room { idle } else { send_away(strangers()) }
        } else if staying.len() >= room {
            let idle = send_away(strangers().filter(|v| !v.is(At::Busy)));
            if idle > 0 { idle } else { send_away(staying.iter().filter(|v| v.is(At::Idle))) }
        } else {
            0
        };
        going + sent
    }
}

/// Sends away some of these, the longest idle ones first; answers how many.
fn send_away<'a>(these: impl Iterator<Item = &'a &'a Arc<Visitor>>) -> usize {
    let mut these: Vec<_> = these.map(|v| (v.since.load(Ordering::Relaxed), *v)).collect();
    let count = these.len().div_ceil(GO_AT_ONCE);
    if count == 0 {
        return 0;
    }
    if count < these.len() {
        these.select_nth_unstable_by_key(count, |(since, _)| *since);
    }
    these[..count].iter().for_each(|(_, visitor)| visitor.go());
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn fill(door: &Arc<Door>, peer: IpAddr, count: usize) -> Vec<Place> {
        (0..count).map(|_| door.try_admit(peer).unwrap()).collect()
    }

    fn gone(places: &[Place]) -> Vec<usize> {
        places.iter().enumerate().filter(|(_, place)| place.visitor.must_go()).map(|(i, _)| i).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_go_the_longest_idle_first_and_those_who_proved_themselves_stay() {
        let door = Door::new(64);
        let proven = fill(&door, PEER, 10);
        for place in &proven {
            place.visitor.begins();
            place.visitor.answered(true);
        }
        tokio::time::advance(Duration::from_millis(5)).await;
        // An eighth of the room is not for strangers; of the rest one peer has half.
        let first = fill(&door, PEER, 28);
        tokio::time::advance(Duration::from_millis(5)).await;
        let second = fill(&door, OTHER, 26);
        tokio::time::advance(Duration::from_millis(5)).await;
        assert!(gone(&first).is_empty() && gone(&second).is_empty());
        for _ in 0..5 {
            tokio::time::advance(Duration::from_millis(5)).await;
            drop(door.try_admit(OTHER).expect("there is room for one more"));
        }
        assert_eq!(
            (gone(&first).len(), gone(&second).len(), gone(&proven).len()),
            (1, 0, 0),
            "who is going makes room"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_pushes_out_its_own() {
        let door = Door::new(64);
        let healthy = fill(&door, OTHER, 3);
        tokio::time::advance(Duration::from_millis(5)).await;
        let flood = fill(&door, PEER, 28);
        tokio::time::advance(Duration::from_millis(5)).await;
        let more = fill(&door, PEER, 20);
        assert!(gone(&healthy).is_empty());
        assert!(!gone(&flood).is_empty() && gone(&more).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_stays_and_the_next_one_waits() {
        let door = Door::new(8);
        let places = fill(&door, PEER, 3);
        for place in &places {
            place.visitor.begins();
            place.visitor.answered(true);
            place.visitor.begins();
        }
        let more = fill(&door, OTHER, 3);
        more.iter().for_each(|place| {
            place.visitor.begins();
            place.visitor.answered(true);
            place.visitor.begins();
        });
        let last = fill(&door, OTHER, 2);
        last.iter().for_each(|place| {
            place.visitor.begins();
            place.visitor.answered(true);
            place.visitor.begins();
        });
        assert!(door.try_admit(PEER).is_none(), "everybody is in the middle of something");
        assert!(gone(&places).is_empty());
        places[0].visitor.answered(true);
        assert!(door.try_admit(PEER).is_some());
        assert_eq!(gone(&places), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn heads_have_their_time() {
        let door = Door::new(64);
        let (fresh, slow, idle) =
            (door.try_admit(PEER).unwrap(), door.try_admit(PEER).unwrap(), door.try_admit(PEER).unwrap());
        idle.visitor.begins();
        idle.visitor.answered(false);
        tokio::time::advance(Duration::from_secs(6)).await;
        slow.visitor.came();
        door.look();
        assert!(!fresh.visitor.must_go() && !slow.visitor.must_go());
        tokio::time::advance(Duration::from_secs(6)).await;
        slow.visitor.came();
        door.look();
        assert!(fresh.visitor.must_go() && !slow.visitor.must_go());
        tokio::time::advance(Duration::from_secs(6)).await;
        door.look();
        assert!(slow.visitor.must_go(), "a byte now and then is no head");
        assert!(!idle.visitor.must_go(), "between requests a connection may rest");
    }
}
