//! Who is refused, what they hear, and what the operator hears (threats T3xx over the wire).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::mqtt::packet::{Connect, ConnectReturnCode, Password};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::sas::sign;
use portcullis_testing::{TestHub, TestIdentity};

/// Connects with another password; the operator's reason for the refusal.
async fn refused(hub: &TestHub, device: &TestIdentity, password: Option<&str>) -> String {
    let connect = Connect {
        password: password.map(|text| Password::from_bytes(text.as_bytes())),
        ..hub.connect_packet(device)
    };
    assert_eq!(hub.connect_with(connect).await.err(), Some(ConnectReturnCode::NotAuthorized));
    hub.hub.refusals.last(&device.id).expect("the refusal is remembered").outcome.label().to_owned()
}

#[tokio::test]
async fn t320_every_refusal_sounds_alike_and_the_operator_hears_the_reason() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let other = hub.device("d10").await;
    let disabled = hub.device("off").await;
    hub.disable(&disabled).await;
    let mut unknown = device.clone();
    unknown.id = IdentityId::device(DeviceId::parse("nobody").unwrap());
    let mut wrong_case = device.clone();
    wrong_case.id = IdentityId::device(DeviceId::parse("D1").unwrap());
    let host = "localhost";
    let hour = hub.hub.clock.wall().as_second() + 3600;
    let key = &device.keys.primary;

    let good = |identity: &TestIdentity| hub.token_for(identity, 3600);
    assert_eq!(refused(&hub, &unknown, Some(&good(&unknown))).await, "unknown_device");
    assert_eq!(refused(&hub, &wrong_case, Some(&good(&wrong_case))).await, "unknown_device");
    assert_eq!(refused(&hub, &disabled, Some(&good(&disabled))).await, "disabled");
    assert_eq!(refused(&hub, &device, Some(&hub.token_for(&device, -1))).await, "sas_expired");
    assert_eq!(refused(&hub, &device, Some(&good(&other))).await, "sas_wrong_audience");
    assert_eq!(refused(&hub, &device, None).await, "no_credential");
    assert_eq!(refused(&hub, &device, Some("open sesame")).await, "sas_malformed");
    let wrong_key = sign(&device.resource(host), &SymmetricKey::generate(), hour, None);
    assert_eq!(refused(&hub, &device, Some(&wrong_key)).await, "sas_bad_signature");
    let other_hub = sign(&device.resource("other.example.com"), key, hour, None);
    assert_eq!(refused(&hub, &device, Some(&other_hub)).await, "hub_unknown");
    let unknown_policy = sign(host, key, hour, Some("nobody"));
    assert_eq!(refused(&hub, &device, Some(&unknown_policy)).await, "unknown_policy");
    assert_eq!(refused(&hub, &device, Some(&hub.policy_token("service"))).await, "right_missing");
    assert_eq!(hub.hub.metrics.attempts(ConnectionOutcome::UnknownDevice), 2);

    let mut with_policy = hub.connect_packet(&device);
    with_policy.password = Some(Password::from_bytes(hub.policy_token("device").as_bytes()));
    assert!(hub.connect_with(with_policy).await.is_ok());
    hub.stop().await;
}

#[tokio::test]
async fn t608_another_identitys_credential_never_disturbs_the_victim() {
    let hub = TestHub::start().await;
    let victim = hub.device("victim").await;
    let thief = hub.device("thief").await;
    let mut connected = hub.connect(&victim).await;
    let stolen_id = Connect { client_id: "victim".into(), ..hub.connect_packet(&thief) };
    let stolen_name =
        Connect { username: hub.connect_packet(&victim).username, ..hub.connect_packet(&thief) };
    let both = Connect { password: hub.connect_packet(&thief).password, ..hub.connect_packet(&victim) };
    for connect in [stolen_id, stolen_name, both] {
        assert_eq!(hub.connect_with(connect).await.err(), Some(ConnectReturnCode::NotAuthorized));
    }
    connected.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t322_known_user_names_work_and_others_are_refused() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let name = |name: &str| Connect { username: Some(name.to_owned()), ..hub.connect_packet(&device) };
    for good in [
        "localhost/d1/?api-version=2021-04-12",
        "LocalHost/d1/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%28Linux%29",
        "localhost/d1/?api-version=2020-09-30&DeviceClientType=x&model-id=dtmi%3Aa%3B1",
        "localhost/d1/api-version=2016-11-14",
    ] {
        assert!(hub.connect_with(name(good)).await.is_ok(), "{good}");
    }
    let long = format!("localhost/d1/?api-version=2021-04-12&x={}", "y".repeat(9000));
    for bad in [
        "",
        "d1",
        "localhost",
        "localhost//?api-version=2021-04-12",
        "other.example.com/d1/?api-version=2021-04-12",
        "localhost/d10/?api-version=2021-04-12",
        "localhost/D1/?api-version=2021-04-12",
        "localhost/d1/m/?api-version=2021-04-12",
        "localhost/d1/?DeviceClientType=x",
        "localhost/d1/?api-version=",
        &long,
    ] {
        assert_eq!(
            hub.connect_with(name(bad)).await.err(),
            Some(ConnectReturnCode::NotAuthorized),
            "{bad:.60}"
        );
    }
    hub.stop().await;
}

#[tokio::test]
async fn t313_a_service_hears_what_its_policy_grants_and_no_more() {
    let hub = TestHub::start().await;
    // A policy that acts for devices is nobody without one.
    assert!(hub.connect_service("device").await.is_err());
    for (policy, codes) in [
        ("registryRead", [0x80, 0x80, 1, 0x80, 0x80, 1]),
        ("registryReadWrite", [0x80, 0x80, 1, 0x80, 0x80, 1]),
        ("service", [0x80, 0x80, 1, 1, 1, 0x80]),
        ("iothubowner", [0x80, 0x80, 1, 1, 1, 1]),
    ] {
        let mut service = hub.connect_service(policy).await.unwrap();
        let filters = [
            "devices/+/messages/devicebound/#",
            "#",
            "$admin/res/#",
            "devices/d1/messages/events/#",
            "$admin/feedback",
            "$admin/events/#",
        ];
        assert_eq!(service.subscribe(&filters).await, codes, "{policy}");
        service.publish("devices/d1/messages/devicebound/", b"x").await;
        assert!(service.closed().await);
    }
    hub.stop().await;
}
