//! How attempts to connect and connections end: each outcome is shown at 0 from the start, and counted where it happens.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use portcullis::hub::outcome::{ConnectionOutcome, Stage};
use portcullis::mqtt::packet::{Connect, Packet};
use portcullis_certs::testing::TestCa;
use portcullis_registry::access::Access;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::identity::AuthenticationSpec;
use portcullis_registry::sas::sign;
use portcullis_testing::x509::{Shown, identity, password, thumbprints};
use portcullis_testing::{HubSettings, TestHub, TestIdentity, until, will};

/// Asserts that what is driven here and what is driven elsewhere are together all outcomes of a stage.
fn assert_all(stage: Stage, driven: &[ConnectionOutcome], elsewhere: &[ConnectionOutcome]) {
    let covered: BTreeSet<_> = driven.iter().chain(elsewhere).copied().collect();
    assert_eq!(covered, ConnectionOutcome::at(stage).collect());
}

/// The number that stands behind a metric with these labels.
fn number(metrics: &str, metric: &str) -> Option<u64> {
    metrics.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok())
}

#[tokio::test]
async fn a_new_hub_shows_every_outcome_at_0() {
    let hub = TestHub::start().await;
    let (_, metrics) = hub.ops("/metrics").await;
    let families = [
        (Stage::Connect, "portcullis_connection_attempts_total", "outcome"),
        (Stage::Early, "portcullis_connections_ended_early_total", "reason"),
        (Stage::Session, "portcullis_disconnects_total", "reason"),
    ];
    for (stage, family, label) in families {
        let mut count = 0;
        for outcome in ConnectionOutcome::at(stage) {
            let metric = format!("{family}{{{label}=\"{}\"}}", outcome.label());
            assert_eq!(number(&metrics, &metric), Some(0), "{metric} in {metrics}");
            count += 1;
        }
        assert_eq!(metrics.lines().filter(|line| line.starts_with(family)).count(), count, "{family}");
    }
    for metric in [
        "portcullis_throttled_total{scope=\"address\"}",
        "portcullis_throttled_total{scope=\"identity\"}",
        "portcullis_throttled_total{scope=\"takeover\"}",
        "portcullis_throttled_total{scope=\"messages\"}",
        "portcullis_throttled_total{scope=\"connections\"}",
        "portcullis_cert_reloads_total{outcome=\"succeeded\"}",
        "portcullis_cert_reloads_total{outcome=\"failed\"}",
        "portcullis_acks_ignored_total",
        "portcullis_publishes_dropped_total",
        "portcullis_c2d_undeliverable_total",
    ] {
        assert_eq!(number(&metrics, metric), Some(0), "{metric} in {metrics}");
    }
    for kind in ["import", "export", "rollback"] {
        for state in ["enqueued", "running", "completed", "failed", "cancelled"] {
            let metric = format!("portcullis_jobs{{type=\"{kind}\",state=\"{state}\"}}");
            assert_eq!(number(&metrics, &metric), Some(0), "{metric} in {metrics}");
        }
    }
    hub.stop().await;
}

/// What no SAS identity has: CONNECTs of devices with certificates, and the outcome of each.
async fn certificates(hub: &TestHub) -> Vec<(&'static str, Shown, ConnectionOutcome)> {
    let (fleet, stranger) = (TestCa::root("fleet"), TestCa::root("stranger"));
    hub.enrol("fleet", &fleet).await;
    let own = TestCa::self_signed_device("by-thumbprint");
    hub.register("by-thumbprint", thumbprints(Some(&own.certificate), None)).await;
    hub.register("by-ca", AuthenticationSpec::CertificateAuthority).await;
    let other = TestCa::self_signed_device("by-thumbprint");
    vec![
        ("by-thumbprint", Shown::alone(&other), ConnectionOutcome::X509ThumbprintMismatch),
        ("by-ca", Shown::alone(&stranger.device("by-ca")), ConnectionOutcome::X509ChainUntrusted),
        ("by-ca", Shown::alone(&fleet.device("other")), ConnectionOutcome::X509NameMismatch),
    ]
}

/// CONNECTs of devices with tokens, and the outcome of each. One connection is open, and more may not be.
async fn connects(hub: &TestHub) -> Vec<(Connect, ConnectionOutcome)> {
    use ConnectionOutcome as Outcome;

    let device = hub.device("d1").await;
    let module = hub.module("d1", "m1").await;
    let off = hub.device("off").await;
    hub.disable(&off).await;
    let unknown = TestIdentity { id: identity("nobody"), ..device.clone() };
    let hour = hub.hub.clock.wall().as_second() + 3600;
    let own = || device.resource("localhost");
    let key = &device.keys.primary;
    let signed = |token: &str| Connect { password: password(token), ..hub.connect_packet(&device) };
    let named = |name: &str| Connect { username: Some(name.to_owned()), ..hub.connect_packet(&device) };
    vec![
        (hub.connect_packet(&unknown), Outcome::UnknownDevice),
        (hub.connect_packet(&off), Outcome::Disabled),
        (Connect { password: None, ..hub.connect_packet(&device) }, Outcome::NoCredential),
        (
            Connect { password: password(&hub.token_for(&device, 3600)), ..hub.connect_packet_of("by-ca") },
            Outcome::WrongAuthMethod,
        ),
        (hub.connect_packet(&module), Outcome::SasSwitchedOff),
        (signed(&hub.token_for(&device, -1)), Outcome::SasExpired),
        (signed(&sign(&own(), &SymmetricKey::generate(), hour, None)), Outcome::SasBadSignature),
        (signed("open sesame"), Outcome::SasMalformed),
        (signed(&hub.token_for(&off, 3600)), Outcome::SasWrongAudience),
        (signed(&sign(&device.resource("other.example.com"), key, hour, None)), Outcome::HubUnknown),
        (signed(&sign("localhost", key, hour, Some("nobody"))), Outcome::UnknownPolicy),
        (signed(&hub.policy_token("service")), Outcome::RightMissing),
        (named("localhost/d2/?api-version=2021-04-12"), Outcome::ClientIdMismatch),
        (named("localhost/d1/?api-version="), Outcome::BadApiVersion),
        (named("localhost"), Outcome::BadUserName),
        (
            Connect { will: Some(will("devices/d2/messages/events/", "x")), ..hub.connect_packet(&device) },
            Outcome::WillRefused,
        ),
        (hub.connect_packet(&device), Outcome::ConnectionLimit),
    ]
}

#[tokio::test]
async fn t320_every_refusal_is_counted_by_its_outcome_alone() {
    let setting = |name: &str, value: &str| (format!("PORTCULLIS__{name}"), value.to_owned());
    let environment = vec![setting("SAS__MODULES", "false"), setting("LIMITS__CONNECTIONS_MAX", "1")];
    let hub = TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await;
    let metrics = &hub.hub.metrics;
    let _held = hub.connect(&hub.device("first").await).await;
    let mut driven = vec![(ConnectionOutcome::Succeeded, 1)];
    for (id, shown, outcome) in certificates(&hub).await {
        assert!(hub.connect_x509(id, &shown).await.is_err(), "{outcome:?}");
        driven.push((outcome, 1));
        assert_eq!(BTreeSet::from_iter(metrics.attempts_by_outcome()), BTreeSet::from_iter(driven.clone()));
    }
    for (connect, outcome) in connects(&hub).await {
        assert!(hub.connect_with(connect).await.is_err(), "{outcome:?}");
        driven.push((outcome, 1));
        assert_eq!(BTreeSet::from_iter(metrics.attempts_by_outcome()), BTreeSet::from_iter(driven.clone()));
    }
    assert_eq!(metrics.early_ends(ConnectionOutcome::Refused), driven.len() as u64 - 1);
    let driven: Vec<_> = driven.into_iter().map(|(outcome, _)| outcome).collect();
    let elsewhere = [
        // In tests/x509.rs, which has certificates of every kind.
        ConnectionOutcome::X509NotProven,
        ConnectionOutcome::X509Malformed,
        ConnectionOutcome::X509Expired,
        ConnectionOutcome::X509NotYetValid,
        ConnectionOutcome::X509CaUnverified,
        // In tests/takeover.rs.
        ConnectionOutcome::Overtaken,
        // Races between a verdict and a change of the registry: in tests/revocation.rs, with any of two outcomes.
        ConnectionOutcome::Deleted,
        ConnectionOutcome::CredentialChanged,
        ConnectionOutcome::AccessNarrowed,
        // Takes a store that fails while the hub goes on.
        ConnectionOutcome::StoreUnavailable,
    ];
    assert_all(Stage::Connect, &driven, &elsewhere);
    hub.stop().await;
}

#[tokio::test]
async fn every_connection_that_ends_before_a_session_is_counted_by_its_outcome() {
    let hub = TestHub::start_with_limits(&[("handshake_time_max", "1s"), ("connect_time_max", "2s")]).await;
    let count = |outcome| hub.hub.metrics.early_ends(outcome);
    let slow = (hub.tcp().await, hub.raw().await);
    hub.raw().await.send_packet(&Packet::PingReq).await;
    until(|| count(ConnectionOutcome::BadProtocol) == 1).await;
    drop(hub.raw().await);
    until(|| count(ConnectionOutcome::ConnectionLost) == 1).await;
    drop(hub.tcp().await);
    until(|| count(ConnectionOutcome::HandshakeFailed) == 1).await;
    let device = hub.device("d1").await;
    assert!(hub.connect_with(Connect { password: None, ..hub.connect_packet(&device) }).await.is_err());
    until(|| count(ConnectionOutcome::Refused) == 1).await;
    until(|| count(ConnectionOutcome::HandshakeTimeout) == 1).await;
    until(|| count(ConnectionOutcome::ConnectTimeout) == 1).await;
    drop(slow);
    let driven = [
        ConnectionOutcome::BadProtocol,
        ConnectionOutcome::ConnectionLost,
        ConnectionOutcome::HandshakeFailed,
        ConnectionOutcome::Refused,
        ConnectionOutcome::HandshakeTimeout,
        ConnectionOutcome::ConnectTimeout,
    ];
    // When the hub has stopped, nobody can ask it what it counted.
    assert_all(Stage::Early, &driven, &[ConnectionOutcome::Shutdown]);
    hub.stop().await;
}

#[tokio::test]
async fn every_session_that_ends_is_counted_by_its_outcome() {
    let hub = TestHub::start().await;
    let ended = async |outcome| until(|| hub.hub.metrics.disconnects(outcome) == 1).await;
    let device = hub.device("d1").await;
    hub.connect(&device).await.disconnect().await;
    ended(ConnectionOutcome::ClientDisconnected).await;
    drop(hub.connect(&device).await);
    ended(ConnectionOutcome::ConnectionLost).await;
    let mut client = hub.connect(&device).await;
    client.send(Packet::PingResp).await;
    ended(ConnectionOutcome::BadProtocol).await;
    let silent = Connect { keep_alive: 1, ..hub.connect_packet(&device) };
    let client = hub.connect_with(silent).await.unwrap();
    ended(ConnectionOutcome::KeepAliveMissed).await;
    drop(client);
    let clients = (hub.connect(&device).await, hub.connect(&device).await);
    ended(ConnectionOutcome::TakenOver).await;
    let access = Access::parse(["c2d"]).unwrap();
    hub.change(&device, |spec| spec.access = Some(access)).await;
    ended(ConnectionOutcome::AccessNarrowed).await;
    drop(clients);
    let mut client = hub.connect(&device).await;
    client.publish(&format!("{}/messages/events/", device.topic()), b"x").await;
    ended(ConnectionOutcome::AccessDenied).await;
    let short = Connect { password: password(&hub.token_for(&device, 2)), ..hub.connect_packet(&device) };
    let client = hub.connect_with(short).await.unwrap();
    ended(ConnectionOutcome::TokenExpired).await;
    drop(client);
    let client = hub.connect(&device).await;
    let new_keys = AuthenticationSpec::Sas {
        primary: Some(SymmetricKey::generate()),
        secondary: Some(SymmetricKey::generate()),
    };
    hub.change(&device, |spec| spec.authentication = new_keys).await;
    ended(ConnectionOutcome::CredentialChanged).await;
    drop(client);
    let (off, gone) = (hub.device("off").await, hub.device("gone").await);
    let clients = (hub.connect(&off).await, hub.connect(&gone).await);
    hub.disable(&off).await;
    ended(ConnectionOutcome::Disabled).await;
    hub.delete(&gone).await;
    ended(ConnectionOutcome::Deleted).await;
    drop(clients);

    let driven = [
        ConnectionOutcome::ClientDisconnected,
        ConnectionOutcome::ConnectionLost,
        ConnectionOutcome::BadProtocol,
        ConnectionOutcome::KeepAliveMissed,
        ConnectionOutcome::TakenOver,
        ConnectionOutcome::AccessNarrowed,
        ConnectionOutcome::AccessDenied,
        ConnectionOutcome::TokenExpired,
        ConnectionOutcome::CredentialChanged,
        ConnectionOutcome::Disabled,
        ConnectionOutcome::Deleted,
    ];
    let elsewhere = [
        // In tests/x509.rs and tests/hostile_mqtt.rs.
        ConnectionOutcome::CertificateExpired,
        ConnectionOutcome::SlowReader,
        // Takes a store that fails while the hub goes on.
        ConnectionOutcome::StoreUnavailable,
        // Never, as far as the rules of a session are checked in `session::core`.
        ConnectionOutcome::Internal,
        // When the hub has stopped, nobody can ask it what it counted.
        ConnectionOutcome::Shutdown,
    ];
    assert_all(Stage::Session, &driven, &elsewhere);
    hub.stop().await;
}
