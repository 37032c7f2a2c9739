//! The portal's hub-wide pages as somebody in front of a browser has them.

use std::time::Instant;

use portcullis::hub::history::{self, Sample};
use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::mqtt::packet::ConnectReturnCode;
use portcullis::operations::overview;
use portcullis_testing::TestHub;
use portcullis_testing::chromium::Chromium;
use portcullis_testing::openssl::OpenSsl;
use serde_json::json;

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_browser_tells_what_a_page_does_wrong() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    let page = browser.page(&hub).await;
    assert_eq!(page.go("/healthz").await, 200);
    assert_eq!(page.go("/nowhere").await, 404);
    assert_eq!(page.mishaps(), [""; 0]);
    page.value(
        "setTimeout(() => { alert('hello'); console.error('an error'); document.title = 'ended'; }), 0",
    )
    .await;
    page.until("document.title == 'ended'").await;
    page.value("setTimeout(() => { document.body.id = 'thrown'; throw new Error('thrown') }), 0").await;
    page.wait_for("#thrown").await;
    page.value("document.body.innerHTML = '<img src=/x alt=\"\"><a href=/x style=\"color: #eee\"></a>'")
        .await;
    assert!(page.barriers().await.iter().any(|found| found.contains("link-name")));
    assert_eq!(page.go("/portal").await, 200);
    page.viewport(360, 740).await;
    page.value("document.body.innerHTML = '<table><tr><td>' + 'x'.repeat(1000)").await;
    assert!(page.overflow().await > 0);
    page.value("document.body.append(Object.assign(document.createElement('b'), {style: 'color: red'}))")
        .await;
    page.value("document.body.insertAdjacentHTML('beforeend', '<img src=\"/x\" onerror=\"alert(1)\">')")
        .await;
    for mishap in ["hello", "an error", "thrown", "script-src"] {
        page.wait_for_mishap(mishap).await;
    }
    hub.stop().await;
}

/// Has the hub remember an hour in which more and more was done.
fn an_hour_passes(hub: &TestHub) {
    let (metrics, now) = (&hub.hub.metrics, Instant::now());
    for place in (1..u32::try_from(history::SAMPLES_MAX).expect("a few")).rev() {
        let wave = usize::try_from(place * place % 17).expect("a few");
        (0..wave + 3).for_each(|_| metrics.connection_attempt(ConnectionOutcome::Succeeded));
        (0..wave / 3).for_each(|_| metrics.connection_attempt(ConnectionOutcome::SasExpired));
        (0..wave / 7).for_each(|_| metrics.connection_attempt(ConnectionOutcome::UnknownDevice));
        (0..wave * 20).for_each(|_| metrics.received(10));
        metrics.c2d_delivered.inc_by(u64::from(place % 5));
        // A machine that was started within the hour has no such moment.
        let Some(taken) = now.checked_sub(history::INTERVAL * place) else { continue };
        hub.hub.history.note(Sample {
            connected: 40 + wave,
            queued: wave,
            ..overview::sample(&hub.hub, taken)
        });
    }
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_overview_shows_what_the_fleet_does() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    let page = browser.signed_in(&hub, "iothubowner").await;
    page.wait_for_text("#glance .empty", "No devices yet").await;
    page.look_at("overview-empty").await;
    let device = hub.device("pump-7").await;
    let disabled = hub.device("pump-8").await;
    hub.disable(&disabled).await;
    let mut client = hub.connect(&device).await;
    client.publish_acknowledged("devices/pump-7/messages/events/", b"{}").await;
    assert_eq!(
        hub.connect_with(hub.connect_packet(&disabled)).await.err(),
        Some(ConnectReturnCode::NotAuthorized)
    );
    an_hour_passes(&hub);
    page.go("/portal").await;
    page.wait_for_text("#glance", "identity pump-8 is disabled").await;
    page.wait_for_text(".bars", "sas expired").await;
    assert_eq!(page.text(".tile:last-child strong").await, "1");
    page.look_at("overview").await;
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_owner_makes_a_policy_and_takes_it_away_again() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    let page = browser.signed_in(&hub, "iothubowner").await;
    page.follow("nav a[href='/portal/policies']").await;
    page.look_at("policies").await;
    page.fill("#name", "bad name").await;
    page.click("#RegistryRead").await;
    assert_eq!(page.follow("form .primary").await, 400);
    assert!(page.text("#name-says").await.contains("letters, digits and"));
    assert_eq!(page.field("#name").await, "bad name");
    page.fill("#name", "reader").await;
    assert_eq!(page.follow("form .primary").await, 200);
    assert_eq!(page.text("h1").await, "reader");
    assert!(!page.text("main").await.contains("SharedAccessKey="));
    page.look_at("policy").await;
    page.follow("form[action$='/reveal'] button").await;
    let key = hub.hub.policies().find("reader").expect("it is created").keys.primary.to_base64();
    assert!(
        page.text("#secret-primary-connection-string").await.ends_with(&format!("SharedAccessKey={}", &*key))
    );
    page.look_at("policy-revealed").await;
    page.click("details:nth-of-type(1) > summary").await;
    page.follow("details:nth-of-type(1) button").await;
    page.wait_for_text(".notice", "new primary key").await;
    assert_ne!(hub.hub.policies().find("reader").expect("it stays").keys.primary.to_base64(), key);
    page.click("details:last-of-type > summary").await;
    page.follow("form[action$='/delete'] button").await;
    page.wait_for_text(".notice", "The policy reader is deleted").await;
    assert!(hub.hub.policies().find("reader").is_none());
    page.go("/portal/audit").await;
    for done in ["create policy", "reveal credential", "regenerate policy", "delete policy"] {
        page.wait_for_text("tbody", done).await;
    }
    assert_eq!(page.mishaps(), [""; 0]);
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn somebody_enrols_a_ca_and_shows_that_its_key_is_held() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    let page = browser.signed_in(&hub, "iothubowner").await;
    page.follow("nav a[href='/portal/authorities']").await;
    page.look_at("authorities-empty").await;
    let openssl = OpenSsl::new();
    openssl.self_signed("ca", "/CN=fleet", "");
    page.fill("#name", "fleet").await;
    page.fill("#certificate", "not PEM").await;
    assert_eq!(page.follow("form .primary").await, 400);
    page.wait_for("#certificate-says .error").await;
    page.drop_file("#certificate", "ca.pem", &openssl.read("ca.pem")).await;
    page.until("document.querySelector('#certificate').value.startsWith('-----BEGIN')").await;
    assert_eq!(page.follow("form .primary").await, 200);
    page.follow("form[action$='/code'] button").await;
    page.look_at("authority-code").await;
    let code = page.text("#code").await;
    openssl.signed("proof", &format!("/CN={code}"), "ca", "", "");
    openssl.signed("other", "/CN=other", "ca", "", "");
    page.fill("#proof", &openssl.read("other.pem")).await;
    assert_eq!(page.follow("form[action$='/verify'] button").await, 400);
    page.wait_for_text("#proof-says", "stays unverified").await;
    page.fill("#proof", &openssl.read("proof.pem")).await;
    assert_eq!(page.follow("form[action$='/verify'] button").await, 200);
    page.wait_for_text(".chip", "Verified by proof").await;
    page.look_at("authority").await;
    page.go("/portal/authorities").await;
    page.look_at("authorities").await;
    page.go("/portal").await;
    page.wait_for_text(".health", "The CA fleet expires on").await;
    page.go("/portal/authorities/fleet").await;
    page.click("details.sure > summary").await;
    page.follow("form[action$='/delete'] button").await;
    page.wait_for_text(".empty", "No CA is enrolled").await;
    page.go("/portal/audit").await;
    page.look_at("audit").await;
    page.value("window.here = true").await;
    let created = json!({"deviceId": "new"});
    assert_eq!(hub.rest().call("PUT", "/devices/new?api-version=2021-04-12", Some(created)).await.0, 200);
    page.wait_for_text("tbody tr:first-child", "create identity").await;
    assert_eq!(page.value("window.here").await, true, "the page followed by itself");
    page.choose("#operation", "enrolAuthority").await;
    page.follow(".filters button").await;
    assert_eq!(page.value("document.querySelectorAll('tbody tr').length").await, 2);
    assert_eq!(page.mishaps(), [""; 0]);
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn a_page_that_is_open_shows_what_happens() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    let device = hub.device("pump-7").await;
    let page = browser.signed_in(&hub, "iothubowner").await;
    page.go("/portal/devices").await;
    page.wait_for_text("[data-connection-of='pump-7']", "Disconnected").await;
    let client = hub.connect(&device).await;
    page.wait_for_text("[data-connection-of='pump-7']", "Connected").await;
    page.look_at("devices").await;
    client.disconnect().await;
    page.wait_for_text("[data-connection-of='pump-7']", "Disconnected").await;

    page.go("/portal/devices/pump-7/telemetry").await;
    page.wait_for_text("[data-live-status]", "live").await;
    page.look_at("telemetry-empty").await;
    let mut client = hub.connect(&device).await;
    page.wait_for_text("[data-connection-of='pump-7']", "Connected").await;
    let hostile = "<img src=x onerror=alert(1)><script>alert(2)</script>";
    let topic = "devices/pump-7/messages/events/alert=%3Cscript%3Ealert(3)%3C%2Fscript%3E&level=high";
    client.publish_acknowledged(topic, hostile.as_bytes()).await;
    page.wait_for_text("ol.messages li:first-child pre", hostile).await;
    page.wait_for_text("ol.messages li:first-child .head", "alert=<script>alert(3)</script>").await;
    client.publish_acknowledged("devices/pump-7/messages/events/", b"\x00\x01\xff").await;
    page.wait_for_text("ol.messages li:first-child pre", "00 01 ff").await;
    page.wait_for_text("[data-live-count]", "2 messages").await;
    page.look_at("telemetry").await;
    page.click("[data-live-pause]").await;
    client.publish_acknowledged("devices/pump-7/messages/events/", b"not shown").await;
    page.wait_for_text("[data-live-count]", "3 messages").await;
    assert_eq!(page.value("document.querySelectorAll('ol.messages li').length").await, 2);
    page.click("[data-live-clear]").await;
    page.until("document.querySelectorAll('ol.messages li').length === 0").await;
    hub.disable(&device).await;
    assert!(hub.connect_with(hub.connect_packet(&device)).await.is_err());
    page.wait_for_text("[data-live-refused]", "identity pump-7 is disabled").await;
    assert_eq!(page.mishaps(), [""; 0]);
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn a_fleet_goes_out_and_comes_in_and_is_taken_back() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    hub.device("pump-7").await;
    let page = browser.signed_in(&hub, "iothubowner").await;
    page.follow("nav a[href='/portal/jobs']").await;
    page.look_at("jobs-empty").await;
    page.click("#keys").await;
    page.follow("form[action$='/export'] .primary").await;
    page.wait_for_text("#job .chip", "Completed").await;
    page.look_at("job-export").await;
    let file = page.value("document.querySelector('a[download]').getAttribute('href')").await;
    let get = format!("fetch({file}).then(answer => answer.text())");
    let exported = page.value(&get).await;
    let exported = exported.as_str().expect("a text");
    assert!(exported.contains("\"pump-7\"") && exported.contains("primaryKey"), "{exported}");

    let directory = tempfile::tempdir().expect("a directory");
    let upload = directory.path().join("devices.txt");
    let line = |id: &str| json!({"id": id, "importMode": "create"}).to_string();
    std::fs::write(&upload, [line("new-1"), line("new-2"), line("bad/id")].join("\n")).expect("a file");
    page.go("/portal/jobs").await;
    page.choose_file("#file", &upload).await;
    page.follow("#import ~ form .primary").await;
    page.wait_for_text("#job .chip", "Completed").await;
    page.wait_for_text("#job", "Created (would be)").await;
    assert_eq!(hub.hub.registry.counts().devices, 1);
    page.go("/portal/jobs").await;
    page.choose_file("#file", &upload).await;
    page.click("#dry-run").await;
    page.follow("#import ~ form .primary").await;
    page.wait_for_text("#job .chip", "Completed").await;
    page.look_at("job-import").await;
    assert_eq!(hub.hub.registry.counts().devices, 3);
    let refused =
        "fetch(document.querySelector('a[download=\"importErrors.log\"]').href).then(a => a.text())";
    assert!(page.value(refused).await.as_str().is_some_and(|text| text.contains("bad/id")));
    page.click("details.sure > summary").await;
    page.follow("form[action$='/rollback'] button").await;
    page.wait_for_text("#job .chip", "Completed").await;
    assert_eq!(hub.hub.registry.counts().devices, 1);
    page.go("/portal/jobs").await;
    page.look_at("jobs").await;
    assert_eq!(page.mishaps(), [""; 0]);
    hub.stop().await;
}
