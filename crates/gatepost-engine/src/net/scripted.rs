//! A resolver that says what a test tells it to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::resolve::{Resolve, ResolveError};

/// What the resolver answers to one question.
pub type Answer = Result<Vec<IpAddr>, ResolveError>;

/// Answers from a table in which a name's answer may change from one question to the next, as a
/// rebinding attacker's does.
#[derive(Default)]
pub struct ScriptedResolver {
    names: Mutex<HashMap<String, Vec<Answer>>>,
    asked: AtomicUsize,
    down: AtomicBool,
    silent: AtomicBool,
}

impl ScriptedResolver {
    /// A resolver that knows no name.
    pub fn new() -> Self {
        ScriptedResolver::default()
    }

    /// `name` has these addresses, always.
    #[must_use]
    pub fn name(self, name: &str, ips: &[&str]) -> Self {
        self.script(name, vec![Ok(ips.iter().filter_map(|ip| ip.parse().ok()).collect())]);
        self
    }

    /// `name` is answered with each of `answers` in turn, and with the last one from then on.
    pub fn script(&self, name: &str, mut answers: Vec<Answer>) {
        answers.reverse();
        self.names.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), answers);
    }

    /// Says no more words until told otherwise; `up` is what it answers about itself meanwhile.
    pub fn fall_silent(&self, up: bool) {
        self.silent.store(true, Ordering::Relaxed);
        self.down.store(!up, Ordering::Relaxed);
    }

    /// How many questions were asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Resolve for ScriptedResolver {
    async fn resolve(&self, name: &str) -> Answer {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.silent.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(answers) = names.get_mut(name) else { return Err(ResolveError::NoSuchName) };
        if answers.len() > 1 { answers.pop() } else { answers.first().cloned() }
            .unwrap_or(Err(ResolveError::NoSuchName))
    }

    async fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }
}
