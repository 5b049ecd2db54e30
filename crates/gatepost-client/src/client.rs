//! The client and how it is set up.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::answer::Fallback;
use crate::error::BuildError;
use crate::tenant::Tenant;
use crate::transport::Transport;

/// How long publishing is tried when nothing is said.
const PUBLISH_FOR: Duration = Duration::from_secs(10);

/// A Gatepost server to speak to. Cheap to clone: clones share connections.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) transport: Transport,
    pub(crate) fallbacks: HashMap<String, Fallback>,
    pub(crate) publish_for: Duration,
}

impl std::fmt::Debug for Client {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("publish_for", &self.inner.publish_for).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the server at `url` (`https://host[:port]`), with a key that may publish, invoke, or both.
    pub fn builder(url: impl Into<String>, key: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            url: url.into(),
            key: key.into(),
            extra_ca: None,
            fallbacks: HashMap::new(),
            publish_for: PUBLISH_FOR,
        }
    }

    /// One of the server's tenants.
    pub fn tenant(&self, id: impl Into<String>) -> Tenant {
        Tenant::new(self.clone(), id.into())
    }
}

/// Sets up a [`Client`].
pub struct ClientBuilder {
    url: String,
    key: String,
    extra_ca: Option<Vec<u8>>,
    fallbacks: HashMap<String, Fallback>,
    publish_for: Duration,
}

impl ClientBuilder {
    /// What stands for a point or an operation while Gatepost cannot be asked.
    ///
    /// Without one: `policyMap` answers the question's default, `runDeprovision` the value `false`, and
    /// everything else is allowed unchanged, so that nobody's sign-up is stopped by accident.
    #[must_use]
    pub fn fallback(mut self, point: impl Into<String>, fallback: Fallback) -> Self {
        self.fallbacks.insert(point.into(), fallback);
        self
    }

    /// How long [`Tenant::publish`] tries before it gives up; ten seconds unless set.
    #[must_use]
    pub fn publish_for(mut self, time: Duration) -> Self {
        self.publish_for = time;
        self
    }

    /// A certificate authority (PEM) trusted besides the system's.
    #[must_use]
    pub fn extra_ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.extra_ca = Some(pem.into());
        self
    }

    /// The client. Opens no connection yet.
    ///
    /// # Errors
    /// When the address, the key or the extra CA is not what it should be.
    pub fn build(self) -> Result<Client, BuildError> {
        let transport = Transport::new(&self.url, &self.key, self.extra_ca.as_deref())?;
        let inner = Inner { transport, fallbacks: self.fallbacks, publish_for: self.publish_for };
        Ok(Client { inner: Arc::new(inner) })
    }
}
