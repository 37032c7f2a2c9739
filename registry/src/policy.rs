//! Shared access policies: named key pairs with rights, for services and operators.
//!
//! Source: IoT Hub, "Control access to IoT Hub by using shared access signatures", table of permissions.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::credential::{KeyPair, SymmetricKey};

/// A set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights(u8);

impl Rights {
    pub const REGISTRY_READ: Rights = Rights(1);
    pub const REGISTRY_WRITE: Rights = Rights(2);
    pub const SERVICE_CONNECT: Rights = Rights(4);
    pub const DEVICE_CONNECT: Rights = Rights(8);
    pub const ALL: Rights = Rights(15);

    /// Whether every one of `wanted` is granted.
    pub fn contains(self, wanted: Rights) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// IoT Hub's names of the rights.
    pub fn names(self) -> Vec<&'static str> {
        let named = [
            (Self::REGISTRY_READ, "RegistryRead"),
            (Self::REGISTRY_WRITE, "RegistryWrite"),
            (Self::SERVICE_CONNECT, "ServiceConnect"),
            (Self::DEVICE_CONNECT, "DeviceConnect"),
        ];
        named.into_iter().filter(|(right, _)| self.contains(*right)).map(|(_, name)| name).collect()
    }
}

impl std::ops::BitOr for Rights {
    type Output = Rights;

    fn bitor(self, other: Rights) -> Rights {
        Rights(self.0 | other.0)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    pub rights: Rights,
    pub keys: KeyPair,
}

/// A hub's policies, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies(Vec<Policy>);

/// Stored policies that cannot be read. Nothing is granted then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoliciesError {
    #[error("the stored policies are damaged or of a newer version")]
    Damaged,
    #[error("there is no policy {0:?}")]
    Unknown(String),
}

impl Policies {
    /// The five built-in policies with new random keys.
    pub fn generate() -> Self {
        let read_write = Rights::REGISTRY_READ | Rights::REGISTRY_WRITE;
        let built_in = [
            ("iothubowner", Rights::ALL),
            ("service", Rights::SERVICE_CONNECT),
            ("device", Rights::DEVICE_CONNECT),
            ("registryRead", Rights::REGISTRY_READ),
            ("registryReadWrite", read_write),
        ];
        let policy = |(name, rights): (&str, Rights)| Policy {
            name: name.to_owned(),
            rights,
            keys: KeyPair::generate(),
        };
        Self(built_in.into_iter().map(policy).collect())
    }

    /// The policy of exactly this name.
    pub fn find(&self, name: &str) -> Option<&Policy> {
        self.0.iter().find(|policy| policy.name == name)
    }

    /// Replaces a policy's keys by given ones; a key not given stays.
    pub fn override_keys(
        &mut self,
        name: &str,
        primary: Option<SymmetricKey>,
        secondary: Option<SymmetricKey>,
    ) -> Result<(), PoliciesError> {
        let policy = self.0.iter_mut().find(|policy| policy.name == name);
        let policy = policy.ok_or_else(|| PoliciesError::Unknown(name.to_owned()))?;
        if let Some(key) = primary {
            policy.keys.primary = key;
        }
        if let Some(key) = secondary {
            policy.keys.secondary = key;
        }
        Ok(())
    }

    /// As bytes to be stored.
    pub fn encode(&self) -> Vec<u8> {
        let stored = Stored::V1(self.0.iter().map(StoredPolicy::from).collect());
        postcard::to_stdvec(&stored).expect("writing to memory cannot fail")
    }

    /// From stored bytes. Damaged or empty ones are refused: fewer policies must never be taken for all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, PoliciesError> {
        let Ok(Stored::V1(stored)) = postcard::from_bytes(bytes) else { return Err(PoliciesError::Damaged) };
        let policies: Option<Vec<_>> = stored.into_iter().map(StoredPolicy::into_policy).collect();
        policies.filter(|policies| !policies.is_empty()).map(Self).ok_or(PoliciesError::Damaged)
    }
}

#[derive(Serialize, Deserialize)]
enum Stored {
    V1(Vec<StoredPolicy>),
}

#[derive(Serialize, Deserialize)]
struct StoredPolicy {
    name: String,
    rights: u8,
    primary: Vec<u8>,
    secondary: Vec<u8>,
}

impl From<&Policy> for StoredPolicy {
    fn from(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            rights: policy.rights.0,
            primary: policy.keys.primary.as_bytes().to_vec(),
            secondary: policy.keys.secondary.as_bytes().to_vec(),
        }
    }
}

impl StoredPolicy {
    fn into_policy(self) -> Option<Policy> {
        let primary = SymmetricKey::from_bytes(self.primary).ok()?;
        let secondary = SymmetricKey::from_bytes(self.secondary).ok()?;
        let rights = Some(Rights(self.rights)).filter(|rights| Rights::ALL.contains(*rights))?;
        Some(Policy { name: self.name, rights, keys: KeyPair { primary, secondary } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t913_built_in_policies_have_random_keys_and_the_rights_of_iot_hub() {
        let policies = Policies::generate();
        assert_ne!(policies, Policies::generate());
        let names = |name: &str| policies.find(name).unwrap().rights.to_string();
        assert_eq!(names("iothubowner"), "RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect");
        assert_eq!(names("service"), "ServiceConnect");
        assert_eq!(names("device"), "DeviceConnect");
        assert_eq!(names("registryRead"), "RegistryRead");
        assert_eq!(names("registryReadWrite"), "RegistryRead, RegistryWrite");
        assert!(policies.find("IotHubOwner").is_none());
    }

    #[test]
    fn stored_policies_come_back_and_damaged_ones_are_refused() {
        let policies = Policies::generate();
        let bytes = policies.encode();
        assert_eq!(Policies::decode(&bytes), Ok(policies));
        for end in 0..bytes.len() {
            assert_eq!(Policies::decode(&bytes[..end]), Err(PoliciesError::Damaged), "{end}");
        }
        assert_eq!(
            Policies::decode(&postcard::to_stdvec(&Stored::V1(Vec::new())).unwrap()),
            Err(PoliciesError::Damaged)
        );
    }

    #[test]
    fn a_given_key_replaces_that_key_only() {
        let mut policies = Policies::generate();
        let before = policies.find("service").unwrap().keys.clone();
        let key = SymmetricKey::generate();
        policies.override_keys("service", Some(key.clone()), None).unwrap();
        assert_eq!(
            policies.find("service").unwrap().keys,
            KeyPair { primary: key, secondary: before.secondary }
        );
        assert!(policies.override_keys("nobody", None, None).is_err());
    }
}
