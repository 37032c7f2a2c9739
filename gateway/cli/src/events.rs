//! `monitor-events`: telemetry as it arrives, one event a line, read over MQTT as a service reads it.
//!
//! It runs until Ctrl-C and reconnects by itself. It misses events that arrive while it is disconnected. The sender of
//! an event is the one that the hub stamped on it, never one that the event names.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use portcullis::iothub::message_properties::{bag, field_of};
use portcullis::iothub::property_bag::stamped_pairs;
use portcullis::iothub::topic::{EventsTopic, events_filters};
use portcullis::iothub::user_name;
use portcullis::tls::connect_error::ConnectError;
use portcullis_registry::id::DeviceId;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event as MqttEvent, EventLoop, MqttOptions, Packet,
    Publish, QoS, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::login::{self, Access, Login};
use crate::output::{printable, write_out};

/// `monitor-events`.
#[derive(Args)]
pub(super) struct MonitorArgs {
    /// Print only events of this device and its modules
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: Option<DeviceId>,
    /// json: one object a line; text: one readable line for each event
    #[arg(short, long, value_enum, default_value = "text")]
    output: EventFormat,
    /// Stop after this number of events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum EventFormat {
    Json,
    Text,
}

/// One event, in the shape in which it is printed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    device_id: String,
    module_id: Option<String>,
    body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_encoding: Option<&'static str>,
    properties: BTreeMap<String, Option<String>>,
    system_properties: BTreeMap<String, Option<String>>,
    enqueued_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_type: Option<&'static str>,
    /// How many events before this one the hub could not deliver.
    #[serde(skip)]
    lost_before: u64,
}

/// Why a connection ended.
enum Ended {
    /// Another attempt may succeed.
    Broken {
        reason: String,
        was_listening: bool,
    },
    Failed(Failure),
}

impl MonitorArgs {
    /// Runs until the count is reached or Ctrl-C.
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let login = self.access.login()?;
        let mut monitor = Monitor { login, device: self.device_id, format: self.output, left: self.count };
        tokio::select! {
            outcome = monitor.watch() => outcome.map(|()| Exit::Done),
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    }
}

struct Monitor {
    login: Login,
    device: Option<DeviceId>,
    format: EventFormat,
    /// Events still to print, if they are counted.
    left: Option<u64>,
}

impl Monitor {
    /// Listens, and reconnects after each break. The wait grows with each attempt.
    async fn watch(&mut self) -> Result<(), Failure> {
        let mut pause = PAUSE_MIN;
        loop {
            let (reason, was_listening) = match self.listen().await {
                Ok(()) => return Ok(()),
                Err(Ended::Failed(failure)) => return Err(failure),
                Err(Ended::Broken { reason, was_listening }) => (reason, was_listening),
            };
            if was_listening {
                pause = PAUSE_MIN;
            }
            eprintln!("connection to {}:{}: {reason}; trying again", self.login.host, self.login.mqtt_port);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Listens on one connection, until it breaks or the last event asked for is printed.
    async fn listen(&mut self) -> Result<(), Ended> {
        let (client, mut connection) = self.connect().await.map_err(Ended::Failed)?;
        let mut was_listening = false;
        loop {
            match connection.poll().await {
                Ok(MqttEvent::Incoming(Packet::ConnAck(_))) => {
                    let filters = events_filters(self.device.as_ref())
                        .map(|filter| SubscribeFilter::new(filter, QoS::AtLeastOnce));
                    let asked = client.try_subscribe_many(filters);
                    asked.map_err(|error| Ended::Failed(Failure::error(error.to_string())))?;
                }
                Ok(MqttEvent::Incoming(Packet::SubAck(granted))) => {
                    if granted.return_codes.contains(&SubscribeReasonCode::Failure) {
                        return Err(Ended::Failed(self.refused("the hub refuses the subscription")));
                    }
                    was_listening = true;
                    self.greet();
                }
                Ok(MqttEvent::Incoming(Packet::Publish(publish))) => {
                    if self.show(&publish).map_err(Ended::Failed)? {
                        return Ok(());
                    }
                }
                Ok(_) => {}
                Err(error) => return Err(self.ended(&error, was_listening)),
            }
        }
    }

    /// A connection with a fresh token of the service. It opens at its first poll.
    async fn connect(&self) -> Result<(AsyncClient, EventLoop), Failure> {
        let login = &self.login;
        let client_id = format!("monitor-{:016x}", u64::from_be_bytes(portcullis_registry::random_bytes()));
        let mut options = MqttOptions::new(client_id, dial_name(login).await, login.mqtt_port);
        options.set_credentials(user_name::of_service(&login.host, &login.policy), login.token());
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(login.tls()?.into())));
        options.set_clean_session(true);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        Ok(AsyncClient::new(options, REQUESTS_MAX))
    }

    /// Prints an event. Returns true when it was the last one asked for, or when standard output is closed.
    fn show(&mut self, publish: &Publish) -> Result<bool, Failure> {
        let Some(event) = Event::parse(&publish.topic, &publish.payload) else {
            eprintln!("warning: skipped an event with an unknown topic: {}", printable(&publish.topic));
            return Ok(false);
        };
        if event.lost_before > 0 {
            eprintln!(
                "warning: the hub dropped {} events before this one, because reading was too slow",
                event.lost_before
            );
        }
        match write_out(&event.line(self.format)) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(true),
            outcome => outcome.map_err(|error| Failure::error(format!("standard output: {error}")))?,
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(self.left == Some(0))
    }

    fn greet(&self) {
        let whose = self
            .device
            .as_ref()
            .map_or_else(|| "every device".to_owned(), |device| format!("device {device}"));
        let end = if io::stderr().is_terminal() { "; Ctrl-C ends" } else { "" };
        eprintln!("listening to {whose}{end}");
    }

    fn ended(&self, error: &ConnectionError, was_listening: bool) -> Ended {
        match error {
            ConnectionError::ConnectionRefused(
                ConnectReturnCode::NotAuthorized
                | ConnectReturnCode::BadUserNamePassword
                | ConnectReturnCode::BadClientId,
            ) => Ended::Failed(self.refused("the hub refuses the connection")),
            error => {
                let reason = match error {
                    ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => ConnectError::TimedOut,
                    error => ConnectError::of(error),
                };
                if reason.is_about_certificate() {
                    let at = format!("{}:{}", self.login.host, self.login.mqtt_port);
                    let failure = Failure::error(format!("{at}: {reason}"));
                    return Ended::Failed(failure.with_hint(login::hint(&reason)));
                }
                Ended::Broken { reason: reason.to_string(), was_listening }
            }
        }
    }

    fn refused(&self, what: &str) -> Failure {
        Failure::new(Exit::Unauthorized, format!("{what} of policy {}", self.login.policy))
            .with_hint("the policy needs the right ServiceConnect; check its key and this machine's clock")
    }
}

impl Event {
    /// Reads `devices/{d}[/modules/{m}]/messages/events/{bag}`. The bag begins with the hub's stamp, so the first of
    /// two equal names is the hub's.
    fn parse(topic: &str, payload: &[u8]) -> Option<Self> {
        let EventsTopic { device, module, bag } = EventsTopic::parse(topic)?;
        let (body, body_encoding) = match std::str::from_utf8(payload) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => (STANDARD.encode(payload), Some("base64")),
        };
        let mut event = Self {
            device_id: device.to_owned(),
            module_id: module.map(str::to_owned),
            body,
            body_encoding,
            properties: BTreeMap::new(),
            system_properties: BTreeMap::new(),
            enqueued_time: None,
            message_type: None,
            lost_before: 0,
        };
        let mut stamped_device = None;
        let mut stamped_module = None;
        for (name, value) in stamped_pairs(bag) {
            match name.as_str() {
                bag::LOST => {
                    event.lost_before = value.as_deref().and_then(|count| count.parse().ok()).unwrap_or(0)
                }
                bag::MESSAGE_TYPE if value.as_deref() == Some(bag::WILL) => {
                    event.message_type = Some(bag::WILL)
                }
                bag::CONNECTION_DEVICE_ID if stamped_device.is_none() => stamped_device = value,
                bag::CONNECTION_MODULE_ID if stamped_module.is_none() => stamped_module = value,
                bag::ENQUEUED_TIME if event.enqueued_time.is_none() => event.enqueued_time = value,
                _ => event.add(name, value),
            }
        }
        if let Some(device) = stamped_device {
            event.device_id = device;
            // A device's own event has no module in its topic, whatever its properties name.
            event.module_id = event.module_id.and(stamped_module);
        }
        Some(event)
    }

    fn add(&mut self, name: String, value: Option<String>) {
        let is_system = name.starts_with(bag::SYSTEM_PREFIX) || name.starts_with(bag::CONNECTION_PREFIX);
        let (properties, name) = match is_system {
            true => (&mut self.system_properties, field_of(&name).to_owned()),
            false => (&mut self.properties, name),
        };
        properties.entry(name).or_insert(value);
    }

    fn line(&self, format: EventFormat) -> String {
        match format {
            EventFormat::Json => {
                serde_json::to_string(self).expect("texts and maps of texts are JSON") + "\n"
            }
            EventFormat::Text => self.text(),
        }
    }

    /// Time, sender, body and properties, without characters that could control a terminal.
    fn text(&self) -> String {
        let mut parts = vec![self.enqueued_time.clone().unwrap_or_else(|| "-".into())];
        parts.push(match &self.module_id {
            None => self.device_id.clone(),
            Some(module) => format!("{}/{module}", self.device_id),
        });
        parts.extend(self.message_type.map(|kind| format!("[{kind}]")));
        parts.push(match self.body_encoding {
            None => self.body.clone(),
            Some(encoding) => format!("({encoding}) {}", self.body),
        });
        parts.extend(self.properties.iter().map(|(name, value)| match value {
            None => name.clone(),
            Some(value) => format!("{name}={value}"),
        }));
        printable(&parts.join("  ")) + "\n"
    }
}

/// The name to dial, which the certificate must hold. It is the hub's own name, unless that does not resolve to the
/// address where the hub on this machine listens. The hub's certificate names that address too.
async fn dial_name(login: &Login) -> String {
    let Some(address @ IpAddr::V4(_)) = login.connect_address else { return login.host.clone() };
    let resolved = tokio::net::lookup_host((login.host.as_str(), login.mqtt_port)).await;
    let leads_there = resolved.is_ok_and(|mut found| found.any(|found| found.ip() == address));
    if leads_there { login.host.clone() } else { address.to_string() }
}

const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// An event of 256 KiB with its topic.
const PACKET_BYTES_MAX: usize = 300 * 1024;
/// The client sends one subscription and nothing else.
const REQUESTS_MAX: usize = 4;
const PAUSE_MIN: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: &str = "iothub-connection-device-id=pump-7&iothub-connection-auth-method=sas\
        &iothub-connection-auth-generation-id=638400000000000000&iothub-enqueuedtime=2026-11-24T12%3A00%3A00Z";

    fn event(topic: &str, payload: &[u8]) -> Event {
        Event::parse(topic, payload).unwrap()
    }

    fn json(event: &Event) -> serde_json::Value {
        let line = event.line(EventFormat::Json);
        assert_eq!(line.matches('\n').count(), 1);
        serde_json::from_str(&line).unwrap()
    }

    #[test]
    fn an_event_is_one_json_object_a_line() {
        let topic = format!(
            "devices/pump-7/messages/events/{STAMP}&%24.mid=m-1&%24.ct=text%2Fplain&Colour=dark%20red&b=&c"
        );
        assert_eq!(
            json(&event(&topic, b"21.5\ndegrees")),
            serde_json::json!({
                "deviceId": "pump-7", "moduleId": null, "body": "21.5\ndegrees",
                "properties": {"Colour": "dark red", "b": "", "c": null},
                "systemProperties": {
                    "messageId": "m-1", "contentType": "text/plain", "iothub-connection-auth-method": "sas",
                    "iothub-connection-auth-generation-id": "638400000000000000",
                },
                "enqueuedTime": "2026-11-24T12:00:00Z",
            })
        );
    }

    #[test]
    fn a_body_that_is_no_text_comes_in_base64() {
        let json = json(&event(&format!("devices/pump-7/messages/events/{STAMP}"), b"\xff\x00"));
        assert_eq!((json["body"].as_str(), json["bodyEncoding"].as_str()), (Some("/wA="), Some("base64")));
    }

    #[test]
    fn a_will_and_a_loss_are_told() {
        let event = event(
            &format!("devices/pump-7/messages/events/{STAMP}&iothub-MessageType=Will&portcullis-lost=12"),
            b"",
        );
        assert_eq!(json(&event)["messageType"], "Will");
        assert!(json(&event)["properties"].as_object().unwrap().is_empty());
        assert_eq!(event.lost_before, 12);
    }

    #[test]
    fn t507_the_sender_is_the_one_the_hub_stamped() {
        let bag = format!("{STAMP}&iothub-connection-device-id=boss&iothub-connection-module-id=m");
        let module = "iothub-connection-device-id=pump-7&iothub-connection-module-id=mod1";
        let forged = event(&format!("devices/pump-7/messages/events/{bag}"), b"");
        assert_eq!((forged.device_id.as_str(), forged.module_id), ("pump-7", None));
        let module = event(&format!("devices/pump-7/modules/mod1/messages/events/{module}"), b"");
        assert_eq!((module.device_id.as_str(), module.module_id.as_deref()), ("pump-7", Some("mod1")));
    }

    #[test]
    fn text_is_safe_for_a_terminal() {
        let event = event(&format!("devices/pump-7/messages/events/{STAMP}&a=%1B[2J"), b"x\x1b]0;y\x07\n");
        assert_eq!(
            event.line(EventFormat::Text),
            "2026-11-24T12:00:00Z  pump-7  x\\u{1b}]0;y\\u{7}\\n  a=\\u{1b}[2J\n"
        );
    }

    #[test]
    fn topics_that_are_no_events_are_left_out() {
        for topic in [
            "",
            "devices/d/messages/devicebound/",
            "devices/d/messages/events",
            "devices/d/messages/events/a/b",
        ] {
            assert!(Event::parse(topic, b"").is_none(), "{topic}");
        }
    }

    #[test]
    fn one_device_is_its_modules_too() {
        assert_eq!(
            events_filters(None),
            ["devices/+/messages/events/#", "devices/+/modules/+/messages/events/#"]
        );
        let device = DeviceId::parse("pump-7").unwrap();
        assert_eq!(events_filters(Some(&device))[1], "devices/pump-7/modules/+/messages/events/#");
    }
}
