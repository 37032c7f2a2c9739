//! Shared access policies as operators may see and change them: list, show, create, regenerate, delete.
//!
//! Whoever has a policy's key has its rights, so every operation here is for callers with every right. A change is
//! stored, then in force, then held against the live sessions of devices and services, and only then answered. Keys
//! the configuration sets stand above stored ones and are nobody's to change here.

use std::sync::Arc;

use portcullis_registry::backend::StoreError;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::policy::{InvalidPolicy, Policies, PoliciesError, Policy, Renewal, Rights};
use portcullis_registry::store::Registry;

use crate::auth::{AuthError, VerifiedService};
use crate::config::Config;
use crate::config::local_access::LocalAccess;
use crate::hub::Hub;
use crate::hub::audit::Operation;
use crate::hub::audit::effect::Effect;
use crate::iothub::connection_string::ConnectionString;
use crate::operations::audit::audited;

/// Why an operation on a policy was not done.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error("there is no shared access policy {0:?}")]
    NotFound(String),
    #[error("there is a shared access policy {0:?} already; letter case does not tell names apart")]
    AlreadyExists(String),
    #[error("the shared access policy {0:?} is built in and stays")]
    BuiltIn(String),
    #[error("the configuration sets a key of the shared access policy {0:?}; change it there")]
    Configured(String),
    #[error("this hub has as many shared access policies as it may have")]
    TooMany,
    #[error(transparent)]
    Invalid(#[from] InvalidPolicy),
    #[error("the stored shared access policies: {0}")]
    Stored(PoliciesError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the hub stops")]
    Stopping,
}

/// The stored policies, or on the first start the built-in ones with random keys. A key given in the configuration wins.
pub async fn open(registry: &Registry, config: &Config) -> Result<Policies, PolicyError> {
    let stored = match registry.meta(STORED) {
        Some(bytes) => Policies::decode(&bytes).map_err(PolicyError::Stored)?,
        None => {
            let policies = Policies::generate();
            registry.put_meta(STORED, policies.encode()).await?;
            policies
        }
    };
    in_force(stored, config)
}

/// Every policy.
pub fn list(hub: &Hub, caller: &VerifiedService) -> Result<Arc<Policies>, PolicyError> {
    caller.check(Rights::ALL)?;
    Ok(hub.policies())
}

/// One policy.
pub fn show(hub: &Hub, caller: &VerifiedService, name: &str) -> Result<Policy, PolicyError> {
    let policies = list(hub, caller)?;
    policies.find(name).cloned().ok_or_else(|| PolicyError::NotFound(name.to_owned()))
}

/// One policy with its keys, for somebody who wants to see them; that is recorded.
pub async fn reveal(hub: &Hub, caller: &VerifiedService, name: &str) -> Result<Policy, PolicyError> {
    let shown = async { show(hub, caller, name).map(|policy| (policy, Effect::default())) };
    audited(hub, caller, Operation::RevealCredential, format!("policy {name}"), shown).await
}

/// Every policy with its keys; that is recorded.
pub async fn reveal_all(hub: &Hub, caller: &VerifiedService) -> Result<Arc<Policies>, PolicyError> {
    let shown = async {
        let policies = list(hub, caller)?;
        let count = policies.iter().count();
        Ok((policies, Effect::with_details(vec![("policies", count.into())])))
    };
    audited(hub, caller, Operation::RevealCredential, "list of policies".to_owned(), shown).await
}

/// Creates a policy. Keys that are not given are made. `Ok` means on stable storage.
pub async fn create(
    hub: &Arc<Hub>,
    caller: &VerifiedService,
    name: &str,
    rights: Rights,
    primary: Option<SymmetricKey>,
    secondary: Option<SymmetricKey>,
) -> Result<Policy, PolicyError> {
    audited::<_, PolicyError>(hub, caller, Operation::CreatePolicy, name.to_owned(), async {
        caller.check(Rights::ALL)?;
        let policy = Policy::new(name, rights, primary, secondary)?;
        let insert = move |policies: &mut Policies| policies.insert(policy);
        let (created, effect) = change(hub, caller, name, "created", insert).await?;
        Ok((created.ok_or_else(|| PolicyError::NotFound(name.to_owned()))?, effect))
    })
    .await
}

/// Gives a policy new keys, or swaps those it has. Connections that rest on a key that goes are closed.
pub async fn regenerate(
    hub: &Arc<Hub>,
    caller: &VerifiedService,
    name: &str,
    renewal: Renewal,
) -> Result<Policy, PolicyError> {
    let own = name.to_owned();
    audited::<_, PolicyError>(hub, caller, Operation::RegeneratePolicy, name.to_owned(), async {
        caller.check(Rights::ALL)?;
        check_not_configured(hub, name, renewal)?;
        let renew = move |policies: &mut Policies| policies.renew_keys(&own, renewal);
        let (renewed, effect) = change(hub, caller, name, "keys regenerated", renew).await?;
        Ok((renewed.ok_or_else(|| PolicyError::NotFound(name.to_owned()))?, effect))
    })
    .await
}

/// Deletes a policy that is not built in. Connections that rest on it are closed.
pub async fn delete(hub: &Arc<Hub>, caller: &VerifiedService, name: &str) -> Result<(), PolicyError> {
    let own = name.to_owned();
    audited(hub, caller, Operation::DeletePolicy, name.to_owned(), async {
        caller.check(Rights::ALL)?;
        let remove = move |policies: &mut Policies| policies.remove(&own);
        let (_, effect) = change(hub, caller, name, "deleted", remove).await?;
        Ok(((), effect))
    })
    .await
}

/// Makes one change to the stored policies and puts it in force. Returns the policy of this name as it is in force after
/// the change, if there is one, and what the change did to it.
async fn change(
    hub: &Arc<Hub>,
    caller: &VerifiedService,
    name: &str,
    what: &'static str,
    change: impl FnOnce(&mut Policies) -> Result<(), PoliciesError> + Send + 'static,
) -> Result<(Option<Policy>, Effect), PolicyError> {
    let (own, name, by) = (Arc::clone(hub), name.to_owned(), caller.policy().to_owned());
    // On its own: a caller that goes away in the middle must not leave a change stored and not in force.
    let done = hub.tasks.spawn(async move {
        let hub = own;
        // One change at a time, for each builds on what the one before it stored. Nothing else waits for this.
        let _turn = hub.policy_changes.acquire().await.map_err(|_| PolicyError::Stopping)?;
        let bytes = hub.registry.meta(STORED).ok_or(PolicyError::Stored(PoliciesError::Damaged))?;
        let mut stored = Policies::decode(&bytes).map_err(PolicyError::Stored)?;
        let before = stored.find(&name).cloned();
        change(&mut stored)?;
        let effect = Effect::of_policy(before.as_ref(), stored.find(&name));
        hub.registry.put_meta(STORED, stored.encode()).await?;
        let policies = in_force(stored, &hub.config)?;
        let after = policies.find(&name).cloned();
        hub.set_policies(policies);
        tracing::info!(policy = name, by, change = what, "shared access policy changed");
        if name == OWNER {
            renew_local_access(&hub);
        }
        Ok((after, effect))
    });
    done.await.map_err(|_| PolicyError::Stopping)?
}

/// The stored policies under the keys of the configuration.
fn in_force(mut policies: Policies, config: &Config) -> Result<Policies, PolicyError> {
    for (name, keys) in &config.policy_keys {
        policies.override_keys(name, keys.primary.clone(), keys.secondary.clone())?;
    }
    Ok(policies)
}

/// A key the configuration sets would come back at the next start, so it is not to be replaced here.
fn check_not_configured(hub: &Hub, name: &str, renewal: Renewal) -> Result<(), PolicyError> {
    let Some(set) = hub.config.policy_keys.get(name) else { return Ok(()) };
    let is_set = match renewal {
        Renewal::Primary => set.primary.is_some(),
        Renewal::Secondary => set.secondary.is_some(),
        Renewal::Both | Renewal::Swap => true,
    };
    if is_set { Err(PolicyError::Configured(name.to_owned())) } else { Ok(()) }
}

/// The verbs on this machine know the owner by the access file; where there is one, it gets the new key.
fn renew_local_access(hub: &Hub) {
    let Ok(mut access) = LocalAccess::read(&hub.config.data_dir) else { return };
    access.owner = owner_connection_string(hub);
    if let Err(error) = access.write(&hub.config.data_dir) {
        tracing::warn!(%error, "the access file for this machine still has the owner's old key");
    }
}

/// What the owner of this hub connects with.
pub fn owner_connection_string(hub: &Hub) -> String {
    let policies = hub.policies();
    let owner = policies.find(OWNER);
    let login = |owner: &Policy| ConnectionString::of_policy(hub.hosts.primary(), OWNER, &owner.keys.primary);
    owner.map(|owner| login(owner).to_string()).unwrap_or_default()
}

impl From<PoliciesError> for PolicyError {
    fn from(error: PoliciesError) -> Self {
        match error {
            PoliciesError::Unknown(name) => PolicyError::NotFound(name),
            PoliciesError::AlreadyExists(name) => PolicyError::AlreadyExists(name),
            PoliciesError::BuiltIn(name) => PolicyError::BuiltIn(name),
            PoliciesError::TooMany => PolicyError::TooMany,
            PoliciesError::Damaged => PolicyError::Stored(error),
        }
    }
}

/// The policy with every right.
const OWNER: &str = "iothubowner";
/// Under which key the store keeps the policies.
const STORED: &str = "policies";
