//! An identity as a line of a file, as IoT Hub exports it.
//!
//! Source: IoT Hub, "Import and export IoT Hub device identities in bulk". A line also has `access` and
//! `queueMessagesMax` if the identity has them. The hub does not keep twins, so a line shows an empty one.

use portcullis_registry::identity::{Identity, Status};
use portcullis_registry::queue_max::QueueMax;
use serde::Serialize;

use super::{AccessJson, AuthenticationOut, CapabilitiesOut, KeysOut, status_text};

/// The form in which an identity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As IoT Hub exports it.
    Export { with_keys: bool },
    /// All that a caller can set, and nothing else. Two identities are equal when these lines are equal, and importing
    /// the line sets exactly this.
    Exact,
}

/// An identity on a line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LineOut<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'a str>,
    #[serde(rename = "eTag", skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<&'a str>,
    authentication: AuthenticationOut,
    /// IoT Hub: a module has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<CapabilitiesOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_by: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Option<AccessJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_messages_max: Option<Option<u16>>,
}

/// Appends the line of an identity, with its end.
pub(crate) fn write(identity: &Identity, form: Form, to: &mut Vec<u8>) {
    let is_exact = form == Form::Exact;
    let mut authentication = AuthenticationOut::new(&identity.authentication);
    if form == (Form::Export { with_keys: false }) {
        authentication.symmetric_key = KeysOut::default();
    }
    let access = AccessJson::of(&identity.access);
    let queue_max = identity.queue_max.map(QueueMax::get);
    let line = LineOut {
        id: identity.id.device.as_str(),
        module_id: identity.id.module.as_ref().map(|module| module.as_str()),
        etag: (!is_exact).then(|| identity.etag().to_string()),
        // IoT Hub: the C# SDK wants a status on every line.
        status: match identity.id.module {
            Some(_) => status_text(Status::Enabled),
            None => status_text(identity.status),
        },
        status_reason: identity.status_reason.as_deref(),
        authentication,
        capabilities: (identity.id.module.is_none() || identity.iot_edge)
            .then_some(CapabilitiesOut { iot_edge: identity.iot_edge }),
        managed_by: identity.managed_by.as_deref(),
        // Without such a member an import keeps what is stored, and with `null` it removes it.
        access: (is_exact || access.is_some()).then_some(access),
        queue_messages_max: (is_exact || queue_max.is_some()).then_some(queue_max),
    };
    // Writing texts to memory cannot fail.
    let _ = serde_json::to_writer(&mut *to, &line);
    if !is_exact {
        to.pop();
        to.extend_from_slice(TWIN.as_bytes());
    }
    to.push(b'\n');
}

/// The end of a line: a twin that was never written to.
const TWIN: &str = concat!(
    r#","twinETag":"AAAAAAAAAAE=","tags":{},"properties":{"#,
    r#""desired":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00"},"$version":1},"#,
    r#""reported":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00"},"$version":1}}}"#
);
