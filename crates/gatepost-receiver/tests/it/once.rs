//! Nothing is done twice, and nothing is lost for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatepost_receiver::{Claim, Memory, NotDone, Once, Ran, Store};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

async fn claim(memory: &Memory, key: &str, seconds: u64) -> Claim {
    memory.claim(key, at(seconds)).await.unwrap()
}

#[tokio::test]
async fn work_is_done_once_and_again_only_if_it_failed() {
    let (once, runs) = (Once::new(Arc::new(Memory::new())), AtomicU32::new(0));
    let work = |fails: bool| {
        let runs = &runs;
        move || async move {
            runs.fetch_add(1, Ordering::Relaxed);
            if fails { Err("no") } else { Ok("yes") }
        }
    };
    assert_eq!(once.run("a", work(true)).await, Err(NotDone::Work("no")));
    assert_eq!(once.run("a", work(false)).await, Ok(Ran::Now("yes")));
    let again = once.run("a", work(false)).await;
    assert_eq!(again, Ok(Ran::Before));
    assert!(again.unwrap().is_done());
    assert_eq!(once.run("b", work(false)).await, Ok(Ran::Now("yes")));
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn twins_at_one_moment_are_not_acknowledged_before_the_work_is_done() {
    let once = Once::new(Memory::new());
    let outer = once
        .run("a", || async {
            let twin = once.run("a", || async { Ok::<_, Infallible>(()) }).await;
            assert_eq!(twin, Ok(Ran::UnderWay));
            assert!(!twin.unwrap().is_done());
            Ok::<_, Infallible>(())
        })
        .await;
    assert_eq!(outer, Ok(Ran::Now(())));
}

#[tokio::test]
async fn who_is_dropped_half_done_holds_nobody_up_for_long() {
    let clock = Arc::new(AtomicU64::new(1_000));
    let now = Arc::clone(&clock);
    let once = Once::new(Memory::new().lease(Duration::from_secs(60)));
    let once = once.clock(move || at(now.load(Ordering::Relaxed)));
    {
        // Begun and dropped: as when the sender hangs up.
        let mut begun = Box::pin(once.run("a", std::future::pending::<Result<(), Infallible>>));
        let waker = std::task::Waker::noop();
        assert!(begun.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_pending());
    }
    clock.store(1_059, Ordering::Relaxed);
    assert_eq!(once.run("a", || async { Ok::<_, Infallible>(()) }).await, Ok(Ran::UnderWay));
    clock.store(1_060, Ordering::Relaxed);
    assert_eq!(once.run("a", || async { Ok::<_, Infallible>(()) }).await, Ok(Ran::Now(())));
}

#[tokio::test]
async fn memory_forgets_by_time_and_by_number() {
    let memory = Memory::new().window(Duration::from_secs(100)).capacity(3);
    for key in ["a", "b", "c"] {
        assert_eq!(claim(&memory, key, 0).await, Claim::New);
        memory.done(key, at(0)).await.unwrap();
    }
    assert_eq!(claim(&memory, "a", 99).await, Claim::Done);
    assert_eq!(claim(&memory, "d", 99).await, Claim::New);
    assert_eq!(memory.len(), 3);
    assert_eq!(claim(&memory, "a", 99).await, Claim::New, "the oldest had to go");
    assert_eq!(claim(&memory, "c", 99).await, Claim::Done);
    assert_eq!(claim(&memory, "c", 100).await, Claim::New, "its time was over");
}

#[tokio::test]
async fn memory_is_bounded_whatever_comes_and_goes() {
    let memory = Memory::new().capacity(10);
    for round in 0..10_000_u64 {
        let key = format!("k{}", round % 37);
        if claim(&memory, &key, round).await == Claim::New && round % 3 == 0 {
            memory.release(&key).await.unwrap();
        }
        assert!(memory.len() <= 10);
    }
    // What was released is free; what was done is not released any more.
    memory.release("x").await.unwrap();
    assert_eq!(claim(&memory, "x", 20_000).await, Claim::New);
    memory.done("x", at(20_000)).await.unwrap();
    memory.release("x").await.unwrap();
    assert_eq!(claim(&memory, "x", 20_001).await, Claim::Done);
    assert!(!memory.is_empty());
}

/// A store that fails.
struct Broken;

impl Store for Broken {
    type Error = &'static str;

    async fn claim(&self, _: &str, _: SystemTime) -> Result<Claim, Self::Error> {
        Err("away")
    }

    async fn done(&self, _: &str, _: SystemTime) -> Result<(), Self::Error> {
        Ok(())
    }

    async fn release(&self, _: &str) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[tokio::test]
async fn without_its_store_nothing_is_begun() {
    let begun = AtomicU32::new(0);
    let work = || async { Ok::<_, Infallible>(begun.fetch_add(1, Ordering::Relaxed)) };
    assert_eq!(Once::new(Broken).run("a", work).await, Err(NotDone::Store("away")));
    assert_eq!(begun.into_inner(), 0);
}
