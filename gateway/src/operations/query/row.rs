//! A query's view of an identity: IoT Hub's twin, with the values that this hub knows. The hub does not keep twins, so
//! tags and properties are empty. A row never contains keys.
//!
//! Source: IoT Hub, "Understand and use device twins", for the names.

use std::sync::Arc;

use jiff::Timestamp;
use portcullis_registry::credential::{Thumbprint, ThumbprintPair};
use portcullis_registry::entry::Entry;
use portcullis_registry::identity::{Authentication, Identity, Status};
use serde_json::{Map, Value as Json, json};

use super::statement::PropertyPath;
use super::value::Value;
use crate::hub::Hub;
use crate::iothub::time::time_text;
use crate::operations::presence;

/// One row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    identity: Arc<Identity>,
    connected: bool,
    queued: usize,
    last_seen: Option<Timestamp>,
}

impl Row {
    /// The current row of an identity.
    pub(super) fn of(hub: &Hub, entry: &Entry) -> Self {
        let identity = entry.identity();
        let connected = presence::is_connected(hub, &identity.id);
        Self { identity, connected, queued: entry.queued(), last_seen: entry.activity().last_seen_at() }
    }

    /// The value at a path.
    pub(super) fn property(&self, PropertyPath(names): &PropertyPath) -> Value<'_> {
        match names.as_slice() {
            [] => Value::Undefined,
            [name] => self.column(name),
            [name, rest @ ..] => self.column(name).member(rest),
        }
    }

    /// The whole row.
    pub(super) fn to_json(&self) -> Json {
        let shown = |name: &&str| Some(((*name).to_owned(), self.column(name).into_json()?));
        Json::Object(COLUMNS.iter().filter_map(shown).collect::<Map<_, _>>())
    }

    fn column(&self, name: &str) -> Value<'_> {
        let identity = &*self.identity;
        let module = identity.id.module.as_ref();
        match name {
            "deviceId" => Value::text(identity.id.device.as_str()),
            "moduleId" => module.map_or(Value::Undefined, |module| Value::text(module.as_str())),
            "etag" => Value::text(TWIN_ETAG),
            "deviceEtag" => Value::Text(identity.etag().to_string().into()),
            "generationId" => Value::Text(identity.generation.to_string().into()),
            "connectionState" => Value::text(if self.connected { "Connected" } else { "Disconnected" }),
            "lastActivityTime" => Value::Time(self.last_seen),
            "cloudToDeviceMessageCount" => Value::Number(self.queued as f64),
            "authenticationType" => Value::text(identity.authentication.kind().as_str()),
            "x509Thumbprint" => Value::Tree(thumbprints(&identity.authentication)),
            "modelId" => Value::text(""),
            "version" => Value::Number(1.0),
            "tags" => Value::Tree(json!({})),
            "properties" => Value::Tree(properties()),
            "access" => access(identity),
            "queueMessagesMax" => {
                identity.queue_max.map_or(Value::Undefined, |max| Value::Number(max.get().into()))
            }
            "managedBy" if module.is_some() => text_or_null(identity.managed_by.as_deref()),
            // IoT Hub: a module has no status and no capabilities of its own.
            _ if module.is_some() => Value::Undefined,
            "status" => Value::text(match identity.status {
                Status::Enabled => "enabled",
                Status::Disabled => "disabled",
            }),
            "statusReason" => text_or_null(identity.status_reason.as_deref()),
            // IoT Explorer uses the name in the registry.
            "statusUpdateTime" | "statusUpdatedTime" => Value::Time(identity.status_updated),
            "capabilities" => Value::Tree(json!({ "iotEdge": identity.iot_edge })),
            _ => Value::Undefined,
        }
    }
}

/// Undefined for an identity without an access list.
fn access(identity: &Identity) -> Value<'static> {
    identity.access.to_entries().map_or(Value::Undefined, |allow| Value::Tree(json!({ "allow": allow })))
}

fn text_or_null(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Null, Value::text)
}

fn thumbprints(authentication: &Authentication) -> Json {
    let shown = |thumbprint: &Option<Thumbprint>| thumbprint.as_ref().map(ToString::to_string);
    let (primary, secondary) = match authentication {
        Authentication::SelfSigned(ThumbprintPair { primary, secondary }) => {
            (shown(primary), shown(secondary))
        }
        Authentication::Sas(_) | Authentication::CertificateAuthority | Authentication::None => (None, None),
    };
    json!({ "primaryThumbprint": primary, "secondaryThumbprint": secondary })
}

/// The properties of a twin that was never written to.
fn properties() -> Json {
    let section = json!({ "$metadata": { "$lastUpdated": time_text(None) }, "$version": 1 });
    json!({ "desired": section, "reported": section })
}

/// The members of a whole row, as far as the identity has them.
const COLUMNS: [&str; 21] = [
    "deviceId",
    "moduleId",
    "etag",
    "deviceEtag",
    "generationId",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint",
    "managedBy",
    "modelId",
    "version",
    "tags",
    "properties",
    "capabilities",
    "access",
    "queueMessagesMax",
];
/// The etag of a twin that was never written to.
const TWIN_ETAG: &str = "AAAAAAAAAAE=";

#[cfg(test)]
pub(super) mod tests {
    use jiff::Timestamp;
    use portcullis_registry::access::Access;
    use portcullis_registry::credential::KeyPair;
    use portcullis_registry::id::{DeviceId, GenerationId, IdentityId, ModuleId, Revision};

    use super::*;

    /// A row of a SAS device, or of a module of it.
    pub(in crate::operations::query) fn row(device: &str, module: Option<&str>) -> Row {
        let identity = Identity {
            id: IdentityId {
                device: DeviceId::parse(device).unwrap(),
                module: module.map(|module| ModuleId::parse(module).unwrap()),
            },
            generation: GenerationId::new(1),
            revision: Revision::new(7),
            status: Status::Disabled,
            status_reason: Some("it's broken".into()),
            status_updated: Some("2024-05-01T08:15:30.5Z".parse::<Timestamp>().unwrap()),
            authentication: Authentication::Sas(KeyPair::generate()),
            iot_edge: true,
            managed_by: module.map(|_| "me".into()),
            access: Access::EVERYTHING,
            queue_max: None,
        };
        Row { identity: Arc::new(identity), connected: true, queued: 3, last_seen: None }
    }

    #[test]
    fn t712_a_row_shows_no_key() {
        let row = row("d1", None);
        let Authentication::Sas(keys) = &row.identity.authentication else { unreachable!() };
        let text = row.to_json().to_string();
        for key in [&keys.primary, &keys.secondary] {
            assert!(!text.contains(key.to_base64().as_str()), "{text}");
        }
        assert_eq!(row.to_json()["authenticationType"], "sas");
    }

    #[test]
    fn an_access_list_is_there_if_the_identity_has_one() {
        let mut row = row("d1", Some("m"));
        assert_eq!(row.to_json().get("access"), None);
        let access = Access::parse(["c2d", "methods:diag*"]).unwrap();
        row.identity = Arc::new(Identity { access, ..Identity::clone(&row.identity) });
        assert_eq!(row.to_json()["access"], json!({ "allow": ["c2d", "methods:diag*"] }));
    }

    #[test]
    fn a_module_has_no_status_and_no_capabilities() {
        let json = row("d1", Some("m")).to_json();
        assert_eq!((&json["moduleId"], &json["managedBy"]), (&json!("m"), &json!("me")));
        for name in ["status", "statusReason", "statusUpdateTime", "capabilities"] {
            assert_eq!(json.get(name), None, "{name}");
        }
        assert_eq!(row("d1", None).to_json()["capabilities"], json!({ "iotEdge": true }));
    }
}
