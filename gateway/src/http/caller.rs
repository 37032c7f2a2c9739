//! Who calls: the verified policy or identity behind a request, and the api-version every IoT Hub request must carry.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};

use crate::auth::{Evidence, Face, Origin, Peer, VerifiedIdentity, VerifiedService};
use crate::hub::Hub;
use crate::hub::outcome::ConnectionOutcome;
use crate::iothub::api_version::{self, InvalidApiVersion};
use crate::iothub::problem::Problem;
use crate::operations::logins::{self, Fault, LoginAttempt, Reply};

/// The verified caller of a request; a request without one is answered 401 before its body is read.
pub(super) struct Caller(pub(super) VerifiedService);

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Problem> {
        let caller = verify(parts, hub).map_err(|fault| refuse(parts, hub, None, fault))?;
        parts.extensions.insert(Proven::Service(caller.clone()));
        Ok(Caller(caller))
    }
}

/// The device or module that a path names. A handler takes its caller first, so that a stranger learns nothing of ids.
pub(super) struct Named(pub(super) IdentityId);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::argument_invalid(error.to_string()))?;
        let segment = |name| path.iter().find(|(own, _)| *own == name).map(|(_, value)| value);
        let device = DeviceId::parse(segment("device").unwrap_or_default())?;
        let module = segment("module").map(ModuleId::parse).transpose()?;
        Ok(Self(IdentityId { device, module }))
    }
}

/// The device or module that a path names, proven by the request to be its caller.
pub(super) struct DeviceCaller(pub(super) VerifiedIdentity);

impl FromRequestParts<Arc<Hub>> for DeviceCaller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Problem> {
        let Named(id) = Named::from_request_parts(parts, hub).await?;
        let caller = verify_device(parts, hub, &id).map_err(|fault| refuse(parts, hub, Some(&id), fault))?;
        parts.extensions.insert(Proven::Device(caller.clone()));
        Ok(DeviceCaller(caller))
    }
}

/// What a request has proven before its body is read, to be held against what holds when it is there: a body may take
/// its time, and a caller revoked meanwhile has no say any more (threats P6).
#[derive(Clone)]
enum Proven {
    Service(VerifiedService),
    Device(VerifiedIdentity),
}

impl Proven {
    fn check(&self, hub: &Hub) -> Result<(), Problem> {
        let holds = match self {
            Proven::Service(service) => logins::service_still_holds(hub, service),
            Proven::Device(device) => logins::device_still_holds(hub, device),
        };
        if holds { Ok(()) } else { Err(Problem::unauthorized("the caller was revoked during the request")) }
    }
}

/// A whole request body, read within the time and size a request may take.
pub(super) struct Body(pub(super) Bytes);

impl FromRequest<Arc<Hub>> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, hub: &Arc<Hub>) -> Result<Self, Problem> {
        let time_max: Duration = hub.config.limits.request_time_max;
        let proven = request.extensions().get::<Proven>().cloned();
        let read = tokio::time::timeout(time_max, Bytes::from_request(request, &()));
        match read.await {
            Ok(Ok(bytes)) => {
                proven.map_or(Ok(()), |proven| proven.check(hub))?;
                Ok(Self(bytes))
            }
            Ok(Err(rejection)) if rejection.status() == 413 => Err(Problem::body_too_large()),
            Ok(Err(rejection)) => Err(Problem::argument_invalid(rejection.to_string())),
            Err(_) => Err(Problem::request_timeout()),
        }
    }
}

/// A whole request body that is to be JSON, read as [`Body`] is: plain, and in UTF-8.
pub(super) struct JsonBody(pub(super) Bytes);

impl FromRequest<Arc<Hub>> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, hub: &Arc<Hub>) -> Result<Self, Problem> {
        let headers = request.headers();
        let is_coded = headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity");
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if is_coded || is_in_another_charset(kind) {
            return Err(Problem::encoding_not_taken());
        }
        Body::from_request(request, hub).await.map(|Body(bytes)| Self(bytes))
    }
}

/// Whether a `Content-Type` names a charset and it is not UTF-8.
fn is_in_another_charset(kind: &str) -> bool {
    let charset = kind.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    charset.is_some_and(|charset| !charset.eq_ignore_ascii_case("utf-8"))
}

/// Every IoT Hub route takes exactly one well-formed `api-version`; which one makes no difference.
pub(super) async fn require_api_version(request: Request, next: Next) -> Response {
    match api_version::check_query(request.uri().query().unwrap_or_default()) {
        Ok(()) => next.run(request).await,
        Err(InvalidApiVersion::Missing) => {
            Problem::argument_null("the query parameter api-version is missing").into_response()
        }
        Err(InvalidApiVersion::Malformed) => Problem::invalid_api_version().into_response(),
    }
}

fn verify(parts: &Parts, hub: &Hub) -> Result<VerifiedService, Fault> {
    if let Some(proven) = parts.extensions.get::<VerifiedService>() {
        // A command of `admin`, whose caller has proven itself at CONNECT.
        return match logins::service_still_holds(hub, proven) {
            true => Ok(proven.clone()),
            false => {
                Err(Fault::new(ConnectionOutcome::CredentialChanged, "the policy was changed since CONNECT"))
            }
        };
    }
    let token = token(parts)?;
    let peer = parts
        .extensions
        .get::<Peer>()
        .ok_or_else(|| Fault::new(ConnectionOutcome::NoCredential, "a request from nowhere"))?;
    let origin = Origin { face: Face::Rest, peer: peer.address };
    logins::authenticate_service(hub, token, origin)
}

/// A device proves itself by a token in the request or, without one, by the certificate of its connection.
fn verify_device(parts: &Parts, hub: &Hub, id: &IdentityId) -> Result<VerifiedIdentity, Fault> {
    let certificates = parts.extensions.get::<Peer>().and_then(|peer| peer.certificates.as_deref());
    let password = match certificates {
        Some(_) if !parts.headers.contains_key(AUTHORIZATION) => None,
        _ => Some(token(parts)?),
    };
    logins::authenticate_device(hub, id, Evidence { password, certificates })
}

/// The answer to a request without valid credentials, which is held against whoever sent it.
fn refuse(parts: &Parts, hub: &Hub, id: Option<&IdentityId>, fault: Fault) -> Problem {
    let peer = parts.extensions.get::<Peer>();
    let attempt = peer.map(|peer| LoginAttempt {
        peer: peer.address,
        face: Face::Rest,
        id,
        password: token(parts).ok(),
    });
    let reply = logins::refuse_request(hub, attempt, &fault);
    let problem = match reply {
        Reply::Send => Problem::unauthorized(fault.reason),
        Reply::Withhold => Problem::throttled(fault.reason),
    };
    tracing::debug!(reason = problem.for_operator(), path = parts.uri.path(), "request refused");
    problem
}

fn token(parts: &Parts) -> Result<&str, Fault> {
    let mut headers = parts.headers.get_all(AUTHORIZATION).iter();
    let (Some(header), None) = (headers.next(), headers.next()) else {
        return Err(Fault::new(
            ConnectionOutcome::NoCredential,
            "exactly one Authorization header is needed",
        ));
    };
    header
        .to_str()
        .map_err(|_| Fault::new(ConnectionOutcome::SasMalformed, "the Authorization header is not ASCII"))
}
