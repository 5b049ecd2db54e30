//! One connection's timer: set when it is first needed, and set anew only when it has run down.
//!
//! For each request hyper asks for a new deadline by which its head must be there, and mostly gives it
//! up at once. Setting a timer and taking it back costs more than everything else about it; so there is
//! one, which may run down early and is then set for what is left.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Timer;
use tokio::time::{Instant, Sleep, sleep_until};

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Alarm(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

impl Timer for Alarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Deadline { at: Instant::now() + duration, alarm: self.clone() })
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Deadline { at: deadline.into(), alarm: self.clone() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

/// A moment to wait for. Those of one alarm are waited for one after the other, by one task.
struct Deadline {
    at: Instant,
    alarm: Alarm,
}

impl hyper::rt::Sleep for Deadline {}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.alarm.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sleep = alarm.get_or_insert_with(|| Box::pin(sleep_until(self.at)));
        loop {
            if sleep.deadline() > self.at {
                sleep.as_mut().reset(self.at);
            }
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if sleep.deadline() >= self.at {
                return Poll::Ready(());
            }
            // It was set for an earlier one.
            sleep.as_mut().reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_deadline_is_kept_whatever_was_waited_for_before() {
        let (alarm, second) = (Alarm::default(), Duration::from_secs(1));
        let start = Instant::now();
        for seconds in [3, 1, 5] {
            // Given up, as by a head that came.
            let mut given_up = alarm.sleep(seconds * 20 * second);
            assert!(futures_util::future::poll_immediate(&mut given_up).await.is_none());
            drop(given_up);
            let began = Instant::now();
            alarm.sleep(seconds * second).await;
            assert_eq!(began.elapsed().as_secs(), u64::from(seconds));
        }
        assert_eq!(start.elapsed().as_secs(), 9);
        alarm.sleep_until(Timer::now(&alarm) + 7 * second).await;
        assert_eq!(start.elapsed().as_secs(), 16);
    }
}
