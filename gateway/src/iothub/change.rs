//! One item of a bulk request, or one line of a file of identities: the identity it names and the change it asks for.
//!
//! The SDKs differ in the letter case of modes and of the member `eTag`. Any letter case is accepted.
//!
//! Source: IoT Hub, "Bulk identity operations" and "Import and export IoT Hub device identities in bulk".

use portcullis_registry::id::{DeviceId, IdentityId, ModuleId, Precondition};
use portcullis_registry::identity::IdentitySpec;
use serde_json::{Map, Value};

use crate::iothub::identity_json::IdentityIn;
use crate::iothub::problem::Problem;

/// A change of one identity. A precondition is about the stored version; `Absent` and `AnyVersion` are the same.
#[derive(Clone, Debug)]
pub enum IdentityChange {
    Create(IdentitySpec),
    CreateOrUpdate(IdentitySpec, Precondition),
    Update(IdentitySpec, Precondition),
    Delete(IdentityId, Precondition),
    /// The hub does not keep twins.
    UpdateTwin(IdentityId),
}

/// The identity that an item names, as the item writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedIdentity {
    pub device: String,
    pub module: Option<String>,
}

impl IdentityChange {
    /// The identity that the change is for.
    pub fn id(&self) -> &IdentityId {
        match self {
            IdentityChange::Create(spec)
            | IdentityChange::CreateOrUpdate(spec, _)
            | IdentityChange::Update(spec, _) => &spec.id,
            IdentityChange::Delete(id, _) | IdentityChange::UpdateTwin(id) => id,
        }
    }
}

impl NamedIdentity {
    /// The members `id` and `moduleId`; empty if they are absent.
    pub fn of(item: &Map<String, Value>) -> Self {
        let own = |name: &str| item.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        Self { device: own("id").unwrap_or_default().to_owned(), module: own("moduleId").map(str::to_owned) }
    }
}

impl From<&IdentityId> for NamedIdentity {
    fn from(id: &IdentityId) -> Self {
        Self { device: id.device.to_string(), module: id.module.as_ref().map(ToString::to_string) }
    }
}

/// Whether a change would lose tags or desired properties of `item`, which the hub does not keep. A deletion does not.
pub fn loses_twin(item: &Map<String, Value>, change: &IdentityChange) -> bool {
    // IoT Hub's own members begin with a dollar sign. Its export has them even for a twin that was never written to.
    let filled = |value: Option<&Value>| {
        let members = value.and_then(Value::as_object);
        members.is_some_and(|members| members.keys().any(|name| !name.starts_with('$')))
    };
    let desired = item.get("properties").and_then(|properties| properties.get("desired"));
    !matches!(change, IdentityChange::Delete(..)) && (filled(item.get("tags")) || filled(desired))
}

/// The change that one item asks for.
pub(crate) fn parse_change(item: &Map<String, Value>) -> Result<IdentityChange, Problem> {
    let device = text(item, "id")?.ok_or_else(|| Problem::argument_null("id is missing"))?;
    let id = match text(item, "moduleId")? {
        None => IdentityId::device(DeviceId::parse(device)?),
        Some(module) => IdentityId::module(DeviceId::parse(device)?, ModuleId::parse(module)?),
    };
    let any = Precondition::AnyVersion;
    let spec = || IdentityIn::parse_item(item)?.into_spec(id.clone());
    let mode = text(item, "importMode")?.unwrap_or("createOrUpdate");
    match mode.to_ascii_lowercase().as_str() {
        "create" => Ok(IdentityChange::Create(spec()?)),
        "createorupdate" => Ok(IdentityChange::CreateOrUpdate(spec()?, any)),
        "createorupdateifmatchetag" => match parse_etag(item)? {
            Some(etag) => Ok(IdentityChange::CreateOrUpdate(spec()?, etag)),
            // A stored identity always has an etag, and never this one.
            None => Ok(IdentityChange::Create(spec()?)),
        },
        "update" => Ok(IdentityChange::Update(spec()?, any)),
        "updateifmatchetag" => Ok(IdentityChange::Update(spec()?, needed_etag(item)?)),
        "delete" => Ok(IdentityChange::Delete(id, any)),
        "deleteifmatchetag" => Ok(IdentityChange::Delete(id, needed_etag(item)?)),
        "updatetwin" | "updatetwinifmatchetag" => Ok(IdentityChange::UpdateTwin(id)),
        _ => Err(Problem::argument_invalid(format!("importMode {mode:?} is unknown"))),
    }
}

fn needed_etag(item: &Map<String, Value>) -> Result<Precondition, Problem> {
    parse_etag(item)?.ok_or_else(|| Problem::argument_null("eTag is missing"))
}

/// The item's etag, quoted or not; `*` is any. Refuses two members of different letter case, because either may count.
fn parse_etag(item: &Map<String, Value>) -> Result<Option<Precondition>, Problem> {
    let mut names = item.keys().filter(|name| name.eq_ignore_ascii_case("etag"));
    let (Some(name), None) = (names.next(), names.next()) else {
        return if item.keys().any(|name| name.eq_ignore_ascii_case("etag")) {
            Err(Problem::argument_invalid("eTag is given twice"))
        } else {
            Ok(None)
        };
    };
    let Some(etag) = text(item, name)? else { return Ok(None) };
    let parsed = Precondition::parse_if_match(Some(etag));
    parsed.map(Some).map_err(|error| Problem::argument_invalid(format!("eTag: {error}")))
}

/// A member's text. Absent, `null` and empty are the same.
fn text<'a>(item: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Problem> {
    match item.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(Problem::deserialization(format!("{name} must be a text"))),
    }
}
