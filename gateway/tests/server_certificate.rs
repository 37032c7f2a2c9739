//! The server's own certificate: brought along, replaced while devices are connected, about to end (threats T115).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use portcullis::hub::certificate_reload;
use portcullis_certs::testing::{TestCa, TestCert, set_time};
use portcullis_testing::{HubSettings, TestHub};
use rustls_pki_types::CertificateDer;
use tempfile::TempDir;

/// Files with a certificate and its key, and a hub that serves them.
struct Own {
    ca: TestCa,
    directory: TempDir,
}

impl Own {
    fn new() -> Self {
        Self { ca: TestCa::new(), directory: TempDir::new().unwrap() }
    }

    fn put(&self, cert: &TestCert) {
        fs::write(self.directory.path().join("chain.pem"), &cert.certificate_pem).unwrap();
        fs::write(self.directory.path().join("key.pem"), &cert.key_pem).unwrap();
    }

    async fn start(&self) -> TestHub {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let environment = vec![
            ("PORTCULLIS__TLS__CERTIFICATE".to_owned(), path("chain.pem")),
            ("PORTCULLIS__TLS__KEY".to_owned(), path("key.pem")),
        ];
        let settings = HubSettings { environment, ..HubSettings::default() };
        TestHub::start_trusting(settings, self.ca.pem()).await
    }
}

/// What the hub shows whoever connects now.
async fn shown(hub: &TestHub) -> CertificateDer<'static> {
    let stream = hub.tls_to("localhost").await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

async fn metric(hub: &TestHub, name: &str) -> String {
    let (_, text) = hub.ops("/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().to_owned()
}

#[tokio::test]
async fn t115_a_good_new_pair_is_shown_from_the_next_handshake_on_and_a_bad_one_changes_nothing() {
    let own = Own::new();
    let (first, second) = (own.ca.server(&["localhost"]), own.ca.server(&["localhost"]));
    own.put(&first);
    let hub = own.start().await;
    hub.announce("the new server certificate cannot be used");
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    assert_eq!(shown(&hub).await, first.certificate);

    own.put(&second);
    assert!(certificate_reload::reload(&hub.hub).await);
    assert_eq!(shown(&hub).await, second.certificate);
    client.settle().await;

    for (chain, key) in [
        (&first.certificate_pem, &second.key_pem),
        (&"rubbish".to_owned(), &second.key_pem),
        (&first.certificate_pem, &String::new()),
        (&own.ca.expired_server(&["localhost"]).certificate_pem, &first.key_pem),
    ] {
        fs::write(own.directory.path().join("chain.pem"), chain).unwrap();
        fs::write(own.directory.path().join("key.pem"), key).unwrap();
        assert!(!certificate_reload::reload(&hub.hub).await);
        assert_eq!(shown(&hub).await, second.certificate);
    }
    fs::remove_file(own.directory.path().join("key.pem")).unwrap();
    assert!(!certificate_reload::reload(&hub.hub).await);
    assert_eq!(metric(&hub, "portcullis_cert_reloads_total{outcome=\"failed\"}").await, "5");
    assert_eq!(metric(&hub, "portcullis_cert_reloads_total{outcome=\"succeeded\"}").await, "1");
    client.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t115_thirty_days_before_its_end_the_operator_is_warned_and_the_metric_tells_when() {
    let own = Own::new();
    let soon = own.ca.server_with(&["localhost"], |params| set_time(params, -60, 29 * 24 * 60 * 60));
    let later = own.ca.server_with(&["localhost"], |params| set_time(params, -60, 31 * 24 * 60 * 60));
    own.put(&later);
    let hub = own.start().await;
    let ends = metric(&hub, "portcullis_cert_expiry_timestamp_seconds{listener=\"mqtt\"}").await;
    assert_eq!(ends, hub.hub.tls.expires().as_second().to_string());
    own.put(&soon);
    hub.announce("the server certificate expires soon");
    assert!(certificate_reload::reload(&hub.hub).await);
    let sooner = metric(&hub, "portcullis_cert_expiry_timestamp_seconds{listener=\"https\"}").await;
    assert!(sooner.parse::<i64>().unwrap() < ends.parse::<i64>().unwrap());
    assert!(hub.heard("the server certificate expires soon"));
    hub.stop().await;
}
