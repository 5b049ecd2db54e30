//! Hosts that agree to HTTP/2 and then ask for HTTP/1.1.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Hosts remembered.
const HOSTS: usize = 1_024;
/// For how long: then HTTP/2 gets another chance.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// See the module. Asked once for each connection that is opened.
#[derive(Default)]
pub(super) struct OnlyHttp1(Mutex<HashMap<Arc<str>, Instant>>);

impl OnlyHttp1 {
    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Instant>> {
        // Nothing panics while holding it; if it did, the list would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host `scheme://host:port` asked for HTTP/1.1.
    pub(super) fn note(&self, host: &Arc<str>) {
        let now = Instant::now();
        let mut hosts = self.lock();
        if hosts.len() >= HOSTS && !hosts.contains_key(host) {
            hosts.retain(|_, until| *until > now);
            let first = hosts.iter().min_by_key(|(_, until)| **until).map(|(host, _)| Arc::clone(host));
            if let Some(first) = first.filter(|_| hosts.len() >= HOSTS) {
                hosts.remove(&first);
            }
        }
        hosts.insert(Arc::clone(host), now + REMEMBERED);
    }

    /// Whether it did lately.
    pub(super) fn has(&self, host: &str) -> bool {
        self.lock().get(host).is_some_and(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn p10_hosts_are_remembered_for_a_while_and_only_so_many() {
        let hosts = OnlyHttp1::default();
        let name = |number: usize| Arc::from(format!("https://h{number}.test:443"));
        hosts.note(&name(0));
        assert!(hosts.has(&name(0)) && !hosts.has(&name(1)));
        tokio::time::advance(REMEMBERED).await;
        assert!(!hosts.has(&name(0)));
        for number in 0..HOSTS * 2 {
            hosts.note(&name(number));
            tokio::time::advance(Duration::from_micros(1)).await;
        }
        assert_eq!(hosts.lock().len(), HOSTS);
        assert!(hosts.has(&name(HOSTS * 2 - 1)) && !hosts.has(&name(0)));
    }
}
