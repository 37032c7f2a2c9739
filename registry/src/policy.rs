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
    /// Read identities.
    pub const REGISTRY_READ: Rights = Rights(1);
    /// Create, change and delete identities.
    pub const REGISTRY_WRITE: Rights = Rights(2);
    /// Send to devices, and receive what they send.
    pub const SERVICE_CONNECT: Rights = Rights(4);
    /// Connect as a device.
    pub const DEVICE_CONNECT: Rights = Rights(8);
    /// Read and write identities.
    pub const REGISTRY_READ_WRITE: Rights = Rights(3);
    /// Every right.
    pub const ALL: Rights = Rights(15);

    /// The set as one number, for a record of it.
    pub fn bits(self) -> u8 {
        self.0
    }

    /// The set of a number that `bits` gave; what is no right is not in it.
    pub fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// Whether every one of `wanted` is granted.
    pub fn contains(self, wanted: Rights) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// IoT Hub's names of the rights.
    pub fn names(self) -> Vec<&'static str> {
        NAMED_RIGHTS.iter().filter(|(right, _)| self.contains(*right)).map(|(_, name)| *name).collect()
    }

    /// The rights of these names, in any letter case. There must be one at least.
    pub fn parse_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidPolicy> {
        let mut rights = Rights(0);
        for name in names {
            let named = NAMED_RIGHTS.iter().find(|(_, own)| own.eq_ignore_ascii_case(name));
            let (right, _) = named.ok_or_else(|| InvalidPolicy::Right(name.to_owned()))?;
            rights = rights | *right;
        }
        if rights == Rights(0) { Err(InvalidPolicy::NoRights) } else { Ok(rights) }
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
    /// 1 to 64 letters, digits and `-._`.
    pub name: String,
    /// What its tokens may do.
    pub rights: Rights,
    /// What its tokens are signed with; either key counts.
    pub keys: KeyPair,
}

impl Policy {
    /// A policy of these rights. Keys that are not given are made.
    pub fn new(
        name: &str,
        rights: Rights,
        primary: Option<SymmetricKey>,
        secondary: Option<SymmetricKey>,
    ) -> Result<Self, InvalidPolicy> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(is_allowed) {
            return Err(InvalidPolicy::Name);
        }
        let made = KeyPair::generate();
        let keys = KeyPair {
            primary: primary.unwrap_or(made.primary),
            secondary: secondary.unwrap_or(made.secondary),
        };
        Ok(Self { name: name.to_owned(), rights, keys })
    }

    /// Whether every hub has it.
    pub fn is_built_in(&self) -> bool {
        BUILT_IN.iter().any(|(name, _)| *name == self.name)
    }
}

/// Why there can be no such policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// The name has another length or alphabet.
    #[error("a policy's name has 1 to {NAME_BYTES_MAX} letters, digits and -._")]
    Name,
    /// No right has this name.
    #[error("{0:?} is none of the rights RegistryRead, RegistryWrite, ServiceConnect, DeviceConnect")]
    Right(String),
    /// The list of rights is empty.
    #[error("a policy has at least one right")]
    NoRights,
}

/// Which keys of a pair are to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// A new primary key; the secondary stays.
    Primary,
    /// A new secondary key; the primary stays.
    Secondary,
    /// Two new keys.
    Both,
    /// No new key: the two change places.
    Swap,
}

/// A hub's policies, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policies(Vec<Policy>);

/// Why policies cannot be read or changed. Nothing is granted by what cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoliciesError {
    /// The stored bytes cannot be read.
    #[error("the stored policies are damaged or of a newer version")]
    Damaged,
    /// No policy has this name.
    #[error("there is no policy {0:?}")]
    Unknown(String),
    /// A policy has this name, in some letter case.
    #[error("there is a policy {0:?} already, if not in this letter case")]
    AlreadyExists(String),
    /// A policy of this name is there in every hub and cannot be removed.
    #[error("{0:?} is built in")]
    BuiltIn(String),
    /// A hub has no more than these.
    #[error("there are {POLICIES_MAX} policies, which is the limit")]
    TooMany,
}

impl Policies {
    /// The five built-in policies with new random keys.
    pub fn generate() -> Self {
        let policy = |(name, rights): &(&str, Rights)| Policy {
            name: (*name).to_owned(),
            rights: *rights,
            keys: KeyPair::generate(),
        };
        Self(BUILT_IN.iter().map(policy).collect())
    }

    /// The policy of exactly this name.
    pub fn find(&self, name: &str) -> Option<&Policy> {
        self.0.iter().find(|policy| policy.name == name)
    }

    /// Every policy, the built-in ones first.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.iter()
    }

    /// Adds a policy. Names that differ in letter case only would be taken for each other, so they count as one.
    pub fn insert(&mut self, policy: Policy) -> Result<(), PoliciesError> {
        if self.0.iter().any(|own| own.name.eq_ignore_ascii_case(&policy.name)) {
            return Err(PoliciesError::AlreadyExists(policy.name));
        }
        if self.0.len() >= POLICIES_MAX {
            return Err(PoliciesError::TooMany);
        }
        self.0.push(policy);
        Ok(())
    }

    /// Removes a policy that is not built in; so there is always one that has every right.
    pub fn remove(&mut self, name: &str) -> Result<(), PoliciesError> {
        let index = self.0.iter().position(|policy| policy.name == name);
        let index = index.ok_or_else(|| PoliciesError::Unknown(name.to_owned()))?;
        if self.0[index].is_built_in() {
            return Err(PoliciesError::BuiltIn(name.to_owned()));
        }
        self.0.remove(index);
        Ok(())
    }

    /// Gives a policy new random keys, or swaps those it has.
    pub fn renew_keys(&mut self, name: &str, renewal: Renewal) -> Result<(), PoliciesError> {
        let policy = self.0.iter_mut().find(|policy| policy.name == name);
        let keys = &mut policy.ok_or_else(|| PoliciesError::Unknown(name.to_owned()))?.keys;
        match renewal {
            Renewal::Primary => keys.primary = SymmetricKey::generate(),
            Renewal::Secondary => keys.secondary = SymmetricKey::generate(),
            Renewal::Both => *keys = KeyPair::generate(),
            Renewal::Swap => std::mem::swap(&mut keys.primary, &mut keys.secondary),
        }
        Ok(())
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
        let stored = StoredPolicies::V1(self.0.iter().map(StoredPolicy::from).collect());
        postcard::to_stdvec(&stored).expect("writing to memory cannot fail")
    }

    /// From stored bytes. Damaged or empty ones are refused: fewer policies must never be taken for all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, PoliciesError> {
        let Ok(StoredPolicies::V1(stored)) = postcard::from_bytes(bytes) else {
            return Err(PoliciesError::Damaged);
        };
        let policies: Option<Vec<_>> = stored.into_iter().map(StoredPolicy::into_policy).collect();
        policies.filter(|policies| !policies.is_empty()).map(Self).ok_or(PoliciesError::Damaged)
    }
}

/// The policies of every hub. Source: IoT Hub, as above.
const BUILT_IN: [(&str, Rights); 5] = [
    ("iothubowner", Rights::ALL),
    ("service", Rights::SERVICE_CONNECT),
    ("device", Rights::DEVICE_CONNECT),
    ("registryRead", Rights::REGISTRY_READ),
    ("registryReadWrite", Rights(Rights::REGISTRY_READ.0 | Rights::REGISTRY_WRITE.0)),
];
const NAMED_RIGHTS: [(Rights, &str); 4] = [
    (Rights::REGISTRY_READ, "RegistryRead"),
    (Rights::REGISTRY_WRITE, "RegistryWrite"),
    (Rights::SERVICE_CONNECT, "ServiceConnect"),
    (Rights::DEVICE_CONNECT, "DeviceConnect"),
];
/// Policies of one hub, the built-in ones included.
const POLICIES_MAX: usize = 100;
/// As long as IoT Hub's may be.
const NAME_BYTES_MAX: usize = 64;

#[derive(Serialize, Deserialize)]
enum StoredPolicies {
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
            Policies::decode(&postcard::to_stdvec(&StoredPolicies::V1(Vec::new())).unwrap()),
            Err(PoliciesError::Damaged)
        );
    }

    #[test]
    fn policies_are_added_renewed_and_removed_but_built_in_ones_stay() {
        let mut policies = Policies::generate();
        let rights = Rights::parse_names(["registryread", "ServiceConnect"]).unwrap();
        let own = Policy::new("my.Policy_1-a", rights, None, None).unwrap();
        policies.insert(own.clone()).unwrap();
        let taken = Policy::new("MY.policy_1-a", Rights::ALL, None, None).unwrap();
        assert!(matches!(policies.insert(taken), Err(PoliciesError::AlreadyExists(_))));
        assert_eq!(Policies::decode(&policies.encode()).unwrap(), policies);

        let keys = |policies: &Policies| policies.find(&own.name).unwrap().keys.clone();
        policies.renew_keys(&own.name, Renewal::Swap).unwrap();
        assert_eq!(keys(&policies).primary, own.keys.secondary);
        assert_eq!(keys(&policies).secondary, own.keys.primary);
        policies.renew_keys(&own.name, Renewal::Primary).unwrap();
        assert!(
            keys(&policies).primary != own.keys.secondary && keys(&policies).secondary == own.keys.primary
        );
        policies.renew_keys(&own.name, Renewal::Both).unwrap();
        assert_ne!(keys(&policies).secondary, own.keys.primary);

        policies.remove(&own.name).unwrap();
        assert!(matches!(policies.remove(&own.name), Err(PoliciesError::Unknown(_))));
        for (name, _) in BUILT_IN {
            assert!(matches!(policies.remove(name), Err(PoliciesError::BuiltIn(_))), "{name}");
        }
        for number in BUILT_IN.len()..POLICIES_MAX {
            policies.insert(Policy::new(&format!("p{number}"), Rights::ALL, None, None).unwrap()).unwrap();
        }
        let one_more = Policy::new("one-more", Rights::ALL, None, None).unwrap();
        assert_eq!(policies.insert(one_more), Err(PoliciesError::TooMany));
    }

    #[test]
    fn policies_of_odd_names_or_rights_are_refused() {
        for name in ["", "a b", "a/b", "ä", "a&skn=b", &"a".repeat(65)] {
            assert_eq!(Policy::new(name, Rights::ALL, None, None), Err(InvalidPolicy::Name), "{name}");
        }
        assert_eq!(Rights::parse_names([]), Err(InvalidPolicy::NoRights));
        assert_eq!(Rights::parse_names(["RegistryRead", "Root"]), Err(InvalidPolicy::Right("Root".into())));
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
