//! A line of an import file, made of an identity's twin and, if the policy may read it, its entry in the registry. Only
//! the entry has the keys.
//!
//! Source: IoT Hub, "Import and export device identities in bulk", for the members and their order.

use portcullis_registry::lines::LINE_BYTES_MAX;
use serde::Serialize;
use serde_json::{Value, json};

use crate::output::scalar;

/// A line in the file's format.
pub(super) struct Line {
    pub(super) text: String,
    /// What was left out so that the line is short enough for an import.
    pub(super) left_out: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'a str>,
    e_tag: Option<&'a Value>,
    /// IoT Hub: a module has no status of its own, but its line has one.
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<&'a Value>,
    authentication: Authentication,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_scope: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_scopes: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_messages_max: Option<&'a Value>,
    #[serde(rename = "twinETag", skip_serializing_if = "Option::is_none")]
    twin_etag: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    properties: Option<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Authentication {
    symmetric_key: Value,
    #[serde(rename = "x509Thumbprint")]
    x509_thumbprint: Value,
    #[serde(rename = "type")]
    kind: Value,
}

impl Line {
    /// The line of a twin's identity. Without an entry it has no keys.
    pub(super) fn of(twin: &Value, entry: Option<&Value>) -> Self {
        // The twin may be out of date, so the entry's value counts, even if it is null.
        let registered = |name: &str| {
            let told = entry.and_then(|entry| entry.get(name)).or_else(|| twin.get(name));
            told.filter(|value| !value.is_null())
        };
        let text = |name: &str| registered(name).and_then(Value::as_str);
        let mut item = Item {
            id: text("deviceId").unwrap_or_default(),
            module_id: text("moduleId"),
            e_tag: entry.and_then(|entry| entry.get("etag")).or_else(|| twin.get("deviceEtag")),
            status: text("status").unwrap_or("enabled"),
            status_reason: registered("statusReason"),
            authentication: entry.map_or_else(|| without_keys(twin), with_keys),
            capabilities: registered("capabilities"),
            managed_by: registered("managedBy"),
            device_scope: registered("deviceScope"),
            parent_scopes: registered("parentScopes"),
            access: registered("access"),
            queue_messages_max: registered("queueMessagesMax"),
            twin_etag: twin.get("etag"),
            tags: twin.get("tags"),
            properties: twin.get("properties").cloned(),
        };
        let mut line = item.text();
        for (left_out, leave_out) in SHORTER {
            if line.len() <= LINE_BYTES_MAX {
                return Self { text: line, left_out: None };
            }
            if let Some(properties) = &mut item.properties {
                leave_out(properties);
            }
            line = item.text();
            if line.len() <= LINE_BYTES_MAX {
                return Self { text: line, left_out: Some(left_out) };
            }
        }
        Self { text: line, left_out: None }
    }
}

impl Item<'_> {
    fn text(&self) -> String {
        // Every member is text, JSON, or a struct of these, so it can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn with_keys(entry: &Value) -> Authentication {
    let own = &entry["authentication"];
    let or =
        |name: &str, other: Value| own.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(other);
    Authentication {
        symmetric_key: or("symmetricKey", no_keys()),
        x509_thumbprint: or("x509Thumbprint", no_thumbprints()),
        kind: or("type", "sas".into()),
    }
}

/// How the identity signs in, as far as its twin shows it.
fn without_keys(twin: &Value) -> Authentication {
    let told = |name: &str| twin.get(name).filter(|value| !value.is_null()).cloned();
    Authentication {
        symmetric_key: no_keys(),
        x509_thumbprint: told("x509Thumbprint").unwrap_or_else(no_thumbprints),
        kind: told("authenticationType").unwrap_or_else(|| "sas".into()),
    }
}

fn no_keys() -> Value {
    json!({ "primaryKey": null, "secondaryKey": null })
}

fn no_thumbprints() -> Value {
    json!({ "primaryThumbprint": null, "secondaryThumbprint": null })
}

type LeaveOut = fn(&mut Value);

fn leave_out_metadata(properties: &mut Value) {
    for part in ["desired", "reported"] {
        if let Some(part) = properties.get_mut(part).and_then(Value::as_object_mut) {
            part.remove("$metadata");
        }
    }
}

fn leave_out_reported(properties: &mut Value) {
    if let Some(properties) = properties.as_object_mut() {
        properties.remove("reported");
    }
}

/// Counts of a file's lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) devices: u64,
    pub(super) modules: u64,
    /// Identities that sign in with keys which their lines do not have.
    pub(super) without_keys: u64,
    /// IoT Edge devices.
    pub(super) edge: u64,
    /// Devices that have a parent.
    pub(super) children: u64,
}

impl Tally {
    pub(super) fn lines(&self) -> u64 {
        self.devices + self.modules
    }

    pub(super) fn add(&mut self, line: &Value) {
        if line.get("moduleId").is_some() {
            self.modules += 1;
        } else {
            self.devices += 1;
        }
        let authentication = &line["authentication"];
        let keys = &authentication["symmetricKey"];
        if authentication["type"] == "sas" && (keys["primaryKey"].is_null() || keys["secondaryKey"].is_null())
        {
            self.without_keys += 1;
        }
        let is_edge = line["capabilities"]["iotEdge"] == true;
        self.edge += u64::from(is_edge);
        // IoT Hub: the scope of an Edge device is its own; its parents are those of `parentScopes`.
        let has_parents = line["parentScopes"].as_array().is_some_and(|parents| !parents.is_empty());
        self.children += u64::from(has_parents || !is_edge && !scalar(line, "/deviceScope").is_empty());
    }
}

/// The optional parts of a line, the least important first. A device reports its properties again by itself.
const SHORTER: [(&str, LeaveOut); 2] = [
    ("the times when its twin's properties were written", leave_out_metadata),
    ("the reported properties of its twin", leave_out_reported),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn twin() -> Value {
        json!({"deviceId": "pump-7", "etag": "AAAAAAAAAAE=", "deviceEtag": "MA==", "status": "disabled",
            "statusReason": "sold", "authenticationType": "selfSigned", "capabilities": {"iotEdge": false},
            "x509Thumbprint": {"primaryThumbprint": "AB", "secondaryThumbprint": null},
            "tags": {"site": "north"}, "version": 4, "connectionState": "Disconnected",
            "properties": {"desired": {"a": 1, "$version": 1}, "reported": {"$version": 1}}})
    }

    #[test]
    fn the_members_are_those_of_an_export_in_its_order() {
        let entry = json!({"deviceId": "pump-7", "etag": "Mg==", "status": "enabled", "statusReason": null,
            "connectionState": "Connected", "generationId": "1", "capabilities": {"iotEdge": false},
            "authentication": {"type": "sas", "symmetricKey": {"primaryKey": "AA==", "secondaryKey": "BB=="},
                "x509Thumbprint": null}});
        assert_eq!(
            Line::of(&twin(), Some(&entry)).text,
            r#"{"id":"pump-7","eTag":"Mg==","status":"enabled","authentication":{"#.to_owned()
                + r#""symmetricKey":{"primaryKey":"AA==","secondaryKey":"BB=="},"x509Thumbprint":{"#
                + r#""primaryThumbprint":null,"secondaryThumbprint":null},"type":"sas"},"#
                + r#""capabilities":{"iotEdge":false},"twinETag":"AAAAAAAAAAE=","tags":{"site":"north"},"#
                + r#""properties":{"desired":{"$version":1,"a":1},"reported":{"$version":1}}}"#
        );
    }

    #[test]
    fn without_the_entry_thumbprints_are_there_and_keys_are_not() {
        let line: Value = serde_json::from_str(&Line::of(&twin(), None).text).unwrap();
        assert_eq!(line["authentication"]["x509Thumbprint"]["primaryThumbprint"], "AB");
        assert_eq!(line["authentication"]["type"], "selfSigned");
        assert_eq!((&line["eTag"], &line["statusReason"]), (&json!("MA=="), &json!("sold")));
        let mut tally = Tally::default();
        tally.add(&line);
        assert_eq!(tally, Tally { devices: 1, ..Tally::default() });
        let mut of_keys = twin();
        of_keys["authenticationType"] = "sas".into();
        tally.add(&serde_json::from_str(&Line::of(&of_keys, None).text).unwrap());
        assert_eq!(tally, Tally { devices: 2, without_keys: 1, ..Tally::default() });
    }

    #[test]
    fn edge_devices_their_modules_and_their_children_are_counted() {
        let mut tally = Tally::default();
        let keys = json!({"type": "sas", "symmetricKey": {"primaryKey": "A", "secondaryKey": "B"}});
        for line in [
            json!({"id": "e", "authentication": keys, "capabilities": {"iotEdge": true}, "deviceScope": "s://e"}),
            json!({"id": "e", "moduleId": "$edgeAgent", "authentication": keys}),
            json!({"id": "c", "authentication": keys, "deviceScope": "s://e", "parentScopes": ["s://e"]}),
            json!({"id": "d", "authentication": keys, "deviceScope": "s://e"}),
            json!({"id": "f", "authentication": keys, "parentScopes": []}),
        ] {
            tally.add(&line);
        }
        assert_eq!(tally, Tally { devices: 4, modules: 1, without_keys: 0, edge: 1, children: 2 });
    }

    #[test]
    fn a_line_too_long_for_an_import_loses_what_is_missed_least() {
        let mut twin = twin();
        let line = Line::of(&twin, None);
        assert_eq!(line.left_out, None);
        twin["properties"]["desired"]["$metadata"] = "x".repeat(LINE_BYTES_MAX).into();
        let line = Line::of(&twin, None);
        assert!(line.text.len() <= LINE_BYTES_MAX && line.text.contains("reported"));
        assert_eq!(line.left_out, Some(SHORTER[0].0));
        twin["properties"]["reported"]["b"] = "x".repeat(LINE_BYTES_MAX).into();
        let line = Line::of(&twin, None);
        assert!(line.text.len() <= LINE_BYTES_MAX && line.text.contains(r#""a":1"#));
        assert_eq!(line.left_out, Some(SHORTER[1].0));
    }
}
