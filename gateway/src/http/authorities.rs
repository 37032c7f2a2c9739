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
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::caller::{Body, Caller, Named};
use crate::http::identities::precondition;
use crate::hub::Hub;
use crate::iothub::problem::Problem;
use crate::operations::authorities::{self, Enrolment};

/// What a request says of a certificate: PEM text as it is, or in JSON.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CertificateIn {
    /// PEM text.
    certificate: String,
    /// Whether the caller vouches for it itself. Of an enrolment only.
    #[serde(default)]
    verified: bool,
    /// Why the caller vouches for it. Of an enrolment only.
    reason: Option<String>,
}

/// A CA in an answer, in the words of IoT Hub's own certificate resource where it has them.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AuthorityOut {
    name: String,
    etag: String,
    subject: Option<String>,
    thumbprint: Option<String>,
    expiry: Option<String>,
    verified: bool,
    /// `none`, `awaitsProof`, `proven` or `asserted`.
    verification: &'static str,
    /// Why it was asserted.
    reason: Option<String>,
    created: String,
    updated: String,
}

/// A CA in an answer, with its certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CertifiedAuthorityOut {
    #[serde(flatten)]
    authority: AuthorityOut,
    /// PEM text.
    certificate: String,
}

/// What a proof of a CA's key must name.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct VerificationCodeOut {
    verification_code: String,
    expires: String,
}

/// Whether a certificate would let an identity in.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VerdictOut {
    admitted: bool,
    /// `succeeded`, or a fixed word for why not.
    outcome: &'static str,
    /// In words, if it would not.
    reason: Option<String>,
}

/// `GET /api/v1/certificate-authorities`: all of them, without their certificates.
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
) -> Result<Json<Vec<AuthorityOut>>, Problem> {
    let all = authorities::list(&hub, &caller)?;
    Ok(Json(all.all().iter().map(AuthorityOut::new).collect()))
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
) -> Result<Json<VerificationCodeOut>, Problem> {
    let code = authorities::renew_code(&hub, &caller, &AuthorityName::parse(&name)?).await?;
    Ok(Json(VerificationCodeOut { verification_code: code.code.to_string(), expires: time(code.expires) }))
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

/// `POST …/certificate-verdict`: would a device or module with this certificate be let in.
pub(super) async fn judge(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Named(id): Named,
    Body(body): Body,
) -> Result<Json<VerdictOut>, Problem> {
    let chain = CertificateIn::parse(&body)?.certificate;
    Ok(Json(match authorities::judge(&hub, &caller, &id, chain.as_bytes())? {
        Ok(()) => VerdictOut { admitted: true, outcome: "succeeded", reason: None },
        Err(error) => {
            VerdictOut { admitted: false, outcome: error.outcome().label(), reason: Some(error.to_string()) }
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
    let certificate = authority.certificate.clone().into();
    let body = CertifiedAuthorityOut {
        authority: AuthorityOut::new(authority),
        certificate: pem::write_certificate(&certificate),
    };
    ([(header::ETAG, authority.revision.etag().quoted())], Json(body)).into_response()
}

impl AuthorityOut {
    fn new(authority: &Authority) -> Self {
        let described = authorities::describe(authority);
        let (verified, verification, reason) = match &authority.verification {
            Verification::Pending(None) => (false, "none", None),
            Verification::Pending(Some(_)) => (false, "awaitsProof", None),
            Verification::Proven => (true, "proven", None),
            Verification::Asserted { reason } => (true, "asserted", Some(reason.to_string())),
        };
        Self {
            name: authority.name.as_str().to_owned(),
            etag: authority.revision.etag().to_string(),
            subject: described.as_ref().map(|described| described.subject.to_string()),
            thumbprint: described.as_ref().map(|described| described.thumbprint.to_string()),
            expiry: described.as_ref().map(|described| time(described.end)),
            verified,
            verification,
            reason,
            created: time(authority.created),
            updated: time(authority.updated),
        }
    }
}

fn time(time: Timestamp) -> String {
    format!("{time:.7}")
}

impl From<InvalidAuthorityName> for Problem {
    fn from(error: InvalidAuthorityName) -> Self {
        Self::argument_invalid(error.to_string())
    }
}
