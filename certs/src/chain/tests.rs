use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyUsagePurpose, NameConstraints, SanType,
};
use rustls_pki_types::UnixTime;

use super::*;
use crate::testing::{TestCa, set_time};

const DAY: i64 = 24 * 60 * 60;

fn anchor(ca: &TestCa) -> Anchor {
    Anchor::parse_pem(ca.pem().as_bytes()).unwrap()
}

/// The verdict on a leaf with others, against roots.
fn judge(
    leaf: &CertificateDer<'_>,
    others: &[&CertificateDer<'static>],
    roots: &[&TestCa],
) -> Result<Vec<String>, ChainError> {
    let others: Vec<_> = others.iter().copied().cloned().collect();
    let anchors: Vec<_> = roots.iter().map(|root| anchor(root)).collect();
    let chain = PresentedChain::parse(leaf, &others).unwrap();
    let verified = verify(&chain, &anchors.iter().collect::<Vec<_>>(), UnixTime::now())?;
    Ok(vec![verified.anchor.subject().to_owned()])
}

fn refused(leaf: &CertificateDer<'_>, others: &[&CertificateDer<'static>], roots: &[&TestCa]) -> String {
    judge(leaf, others, roots).unwrap_err().to_string()
}

#[test]
fn t406_a_device_of_an_enrolled_ca_is_let_in() {
    let (one, other) = (TestCa::root("one"), TestCa::root("other"));
    let device = one.device("d1");
    assert_eq!(judge(&device.certificate, &[], &[&other, &one]).unwrap(), ["CN=one"]);
    // The root may come along, though nobody needs it.
    assert!(judge(&device.certificate, &[one.certificate()], &[&one]).is_ok());
}

#[test]
fn t406_exactly_one_common_name_is_compared_byte_for_byte() {
    let ca = TestCa::root("ca");
    let name = |change: &dyn Fn(&mut CertificateParams)| {
        let device = ca.device_with("d1", |params| change(params));
        let chain = PresentedChain::parse(&device.certificate, &[]).unwrap();
        chain.common_name().map(str::to_owned)
    };
    assert_eq!(name(&|_| {}), Ok("d1".into()));
    let named = |value: DnValue| {
        name(&move |params| {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, value.clone());
        })
    };
    for odd in ["D1", "d1 ", "d1\0", "*", "d*", "ԁ1", &"d".repeat(300)] {
        assert_eq!(named(DnValue::Utf8String(odd.to_owned())), Ok(odd.to_owned()));
    }
    let no_name = name(&|params| {
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::DnsName("d1".try_into().unwrap())];
    });
    assert_eq!(no_name, Err(NoCommonName::Missing));
    let encoded = named(DnValue::BmpString("d1".try_into().unwrap()));
    assert_eq!(encoded, Err(NoCommonName::Encoding));
}

#[test]
fn t408_an_unknown_signer_is_named() {
    let (known, unknown) = (TestCa::root("known"), TestCa::root("unknown"));
    let device = unknown.device("d1");
    assert_eq!(
        refused(&device.certificate, &[], &[&known]),
        "the chain ends at issuer CN=unknown, which is no enrolled CA (no intermediate was sent along)"
    );
    // The same name, another key: the name alone vouches for nobody.
    let namesake = TestCa::root("known");
    let forged = namesake.device("d1");
    assert_eq!(
        refused(&forged.certificate, &[], &[&known]),
        "certificate CN=d1 is not signed with the key of CN=known"
    );
    let own = TestCa::self_signed_with("d1", |_| {});
    assert_eq!(judge(&own.certificate, &[], &[&known]), Err(ChainError::SelfSigned));
    assert_eq!(judge(&own.certificate, &[], &[]), Err(ChainError::SelfSigned));
}

#[test]
fn t409_chains_are_built_from_whatever_order_and_extras() {
    let root = TestCa::root("root");
    let upper = root.intermediate("upper");
    let lower = upper.intermediate("lower");
    let device = lower.device("d1");
    let stranger = TestCa::root("stranger");
    for others in [
        vec![lower.certificate(), upper.certificate()],
        vec![upper.certificate(), lower.certificate()],
        vec![stranger.certificate(), upper.certificate(), root.certificate(), lower.certificate()],
        vec![lower.certificate(), lower.certificate(), upper.certificate()],
    ] {
        assert!(judge(&device.certificate, &others, &[&root]).is_ok());
    }
    // Any of them may be the enrolled one; then nothing above it is needed.
    assert!(judge(&device.certificate, &[], &[&lower]).is_ok());
    assert!(judge(&device.certificate, &[lower.certificate()], &[&upper]).is_ok());
    assert_eq!(
        refused(&device.certificate, &[lower.certificate()], &[&root]),
        "the chain ends at issuer CN=upper, which is no enrolled CA (1 intermediate was sent along)"
    );
}

#[test]
fn t409_an_intermediate_must_be_a_ca_that_may_sign() {
    let root = TestCa::root("root");
    for (change, reason) in [
        (
            &|params: &mut CertificateParams| params.is_ca = IsCa::ExplicitNoCa,
            "certificate CN=middle signed another one but is not a CA's (no CA:TRUE)",
        ),
        (
            &|params: &mut CertificateParams| params.is_ca = IsCa::NoCa,
            "certificate CN=middle signed another one but is not a CA's (no CA:TRUE)",
        ),
        (
            &|params: &mut CertificateParams| params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
            "certificate CN=middle signed another one but its key usage lacks keyCertSign",
        ),
    ] as [(&dyn Fn(&mut CertificateParams), &str); 3]
    {
        let middle = root.intermediate_with("middle", |params| change(params));
        let device = middle.device("d1");
        assert_eq!(refused(&device.certificate, &[middle.certificate()], &[&root]), reason);
    }
}

#[test]
fn t409_path_lengths_and_name_constraints_hold() {
    let short = |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    // The anchor's own path length counts too.
    let root = TestCa::root_with("root", short);
    let middle = root.intermediate("middle");
    let device = middle.device("d1");
    assert_eq!(judge(&device.certificate, &[middle.certificate()], &[&root]), Err(ChainError::PathTooLong));
    let root = TestCa::root("root");
    let upper = root.intermediate_with("upper", short);
    let lower = upper.intermediate("lower");
    let device = lower.device("d1");
    let others = [lower.certificate(), upper.certificate()];
    assert_eq!(judge(&device.certificate, &others, &[&root]), Err(ChainError::PathTooLong));

    let constrained = root.intermediate_with("constrained", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("plant.test".into())],
            excluded_subtrees: Vec::new(),
        });
    });
    let inside = constrained.device_with("d1", |params| {
        params.subject_alt_names = vec![SanType::DnsName("d1.plant.test".try_into().unwrap())];
    });
    let outside = constrained.device_with("d1", |params| {
        params.subject_alt_names = vec![SanType::DnsName("d1.other.test".try_into().unwrap())];
    });
    let others = [constrained.certificate()];
    assert!(judge(&inside.certificate, &others, &[&root]).is_ok());
    assert_eq!(judge(&outside.certificate, &others, &[&root]), Err(ChainError::NameConstraint));
}

#[test]
fn t409_every_certificate_of_the_path_must_hold_now_and_the_first_to_end_counts() {
    let root = TestCa::root("root");
    let at = |from, until| move |params: &mut CertificateParams| set_time(params, from, until);
    for (from, until, words) in [(-2 * DAY, -DAY, "expired at"), (DAY, 2 * DAY, "is not valid before")] {
        let device = root.device_with("d1", at(from, until));
        let reason = refused(&device.certificate, &[], &[&root]);
        assert!(reason.starts_with(&format!("certificate CN=d1 {words} 20")), "{reason}");

        let middle = root.intermediate_with("middle", at(from, until));
        let device = middle.device("d1");
        let reason = refused(&device.certificate, &[middle.certificate()], &[&root]);
        assert!(reason.starts_with(&format!("certificate CN=middle {words} 20")), "{reason}");

        let old = TestCa::root_with("old", at(from, until));
        let device = old.device("d1");
        let reason = refused(&device.certificate, &[], &[&old]);
        assert!(reason.starts_with(&format!("the enrolled CA CN=old {words} 20")), "{reason}");
    }
    let middle = root.intermediate_with("middle", at(-DAY, 60));
    let device = middle.device("d1");
    let others = [middle.certificate().clone()];
    let chain = PresentedChain::parse(&device.certificate, &others).unwrap();
    let anchor = anchor(&root);
    let verified = verify(&chain, &[&anchor], UnixTime::now()).unwrap();
    assert!(verified.valid_until < chain.valid_until());
}

#[test]
fn t409_a_ca_or_another_device_stands_in_for_no_device() {
    let root = TestCa::root("root");
    let middle = root.intermediate("d1");
    assert_eq!(judge(middle.certificate(), &[], &[&root]), Err(ChainError::CaAsDevice));
    // A device's key signs for nobody.
    let fake = root.intermediate_with("d2", |params| {
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    });
    let device = fake.device("d1");
    assert!(judge(&device.certificate, &[fake.certificate()], &[&root]).is_err());
}

#[test]
fn t410_a_certificate_for_servers_only_is_refused() {
    let root = TestCa::root("root");
    let usage = |usages: Vec<ExtendedKeyUsagePurpose>| {
        root.device_with("d1", |params| params.extended_key_usages = usages).certificate
    };
    assert_eq!(
        refused(&usage(vec![ExtendedKeyUsagePurpose::ServerAuth]), &[], &[&root]),
        "certificate CN=d1 is not for client authentication (extended key usage)"
    );
    assert!(judge(&usage(Vec::new()), &[], &[&root]).is_ok());
    let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    assert!(judge(&usage(both), &[], &[&root]).is_ok());
}

#[test]
fn t411_an_unknown_critical_extension_and_a_huge_one_are_refused_or_harmless() {
    let root = TestCa::root("root");
    let extended = |critical: bool, bytes: usize| {
        root.device_with("d1", |params| {
            let mut extension =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![4; bytes]);
            extension.set_criticality(critical);
            params.custom_extensions = vec![extension];
        })
        .certificate
    };
    assert_eq!(judge(&extended(true, 4), &[], &[&root]), Err(ChainError::CriticalExtension("CN=d1".into())));
    assert!(judge(&extended(false, 4), &[], &[&root]).is_ok());
    let huge = extended(false, 64 * 1024);
    assert!(PresentedChain::parse(&huge, &[]).is_err());
}

#[test]
fn t111_a_ring_of_cross_signed_certificates_costs_little() {
    // Nine certificates of one name could be put in a row in 60,480 ways.
    let root = TestCa::root("root");
    let alike: Vec<_> = (0..4).map(|_| TestCa::root("ring")).collect();
    let device = alike[0].device("d1");
    let others: Vec<_> = alike.iter().map(TestCa::certificate).collect();
    assert_eq!(
        judge(&device.certificate, &others, &[&root]),
        Err(ChainError::TooManyAlike("CN=ring".into()))
    );
    // Three names of three certificates each, every name signed by the next: it ends, and says no.
    let names = ["a", "b", "c"];
    let cas: Vec<Vec<TestCa>> =
        names.iter().map(|name| (0..3).map(|_| TestCa::root(name)).collect()).collect();
    let mut ring = Vec::new();
    for (index, group) in cas.iter().enumerate() {
        let signers = &cas[(index + 1) % cas.len()];
        for (own, signer) in group.iter().zip(signers) {
            ring.push(own.cross_signed_by(signer, names[index]));
        }
    }
    let device = cas[0][0].device("d1");
    let others: Vec<_> = ring.iter().collect();
    let verdict = judge(&device.certificate, &others, &[&root]);
    assert!(
        matches!(verdict, Err(ChainError::UnknownIssuer { .. } | ChainError::PathTooLong)),
        "{verdict:?}"
    );
    // With the enrolled CA's own name on one of them, signatures are tried, within the budget.
    let namesake = TestCa::root("a");
    let verdict = judge(&device.certificate, &others, &[&namesake]);
    assert!(verdict.is_err(), "{verdict:?}");
}
