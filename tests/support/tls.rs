//! TLS for a server of a test's own, with a certificate made at the start.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

/// A certificate for `localhost`, which only itself vouches for, and what a server needs to show it.
pub struct OwnCertificate {
    pub pem: String,
    config: Arc<rustls::ServerConfig>,
}

/// A connection over TLS, as the server sees it.
pub type Stream = rustls::StreamOwned<rustls::ServerConnection, TcpStream>;

impl OwnCertificate {
    pub fn new() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let config =
            rustls::ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![cert.der().clone()], key)
                .unwrap();
        Self { pem: cert.pem(), config: Arc::new(config) }
    }

    /// Makes TLS of each connection.
    pub fn accept(&self) -> impl Fn(TcpStream) -> io::Result<Stream> + Send + Sync + 'static {
        let config = Arc::clone(&self.config);
        move |stream| {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).map_err(io::Error::other)?;
            Ok(rustls::StreamOwned::new(connection, stream))
        }
    }
}
