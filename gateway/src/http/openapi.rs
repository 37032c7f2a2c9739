//! `GET /api/v1/openapi.json`: the REST interface described in OpenAPI, made from the list of routes and from the types
//! that read and write the bodies, so that it cannot tell of another interface than the one that is served.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::IntoResponse;
use portcullis_registry::policy::Rights;
use utoipa::ToSchema;
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema, Type,
};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder,
    Ref, RefOr, Required, ResponseBuilder,
};

use super::routes::{Needs, Route, routes};
use crate::iothub::api_version;

pub(super) mod described;

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

/// A body of JSON whose members are whatever was asked for. A test lists the routes that have one.
pub(super) fn free() -> Shape {
    let any =
        ObjectBuilder::new().additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(true)));
    Shape { media: JSON, schema: any.build().into(), named: Vec::new() }
}

/// A body of text.
pub(super) fn text() -> Shape {
    let text = ObjectBuilder::new().schema_type(Type::String);
    Shape { media: "text/plain", schema: text.build().into(), named: Vec::new() }
}

/// A body of any bytes.
pub(super) fn bytes() -> Shape {
    Shape { media: "application/octet-stream", ..text() }
}

/// A body of lines, each one object of JSON.
pub(super) fn lines() -> Shape {
    Shape { media: "application/x-ndjson", ..text() }
}

impl AnswerShape {
    /// A body with a status other than 200.
    pub(super) fn of(status: &'static str, body: Shape) -> Self {
        Self { status, body: Some(body) }
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
    /// The same body under a media type of its own.
    pub(super) fn in_media(self, media: &'static str) -> Self {
        Self { media, ..self }
    }

    /// This body or another one of the same media type.
    pub(super) fn or(self, other: Shape) -> Self {
        let either = OneOfBuilder::new().item(self.schema).item(other.schema).build();
        let named = self.named.into_iter().chain(other.named).collect();
        Self { media: self.media, schema: Schema::OneOf(either).into(), named }
    }

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
        let answers = route.answers.iter().filter_map(|answer| answer.body.as_ref());
        let shapes = route.takes.iter().chain(answers);
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
        .summary(Some(route.summary.as_str()))
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
    if !route.takes.is_empty() {
        let body = RequestBodyBuilder::new();
        let body = route.takes.iter().fold(body, |body, shape| body.content(shape.media, shape.content()));
        operation = operation.request_body(Some(body.build()));
    }
    for answer in &route.answers {
        let mut response = ResponseBuilder::new().description(description(answer.status));
        if let Some(body) = &answer.body {
            response = response.content(body.media, body.content());
        }
        operation = operation.response(answer.status, response.build());
    }
    let refused = ResponseBuilder::new().description("Not done, and why").content(JSON, problem.content());
    operation = operation.response("default", refused.build());
    let rights = match route.needs {
        Needs::Nothing => return operation,
        Needs::Rights(rights) => rights,
        // For a policy that acts for devices; an identity's own token has no rights to name.
        Needs::Identity => Rights::DEVICE_CONNECT,
    };
    operation.security(SecurityRequirement::new(SAS, rights.names()))
}

fn description(status: &str) -> &'static str {
    match status {
        "101" => "The connection is a WebSocket from here on",
        "202" => "Begun",
        "204" => "Done, or there is nothing to give",
        "400" => "Not done or done in part: what was not done, and why",
        "503" => "The hub is stopping",
        _ => "Done",
    }
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
