//! The client against real sockets: good receivers, bad ones, and attackers.

mod answers;
mod egress;
mod floods;
mod hostile;
mod many;
mod resend;
mod reuse;
mod secure;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gatepost_testkit::ManualClock;
use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;

use super::{Client, ClientOptions, EgressPolicy, Exchange, OutgoingRequest, ScriptedResolver, Target};

/// Long enough that only a hang runs into it.
const PATIENT: Duration = Duration::from_secs(20);

/// A client with everything about it in a test's hands.
struct World {
    client: Client,
    policy: Arc<EgressPolicy>,
    resolver: Arc<ScriptedResolver>,
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|n| n.parse().expect("a network")).collect()
}

/// A world that may call loopback's first address.
fn world() -> World {
    World::allowing(&["127.0.0.1/32"], ScriptedResolver::new(), None)
}

impl World {
    fn allowing(allow: &[&str], resolver: ScriptedResolver, extra_ca: Option<&str>) -> World {
        let policy = Arc::new(EgressPolicy::new(nets(allow)));
        let resolver = Arc::new(resolver);
        let client = Client::new(ClientOptions {
            policy: policy.clone(),
            resolver: resolver.clone(),
            clock: Arc::new(ManualClock::default()),
            user_agent: HeaderValue::from_static("Gatepost/test"),
            extra_ca_pem: extra_ca.map(|pem| pem.as_bytes().to_vec()),
        })
        .expect("a client");
        World { client, policy, resolver }
    }

    async fn post(&self, url: &str) -> Exchange {
        self.post_within(url, PATIENT).await
    }

    async fn post_within(&self, url: &str, timeout: Duration) -> Exchange {
        let target = Target::parse(url).expect("a URL");
        self.client.send(OutgoingRequest { timeout, ..request(&target) }).await
    }

    async fn post_with_nets(&self, url: &str, allow_nets: &[IpNet]) -> Exchange {
        let target = Target::parse(url).expect("a URL");
        self.client.send(OutgoingRequest { allow_nets, ..request(&target) }).await
    }
}

fn request(target: &Target) -> OutgoingRequest<'_> {
    OutgoingRequest {
        target,
        method: Method::POST,
        headers: [header("content-type", "application/json"), header("webhook-id", "evt_1")].into(),
        title_case: false,
        body: Bytes::from_static(b"{\"a\":1}"),
        timeout: PATIENT,
        allow_nets: &[],
        identity: None,
        http1: false,
        fresh: false,
    }
}

fn header(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static(value))
}

fn error(exchange: &Exchange) -> &str {
    exchange.error.as_deref().unwrap_or_default()
}
