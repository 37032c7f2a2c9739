//! `GET /api/v1/openapi.json`: the REST interface described in OpenAPI, made from the list of routes and from the types
//! that read and write the bodies, so that it cannot tell of another interface than the one that is served.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use portcullis_registry::policy::Rights;
use utoipa::ToSchema;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder,
    Ref, RefOr, Required, ResponseBuilder,
};

use super::routes::{Needs, Route, routes};
use crate::iothub::api_version;

/// The description, as text: it is the same for every hub of this version.
pub(super) async fn show() -> impl IntoResponse {
    static DOCUMENT: LazyLock<String> =
        LazyLock::new(|| serde_json::to_string(&describe(routes())).expect("a description is JSON"));
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], DOCUMENT.as_str())
}

/// What a body looks like.
pub(super) struct Shape {
    media: &'static str,
    schema: RefOr<Schema>,
    /// The schemas it refers to, by name.
    named: Vec<(String, RefOr<Schema>)>,
}

/// What a route answers when it does what it is asked.
pub(super) struct AnswerShape {
    status: &'static str,
    body: Option<Shape>,
}

/// A body of one `T`, in JSON.
pub(super) fn json<T: ToSchema>() -> Shape {
    let mut named = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut named);
    Shape { media: JSON, schema: Ref::from_schema_name(T::name()).into(), named }
}

/// A body of many `T`, in JSON.
pub(super) fn array<T: ToSchema>() -> Shape {
    many(json::<T>())
}

/// A body of many of what `of` is one of.
pub(super) fn many(of: Shape) -> Shape {
    let Shape { media, schema, named } = of;
    Shape { media, schema: ArrayBuilder::new().items(schema).build().into(), named }
}

/// A body of JSON whose members are not described.
pub(super) fn object() -> Shape {
    let any =
        ObjectBuilder::new().additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)));
    Shape { media: JSON, schema: any.build().into(), named: Vec::new() }
}

/// A body of text or other bytes.
pub(super) fn text() -> Shape {
    let text = ObjectBuilder::new().schema_type(Type::String);
    Shape { media: "text/plain", schema: text.build().into(), named: Vec::new() }
}

/// A body of lines, each one object of JSON.
pub(super) fn lines() -> Shape {
    Shape { media: "application/x-ndjson", ..text() }
}

impl AnswerShape {
    /// 202, for what goes on.
    pub(super) fn accepted(body: Shape) -> Self {
        Self { status: "202", body: Some(body) }
    }

    /// 204, no body.
    pub(super) fn nothing() -> Self {
        Self { status: "204", body: None }
    }

    /// 101, for a WebSocket.
    pub(super) fn switching() -> Self {
        Self { status: "101", body: None }
    }
}

impl From<Shape> for AnswerShape {
    fn from(body: Shape) -> Self {
        Self { status: "200", body: Some(body) }
    }
}

impl Shape {
    fn content(&self) -> Content {
        Content::new(Some(self.schema.clone()))
    }
}

fn describe(routes: Vec<Route>) -> OpenApi {
    let token = "A SAS token of a shared access policy: SharedAccessSignature sr={host}&sig={signature}&se={expiry}&skn={policy}";
    let token = ApiKeyValue::with_description(header::AUTHORIZATION.as_str(), token);
    let mut components =
        ComponentsBuilder::new().security_scheme(SAS, SecurityScheme::ApiKey(ApiKey::Header(token)));
    let problem = json::<super::problem::ProblemOut>();
    for (name, schema) in problem.named.clone() {
        components = components.schema(name, schema);
    }
    let mut paths = PathsBuilder::new();
    for route in routes {
        let shapes = route.takes.iter().chain(&route.answer.body);
        for (name, schema) in shapes.flat_map(|shape| shape.named.clone()) {
            components = components.schema(name, schema);
        }
        let item = PathItem::new(http_method(&route), operation(&route, &problem));
        paths = paths.path(route.path, item);
    }
    let info = InfoBuilder::new()
        .title("Portcullis")
        .description(Some(
            "IoT Hub's registry and messages under their own paths, and what this hub adds under /api/v1.",
        ))
        .version(env!("CARGO_PKG_VERSION"));
    OpenApiBuilder::new().info(info.build()).paths(paths.build()).components(Some(components.build())).build()
}

fn operation(route: &Route, problem: &Shape) -> OperationBuilder {
    let mut operation = OperationBuilder::new()
        .summary(Some(route.summary))
        .operation_id(Some(format!("{} {}", route.method, route.path)));
    let a_text = || ObjectBuilder::new().schema_type(Type::String).build();
    for name in route.parameters() {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
        operation = operation.parameter(parameter.required(Required::True).schema(Some(a_text())));
    }
    if route.is_iot_hubs() {
        let version = ParameterBuilder::new().name(api_version::PARAMETER).parameter_in(ParameterIn::Query);
        let version = version.description(Some("YYYY-MM-DD; which one makes no difference"));
        operation = operation.parameter(version.required(Required::True).schema(Some(a_text())));
    }
    for (name, place) in &route.options {
        let option = ParameterBuilder::new().name(*name).parameter_in(place.clone());
        operation = operation.parameter(option.required(Required::False).schema(Some(a_text())));
    }
    if let Some(body) = &route.takes {
        operation = operation
            .request_body(Some(RequestBodyBuilder::new().content(body.media, body.content()).build()));
    }
    let mut done = ResponseBuilder::new().description("Done");
    if let Some(body) = &route.answer.body {
        done = done.content(body.media, body.content());
    }
    operation = operation.response(route.answer.status, done.build());
    let rights = match route.needs {
        Needs::Nothing => return operation,
        Needs::Rights(rights) => rights,
        // For a policy that acts for devices; an identity's own token has no rights to name.
        Needs::Identity => Rights::DEVICE_CONNECT,
    };
    let refused = ResponseBuilder::new().description("Not done, and why").content(JSON, problem.content());
    operation.security(SecurityRequirement::new(SAS, rights.names())).response("default", refused.build())
}

fn http_method(route: &Route) -> HttpMethod {
    match route.method.as_str() {
        "GET" => HttpMethod::Get,
        "PUT" => HttpMethod::Put,
        "POST" => HttpMethod::Post,
        "DELETE" => HttpMethod::Delete,
        other => unreachable!("no route takes {other}"),
    }
}

/// The name of the only way to prove oneself over REST.
const SAS: &str = "sas";
const JSON: &str = "application/json";
