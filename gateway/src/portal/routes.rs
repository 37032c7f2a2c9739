//! Every page and form of the portal, one row each: method, path, who may, and the handler.
//!
//! This list is the only one: the router and the tests that try each route as a stranger are made from it. To add a
//! page: a handler in a file beside its kin, a row here, and if it is a part of its own a `layout::Section`. A form's
//! handler takes `Fields`, which only come here with the session's token; a form that changes something or shows a
//! secret says by `asks` what its refusal is recorded as. What follows `/portal/devices/` is an id, whatever it looks
//! like; words of ours stand elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use portcullis_registry::policy::Rights;

use super::answer::Refused;
use super::device::{
    access, audit, change, connections, created, credentials, delete, details, keys, messages, modules, send,
    status, telemetry, token,
};
use super::guard::{RouteGuard, guard};
use super::{
    Portal, assets, audit_log, authorities, credential_form, devices, home, jobs, live, login, paths,
    policies,
};
use crate::hub::audit::Operation;
use crate::iothub::problem::Problem;

/// One route.
pub struct Route {
    pub method: Method,
    /// With parameters in braces.
    pub path: &'static str,
    pub needs: Needs,
    /// What a form asks for, as the audit record says it.
    pub operation: Option<Operation>,
    in_background: bool,
    /// Whether a body is a file and not a form.
    pub takes_a_file: bool,
    handler: MethodRouter<Arc<Portal>>,
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Anybody.
    Nothing,
    /// Somebody who is signed in.
    SignIn,
    /// Somebody signed in with a policy that has every one of these rights.
    Rights(Rights),
}

/// Every route of the portal.
pub fn routes() -> Vec<Route> {
    devices_and_frame().into_iter().chain(hub_wide()).collect()
}

fn devices_and_frame() -> Vec<Route> {
    const READ: Needs = Needs::Rights(Rights::REGISTRY_READ);
    const WRITE: Needs = Needs::Rights(Rights::REGISTRY_WRITE);
    const SERVICE: Needs = Needs::Rights(Rights::SERVICE_CONNECT);
    const OWNER: Needs = Needs::Rights(Rights::ALL);
    use Operation::{
        CreateIdentity, DeleteIdentity, PurgeQueue, RevealCredential, SendMessage, UpdateIdentity,
    };
    vec![
        Route::get("/portal/assets/{file}", Needs::Nothing, assets::show),
        Route::get(paths::SIGN_IN, Needs::Nothing, login::show),
        Route::post(paths::SIGN_IN, Needs::Nothing, login::sign_in),
        Route::post(paths::SIGN_OUT, Needs::SignIn, login::sign_out),
        Route::get(paths::HOME, Needs::SignIn, home::show),
        Route::get(paths::CA, Needs::SignIn, assets::show_ca),
        Route::get(paths::DEVICES, READ, devices::list::show),
        Route::get(paths::DEVICES_CSV, READ, devices::csv::show),
        Route::post(paths::SELECTED_ENABLE, WRITE, devices::selected::enable).asks(UpdateIdentity),
        Route::post(paths::SELECTED_DISABLE, WRITE, devices::selected::disable).asks(UpdateIdentity),
        Route::post(paths::SELECTED_DELETE, WRITE, devices::selected::delete).asks(DeleteIdentity),
        Route::get(paths::NEW_DEVICE, WRITE, devices::create::show),
        Route::post(paths::NEW_DEVICE, WRITE, devices::create::create).asks(CreateIdentity),
        Route::get(paths::CHECK_ID, WRITE, devices::create::check_id),
        Route::post(paths::THUMBPRINT, Needs::SignIn, credential_form::compute),
        Route::get("/portal/created/{device}", READ, created::show),
        Route::get("/portal/devices/{device}", READ, details::show),
        Route::get("/portal/devices/{device}/modules/{module}", READ, details::show),
        Route::post("/portal/devices/{device}/status", WRITE, status::save).asks(UpdateIdentity),
        Route::post("/portal/devices/{device}/modules/{module}/status", WRITE, status::save)
            .asks(UpdateIdentity),
        Route::post("/portal/devices/{device}/access", WRITE, access::save).asks(UpdateIdentity),
        Route::post("/portal/devices/{device}/modules/{module}/access", WRITE, access::save)
            .asks(UpdateIdentity),
        Route::get("/portal/devices/{device}/credential", WRITE, change::show),
        Route::get("/portal/devices/{device}/modules/{module}/credential", WRITE, change::show),
        Route::post("/portal/devices/{device}/credential", WRITE, change::save).asks(UpdateIdentity),
        Route::post("/portal/devices/{device}/modules/{module}/credential", WRITE, change::save)
            .asks(UpdateIdentity),
        Route::post("/portal/devices/{device}/keys", WRITE, keys::renew).asks(UpdateIdentity),
        Route::post("/portal/devices/{device}/modules/{module}/keys", WRITE, keys::renew)
            .asks(UpdateIdentity),
        Route::post("/portal/devices/{device}/reveal", WRITE, credentials::reveal).asks(RevealCredential),
        Route::post("/portal/devices/{device}/modules/{module}/reveal", WRITE, credentials::reveal)
            .asks(RevealCredential),
        Route::post("/portal/devices/{device}/token", WRITE, token::make).asks(RevealCredential),
        Route::post("/portal/devices/{device}/modules/{module}/token", WRITE, token::make)
            .asks(RevealCredential),
        Route::get("/portal/devices/{device}/delete", WRITE, delete::ask),
        Route::get("/portal/devices/{device}/modules/{module}/delete", WRITE, delete::ask),
        Route::post("/portal/devices/{device}/delete", WRITE, delete::delete).asks(DeleteIdentity),
        Route::post("/portal/devices/{device}/modules/{module}/delete", WRITE, delete::delete)
            .asks(DeleteIdentity),
        Route::get("/portal/devices/{device}/messages", SERVICE, messages::show),
        Route::get("/portal/devices/{device}/modules/{module}/messages", SERVICE, messages::show),
        Route::post("/portal/devices/{device}/messages", SERVICE, send::send).asks(SendMessage),
        Route::post("/portal/devices/{device}/modules/{module}/messages", SERVICE, send::send)
            .asks(SendMessage),
        Route::get("/portal/devices/{device}/purge", SERVICE, messages::ask_purge),
        Route::get("/portal/devices/{device}/modules/{module}/purge", SERVICE, messages::ask_purge),
        Route::post("/portal/devices/{device}/purge", SERVICE, messages::purge).asks(PurgeQueue),
        Route::post("/portal/devices/{device}/modules/{module}/purge", SERVICE, messages::purge)
            .asks(PurgeQueue),
        Route::get("/portal/devices/{device}/connections", READ, connections::show),
        Route::get("/portal/devices/{device}/modules/{module}/connections", READ, connections::show),
        Route::get("/portal/devices/{device}/audit", OWNER, audit::show),
        Route::get("/portal/devices/{device}/modules/{module}/audit", OWNER, audit::show),
        Route::get("/portal/devices/{device}/modules", READ, modules::list),
        Route::get("/portal/devices/{device}/new-module", WRITE, modules::show_new),
        Route::post("/portal/devices/{device}/new-module", WRITE, modules::create).asks(CreateIdentity),
        Route::get("/portal/{*elsewhere}", Needs::SignIn, nothing_there),
    ]
}

/// What is about the hub, not about one device.
fn hub_wide() -> Vec<Route> {
    const READ: Needs = Needs::Rights(Rights::REGISTRY_READ);
    const WRITE: Needs = Needs::Rights(Rights::REGISTRY_WRITE);
    const IMPORT: Needs = Needs::Rights(crate::operations::jobs::RIGHTS);
    const OWNER: Needs = Needs::Rights(Rights::ALL);
    let telemetry_needs = Needs::Rights(Rights::REGISTRY_READ | Rights::SERVICE_CONNECT);
    vec![
        Route::get(paths::OVERVIEW, READ, home::renew).in_background(),
        Route::get("/portal/devices/{device}/telemetry", telemetry_needs, telemetry::show),
        Route::get(paths::LIVE, READ, live::stream).in_background(),
        Route::get(paths::POLICIES, OWNER, policies::list),
        Route::post(paths::POLICIES, OWNER, policies::create).asks(Operation::CreatePolicy),
        Route::get("/portal/policies/{name}", OWNER, policies::show),
        Route::post("/portal/policies/{name}/reveal", OWNER, policies::reveal)
            .asks(Operation::RevealCredential),
        Route::post("/portal/policies/{name}/regenerate", OWNER, policies::regenerate)
            .asks(Operation::RegeneratePolicy),
        Route::post("/portal/policies/{name}/delete", OWNER, policies::delete).asks(Operation::DeletePolicy),
        Route::get(paths::AUTHORITIES, READ, authorities::list),
        Route::post(paths::AUTHORITIES, WRITE, authorities::enrol).asks(Operation::EnrolAuthority),
        Route::get("/portal/authorities/{name}", READ, authorities::show),
        Route::post("/portal/authorities/{name}/code", WRITE, authorities::renew_code)
            .asks(Operation::RenewAuthorityCode),
        Route::post("/portal/authorities/{name}/verify", WRITE, authorities::verify)
            .asks(Operation::VerifyAuthority),
        Route::post("/portal/authorities/{name}/delete", WRITE, authorities::delete)
            .asks(Operation::RemoveAuthority),
        Route::get(paths::JOBS, READ, jobs::list),
        Route::post(paths::JOBS_IMPORT, IMPORT, jobs::import).asks(Operation::StartJob).takes_a_file(),
        Route::post(paths::JOBS_EXPORT, READ, jobs::export).asks(Operation::StartJob),
        Route::get("/portal/jobs/{job}", READ, jobs::show),
        Route::get("/portal/jobs/{job}/progress", READ, jobs::renew).in_background(),
        Route::get("/portal/jobs/{job}/files/{name}", READ, jobs::file),
        Route::post("/portal/jobs/{job}/cancel", READ, jobs::cancel).asks(Operation::EndJob),
        Route::post("/portal/jobs/{job}/rollback", IMPORT, jobs::roll_back).asks(Operation::StartJob),
        Route::get(paths::AUDIT, OWNER, audit_log::show),
        Route::get(paths::AUDIT_NEWS, OWNER, audit_log::news).in_background(),
    ]
}

/// The routes as a router, each behind its guard.
pub(super) fn router(portal: &Arc<Portal>) -> Router {
    let mut paths: BTreeMap<&str, MethodRouter<Arc<Portal>>> = BTreeMap::new();
    for route in routes() {
        let Route { needs, operation, in_background, takes_a_file, .. } = route;
        let route_guard = RouteGuard { portal: Arc::clone(portal), needs, operation, in_background, takes_a_file };
        let guarded = route.handler.route_layer(from_fn_with_state(route_guard, guard));
        let of_path = paths.remove(route.path).unwrap_or_default().merge(guarded);
        paths.insert(route.path, of_path);
    }
    let router = paths.into_iter().fold(Router::new(), |router, (path, of_path)| router.route(path, of_path));
    router.with_state(Arc::clone(portal))
}

impl Route {
    fn get<H, T>(path: &'static str, needs: Needs, handler: H) -> Self
    where
        H: Handler<T, Arc<Portal>>,
        T: 'static,
    {
        Self {
            method: Method::GET,
            path,
            needs,
            operation: None,
            in_background: false,
            takes_a_file: false,
            handler: get(handler),
        }
    }

    fn post<H, T>(path: &'static str, needs: Needs, handler: H) -> Self
    where
        H: Handler<T, Arc<Portal>>,
        T: 'static,
    {
        Self {
            method: Method::POST,
            path,
            needs,
            operation: None,
            in_background: false,
            takes_a_file: false,
            handler: post(handler),
        }
    }

    /// What a refusal of this form is recorded as.
    fn asks(self, operation: Operation) -> Self {
        Self { operation: Some(operation), ..self }
    }

    /// Its body is a file and not a form; a script sends it, with the session's token in its head.
    fn takes_a_file(self) -> Self {
        Self { takes_a_file: true, ..self }
    }

    /// Pages ask for it on their own.
    fn in_background(self) -> Self {
        Self { in_background: true, ..self }
    }
}

async fn nothing_there() -> Refused {
    Refused(Problem::not_found("There is no such page."))
}
