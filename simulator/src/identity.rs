//! A member of the fleet: its id and its credential.

use std::sync::Arc;

use jiff::Timestamp;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::IdentityId;
use rumqttc::mqttbytes::v4::{Connect, Login};
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::access::{HubAccess, expiry};

/// A device or module that may connect.
#[derive(Clone, Debug)]
pub struct Identity {
    pub id: IdentityId,
    pub credential: Credential,
    /// Whether this run created it.
    pub is_made: bool,
}

/// How an identity signs in.
#[derive(Clone, Debug)]
pub enum Credential {
    Key(SymmetricKey),
    Certificate(Arc<CertifiedKey>),
}

impl Identity {
    /// Its CONNECT. It has the Node SDK's form, except for the client type.
    pub fn connect(&self, access: &HubAccess, keep_alive_seconds: u16) -> Connect {
        let mut connect = Connect::new(self.id.to_string());
        connect.keep_alive = keep_alive_seconds;
        connect.clean_session = false;
        let username = format!("{}/{}/?{USERNAME_QUERY}", access.hostname, self.id);
        let password = match &self.credential {
            Credential::Key(key) => access.identity_token(&self.id, key, expiry(Timestamp::now())),
            Credential::Certificate(_) => String::new(),
        };
        connect.login = Some(Login { username, password });
        connect
    }

    /// Its TLS settings: the fleet's shared ones, unless this identity sends a certificate or resumes sessions.
    pub fn tls(&self, shared: &Arc<ClientConfig>, resumption: Option<&Resumption>) -> Arc<ClientConfig> {
        let certificate = match &self.credential {
            Credential::Certificate(certificate) => Some(certificate),
            Credential::Key(_) => None,
        };
        if certificate.is_none() && resumption.is_none() {
            return Arc::clone(shared);
        }
        let mut own = (**shared).clone();
        if let Some(certificate) = certificate {
            let shown = SingleCertAndKey::from((**certificate).clone());
            own.client_auth_cert_resolver = Arc::new(shown);
        }
        if let Some(resumption) = resumption {
            own.resumption = resumption.clone();
        }
        Arc::new(own)
    }

    /// The topic of its telemetry, without the property bag.
    pub fn events_topic(&self) -> String {
        format!("{}/messages/events/", self.topic_base())
    }

    /// The filter of the messages it receives.
    pub fn messages_filter(&self) -> String {
        format!("{}/messages/devicebound/#", self.topic_base())
    }

    fn topic_base(&self) -> String {
        match &self.id.module {
            None => format!("devices/{}", self.id.device),
            Some(module) => format!("devices/{}/modules/{module}", self.id.device),
        }
    }
}

const USERNAME_QUERY: &str =
    concat!("api-version=2021-04-12&DeviceClientType=portcullis-simulator%2F", env!("CARGO_PKG_VERSION"));
