//! Letting connections in. Over TLS each handshake is a task of its own, bounded in time and number, so that a peer that is
//! slow or silent keeps nobody else waiting.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::complaints::Complaints;
use super::connection::Connection;
use super::plaintext::{self, TLS_HANDSHAKE};
use crate::connections::{Bound, Room, ServerLimits};

use super::{Admission, Tls, refusal};

/// Time for a handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes at once at one door. Where one more comes, the oldest is given up: an honest one takes a few round trips, so
/// the oldest is most probably not.
pub(crate) const HANDSHAKES_MAX: usize = 256;
/// Connections that are ready and wait to be served.
const READY_MAX: usize = 16;
/// Wait after the system refused to give a connection, as it does when a process has too many files open.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// The connections that come to one door.
#[derive(Debug)]
pub struct Incoming(Kind);

#[derive(Debug)]
enum Kind {
    Plain { listener: TcpListener, complaints: Arc<Complaints>, room: Room },
    Tls { ready: mpsc::Receiver<Connection>, close: CancellationToken, _doorkeeper: AbortOnDropHandle<()> },
    Closed,
}

impl Incoming {
    /// Over TLS it needs a runtime.
    pub(crate) fn new(listener: TcpListener, tls: Option<Tls>, admission: Admission, limits: &ServerLimits) -> Self {
        let room = Room::new(limits);
        let complaints = Arc::new(Complaints::default());
        let Some(tls) = tls else { return Self(Kind::Plain { listener, complaints, room }) };
        let (let_in, ready) = mpsc::channel(READY_MAX);
        let close = CancellationToken::new();
        let doorkeeper = Doorkeeper { tls, admission, let_in, complaints, room };
        let doorkeeper = tokio::spawn(doorkeeper.keep(listener, close.clone()));
        Self(Kind::Tls { ready, close, _doorkeeper: AbortOnDropHandle::new(doorkeeper) })
    }

    /// Takes no more connections. Those whose handshake is under way may still come.
    pub fn close(&mut self) {
        match &self.0 {
            Kind::Plain { .. } => self.0 = Kind::Closed,
            Kind::Tls { close, .. } => close.cancel(),
            Kind::Closed => {}
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Kind::Plain { listener, complaints, room } => loop {
                let (stream, address) = match ready!(listener.poll_accept(context)) {
                    Ok(accepted) => accepted,
                    Err(error) => return Poll::Ready(Some(Err(error))),
                };
                no_delay(&stream);
                if let Some(bound) = room.enter() {
                    let connection = Connection::plain(stream, address, complaints.clone());
                    return Poll::Ready(Some(Ok(connection.bounded(bound))));
                }
                tell_full(complaints, address);
                room.refuse(stream, true);
            },
            Kind::Tls { ready, .. } => ready.poll_recv(context).map(|connection| connection.map(Ok)),
            Kind::Closed => Poll::Ready(None),
        }
    }
}

/// Without it small answers wait for the acknowledgement of those before; a failure costs only that.
fn no_delay(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
}

fn tell_full(complaints: &Complaints, address: SocketAddr) {
    if complaints.is_news(address.ip(), "full") {
        tracing::warn!(peer = %address, "a connection was refused: as many are open here as there may be");
    }
}

struct Doorkeeper {
    room: Room,
    tls: Tls,
    admission: Admission,
    let_in: mpsc::Sender<Connection>,
    complaints: Arc<Complaints>,
}

impl Doorkeeper {
    /// Takes connections until `close`, then only finishes handshakes.
    async fn keep(self, listener: TcpListener, close: CancellationToken) {
        let doorkeeper = Arc::new(self);
        let mut handshakes = JoinSet::new();
        let mut by_age: VecDeque<AbortHandle> = VecDeque::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                // They end by themselves; this frees what is left of them.
                Some(_) = handshakes.join_next() => continue,
                () = close.cancelled() => break,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot take a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            let Some(bound) = doorkeeper.room.enter() else {
                tell_full(&doorkeeper.complaints, address);
                doorkeeper.room.refuse(stream, false);
                continue;
            };
            by_age.retain(|handshake| !handshake.is_finished());
            if by_age.len() >= HANDSHAKES_MAX
                && let Some(oldest) = by_age.pop_front()
            {
                oldest.abort();
            }
            by_age.push_back(handshakes.spawn(doorkeeper.clone().greet(stream, address, bound)));
        }
        drop(listener);
        while handshakes.join_next().await.is_some() {}
    }

    /// One handshake.
    async fn greet(self: Arc<Self>, stream: TcpStream, address: SocketAddr, bound: Bound) {
        no_delay(&stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, self.shake_hands(stream)).await {
            // Nobody listens any more when the door has closed for good.
            Ok(Ok(stream)) => drop(self.let_in.send(Connection::secured(stream, address).bounded(bound)).await),
            Ok(Err(Turned::Plain(stream))) => {
                self.complain(address, "plaintext", "it does not speak TLS, and this port takes nothing else");
                plaintext::refuse(stream).await;
            }
            Ok(Err(Turned::Unproved(why, stream))) => {
                self.complain(address, "handshake", &why);
                plaintext::linger(stream).await;
            }
            Err(_) => self.complain(address, "silent", "it did not finish the TLS handshake in time"),
        }
    }

    async fn shake_hands(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Turned> {
        let mut first = [0];
        let bytes = stream.peek(&mut first).await.unwrap_or(0);
        if bytes > 0 && first[0] != TLS_HANDSHAKE {
            return Err(Turned::Plain(stream));
        }
        let acceptor = TlsAcceptor::from(self.tls.server(self.admission));
        match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => Ok(TlsStream::Server(stream)),
            Err((error, stream)) => Err(Turned::Unproved(refusal::of_peer(&error), stream)),
        }
    }

    fn complain(&self, address: SocketAddr, kind: &'static str, why: &str) {
        if self.complaints.is_news(address.ip(), kind) {
            tracing::warn!(peer = %address, "a connection was refused: {why}");
        } else {
            tracing::debug!(peer = %address, "a connection was refused: {why}");
        }
    }
}

/// A peer that was turned away.
enum Turned {
    /// It speaks without TLS.
    Plain(TcpStream),
    /// It does not prove who it is; and why not.
    Unproved(String, TcpStream),
}
