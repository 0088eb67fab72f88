//! TLS 1.3 between nodes, bound to their keys and to nothing else.
//!
//! The server's end has the node's own Ed25519 key as a raw public key (RFC 7250); the client's end takes exactly the key
//! that the swarm's connection proved, by strict verification. There are no certificates, so nothing expires, no name is
//! looked up and no clock is asked. A client proves nothing: it shows a bulk token inside. Sessions are not resumed; a
//! connection serves many requests.
//!
//! One key signs here, in Noise and in statements of members. Each signs under its own prefix (RFC 8446 section 4.4.3 for
//! TLS), so that no signature passes for another.
//!
//! Owns the two configurations. Never decides whom to trust: the caller names the key.

mod key;
mod provider;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, Error, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::exchange::HttpSource;
use crate::exchange::http::{ByteStream, Private, Secure};
use crate::swarm::{BulkAccess, NodeKey, NodePublicKey};

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up TLS with this node's key")]
pub struct TlsError(#[from] Error);

/// The serving end of a node.
#[derive(Clone)]
pub struct TlsServer(TlsAcceptor);

impl TlsServer {
    /// The end that proves to be the node with `key`.
    ///
    /// # Errors
    /// [`TlsError`]: an error in this program.
    pub fn new(key: &NodeKey) -> Result<Self, TlsError> {
        let resolver = AlwaysResolvesServerRawPublicKeys::new(Arc::new(key::certified(key)));
        let mut config =
            ServerConfig::builder_with_details(provider::provider(), Arc::new(provider::NoClock))
                .with_protocol_versions(&[&TLS13])?
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(resolver));
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands with a client; the caller sets the deadline.
    ///
    /// # Errors
    /// If the client speaks something else, or goes away.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<server::TlsStream<TcpStream>> {
        self.0.accept(stream).await
    }
}

/// Fetches runs from the bulk service at `address` of the peer that gave `access`. Must be called inside a tokio runtime.
///
/// # Errors
/// [`TlsError`]: an error in this program.
pub fn source(address: IpAddr, access: &BulkAccess) -> Result<HttpSource, TlsError> {
    let secure = Arc::new(TlsClient::new(access.key)?);
    Ok(HttpSource::private((address, access.port).into(), Private { secure, token: access.token.reveal() }))
}

/// The asking end, for one peer.
#[derive(Clone)]
pub struct TlsClient(TlsConnector);

impl TlsClient {
    /// The end that talks to the node with this key and to nobody else.
    ///
    /// # Errors
    /// [`TlsError`]: an error in this program.
    pub fn new(peer: NodePublicKey) -> Result<Self, TlsError> {
        let mut config =
            ClientConfig::builder_with_details(provider::provider(), Arc::new(provider::NoClock))
                .with_protocol_versions(&[&TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(key::Pinned(peer)))
                .with_no_client_auth();
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands with the peer; the caller sets the deadline.
    ///
    /// # Errors
    /// If the other end has another key, speaks something else, or goes away.
    pub async fn connect(&self, stream: TcpStream) -> io::Result<client::TlsStream<TcpStream>> {
        // Not sent and not looked at: the key says who it is.
        let nobody = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        self.0.connect(nobody, stream).await
    }
}

impl ByteStream for client::TlsStream<TcpStream> {}

#[async_trait]
impl Secure for TlsClient {
    async fn secure(&self, stream: TcpStream) -> io::Result<Box<dyn ByteStream>> {
        Ok(Box::new(self.connect(stream).await?))
    }
}

impl fmt::Debug for TlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsServer")
    }
}

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClient")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn hello(server: TlsServer, client: TlsClient) -> (io::Result<()>, io::Result<Vec<u8>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (stream, _) = listener.accept().await?;
            let mut stream = server.accept(stream).await?;
            stream.write_all(b"hello").await?;
            stream.shutdown().await
        };
        let ask = async {
            let mut stream = client.connect(TcpStream::connect(address).await?).await?;
            let mut said = Vec::new();
            stream.read_to_end(&mut said).await?;
            Ok(said)
        };
        tokio::join!(serve, ask)
    }

    #[tokio::test]
    async fn the_key_that_was_asked_for_is_let_in_and_no_other() {
        let (key, other) = (NodeKey::generate(), NodeKey::generate());
        let server = TlsServer::new(&key).unwrap();
        let (served, said) = hello(server.clone(), TlsClient::new(key.public()).unwrap()).await;
        served.unwrap();
        assert_eq!(said.unwrap(), b"hello");
        let (served, said) = hello(server, TlsClient::new(other.public()).unwrap()).await;
        assert!(served.is_err());
        assert!(said.unwrap_err().to_string().contains("not the key"));
    }

    #[tokio::test]
    async fn somebody_who_shows_the_key_without_having_it_is_not_let_in() {
        let (key, other) = (NodeKey::generate(), NodeKey::generate());
        let resolver =
            AlwaysResolvesServerRawPublicKeys::new(Arc::new(key::pretending(&other, key.public())));
        let config = ServerConfig::builder_with_details(provider::provider(), Arc::new(provider::NoClock))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        let server = TlsServer(TlsAcceptor::from(Arc::new(config)));
        let (served, said) = hello(server, TlsClient::new(key.public()).unwrap()).await;
        assert!(served.is_err() && said.is_err());
    }
}
