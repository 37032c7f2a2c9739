//! The fleet's identities: created over REST and deleted afterwards, or taken from a file of connection strings.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use portcullis_certs::ca::{CaError, CertificateAuthority};
use portcullis_certs::fleet::self_signed_device;
use portcullis_certs::key::{KeyError, PrivateKey};
use portcullis_certs::thumbprint::Sha256Thumbprint;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::IdentityId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::UnixTime;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fleet::Run;
use crate::identity::{Credential, Identity};
use crate::plan::Mechanism;
use crate::rest::{Rest, RestError};
use crate::tally::Count;

/// Why a fleet cannot be provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    #[error(transparent)]
    Rest(#[from] RestError),
    #[error("{0} cannot be created: {1}")]
    Refused(IdentityId, String),
    #[error("{0} exists already and does not use a symmetric key; choose another --prefix")]
    NoKey(IdentityId),
    #[error("a certificate cannot be made")]
    Certificate(#[from] CaError),
    #[error("a key cannot be made")]
    Key(#[from] KeyError),
    #[error("the TLS library refuses a certificate made here")]
    Tls(#[from] rustls::Error),
}

/// What the run has created in the registry.
#[derive(Debug, Default)]
pub struct Made {
    identities: Vec<IdentityId>,
    authority: Option<String>,
}

/// Creates or finds the identities of the scenario, in order. `made` records those that were created, even if a later
/// one fails. When `stop` is cancelled, ends early with those it has.
pub async fn provision(
    run: &Run,
    stop: &CancellationToken,
    made: &mut Made,
) -> Result<Vec<Identity>, ProvisionError> {
    let authority = enrol(run, made).await?;
    let mut wanted = Vec::with_capacity(run.identities.len());
    for (number, id) in run.identities.iter().enumerate() {
        wanted.push(Wanted::new(id.clone(), run.schedule.mechanism(number), authority.as_ref())?);
    }
    // A module needs an existing device.
    let (mut devices, mut modules) = (Vec::new(), Vec::new());
    for (number, wanted) in wanted.into_iter().enumerate() {
        if wanted.id.module.is_none() {
            devices.push((number, wanted))
        } else {
            modules.push((number, wanted))
        }
    }
    let mut found = make(run, stop, devices, made).await?;
    found.extend(make(run, stop, modules, made).await?);
    found.sort_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, identity)| identity).collect())
}

/// Deletes what the run created. Reports failures and continues, because the run itself has ended.
pub async fn delete(run: &Run, made: Made) {
    let devices: HashSet<_> =
        made.identities.iter().filter(|id| id.module.is_none()).map(|id| id.device.clone()).collect();
    // Deleting a device deletes its modules.
    let alone = |id: &&IdentityId| id.module.is_none() || !devices.contains(&id.device);
    let items: Vec<Value> = made.identities.iter().filter(alone).map(|id| item(id, "delete")).collect();
    let batches: Vec<Vec<Value>> = items.chunks(AT_ONCE_MAX).map(<[Value]>::to_vec).collect();
    let requests = stream::iter(batches).map(|items| async move { run.rest.bulk(&items).await });
    let mut answers = requests.buffer_unordered(REQUESTS_MAX);
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(errors) => {
                for error in errors.iter().filter(|error| !error.is_missing()) {
                    run.tally.failed("delete", error.error_status.as_deref().unwrap_or("refused"));
                }
            }
            Err(error) => run.tally.failed("delete", &error.reason()),
        }
    }
    if let Some(name) = made.authority
        && let Err(error) = run.rest.remove_authority(&name).await
    {
        run.tally.failed("delete", &error.reason());
    }
}

/// An identity to create, with its credential.
struct Wanted {
    id: IdentityId,
    credential: Credential,
    authentication: Value,
}

impl Wanted {
    fn new(
        id: IdentityId,
        mechanism: Mechanism,
        authority: Option<&CertificateAuthority>,
    ) -> Result<Self, ProvisionError> {
        let (credential, authentication) = match (mechanism, authority) {
            (Mechanism::Sas, _) => {
                let keys = [SymmetricKey::generate(), SymmetricKey::generate()];
                let text = keys.each_ref().map(SymmetricKey::to_base64);
                let pair = json!({ "primaryKey": text[0].as_str(), "secondaryKey": text[1].as_str() });
                let [primary, _] = keys;
                (Credential::Key(primary), json!({ "type": "sas", "symmetricKey": pair }))
            }
            (Mechanism::Authority, Some(authority)) => {
                let key = PrivateKey::generate()?;
                let minted = authority.sign_device(&key, &id.to_string(), LIFETIME, UnixTime::now())?;
                (shown(minted.certificate, &key)?, json!({ "type": "certificateAuthority" }))
            }
            (Mechanism::Thumbprint | Mechanism::Authority, _) => {
                let key = PrivateKey::generate()?;
                let minted = self_signed_device(&key, &id.to_string(), LIFETIME, UnixTime::now())?;
                let thumbprint = Sha256Thumbprint::of(&minted.certificate).to_string();
                let authentication = json!({
                    "type": "selfSigned",
                    "x509Thumbprint": { "primaryThumbprint": thumbprint, "secondaryThumbprint": thumbprint },
                });
                (shown(minted.certificate, &key)?, authentication)
            }
        };
        Ok(Self { id, credential, authentication })
    }
}

/// A certificate and its key in the TLS library's form.
fn shown(
    certificate: rustls_pki_types::CertificateDer<'static>,
    key: &PrivateKey,
) -> Result<Credential, rustls::Error> {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = CertifiedKey::from_der(vec![certificate], key.to_der(), &provider)?;
    Ok(Credential::Certificate(Arc::new(certified)))
}

/// A CA of this run that the hub trusts, if the scenario needs one and the hub offers it.
async fn enrol(run: &Run, made: &mut Made) -> Result<Option<CertificateAuthority>, ProvisionError> {
    if run.scenario.fleet.credentials.authority <= 0.0 {
        return Ok(None);
    }
    let name = format!("{}-{}", run.scenario.fleet.prefix, run.id);
    let key = PrivateKey::generate()?;
    let authority = CertificateAuthority::root_for_devices(key, &name, LIFETIME, UnixTime::now())?;
    if run.rest.enrol_authority(&name, authority.pem()).await? {
        made.authority = Some(name);
        return Ok(Some(authority));
    }
    run.tally
        .note("this hub enrols no CA over REST, so devices with a CA's certificate sign in by thumbprint");
    Ok(None)
}

async fn make(
    run: &Run,
    stop: &CancellationToken,
    wanted: Vec<(usize, Wanted)>,
    made: &mut Made,
) -> Result<Vec<(usize, Identity)>, ProvisionError> {
    let mut batches = Vec::new();
    let mut wanted = wanted.into_iter().peekable();
    while wanted.peek().is_some() {
        batches.push(wanted.by_ref().take(AT_ONCE_MAX).collect::<Vec<_>>());
    }
    let requests = stream::iter(batches).map(|some| async move {
        if stop.is_cancelled() { (Vec::new(), Ok(())) } else { make_some(&run.rest, some).await }
    });
    let mut answers = requests.buffered(REQUESTS_MAX);
    let (mut identities, mut failure) = (Vec::new(), None);
    // Waits for all requests even after a failure, because each may have created identities.
    while let Some((found, outcome)) = answers.next().await {
        run.tally.add(Count::Provisioned, found.len() as u64);
        made.identities.extend(found.iter().filter(|(_, one)| one.is_made).map(|(_, one)| one.id.clone()));
        identities.extend(found);
        if let Err(error) = outcome {
            stop.cancel();
            failure.get_or_insert(error);
        }
    }
    failure.map_or(Ok(identities), Err)
}

/// Creates up to 100 identities. Existing ones are used as they are.
async fn make_some(
    rest: &Rest,
    wanted: Vec<(usize, Wanted)>,
) -> (Vec<(usize, Identity)>, Result<(), ProvisionError>) {
    let new_item = |(_, wanted): &(usize, Wanted)| {
        let mut item = item(&wanted.id, "create");
        item["status"] = "enabled".into();
        item["authentication"] = wanted.authentication.clone();
        item
    };
    let items: Vec<Value> = wanted.iter().map(new_item).collect();
    let errors = match rest.bulk(&items).await {
        Ok(errors) => errors,
        Err(error) => return (Vec::new(), Err(error.into())),
    };
    let mut found = Vec::with_capacity(wanted.len());
    let mut outcome = Ok(());
    for (number, Wanted { id, credential, .. }) in wanted {
        let module = id.module.as_ref().map(|module| module.as_str());
        let is_about = |error: &&crate::rest::BulkError| {
            error.device_id == id.device.as_str() && error.module_id.as_deref() == module
        };
        let taken = match errors.iter().find(is_about) {
            None => Ok(Identity { id, credential, is_made: true }),
            Some(error) if error.is_conflict() => take_as_it_is(rest, id).await,
            Some(error) => Err(ProvisionError::Refused(id, error.error_status.clone().unwrap_or_default())),
        };
        match taken {
            Ok(identity) => found.push((number, identity)),
            Err(error) => outcome = outcome.and(Err(error)),
        }
    }
    (found, outcome)
}

async fn take_as_it_is(rest: &Rest, id: IdentityId) -> Result<Identity, ProvisionError> {
    let known = rest.identity(&id).await?;
    let key = known["authentication"]["symmetricKey"]["primaryKey"].as_str();
    match key.and_then(|key| SymmetricKey::parse_base64(key).ok()) {
        Some(key) => Ok(Identity { id, credential: Credential::Key(key), is_made: false }),
        None => Err(ProvisionError::NoKey(id)),
    }
}

fn item(id: &IdentityId, mode: &str) -> Value {
    let mut item = json!({ "id": id.device.as_str(), "importMode": mode });
    if let Some(module) = &id.module {
        item["moduleId"] = module.as_str().into();
    }
    item
}

impl ProvisionError {
    /// A short text that is the same for the same fault.
    pub fn reason(&self) -> String {
        match self {
            Self::Rest(error) => error.reason(),
            other => other.to_string(),
        }
    }
}

/// IoT Hub: a bulk request changes at most 100 identities.
const AT_ONCE_MAX: usize = 100;
/// REST requests under way at a time.
const REQUESTS_MAX: usize = 8;
/// The lifetime of certificates, which nobody keeps after the run.
const LIFETIME: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);
