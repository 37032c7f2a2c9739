//! The hub, with devices made through REST.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Certificate, Guard, Logins, Running, device_id};
use crate::live::{Hub, Login};
use crate::served::Served;

/// What tokens are signed with.
#[derive(Debug)]
pub(super) struct Keys {
    /// Of every device; each token is the device's own all the same.
    devices: SymmetricKey,
    owner: SymmetricKey,
    expiry: i64,
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
    let owner = access.owner.split("SharedAccessKey=").last().context("the owner's key")?;
    let keys = Keys {
        devices: SymmetricKey::generate(),
        owner: SymmetricKey::parse_base64(owner)?,
        expiry: Timestamp::now().as_second() + TOKEN_SECONDS,
    };
    let own = keys.devices.to_base64();
    let authentication = json!({ "type": "sas", "symmetricKey":
        { "primaryKey": own.as_str(), "secondaryKey": own.as_str() } });
    for first in (0..devices).step_by(100) {
        let item = |number| json!({ "id": device_id(number), "importMode": "create", "authentication": authentication });
        let items: Vec<Value> = (first..devices.min(first + 100)).map(item).collect();
        let answer = rest.request(Method::POST, "/devices").json(&items).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.text().await?);
    }
    let mqtt = format!("{}:{}", access.connect_address, access.mqtt_port).parse()?;
    let at = Hub { host: access.hostname, mqtt, roots: certificate.roots.clone() };
    Ok(Running { guard: Guard::Hub(served), at, logins: Logins::IoTHub(keys), rest: Some(rest) })
}

impl Keys {
    pub(super) fn device(&self, host: &str, number: usize) -> Login {
        let id = device_id(number);
        Login {
            user_name: format!("{host}/{id}/?api-version=2021-04-12"),
            password: sas::sign(&format!("{host}/devices/{id}"), &self.devices, self.expiry, None),
            client_id: id,
        }
    }

    pub(super) fn service(&self, host: &str) -> Login {
        Login {
            client_id: "service".to_owned(),
            user_name: format!("{host}/?api-version=2021-04-12&policy=iothubowner"),
            password: sas::sign(host, &self.owner, self.expiry, Some("iothubowner")),
        }
    }
}

const TOKEN_SECONDS: i64 = 24 * 3600;
