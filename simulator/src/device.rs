//! One device's life, as an official SDK would live it: connect, subscribe, send telemetry, acknowledge what arrives,
//! come back after a lost connection, leave in order.
//!
//! The connection is driven by one loop (`listen`) that is never cut off in the middle of a packet; a second one
//! (`talk`) hands it messages at the device's pace. Both run in one task, so between two awaits nothing changes.

use std::collections::HashMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, Outgoing, Packet, QoS,
    StateError, SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::c2d;
use crate::fleet::Run;
use crate::pacing::Pace;
use crate::provision::Provisioned;
use crate::tally::Count;

/// A device of the fleet.
#[derive(Debug)]
pub struct Device {
    pub identity: Provisioned,
    /// Its place in the fleet, 0 to 1: spreads what the devices do over time.
    pub phase: f64,
}

/// What the two loops of a device know of the connection.
#[derive(Default)]
struct Link {
    connected: AtomicBool,
    /// Telemetry messages handed over and not acknowledged.
    unacknowledged: AtomicU64,
    acknowledged: Notify,
}

impl Device {
    /// Lives until the run is over.
    pub async fn live(self, run: Run) {
        let (client, events) = AsyncClient::new(self.options(&run), REQUESTS_MAX);
        let link = Link::default();
        tokio::join!(self.listen(&run, &client, events, &link), self.talk(&run, &client, &link));
        if link.connected.load(Ordering::Relaxed) {
            run.tally.disconnected();
        }
    }

    fn options(&self, run: &Run) -> MqttOptions {
        let access = &run.access;
        let mut options = MqttOptions::new(self.identity.id.as_str(), &access.hostname, access.mqtt_port);
        options
            .set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(access.tls.clone())))
            .set_keep_alive(KEEP_ALIVE)
            .set_clean_session(false)
            .set_inflight(IN_FLIGHT_MAX)
            .set_max_packet_size(PACKET_BYTES_MAX, PACKET_BYTES_MAX);
        options
    }

    /// Drives the connection and makes it again when it is lost.
    async fn listen(&self, run: &Run, client: &AsyncClient, mut events: EventLoop, link: &Link) {
        events.network_options.set_connection_timeout(CONNECT_TIME_MAX.as_secs());
        let mut tried = false;
        let mut ever_connected = false;
        let mut failures = 0;
        loop {
            let connected = self.connect(run, &mut events).await;
            if !tried {
                run.ramp.tried();
                tried = true;
            }
            match connected {
                None => return,
                Some(Err(error)) => {
                    run.tally.refused(reason(&error));
                    failures += 1;
                }
                Some(Ok(session_present)) => {
                    if !ever_connected {
                        run.tally.add(Count::EverConnected, 1);
                    }
                    if !session_present {
                        // The hub kept no session, so what was not acknowledged is not sent again.
                        link.unacknowledged.store(0, Ordering::Relaxed);
                    }
                    if !session_present || !ever_connected {
                        self.subscribe(run, client);
                    }
                    ever_connected = true;
                    link.connected.store(true, Ordering::Relaxed);
                    let Some(error) = self.converse(run, &mut events, link).await else { return };
                    link.connected.store(false, Ordering::Relaxed);
                    run.tally.disconnected();
                    run.tally.dropped(reason(&error));
                    failures = 0;
                }
            }
            tokio::select! {
                () = run.stop.cancelled() => return,
                () = sleep(self.retry_delay(failures)) => {}
            }
        }
    }

    /// One attempt to connect, its turn awaited; whether the hub had kept the session. `None` when the run stops.
    async fn connect(&self, run: &Run, events: &mut EventLoop) -> Option<Result<bool, ConnectionError>> {
        let _turn = tokio::select! {
            () = run.stop.cancelled() => return None,
            turn = run.ramp.turn() => turn,
        };
        let Provisioned { id, key, .. } = &self.identity;
        let username = format!("{}/{id}/?{USERNAME_QUERY}", run.access.hostname);
        events.mqtt_options.set_credentials(username, run.access.device_token(id, key, Timestamp::now()));
        let dialled = Instant::now();
        let answer = tokio::select! {
            () = run.stop.cancelled() => return None,
            answer = events.poll() => answer,
        };
        match answer {
            Err(error) => Some(Err(error)),
            // rumqttc: without a connection, poll makes one and yields its CONNACK.
            Ok(event) => {
                run.tally.connected(dialled.elapsed());
                Some(Ok(matches!(event, Event::Incoming(Packet::ConnAck(answer)) if answer.session_present)))
            }
        }
    }

    fn subscribe(&self, run: &Run, client: &AsyncClient) {
        let filter = format!("devices/{}/messages/devicebound/#", self.identity.id);
        if client.try_subscribe(filter, QoS::AtLeastOnce).is_err() {
            run.tally.failed("subscribe", "the connection takes no more requests".into());
        }
    }

    /// Takes what the connection yields until it is lost (with what) or the device has left (`None`).
    async fn converse(&self, run: &Run, events: &mut EventLoop, link: &Link) -> Option<ConnectionError> {
        let mut sent_at = HashMap::new();
        loop {
            let event = tokio::select! {
                () = run.gone.cancelled() => return None,
                event = events.poll() => event,
            };
            match event {
                Err(error) => return Some(error),
                Ok(Event::Outgoing(Outgoing::Disconnect)) => return None,
                Ok(Event::Outgoing(Outgoing::Publish(packet_id))) => {
                    sent_at.insert(packet_id, Instant::now());
                }
                Ok(Event::Incoming(Packet::PubAck(ack))) => {
                    if let Some(sent_at) = sent_at.remove(&ack.pkid) {
                        run.tally.acknowledged(sent_at.elapsed());
                        link.unacknowledged.fetch_sub(1, Ordering::Relaxed);
                        link.acknowledged.notify_one();
                    }
                }
                Ok(Event::Incoming(Packet::Publish(message))) => {
                    // rumqttc acknowledges it by itself.
                    if let Some(number) = c2d::number(&message.topic, &run.id) {
                        run.tally.c2d_arrived(number);
                    }
                }
                Ok(Event::Incoming(Packet::SubAck(answer))) => {
                    if answer.return_codes.contains(&SubscribeReasonCode::Failure) {
                        run.tally.failed("subscribe", "refused".into());
                    }
                }
                // Pings, and our own packets going out.
                Ok(Event::Incoming(_) | Event::Outgoing(_)) => {}
            }
        }
    }

    /// Hands over telemetry at the device's pace while there is a connection; at the end waits for the
    /// acknowledgements and leaves.
    async fn talk(&self, run: &Run, client: &AsyncClient, link: &Link) {
        let started = tokio::select! {
            () = run.stop.cancelled() => None,
            started = run.ramp.started() => started,
        };
        let pace = started.and_then(|start| Pace::new(start, run.scenario.rate_per_second, self.phase));
        if let Some(pace) = pace {
            self.send_telemetry(run, client, link, pace).await;
        }
        run.stop.cancelled().await;
        while link.connected.load(Ordering::Relaxed) && link.unacknowledged.load(Ordering::Relaxed) > 0 {
            tokio::select! {
                () = run.gone.cancelled() => return,
                () = link.acknowledged.notified() => {}
            }
        }
        // Fails when the connection is gone already, and then there is nothing to leave.
        let _ = client.try_disconnect();
    }

    async fn send_telemetry(&self, run: &Run, client: &AsyncClient, link: &Link, mut pace: Pace) {
        let mut sequence = 0;
        loop {
            tokio::select! {
                () = run.stop.cancelled() => return,
                () = sleep_until(pace.deadline()) => {}
            }
            run.tally.add(Count::Withheld, pace.advance(Instant::now()));
            let room = link.unacknowledged.load(Ordering::Relaxed) < UNACKNOWLEDGED_MAX;
            if !link.connected.load(Ordering::Relaxed) || !room {
                run.tally.add(Count::Withheld, 1);
                continue;
            }
            sequence += 1;
            let topic = format!(
                "devices/{}/messages/events/sim-run={}&sim-number={sequence}&sim-sent={}",
                self.identity.id,
                run.id,
                Timestamp::now().as_millisecond()
            );
            match client.try_publish(topic, QoS::AtLeastOnce, false, run.scenario.payload(sequence)) {
                Ok(()) => {
                    run.tally.add(Count::Sent, 1);
                    link.unacknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(_) => run.tally.add(Count::Withheld, 1),
            }
        }
    }

    /// Doubles with every failure, up to a limit; devices that were cut off together come back one after another.
    fn retry_delay(&self, failures: u32) -> Duration {
        let delay = RETRY_DELAY_MIN.saturating_mul(1 << failures.min(16)).min(RETRY_DELAY_MAX);
        delay.mul_f64(0.5 + self.phase / 2.0)
    }
}

/// A short text that is the same for the same fault, whichever device it befell.
fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => match code {
            ConnectReturnCode::NotAuthorized => "refused: not authorized (5)".into(),
            ConnectReturnCode::ServiceUnavailable => "refused: service unavailable (3)".into(),
            other => format!("refused: {other:?}"),
        },
        ConnectionError::NetworkTimeout => "timed out".into(),
        ConnectionError::FlushTimeout => "the hub stopped reading".into(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "closed by the hub".into(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "the hub did not answer a ping".into(),
        ConnectionError::MqttState(other) => innermost(other),
        ConnectionError::Tls(other) => innermost(other),
        ConnectionError::Io(other) => innermost(other),
        ConnectionError::NotConnAck(_) => "something else than CONNACK".into(),
        ConnectionError::RequestsDone => "ended".into(),
    }
}

/// The text of the cause at the bottom, which is the same with and without a layer above it.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// As the Node SDK has it, but for the client type.
const USERNAME_QUERY: &str =
    concat!("api-version=2021-04-12&DeviceClientType=portcullis-simulator%2F", env!("CARGO_PKG_VERSION"));
const KEEP_ALIVE: Duration = Duration::from_secs(180);
/// Long, for with many devices at once it is this machine that is slow, not the hub.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(60);
const RETRY_DELAY_MIN: Duration = Duration::from_secs(1);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(30);
/// The largest message there is, its topic included, with room.
const PACKET_BYTES_MAX: usize = 300 * 1024;
/// Telemetry messages under way; beyond, messages are withheld and counted.
const UNACKNOWLEDGED_MAX: u64 = 32;
/// More than ever are under way: rumqttc reuses packet ids beyond this number and stalls on a collision.
const IN_FLIGHT_MAX: u16 = 64;
/// Requests between the two loops: the telemetry under way, a subscription and the farewell.
const REQUESTS_MAX: usize = UNACKNOWLEDGED_MAX as usize + 2;

#[cfg(test)]
mod tests {
    use std::io;

    use portcullis_registry::credential::SymmetricKey;
    use portcullis_registry::id::DeviceId;

    use super::*;

    #[test]
    fn reasons_do_not_depend_on_the_layer_that_tells_them() {
        let reset = || io::Error::new(io::ErrorKind::ConnectionReset, "connection reset");
        let plain = reason(&ConnectionError::Io(reset()));
        assert_eq!(plain, "connection reset");
        assert_eq!(reason(&ConnectionError::MqttState(StateError::Io(reset()))), plain);
    }

    #[test]
    fn a_refusal_names_its_code() {
        let refused = ConnectionError::ConnectionRefused(ConnectReturnCode::NotAuthorized);
        assert_eq!(reason(&refused), "refused: not authorized (5)");
    }

    #[test]
    fn retries_slow_down_to_a_limit() {
        let identity =
            Provisioned { id: DeviceId::parse("d").unwrap(), key: SymmetricKey::generate(), made: false };
        let device = Device { identity, phase: 1.0 };
        let delays: Vec<_> = (0..8).map(|failures| device.retry_delay(failures)).collect();
        assert!(delays.is_sorted());
        assert_eq!(delays[7], RETRY_DELAY_MAX);
        assert_eq!(device.retry_delay(u32::MAX), RETRY_DELAY_MAX);
    }
}
