//! The JSON of identities, as the service SDKs send and expect it.
//!
//! Parsing is lenient, as IoT Hub's is: it ignores unknown and read-only members, and enum words may have any letter
//! case. Writing is exact: `authentication.type` comes last, because in the C# SDK the last member wins.
//!
//! Source: IoT Hub REST reference, "Devices" and "Modules".

use jiff::Timestamp;
use portcullis_registry::credential::{SymmetricKey, ThumbprintPair};
use portcullis_registry::id::IdentityId;
use portcullis_registry::identity::{
    Authentication, AuthenticationSpec, Identity, IdentitySpec, STATUS_REASON_CHARS_MAX, Status,
};
use portcullis_registry::queue_max::QueueMax;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::iothub::problem::Problem;
use crate::iothub::time::time_text;

mod access;
mod line;

pub(crate) use access::AccessJson;
pub(crate) use line::{Form, write as write_line};

/// A device or module in a request.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IdentityIn {
    device_id: Option<String>,
    module_id: Option<String>,
    status: Option<String>,
    status_reason: Option<String>,
    authentication: Option<AuthenticationIn>,
    capabilities: Option<CapabilitiesIn>,
    managed_by: Option<String>,
    /// The access list. Without this member an update keeps the stored list; `null` allows everything
    #[serde(default, deserialize_with = "present_or_null")]
    #[schema(value_type = Option<AccessJson>)]
    access: Option<Option<AccessJson>>,
    /// How many messages may wait for it, 1 to 10,000. Without this member an update keeps the stored number; `null`
    /// means the hub's setting
    #[serde(default, deserialize_with = "present_or_null")]
    #[schema(value_type = Option<u64>)]
    queue_messages_max: Option<Option<u64>>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuthenticationIn {
    #[serde(rename = "type")]
    kind: Option<String>,
    symmetric_key: Option<KeysIn>,
    #[serde(rename = "x509Thumbprint")]
    x509_thumbprint: Option<ThumbprintsIn>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct KeysIn {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ThumbprintsIn {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CapabilitiesIn {
    #[serde(default)]
    iot_edge: bool,
}

impl IdentityIn {
    /// Parses a request body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(body)
            .map_err(|error| Problem::deserialization(format!("the body is not an identity: {error}")))
    }

    /// Parses an item of a bulk request. Ignores the members that only such an item has.
    pub(crate) fn parse_item(item: &serde_json::Map<String, serde_json::Value>) -> Result<Self, Problem> {
        // In such an item the id is in `id` and `moduleId`, and has been read.
        Self::deserialize(item)
            .map(|read| Self { device_id: None, module_id: None, ..read })
            .map_err(|error| Problem::deserialization(format!("the item is not an identity: {error}")))
    }

    /// The requested identity, with the id from the path.
    pub(crate) fn into_spec(self, id: IdentityId) -> Result<IdentitySpec, Problem> {
        check_same("deviceId", self.device_id.as_deref(), Some(id.device.as_str()))?;
        check_same("moduleId", self.module_id.as_deref(), id.module.as_ref().map(|module| module.as_str()))?;
        if self.status_reason.as_ref().is_some_and(|reason| reason.chars().count() > STATUS_REASON_CHARS_MAX)
        {
            return Err(Problem::argument_invalid(format!(
                "statusReason has more than {STATUS_REASON_CHARS_MAX} characters"
            )));
        }
        let is_module = id.module.is_some();
        Ok(IdentitySpec {
            id,
            // IoT Hub: a module has no status of its own.
            status: if is_module { Status::Enabled } else { parse_status(self.status.as_deref())? },
            status_reason: self.status_reason.filter(|_| !is_module),
            authentication: self.authentication.unwrap_or_default().into_spec()?,
            iot_edge: self.capabilities.is_some_and(|capabilities| capabilities.iot_edge),
            managed_by: self.managed_by,
            access: self.access.map(access::parse).transpose()?,
            queue_max: self.queue_messages_max.map(parse_queue_max).transpose()?,
        })
    }
}

impl AuthenticationIn {
    fn into_spec(self) -> Result<AuthenticationSpec, Problem> {
        let keys = self.symmetric_key.unwrap_or_default();
        let primary = present(keys.primary_key);
        let secondary = present(keys.secondary_key);
        let thumbprints = self.x509_thumbprint.unwrap_or_default();
        let thumbprints = ThumbprintsIn {
            primary_thumbprint: present(thumbprints.primary_thumbprint),
            secondary_thumbprint: present(thumbprints.secondary_thumbprint),
        };
        let has_keys = primary.is_some() || secondary.is_some();
        let has_thumbprints =
            thumbprints.primary_thumbprint.is_some() || thumbprints.secondary_thumbprint.is_some();
        if has_keys && has_thumbprints {
            return Err(Problem::argument_invalid("an identity has symmetric keys or thumbprints, not both"));
        }
        let kind =
            self.kind.unwrap_or_else(|| if has_thumbprints { "selfSigned".into() } else { "sas".into() });
        match kind.to_ascii_lowercase().as_str() {
            "sas" if has_thumbprints => {
                Err(Problem::argument_invalid("type sas takes symmetric keys, not thumbprints"))
            }
            "sas" => sas_spec(primary, secondary),
            _ if has_keys => Err(Problem::argument_invalid(format!("type {kind} takes no symmetric keys"))),
            "selfsigned" => self_signed_spec(thumbprints),
            _ if has_thumbprints => {
                Err(Problem::argument_invalid(format!("type {kind} takes no thumbprints")))
            }
            "certificateauthority" => Ok(AuthenticationSpec::CertificateAuthority),
            "none" => Ok(AuthenticationSpec::None),
            _ => Err(Problem::argument_invalid(format!(
                "authentication type {kind:?} is none of sas, selfSigned, certificateAuthority, none"
            ))),
        }
    }
}

/// Generates absent or empty keys. One key alone is a mistake.
fn sas_spec(primary: Option<String>, secondary: Option<String>) -> Result<AuthenticationSpec, Problem> {
    if primary.is_some() != secondary.is_some() {
        return Err(Problem::argument_invalid("give both symmetric keys or neither"));
    }
    let parse = |name: &str, text: Option<String>| {
        let parsed = text.map(|text| SymmetricKey::parse_base64(&text)).transpose();
        parsed.map_err(|error| Problem::argument_invalid(format!("{name}: {error}")))
    };
    Ok(AuthenticationSpec::Sas {
        primary: parse("primaryKey", primary)?,
        secondary: parse("secondaryKey", secondary)?,
    })
}

fn self_signed_spec(thumbprints: ThumbprintsIn) -> Result<AuthenticationSpec, Problem> {
    if thumbprints.primary_thumbprint.is_none() && thumbprints.secondary_thumbprint.is_none() {
        return Err(Problem::argument_invalid("type selfSigned needs at least one thumbprint"));
    }
    let parse = |name: &str, text: Option<String>| {
        let parsed = text.map(|text| portcullis_registry::credential::Thumbprint::parse(&text)).transpose();
        parsed.map_err(|error| Problem::argument_invalid(format!("{name}: {error}")))
    };
    Ok(AuthenticationSpec::SelfSigned(ThumbprintPair {
        primary: parse("primaryThumbprint", thumbprints.primary_thumbprint)?,
        secondary: parse("secondaryThumbprint", thumbprints.secondary_thumbprint)?,
    }))
}

/// Tells `null` from an absent member.
fn present_or_null<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    member: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(member).map(Some)
}

/// Not in IoT Hub. An update without it keeps the stored number, as with an access list.
fn parse_queue_max(messages: Option<u64>) -> Result<Option<QueueMax>, Problem> {
    let Some(messages) = messages else { return Ok(None) };
    let out_of_range = || {
        let highest = QueueMax::HIGHEST;
        Problem::argument_invalid(format!("queueMessagesMax: {messages} is not between 1 and {highest}"))
    };
    QueueMax::new(messages).map(Some).ok_or_else(out_of_range)
}

fn parse_status(text: Option<&str>) -> Result<Status, Problem> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None | Some("enabled") => Ok(Status::Enabled),
        Some("disabled") => Ok(Status::Disabled),
        Some(other) => {
            Err(Problem::argument_invalid(format!("status {other:?} must be enabled or disabled")))
        }
    }
}

fn check_same(name: &str, in_body: Option<&str>, in_path: Option<&str>) -> Result<(), Problem> {
    match in_body {
        Some(body) if Some(body) != in_path => Err(Problem::argument_invalid(format!(
            "{name} in the body is {body:?}, in the path {:?}",
            in_path.unwrap_or_default()
        ))),
        _ => Ok(()),
    }
}

/// The SDKs send an empty text for what the hub should choose.
fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// The state of an identity that is not in its record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LiveState {
    pub(crate) connected: bool,
    pub(crate) queued: usize,
    pub(crate) connection_changed: Option<Timestamp>,
    pub(crate) last_seen: Option<Timestamp>,
}

/// A device in an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceOut {
    device_id: String,
    generation_id: String,
    etag: String,
    connection_state: &'static str,
    status: &'static str,
    status_reason: Option<String>,
    connection_state_updated_time: String,
    status_updated_time: String,
    last_activity_time: String,
    cloud_to_device_message_count: usize,
    authentication: AuthenticationOut,
    capabilities: CapabilitiesOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<AccessJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_messages_max: Option<u16>,
}

/// A module in an answer: no status, no capabilities.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ModuleOut {
    module_id: String,
    managed_by: Option<String>,
    device_id: String,
    generation_id: String,
    etag: String,
    connection_state: &'static str,
    connection_state_updated_time: String,
    last_activity_time: String,
    cloud_to_device_message_count: usize,
    authentication: AuthenticationOut,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<AccessJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_messages_max: Option<u16>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AuthenticationOut {
    symmetric_key: KeysOut,
    #[serde(rename = "x509Thumbprint")]
    x509_thumbprint: ThumbprintsOut,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct KeysOut {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ThumbprintsOut {
    primary_thumbprint: Option<String>,
    secondary_thumbprint: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CapabilitiesOut {
    iot_edge: bool,
}

impl DeviceOut {
    pub(crate) fn new(identity: &Identity, live: LiveState) -> Self {
        Self {
            device_id: identity.id.device.to_string(),
            generation_id: identity.generation.to_string(),
            etag: identity.etag().to_string(),
            connection_state: connection_state(live),
            status: status_text(identity.status),
            status_reason: identity.status_reason.clone(),
            connection_state_updated_time: time_text(live.connection_changed),
            status_updated_time: time_text(identity.status_updated),
            last_activity_time: time_text(live.last_seen),
            cloud_to_device_message_count: live.queued,
            authentication: AuthenticationOut::new(&identity.authentication),
            capabilities: CapabilitiesOut { iot_edge: identity.iot_edge },
            access: AccessJson::of(&identity.access),
            queue_messages_max: identity.queue_max.map(QueueMax::get),
        }
    }
}

impl ModuleOut {
    pub(crate) fn new(identity: &Identity, live: LiveState) -> Self {
        Self {
            module_id: identity.id.module.as_ref().map(ToString::to_string).unwrap_or_default(),
            managed_by: identity.managed_by.as_deref().map(str::to_owned),
            device_id: identity.id.device.to_string(),
            generation_id: identity.generation.to_string(),
            etag: identity.etag().to_string(),
            connection_state: connection_state(live),
            connection_state_updated_time: time_text(live.connection_changed),
            last_activity_time: time_text(live.last_seen),
            cloud_to_device_message_count: live.queued,
            authentication: AuthenticationOut::new(&identity.authentication),
            access: AccessJson::of(&identity.access),
            queue_messages_max: identity.queue_max.map(QueueMax::get),
        }
    }
}

impl AuthenticationOut {
    fn new(authentication: &Authentication) -> Self {
        let (symmetric_key, x509_thumbprint, kind) = match authentication {
            Authentication::Sas(keys) => {
                let key = |key: &SymmetricKey| Some(key.to_base64().as_str().to_owned());
                let keys = KeysOut { primary_key: key(&keys.primary), secondary_key: key(&keys.secondary) };
                (keys, ThumbprintsOut::default(), "sas")
            }
            Authentication::SelfSigned(pair) => {
                let thumbprints = ThumbprintsOut {
                    primary_thumbprint: pair.primary.as_ref().map(ToString::to_string),
                    secondary_thumbprint: pair.secondary.as_ref().map(ToString::to_string),
                };
                (KeysOut::default(), thumbprints, "selfSigned")
            }
            Authentication::CertificateAuthority => {
                (KeysOut::default(), ThumbprintsOut::default(), "certificateAuthority")
            }
            Authentication::None => (KeysOut::default(), ThumbprintsOut::default(), "none"),
        };
        Self { symmetric_key, x509_thumbprint, kind }
    }
}

fn status_text(status: Status) -> &'static str {
    match status {
        Status::Enabled => "enabled",
        Status::Disabled => "disabled",
    }
}

fn connection_state(live: LiveState) -> &'static str {
    if live.connected { "Connected" } else { "Disconnected" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_registry::id::DeviceId;

    fn spec(json: &str) -> Result<IdentitySpec, Problem> {
        IdentityIn::parse(json.as_bytes())?.into_spec(IdentityId::device(DeviceId::parse("d1").unwrap()))
    }

    #[test]
    fn absent_and_empty_keys_are_left_to_the_hub() {
        for json in [
            "{}",
            r#"{"deviceId":"d1"}"#,
            r#"{"authentication":{"type":"sas","symmetricKey":{"primaryKey":"","secondaryKey":""}}}"#,
            r#"{"authentication":{"symmetricKey":{"primaryKey":null}}}"#,
        ] {
            let AuthenticationSpec::Sas { primary, secondary } = spec(json).unwrap().authentication else {
                panic!("{json}")
            };
            assert!(primary.is_none() && secondary.is_none(), "{json}");
        }
    }

    #[test]
    fn t707_read_only_and_unknown_members_are_ignored() {
        let json = r#"{"deviceId":"d1","generationId":"","etag":"x","connectionState":"Disconnected","status":"Disabled",
            "cloudToDeviceMessageCount":9,"lastActivityTime":"0001-01-01T00:00:00","parentScopes":[],"colour":{"a":1}}"#;
        assert_eq!(spec(json).unwrap().status, Status::Disabled);
    }

    #[test]
    fn t707_bad_keys_and_mixtures_are_refused() {
        for json in [
            r#"{"authentication":{"symmetricKey":{"primaryKey":"AAECAwQFBgcICQoLDA0ODw=="}}}"#,
            r#"{"authentication":{"symmetricKey":{"primaryKey":"not base64!","secondaryKey":"not base64!"}}}"#,
            r#"{"authentication":{"symmetricKey":{"primaryKey":"AAEC","secondaryKey":"AAEC"}}}"#,
            r#"{"authentication":{"type":"selfSigned"}}"#,
            r#"{"authentication":{"type":"password"}}"#,
            r#"{"authentication":{"type":"none","x509Thumbprint":{"primaryThumbprint":"AB"}}}"#,
            r#"{"status":"asleep"}"#,
            r#"{"deviceId":"d2"}"#,
            r#"{"deviceId":1}"#,
            r#"{"moduleId":"m"}"#,
            "[]",
            "{",
            "",
        ] {
            assert!(spec(json).is_err(), "{json}");
        }
    }

    #[test]
    fn t405_thumbprints_of_a_wrong_form_are_refused() {
        for thumbprint in ["AB", "zz", &"0".repeat(41), &"g".repeat(40)] {
            let json = format!(
                r#"{{"authentication":{{"type":"selfSigned","x509Thumbprint":{{"primaryThumbprint":"{thumbprint}"}}}}}}"#
            );
            assert!(spec(&json).is_err(), "{thumbprint}");
        }
    }

    #[test]
    fn the_type_is_the_last_member_of_authentication() {
        let text = serde_json::to_string(&AuthenticationOut::new(&Authentication::None)).unwrap();
        assert!(text.ends_with(r#""type":"none"}"#), "{text}");
    }
}
