//! Every route of the HTTPS listener, one row each: method, path, who may, what it does, and the handler.
//!
//! This list is the only one: the router, the OpenAPI description and the tests that try each route as a stranger are
//! made from it. What a row says of rights is told, not enforced: the operation behind it checks, and the tests
//! compare the two. To add an endpoint: write the operation where it belongs, a handler beside its kin in `http/`, a
//! row here and one in `tests/strangers.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::http::{Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, on};
use portcullis_registry::policy::Rights;
use utoipa::openapi::path::ParameterIn;

use super::openapi::{AnswerShape, Shape, array, json, lines, many, object, text};
use super::{
    audit, authorities, bulk, c2d_messages, caller, connections, device_side, feedback, health, identities,
    jobs, messages, openapi, policies, query, statistics, websocket,
};
use crate::hub::Hub;
use crate::iothub::identity_json::{DeviceOut, IdentityIn, ModuleOut};
use crate::iothub::problem::Problem;

/// One route.
pub struct Route {
    pub method: Method,
    /// With parameters in braces.
    pub path: &'static str,
    pub needs: Needs,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What a request may say besides, and where.
    pub(super) options: Vec<(&'static str, ParameterIn)>,
    pub(super) takes: Option<Shape>,
    pub(super) answer: AnswerShape,
    /// The path with a parameter that may be this path's last word.
    beside: Option<&'static str>,
    handler: MethodRouter<Arc<Hub>>,
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Anybody.
    Nothing,
    /// A token of a shared access policy with every one of these rights.
    Rights(Rights),
    /// A token of the device or module in the path, or of a policy that may act for it.
    Identity,
}

/// Whose words a path is in. IoT Hub's want an `api-version` and take a trailing slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    IotHub,
    Own,
}

/// Every route of the HTTPS listener.
pub fn routes() -> Vec<Route> {
    const READ: Needs = Needs::Rights(Rights::REGISTRY_READ);
    const WRITE: Needs = Needs::Rights(Rights::REGISTRY_WRITE);
    const BOTH: Needs = Needs::Rights(Rights::REGISTRY_READ_WRITE);
    const SERVICE: Needs = Needs::Rights(Rights::SERVICE_CONNECT);
    const OWNER: Needs = Needs::Rights(Rights::ALL);
    vec![
        Route::get("/devices", READ, "List devices", identities::list)
            .query("top")
            .header("x-ms-max-item-count")
            .header("x-ms-continuation")
            .gives(array::<DeviceOut>()),
        Route::post("/devices", WRITE, "Create, replace and delete up to 100 identities", bulk::apply)
            .takes(array::<IdentityIn>())
            .gives(json::<bulk::BulkResultOut>()),
        Route::post("/devices/query", SERVICE, "Query devices or modules", query::run)
            // A device may be called `query`.
            .beside("/devices/{device}")
            .header("x-ms-max-item-count")
            .header("x-ms-continuation")
            .takes(json::<query::QueryIn>())
            .gives(many(object())),
        Route::get("/devices/{device}", READ, "Show a device", identities::show).gives(json::<DeviceOut>()),
        Route::put(
            "/devices/{device}",
            WRITE,
            "Create a device, or with If-Match replace it",
            identities::put,
        )
        .header("If-Match")
        .takes(json::<IdentityIn>())
        .gives(json::<DeviceOut>()),
        Route::delete("/devices/{device}", WRITE, "Delete a device and its modules", identities::delete)
            .header("If-Match"),
        Route::get(
            "/devices/{device}/modules",
            READ,
            "List the modules of a device",
            identities::list_modules,
        )
        .gives(array::<ModuleOut>()),
        Route::get("/devices/{device}/modules/{module}", READ, "Show a module", identities::show)
            .gives(json::<ModuleOut>()),
        Route::put(
            "/devices/{device}/modules/{module}",
            WRITE,
            "Create a module, or with If-Match replace it",
            identities::put,
        )
        .header("If-Match")
        .takes(json::<IdentityIn>())
        .gives(json::<ModuleOut>()),
        Route::delete("/devices/{device}/modules/{module}", WRITE, "Delete a module", identities::delete)
            .header("If-Match"),
        Route::delete("/devices/{device}/commands", SERVICE, "Empty the queue of a device", messages::purge)
            .gives(object()),
        Route::delete(
            "/devices/{device}/modules/{module}/commands",
            SERVICE,
            "Empty the queue of a module",
            messages::purge,
        )
        .gives(object()),
        Route::post(
            "/devices/{device}/messages/events",
            Needs::Identity,
            "Send telemetry as the device",
            device_side::telemetry,
        )
        .takes(text()),
        Route::get(
            "/devices/{device}/messages/{bound}",
            Needs::Identity,
            "Receive a message as the device; the last word is deviceBound",
            device_side::receive,
        )
        .gives(text()),
        Route::delete(
            "/devices/{device}/messages/{bound}/{token}",
            Needs::Identity,
            "Complete a message as the device, or with ?reject refuse it for good",
            device_side::complete_or_reject,
        ),
        Route::post(
            "/devices/{device}/messages/{bound}/{token}/abandon",
            Needs::Identity,
            "Give a message back as the device",
            device_side::abandon,
        ),
        Route::post(
            "/devices/{device}/modules/{module}/messages/events",
            Needs::Identity,
            "Send telemetry as the module",
            device_side::telemetry,
        )
        .takes(text()),
        Route::get(
            "/devices/{device}/modules/{module}/messages/{bound}",
            Needs::Identity,
            "Receive a message as the module; the last word is deviceBound",
            device_side::receive,
        )
        .gives(text()),
        Route::delete(
            "/devices/{device}/modules/{module}/messages/{bound}/{token}",
            Needs::Identity,
            "Complete a message as the module, or with ?reject refuse it for good",
            device_side::complete_or_reject,
        ),
        Route::post(
            "/devices/{device}/modules/{module}/messages/{bound}/{token}/abandon",
            Needs::Identity,
            "Give a message back as the module",
            device_side::abandon,
        ),
        Route::get(
            "/messages/serviceBound/feedback",
            SERVICE,
            "Receive feedback on sent messages",
            feedback::receive,
        )
        .gives(many(object())),
        Route::delete(
            "/messages/serviceBound/feedback/{token}",
            SERVICE,
            "Complete a batch of feedback",
            feedback::complete,
        ),
        Route::post(
            "/messages/serviceBound/feedback/{token}/abandon",
            SERVICE,
            "Give a batch of feedback back",
            feedback::abandon,
        ),
        Route::post(
            "/devices/{device}/messages/{bound}",
            SERVICE,
            "Send a message to a device; the last word is deviceBound",
            messages::send,
        )
        .takes(text()),
        Route::post(
            "/devices/{device}/modules/{module}/messages/{bound}",
            SERVICE,
            "Send a message to a module; the last word is deviceBound",
            messages::send,
        )
        .takes(text()),
        Route::get("/statistics/devices", READ, "Count devices", statistics::of_devices).gives(object()),
        Route::get("/statistics/service", SERVICE, "Count connected devices", statistics::of_service)
            .gives(object()),
        Route::post(
            "/jobs/create",
            BOTH,
            "Start to import or export identities in a container",
            jobs::create,
        )
        .takes(json::<jobs::JobIn>())
        .gives(json::<jobs::JobOut>()),
        Route::get("/jobs", READ, "List import and export jobs", jobs::list).gives(array::<jobs::JobOut>()),
        Route::get("/jobs/{job}", READ, "Show a job", jobs::show).gives(json::<jobs::JobOut>()),
        Route::delete("/jobs/{job}", READ, "Cancel a job", jobs::cancel),
        Route::post(
            "/api/v1/imports",
            BOTH,
            "Start to import the lines of the body, plain or gzip",
            jobs::import,
        )
        .query("dryRun")
        .takes(lines())
        .gives(AnswerShape::accepted(json::<jobs::JobOut>())),
        Route::post("/api/v1/exports", READ, "Start to export identities to a file of the job", jobs::export)
            .query("includeKeys")
            .query("includeModules")
            .gives(AnswerShape::accepted(json::<jobs::JobOut>())),
        Route::post(
            "/api/v1/jobs/{job}/rollback",
            BOTH,
            "Start to take back what the last import changed",
            jobs::roll_back,
        )
        .gives(AnswerShape::accepted(json::<jobs::JobOut>())),
        Route::get(
            "/api/v1/jobs/{job}/files/{file}",
            READ,
            "Read a file of a job: devices.txt, results.txt or importErrors.log",
            jobs::file,
        )
        .gives(lines()),
        Route::post("/api/v1/c2d-messages", SERVICE, "Send up to 100 messages", c2d_messages::send_all)
            .takes(many(object()))
            .gives(many(object())),
        Route::get(
            "/api/v1/devices/{device}/c2d-messages",
            SERVICE,
            "Look at the messages that wait for a device",
            c2d_messages::look,
        )
        .gives(many(object())),
        Route::get(
            "/api/v1/devices/{device}/modules/{module}/c2d-messages",
            SERVICE,
            "Look at the messages that wait for a module",
            c2d_messages::look,
        )
        .gives(many(object())),
        Route::get("/api/v1/audit", OWNER, "Read the audit record", audit::read).gives(many(object())),
        Route::get("/api/v1/policies", OWNER, "List shared access policies", policies::list)
            .gives(array::<policies::PolicyOut>()),
        Route::get("/api/v1/policies/{name}", OWNER, "Show a shared access policy", policies::show)
            .gives(json::<policies::PolicyOut>()),
        Route::put("/api/v1/policies/{name}", OWNER, "Create a shared access policy", policies::create)
            .takes(json::<policies::PolicyIn>())
            .gives(json::<policies::PolicyOut>()),
        Route::post(
            "/api/v1/policies/{name}/regenerate",
            OWNER,
            "Replace or swap the keys of a shared access policy",
            policies::regenerate,
        )
        .takes(json::<policies::RegenerateIn>())
        .gives(json::<policies::PolicyOut>()),
        Route::delete("/api/v1/policies/{name}", OWNER, "Delete a shared access policy", policies::delete),
        Route::get("/api/v1/certificate-authorities", READ, "List enrolled CAs", authorities::list)
            .gives(many(object())),
        Route::get("/api/v1/certificate-authorities/{name}", READ, "Show an enrolled CA", authorities::show)
            .gives(object()),
        Route::put(
            "/api/v1/certificate-authorities/{name}",
            WRITE,
            "Enrol a CA, or with If-Match replace it; PEM text or JSON",
            authorities::put,
        )
        .takes(object())
        .gives(object()),
        Route::post(
            "/api/v1/certificate-authorities/{name}/verification-code",
            WRITE,
            "Make the code that a proof of the CA's key must name",
            authorities::renew_code,
        )
        .gives(object()),
        Route::post(
            "/api/v1/certificate-authorities/{name}/verify",
            WRITE,
            "Verify a CA by a certificate that names the code",
            authorities::verify,
        )
        .takes(object())
        .gives(object()),
        Route::delete(
            "/api/v1/certificate-authorities/{name}",
            WRITE,
            "Forget a CA and close the connections that rest on it",
            authorities::delete,
        ),
        Route::post(
            "/api/v1/devices/{device}/certificate-verdict",
            READ,
            "Tell whether a certificate would let a device in",
            authorities::judge,
        )
        .takes(object())
        .gives(object()),
        Route::post(
            "/api/v1/devices/{device}/modules/{module}/certificate-verdict",
            READ,
            "Tell whether a certificate would let a module in",
            authorities::judge,
        )
        .takes(object())
        .gives(object()),
        Route::get(
            "/api/v1/devices/{device}/connections",
            READ,
            "Tell whether a device is connected, how its last connections went, and why it was refused",
            connections::show,
        )
        .gives(json::<connections::ConnectionsOut>()),
        Route::get(
            "/api/v1/devices/{device}/modules/{module}/connections",
            READ,
            "Tell whether a module is connected, how its last connections went, and why it was refused",
            connections::show,
        )
        .gives(json::<connections::ConnectionsOut>()),
        Route::get("/api/v1/openapi.json", Needs::Nothing, "This description", openapi::show).gives(object()),
        // Who speaks on the WebSocket its CONNECT tells.
        Route::get(websocket::PATH, Needs::Nothing, "Switch to MQTT over a WebSocket", websocket::switch)
            .gives(AnswerShape::switching()),
        Route::get("/healthz", Needs::Nothing, "Tell whether the hub is ready", health::ready).gives(text()),
        Route::get("/healthz/ready", Needs::Nothing, "Tell whether the hub is ready", health::ready)
            .gives(text()),
        Route::get("/healthz/started", Needs::Nothing, "Tell whether the hub has started", health::ready)
            .gives(text()),
        Route::get("/healthz/live", Needs::Nothing, "Tell whether the hub lives", health::live).gives(text()),
        Route::get("/readyz", Needs::Nothing, "Tell whether the hub is ready", health::ready).gives(text()),
        Route::get("/livez", Needs::Nothing, "Tell whether the hub lives", health::live).gives(text()),
    ]
}

/// The routes as a router; what each path takes besides them is refused.
pub(super) fn router() -> Router<Arc<Hub>> {
    let mut paths: BTreeMap<&str, Vec<Route>> = BTreeMap::new();
    for route in routes() {
        paths.entry(route.beside.unwrap_or(route.path)).or_default().push(route);
    }
    let (mut iot_hub, mut own) = (Router::new(), Router::new());
    for (path, routes) in paths {
        let router = path_router(routes);
        match dialect_of(path) {
            Dialect::IotHub => {
                iot_hub = iot_hub.route(path, router.clone()).route(&format!("{path}/"), router);
            }
            Dialect::Own => own = own.route(path, router),
        }
    }
    iot_hub.layer(from_fn(caller::require_api_version)).merge(own)
}

/// The routes of one path. Any other method is refused, HEAD too, which axum would take for a GET.
fn path_router(routes: Vec<Route>) -> MethodRouter<Arc<Hub>> {
    let own = routes.iter().filter(|route| route.beside.is_none());
    let allowed = own.map(|route| route.method.as_str()).collect::<Vec<_>>().join(", ");
    let refuse = move || {
        let allowed = allowed.clone();
        async move { ([(header::ALLOW, allowed)], Problem::method_not_allowed()).into_response() }
    };
    let head = on(MethodFilter::HEAD, refuse.clone());
    let routers = routes.into_iter().map(|route| match route.beside {
        None => route.handler,
        Some(_) => {
            let refuse = refuse.clone();
            let only_there = move |request: Request, next: Next| {
                let (is_there, refused) =
                    (request.uri().path().trim_end_matches('/') == route.path, refuse());
                async move { if is_there { next.run(request).await } else { refused.await } }
            };
            route.handler.route_layer(from_fn(only_there))
        }
    });
    routers.fold(head, MethodRouter::merge).fallback(refuse)
}

fn dialect_of(path: &str) -> Dialect {
    let is_iot_hubs =
        ["/devices", "/jobs", "/messages", "/statistics"].iter().any(|own| path.starts_with(own));
    if is_iot_hubs { Dialect::IotHub } else { Dialect::Own }
}

impl Route {
    fn get<H, T>(path: &'static str, needs: Needs, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Hub>>,
        T: 'static,
    {
        Self::new(Method::GET, path, needs, summary, on(MethodFilter::GET, handler))
    }

    fn post<H, T>(path: &'static str, needs: Needs, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Hub>>,
        T: 'static,
    {
        Self::new(Method::POST, path, needs, summary, on(MethodFilter::POST, handler))
    }

    fn put<H, T>(path: &'static str, needs: Needs, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Hub>>,
        T: 'static,
    {
        Self::new(Method::PUT, path, needs, summary, on(MethodFilter::PUT, handler))
    }

    fn delete<H, T>(path: &'static str, needs: Needs, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<Hub>>,
        T: 'static,
    {
        Self::new(Method::DELETE, path, needs, summary, on(MethodFilter::DELETE, handler))
    }

    /// Answers 204 unless `gives` says what else.
    fn new(
        method: Method,
        path: &'static str,
        needs: Needs,
        summary: &'static str,
        handler: MethodRouter<Arc<Hub>>,
    ) -> Self {
        let answer = AnswerShape::nothing();
        let options = Vec::new();
        Self { method, path, needs, summary, options, takes: None, answer, beside: None, handler }
    }

    /// Served beside the routes of another path, whose parameter may have the same value.
    fn beside(self, path: &'static str) -> Self {
        Self { beside: Some(path), ..self }
    }

    /// A query parameter it understands.
    fn query(self, name: &'static str) -> Self {
        self.option(name, ParameterIn::Query)
    }

    /// A header it understands.
    fn header(self, name: &'static str) -> Self {
        self.option(name, ParameterIn::Header)
    }

    fn option(mut self, name: &'static str, place: ParameterIn) -> Self {
        self.options.push((name, place));
        self
    }

    fn takes(self, body: Shape) -> Self {
        Self { takes: Some(body), ..self }
    }

    fn gives(self, answer: impl Into<AnswerShape>) -> Self {
        Self { answer: answer.into(), ..self }
    }

    /// Whether the path is one of IoT Hub's own, which take an `api-version`.
    pub fn is_iot_hubs(&self) -> bool {
        dialect_of(self.path) == Dialect::IotHub
    }

    /// The names of the path's parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{').and_then(|name| name.strip_suffix('}')))
    }
}
