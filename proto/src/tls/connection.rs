//! A connection, plain or over TLS, and who is at its other end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

use super::complaints::Complaints;
use super::plaintext::TLS_HANDSHAKE;
use crate::connections::{Bound, Busy};
use crate::identity::{Certificate, Identity, IdentityError};

/// Bytes that are gathered into one buffer before they are written: to copy them takes less than to have the kernel look at a list
/// of places, as which the heads and bodies of short messages come.
const GATHERED_BYTES_MAX: usize = 2 << 10;

/// What the other end of a connection has proved of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing, and nothing was asked for: the connection is plain.
    Plain,
    /// Nothing, over TLS: it showed no certificate, which only the HTTP door may allow.
    Nobody,
    /// That it holds the key of this certificate.
    Certificate(Result<Identity, IdentityError>),
}

/// Who is at the other end of a connection. Every request carries it in its extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// What it has proved.
    pub proof: Arc<Proof>,
    /// Its requests being answered.
    pub busy: Busy,
}

/// A connection that has been let in, or made.
#[derive(Debug)]
pub struct Connection {
    io: Io,
    peer: Peer,
    /// Until the first bytes have come: they tell a peer that speaks TLS, in vain.
    unread: Option<Arc<Complaints>>,
    /// One that was let in, and what it may do.
    bound: Option<Bound>,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    pub(super) fn plain(stream: TcpStream, address: SocketAddr, complaints: Arc<Complaints>) -> Self {
        let peer = Peer { address, proof: Arc::new(Proof::Plain), busy: Busy::default() };
        Self { io: Io::Plain(stream), peer, unread: Some(complaints), bound: None }
    }

    /// One that was made to a server that proves nothing.
    pub(super) fn outgoing(stream: TcpStream, address: SocketAddr) -> Self {
        let peer = Peer { address, proof: Arc::new(Proof::Plain), busy: Busy::default() };
        Self { io: Io::Plain(stream), peer, unread: None, bound: None }
    }

    pub(super) fn secured(stream: TlsStream<TcpStream>, address: SocketAddr) -> Self {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let proof = match certificate.map(|certificate| Certificate::from_der(certificate)) {
            None => Proof::Nobody,
            Some(Ok(certificate)) => Proof::Certificate(certificate.identity),
            Some(Err(unreadable)) => Proof::Certificate(Err(unreadable)),
        };
        Self {
            io: Io::Tls(Box::new(stream)),
            peer: Peer { address, proof: Arc::new(proof), busy: Busy::default() },
            unread: None,
            bound: None,
        }
    }

    /// Whether both sides have agreed on HTTP/2.
    pub(super) fn speaks_http2(&self) -> bool {
        matches!(&self.io, Io::Tls(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2"))
    }

    /// The same in a place of its own at a door.
    pub(crate) fn bounded(mut self, bound: Bound) -> Self {
        self.peer.busy = bound.busy().clone();
        self.bound = Some(bound);
        self
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

/// Copies slices one after the other into a buffer that has room for all.
fn gather<'a>(slices: &[io::IoSlice<'_>], buffer: &'a mut [u8]) -> &'a [u8] {
    let mut end = 0;
    for slice in slices {
        buffer[end..end + slice.len()].copy_from_slice(slice);
        end += slice.len();
    }
    &buffer[..end]
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { io, peer, unread, bound } = self.get_mut();
        let before = buffer.filled().len();
        let read = match io {
            Io::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Io::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let read = match bound {
            Some(bound) => bound.after_read(read, context),
            None => read,
        };
        if let Poll::Ready(Ok(())) = read
            && let Some(complaints) = unread.take()
            && buffer.filled().get(before) == Some(&TLS_HANDSHAKE)
        {
            if complaints.is_news(peer.address.ip(), "tls") {
                tracing::warn!(peer = %peer.address, "it speaks TLS, which this port does not: give this role a certificate, or take it from the peer");
            }
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the peer speaks TLS, this port does not",
            )));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { io, bound, .. } = self.get_mut();
        let written = match io {
            Io::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Io::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        match bound {
            Some(bound) => bound.after_write(written, context),
            None => written,
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { io, bound, .. } = self.get_mut();
        let bytes: usize = slices.iter().map(|slice| slice.len()).sum();
        let written = match io {
            Io::Plain(stream) if bytes <= GATHERED_BYTES_MAX => {
                let mut gathered = [0; GATHERED_BYTES_MAX];
                Pin::new(stream).poll_write(context, gather(slices, &mut gathered))
            }
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        match bound {
            Some(bound) => bound.after_write(written, context),
            None => written,
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(context),
            Io::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_gathered_in_order() {
        let mut buffer = [7; 8];
        let slices = [b"".as_slice(), b"head", b"", b"body"].map(io::IoSlice::new);
        assert_eq!(gather(&slices, &mut buffer), b"headbody");
        assert_eq!(gather(&slices[..2], &mut buffer), b"head");
        assert!(gather(&[], &mut buffer).is_empty());
    }
}
