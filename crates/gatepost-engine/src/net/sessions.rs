//! TLS sessions to be resumed: what a fresh connection to a receiver called before need not do again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// Tickets kept of a server: each serves once, and each connection brings new ones, usually two. More
/// would serve bursts after a silence only, and each holds the server's chain of certificates.
const TICKETS: usize = 2;

/// Sessions by server; when there are too many, that of the server not called for longest is forgotten.
///
/// rustls has a store of its own, which holds eight tickets of each server and forgets the server met
/// first, however often that is called.
pub(super) struct Sessions<T12 = Tls12ClientSessionValue, T13 = Tls13ClientSessionValue> {
    kept: Mutex<Kept<T12, T13>>,
    most: usize,
}

struct Kept<T12, T13> {
    servers: HashMap<ServerName<'static>, Session<T12, T13>>,
    /// The server of each turn, the longest ago first.
    turns: BTreeMap<u64, ServerName<'static>>,
    next_turn: u64,
}

struct Session<T12, T13> {
    /// Of its last use.
    turn: u64,
    group: Option<NamedGroup>,
    tls12: Option<T12>,
    tls13: VecDeque<T13>,
}

impl<T12, T13> Kept<T12, T13> {
    /// What is kept of a server, which is used by that.
    fn of(&mut self, server: &ServerName<'static>) -> Option<&mut Session<T12, T13>> {
        let session = self.servers.get_mut(server)?;
        if let Some(name) = self.turns.remove(&session.turn) {
            session.turn = self.next_turn;
            self.turns.insert(self.next_turn, name);
            self.next_turn += 1;
        }
        Some(session)
    }

    fn add(&mut self, server: ServerName<'static>, most: usize) {
        if self.servers.len() >= most
            && let Some((_, last)) = self.turns.pop_first()
        {
            self.servers.remove(&last);
        }
        let turn = self.next_turn;
        self.next_turn += 1;
        self.turns.insert(turn, server.clone());
        self.servers.insert(server, Session { turn, group: None, tls12: None, tls13: VecDeque::new() });
    }
}

impl<T12, T13> Sessions<T12, T13> {
    /// Of at most so many servers.
    pub(super) fn of(servers: usize) -> Self {
        let kept = Kept { servers: HashMap::new(), turns: BTreeMap::new(), next_turn: 0 };
        Sessions { kept: Mutex::new(kept), most: servers.max(1) }
    }

    fn lock(&self) -> MutexGuard<'_, Kept<T12, T13>> {
        // Nothing panics while holding the lock; if it did, the lists would still be whole.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<R>(&self, server: &ServerName<'static>, work: impl FnOnce(&mut Session<T12, T13>) -> R) -> Option<R> {
        self.lock().of(server).map(work)
    }

    /// Keeps something of a server.
    fn keep(&self, server: ServerName<'static>, work: impl FnOnce(&mut Session<T12, T13>)) {
        let mut kept = self.lock();
        if kept.of(&server).is_none() {
            kept.add(server.clone(), self.most);
        }
        if let Some(session) = kept.of(&server) {
            work(session);
        }
    }

    fn keep_ticket(&self, server: ServerName<'static>, ticket: T13) {
        self.keep(server, |session| {
            if session.tls13.len() >= TICKETS {
                session.tls13.pop_front();
            }
            session.tls13.push_back(ticket);
        });
    }

    fn take_ticket(&self, server: &ServerName<'static>) -> Option<T13> {
        self.with(server, |session| session.tls13.pop_back())?
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in there opens sessions.
        f.write_str("Sessions(…)")
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.keep(server, |session| session.group = Some(group));
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.with(&server.to_owned(), |session| session.group)?
    }

    fn set_tls12_session(&self, server: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.keep(server, |session| session.tls12 = Some(value));
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.with(&server.to_owned(), |session| session.tls12.clone())?
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.with(server, |session| session.tls12 = None);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.keep_ticket(server, value);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.take_ticket(server)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gatepost_testkit::{Cert, TestCa};
    use rustls::HandshakeKind;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::net::tls;

    type Numbers = Sessions<u32, u32>;

    fn server(number: usize) -> ServerName<'static> {
        ServerName::try_from(format!("s{number}.test")).expect("a name")
    }

    fn held(sessions: &Numbers) -> usize {
        let kept = sessions.lock();
        assert_eq!(kept.servers.len(), kept.turns.len());
        kept.servers.len()
    }

    #[test]
    fn a_ticket_serves_once_the_newest_first_and_only_a_few_are_kept() {
        let sessions = Numbers::of(8);
        for ticket in 1..=5 {
            sessions.keep_ticket(server(0), ticket);
        }
        let taken: Vec<_> = std::iter::from_fn(|| sessions.take_ticket(&server(0))).collect();
        assert_eq!(taken, [5, 4]);
        assert_eq!(sessions.take_ticket(&server(1)), None);
    }

    #[tokio::test]
    async fn the_next_connection_to_a_server_resumes_its_session_and_nobody_else_s() {
        let ca = TestCa::new();
        let config = tls::client_config(Some(ca.pem().as_bytes())).expect("a configuration");
        let acceptor = TlsAcceptor::from(ca.server_config(Cert::Good, &["a.test", "b.test"], false));
        let mut kinds = Vec::new();
        for name in ["a.test", "b.test", "a.test", "a.test", "b.test"] {
            let (near, far) = duplex(64 << 10);
            let connector = TlsConnector::from(Arc::clone(&config));
            let server = ServerName::try_from(name).expect("a name");
            let (ours, theirs) = tokio::join!(connector.connect(server, near), acceptor.accept(far));
            let (mut ours, mut theirs) = (ours.expect("a handshake"), theirs.expect("a handshake"));
            kinds.push(ours.get_ref().1.handshake_kind());
            // Tickets come with what is said first.
            theirs.write_all(b"x").await.expect("it is said");
            theirs.flush().await.expect("it is said");
            assert_eq!(ours.read_u8().await.expect("it is heard"), b'x');
        }
        let (full, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
        assert_eq!(kinds, [full, full, resumed, resumed, resumed]);
    }

    #[test]
    fn as_many_servers_as_there_may_be_are_remembered() {
        let sessions = Numbers::of(5_000);
        for at in 0..5_000 {
            sessions.keep_ticket(server(at), 1);
        }
        assert_eq!((0..5_000).filter(|at| sessions.take_ticket(&server(*at)).is_some()).count(), 5_000);
    }

    #[test]
    fn p10_the_server_not_called_for_longest_is_forgotten() {
        let sessions = Numbers::of(100);
        for at in 0..10_000 {
            sessions.keep_ticket(server(at), 1);
            // One that is called again and again.
            sessions.with(&server(0), |session| session.tls12 = Some(7));
            assert!(held(&sessions) <= 100, "{} after {at}", held(&sessions));
        }
        assert_eq!(sessions.with(&server(0), |session| session.tls12), Some(Some(7)));
        assert_eq!(sessions.take_ticket(&server(9_999)), Some(1));
        assert_eq!(sessions.take_ticket(&server(9_901)), Some(1));
        assert_eq!(sessions.take_ticket(&server(9_900)), None);
    }
}
