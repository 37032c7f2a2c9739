//! What an operation did, as its line in the record tells: which version became which, and what changed by name.
//!
//! A value that is no secret stands there as it was and as it is. Of a secret stands that it changed, and nothing else:
//! a change has no place for one.

use portcullis_registry::credential::{KeyPair, Thumbprint};
use portcullis_registry::id::ETag;
use portcullis_registry::identity::{Authentication, Identity, Status};
use portcullis_registry::policy::Policy;
use portcullis_registry::queue_max::QueueMax;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};

/// What an operation did. The default is nothing that needs words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    pub etag_before: Option<ETag>,
    pub etag_after: Option<ETag>,
    pub changes: Vec<FieldChange>,
    /// What else there is to know, by name: how many there were, whether keys went along.
    pub details: Vec<(&'static str, Value)>,
}

/// A field that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldChange {
    /// `null` where there was or is nothing.
    Open {
        field: &'static str,
        before: Value,
        after: Value,
    },
    Secret {
        field: &'static str,
    },
}

impl Effect {
    /// What a write made of an identity: of none when it was created, to none when it was deleted.
    pub fn of_identity(before: Option<&Identity>, after: Option<&Identity>) -> Self {
        Self {
            etag_before: before.map(Identity::etag),
            etag_after: after.map(Identity::etag),
            // Of what is deleted nothing is left that could have changed.
            changes: after.map_or_else(Vec::new, |after| identity_changes(before, after)),
            details: Vec::new(),
        }
    }

    /// What became of a shared access policy.
    pub fn of_policy(before: Option<&Policy>, after: Option<&Policy>) -> Self {
        let rights =
            |policy: Option<&Policy>| policy.map_or(Value::Null, |policy| json!(policy.rights.names()));
        let mut changes = Vec::new();
        if let Some(after) = after {
            changes.extend(open("rights", rights(before), rights(Some(after))));
            changes.extend(before.into_iter().flat_map(|before| key_changes(&before.keys, &after.keys)));
        }
        Self { changes, ..Self::default() }
    }

    /// Nothing changed; this is what there is to know.
    pub fn with_details(details: Vec<(&'static str, Value)>) -> Self {
        Self { details, ..Self::default() }
    }
}

/// What differs between two states of an identity, or what of a new one is not as with any other.
///
/// Keys are told of where both states have some: with another kind of authentication they come or go by themselves.
/// Neither generation, revision nor times are changes, for no caller can ask for them.
fn identity_changes(before: Option<&Identity>, after: &Identity) -> Vec<FieldChange> {
    let Identity {
        id: _,
        generation: _,
        revision: _,
        status,
        status_reason,
        status_updated: _,
        authentication,
        iot_edge,
        managed_by,
        access,
        queue_max,
    } = after;
    let mut changes = Vec::new();
    if before.map_or(Status::Enabled, |before| before.status) != *status {
        let earlier = before.map_or(Value::Null, |before| status_value(before.status));
        changes.extend(open("status", earlier, status_value(*status)));
    }
    let earlier = before.and_then(|before| before.status_reason.as_deref());
    changes.extend(open("statusReason", earlier.into(), status_reason.as_deref().into()));
    changes.extend(authentication_changes(before.map(|before| &before.authentication), authentication));
    if before.is_some_and(|before| before.iot_edge) != *iot_edge {
        let earlier = before.map_or(Value::Null, |before| before.iot_edge.into());
        changes.extend(open("iotEdge", earlier, (*iot_edge).into()));
    }
    let earlier = before.and_then(|before| before.managed_by.as_deref());
    changes.extend(open("managedBy", earlier.into(), managed_by.as_deref().into()));
    let is_as_before = match before {
        Some(before) => before.access == *access,
        None => access.to_entries().is_none(),
    };
    if !is_as_before {
        let earlier = before.map_or(Value::Null, |before| before.access.to_string().into());
        changes.extend(open("access", earlier, access.to_string().into()));
    }
    let earlier = before.and_then(|before| before.queue_max);
    changes.extend(open("queueMessagesMax", queue_max_value(earlier), queue_max_value(*queue_max)));
    changes
}

fn authentication_changes(before: Option<&Authentication>, after: &Authentication) -> Vec<FieldChange> {
    let kind = |authentication: &Authentication| authentication.kind().as_str();
    let mut changes = Vec::with_capacity(1);
    changes.extend(open("authentication", before.map(kind).into(), kind(after).into()));
    if let (Some(Authentication::Sas(before)), Authentication::Sas(after)) = (before, after) {
        changes.extend(key_changes(before, after));
    }
    let (before, after) = (thumbprints(before), thumbprints(Some(after)));
    for (field, before, after) in
        [("primaryThumbprint", before.0, after.0), ("secondaryThumbprint", before.1, after.1)]
    {
        if before != after {
            let text = |thumbprint: Option<&Thumbprint>| thumbprint.map(ToString::to_string).into();
            changes.extend(open(field, text(before), text(after)));
        }
    }
    changes
}

fn thumbprints(authentication: Option<&Authentication>) -> (Option<&Thumbprint>, Option<&Thumbprint>) {
    match authentication {
        Some(Authentication::SelfSigned(pair)) => (pair.primary.as_ref(), pair.secondary.as_ref()),
        Some(Authentication::Sas(_) | Authentication::CertificateAuthority | Authentication::None) | None => {
            (None, None)
        }
    }
}

/// Which keys of a pair are others; never what they are.
fn key_changes(before: &KeyPair, after: &KeyPair) -> impl Iterator<Item = FieldChange> + use<> {
    let primary = (before.primary != after.primary).then_some("primaryKey");
    let secondary = (before.secondary != after.secondary).then_some("secondaryKey");
    primary.into_iter().chain(secondary).map(|field| FieldChange::Secret { field })
}

/// A change, unless both are the same.
pub(crate) fn open(field: &'static str, before: Value, after: Value) -> Option<FieldChange> {
    (before != after).then_some(FieldChange::Open { field, before, after })
}

fn status_value(status: Status) -> Value {
    match status {
        Status::Enabled => "enabled".into(),
        Status::Disabled => "disabled".into(),
    }
}

fn queue_max_value(queue_max: Option<QueueMax>) -> Value {
    queue_max.map(QueueMax::get).into()
}

/// The member `changes` of a line: `{"status":{"before":"enabled","after":"disabled"},"primaryKey":"changed"}`.
pub(super) struct ChangesOut<'a>(pub(super) &'a [FieldChange]);

/// The member `details` of a line.
pub(super) struct DetailsOut<'a>(pub(super) &'a [(&'static str, Value)]);

impl ChangesOut<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl DetailsOut<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for ChangesOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for change in self.0 {
            match change {
                FieldChange::Open { field, before, after } => {
                    map.serialize_entry(field, &BothValues { before, after })?;
                }
                FieldChange::Secret { field } => map.serialize_entry(field, CHANGED)?,
            }
        }
        map.end()
    }
}

impl Serialize for DetailsOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (*name, value)))
    }
}

#[derive(serde::Serialize)]
struct BothValues<'a> {
    before: &'a Value,
    after: &'a Value,
}

/// All that is told of a secret.
pub(super) const CHANGED: &str = "changed";

#[cfg(test)]
mod tests;
