use std::sync::Arc;

use portcullis_registry::authority::Authorities;
use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::id::{DeviceId, ModuleId, Precondition};
use portcullis_registry::identity::{AuthenticationSpec, IdentitySpec};
use portcullis_registry::sas::sign;
use portcullis_registry::store::RegistryLimits;
use tempfile::TempDir;

use super::*;

/// The service that has proven to hold a policy's primary key.
pub(crate) fn service_of(policies: &Policies, name: &str, origin: Origin) -> VerifiedService {
    let policy = policies.find(name).unwrap();
    let (rights, key) = (policy.rights, policy.keys.primary.clone());
    VerifiedService { policy: name.to_owned(), rights, key, expires: None, origin }
}

/// A hub's registry and policies, with devices `d1`, `d10`, `D1`, `off` (disabled), `x509`, and modules of `d1` and `off`.
struct World {
    registry: Arc<Registry>,
    policies: Policies,
    trust: TrustStore,
    hosts: HostNames,
    sas: SasSwitches,
    decoy: SymmetricKey,
    _directory: TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let limits = RegistryLimits::default();
        let registry =
            Registry::open(Box::new(SqliteBackend::open(directory.path()).unwrap()), limits).unwrap();
        for id in ["d1", "d10", "D1", "off", "d1/m", "d1/m2", "off/m"] {
            registry.create(IdentitySpec::sas_device(identity(id)), now()).await.unwrap();
        }
        let x509 = IdentitySpec {
            authentication: AuthenticationSpec::CertificateAuthority,
            ..IdentitySpec::sas_device(identity("x509"))
        };
        registry.create(x509, now()).await.unwrap();
        let off = IdentitySpec { status: Status::Disabled, ..IdentitySpec::sas_device(identity("off")) };
        registry.replace(off, Precondition::AnyVersion, now()).await.unwrap();
        Self {
            registry,
            policies: Policies::generate(),
            trust: TrustStore::new(Trust::new(Authorities::default()).unwrap()),
            sas: SasSwitches { devices: true, modules: true },
            hosts: HostNames::new(vec!["hub.example.test".into()], vec![8883]),
            decoy: SymmetricKey::generate(),
            _directory: directory,
        }
    }

    fn authenticator(&self) -> Authenticator<'_> {
        Authenticator {
            registry: &self.registry,
            policies: &self.policies,
            trust: &self.trust,
            hosts: &self.hosts,
            sas: self.sas,
            decoy: &self.decoy,
            leeway: Duration::ZERO,
        }
    }

    fn keys(&self, id: &str) -> portcullis_registry::credential::KeyPair {
        let entry = self.registry.entry(&identity(id)).unwrap();
        let Authentication::Sas(keys) = &entry.identity().authentication else { panic!("{id} has no keys") };
        keys.clone()
    }

    fn verify(&self, id: &str, token: &str) -> Result<VerifiedIdentity, AuthError> {
        self.authenticator().verify(
            &identity(id),
            Evidence { password: Some(token), certificates: None },
            now(),
        )
    }

    /// A token for `resource` signed with the primary key of `id`.
    fn token(&self, resource: &str, id: &str) -> String {
        sign(resource, &self.keys(id).primary, IN_AN_HOUR, None)
    }

    fn policy_token(&self, resource: &str, policy: &str) -> String {
        sign(resource, &self.policies.find(policy).unwrap().keys.primary, IN_AN_HOUR, Some(policy))
    }
}

fn identity(text: &str) -> IdentityId {
    match text.split_once('/') {
        None => IdentityId::device(DeviceId::parse(text).unwrap()),
        Some((device, module)) => {
            IdentityId::module(DeviceId::parse(device).unwrap(), ModuleId::parse(module).unwrap())
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_893_456_000).unwrap()
}

const IN_AN_HOUR: i64 = 1_893_456_000 + 3600;

#[tokio::test]
async fn either_key_opens_its_own_identity() {
    let world = World::new().await;
    for (id, resource) in
        [("d1", "hub.example.test/devices/d1"), ("d1/m", "hub.example.test/devices/d1/modules/m")]
    {
        let keys = world.keys(id);
        for key in [keys.primary, keys.secondary] {
            let verified = world.verify(id, &sign(resource, &key, IN_AN_HOUR, None)).unwrap();
            assert_eq!(
                (verified.id(), verified.expires()),
                (&identity(id), Timestamp::from_second(IN_AN_HOUR).ok())
            );
        }
    }
}

#[tokio::test]
async fn t306_another_hubs_token_is_refused_and_letter_case_is_not() {
    let world = World::new().await;
    assert!(world.verify("d1", &world.token("HUB.Example.Test/devices/d1", "d1")).is_ok());
    for host in ["other.example.test", "hub.example.test.", "hub.example.test:443", "https:"] {
        let refused = world.verify("d1", &world.token(&format!("{host}/devices/d1"), "d1")).unwrap_err();
        assert_eq!(refused.outcome().label(), "hub_unknown", "{host}");
    }
}

#[tokio::test]
async fn t311_a_token_of_one_device_opens_no_other() {
    let world = World::new().await;
    for other in ["d10", "D1", "d1/m"] {
        let refused = world.verify(other, &world.token("hub.example.test/devices/d1", "d1")).unwrap_err();
        assert_eq!(refused.outcome().label(), "sas_wrong_audience", "{other}");
        // Nor with the other's path, signed with the own key.
        let path = match other.split_once('/') {
            None => format!("hub.example.test/devices/{other}"),
            Some((device, module)) => format!("hub.example.test/devices/{device}/modules/{module}"),
        };
        let refused = world.verify(other, &world.token(&path, "d1")).unwrap_err();
        assert_eq!(refused, AuthError::Token(SasError::SignatureMismatch), "{other}");
    }
}

#[tokio::test]
async fn t312_modules_and_their_device_do_not_stand_in_for_each_other() {
    let world = World::new().await;
    let of_module = world.token("hub.example.test/devices/d1/modules/m", "d1/m");
    for other in ["d1", "d1/m2"] {
        assert_eq!(
            world.verify(other, &of_module).unwrap_err().outcome().label(),
            "sas_wrong_audience",
            "{other}"
        );
    }
    let tail = world.token("hub.example.test/devices/d1/api-version=2016-11-14", "d1");
    assert!(world.verify("d1", &tail).is_ok());
    assert!(world.verify("d10", &tail).is_err());
}

#[tokio::test]
async fn t313_only_device_connect_lets_a_policy_token_connect_as_a_device() {
    let world = World::new().await;
    for (policy, good) in [
        ("iothubowner", true),
        ("device", true),
        ("service", false),
        ("registryRead", false),
        ("registryReadWrite", false),
    ] {
        let outcome = world.verify("d1", &world.policy_token("hub.example.test/devices/d1", policy));
        assert_eq!(outcome.is_ok(), good, "{policy}");
    }
}

#[tokio::test]
async fn t314_a_policy_token_covers_whole_segments() {
    let world = World::new().await;
    for (resource, opens) in [
        ("hub.example.test", &["d1", "d10", "d1/m"][..]),
        ("hub.example.test/devices", &["d1", "d10", "d1/m"]),
        ("hub.example.test/devices/d1", &["d1", "d1/m"]),
        ("hub.example.test/devices/d1/modules/m", &["d1/m"]),
        ("hub.example.test/devices/d", &[]),
        ("hub.example.test/device", &[]),
    ] {
        for id in ["d1", "d10", "d1/m"] {
            let outcome = world.verify(id, &world.policy_token(resource, "device"));
            assert_eq!(outcome.is_ok(), opens.contains(&id), "{resource} for {id}");
        }
    }
}

#[tokio::test]
async fn t307_unknown_policies_are_refused() {
    let world = World::new().await;
    let key = SymmetricKey::generate();
    let refused =
        world.verify("d1", &sign("hub.example.test", &key, IN_AN_HOUR, Some("nobody"))).unwrap_err();
    assert_eq!(refused, AuthError::UnknownPolicy("nobody".into()));
    let refused =
        world.verify("d1", &sign("hub.example.test", &key, IN_AN_HOUR, Some("device"))).unwrap_err();
    assert_eq!(refused, AuthError::Token(SasError::SignatureMismatch));
}

#[tokio::test]
async fn t316_a_token_that_ended_a_second_ago_is_refused_with_its_age() {
    let world = World::new().await;
    let key = world.keys("d1").primary;
    let refused =
        world.verify("d1", &sign("hub.example.test/devices/d1", &key, IN_AN_HOUR - 3601, None)).unwrap_err();
    assert_eq!(refused, AuthError::Token(SasError::Expired { since_seconds: 1 }));
    let far = sign("hub.example.test/devices/d1", &key, 253_402_300_799, None);
    assert!(world.verify("d1", &far).is_ok());
    let beyond = sign("hub.example.test/devices/d1", &key, i64::MAX, None);
    assert_eq!(world.verify("d1", &beyond).unwrap().expires(), None);
}

#[tokio::test]
async fn t319_a_token_for_an_x509_identity_is_refused() {
    let world = World::new().await;
    let token = sign("hub.example.test/devices/x509", &SymmetricKey::generate(), IN_AN_HOUR, None);
    let refused = world.verify("x509", &token).unwrap_err();
    assert_eq!(
        refused,
        AuthError::WrongMethod { id: identity("x509"), registered: "X.509 CA", presented: "SAS token" }
    );
}

#[tokio::test]
async fn t320_the_operator_hears_which_check_failed() {
    let world = World::new().await;
    let good = world.token("hub.example.test/devices/d1", "d1");
    let unknown = world.verify("nobody", &good).unwrap_err();
    assert_eq!(unknown.to_string(), "the registry has no identity nobody");
    let off = world.verify("off", &world.token("hub.example.test/devices/off", "off")).unwrap_err();
    assert_eq!(off.to_string(), "identity off is disabled");
    let nothing = world.authenticator().verify(&identity("d1"), Evidence::default(), now()).unwrap_err();
    assert_eq!(nothing.outcome().label(), "no_credential");
    assert_eq!(world.verify("d1", "password").unwrap_err(), AuthError::Token(SasError::NotAToken));
}

#[tokio::test]
async fn t614_a_disabled_device_stops_its_modules() {
    let world = World::new().await;
    let refused =
        world.verify("off/m", &world.token("hub.example.test/devices/off/modules/m", "off/m")).unwrap_err();
    assert_eq!(refused, AuthError::ParentDisabled(DeviceId::parse("off").unwrap()));
}

#[tokio::test]
async fn t604_a_verdict_ends_with_what_it_rests_on() {
    let world = World::new().await;
    let registry = &world.registry;
    let own = world.verify("d1", &world.token("hub.example.test/devices/d1", "d1")).unwrap();
    let by_policy = world.verify("d1", &world.policy_token("hub.example.test", "device")).unwrap();
    let of_module =
        world.verify("d1/m", &world.token("hub.example.test/devices/d1/modules/m", "d1/m")).unwrap();
    let with = |primary: &SymmetricKey, secondary: &SymmetricKey, status| IdentitySpec {
        status,
        authentication: AuthenticationSpec::Sas {
            primary: Some(primary.clone()),
            secondary: Some(secondary.clone()),
        },
        ..IdentitySpec::sas_device(identity("d1"))
    };
    let keys = world.keys("d1");
    let trust = world.trust.current();
    let replace = |spec| registry.replace(spec, Precondition::AnyVersion, now());

    // T613: swapped keys change nothing.
    replace(with(&keys.secondary, &keys.primary, Status::Enabled)).await.unwrap();
    assert_eq!(own.still_holds(&world.policies, &trust), Ok(()));

    replace(with(&keys.primary, &keys.secondary, Status::Disabled)).await.unwrap();
    for verdict in [&own, &by_policy, &of_module] {
        assert_eq!(verdict.still_holds(&world.policies, &trust), Err(Revoked::Disabled));
    }

    let other = SymmetricKey::generate();
    replace(with(&other, &keys.secondary, Status::Enabled)).await.unwrap();
    assert_eq!(own.still_holds(&world.policies, &trust), Err(Revoked::CredentialChanged));
    assert_eq!(by_policy.still_holds(&world.policies, &trust), Ok(()));
    assert_eq!(by_policy.still_holds(&Policies::generate(), &trust), Err(Revoked::CredentialChanged));

    // Made anew with the same keys: still another generation.
    registry.delete(&identity("d1"), Precondition::Absent).await.unwrap();
    registry.create(with(&keys.primary, &keys.secondary, Status::Enabled), now()).await.unwrap();
    for verdict in [&own, &by_policy, &of_module] {
        assert_eq!(verdict.still_holds(&world.policies, &trust), Err(Revoked::Deleted));
    }
}

#[tokio::test]
async fn t604_a_verdict_ends_when_the_access_is_narrowed_and_not_when_it_is_widened() {
    let world = World::new().await;
    let trust = world.trust.current();
    let allow = async |id: &str, words: Option<&[&str]>| {
        let access = words.map_or(Access::EVERYTHING, |words| Access::parse(words).unwrap());
        let spec = IdentitySpec { access: Some(access), ..IdentitySpec::sas_device(identity(id)) };
        world.registry.replace(spec, Precondition::AnyVersion, now()).await.unwrap();
    };
    let own = || world.verify("d1", &world.token("hub.example.test/devices/d1", "d1")).unwrap();
    let by_policy = || world.verify("d1", &world.policy_token("hub.example.test", "device")).unwrap();
    let of_module =
        world.verify("d1/m", &world.token("hub.example.test/devices/d1/modules/m", "d1/m")).unwrap();
    for verdict in [own(), by_policy()] {
        allow("d1", Some(&["telemetry", "methods:diag*"])).await;
        assert_eq!(verdict.still_holds(&world.policies, &trust), Err(Revoked::AccessNarrowed));
        // A module's access is its own.
        assert_eq!(of_module.still_holds(&world.policies, &trust), Ok(()));
        allow("d1", None).await;
        assert_eq!(verdict.still_holds(&world.policies, &trust), Ok(()));
    }
    allow("d1", Some(&["telemetry", "methods:diag*"])).await;
    let narrow = own();
    assert!(narrow.check(Right::Telemetry).is_ok() && narrow.check(Right::C2d).is_err());
    for (words, holds) in [
        (None, true),
        (Some(&["telemetry", "methods:*"][..]), true),
        (Some(&["telemetry", "methods:diagnose"]), false),
        (Some(&["methods:diag*", "c2d", "twin"]), false),
    ] {
        allow("d1", words).await;
        assert_eq!(narrow.still_holds(&world.policies, &trust).is_ok(), holds, "{words:?}");
    }
}

#[tokio::test]
async fn a_service_token_is_of_a_policy_and_for_the_whole_hub() {
    let world = World::new().await;
    let verify = |token: &str, claimed| world.authenticator().verify_service(token, claimed, ORIGIN, now());
    let token = world.policy_token("hub.example.test", "service");
    assert_eq!(verify(&token, None).unwrap().policy(), "service");
    assert!(verify(&token, Some("service")).is_ok());
    assert!(verify(&token, Some("iothubowner")).is_err());
    assert!(verify(&token, None).unwrap().check(Rights::REGISTRY_READ).is_err());
    assert!(verify(&world.policy_token("hub.example.test/devices/d1", "iothubowner"), None).is_err());
    assert_eq!(
        verify(&world.token("hub.example.test/devices/d1", "d1"), None).unwrap_err(),
        AuthError::PolicyMissing
    );
}

const ORIGIN: Origin = Origin { face: Face::Rest, peer: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };
