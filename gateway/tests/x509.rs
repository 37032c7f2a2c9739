//! Devices and modules that prove themselves with client certificates (threats T4xx).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::mqtt::packet::{ConnectReturnCode, Password};
use portcullis_certs::testing::{TestCa, TestCert, set_time};
use portcullis_registry::credential::{Thumbprint, ThumbprintPair};
use portcullis_registry::identity::AuthenticationSpec;
use portcullis_testing::openssl::OpenSsl;
use portcullis_testing::x509::{Shown, password, thumbprints};
use portcullis_testing::{HubSettings, TestHub, until};
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};

const REFUSED: ConnectReturnCode = ConnectReturnCode::NotAuthorized;

/// A device's certificate that no CA has signed, holding from and until so many seconds from now.
fn self_signed_at(from: i64, until: i64) -> TestCert {
    TestCa::self_signed_with("d1", |params| set_time(params, from, until))
}

/// Asserts that a device is refused for a reason that has all of these words in it.
async fn assert_refused(hub: &TestHub, id: &str, shown: &Shown, words: &[&str]) {
    assert_eq!(hub.connect_x509(id, shown).await.err(), Some(REFUSED), "{id}: {words:?}");
    let reason = hub.last_refusal(id);
    assert!(words.iter().all(|word| reason.contains(word)), "{reason:?} lacks one of {words:?}");
}

#[tokio::test]
async fn t401_a_registered_thumbprint_admits_its_certificate() {
    let hub = TestHub::start().await;
    let own = TestCa::self_signed_device("anything");
    hub.register("d1", thumbprints(Some(&own.certificate), None)).await;
    hub.register("d1/m1", thumbprints(None, Some(&own.certificate))).await;
    let mut events = hub.events().await;
    for id in ["d1", "d1/m1"] {
        let mut client = hub.connect_x509(id, &Shown::alone(&own)).await.unwrap();
        let topic = format!("devices/{}/messages/events/", id.replace('/', "/modules/"));
        client.publish_acknowledged(&topic, id.as_bytes()).await;
        let telemetry = events.take_message().await;
        assert_eq!(telemetry.payload, id);
        assert!(telemetry.topic.as_str().contains("x509"), "{}", telemetry.topic.as_str());
    }
    hub.stop().await;
}

#[tokio::test]
async fn t401_sha_1_and_sha_256_in_any_case_and_with_colons() {
    let hub = TestHub::start().await;
    let own = TestCa::self_signed_device("d1");
    let hashes = portcullis_certs::thumbprint::Thumbprints::of(&own.certificate);
    for hex in [hashes.sha1.to_string(), hashes.sha256.to_string()] {
        let pairs: Vec<_> = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
        for text in [hex.clone(), hex.to_lowercase(), pairs.join(":")] {
            let path = format!("/devices/{}?api-version=2021-04-12", text.replace(':', "_"));
            let body = serde_json::json!({ "authentication": {
                "type": "selfSigned", "x509Thumbprint": { "primaryThumbprint": text } } });
            let (status, answer) = hub.rest().call("PUT", &path, Some(body)).await;
            assert_eq!(status, 200, "{answer}");
            let id = text.replace(':', "_");
            hub.connect_x509(&id, &Shown::alone(&own)).await.unwrap().settle().await;
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn t401_expired_or_not_yet_valid_is_refused_with_the_date() {
    let hub = TestHub::start().await;
    let (old, early) = (self_signed_at(-7_200, -3_600), self_signed_at(3_600, 7_200));
    hub.register("d1", thumbprints(Some(&old.certificate), Some(&early.certificate))).await;
    assert_refused(&hub, "d1", &Shown::alone(&old), &["the client certificate expired at 20"]).await;
    assert_refused(&hub, "d1", &Shown::alone(&early), &["the client certificate is not valid before 20"])
        .await;
    assert_eq!(hub.hub.metrics.attempts(ConnectionOutcome::X509Expired), 1);
    hub.stop().await;
}

#[tokio::test]
async fn t402_certificates_of_openssls_usual_recipes_are_admitted_by_thumbprint() {
    let openssl = OpenSsl::new();
    // The customary self-signed ones say CA:TRUE.
    openssl.self_signed("rsa", "/CN=d1", "-newkey rsa:2048");
    openssl.self_signed("p256", "/CN=d1", "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1");
    openssl.self_signed("p384", "/CN=d1", "-newkey ec -pkeyopt ec_paramgen_curve:secp384r1");
    openssl.self_signed("ed25519", "/CN=d1", "-newkey ed25519");
    openssl.self_signed(
        "server",
        "/CN=d1",
        "-newkey rsa:2048 -addext keyUsage=keyEncipherment -addext extendedKeyUsage=serverAuth",
    );
    openssl.self_signed("nameless", "/O=none", "-newkey rsa:2048 -sha1");
    // Without extensions the command makes version 1.
    openssl.request("v1", "/CN=d1", "rsa:2048");
    openssl.run("x509 -req -days 1 -in v1.csr -signkey v1-key.pem -out v1.pem");
    let hub = TestHub::start().await;
    for name in ["rsa", "p256", "p384", "ed25519", "server", "nameless", "v1"] {
        let shown = openssl.shown(name, &[]);
        hub.register(name, thumbprints(Some(shown.certificate()), None)).await;
        for version in [&TLS12, &TLS13] {
            let config = hub.client_that_shows(&shown, &[version]);
            let stream = hub.tls_with(config).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            let client = hub.connect_over(stream, hub.connect_packet_of(name)).await;
            client.unwrap_or_else(|code| panic!("{name} {version:?}: {code:?}")).settle().await;
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn t403_a_stolen_certificate_without_its_key_fails_in_the_handshake() {
    let openssl = OpenSsl::new();
    openssl.request("v1", "/CN=d1", "rsa:2048");
    openssl.run("x509 -req -days 1 -in v1.csr -signkey v1-key.pem -out v1.pem");
    openssl.self_signed("rsa", "/CN=d1", "-newkey rsa:2048");
    openssl.self_signed("p256", "/CN=d1", "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1");
    openssl.self_signed("ed25519", "/CN=d1", "-newkey ed25519");
    let hub = TestHub::start().await;
    for kind in ["v1", "rsa", "p256", "ed25519"] {
        let victim = openssl.shown(kind, &[]);
        hub.register("d1", thumbprints(Some(victim.certificate()), None)).await;
        let recipe = match kind {
            "p256" => "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1",
            "ed25519" => "-newkey ed25519",
            _ => "-newkey rsa:2048",
        };
        openssl.self_signed("thief", "/CN=d1", recipe);
        let stolen = Shown::from_pem(&openssl.read(&format!("{kind}.pem")), &openssl.read("thief-key.pem"));
        for version in [&TLS12, &TLS13] {
            // In TLS 1.3 the client hears of it only after its own part is done.
            if let Ok(stream) = hub.tls_with(hub.client_that_shows(&stolen, &[version])).await {
                let mut client = hub.raw_over(stream);
                client.send_packet(&connect(&hub, "d1")).await;
                assert!(client.until_closed().await.is_empty(), "{kind} {version:?}");
            }
        }
    }
    assert_eq!(hub.hub.metrics.attempts(ConnectionOutcome::Succeeded), 0);
    // Four kinds of keys in two versions of TLS.
    assert_eq!(hub.hub.metrics.attempts(ConnectionOutcome::X509NotProven), 8);
    assert!(hub.hub.sessions.is_empty());
    hub.stop().await;
}

fn connect(hub: &TestHub, id: &str) -> portcullis::mqtt::packet::Packet {
    portcullis::mqtt::packet::Packet::Connect(Box::new(hub.connect_packet_of(id)))
}

#[tokio::test]
async fn t404_anothers_own_certificate_opens_nothing_and_disturbs_nobody() {
    let hub = TestHub::start().await;
    let (a, b) = (TestCa::self_signed_device("a"), TestCa::self_signed_device("b"));
    hub.register("a", thumbprints(Some(&a.certificate), None)).await;
    hub.register("b", thumbprints(Some(&b.certificate), None)).await;
    let mut victim = hub.connect_x509("a", &Shown::alone(&a)).await.unwrap();
    let hashes =
        |own: &TestCert| portcullis_certs::thumbprint::Sha256Thumbprint::of(&own.certificate).to_string();
    assert_refused(&hub, "a", &Shown::alone(&b), &[&hashes(&a), &hashes(&b), "registered"]).await;
    victim.settle().await;
    assert_eq!(hub.hub.metrics.attempts(ConnectionOutcome::X509ThumbprintMismatch), 1);
    hub.stop().await;
}

#[tokio::test]
async fn t406_t407_the_common_name_is_the_id_for_devices_and_modules() {
    let hub = TestHub::start().await;
    let ca = TestCa::root("fleet");
    hub.enrol("fleet", &ca).await;
    for id in ["d1", "d1/m1", "D1", "d"] {
        hub.register(id, AuthenticationSpec::CertificateAuthority).await;
    }
    for id in ["d1", "d1/m1", "D1", "d"] {
        hub.connect_x509(id, &Shown::alone(&ca.device(id))).await.unwrap().settle().await;
    }
    for (id, seen) in [
        ("d1", "D1"),
        ("d1", "d1 "),
        ("d1", "d1\0"),
        ("d1", "*"),
        ("d1", "d*"),
        ("d1", "ԁ1"),
        ("d1", "d1/m1"),
        ("d1/m1", "d1"),
        ("d1/m1", "d1/m2"),
        ("d1/m1", "m1"),
        ("d", "d1"),
        ("d1", &"d".repeat(129)),
    ] {
        let wanted = format!("must be {id:?}");
        assert_refused(&hub, id, &Shown::alone(&ca.device(seen)), &["common name", &wanted]).await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn t406_certificates_of_openssls_usual_recipes_are_admitted_by_ca() {
    let openssl = OpenSsl::new();
    openssl.self_signed("fleet", "/CN=fleet/O=Example", "-newkey rsa:2048");
    let client = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n";
    openssl.signed("d1", "/CN=d1", "fleet", client, "");
    openssl.signed("twice", "/CN=d1/CN=d1", "fleet", client, "");
    openssl.signed("nameless", "/O=d1", "fleet", &format!("{client}subjectAltName=DNS:d1\n"), "");
    openssl.signed("v1", "/CN=d1", "fleet", "", "");
    openssl.signed(
        "server",
        "/CN=d1",
        "fleet",
        "basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
        "",
    );
    openssl.signed("sha1", "/CN=d1", "fleet", client, "-sha1");
    openssl.signed("md5", "/CN=d1", "fleet", client, "-md5");
    let ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n";
    openssl.signed("middle", "/CN=middle", "fleet", ca, "");
    openssl.signed("below", "/CN=d1", "middle", client, "");
    openssl.self_signed("weak", "/CN=weak", "-newkey rsa:1024");
    openssl.signed("weakly", "/CN=d1", "weak", client, "");
    let hub = TestHub::start().await;
    let body =
        serde_json::json!({ "certificate": openssl.read("fleet.pem"), "verified": true, "reason": "a test" });
    let enrolled = hub.rest().call("PUT", "/api/v1/certificate-authorities/fleet", Some(body)).await;
    assert_eq!(enrolled.0, 200, "{}", enrolled.1);
    hub.register("d1", AuthenticationSpec::CertificateAuthority).await;

    for (name, others) in
        [("d1", &[][..]), ("d1", &["fleet"]), ("below", &["middle"]), ("below", &["fleet", "middle"])]
    {
        hub.connect_x509("d1", &openssl.shown(name, others)).await.unwrap().settle().await;
    }
    for (name, words) in [
        ("twice", "2 common names, where exactly one belongs"),
        ("nameless", "no common name"),
        ("v1", "X.509 version 1"),
        ("server", "not for client authentication"),
        ("sha1", "signed with SHA-1"),
        ("md5", "signed with MD5"),
        (
            "below",
            "the chain ends at issuer CN=middle, which is no enrolled CA (no intermediate was sent along)",
        ),
        ("weakly", "the chain ends at issuer CN=weak"),
    ] {
        assert_refused(&hub, "d1", &openssl.shown(name, &[]), &[words]).await;
    }
    let body = serde_json::json!({ "certificate": openssl.read("weak.pem") });
    let (status, answer) = hub.rest().call("PUT", "/api/v1/certificate-authorities/weak", Some(body)).await;
    assert!(status == 400 && answer.to_string().contains("RSA key of 1024 bits"), "{answer}");
    hub.stop().await;
}

#[tokio::test]
async fn t410_a_device_key_of_1024_bits_is_not_taken() {
    let openssl = OpenSsl::new();
    openssl.self_signed("fleet", "/CN=fleet", "-newkey rsa:2048");
    openssl.request("d1", "/CN=d1", "rsa:1024");
    openssl.sign("d1", "fleet", "basicConstraints=CA:FALSE\n", "");
    let hub = TestHub::start().await;
    let body =
        serde_json::json!({ "certificate": openssl.read("fleet.pem"), "verified": true, "reason": "a test" });
    assert_eq!(hub.rest().call("PUT", "/api/v1/certificate-authorities/fleet", Some(body)).await.0, 200);
    hub.register("d1", AuthenticationSpec::CertificateAuthority).await;
    let body = serde_json::json!({ "certificate": openssl.read("d1.pem") });
    let (_, verdict) = hub.rest().call("POST", "/api/v1/devices/d1/certificate-verdict", Some(body)).await;
    assert_eq!(verdict["admitted"], false);
    let reason = verdict["reason"].as_str().unwrap();
    assert!(reason.contains("RSA key of 1024 bits; 2048 are the least"), "{reason}");
    hub.stop().await;
}

#[tokio::test]
async fn t408_on_removal_of_a_ca_its_connections_go_and_others_stay() {
    let hub = TestHub::start().await;
    let (one, other) = (TestCa::root("one"), TestCa::root("other"));
    hub.enrol("one", &one).await;
    hub.enrol("other", &other).await;
    let own = TestCa::self_signed_device("d3");
    for id in ["d1", "d1/m1", "d2"] {
        hub.register(id, AuthenticationSpec::CertificateAuthority).await;
    }
    hub.register("d3", thumbprints(Some(&own.certificate), None)).await;
    let mut first = hub.connect_x509("d1", &Shown::alone(&one.device("d1"))).await.unwrap();
    let mut module = hub.connect_x509("d1/m1", &Shown::alone(&one.device("d1/m1"))).await.unwrap();
    let mut second = hub.connect_x509("d2", &Shown::alone(&other.device("d2"))).await.unwrap();
    let mut third = hub.connect_x509("d3", &Shown::alone(&own)).await.unwrap();
    let removed = hub.rest().call("DELETE", "/api/v1/certificate-authorities/one", None).await;
    assert_eq!(removed.0, 204);
    assert!(first.closed().await && module.closed().await);
    second.settle().await;
    third.settle().await;
    assert_eq!(hub.hub.metrics.disconnects(ConnectionOutcome::CredentialChanged), 2);
    assert_refused(&hub, "d1", &Shown::alone(&one.device("d1")), &["issuer CN=one", "no enrolled CA"]).await;
    // What was removed stays so after a restart, and what stayed is there.
    let hub = hub.restart().await;
    assert_eq!(hub.connect_x509("d1", &Shown::alone(&one.device("d1"))).await.err(), Some(REFUSED));
    hub.connect_x509("d2", &Shown::alone(&other.device("d2"))).await.unwrap().settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t413_a_token_decides_for_sas_and_no_password_for_x509() {
    let hub = TestHub::start().await;
    let own = TestCa::self_signed_device("sas");
    let device = hub.device("sas").await;
    let with_token = hub.connect_packet(&device);
    hub.connect_x509_with(with_token, &Shown::alone(&own)).await.unwrap().settle().await;
    // Its certificate alone is worth nothing to a SAS identity.
    assert_refused(
        &hub,
        "sas",
        &Shown::alone(&own),
        &["authenticates by SAS token, not by client certificate"],
    )
    .await;

    hub.register("x509", thumbprints(Some(&own.certificate), None)).await;
    let policy_token = hub.policy_token("device");
    for secret in ["password", &hub.token_for(&device, 3600), &policy_token] {
        for shown in [None, Some(Shown::alone(&own))] {
            let mut connect = hub.connect_packet_of("x509");
            connect.password = password(secret);
            let outcome = match &shown {
                Some(shown) => hub.connect_x509_with(connect, shown).await,
                None => hub.connect_with(connect).await,
            };
            assert_eq!(outcome.err(), Some(REFUSED), "{secret}");
        }
    }
    assert!(hub.last_refusal("x509").contains("X.509 thumbprint, not by SAS token"));
    // Without either, the operator hears what is missing.
    assert_eq!(hub.connect_with(hub.connect_packet_of("x509")).await.err(), Some(REFUSED));
    let reason = hub.last_refusal("x509");
    assert!(reason.starts_with("no client certificate was presented"), "{reason}");
    // An empty password is none.
    let mut connect = hub.connect_packet_of("x509");
    connect.password = Some(Password::from_bytes(b""));
    hub.connect_x509_with(connect, &Shown::alone(&own)).await.unwrap().settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t319_sas_switched_off_is_refused_for_devices_or_modules() {
    let setting = |name: &str| HubSettings {
        environment: vec![(format!("PORTCULLIS__SAS__{name}"), "false".to_owned())],
        ..HubSettings::default()
    };
    for (name, off, on) in [("DEVICES", "d1", "d1/m1"), ("MODULES", "d1/m1", "d1")] {
        let hub = TestHub::start_with(setting(name)).await;
        let device = hub.device("d1").await;
        let module = hub.module("d1", "m1").await;
        let of =
            |id: &str| if id == "d1" { hub.connect_packet(&device) } else { hub.connect_packet(&module) };
        assert_eq!(hub.connect_with(of(off)).await.err(), Some(REFUSED), "{name}");
        assert!(hub.last_refusal(off).contains("accepts no SAS tokens"), "{}", hub.last_refusal(off));
        let mut by_policy = hub.connect_packet_of(off);
        by_policy.password = password(&hub.policy_token("device"));
        assert_eq!(hub.connect_with(by_policy).await.err(), Some(REFUSED), "{name}");
        hub.connect_with(of(on)).await.unwrap().settle().await;
        let own = TestCa::self_signed_device("any");
        hub.register(off, thumbprints(Some(&own.certificate), None)).await;
        hub.connect_x509(off, &Shown::alone(&own)).await.unwrap().settle().await;
        hub.stop().await;
    }
}

#[tokio::test]
async fn t319_type_none_never_authenticates() {
    let hub = TestHub::start().await;
    let ca = TestCa::root("fleet");
    hub.enrol("fleet", &ca).await;
    hub.register("d1", AuthenticationSpec::None).await;
    assert_refused(&hub, "d1", &Shown::alone(&ca.device("d1")), &["nothing (type none)"]).await;
    let mut by_policy = hub.connect_packet_of("d1");
    by_policy.password = password(&hub.policy_token("iothubowner"));
    assert_eq!(hub.connect_with(by_policy).await.err(), Some(REFUSED));
    hub.stop().await;
}

#[tokio::test]
async fn t414_a_rotation_by_way_of_the_secondary_drops_no_connection() {
    let hub = TestHub::start().await;
    let (old, new) = (TestCa::self_signed_device("d1"), TestCa::self_signed_device("d1"));
    hub.register("d1", thumbprints(Some(&old.certificate), None)).await;
    let mut client = hub.connect_x509("d1", &Shown::alone(&old)).await.unwrap();
    // The new one beside the old one: the connection under the old one stays.
    hub.register("d1", thumbprints(Some(&old.certificate), Some(&new.certificate))).await;
    client.settle().await;
    // The device changes over, the old one goes.
    let mut client = hub.connect_x509("d1", &Shown::alone(&new)).await.unwrap();
    hub.register("d1", thumbprints(Some(&new.certificate), None)).await;
    client.settle().await;
    assert_eq!(hub.connect_x509("d1", &Shown::alone(&old)).await.err(), Some(REFUSED));
    client.settle().await;
    // A connection under a dropped one goes; what it rests on is the certificate, whichever hash names it.
    let sha1 = portcullis_certs::thumbprint::Thumbprints::of(&new.certificate).sha1.to_string();
    let renamed = ThumbprintPair { primary: None, secondary: Some(Thumbprint::parse(&sha1).unwrap()) };
    hub.register("d1", AuthenticationSpec::SelfSigned(renamed)).await;
    client.settle().await;
    hub.register("d1", thumbprints(Some(&old.certificate), None)).await;
    assert!(client.closed().await);
    hub.stop().await;
}

#[tokio::test]
async fn t414_a_connection_ends_with_its_certificate() {
    let hub = TestHub::start().await;
    let own = self_signed_at(-60, 2);
    let ca = TestCa::root("fleet");
    hub.enrol("fleet", &ca).await;
    hub.register("d1", thumbprints(Some(&own.certificate), None)).await;
    hub.register("d2", AuthenticationSpec::CertificateAuthority).await;
    let mut first = hub.connect_x509("d1", &Shown::alone(&own)).await.unwrap();
    let mut second = hub.connect_x509("d2", &Shown::alone(&ca.device_at("d2", -60, 2))).await.unwrap();
    assert!(first.closed().await && second.closed().await);
    assert_eq!(hub.hub.metrics.disconnects(ConnectionOutcome::CertificateExpired), 2);
    assert_refused(&hub, "d1", &Shown::alone(&own), &["expired at"]).await;
    hub.stop().await;
}

#[tokio::test]
async fn t113_a_resumed_tls_session_is_judged_anew() {
    let hub = TestHub::start().await;
    let (old, new) = (TestCa::self_signed_device("d1"), TestCa::self_signed_device("d1"));
    for version in [&TLS12, &TLS13] {
        hub.register("d1", thumbprints(Some(&old.certificate), None)).await;
        let config = hub.client_that_shows(&Shown::alone(&old), &[version]);
        let first = hub.tls_with(Arc::clone(&config)).await.unwrap();
        let client = hub.connect_over(first, hub.connect_packet_of("d1")).await.unwrap();
        client.disconnect().await;
        let second = hub.tls_with(Arc::clone(&config)).await.unwrap();
        assert_eq!(second.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        let mut client = hub.connect_over(second, hub.connect_packet_of("d1")).await.unwrap();
        client.settle().await;
        // Rotated meanwhile: the ticket is good, the certificate in it no longer.
        hub.register("d1", thumbprints(Some(&new.certificate), None)).await;
        assert!(client.closed().await);
        let third = hub.tls_with(Arc::clone(&config)).await.unwrap();
        assert_eq!(third.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
        let refused = hub.connect_over(third, hub.connect_packet_of("d1")).await;
        assert_eq!(refused.err(), Some(REFUSED), "{version:?}");
    }
    // Expired meanwhile.
    let short = self_signed_at(-60, 2);
    hub.register("d2", thumbprints(Some(&short.certificate), None)).await;
    let config = hub.client_that_shows(&Shown::alone(&short), &[&TLS13]);
    let first = hub.tls_with(Arc::clone(&config)).await.unwrap();
    let mut client = hub.connect_over(first, hub.connect_packet_of("d2")).await.unwrap();
    assert!(client.closed().await);
    let second = hub.tls_with(config).await.unwrap();
    assert_eq!(second.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    assert_eq!(hub.connect_over(second, hub.connect_packet_of("d2")).await.err(), Some(REFUSED));
    assert!(hub.last_refusal("d2").contains("expired at"));
    hub.stop().await;
}

#[tokio::test]
async fn t111_a_chain_of_100_certificates_is_refused_in_the_handshake() {
    let hub = TestHub::start().await;
    let ca = TestCa::root("fleet");
    hub.enrol("fleet", &ca).await;
    hub.register("d1", AuthenticationSpec::CertificateAuthority).await;
    let device = ca.device("d1");
    let mut chain = vec![device.certificate.clone()];
    chain.extend(std::iter::repeat_n(ca.certificate().clone(), 99));
    let shown = Shown::new(chain, &device.key);
    if let Ok(stream) = hub.tls_with(hub.client_that_shows(&shown, rustls::ALL_VERSIONS)).await {
        let mut client = hub.raw_over(stream);
        client.send_packet(&connect(&hub, "d1")).await;
        assert!(client.until_closed().await.is_empty());
    }
    until(|| hub.hub.admission.anonymous() == 0).await;
    assert_eq!(hub.hub.metrics.attempts(ConnectionOutcome::Succeeded), 0);
    hub.stop().await;
}

#[tokio::test]
async fn a_device_with_a_certificate_comes_over_websockets_too() {
    let hub = TestHub::start().await;
    let own = TestCa::self_signed_device("d1");
    hub.register("d1", thumbprints(Some(&own.certificate), None)).await;
    hub.connect_x509_websocket("d1", &Shown::alone(&own)).await.unwrap().settle().await;
    let other = TestCa::self_signed_device("d1");
    assert_eq!(hub.connect_x509_websocket("d1", &Shown::alone(&other)).await.err(), Some(REFUSED));
    hub.stop().await;
}

#[tokio::test]
async fn a_device_with_a_certificate_polls_and_sends_over_https_too() {
    let hub = TestHub::start().await;
    let (own, other) = (TestCa::self_signed_device("d1"), TestCa::self_signed_device("d1"));
    hub.register("d1", thumbprints(Some(&own.certificate), None)).await;
    let v = "api-version=2021-04-12";
    let (poll, send) =
        (format!("/devices/d1/messages/deviceBound?{v}"), format!("/devices/d1/messages/events?{v}"));
    for (shown, polled, sent) in [(&own, "204", "204"), (&other, "401", "401")] {
        let head = hub.request_x509(&Shown::alone(shown), "GET", &poll).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {polled} ")), "{head}");
        let head = hub.request_x509(&Shown::alone(shown), "POST", &send).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {sent} ")), "{head}");
    }
    // A certificate makes nobody an operator.
    let head = hub.request_x509(&Shown::alone(&own), "GET", &format!("/devices/d1?{v}")).await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    hub.stop().await;
}
