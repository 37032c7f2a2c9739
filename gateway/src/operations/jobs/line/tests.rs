use jiff::Timestamp;
use portcullis_registry::access::Access;
use portcullis_registry::credential::{KeyPair, SymmetricKey, Thumbprint, ThumbprintPair};
use portcullis_registry::id::{DeviceId, GenerationId, IdentityId, ModuleId, Revision};
use portcullis_registry::identity::{Authentication, Identity, Status};
use portcullis_registry::queue_max::QueueMax;
use proptest::prelude::*;
use proptest::{collection, option};

use super::*;
use crate::iothub::identity_json::{Form, write_line};

fn key() -> impl Strategy<Value = SymmetricKey> {
    collection::vec(any::<u8>(), 16..=64).prop_map(|bytes| SymmetricKey::from_bytes(bytes).unwrap())
}

fn thumbprint() -> impl Strategy<Value = Thumbprint> {
    "[0-9a-fA-F]{39}[1-9]|[0-9A-F]{63}[1-9]".prop_map(|text| Thumbprint::parse(&text).unwrap())
}

fn authentication() -> impl Strategy<Value = Authentication> {
    prop_oneof![
        (key(), key()).prop_map(|(primary, secondary)| Authentication::Sas(KeyPair { primary, secondary })),
        (thumbprint(), option::of(thumbprint())).prop_map(|(one, other)| {
            Authentication::SelfSigned(ThumbprintPair { primary: Some(one), secondary: other })
        }),
        thumbprint().prop_map(|own| {
            Authentication::SelfSigned(ThumbprintPair { primary: None, secondary: Some(own) })
        }),
        Just(Authentication::CertificateAuthority),
        Just(Authentication::None),
    ]
}

prop_compose! {
    fn identity()(
        device in "[A-Za-z0-9\\-:.%_*?!(),=@;$']{3,20}",
        module in option::of("[A-Za-z0-9\\-:.%_*?!(),=@;$']{3,20}"),
        numbers in (any::<u64>(), any::<u64>()),
        disabled in any::<bool>(),
        reason in option::of("[^\u{0}]{0,128}"),
        authentication in authentication(),
        iot_edge in any::<bool>(),
        managed_by in option::of(".{0,20}"),
        access in option::of(collection::vec("telemetry|c2d|twin|methods:[a-z]{1,5}\\*?", 0..4)),
        queue_max in option::of(1_u64..10_000),
    ) -> Identity {
        let id = IdentityId {
            device: DeviceId::parse(&device).unwrap(),
            module: module.map(|module| ModuleId::parse(&module).unwrap()),
        };
        let is_module = id.module.is_some();
        Identity {
            id,
            generation: GenerationId::new(numbers.0),
            revision: Revision::new(numbers.1),
            status: if disabled && !is_module { Status::Disabled } else { Status::Enabled },
            status_reason: reason.filter(|_| !is_module),
            status_updated: None,
            authentication,
            iot_edge,
            managed_by: managed_by.map(Into::into),
            access: access.map_or(Access::EVERYTHING, |words| Access::parse(&words).unwrap()),
            queue_max: queue_max.and_then(QueueMax::new),
        }
    }
}

fn line(identity: &Identity, form: Form) -> String {
    let mut line = Vec::new();
    write_line(identity, form, &mut line);
    String::from_utf8(line).unwrap()
}

/// What a line makes of `stored`.
fn read(line: &str, stored: Option<&Identity>) -> Identity {
    let asked = parse(line).unwrap();
    assert!(!asked.has_twin);
    match asked.change {
        IdentityChange::CreateOrUpdate(spec, _) => spec.preview(stored, Timestamp::UNIX_EPOCH),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn what_is_exported_comes_back_as_it_was(identity in identity(), other in identity()) {
        let exported = line(&identity, Form::Export { with_keys: true });
        prop_assert_eq!(exported.lines().count(), 1);
        prop_assert!(read(&exported, None).is_like(&identity), "{}", exported);
        let exact = line(&identity, Form::Exact);
        prop_assert!(read(&exact, None).is_like(&identity), "{}", exact);
        // An exact line asks for exactly this, whatever is there.
        let other = Identity { id: identity.id.clone(), ..other };
        prop_assert!(read(&exact, Some(&other)).is_like(&identity), "{}", exact);
        prop_assert_eq!(exact == line(&other, Form::Exact), identity.is_like(&other));
    }

    #[test]
    fn t811_no_key_is_in_an_export_without_keys(identity in identity()) {
        let exported = line(&identity, Form::Export { with_keys: false });
        let parsed: serde_json::Value = serde_json::from_str(&exported).unwrap();
        prop_assert_eq!(
            &parsed["authentication"]["symmetricKey"],
            &serde_json::json!({ "primaryKey": null, "secondaryKey": null })
        );
        // On an identity that is there it changes no key.
        prop_assert!(read(&exported, Some(&identity)).is_like(&identity), "{}", exported);
    }
}

#[test]
fn a_line_is_iot_hubs_to_the_letter() {
    let key = |byte: u8| SymmetricKey::from_bytes(vec![byte; 16]).unwrap();
    let device = Identity {
        id: IdentityId::device(DeviceId::parse("pump-7").unwrap()),
        generation: GenerationId::new(1),
        revision: Revision::new(7),
        status: Status::Enabled,
        status_reason: None,
        status_updated: None,
        authentication: Authentication::Sas(KeyPair { primary: key(0), secondary: key(1) }),
        iot_edge: false,
        managed_by: None,
        access: Access::EVERYTHING,
        queue_max: None,
    };
    let twin = r#""twinETag":"AAAAAAAAAAE=","tags":{},"properties":{"desired":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00"},"$version":1},"reported":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00"},"$version":1}}}"#;
    assert_eq!(
        line(&device, Form::Export { with_keys: true }),
        format!(
            r#"{{"id":"pump-7","eTag":"AAAAAAAAAAc=","status":"enabled","authentication":{{"symmetricKey":{{"primaryKey":"AAAAAAAAAAAAAAAAAAAAAA==","secondaryKey":"AQEBAQEBAQEBAQEBAQEBAQ=="}},"x509Thumbprint":{{"primaryThumbprint":null,"secondaryThumbprint":null}},"type":"sas"}},"capabilities":{{"iotEdge":false}},{twin}
"#
        )
    );
    let module = Identity {
        id: IdentityId::module(device.id.device.clone(), ModuleId::parse("m").unwrap()),
        authentication: Authentication::CertificateAuthority,
        managed_by: Some("me".into()),
        access: Access::parse(["telemetry"]).unwrap(),
        queue_max: QueueMax::new(5),
        ..device
    };
    assert_eq!(
        line(&module, Form::Export { with_keys: false }),
        format!(
            r#"{{"id":"pump-7","moduleId":"m","eTag":"AAAAAAAAAAc=","status":"enabled","authentication":{{"symmetricKey":{{"primaryKey":null,"secondaryKey":null}},"x509Thumbprint":{{"primaryThumbprint":null,"secondaryThumbprint":null}},"type":"certificateAuthority"}},"managedBy":"me","access":{{"allow":["telemetry"]}},"queueMessagesMax":5,{twin}
"#
        )
    );
}

#[test]
fn t808_what_is_no_identity_is_refused_in_iot_hubs_numbers() {
    for (text, code, device) in [
        ("{", 400_012, ""),
        ("[]", 400_012, ""),
        (r#"{"id":"a","id":"b"}"#, 400_012, ""),
        ("{}", 400_005, ""),
        (r#"{"id":"a+b"}"#, 400_004, "a+b"),
        (r#"{"id":"a","importMode":"upsert"}"#, 400_004, "a"),
        (r#"{"id":"a","importMode":"updateIfMatchETag"}"#, 400_005, "a"),
        (r#"{"id":"a","status":"asleep"}"#, 400_004, "a"),
    ] {
        let (about, refusal) = parse(text).unwrap_err();
        assert_eq!((refusal.code, about.device.as_str()), (code, device), "{text}");
    }
}

#[test]
fn only_a_twin_somebody_has_written_to_is_told_as_lost() {
    let twin = |json: &str| parse(&format!(r#"{{"id":"a",{json}}}"#)).unwrap().has_twin;
    assert!(!twin(
        r#""tags":{},"properties":{"desired":{"$metadata":{"x":1},"$version":3},"reported":{"a":1}}"#
    ));
    assert!(twin(r#""tags":{"room":7}"#));
    assert!(twin(r#""properties":{"desired":{"$version":3,"rate":10}}"#));
}
