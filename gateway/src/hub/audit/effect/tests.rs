use jiff::Timestamp;
use portcullis_registry::access::Access;
use portcullis_registry::credential::{SymmetricKey, ThumbprintPair};
use portcullis_registry::id::{DeviceId, GenerationId, IdentityId, Revision};
use portcullis_registry::policy::{Policies, Renewal, Rights};

use super::*;

fn plain() -> Identity {
    Identity {
        id: IdentityId::device(DeviceId::parse("d1").unwrap()),
        generation: GenerationId::new(1),
        revision: Revision::new(1),
        status: Status::Enabled,
        status_reason: None,
        status_updated: None,
        authentication: sas(1, 2),
        iot_edge: false,
        managed_by: None,
        access: Access::EVERYTHING,
        queue_max: None,
    }
}

fn key(byte: u8) -> SymmetricKey {
    SymmetricKey::from_bytes(vec![byte; 32]).unwrap()
}

fn sas(primary: u8, secondary: u8) -> Authentication {
    Authentication::Sas(KeyPair { primary: key(primary), secondary: key(secondary) })
}

fn self_signed(primary: &str, secondary: Option<&str>) -> Authentication {
    let thumbprint = |digits: &str| Thumbprint::parse(&digits.repeat(40)).unwrap();
    Authentication::SelfSigned(ThumbprintPair {
        primary: Some(thumbprint(primary)),
        secondary: secondary.map(thumbprint),
    })
}

/// The changes as a line has them.
fn told(before: Option<&Identity>, after: Option<&Identity>) -> Value {
    serde_json::to_value(ChangesOut(&Effect::of_identity(before, after).changes)).unwrap()
}

#[test]
fn every_field_that_changes_is_told_by_name_with_both_values() {
    type Edit = fn(&mut Identity);
    let cases: [(Edit, Value); 8] = [
        (
            |identity| identity.status = Status::Disabled,
            json!({"status": {"before": "enabled", "after": "disabled"}}),
        ),
        (
            |identity| identity.status_reason = Some("lost".into()),
            json!({"statusReason": {"before": null, "after": "lost"}}),
        ),
        (|identity| identity.iot_edge = true, json!({"iotEdge": {"before": false, "after": true}})),
        (
            |identity| identity.managed_by = Some("me".into()),
            json!({"managedBy": {"before": null, "after": "me"}}),
        ),
        (
            |identity| identity.access = Access::parse(["c2d", "methods:a*"]).unwrap(),
            json!({"access": {"before": "everything", "after": "c2d, methods:a*"}}),
        ),
        (
            |identity| identity.queue_max = QueueMax::new(7),
            json!({"queueMessagesMax": {"before": null, "after": 7}}),
        ),
        (
            |identity| identity.authentication = Authentication::CertificateAuthority,
            json!({"authentication": {"before": "sas", "after": "certificateAuthority"}}),
        ),
        (
            |identity| identity.authentication = self_signed("a", Some("b")),
            json!({
                "authentication": {"before": "sas", "after": "selfSigned"},
                "primaryThumbprint": {"before": null, "after": "A".repeat(40)},
                "secondaryThumbprint": {"before": null, "after": "B".repeat(40)},
            }),
        ),
    ];
    for (change, expected) in cases {
        let mut after = plain();
        change(&mut after);
        assert_eq!(told(Some(&plain()), Some(&after)), expected);
        // And back: each value where the other was.
        let back = told(Some(&after), Some(&plain()));
        for (field, change) in expected.as_object().unwrap() {
            assert_eq!(back[field], json!({"before": change["after"], "after": change["before"]}), "{field}");
        }
    }
}

#[test]
fn a_thumbprint_that_goes_or_is_replaced_is_told_of_alone() {
    let with = |authentication| Identity { authentication, ..plain() };
    let both = with(self_signed("a", Some("b")));
    let expected = json!({"secondaryThumbprint": {"before": "B".repeat(40), "after": null}});
    assert_eq!(told(Some(&both), Some(&with(self_signed("a", None)))), expected);
    let expected = json!({"primaryThumbprint": {"before": "A".repeat(40), "after": "C".repeat(40)}});
    assert_eq!(told(Some(&both), Some(&with(self_signed("c", Some("b"))))), expected);
}

#[test]
fn p12_a_key_is_told_of_as_changed_and_never_shown() {
    let with = |primary, secondary| Identity { authentication: sas(primary, secondary), ..plain() };
    for (after, expected) in [
        (with(3, 2), json!({"primaryKey": "changed"})),
        (with(1, 3), json!({"secondaryKey": "changed"})),
        (with(2, 1), json!({"primaryKey": "changed", "secondaryKey": "changed"})),
        (with(1, 2), json!({})),
    ] {
        let effect = Effect::of_identity(Some(&plain()), Some(&after));
        assert_eq!(serde_json::to_value(ChangesOut(&effect.changes)).unwrap(), expected);
        let line = format!("{} {effect:?}", serde_json::to_string(&ChangesOut(&effect.changes)).unwrap());
        for byte in 1..=3 {
            assert!(!line.contains(key(byte).to_base64().as_str()), "{line}");
        }
    }
}

#[test]
fn what_nobody_can_ask_for_is_no_change() {
    let after = Identity {
        generation: GenerationId::new(2),
        revision: Revision::new(2),
        status_updated: Some(Timestamp::UNIX_EPOCH),
        ..plain()
    };
    let effect = Effect::of_identity(Some(&plain()), Some(&after));
    assert_eq!(effect.changes, []);
    assert_eq!(effect.etag_before, Some(plain().etag()));
    assert_eq!(effect.etag_after, Some(after.etag()));
}

#[test]
fn of_a_new_identity_is_told_what_is_not_as_with_any_other() {
    assert_eq!(told(None, Some(&plain())), json!({"authentication": {"before": null, "after": "sas"}}));
    let special = Identity {
        status: Status::Disabled,
        status_reason: Some("spare".into()),
        authentication: self_signed("a", None),
        iot_edge: true,
        managed_by: Some("me".into()),
        access: Access::parse([""; 0]).unwrap(),
        queue_max: QueueMax::new(7),
        ..plain()
    };
    let expected = json!({
        "status": {"before": null, "after": "disabled"},
        "statusReason": {"before": null, "after": "spare"},
        "authentication": {"before": null, "after": "selfSigned"},
        "primaryThumbprint": {"before": null, "after": "A".repeat(40)},
        "iotEdge": {"before": null, "after": true},
        "managedBy": {"before": null, "after": "me"},
        "access": {"before": null, "after": "nothing"},
        "queueMessagesMax": {"before": null, "after": 7},
    });
    assert_eq!(told(None, Some(&special)), expected);
    assert_eq!(told(Some(&special), None), json!({}));
}

#[test]
fn of_a_policy_are_told_its_rights_and_which_key_is_another() {
    let mut policies = Policies::generate();
    policies.insert(Policy::new("ops", Rights::REGISTRY_READ, None, None).unwrap()).unwrap();
    let before = policies.find("ops").unwrap().clone();
    let told =
        |before, after| serde_json::to_value(ChangesOut(&Effect::of_policy(before, after).changes)).unwrap();
    assert_eq!(told(None, Some(&before)), json!({"rights": {"before": null, "after": ["RegistryRead"]}}));
    policies.renew_keys("ops", Renewal::Secondary).unwrap();
    let after = policies.find("ops").unwrap();
    assert_eq!(told(Some(&before), Some(after)), json!({"secondaryKey": "changed"}));
    assert_eq!(told(Some(&before), None), json!({}));
}
