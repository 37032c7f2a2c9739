//! TLS: the hub's own certificate, the server's settings, and how our own clients trust it.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::{ClientConfig, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::Config;

/// What the TLS listeners serve.
#[derive(Debug)]
pub struct ServerTls {
    mqtt: Arc<ServerConfig>,
    https: Arc<ServerConfig>,
    expires: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("being written")]
    Later,
}

impl ServerTls {
    pub fn open_or_create(_config: &Config) -> Result<Self, TlsError> {
        Err(TlsError::Later)
    }

    pub fn mqtt_acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.mqtt))
    }

    pub fn https_acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.https))
    }

    pub fn expires(&self) -> Timestamp {
        self.expires
    }
}

pub fn client_config(_ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    Err(TlsError::Later)
}
