//! TLS with a certificate that is made at start.

use std::io;
use std::sync::Arc;

use rcgen::generate_simple_self_signed;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

pub(super) type Encrypted = tokio_rustls::server::TlsStream<TcpStream>;

#[derive(Clone)]
pub(super) struct Acceptor(TlsAcceptor);

impl Acceptor {
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Encrypted> {
        self.0.accept(stream).await
    }
}

pub(super) fn socket(stream: &mut Encrypted) -> &mut TcpStream {
    stream.get_mut().0
}

/// What a client has to trust.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) pem: String,
}

/// A certificate for 127.0.0.1 and localhost, signed with its own key, which never leaves the process.
pub(super) fn make() -> Option<(Acceptor, Certificate)> {
    let made = generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).ok()?;
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).ok()?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .ok()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .ok()?;
    let certificate = Certificate { der: made.cert.der().to_vec(), pem: made.cert.pem() };
    Some((Acceptor(TlsAcceptor::from(Arc::new(config))), certificate))
}
