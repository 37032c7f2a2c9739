//! Every page and form of the portal, one row each: method, path, required rights, and the handler.
//!
//! This list is the only one: the router, and the tests that try each route as a stranger, are made from it. To add a
//! page: a handler in a file beside similar ones, a row here, and for a new part of the portal a `layout::Section`. The
//! handler of a form takes `FormFields`, which exist only with the sign-in's token. A form that changes something or
//! reveals a secret names its operation with `asks`, for the record of a refusal. Any text after `/portal/devices/` is
//! an id, so fixed words have other paths.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use portcullis_registry::policy::Rights;

use super::answer::RefusedPage;
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
pub struct PageRoute {
    pub method: Method,
    /// With parameters in braces.
    pub path: &'static str,
    pub needs: PageNeeds,
    /// The operation of a form, as the audit record names it.
    pub operation: Option<Operation>,
    in_background: bool,
    /// Whether a body is a file and not a form.
    pub takes_a_file: bool,
    handler: MethodRouter<Arc<Portal>>,
}

/// What a route needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageNeeds {
    /// Nothing.
    Nothing,
    /// A sign-in.
    SignIn,
    /// A sign-in with a policy that has every one of these rights.
    Rights(Rights),
}

/// Every route of the portal.
pub fn routes() -> Vec<PageRoute> {
    devices_and_frame().into_iter().chain(hub_wide()).collect()
}

fn devices_and_frame() -> Vec<PageRoute> {
    const READ: PageNeeds = PageNeeds::Rights(Rights::REGISTRY_READ);
    const WRITE: PageNeeds = PageNeeds::Rights(Rights::REGISTRY_WRITE);
    const SERVICE: PageNeeds = PageNeeds::Rights(Rights::SERVICE_CONNECT);
    const OWNER: PageNeeds = PageNeeds::Rights(Rights::ALL);
    use Operation::{
        CreateIdentity, DeleteIdentity, PurgeQueue, RevealCredential, SendMessage, UpdateIdentity,
    };
    vec![
        PageRoute::get("/portal/assets/{file}", PageNeeds::Nothing, assets::show),
        PageRoute::get(paths::SIGN_IN, PageNeeds::Nothing, login::show),
        PageRoute::post(paths::SIGN_IN, PageNeeds::Nothing, login::sign_in),
        PageRoute::post(paths::SIGN_OUT, PageNeeds::SignIn, login::sign_out),
        PageRoute::get(paths::HOME, PageNeeds::SignIn, home::show),
        PageRoute::get(paths::CA, PageNeeds::SignIn, assets::show_ca),
        PageRoute::get(paths::DEVICES, READ, devices::list::show),
        PageRoute::get(paths::DEVICES_CSV, READ, devices::csv::show),
        PageRoute::post(paths::SELECTED_ENABLE, WRITE, devices::selected::enable).asks(UpdateIdentity),
        PageRoute::post(paths::SELECTED_DISABLE, WRITE, devices::selected::disable).asks(UpdateIdentity),
        PageRoute::post(paths::SELECTED_DELETE, WRITE, devices::selected::delete).asks(DeleteIdentity),
        PageRoute::get(paths::NEW_DEVICE, WRITE, devices::create::show),
        PageRoute::post(paths::NEW_DEVICE, WRITE, devices::create::create).asks(CreateIdentity),
        PageRoute::get(paths::CHECK_ID, WRITE, devices::create::check_id),
        PageRoute::post(paths::THUMBPRINT, PageNeeds::SignIn, credential_form::compute),
        PageRoute::get("/portal/created/{device}", READ, created::show),
        PageRoute::get("/portal/devices/{device}", READ, details::show),
        PageRoute::get("/portal/devices/{device}/modules/{module}", READ, details::show),
        PageRoute::post("/portal/devices/{device}/status", WRITE, status::save).asks(UpdateIdentity),
        PageRoute::post("/portal/devices/{device}/modules/{module}/status", WRITE, status::save)
            .asks(UpdateIdentity),
        PageRoute::post("/portal/devices/{device}/access", WRITE, access::save).asks(UpdateIdentity),
        PageRoute::post("/portal/devices/{device}/modules/{module}/access", WRITE, access::save)
            .asks(UpdateIdentity),
        PageRoute::get("/portal/devices/{device}/credential", WRITE, change::show),
        PageRoute::get("/portal/devices/{device}/modules/{module}/credential", WRITE, change::show),
        PageRoute::post("/portal/devices/{device}/credential", WRITE, change::save).asks(UpdateIdentity),
        PageRoute::post("/portal/devices/{device}/modules/{module}/credential", WRITE, change::save)
            .asks(UpdateIdentity),
        PageRoute::post("/portal/devices/{device}/keys", WRITE, keys::renew).asks(UpdateIdentity),
        PageRoute::post("/portal/devices/{device}/modules/{module}/keys", WRITE, keys::renew)
            .asks(UpdateIdentity),
        PageRoute::post("/portal/devices/{device}/reveal", WRITE, credentials::reveal).asks(RevealCredential),
        PageRoute::post("/portal/devices/{device}/modules/{module}/reveal", WRITE, credentials::reveal)
            .asks(RevealCredential),
        PageRoute::post("/portal/devices/{device}/token", WRITE, token::make).asks(RevealCredential),
        PageRoute::post("/portal/devices/{device}/modules/{module}/token", WRITE, token::make)
            .asks(RevealCredential),
        PageRoute::get("/portal/devices/{device}/delete", WRITE, delete::ask),
        PageRoute::get("/portal/devices/{device}/modules/{module}/delete", WRITE, delete::ask),
        PageRoute::post("/portal/devices/{device}/delete", WRITE, delete::delete).asks(DeleteIdentity),
        PageRoute::post("/portal/devices/{device}/modules/{module}/delete", WRITE, delete::delete)
            .asks(DeleteIdentity),
        PageRoute::get("/portal/devices/{device}/messages", SERVICE, messages::show),
        PageRoute::get("/portal/devices/{device}/modules/{module}/messages", SERVICE, messages::show),
        PageRoute::post("/portal/devices/{device}/messages", SERVICE, send::send).asks(SendMessage),
        PageRoute::post("/portal/devices/{device}/modules/{module}/messages", SERVICE, send::send)
            .asks(SendMessage),
        PageRoute::get("/portal/devices/{device}/purge", SERVICE, messages::ask_purge),
        PageRoute::get("/portal/devices/{device}/modules/{module}/purge", SERVICE, messages::ask_purge),
        PageRoute::post("/portal/devices/{device}/purge", SERVICE, messages::purge).asks(PurgeQueue),
        PageRoute::post("/portal/devices/{device}/modules/{module}/purge", SERVICE, messages::purge)
            .asks(PurgeQueue),
        PageRoute::get("/portal/devices/{device}/connections", READ, connections::show),
        PageRoute::get("/portal/devices/{device}/modules/{module}/connections", READ, connections::show),
        PageRoute::get("/portal/devices/{device}/audit", OWNER, audit::show),
        PageRoute::get("/portal/devices/{device}/modules/{module}/audit", OWNER, audit::show),
        PageRoute::get("/portal/devices/{device}/modules", READ, modules::list),
        PageRoute::get("/portal/devices/{device}/new-module", WRITE, modules::show_new),
        PageRoute::post("/portal/devices/{device}/new-module", WRITE, modules::create).asks(CreateIdentity),
        PageRoute::get("/portal/{*elsewhere}", PageNeeds::SignIn, nothing_there),
    ]
}

/// The routes of the hub, not of one device.
fn hub_wide() -> Vec<PageRoute> {
    const READ: PageNeeds = PageNeeds::Rights(Rights::REGISTRY_READ);
    const WRITE: PageNeeds = PageNeeds::Rights(Rights::REGISTRY_WRITE);
    const IMPORT: PageNeeds = PageNeeds::Rights(crate::operations::jobs::RIGHTS);
    const OWNER: PageNeeds = PageNeeds::Rights(Rights::ALL);
    let telemetry_needs = PageNeeds::Rights(Rights::REGISTRY_READ | Rights::SERVICE_CONNECT);
    vec![
        PageRoute::get(paths::OVERVIEW, READ, home::renew).in_background(),
        PageRoute::get("/portal/devices/{device}/telemetry", telemetry_needs, telemetry::show),
        PageRoute::get(paths::LIVE, READ, live::stream).in_background(),
        PageRoute::get(paths::POLICIES, OWNER, policies::list),
        PageRoute::post(paths::POLICIES, OWNER, policies::create).asks(Operation::CreatePolicy),
        PageRoute::get("/portal/policies/{name}", OWNER, policies::show),
        PageRoute::post("/portal/policies/{name}/reveal", OWNER, policies::reveal)
            .asks(Operation::RevealCredential),
        PageRoute::post("/portal/policies/{name}/regenerate", OWNER, policies::regenerate)
            .asks(Operation::RegeneratePolicy),
        PageRoute::post("/portal/policies/{name}/delete", OWNER, policies::delete)
            .asks(Operation::DeletePolicy),
        PageRoute::get(paths::AUTHORITIES, READ, authorities::list),
        PageRoute::post(paths::AUTHORITIES, WRITE, authorities::enrol).asks(Operation::EnrolAuthority),
        PageRoute::get("/portal/authorities/{name}", READ, authorities::show),
        PageRoute::post("/portal/authorities/{name}/code", WRITE, authorities::renew_code)
            .asks(Operation::RenewAuthorityCode),
        PageRoute::post("/portal/authorities/{name}/verify", WRITE, authorities::verify)
            .asks(Operation::VerifyAuthority),
        PageRoute::post("/portal/authorities/{name}/delete", WRITE, authorities::delete)
            .asks(Operation::RemoveAuthority),
        PageRoute::get(paths::JOBS, READ, jobs::list),
        PageRoute::post(paths::JOBS_IMPORT, IMPORT, jobs::import).asks(Operation::StartJob).takes_a_file(),
        PageRoute::post(paths::JOBS_EXPORT, READ, jobs::export).asks(Operation::StartJob),
        PageRoute::get("/portal/jobs/{job}", READ, jobs::show),
        PageRoute::get("/portal/jobs/{job}/progress", READ, jobs::renew).in_background(),
        PageRoute::get("/portal/jobs/{job}/files/{name}", READ, jobs::file),
        PageRoute::post("/portal/jobs/{job}/cancel", READ, jobs::cancel).asks(Operation::CancelJob),
        PageRoute::post("/portal/jobs/{job}/rollback", IMPORT, jobs::roll_back).asks(Operation::StartJob),
        PageRoute::get(paths::AUDIT, OWNER, audit_log::show),
        PageRoute::get(paths::AUDIT_NEWS, OWNER, audit_log::news).in_background(),
    ]
}

/// The routes as a router, each behind its guard.
pub(super) fn router(portal: &Arc<Portal>) -> Router {
    let mut paths: BTreeMap<&str, MethodRouter<Arc<Portal>>> = BTreeMap::new();
    for route in routes() {
        let PageRoute { needs, operation, in_background, takes_a_file, .. } = route;
        let route_guard =
            RouteGuard { portal: Arc::clone(portal), needs, operation, in_background, takes_a_file };
        let guarded = route.handler.route_layer(from_fn_with_state(route_guard, guard));
        let of_path = paths.remove(route.path).unwrap_or_default().merge(guarded);
        paths.insert(route.path, of_path);
    }
    let router = paths.into_iter().fold(Router::new(), |router, (path, of_path)| router.route(path, of_path));
    router.with_state(Arc::clone(portal))
}

impl PageRoute {
    fn get<H, T>(path: &'static str, needs: PageNeeds, handler: H) -> Self
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

    fn post<H, T>(path: &'static str, needs: PageNeeds, handler: H) -> Self
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

    /// The operation that the audit record names when this form is refused.
    fn asks(self, operation: Operation) -> Self {
        Self { operation: Some(operation), ..self }
    }

    /// The body is a file, not a form. A script sends it, with the sign-in's token in a header.
    fn takes_a_file(self) -> Self {
        Self { takes_a_file: true, ..self }
    }

    /// Pages ask for it by themselves.
    fn in_background(self) -> Self {
        Self { in_background: true, ..self }
    }
}

async fn nothing_there() -> RefusedPage {
    RefusedPage(Problem::not_found("The portal has no such page."))
}
