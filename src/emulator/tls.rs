//! A certificate made at start.

use std::sync::Arc;

use rcgen::generate_simple_self_signed;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::EmulatorError;

/// What a client is to trust.
#[derive(Debug)]
pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    pub(super) pem: String,
}

/// A new certificate for 127.0.0.1 and localhost, signed with its own key, which never leaves the process.
pub(super) fn make() -> Result<(TlsAcceptor, Certificate), EmulatorError> {
    let failed = |_| EmulatorError::Certificate;
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let made = generate_simple_self_signed(names).map_err(failed)?;
    let key =
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(|_| EmulatorError::Certificate)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|_| EmulatorError::Certificate)?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .map_err(|_| EmulatorError::Certificate)?;
    let certificate = Certificate { der: made.cert.der().to_vec(), pem: made.cert.pem() };
    Ok((TlsAcceptor::from(Arc::new(config)), certificate))
}
