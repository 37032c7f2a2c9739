//! The hub, with devices created over REST.

use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;

use super::{Certificate, Guard, Logins, Running};
use crate::crowd::Crowd;
use crate::live::{Hub, Login};
use crate::served::Served;

/// The keys that sign tokens.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) devices: Crowd,
    owner: SymmetricKey,
}

pub(super) async fn start(devices: usize, certificate: &Certificate, directory: &Path) -> Result<Running> {
    let [chain, key] = [&certificate.chain, &certificate.key].map(|path| path.display().to_string());
    let settings = [
        ("PORTCULLIS__TLS__CERTIFICATE", chain.as_str()),
        ("PORTCULLIS__TLS__KEY", key.as_str()),
        ("PORTCULLIS__LOG__FILTER", "warn"),
    ];
    let served = Served::start_with(&directory.join("data"), &settings)?;
    let rest = served.rest_trusting(certificate.roots.clone())?;
    let access = served.access()?;
    let mqtt = format!("{}:{}", access.connect_address, access.mqtt_port).parse()?;
    let at = Hub { host: access.hostname, mqtt, roots: certificate.roots.clone() };
    let owner = access.owner.split("SharedAccessKey=").last().context("the owner's key")?;
    let keys = Keys { devices: Crowd::new(at.clone()), owner: SymmetricKey::parse_base64(owner)? };
    keys.devices.register(&rest, 0..devices).await?;
    Ok(Running { guard: Guard::Hub(served), at, logins: Logins::IoTHub(keys), rest: Some(rest) })
}

impl Keys {
    pub(super) fn service(&self, host: &str) -> Login {
        let expiry = Timestamp::now().as_second() + TOKEN_SECONDS;
        Login {
            client_id: "service".to_owned(),
            user_name: format!("{host}/?api-version=2021-04-12&policy=iothubowner"),
            password: sas::sign(host, &self.owner, expiry, Some("iothubowner")),
        }
    }
}

const TOKEN_SECONDS: i64 = 24 * 3600;
