//! Tokens in memory: one per grant, one fetch at a time, fetched anew before they expire.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use gatepost_core::delivery::Outcome;
use gatepost_core::secret::Secret;
use gatepost_core::{Clock, Timestamp};
use http::HeaderValue;
use ipnet::IpNet;

use super::oauth::{ANSWER_MAX, ClientAuth, FETCH_TIMEOUT, Grant, GrantId, NoToken};
use crate::metrics::Metrics;
use crate::net::{OutgoingRequest, Tries};
use crate::transport::Transport;

/// Grants remembered: the ones used longest ago give way (P10).
const GRANTS: usize = 4_096;
/// Bytes of all tokens together: beyond them too.
const TOKEN_BYTES: usize = 32 * 1024 * 1024;
/// A token is no longer used this long before it expires, or a tenth of its life: it must still be
/// valid when it arrives.
const SPARE: Duration = Duration::from_secs(30);
/// It is fetched anew, beside the requests that use it, from this long before that on, or a quarter
/// of its life.
const AHEAD: Duration = Duration::from_secs(300);
/// After a failed fetch beside the requests the next one waits this long.
const AHEAD_AGAIN: Duration = Duration::from_secs(5);
/// An endpoint that answers 401 with a token just fetched gets no further new one for this long: it
/// must not make us ask the token endpoint as often as it likes.
const HOPELESS: Duration = Duration::from_secs(5);

/// A token in use.
pub(super) struct Token {
    number: u64,
    header: HeaderValue,
    renew_at: Timestamp,
    usable_until: Timestamp,
}

impl Token {
    /// `Bearer …`.
    pub(super) fn header(&self) -> &HeaderValue {
        &self.header
    }
}

type Fetch = Shared<BoxFuture<'static, Result<Arc<Token>, NoToken>>>;

/// What is known of one grant.
#[derive(Default)]
struct Entry {
    token: Option<Arc<Token>>,
    /// The one before, which some request may still have been sent with.
    before: Option<Arc<Token>>,
    fetch: Option<Fetch>,
    way: ClientAuth,
    /// No fetch beside the requests before then.
    rests_until: Option<Timestamp>,
    /// No fetch for a 401 before then.
    hopeless_until: Option<Timestamp>,
    used: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.token.iter().chain(&self.before).map(|token| token.header.len()).sum()
    }
}

/// Forgets the tokens used longest ago, but `kept`, until all together hold at most `most` bytes.
fn make_room(entries: &mut HashMap<GrantId, Entry>, kept: GrantId, most: usize) {
    let mut held: usize = entries.values().map(Entry::bytes).sum();
    while held > most {
        let others = entries.iter().filter(|(id, entry)| **id != kept && entry.bytes() > 0);
        let Some(oldest) = others.min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id) else { return };
        if let Some(entry) = entries.get_mut(&oldest) {
            held -= entry.bytes();
            (entry.token, entry.before) = (None, None);
        }
    }
}

/// See the module. Shared with the fetches under way.
pub(super) struct Tokens {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    entries: Mutex<HashMap<GrantId, Entry>>,
    numbers: AtomicU64,
}

impl Tokens {
    pub(super) fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Tokens { transport, clock, metrics, entries: Mutex::default(), numbers: AtomicU64::new(1) }
    }

    /// What the clock shows: for records.
    pub(super) fn shown(&self) -> Timestamp {
        self.clock.now()
    }

    /// How long a token lives is measured by what nobody sets.
    fn now(&self) -> Timestamp {
        self.clock.steady()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<GrantId, Entry>> {
        // Nothing panics while holding it; if it did, the entries would still be whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The grant's token: the one there is, or one fetched within `patience`.
    pub(super) async fn token(
        self: &Arc<Self>,
        grant: &Arc<Grant>,
        nets: &[IpNet],
        patience: Duration,
    ) -> Result<Arc<Token>, NoToken> {
        let now = self.now();
        let fetch = {
            let mut entries = self.lock();
            let entry = self.entry(&mut entries, grant);
            let usable = entry.token.clone().filter(|token| now < token.usable_until);
            if let Some(token) = usable {
                let rests = entry.rests_until.is_some_and(|until| now < until);
                if now >= token.renew_at && !rests && entry.fetch.is_none() {
                    // It goes on beside; this request needs nothing of it.
                    drop(self.begin(entry, grant, nets));
                }
                return Ok(token);
            }
            entry.fetch.clone().unwrap_or_else(|| self.begin(entry, grant, nets))
        };
        self.wait(grant, fetch, patience).await
    }

    /// Another token than `token`, which the endpoint refused. `None`: there is none to be had now.
    pub(super) async fn replace(
        self: &Arc<Self>,
        grant: &Arc<Grant>,
        token: &Token,
        nets: &[IpNet],
        patience: Duration,
    ) -> Option<Result<Arc<Token>, NoToken>> {
        let now = self.now();
        let fetch = {
            let mut entries = self.lock();
            let entry = self.entry(&mut entries, grant);
            let newer =
                entry.token.clone().filter(|present| present.number > token.number && now < present.usable_until);
            if let Some(newer) = newer {
                return Some(Ok(newer));
            }
            match entry.fetch.clone() {
                Some(fetch) => fetch,
                None if entry.hopeless_until.is_some_and(|until| now < until) => return None,
                None => {
                    // What was refused must not be used by anybody meanwhile.
                    entry.before = entry.token.take();
                    self.begin(entry, grant, nets)
                }
            }
        };
        Some(self.wait(grant, fetch, patience).await)
    }

    /// The tokens a request may just have been sent with, as they are sent.
    pub(super) fn in_use(&self, grant: &Grant) -> Vec<Secret> {
        let entries = self.lock();
        let entry = entries.get(&grant.id);
        let tokens = entry.into_iter().flat_map(|entry| entry.token.iter().chain(&entry.before));
        tokens.filter_map(|token| token.header.to_str().ok().map(Secret::new)).collect()
    }

    /// The endpoint took the token.
    pub(super) fn accepted(&self, grant: &Grant) {
        if let Some(entry) = self.lock().get_mut(&grant.id) {
            entry.hopeless_until = None;
        }
    }

    /// The endpoint refused even a new token.
    pub(super) fn refused(&self, grant: &Grant) {
        let until = self.now().saturating_add(HOPELESS);
        if let Some(entry) = self.lock().get_mut(&grant.id) {
            entry.hopeless_until = Some(until);
        }
    }

    fn entry<'e>(&self, entries: &'e mut HashMap<GrantId, Entry>, grant: &Grant) -> &'e mut Entry {
        if entries.len() >= GRANTS
            && !entries.contains_key(&grant.id)
            && let Some(oldest) = entries.iter().min_by_key(|(_, entry)| entry.used).map(|(id, _)| *id)
        {
            entries.remove(&oldest);
        }
        let entry = entries.entry(grant.id).or_default();
        entry.used = self.numbers.fetch_add(1, Ordering::Relaxed);
        entry
    }

    /// Starts a fetch. It goes on by itself: whoever stops waiting takes it from nobody else.
    fn begin(self: &Arc<Self>, entry: &mut Entry, grant: &Arc<Grant>, nets: &[IpNet]) -> Fetch {
        let (tokens, grant, nets, way) = (Arc::clone(self), Arc::clone(grant), nets.to_vec(), entry.way);
        let fetch = async move { tokens.fetch(&grant, &nets, way).await }.boxed().shared();
        entry.fetch = Some(fetch.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(fetch.clone());
        }
        fetch
    }

    async fn wait(&self, grant: &Grant, fetch: Fetch, patience: Duration) -> Result<Arc<Token>, NoToken> {
        match tokio::time::timeout(patience, fetch).await {
            Ok(result) => result,
            Err(_) => {
                let why = format!("it did not answer within {} ms", patience.as_millis());
                Err(grant.failed(Outcome::Timeout, &why, false))
            }
        }
    }

    async fn fetch(&self, grant: &Grant, nets: &[IpNet], way: ClientAuth) -> Result<Arc<Token>, NoToken> {
        let mut way = way;
        let mut result = self.ask(grant, nets, way).await;
        if way == ClientAuth::Header && result.as_ref().is_err_and(|none| none.other_way) {
            let first = result;
            result = self.ask(grant, nets, ClientAuth::Form).await;
            match result {
                Ok(_) => way = ClientAuth::Form,
                // The refusal of what the standard asks for is the one to tell of.
                Err(_) => result = first,
            }
        }
        let now = self.now();
        let mut entries = self.lock();
        let entry = self.entry(&mut entries, grant);
        entry.fetch = None;
        match &result {
            Ok(token) => {
                if let Some(before) = entry.token.replace(Arc::clone(token)) {
                    entry.before = Some(before);
                }
                entry.way = way;
                entry.rests_until = None;
                make_room(&mut entries, grant.id, TOKEN_BYTES);
            }
            Err(_) => entry.rests_until = Some(now.saturating_add(AHEAD_AGAIN)),
        }
        result
    }

    async fn ask(&self, grant: &Grant, nets: &[IpNet], way: ClientAuth) -> Result<Arc<Token>, NoToken> {
        let asked_at = self.now();
        let mut tries = Tries::within(FETCH_TIMEOUT);
        let answer = loop {
            let (method, headers, body) = grant.request(way);
            let request = OutgoingRequest {
                target: &grant.target,
                method,
                headers,
                title_case: true,
                body,
                timeout: tries.left(),
                allow_nets: nets,
                identity: None,
                http1: false,
                fresh: tries.again(),
            };
            if let Some(answer) = tries.judge(self.transport.send_reading(request, ANSWER_MAX).await) {
                break answer;
            }
        };
        let granted = grant.read(&answer);
        let outcome = match (&granted, answer.status) {
            (Ok(_), _) => "ok",
            (Err(_), Some(200..300)) => "unreadable",
            (Err(_), Some(_)) => "refused",
            (Err(_), None) => answer.outcome.as_str(),
        };
        self.metrics.token_fetched(outcome);
        let granted = granted.inspect_err(|none| tracing::debug!(error = none.error, "no token"))?;
        let life = granted.lifetime;
        let usable = life - SPARE.min(life / 10);
        let ahead = AHEAD.min(life / 4);
        Ok(Arc::new(Token {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            header: granted.header,
            // Counted from before the question: what is on the way counts against the token's life.
            renew_at: asked_at.saturating_add(usable.saturating_sub(ahead)),
            usable_until: asked_at.saturating_add(usable),
        }))
    }

    #[cfg(test)]
    pub(super) fn note_for_test(&self, grant: &Grant) {
        let mut entries = self.lock();
        self.entry(&mut entries, grant);
    }

    #[cfg(test)]
    pub(super) fn len_for_test(&self) -> usize {
        self.lock().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p10_tokens_of_all_grants_have_a_bound_together() {
        let entry = |used: u8| {
            let header = HeaderValue::from_static("Bearer 345");
            let token = Token { number: 1, header, renew_at: Timestamp::EPOCH, usable_until: Timestamp::EPOCH };
            ([used; 32], Entry { token: Some(Arc::new(token)), used: used.into(), ..Entry::default() })
        };
        let mut entries: HashMap<GrantId, Entry> = (1..=5).map(entry).collect();
        make_room(&mut entries, [1; 32], 25);
        let mut with_token: Vec<u64> = entries.values().filter(|e| e.token.is_some()).map(|e| e.used).collect();
        with_token.sort_unstable();
        assert_eq!((entries.len(), with_token), (5, vec![1, 5]));
        make_room(&mut entries, [1; 32], 1);
        assert!(entries[&[1; 32]].token.is_some(), "the one at hand stays");
    }
}
