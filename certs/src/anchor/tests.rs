use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};

use super::*;
use crate::testing::{TestCa, set_time};

#[test]
fn t412_what_is_no_ca_certificate_is_refused() {
    let ca = TestCa::root("fleet");
    assert!(Anchor::parse_pem(ca.pem().as_bytes()).is_ok());
    let leaf = ca.device("d1");
    let refused = |text: &str| Anchor::parse_pem(text.as_bytes()).unwrap_err();
    assert_eq!(refused(&leaf.certificate_pem), InvalidAnchor::NotCa("CN=d1".into()));
    let with_key = format!("{}{}", ca.pem(), ca.authority().key().to_pem());
    assert_eq!(refused(&with_key), InvalidAnchor::Pem(PemError::KeyAmongCertificates));
    assert_eq!(refused(&ca.pem().repeat(100)), InvalidAnchor::NotAlone(100));
    assert_eq!(refused(&"x".repeat(1 << 20)), InvalidAnchor::Pem(PemError::NoCertificate));
    assert!(matches!(Anchor::parse(vec![0x30; 17 * 1024].into()), Err(InvalidAnchor::TooLarge(_))));
    assert_eq!(Anchor::parse(vec![0x30, 0x80].into()).unwrap_err(), InvalidAnchor::Unreadable);
    let mute = TestCa::root_with("mute", |params| {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    assert_eq!(refused(mute.pem()), InvalidAnchor::MayNotSign("CN=mute".into()));
    let old = TestCa::root_with("old", |params| params.is_ca = IsCa::NoCa);
    assert!(matches!(refused(old.pem()), InvalidAnchor::NotCa(_)));
}

#[test]
fn an_intermediate_may_be_the_anchor_and_keeps_its_path_length() {
    let root = TestCa::root("root");
    let middle = root.intermediate_with("middle", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    let anchor = Anchor::parse_pem(middle.pem().as_bytes()).unwrap();
    assert_eq!((anchor.subject(), anchor.path_len_max()), ("CN=middle", Some(0)));
    assert_eq!(anchor.trust(), anchor.trust);
}

#[test]
fn its_time_is_known() {
    let ended = TestCa::root_with("ended", |params| set_time(params, -7_200, -3_600));
    let anchor = Anchor::parse_pem(ended.pem().as_bytes()).unwrap();
    assert!(matches!(anchor.check_time(UnixTime::now()), Err(OutOfTime::Expired(_))));
}

#[test]
fn t412_a_proof_of_another_issuer_or_of_many_certificates_is_none() {
    let (ca, other) = (TestCa::root("fleet"), TestCa::root("other"));
    let anchor = Anchor::parse_pem(ca.pem().as_bytes()).unwrap();
    let now = UnixTime::now();
    let good = ca.device("CODE").certificate_pem;
    assert_eq!(anchor.check_proof(good.as_bytes(), "CODE", now), Ok(()));
    let foreign = other.device("CODE").certificate_pem;
    assert_eq!(
        anchor.check_proof(foreign.as_bytes(), "CODE", now),
        Err(NoProof::OtherIssuer { seen: "CN=other".into(), wanted: "CN=fleet".into() })
    );
    let two = good.repeat(2);
    assert_eq!(anchor.check_proof(two.as_bytes(), "CODE", now), Err(NoProof::NotAlone(2)));
    let namesake = TestCa::root("fleet").device("CODE").certificate_pem;
    assert_eq!(
        anchor.check_proof(namesake.as_bytes(), "CODE", now),
        Err(NoProof::BadSignature("CN=fleet".into()))
    );
}
