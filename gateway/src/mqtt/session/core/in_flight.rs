//! What was sent at QoS 1 and is not acknowledged yet, and the packet ids it has.

use std::collections::VecDeque;

use portcullis_registry::lock::LockToken;

/// In the order of sending; no packet id is there twice.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    sent: VecDeque<(u16, Sent)>,
    last_packet_id: u16,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// The message of this number in the device's queue.
    Message(u64),
    /// Telemetry, which nobody keeps.
    Event,
    /// A batch of feedback.
    Feedback(LockToken),
}

impl InFlight {
    /// Adds a message of the device's queue; the packet id it is sent with. A message keeps its own over all its
    /// deliveries ([MQTT-4.4.0-1]). Should one whose number is a multiple of 65,535 away still be in flight, the
    /// next free id serves.
    pub(super) fn add_message(&mut self, number: u64) -> u16 {
        let packet_id = self.free_packet_id(number);
        self.sent.push_back((packet_id, Sent::Message(number)));
        packet_id
    }

    /// Adds what has no number of its own; the packet id it is sent with.
    pub(super) fn add(&mut self, what: Sent) -> u16 {
        self.last_packet_id = self.free_packet_id(u64::from(self.last_packet_id) + 1);
        self.sent.push_back((self.last_packet_id, what));
        self.last_packet_id
    }

    /// What a packet id acknowledges, once.
    pub(super) fn take(&mut self, packet_id: u16) -> Option<Sent> {
        let place = self.sent.iter().position(|(own, _)| *own == packet_id)?;
        self.sent.remove(place).map(|(_, what)| what)
    }

    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    /// How many batches of feedback there are.
    pub(super) fn batches(&self) -> usize {
        self.sent.iter().filter(|(_, what)| matches!(what, Sent::Feedback(_))).count()
    }

    fn free_packet_id(&self, number: u64) -> u16 {
        let mut packet_id = packet_id_of(number);
        while self.sent.iter().any(|(own, _)| *own == packet_id) {
            packet_id = packet_id_of(u64::from(packet_id) + 1);
        }
        packet_id
    }
}

/// Numbers from 1, in a circle over all packet ids but 0.
pub(super) fn packet_id_of(number: u64) -> u16 {
    let position = number.saturating_sub(1) % u64::from(u16::MAX);
    position as u16 + 1
}
