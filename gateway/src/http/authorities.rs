//! `/api/v1/certificate-authorities`: enrol, show, verify and remove the CAs that vouch for devices; and the verdict on
//! a certificate before a device has it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use portcullis_certs::pem;
use portcullis_registry::authority::{Authority, AuthorityName, InvalidAuthorityName, Verification};
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::auth::VerifiedService;
use crate::http::caller::{Body, Caller};
use crate::http::devices::precondition;
use crate::hub::Hub;
use crate::iothub::problem::Problem;
use crate::operations::authorities::{self, Enrolment};

/// What a request says of a certificate: PEM text as it is, or in JSON.
#[derive(Debug, Deserialize)]
struct CertificateIn {
    certificate: String,
    #[serde(default)]
    verified: bool,
    reason: Option<String>,
}

/// `GET /api/v1/certificate-authorities`: all of them, without their certificates.
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
) -> Result<Json<Value>, Problem> {
    let all = authorities::list(&hub, &caller)?;
    Ok(Json(all.all().iter().map(describe).collect()))
}

/// `GET /api/v1/certificate-authorities/{name}`.
pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(answer(&authorities::retrieve(&hub, &caller, &AuthorityName::parse(&name)?)?))
}

/// `PUT /api/v1/certificate-authorities/{name}`: without `If-Match` enrols, with it replaces.
pub(super) async fn put(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    let name = AuthorityName::parse(&name)?;
    let given = CertificateIn::parse(&body)?;
    let asserted = given.verified.then(|| given.reason.as_deref().unwrap_or_default());
    let enrolment = Enrolment { name, certificate: given.certificate.as_bytes(), asserted };
    Ok(answer(&authorities::enrol(&hub, &caller, enrolment, precondition(&headers)?).await?))
}

/// `POST /api/v1/certificate-authorities/{name}/verification-code`: what a proof must name.
pub(super) async fn renew_code(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let code = authorities::renew_code(&hub, &caller, &AuthorityName::parse(&name)?).await?;
    Ok(Json(json!({ "verificationCode": code.code, "expires": time(code.expires) })))
}

/// `POST /api/v1/certificate-authorities/{name}/verify`: the proof.
pub(super) async fn verify(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Response, Problem> {
    let proof = CertificateIn::parse(&body)?.certificate;
    let name = AuthorityName::parse(&name)?;
    Ok(answer(&authorities::verify(&hub, &caller, &name, proof.as_bytes()).await?))
}

/// `DELETE /api/v1/certificate-authorities/{name}`.
pub(super) async fn delete(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    authorities::remove(&hub, &caller, &AuthorityName::parse(&name)?, precondition(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/devices/{id}/certificate-verdict`: would a device with this certificate be let in.
pub(super) async fn judge_device(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(device): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    judge(&hub, &caller, &IdentityId::device(DeviceId::parse(&device)?), &body)
}

/// As `judge_device`, for a module.
pub(super) async fn judge_module(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path((device, module)): Path<(String, String)>,
    Body(body): Body,
) -> Result<Json<Value>, Problem> {
    let id = IdentityId::module(DeviceId::parse(&device)?, ModuleId::parse(&module)?);
    judge(&hub, &caller, &id, &body)
}

fn judge(hub: &Hub, caller: &VerifiedService, id: &IdentityId, body: &[u8]) -> Result<Json<Value>, Problem> {
    let chain = CertificateIn::parse(body)?.certificate;
    let verdict = authorities::judge(hub, caller, id, chain.as_bytes())?;
    Ok(Json(match verdict {
        Ok(()) => json!({ "admitted": true, "outcome": "succeeded", "reason": null }),
        Err(error) => {
            json!({ "admitted": false, "outcome": error.outcome().label(), "reason": error.to_string() })
        }
    }))
}

impl CertificateIn {
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        let text = std::str::from_utf8(body)
            .map_err(|_| Problem::argument_invalid("the body is neither PEM text nor JSON"))?;
        if text.trim_start().starts_with('{') {
            return serde_json::from_str(text)
                .map_err(|error| Problem::deserialization(format!("the body: {error}")));
        }
        Ok(Self { certificate: text.to_owned(), verified: false, reason: None })
    }
}

fn answer(authority: &Authority) -> Response {
    let mut body = describe(authority);
    let certificate = authority.certificate.clone().into();
    body["certificate"] = pem::write_certificate(&certificate).into();
    ([(header::ETAG, authority.revision.etag().quoted())], Json(body)).into_response()
}

/// The words of IoT Hub's own certificate resource, where it has them.
fn describe(authority: &Authority) -> Value {
    let described = authorities::describe(authority);
    let (verified, how, reason) = match &authority.verification {
        Verification::Pending(None) => (false, "none", None),
        Verification::Pending(Some(_)) => (false, "awaitsProof", None),
        Verification::Proven => (true, "proven", None),
        Verification::Asserted { reason } => (true, "asserted", Some(reason)),
    };
    json!({
        "name": authority.name.as_str(),
        "etag": authority.revision.etag().to_string(),
        "subject": described.as_ref().map(|described| &described.subject),
        "thumbprint": described.as_ref().map(|described| &described.thumbprint),
        "expiry": described.as_ref().map(|described| time(described.end)),
        "verified": verified,
        "verification": how,
        "reason": reason,
        "created": time(authority.created),
        "updated": time(authority.updated),
    })
}

fn time(time: Timestamp) -> String {
    format!("{time:.7}")
}

impl From<InvalidAuthorityName> for Problem {
    fn from(error: InvalidAuthorityName) -> Self {
        Self::argument_invalid(error.to_string())
    }
}
