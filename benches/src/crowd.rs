//! Many devices with one key: registered a hundred at a time, connected a few at a time, and held open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use jiff::Timestamp;
use portcullis::mqtt::packet::{Packet, QoS, Subscribe, Utf8Bytes};
use portcullis::mqtt::wire::Wire;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::live::{Hub, Login};
use crate::served::Rest;

/// An open connection.
pub type Connection = Wire<TlsStream<TcpStream>>;

/// The hub of the devices, and their common key.
#[derive(Clone, Debug)]
pub struct Crowd {
    pub hub: Hub,
    key: SymmetricKey,
    expiry: i64,
}

impl Crowd {
    /// Devices at `hub`, with a new key.
    pub fn new(hub: Hub) -> Self {
        Self { hub, key: SymmetricKey::generate(), expiry: Timestamp::now().as_second() + 36_000 }
    }

    /// The same devices at another server, which may not know them.
    pub fn at(&self, hub: Hub) -> Self {
        Self { hub, ..self.clone() }
    }

    /// Registers the devices with these numbers.
    pub async fn register(&self, rest: &Rest, numbers: std::ops::Range<usize>) -> anyhow::Result<()> {
        let key = self.key.to_base64();
        let keys = json!({ "primaryKey": key.as_str(), "secondaryKey": key.as_str() });
        let turns = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut making = JoinSet::new();
        let numbers: Vec<usize> = numbers.collect();
        for some in numbers.chunks(BULK_MAX) {
            let item = |number: &usize| {
                let authentication = json!({ "type": "sas", "symmetricKey": keys });
                json!({ "id": name(*number), "importMode": "create", "authentication": authentication })
            };
            let items: Vec<Value> = some.iter().map(item).collect();
            let request = rest.request(Method::POST, "/devices").json(&items);
            let turn = Arc::clone(&turns).acquire_owned().await?;
            making.spawn(async move {
                let answer = request.send().await;
                drop(turn);
                answer
            });
        }
        while let Some(made) = making.join_next().await {
            let answer = made??;
            ensure!(answer.status().is_success(), "{}", answer.text().await?);
        }
        Ok(())
    }

    /// The CONNECT of device `number`.
    pub fn login(&self, number: usize) -> Login {
        let (host, id) = (&self.hub.host, name(number));
        Login {
            user_name: format!("{host}/{id}/?api-version=2021-04-12"),
            password: sas::sign(&format!("{host}/devices/{id}"), &self.key, self.expiry, None),
            client_id: id,
        }
    }

    /// Connects the first `count` devices, `CONNECTING_MAX` at a time. Returns the time that all of it took.
    pub async fn connect(&self, count: usize) -> anyhow::Result<(Vec<Connection>, Duration)> {
        let tls = self.hub.tls(None);
        let turns = Arc::new(Semaphore::new(CONNECTING_MAX));
        let mut connecting = JoinSet::new();
        let began = Instant::now();
        for number in 0..count {
            let turn = Arc::clone(&turns).acquire_owned().await?;
            let (crowd, tls) = (self.clone(), Arc::clone(&tls));
            connecting.spawn(async move {
                let connection = crowd.hub.log_in(number, &crowd.login(number), tls).await;
                drop(turn);
                connection.map(|connection| (number, connection))
            });
        }
        let mut connections = Vec::with_capacity(count);
        while let Some(connected) = connecting.join_next().await {
            connections.push(connected??);
        }
        let took = began.elapsed();
        connections.sort_by_key(|(number, _)| *number);
        Ok((connections.into_iter().map(|(_, connection)| connection).collect(), took))
    }
}

/// The id of device `number`.
pub fn name(number: usize) -> String {
    format!("one-of-many-{number}")
}

/// Subscribes device `number` to its messages.
pub async fn subscribe(connection: &mut Connection, number: usize) -> anyhow::Result<()> {
    let filter = format!("devices/{}/messages/devicebound/#", name(number));
    let filter = Utf8Bytes::parse(Bytes::from(filter))?;
    connection
        .send(&Packet::Subscribe(Subscribe { packet_id: 1, filters: vec![(filter, QoS::AtLeastOnce)] }));
    connection.flush().await?;
    let answer = connection.read().await?;
    ensure!(matches!(answer, Packet::SubAck { .. }), "no subscription: {answer:?}");
    Ok(())
}

/// IoT Hub's limit of one bulk request.
const BULK_MAX: usize = 100;
const REQUESTS_MAX: usize = 8;
const CONNECTING_MAX: usize = 64;
