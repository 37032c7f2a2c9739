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

use super::authorities::{AuthorityOut, CertificateIn, CertifiedAuthorityOut};
use super::openapi::{AnswerShape, Shape, array, bytes, described, free, json, lines, many, text};
use super::problem::ProblemOut;
use super::{
    audit, authorities, bulk, c2d_messages, caller, connections, device_side, feedback, health, identities,
    jobs, messages, openapi, policies, query, statistics, websocket,
};
use crate::hub::Hub;
use crate::iothub::identity_json::{DeviceOut, IdentityIn, ModuleOut};
use crate::iothub::problem::Problem;
use crate::operations::feedback::FeedbackOut;

/// One route.
pub struct Route {
    pub method: Method,
    /// With parameters in braces.
    pub path: &'static str,
    pub needs: Needs,
    /// What it does, in a few words.
    pub summary: String,
    /// What a request may say besides, and where.
    pub(super) options: Vec<(&'static str, ParameterIn)>,
    /// The bodies a request may have, each of another media type.
    pub(super) takes: Vec<Shape>,
    /// What it answers when it does what it is asked; more than one of different status.
    pub(super) answers: Vec<AnswerShape>,
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
    let mut routes = vec![
        Route::get("/devices", READ, "List devices", identities::list)
            .query("top")
            .header("x-ms-max-item-count")
            .header("x-ms-continuation")
            .gives(array::<DeviceOut>()),
        Route::post("/devices", WRITE, "Create, replace and delete up to 100 identities", bulk::apply)
            .takes(many(described::bulk_item()))
            .gives(json::<bulk::BulkResultOut>())
            .or_gives(AnswerShape::of("400", json::<bulk::BulkResultOut>().or(json::<ProblemOut>()))),
        Route::post("/devices/query", SERVICE, "Query devices or modules", query::run)
            // A device may be called `query`.
            .beside("/devices/{device}")
            .header("x-ms-max-item-count")
            .header("x-ms-continuation")
            .takes(json::<query::QueryIn>())
            .gives(many(free())),
        Route::get(
            "/devices/{device}/modules",
            READ,
            "List the modules of a device",
            identities::list_modules,
        )
        .gives(array::<ModuleOut>()),
        Route::get(
            "/messages/serviceBound/feedback",
            SERVICE,
            "Receive feedback on sent messages",
            feedback::receive,
        )
        .gives(array::<FeedbackOut>().in_media(feedback::FEEDBACK_JSON))
        .or_gives(AnswerShape::nothing()),
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
        Route::get("/statistics/devices", READ, "Count devices", statistics::of_devices)
            .gives(json::<statistics::DeviceStatisticsOut>()),
        Route::get("/statistics/service", SERVICE, "Count connected devices", statistics::of_service)
            .gives(json::<statistics::ServiceStatisticsOut>()),
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
        .gives(AnswerShape::of("202", json::<jobs::JobOut>())),
        Route::post("/api/v1/exports", READ, "Start to export identities to a file of the job", jobs::export)
            .query("includeKeys")
            .query("includeModules")
            .gives(AnswerShape::of("202", json::<jobs::JobOut>())),
        Route::post(
            "/api/v1/jobs/{job}/rollback",
            BOTH,
            "Start to take back what the last import changed",
            jobs::roll_back,
        )
        .gives(AnswerShape::of("202", json::<jobs::JobOut>())),
        Route::get(
            "/api/v1/jobs/{job}/files/{file}",
            READ,
            "Read a file of a job: devices.txt, results.txt or importErrors.log",
            jobs::file,
        )
        .gives(lines()),
        Route::post("/api/v1/c2d-messages", SERVICE, "Send up to 100 messages", c2d_messages::send_all)
            .takes(array::<c2d_messages::Order>())
            .gives(array::<c2d_messages::SentOut>()),
        Route::get("/api/v1/audit", OWNER, "Read the audit record", audit::read)
            .query("count")
            .query("after")
            .query("target")
            .gives(many(described::audit_line())),
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
            .gives(array::<AuthorityOut>()),
        Route::get("/api/v1/certificate-authorities/{name}", READ, "Show an enrolled CA", authorities::show)
            .gives(json::<CertifiedAuthorityOut>()),
        Route::put(
            "/api/v1/certificate-authorities/{name}",
            WRITE,
            "Enrol a CA, or with If-Match replace it; PEM text or JSON",
            authorities::put,
        )
        .header("If-Match")
        .takes(json::<CertificateIn>())
        .takes(text())
        .gives(json::<CertifiedAuthorityOut>()),
        Route::post(
            "/api/v1/certificate-authorities/{name}/verification-code",
            WRITE,
            "Make the code that a proof of the CA's key must name",
            authorities::renew_code,
        )
        .gives(json::<authorities::VerificationCodeOut>()),
        Route::post(
            "/api/v1/certificate-authorities/{name}/verify",
            WRITE,
            "Verify a CA by a certificate that names the code",
            authorities::verify,
        )
        .takes(json::<CertificateIn>())
        .takes(text())
        .gives(json::<CertifiedAuthorityOut>()),
        Route::delete(
            "/api/v1/certificate-authorities/{name}",
            WRITE,
            "Forget a CA and close the connections that rest on it",
            authorities::delete,
        )
        .header("If-Match"),
        Route::get("/api/v1/openapi.json", Needs::Nothing, "This description", openapi::show).gives(free()),
        // Who speaks on the WebSocket its CONNECT tells.
        Route::get(websocket::PATH, Needs::Nothing, "Switch to MQTT over a WebSocket", websocket::switch)
            .gives(AnswerShape::switching()),
    ];
    routes.extend(of_identities());
    routes.extend(of_devices_themselves());
    routes.extend(of_health());
    routes
}

/// A path of a device and the path of a module that ends the same.
macro_rules! each {
    ($before:literal, $after:literal) => {
        [
            concat!($before, "/devices/{device}", $after),
            concat!($before, "/devices/{device}/modules/{module}", $after),
        ]
    };
}

/// The routes that devices and modules have alike, as services call them.
fn of_identities() -> Vec<Route> {
    const READ: Needs = Needs::Rights(Rights::REGISTRY_READ);
    const WRITE: Needs = Needs::Rights(Rights::REGISTRY_WRITE);
    const SERVICE: Needs = Needs::Rights(Rights::SERVICE_CONNECT);
    let rows = [
        each!("", "").map(|path| {
            Route::get(path, READ, "Show a {identity}", identities::show).gives(identity_out(path))
        }),
        each!("", "").map(|path| {
            Route::put(path, WRITE, "Create a {identity}, or with If-Match replace it", identities::put)
                .header("If-Match")
                .takes(json::<IdentityIn>())
                .gives(identity_out(path))
        }),
        each!("", "").map(|path| {
            let summary = "Delete a {identity} and everything that was made with it";
            Route::delete(path, WRITE, summary, identities::delete).header("If-Match")
        }),
        each!("", "/commands").map(|path| {
            Route::delete(path, SERVICE, "Empty the queue of a {identity}", messages::purge)
                .gives(json::<messages::PurgedOut>())
        }),
        each!("", "/messages/{bound}").map(|path| {
            let summary = "Send a message to a {identity}; the last word is deviceBound";
            Route::post(path, SERVICE, summary, messages::send).takes(bytes())
        }),
        each!("/api/v1", "/c2d-messages").map(|path| {
            let summary = "Look at the messages that wait for a {identity}";
            Route::get(path, SERVICE, summary, c2d_messages::look)
                .query("top")
                .gives(array::<c2d_messages::QueuedOut>())
        }),
        each!("/api/v1", "/certificate-verdict").map(|path| {
            let summary = "Tell whether a certificate would let a {identity} in";
            Route::post(path, READ, summary, authorities::judge)
                .takes(json::<CertificateIn>())
                .takes(text())
                .gives(json::<authorities::VerdictOut>())
        }),
        each!("/api/v1", "/connections").map(|path| {
            let summary =
                "Tell whether a {identity} is connected, how its last connections went, and why it was refused";
            Route::get(path, READ, summary, connections::show).gives(json::<connections::ConnectionsOut>())
        }),
    ];
    rows.into_iter().flatten().collect()
}

/// The routes that devices and modules call themselves.
fn of_devices_themselves() -> Vec<Route> {
    const OWN: Needs = Needs::Identity;
    let rows = [
        each!("", "/messages/events").map(|path| {
            Route::post(path, OWN, "Send telemetry as the {identity}", device_side::telemetry)
                .takes(bytes())
                .takes(array::<device_side::Batched>().in_media(device_side::BATCH))
        }),
        each!("", "/messages/{bound}").map(|path| {
            let summary = "Receive a message as the {identity}; the last word is deviceBound";
            Route::get(path, OWN, summary, device_side::receive)
                .gives(bytes())
                .or_gives(AnswerShape::nothing())
        }),
        each!("", "/messages/{bound}/{token}").map(|path| {
            let summary = "Complete a message as the {identity}, or with ?reject refuse it for good";
            Route::delete(path, OWN, summary, device_side::complete_or_reject).query("reject")
        }),
        each!("", "/messages/{bound}/{token}/abandon").map(|path| {
            Route::post(path, OWN, "Give a message back as the {identity}", device_side::abandon)
        }),
    ];
    rows.into_iter().flatten().collect()
}

fn of_health() -> Vec<Route> {
    let is_ready = ["/healthz", "/healthz/ready", "/healthz/started", "/readyz"].map(|path| {
        let summary = match path {
            "/healthz/started" => "Tell whether the hub has started",
            _ => "Tell whether the hub is ready",
        };
        Route::get(path, Needs::Nothing, summary, health::ready)
            .gives(text())
            .or_gives(AnswerShape::of("503", text()))
    });
    let is_live = ["/healthz/live", "/livez"].map(|path| {
        Route::get(path, Needs::Nothing, "Tell whether the hub lives", health::live).gives(text())
    });
    is_ready.into_iter().chain(is_live).collect()
}

/// What the device or module of a path is in an answer.
fn identity_out(path: &str) -> Shape {
    if is_of_module(path) { json::<ModuleOut>() } else { json::<DeviceOut>() }
}

fn is_of_module(path: &str) -> bool {
    path.contains("{module}")
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

    /// Answers 204 unless `gives` says what else. In `summary`, `{identity}` is the word for what the path names.
    fn new(
        method: Method,
        path: &'static str,
        needs: Needs,
        summary: &'static str,
        handler: MethodRouter<Arc<Hub>>,
    ) -> Self {
        let identity = if is_of_module(path) { "module" } else { "device" };
        let summary = summary.replace("{identity}", identity);
        let answers = vec![AnswerShape::nothing()];
        let (options, takes) = (Vec::new(), Vec::new());
        Self { method, path, needs, summary, options, takes, answers, beside: None, handler }
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

    fn takes(mut self, body: Shape) -> Self {
        self.takes.push(body);
        self
    }

    fn gives(self, answer: impl Into<AnswerShape>) -> Self {
        Self { answers: vec![answer.into()], ..self }
    }

    /// What it may answer besides, with another status.
    fn or_gives(mut self, answer: AnswerShape) -> Self {
        self.answers.push(answer);
        self
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
