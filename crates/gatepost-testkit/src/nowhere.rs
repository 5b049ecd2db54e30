//! Addresses where nobody answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// A port of loopback that refuses connections and is nobody else's while this lives.
pub struct ClosedPort(TcpSocket);

impl ClosedPort {
    /// Reserves such a port.
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Bound but never listening: taken, and refused.
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a free port");
        ClosedPort(socket)
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.0.local_addr().expect("it is bound")
    }
}

impl Default for ClosedPort {
    fn default() -> Self {
        ClosedPort::new()
    }
}

type Connecting = Pin<Box<dyn Future<Output = std::io::Result<TcpStream>> + Send>>;

/// A port of loopback on which connecting takes forever: its queue is full and nobody accepts.
pub struct Blackhole {
    listener: TcpListener,
    _queue: Vec<Connecting>,
}

impl Blackhole {
    /// Reserves such a port at `ip`. Needs a tokio runtime around it.
    #[expect(clippy::disallowed_methods, reason = "fills a queue of its own, on loopback")]
    pub fn at(ip: Ipv4Addr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((ip, 0).into()).expect("a free port");
        let listener = socket.listen(1).expect("it is bound");
        let addr = listener.local_addr().expect("it is bound");
        // More than the queue holds. On loopback the handshake is done by the time `connect` returns.
        let queue = (0..8).map(|_| {
            let mut connecting: Connecting = Box::pin(TcpStream::connect(addr));
            let _ = connecting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            connecting
        });
        Blackhole { _queue: queue.collect(), listener }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }
}
