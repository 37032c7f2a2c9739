//! Packets to bytes, straight into the output buffer.

use bytes::{BufMut, BytesMut};

use super::CONNECT_FIXED_BYTES;
use crate::mqtt::packet::{Connect, Packet, Password, Publish, Subscribe, Unsubscribe};

/// Appends a packet to `out`. The texts of a CONNECT must be short enough for their two length bytes.
pub fn encode(packet: &Packet, out: &mut BytesMut) {
    match packet {
        Packet::Connect(connect) => encode_connect(connect, out),
        Packet::ConnAck { session_present, code } => {
            out.put_slice(&[0x20, 2, u8::from(*session_present), *code as u8]);
        }
        Packet::Publish(publish) => encode_publish(publish, out),
        Packet::PubAck(id) => encode_ack(0x40, *id, out),
        Packet::PubRec(id) => encode_ack(0x50, *id, out),
        Packet::PubRel(id) => encode_ack(0x62, *id, out),
        Packet::PubComp(id) => encode_ack(0x70, *id, out),
        Packet::Subscribe(subscribe) => encode_subscribe(subscribe, out),
        Packet::SubAck { packet_id, codes } => {
            put_header(0x90, 2 + codes.len(), out);
            out.put_u16(*packet_id);
            out.put_slice(codes);
        }
        Packet::Unsubscribe(unsubscribe) => encode_unsubscribe(unsubscribe, out),
        Packet::UnsubAck(id) => encode_ack(0xB0, *id, out),
        Packet::PingReq => out.put_slice(&[0xC0, 0]),
        Packet::PingResp => out.put_slice(&[0xD0, 0]),
        Packet::Disconnect => out.put_slice(&[0xE0, 0]),
    }
}

fn put_header(first: u8, remaining: usize, out: &mut BytesMut) {
    out.reserve(5 + remaining);
    out.put_u8(first);
    let mut rest = remaining;
    while rest > 0x7F {
        out.put_u8((rest & 0x7F) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// Texts are never longer than two bytes can say; that is what their type means.
fn put_text(text: &[u8], out: &mut BytesMut) {
    out.put_u16(text.len() as u16);
    out.put_slice(text);
}

fn encode_ack(first: u8, packet_id: u16, out: &mut BytesMut) {
    out.put_slice(&[first, 2]);
    out.put_u16(packet_id);
}

fn encode_publish(publish: &Publish, out: &mut BytesMut) {
    let first = 0x30 | u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain);
    let id_bytes = if publish.packet_id.is_some() { 2 } else { 0 };
    put_header(first, 2 + publish.topic.len() + id_bytes + publish.payload.len(), out);
    put_text(publish.topic.as_bytes(), out);
    if let Some(packet_id) = publish.packet_id {
        out.put_u16(packet_id);
    }
    out.put_slice(&publish.payload);
}

fn encode_subscribe(subscribe: &Subscribe, out: &mut BytesMut) {
    put_header(0x82, 2 + subscribe.filters.iter().map(|(filter, _)| 3 + filter.len()).sum::<usize>(), out);
    out.put_u16(subscribe.packet_id);
    for (filter, qos) in &subscribe.filters {
        put_text(filter.as_bytes(), out);
        out.put_u8(*qos as u8);
    }
}

fn encode_unsubscribe(unsubscribe: &Unsubscribe, out: &mut BytesMut) {
    put_header(0xA2, 2 + unsubscribe.filters.iter().map(|filter| 2 + filter.len()).sum::<usize>(), out);
    out.put_u16(unsubscribe.packet_id);
    for filter in &unsubscribe.filters {
        put_text(filter.as_bytes(), out);
    }
}

fn encode_connect(connect: &Connect, out: &mut BytesMut) {
    let will = connect.will.as_ref();
    let username = connect.username.as_ref();
    let password = connect.password.as_ref().map(Password::as_str);
    let mut flags = u8::from(connect.clean_session) << 1;
    let mut remaining = CONNECT_FIXED_BYTES + 2 + connect.client_id.len();
    if let Some(will) = will {
        flags |= 1 << 2 | (will.qos as u8) << 3 | u8::from(will.retain) << 5;
        remaining += 4 + will.topic.len() + will.payload.len();
    }
    if let Some(username) = username {
        flags |= 1 << 7;
        remaining += 2 + username.len();
    }
    if let Some(password) = password {
        flags |= 1 << 6;
        remaining += 2 + password.len();
    }
    put_header(0x10, remaining, out);
    put_text(b"MQTT", out);
    out.put_slice(&[4, flags]);
    out.put_u16(connect.keep_alive);
    put_text(connect.client_id.as_bytes(), out);
    if let Some(will) = will {
        put_text(will.topic.as_bytes(), out);
        put_text(&will.payload, out);
    }
    if let Some(username) = username {
        put_text(username.as_bytes(), out);
    }
    if let Some(password) = password {
        put_text(password.as_bytes(), out);
    }
}
