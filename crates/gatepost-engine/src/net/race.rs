//! A connection where none lies ready: a fresh one, or the first that comes back.
//!
//! A request to a host whose connections are all in use opens another. Far away that takes two or three
//! round trips, while a connection in use comes back after a part of one: whichever is there first is
//! taken. The fresh one is made all the same, and kept for the next time this happens.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::Client;
use super::failure::{Failure, Progress};
use super::identity::ClientIdentity;
use super::pool::{Conn, H1, HostPool};
use super::target::Target;

/// Whom a connection is for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) target: &'a Target,
    pub(super) host: &'a Arc<HostPool>,
    pub(super) allow_nets: &'a [IpNet],
    pub(super) identity: Option<&'a ClientIdentity>,
    pub(super) title_case: bool,
    pub(super) http1: bool,
    pub(super) timeout: Duration,
}

impl Client {
    /// A connection, and whether it was used before.
    pub(super) async fn connect(
        &self,
        wanted: Wanted<'_>,
        may: impl Fn(IpAddr) -> bool,
        progress: &mut Progress,
    ) -> Result<(Conn, bool), Failure> {
        let Some(returned) = wanted.host.wait() else {
            // Nothing is to be expected back.
            let opened = self.open_fresh(wanted, progress).await?;
            return Ok((opened, false));
        };
        let mut opening = self.open_aside(wanted);
        tokio::select! {
            biased;
            Ok(h1) = returned => {
                if may(h1.peer().ip()) {
                    return Ok((Conn::H1(h1), true));
                }
                // Somebody else's network: others may call there.
                self.keep(Arc::clone(wanted.host), h1);
            }
            opened = &mut opening => return told(opened, progress).await,
        }
        told(opening.await, progress).await
    }

    /// Opens a connection in a task of its own, which goes on when the request is served otherwise.
    fn open_aside(&self, wanted: Wanted<'_>) -> oneshot::Receiver<Opened> {
        let (tell, told) = oneshot::channel();
        let (client, target, host) = (self.clone(), wanted.target.clone(), Arc::clone(wanted.host));
        let (allow_nets, identity) = (wanted.allow_nets.to_vec(), wanted.identity.cloned());
        let Wanted { title_case, http1, timeout: within, .. } = wanted;
        tokio::spawn(async move {
            let mut progress = Progress::new();
            let identity = identity.as_ref();
            let (target, host, allow_nets) = (&target, &host, &allow_nets[..]);
            let wanted = Wanted { target, host, allow_nets, identity, title_case, http1, timeout: within };
            let Ok(connection) = timeout(within, client.open_fresh(wanted, &mut progress)).await else { return };
            if let Err(Opened { connection: Ok(Conn::H1(h1)), .. }) = tell.send(Opened { connection, progress }) {
                client.keep(Arc::clone(host), h1);
            }
        });
        told
    }
}

/// What came of opening a connection.
struct Opened {
    connection: Result<Conn, Failure>,
    progress: Progress,
}

async fn told(
    opened: Result<Opened, oneshot::error::RecvError>,
    progress: &mut Progress,
) -> Result<(Conn, bool), Failure> {
    let Ok(Opened { connection, progress: made }) = opened else {
        // There was no time left, or the runtime ends: then the request's time runs out as well.
        return std::future::pending().await;
    };
    *progress = made;
    connection.map(|connection| (connection, false))
}

/// Those who wait for a connection to come back, first come first served.
#[derive(Default)]
pub(super) struct Waiting(VecDeque<oneshot::Sender<H1>>);

impl Waiting {
    /// Stands in line.
    pub(super) fn join(&mut self) -> oneshot::Receiver<H1> {
        // Those who went away meanwhile must not pile up where nothing ever comes back.
        while self.0.front().is_some_and(oneshot::Sender::is_closed) {
            self.0.pop_front();
        }
        let (give, given) = oneshot::channel();
        self.0.push_back(give);
        given
    }

    /// Gives a connection to whoever waits for one; back, if nobody does.
    pub(super) fn give(&mut self, mut h1: H1) -> Option<H1> {
        while let Some(first) = self.0.pop_front() {
            h1 = match first.send(h1) {
                Ok(()) => return None,
                Err(back) => back,
            };
        }
        Some(h1)
    }
}
