//! The operator's settings for blob hosts: which are permitted, and what one may cost.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::lookup::{Lookup, System};
use crate::config::Config;
use crate::config::blob_host::BlobHost;
use crate::tls::{self, TlsError};

/// Which blob hosts may be used, and with which limits.
#[derive(Clone)]
pub struct BlobHosts {
    /// The hosts besides Azure's own. Only these may have a private address or use plain http.
    pub(super) listed: Arc<[BlobHost]>,
    /// How long a host may take to answer, or to transfer the next piece of a blob.
    pub(super) idle_time_max: Duration,
    /// The size of the largest blob.
    pub(super) blob_bytes_max: u64,
    pub(super) lookup: Arc<dyn Lookup>,
    tls: Option<ClientConfig>,
}

impl BlobHosts {
    /// The settings of the configuration, with the operating system's look-up and trusted certificates.
    pub fn new(config: &Config) -> Self {
        Self {
            listed: config.blob_hosts.as_slice().into(),
            idle_time_max: config.limits.blob_idle_time_max,
            blob_bytes_max: config.limits.blob_bytes_max as u64,
            lookup: Arc::new(System),
            tls: None,
        }
    }

    /// The same, with another look-up.
    #[cfg(feature = "testing")]
    pub fn with_lookup(self, lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, ..self }
    }

    /// The same, with other certificates to trust.
    #[cfg(feature = "testing")]
    pub fn with_tls(self, tls: ClientConfig) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// How the certificate of a host is verified. Without TLS no certificate is trusted.
    pub(super) fn tls(&self, host: &BlobHost) -> Result<ClientConfig, TlsError> {
        match &self.tls {
            Some(tls) => Ok(tls.clone()),
            None if host.tls() => tls::client_config(None),
            None => tls::client_config_without_trust(),
        }
    }
}

impl fmt::Debug for BlobHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobHosts").field("listed", &self.listed).finish_non_exhaustive()
    }
}
