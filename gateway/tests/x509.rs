//! Devices and modules that prove themselves with client certificates (threats T4xx).

use portcullis::mqtt::packet::ConnectReturnCode;
use portcullis::testing::x509::{Shown, thumbprints};
use portcullis::testing::{TestHub, TestIdentity};
use portcullis_certs::testing::TestCa;

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
