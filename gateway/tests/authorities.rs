//! Enrolled CAs over REST: enrolment, proof of possession, refusals, removal (threats T408, T412).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis_certs::testing::TestCa;
use portcullis_registry::identity::AuthenticationSpec;
use portcullis_testing::openssl::OpenSsl;
use portcullis_testing::x509::Shown;
use portcullis_testing::{RestClient, TestHub};
use serde_json::{Value, json};

const ALL: &str = "/api/v1/certificate-authorities";
const FLEET: &str = "/api/v1/certificate-authorities/fleet";

async fn put_pem(rest: &RestClient, path: &str, pem: &str) -> (u16, Value) {
    let response = rest.request("PUT", path).body(pem.to_owned()).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

async fn code(rest: &RestClient) -> String {
    let (status, code) = rest.call("POST", &format!("{FLEET}/verification-code"), None).await;
    assert_eq!(status, 200, "{code}");
    code["verificationCode"].as_str().unwrap().to_owned()
}

async fn verify(rest: &RestClient, proof: &str) -> (u16, Value) {
    rest.call("POST", &format!("{FLEET}/verify"), Some(json!({ "certificate": proof }))).await
}

#[tokio::test]
async fn a_ca_is_enrolled_verified_by_its_key_used_and_removed() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let ca = TestCa::root("fleet root");
    hub.register("d1", AuthenticationSpec::CertificateAuthority).await;
    let device = Shown::alone(&ca.device("d1"));

    let (status, enrolled) = put_pem(&rest, FLEET, ca.pem()).await;
    assert_eq!(status, 200, "{enrolled}");
    assert_eq!((&enrolled["name"], &enrolled["subject"]), (&json!("fleet"), &json!("CN=fleet root")));
    assert_eq!((&enrolled["verified"], &enrolled["verification"]), (&json!(false), &json!("none")));
    assert_eq!(enrolled["certificate"], ca.pem().trim_start().replace('\r', ""));
    // T408: enrolled is not verified, and the operator hears what is missing.
    assert!(hub.connect_x509("d1", &device).await.is_err());
    assert!(
        hub.last_refusal("d1")
            .contains("enrolled but not verified; run `portcullis cert ca verify --name fleet`")
    );

    let first = code(&rest).await;
    let good = code(&rest).await;
    assert_ne!(first, good);
    let proof = |code: &str| ca.device(code).certificate_pem;
    // T412: the wrong code, one that was renewed since, another CA's proof.
    for bad in [proof("wrong"), proof(&first), TestCa::root("fleet root").device(&good).certificate_pem] {
        let (status, refused) = verify(&rest, &bad).await;
        assert_eq!(status, 400, "{refused}");
        assert!(refused["Message"].as_str().unwrap().contains("stays unverified"), "{refused}");
    }
    let (status, verified) = verify(&rest, &proof(&good)).await;
    assert_eq!((status, &verified["verification"]), (200, &json!("proven")), "{verified}");
    // A code is used up.
    assert_eq!(verify(&rest, &proof(&good)).await.0, 400);
    let mut client = hub.connect_x509("d1", &device).await.unwrap();
    client.settle().await;

    let (_, listed) = rest.call("GET", ALL, None).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert!(listed[0].get("certificate").is_none());
    assert_eq!(rest.call("GET", FLEET, None).await.1, verified);
    assert_eq!(rest.call("DELETE", FLEET, None).await.0, 204);
    assert!(client.closed().await);
    assert_eq!(rest.call("DELETE", FLEET, None).await.0, 404);
    hub.stop().await;
}

#[tokio::test]
async fn t412_a_proof_made_by_openssls_recipe_is_taken() {
    let openssl = OpenSsl::new();
    openssl.self_signed("fleet", "/CN=fleet", "-newkey rsa:2048");
    let hub = TestHub::start().await;
    let rest = hub.rest();
    assert_eq!(put_pem(&rest, FLEET, &openssl.read("fleet.pem")).await.0, 200);
    let code = code(&rest).await;
    openssl.request("proof", &format!("/CN={code}"), "rsa:2048");
    openssl.sign("proof", "fleet", "", "-sha1");
    let (status, refused) = verify(&rest, &openssl.read("proof.pem")).await;
    assert!(status == 400 && refused.to_string().contains("SHA-1"), "{refused}");
    openssl.sign("proof", "fleet", "", "");
    let (status, verified) = verify(&rest, &openssl.read("proof.pem")).await;
    assert_eq!(status, 200, "{verified}");
    hub.stop().await;
}

#[tokio::test]
async fn t412_what_is_no_ca_certificate_is_refused_and_nothing_is_kept() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let ca = TestCa::root("fleet");
    let key = ca.authority().key().to_pem();
    let expired = TestCa::root_with("old", |params| portcullis_certs::testing::set_time(params, -200, -100));
    for (bad, words) in [
        (ca.device("d1").certificate_pem, "not a CA certificate"),
        (format!("{}{key}", ca.pem()), "private key"),
        (key.clone(), "private key"),
        (ca.pem().repeat(100), "100 certificates"),
        ("x".repeat(1 << 20), "no certificate"),
        (String::new(), "no certificate"),
        (expired.pem().to_owned(), "expired at"),
    ] {
        let (status, refused) = put_pem(&rest, FLEET, &bad).await;
        assert_eq!(status, 400, "{words}");
        let message = refused["Message"].as_str().unwrap();
        assert!(message.contains(words) && !message.contains("PRIVATE"), "{message}");
    }
    let pem = ca.pem();
    for body in [
        json!({ "certificate": pem, "verified": true }),
        json!({ "certificate": pem, "verified": true, "reason": " " }),
        json!({ "certificate": 1 }),
        json!({}),
    ] {
        assert_eq!(rest.call("PUT", FLEET, Some(body)).await.0, 400);
    }
    for name in ["a%20b", "..", "%2e%2e", &"x".repeat(65)] {
        assert_ne!(put_pem(&rest, &format!("{ALL}/{name}"), pem).await.0, 200, "{name}");
    }
    assert_eq!(rest.call("GET", ALL, None).await.1, json!([]));
    assert_eq!(hub.hub.registry.meta("authorities"), None);
    hub.stop().await;
}

#[tokio::test]
async fn a_ca_is_replaced_only_by_who_knows_its_etag() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let (one, two) = (TestCa::root("one"), TestCa::root("two"));
    let (_, enrolled) = put_pem(&rest, FLEET, one.pem()).await;
    assert_eq!(put_pem(&rest, FLEET, two.pem()).await.0, 409);
    assert_eq!(put_pem(&rest, &format!("{ALL}/other"), one.pem()).await.0, 409);
    let replace = async |etag: &str| {
        let request = rest.request("PUT", FLEET).header("if-match", etag).body(two.pem().to_owned());
        request.send().await.unwrap().status().as_u16()
    };
    let etag = format!("\"{}\"", enrolled["etag"].as_str().unwrap());
    assert_eq!(replace("\"AAA=\"").await, 412);
    assert_eq!(replace(&etag).await, 200);
    assert_eq!(replace(&etag).await, 412);
    assert_eq!(rest.call("GET", FLEET, None).await.1["subject"], "CN=two");
    hub.stop().await;
}

#[tokio::test]
async fn t313_reading_takes_the_right_to_read_and_changing_the_right_to_write() {
    let hub = TestHub::start().await;
    hub.enrol("fleet", &TestCa::root("fleet")).await;
    let reads = [("GET", ALL.to_owned()), ("GET", FLEET.to_owned())];
    let writes = [
        ("PUT", FLEET.to_owned()),
        ("POST", format!("{FLEET}/verification-code")),
        ("POST", format!("{FLEET}/verify")),
        ("DELETE", FLEET.to_owned()),
    ];
    let pem = TestCa::root("other").pem().to_owned();
    for (policy, reads_too) in [("registryRead", true), ("service", false), ("device", false)] {
        let mut rest = hub.rest();
        rest.token = Some(hub.policy_token(policy));
        for (method, path) in &reads {
            let status = rest.call(method, path, None).await.0;
            assert_eq!(status, if reads_too { 200 } else { 401 }, "{policy} {path}");
        }
        for (method, path) in &writes {
            let status = rest.call(method, path, Some(json!({ "certificate": pem }))).await.0;
            assert_eq!(status, 401, "{policy} {method} {path}");
        }
        let verdict = "/api/v1/devices/d1/certificate-verdict";
        let status = rest.call("POST", verdict, Some(json!({ "certificate": pem }))).await.0;
        assert_eq!(status, if reads_too { 200 } else { 401 }, "{policy}");
    }
    let mut nobody = hub.rest();
    nobody.token = None;
    for (method, path) in reads.iter().chain(&writes) {
        assert_eq!(nobody.call(method, path, None).await.0, 401, "{method} {path}");
    }
    assert_eq!(hub.rest().call("GET", ALL, None).await.1.as_array().unwrap().len(), 1);
    hub.stop().await;
}

#[tokio::test]
async fn a_certificate_is_judged_before_a_device_has_it() {
    let hub = TestHub::start().await;
    let ca = TestCa::root("fleet");
    hub.enrol("fleet", &ca).await;
    hub.register("d1", AuthenticationSpec::CertificateAuthority).await;
    hub.register("d1/m1", AuthenticationSpec::CertificateAuthority).await;
    let judge = async |path: &str, name: &str| {
        let body = json!({ "certificate": ca.device(name).certificate_pem });
        hub.rest().call("POST", &format!("/api/v1/devices/{path}/certificate-verdict"), Some(body)).await.1
    };
    assert_eq!(judge("d1", "d1").await, json!({ "admitted": true, "outcome": "succeeded", "reason": null }));
    assert_eq!(judge("d1/modules/m1", "d1/m1").await["admitted"], true);
    let refused = judge("d1", "d2").await;
    assert_eq!(refused["outcome"], "x509_name_mismatch");
    assert_eq!(refused["reason"], "the client certificate's common name is \"d2\" and must be \"d1\"");
    assert_eq!(judge("d9", "d9").await["outcome"], "unknown_device");
    hub.stop().await;
}

#[tokio::test]
async fn t906_stored_cas_that_cannot_be_read_refuse_the_start() {
    let hub = TestHub::start().await;
    hub.enrol("fleet", &TestCa::root("fleet")).await;
    hub.hub.registry.put_meta("authorities", b"damaged".to_vec()).await.unwrap();
    let refused = hub.restart_or_fail().await.unwrap_err();
    assert!(format!("{refused:#}").contains("CA certificates are damaged"), "{refused:#}");
}
