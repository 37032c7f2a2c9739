//! Devices that come and go as they please, over real TLS: connections that vanish with messages in flight, newer ones
//! that take over, disabling, a restart of the hub. Each message reaches its own device, first in order, marked when it
//! comes again, and none is lost. The store under it has a larger run of its own, `registry/tests/chaos.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis::mqtt::packet::{Packet, Publish};
use portcullis_registry::error::SendError;
use portcullis_registry::identity::Status;
use portcullis_registry::message::NewC2d;
use portcullis_testing::{TestClient, TestHub, TestIdentity, within};

/// Messages to each device.
const MESSAGES: u64 = 60;

/// Numbers without pattern, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What one device has seen.
struct Device {
    identity: TestIdentity,
    random: Random,
    seen: BTreeSet<u64>,
    repeats: u64,
    takeovers: u64,
}

impl Device {
    /// Connects again and again, reads some, acknowledges some of that and is gone, until it has seen `enough`.
    async fn live(&mut self, hub: &TestHub, enough: u64) {
        let mut previous: Option<TestClient> = None;
        while (self.seen.len() as u64) < enough {
            // A refusal is a disabled device's; it will be enabled again.
            let Some(mut client) = hub.try_connect(&self.identity).await else {
                tokio::task::yield_now().await;
                continue;
            };
            self.takeovers += u64::from(previous.take().is_some());
            if !client.session_present {
                let filter = format!("{}/messages/devicebound/#", self.identity.topic());
                client.send_or_lose(subscribe(&filter)).await;
            }
            for _ in 0..=self.random.below(4) {
                if !self.read(&mut client).await {
                    break;
                }
            }
            // Left open for the next to take over, or gone without a word.
            previous = (self.random.below(3) == 0).then_some(client);
        }
    }

    /// Reads what is there; false when the connection has ended.
    async fn read(&mut self, client: &mut TestClient) -> bool {
        client.send_or_lose(Packet::PingReq).await;
        loop {
            match client.packet_or_end().await {
                Some(Packet::Publish(publish)) => {
                    self.judge(&publish);
                    if self.random.below(4) > 0 {
                        client.send_or_lose(Packet::PubAck(publish.packet_id.unwrap())).await;
                    }
                }
                Some(Packet::PingResp) => return true,
                Some(Packet::SubAck { codes, .. }) => assert_eq!(codes, [1]),
                Some(packet) => panic!("{packet:?}"),
                None => return false,
            }
        }
    }

    fn judge(&mut self, publish: &Publish) {
        let body = std::str::from_utf8(&publish.payload).unwrap();
        let (id, number) = body.split_once(' ').unwrap();
        assert_eq!(id, self.identity.id.to_string(), "delivered to another");
        let number: u64 = number.parse().unwrap();
        let newest = self.seen.last().copied();
        if self.seen.insert(number) {
            assert!(
                newest.is_none_or(|newest| newest < number),
                "{id}: {newest:?}, then for the first time {number}"
            );
        } else {
            assert!(publish.dup, "{id}: {number} came again without a mark");
            self.repeats += 1;
        }
    }
}

fn subscribe(filter: &str) -> Packet {
    use portcullis::mqtt::packet::{QoS, Subscribe, Utf8Bytes};
    let filter = Utf8Bytes::parse(filter.to_owned().into_bytes()).unwrap();
    Packet::Subscribe(Subscribe { packet_id: 1, filters: vec![(filter, QoS::AtLeastOnce)] })
}

/// Sends up to `last`, as fast as there is room.
async fn send(hub: &TestHub, to: &TestIdentity, first: u64, last: u64) {
    let mut number = first;
    while number <= last {
        let body = format!("{} {number}", to.id).into();
        let message = NewC2d { body, ..NewC2d::default() };
        match hub.hub.registry.send(&to.id, message, hub.hub.clock.wall()).await {
            Ok(_) => number += 1,
            Err(SendError::QueueFull { .. } | SendError::Disabled(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Disables and enables devices, until all the others are done.
async fn meddle(hub: &TestHub, devices: &[TestIdentity], busy: &AtomicU64) {
    let mut random = Random(99);
    while busy.load(Ordering::Relaxed) > 0 {
        let device = &devices[random.below(devices.len() as u64) as usize];
        hub.change(device, |spec| spec.status = Status::Disabled).await;
        hub.change(device, |spec| spec.status = Status::Enabled).await;
        for _ in 0..random.below(2_000) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn t609_t612_p3_p4_whatever_devices_do_their_messages_come_in_order_and_none_is_lost() {
    let mut hub = TestHub::start().await;
    let names = ["p1", "P1", "p10", "p1.", "p1%", "p", "P", "p11"];
    let mut identities = Vec::new();
    for name in names {
        identities.push(hub.device(name).await);
    }
    let mut devices: Vec<Device> = identities
        .iter()
        .enumerate()
        .map(|(seed, identity)| Device {
            identity: identity.clone(),
            random: Random(seed as u64),
            seen: BTreeSet::new(),
            repeats: 0,
            takeovers: 0,
        })
        .collect();
    // In two halves, with a restart between them.
    for (first, last) in [(1, MESSAGES / 2), (MESSAGES / 2 + 1, MESSAGES)] {
        let busy = Arc::new(AtomicU64::new(names.len() as u64));
        let sends = identities.iter().map(|identity| send(&hub, identity, first, last));
        let lives = devices.iter_mut().map(async |device| {
            device.live(&hub, last).await;
            busy.fetch_sub(1, Ordering::Relaxed);
        });
        let (sends, lives) = (futures_util::future::join_all(sends), futures_util::future::join_all(lives));
        within(async { tokio::join!(sends, lives, meddle(&hub, &identities, &busy)) }).await;
        hub = hub.restart().await;
    }
    for device in &devices {
        let all: BTreeSet<u64> = (1..=MESSAGES).collect();
        assert_eq!(device.seen, all, "{}", device.identity.id);
    }
    // What was seen and not acknowledged is still there, and nothing else.
    assert!(devices.iter().map(|device| device.repeats).sum::<u64>() > 0);
    assert!(devices.iter().map(|device| device.takeovers).sum::<u64>() > 0);
    hub.stop().await;
}
