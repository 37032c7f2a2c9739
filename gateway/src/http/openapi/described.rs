//! Bodies that are read and written member by member, so that no type describes them: lines of the audit record and
//! items of a bulk request.

use utoipa::openapi::schema::{
    AdditionalProperties, AllOfBuilder, ObjectBuilder, OneOfBuilder, Schema, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr};

use super::{JSON, Shape, json};
use crate::iothub::identity_json::IdentityIn;

/// A line of the audit record. Lines of earlier versions lack the members those did not know.
pub(in crate::http) fn audit_line() -> Shape {
    let etag = |text| of_type([Type::String, Type::Null], text);
    let line = ObjectBuilder::new()
        .property("number", of_type([Type::Integer], "Counts up by one from line to line"))
        .property("time", of_type([Type::String], "The hub's clock"))
        .property("actor", of_type([Type::String], "The shared access policy that asked"))
        .property("source", of_type([Type::String], "`mqtt`, `rest` or `portal`"))
        .property("ip", of_type([Type::String], "The address it asked from"))
        .property("op", of_type([Type::String], "What was asked for, a fixed word"))
        .property("target", of_type([Type::String], "`device`, `device/module`, or another thing's name"))
        .property("etagBefore", etag("The version that was replaced or deleted"))
        .property("etagAfter", etag("The version that was written"))
        .property("changes", changes())
        .property("details", free_members("What else there is to say of the operation"))
        .property("job", of_type([Type::String], "The job that made the change"))
        .property("result", of_type([Type::String], "`done`, or why not"))
        .property("missing", of_type([Type::Integer], "Lines before this one that could not be written"))
        .property("previous", of_type([Type::String], "SHA-256 of the line before, in hexadecimal"));
    let always = ["number", "time", "actor", "source", "ip", "op", "target", "result", "previous"];
    let line = always.iter().fold(line, |line, name| line.required(*name));
    named("AuditLineOut", line.build().into())
}

/// An item of a bulk request: an identity, and what is to be done with it.
pub(in crate::http) fn bulk_item() -> Shape {
    const MODES: &str = "`create`, `createOrUpdate`, `createOrUpdateIfMatchETag`, `update`, `updateIfMatchETag`, \
                         `delete` or `deleteIfMatchETag`; `createOrUpdate` when absent";
    let own = ObjectBuilder::new()
        .property("id", of_type([Type::String], "The device"))
        .property("moduleId", of_type([Type::String, Type::Null], "The module of the device, if it is one"))
        .property("importMode", of_type([Type::String, Type::Null], MODES))
        .property("eTag", of_type([Type::String, Type::Null], "The version that is to be changed"))
        .property("tags", free_members("Not kept: this hub has no twins"))
        .property("properties", free_members("Not kept: this hub has no twins"))
        .required("id");
    let identity = json::<IdentityIn>();
    let item = AllOfBuilder::new().item(identity.schema).item(own.build());
    let mut shape = named("BulkItemIn", Schema::AllOf(item.build()).into());
    shape.named.extend(identity.named);
    shape
}

/// What an audit line says of each field that changed.
fn changes() -> Schema {
    let values = ObjectBuilder::new()
        .property("before", any("Null if there was none"))
        .property("after", any("Null if there is none"))
        .required("before")
        .required("after");
    let change =
        OneOfBuilder::new().item(of_type([Type::String], "`changed`, for a secret")).item(values.build());
    ObjectBuilder::new()
        .description(Some("By the name of the field: its old and new value"))
        .additional_properties(Some(AdditionalProperties::RefOr(RefOr::T(Schema::OneOf(change.build())))))
        .build()
        .into()
}

fn of_type<const N: usize>(types: [Type; N], description: &str) -> Schema {
    ObjectBuilder::new()
        .schema_type(types.into_iter().collect::<SchemaType>())
        .description(Some(description))
        .build()
        .into()
}

fn any(description: &str) -> Schema {
    let any = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    any.description(Some(description)).build().into()
}

/// An object whose members are named by whoever wrote it.
fn free_members(description: &str) -> Schema {
    ObjectBuilder::new()
        .description(Some(description))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)))
        .build()
        .into()
}

fn named(name: &str, schema: RefOr<Schema>) -> Shape {
    Shape { media: JSON, schema: Ref::from_schema_name(name).into(), named: vec![(name.to_owned(), schema)] }
}
