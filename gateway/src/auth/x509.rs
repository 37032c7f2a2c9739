//! Authentication with client certificates: by registered thumbprint, or by an enrolled CA and the certificate's name.
//!
//! The handshake has proven that the peer holds the certificate's key. This module decides whether the certificate
//! admits it. Every refusal states what the peer sent and what the hub expected.
//!
//! Source: IoT Hub, "Authenticate identities with X.509 certificates".

use std::time::Duration;

use jiff::Timestamp;
use portcullis_certs::chain::{self, ChainError};
use portcullis_certs::name::NoCommonName;
use portcullis_certs::presented::{ChainRefused, OutOfTime, PresentedChain};
use portcullis_certs::thumbprint::Thumbprints;
use portcullis_registry::authority::AuthorityName;
use portcullis_registry::credential::ThumbprintPair;
use portcullis_registry::id::IdentityId;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::Credential;
use super::error::Contrast;
use super::trust::Trust;

/// Why a client certificate does not admit its peer. For the operator only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum X509Error {
    #[error("{0}")]
    Refused(ChainRefused),
    #[error("the client certificate {0}")]
    OutOfTime(OutOfTime),
    #[error(
        "the client certificate has thumbprint {sha256} (SHA-1 {sha1}); registered: {registered}",
        sha256 = presented.sha256, sha1 = presented.sha1
    )]
    OtherThumbprint { presented: Thumbprints, registered: String },
    #[error("client certificate: {0}")]
    Chain(ChainError),
    #[error(
        "CA {0} has signed the client certificate and is enrolled but not verified; \
         run `portcullis cert ca verify --name {0}`"
    )]
    NotVerified(AuthorityName),
    #[error("{reason}; the common name must be {wanted:?}")]
    NoCommonName { reason: NoCommonName, wanted: String },
    #[error("the client certificate's common name is {seen:?} and must be {wanted:?}")]
    OtherCommonName { seen: String, wanted: String },
}

/// What a certificate proves, and for how long.
pub(super) struct Verdict {
    pub(super) credential: Credential,
    /// The first moment at which the certificate is no longer valid.
    pub(super) expires: Option<Timestamp>,
    /// Depends on a SHA-1 thumbprint alone.
    pub(super) weak: bool,
}

impl X509Error {
    /// What the peer sent and what the hub expected.
    pub(super) fn contrast(&self) -> Contrast {
        match self {
            X509Error::Refused(reason) => Contrast::new(reason.to_string(), "a readable X.509 certificate"),
            X509Error::OutOfTime(reason) => {
                Contrast::new(format!("a certificate that {reason}"), "a certificate that is valid now")
            }
            X509Error::OtherThumbprint { presented, registered } => {
                Contrast::new(format!("{} (SHA-1 {})", presented.sha256, presented.sha1), registered)
            }
            X509Error::Chain(reason) => {
                Contrast::new(reason.to_string(), "a chain to an enrolled and verified CA")
            }
            X509Error::NotVerified(name) => {
                Contrast::new(format!("CA {name}, not verified"), "an enrolled and verified CA")
            }
            X509Error::NoCommonName { reason, wanted } => {
                Contrast::new(reason.to_string(), format!("the common name {wanted:?}"))
            }
            X509Error::OtherCommonName { seen, wanted } => {
                Contrast::new(format!("the common name {seen:?}"), format!("the common name {wanted:?}"))
            }
        }
    }
}

/// Parses the certificates that the peer sent, within size limits.
pub(super) fn parse<'a>(certificates: &'a [CertificateDer<'a>]) -> Result<PresentedChain<'a>, X509Error> {
    PresentedChain::parse_all(certificates).map_err(X509Error::Refused)
}

/// By thumbprint: the certificate must have one of the two registered thumbprints and be valid now. Its issuer, its
/// purpose, and whether it is a CA's make no difference.
pub(super) fn by_thumbprint(
    chain: &PresentedChain<'_>,
    registered: &ThumbprintPair,
    now: Timestamp,
) -> Result<Verdict, X509Error> {
    let presented = chain.thumbprints();
    let mut matching = registered.iter().filter(|own| presented.are_named_by(own.as_str())).peekable();
    if matching.peek().is_none() {
        let registered: Vec<_> = registered.iter().map(ToString::to_string).collect();
        return Err(X509Error::OtherThumbprint { presented, registered: registered.join(" and ") });
    }
    let weak = matching.all(|own| own.is_weak());
    chain.check_time(unix_time(now)).map_err(X509Error::OutOfTime)?;
    Ok(Verdict { credential: Credential::Thumbprint(presented), expires: end_of(chain.valid_until()), weak })
}

/// By CA: the chain must lead to an enrolled and verified CA, and the certificate must name exactly this identity.
pub(super) fn by_authority(
    chain: &PresentedChain<'_>,
    id: &IdentityId,
    trust: &Trust,
    now: Timestamp,
) -> Result<Verdict, X509Error> {
    let now = unix_time(now);
    let found = chain::verify(chain, &trust.verified(), now).map_err(|error| {
        let mut pending = trust.pending().iter();
        let pending = pending.find(|(_, anchor)| chain::verify(chain, &[anchor], now).is_ok());
        pending.map_or(X509Error::Chain(error), |(name, _)| X509Error::NotVerified(name.clone()))
    })?;
    // IoT Hub: a module's certificate names `device/module`, which is also how an id is written here.
    let wanted = id.to_string();
    match chain.common_name() {
        Ok(seen) if seen == wanted => {}
        Ok(seen) => {
            // The name is a peer's text, though a known CA has signed it, so its length is limited.
            let seen = seen.chars().take(NAME_CHARS_SHOWN).collect();
            return Err(X509Error::OtherCommonName { seen, wanted });
        }
        Err(reason) => return Err(X509Error::NoCommonName { reason, wanted }),
    }
    let credential = Credential::Authority(found.anchor.thumbprints().sha256);
    Ok(Verdict { credential, expires: end_of(found.valid_until), weak: false })
}

/// Does the work of authentication by CA and ignores the result, so that the time of a refusal does not reveal which
/// ids are registered and how (threats T320).
pub(super) fn in_vain(chain: &PresentedChain<'_>, trust: &Trust, now: Timestamp) {
    let _ = chain::verify(chain, &trust.verified(), unix_time(now));
}

/// A certificate is valid through its last second.
fn end_of(last: UnixTime) -> Option<Timestamp> {
    i64::try_from(last.as_secs()).ok().and_then(|last| Timestamp::from_second(last.checked_add(1)?).ok())
}

/// A time in the unit of certificates.
pub(crate) fn unix_time(time: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0)))
}

/// Two ids and a slash, with room to show that the name is longer.
const NAME_CHARS_SHOWN: usize = 300;
