//! `why`: the last connections and refusals of a device, the reason of each, and what the operator can do.

use clap::{ArgGroup, Args};
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::identity::connections_path;
use crate::login::Access;
use crate::output::{Column, TextArgs, printable, scalar};
use crate::rest::Rest;
use portcullis::hub::outcome::ConnectionOutcome;

/// `why`.
#[derive(Args)]
#[command(group = ArgGroup::new("whom").required(true).args(["device", "device_id"]))]
pub(super) struct WhyArgs {
    /// The device
    #[arg(value_name = "DEVICE", value_parser = DeviceId::parse)]
    device: Option<DeviceId>,
    /// The device, as other verbs take it
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: Option<DeviceId>,
    /// Its module
    #[arg(short, long, value_name = "ID", value_parser = ModuleId::parse)]
    module_id: Option<ModuleId>,
    #[command(flatten)]
    output: TextArgs,
    #[command(flatten)]
    access: Access,
}

impl WhyArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let device = self
            .device
            .or(self.device_id)
            .ok_or_else(|| Failure::usage("name a device, as in `portcullis why pump-7`"))?;
        let id = IdentityId { device, module: self.module_id };
        let told = Rest::new(self.access.login()?)?.get(&connections_path(&id), &[]).await?;
        let words = || words(&id, &told);
        self.output.print_report(&told, words, || (Value::Array(happenings(&told)), COLUMNS))
    }
}

/// The whole report as text, newest first. A hint follows the first event that it is for, and is not repeated.
fn words(id: &IdentityId, told: &Value) -> String {
    let is = |member: &str| told[member].as_bool() == Some(true);
    let registered = if is("registered") { "registered" } else { "not registered" };
    let connected = if is("connected") { "connected" } else { "not connected" };
    let mut text =
        format!("{id} is {registered} and {connected}; the hub's clock says {}\n", said(told, "/time"));
    if told["flapping"].is_object() {
        text += &flapping(told);
    }
    let mut hinted = Vec::new();
    for happening in happenings(told) {
        let outcome = said(&happening, "/outcome");
        text += &line(&happening);
        if let Some(hint) = ConnectionOutcome::parse(&outcome).and_then(|outcome| outcome.advice(id))
            && !hinted.contains(&outcome)
        {
            text += &format!("    hint: {hint}\n");
            hinted.push(outcome);
        }
    }
    let kept = told["refusals"].as_array().map_or(0, Vec::len) as u64;
    match told["refusalCount"].as_u64().unwrap_or_default() {
        0 if told["connections"].as_array().is_none_or(Vec::is_empty) => {
            text += "the hub remembers no connection and no refusal of it since the hub started\n";
        }
        count if count > kept => text += &format!("refused {count} times in all\n"),
        _ => {}
    }
    text
}

fn flapping(told: &Value) -> String {
    let of = |member: &str| said(told, &format!("/flapping/{member}"));
    let (count, since, last) = (of("takeovers"), of("since"), of("last"));
    format!(
        "flapping: another client took over its connection {count} more times from {since} to {last}\n    \
         hint: several clients use this identity, or one client reconnects without closing; give each device \
         an identity of its own\n"
    )
}

/// The connections, disconnects and refusals as objects of one shape, newest first.
fn happenings(told: &Value) -> Vec<Value> {
    let list = |member: &str| told[member].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for refusal in list("refusals") {
        all.push(json!({
            "time": refusal["time"], "event": "refused", "peer": refusal["peer"], "face": refusal["face"],
            "outcome": refusal["outcome"], "reason": refusal["reason"], "seen": refusal["seen"],
            "expected": refusal["expected"], "secondsLeft": refusal["tokenSecondsLeft"],
        }));
    }
    for connection in list("connections") {
        if !connection["disconnected"].is_null() {
            all.push(json!({
                "time": connection["disconnected"], "event": "disconnected", "peer": connection["peer"],
                "outcome": connection["reason"], "reason": connection["text"],
                "duration": connection["durationSeconds"],
            }));
        }
        all.push(json!({
            "time": connection["connected"], "event": "connected", "peer": connection["peer"],
            "outcome": "succeeded", "reason": connection["method"],
            "secondsLeft": connection["credentialSecondsLeft"],
        }));
    }
    // Times with and without fractions of a second do not sort as texts.
    all.sort_by_key(|happening| std::cmp::Reverse(said(happening, "/time").parse::<jiff::Timestamp>().ok()));
    all
}

fn line(happening: &Value) -> String {
    let of = |member: &str| said(happening, &format!("/{member}"));
    let (time, peer, outcome, reason) = (of("time"), of("peer"), of("outcome"), of("reason"));
    let seconds = happening["secondsLeft"].as_i64();
    match of("event").as_str() {
        "refused" => {
            let mut text = format!("{time}  refused ({}) from {peer}: {reason} [{outcome}]\n", of("face"));
            if !of("seen").is_empty() {
                text += &format!("    seen: {}; expected: {}\n", of("seen"), of("expected"));
            }
            match seconds {
                Some(left @ 0..) => text += &format!("    its token had {left} s left\n"),
                Some(left) => {
                    text += &format!("    its token had expired {} s before\n", left.unsigned_abs())
                }
                None => {}
            }
            text
        }
        "disconnected" => {
            let duration = of("duration");
            let more = if reason.is_empty() { reason } else { format!(": {reason}") };
            // A later hub may have outcomes that this version does not know.
            let why =
                ConnectionOutcome::parse(&outcome).map_or(outcome.as_str(), |known| known.description());
            format!("{time}  disconnected from {peer} after {duration} s: {why}{more} [{outcome}]\n")
        }
        _ => {
            let ahead = seconds.map(|left| format!(", which had {left} s left")).unwrap_or_default();
            format!("{time}  connected from {peer} by {reason}{ahead}\n")
        }
    }
}

fn said(value: &Value, pointer: &str) -> String {
    printable(&scalar(value, pointer))
}

const COLUMNS: &[Column] = &[
    ("Time", |happening| scalar(happening, "/time")),
    ("Event", |happening| scalar(happening, "/event")),
    ("Peer", |happening| scalar(happening, "/peer")),
    ("Outcome", |happening| scalar(happening, "/outcome")),
    ("Reason", |happening| scalar(happening, "/reason")),
];
pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis why pump-7
  portcullis why pump-7 --module-id camera
  portcullis why -d pump-7 -o json --query 'refusals[0]'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_wrote_does_not_reach_the_terminal_raw_and_a_hint_stands_once() {
        let id = IdentityId::device(DeviceId::parse("d").unwrap());
        let refusal = |time: &str| {
            json!({"time": time, "peer": "::1", "face": "mqtt", "outcome": "unknown_policy",
                "reason": "no shared access policy \u{1b}[2J", "seen": "\u{7}", "expected": "x",
                "tokenSecondsLeft": -3})
        };
        let told = json!({"time": "2026-01-01T00:00:09Z", "registered": true, "connected": false,
            "refusalCount": 7, "connections": [],
            "refusals": [refusal("2026-01-01T00:00:08.5Z"), refusal("2026-01-01T00:00:08Z")]});
        let words = words(&id, &told);
        assert!(!words.contains(['\u{1b}', '\u{7}']), "{words:?}");
        assert_eq!(words.matches("hint: ").count(), 1, "{words}");
        assert!(
            words.contains("its token had expired 3 s before") && words.ends_with("refused 7 times in all\n")
        );
        let times: Vec<_> = happenings(&told).iter().map(|happening| scalar(happening, "/time")).collect();
        assert_eq!(times, ["2026-01-01T00:00:08.5Z", "2026-01-01T00:00:08Z"]);
    }
}
