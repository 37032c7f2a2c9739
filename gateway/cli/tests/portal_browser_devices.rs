//! Devices in the portal as somebody in front of a browser makes and looks after them.

use std::path::Path;

use portcullis::mqtt::packet::Publish;
use portcullis::portal::{PageNeeds, routes};
use portcullis_certs::testing::{TestCa, TestCert};
use portcullis_registry::identity::Status;
use portcullis_registry::message::NewC2d;
use portcullis_testing::chromium::{Chromium, Page};
use portcullis_testing::hostile::hostile_texts;
use portcullis_testing::{TestClient, TestHub, tools, within};
use serde_json::json;

/// Fills in an id on the page for a new device and waits until it is found to be free.
async fn name(page: &Page, id: &str) {
    assert_eq!(page.go("/portal/new-device").await, 200);
    page.fill("#id", id).await;
    page.wait_for_text("#id-says", "This id is free").await;
}

/// Runs the commands that a device's page shows for mosquitto, up to those that wait for ever; what the hub got.
async fn run_shown(page: &Page, directory: &Path, events: &mut TestClient) -> Publish {
    let mosquitto = tools::mosquitto();
    page.click("#snippet-mosquitto").await;
    let shown = page.text("#snippet-mosquitto").await;
    let (publish, _) = shown.split_once("mosquitto_sub").expect("it also subscribes");
    let mut shell = mosquitto.shell(Path::new(env!("CARGO_BIN_EXE_portcullis")));
    shell.args(["-e", "-c", publish]).current_dir(directory);
    let ended = within(tokio::process::Command::from(shell).output()).await.expect("a shell runs");
    assert!(ended.status.success(), "{publish}\n{}", String::from_utf8_lossy(&ended.stderr));
    events.take_message().await
}

fn write(directory: &Path, name: &str, own: &TestCert) {
    std::fs::write(directory.join(format!("{name}.pem")), &own.certificate_pem).expect("a file");
    std::fs::write(directory.join(format!("{name}-key.pem")), &own.key_pem).expect("a file");
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn a_newcomer_creates_a_device_of_each_kind_and_runs_what_is_shown() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    let page = browser.signed_in(&hub, "iothubowner").await;
    let mut events = hub.events().await;
    let directory = tempfile::tempdir().expect("a directory");
    page.follow("#glance .empty a.primary").await;
    page.look_at("new-device").await;

    name(&page, "pump-7").await;
    assert_eq!(page.follow("form .primary").await, 200);
    page.look_at("created").await;
    page.click(".reveal button").await;
    page.wait_for("#secret-primary-connection-string").await;
    let connection_string = page.text("#secret-primary-connection-string").await;
    assert!(connection_string.starts_with("HostName=localhost;DeviceId=pump-7;SharedAccessKey="));
    page.click("#snippet-python").await;
    page.look_at("created-revealed").await;
    page.click("details:has(#snippet-mosquitto) > summary").await;
    let sent = run_shown(&page, directory.path(), &mut events).await;
    assert!(sent.topic.as_str().starts_with("devices/pump-7/messages/events/"), "{}", sent.topic.as_str());

    let own = TestCa::self_signed_device("whatever");
    write(directory.path(), "pump-8", &own);
    name(&page, "pump-8").await;
    page.click("#auth-selfSigned").await;
    page.click("details:has(#primary-certificate) > summary").await;
    page.drop_file("#primary-certificate", "pump-8.pem", &own.certificate_pem).await;
    page.until("document.querySelector('#primary-thumbprint').value.length === 64").await;
    page.look_at("new-device-x509").await;
    assert_eq!(page.follow("form .primary").await, 200);
    page.click("details:has(#snippet-mosquitto) > summary").await;
    let sent = run_shown(&page, directory.path(), &mut events).await;
    assert!(sent.topic.as_str().starts_with("devices/pump-8/messages/events/"));

    let ca = TestCa::root("fleet");
    hub.enrol("fleet", &ca).await;
    write(directory.path(), "pump-9", &ca.device("pump-9"));
    name(&page, "pump-9").await;
    page.click("#auth-certificateAuthority").await;
    assert_eq!(page.follow("form .primary").await, 200);
    page.click("details:has(#snippet-mosquitto) > summary").await;
    let sent = run_shown(&page, directory.path(), &mut events).await;
    assert!(sent.topic.as_str().starts_with("devices/pump-9/messages/events/"));

    page.go("/portal/devices").await;
    assert_eq!(page.value("document.querySelectorAll('tbody tr').length").await, 3);
    assert_eq!(page.mishaps(), [""; 0]);
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn a_device_is_created_without_a_mouse() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    let page = browser.signed_in(&hub, "iothubowner").await;
    page.go("/portal/new-device").await;
    // From the top of the page to the field, by Tab alone, and every stop can be seen.
    let focused = "document.activeElement.id || document.activeElement.textContent.trim()";
    let mut walked = Vec::new();
    while walked.last().is_none_or(|last| last != "id") {
        page.press("Tab").await;
        let stop = page.value(focused).await;
        walked.push(stop.as_str().expect("a text").to_owned());
        assert!(walked.len() < 20, "{walked:?}");
        let outline = "getComputedStyle(document.activeElement).outlineStyle";
        assert_eq!(page.value(outline).await, "solid", "{walked:?}");
    }
    assert_eq!(walked[0], "Skip to content");
    page.type_text("typed").await;
    page.wait_for_text("#id-says", "This id is free").await;
    for (key, stop) in [
        ("Tab", "edge"),
        ("Tab", "auth-sas"),
        ("ArrowDown", "auth-selfSigned"),
        ("ArrowDown", "auth-certificateAuthority"),
        ("ArrowUp", "auth-selfSigned"),
        ("ArrowUp", "auth-sas"),
        ("Tab", "auto"),
        ("Tab", "status-enabled"),
        ("ArrowDown", "status-disabled"),
        ("Tab", "Save"),
        ("Shift+Tab", "status-disabled"),
        ("Tab", "Save"),
    ] {
        page.press(key).await;
        assert_eq!(page.value(focused).await, stop);
    }
    assert_eq!(page.to_next(page.press("Enter")).await, 200);
    page.wait_for_text("h1", "Connect typed").await;
    let id = portcullis_testing::x509::identity("typed");
    let created = hub.hub.registry.entry(&id).expect("it is created").identity();
    assert_eq!(created.status, Status::Disabled);
    assert_eq!(page.mishaps(), [""; 0]);
    hub.stop().await;
}

/// Texts that every page meets: what stands in a status, in messages, in refusals, in the record, in an address.
async fn hub_full_of_hostile_texts() -> (TestHub, Vec<String>) {
    let hub = TestHub::start().await;
    let texts = hostile_texts();
    let client = hub.rest();
    let queues = [hub.device("queue-0").await, hub.device("queue-1").await, hub.device("queue-2").await];
    for (number, text) in texts.iter().enumerate() {
        let device = hub.device(&format!("d{number}")).await;
        let plain: String = text.chars().filter(|letter| *letter != '\0').collect();
        let message = NewC2d {
            message_id: Some(plain.clone()),
            content_type: Some(plain.clone()),
            properties: vec![(plain.clone(), plain.clone())],
            body: text.clone().into_bytes().into(),
            ..NewC2d::default()
        };
        hub.send_message(&queues[number % queues.len()], message).await;
        hub.change(&device, |spec| {
            spec.status = Status::Disabled;
            spec.status_reason = Some(text.chars().take(128).collect());
            spec.managed_by = Some(text.clone());
        })
        .await;
        // Somebody who says who it is in such words, and is refused.
        let mut claim = hub.connect_packet(&device);
        let claimed = plain.replace(|letter: char| letter == '/' || letter.is_control(), "|");
        claim.username = Some(format!("{claimed}/d{number}/?api-version=2021-04-12"));
        let _ = hub.connect_with(claim).await.err();
        // A change that is refused, with the words in the record.
        client
            .call("PUT", &format!("/api/v1/policies/{}", encoded(text)), Some(json!({"rights": [text]})))
            .await;
        client.call("PUT", &format!("/api/v1/certificate-authorities/ca{number}"), Some(json!(text))).await;
    }
    for id in ["javascript:alert(1)", "'onclick='alert(1)'", "$(alert)", "%3Cscript%3E", "a'=(b)!*;@,?"] {
        hub.device(id).await;
    }
    (hub, texts)
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn t713_a_hundred_hostile_texts_run_nothing_and_break_no_page() {
    let browser = Chromium::shared();
    let (hub, texts) = hub_full_of_hostile_texts().await;
    assert!(texts.len() >= 100);
    let page = browser.signed_in(&hub, "iothubowner").await;
    let mut paths: Vec<String> = [
        "/portal",
        "/portal/devices?count=100",
        "/portal/devices?count=100&order=descending",
        "/portal/new-device",
        "/portal/policies",
        "/portal/authorities",
        "/portal/jobs",
        "/portal/audit",
        "/portal/audit?before=100",
        "/portal/devices/queue-0/messages",
        "/portal/devices/queue-1/messages",
        "/portal/devices/queue-2/messages",
    ]
    .map(str::to_owned)
    .to_vec();
    for id in ["javascript:alert(1)", "'onclick='alert(1)'", "$(alert)", "%3Cscript%3E", "a'=(b)!*;@,?"] {
        let device = format!("/portal/devices/{}", encoded(id));
        for below in
            ["", "/modules", "/messages", "/telemetry", "/connections", "/audit", "/credential", "/delete"]
        {
            paths.push(format!("{device}{below}"));
        }
        paths.push(format!("/portal/created/{}", encoded(id)));
    }
    for (number, text) in texts.iter().enumerate() {
        let text = encoded(text);
        paths.push(match number % 5 {
            0 => format!("/portal/audit?target={text}&policy={text}&operation={text}&before={text}"),
            1 => format!("/portal/devices?q={text}&match=contains&after={text}"),
            2 => format!("/portal/devices/d{number}/connections"),
            3 => format!("/portal/devices/d{number}"),
            _ => format!("/portal/{text}"),
        });
    }
    for path in paths {
        let status = page.go(&path).await;
        assert!(status < 500, "{path}: {status}");
        // A page that was broken open would not have its frame, or would have another's elements.
        let whole = "document.querySelectorAll('main').length === 1 && document.querySelector('form.out button') !== null
            && document.querySelectorAll('script').length === 2 && !document.querySelector('iframe, style, base, x')";
        assert_eq!(page.value(whole).await, true, "{path}");
        assert_eq!(page.mishaps(), [""; 0], "{path}");
    }
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn t716_who_may_only_read_changes_nothing_from_a_page_of_its_own() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    hub.module("d1", "m").await;
    hub.send(&device, "x").await;
    let page = browser.signed_in(&hub, "registryRead").await;
    page.go("/portal/devices/d1").await;
    page.look_at("device-read-only").await;
    let mut tried = 0;
    for route in routes().iter().filter(|route| route.method == "POST") {
        let PageNeeds::Rights(wanted) = route.needs else { continue };
        let rights = hub.hub.policies().find("registryRead").expect("a policy").rights;
        if rights.contains(wanted) {
            continue;
        }
        let path = route.path.replace("{device}", "d1").replace("{module}", "m");
        let path = path.replace("{name}", "registryRead").replace("{job}", "none");
        let asked = format!(
            "fetch({path:?}, {{method: 'POST', body: new URLSearchParams({{id: 'd1', confirmed: 'yes', which: 'primary'}}),
                headers: JSON.parse(document.body.getAttribute('hx-headers'))}}).then(answer => answer.status)"
        );
        assert_eq!(page.value(&asked).await, 403, "{path}");
        tried += 1;
    }
    assert!(tried > 20);
    let id = portcullis_testing::x509::identity("d1");
    let entry = hub.hub.registry.entry(&id).expect("it is still there");
    assert_eq!((entry.queued(), entry.identity().status), (1, Status::Enabled));
    assert_eq!(page.mishaps(), [""; 0]);
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn every_page_of_a_device_is_fit_to_be_seen() {
    let browser = Chromium::shared();
    let hub = TestHub::start().await;
    let device = hub.device("pump-7").await;
    hub.module("pump-7", "valve").await;
    hub.send(&device, "open valve").await;
    hub.connect(&device).await.disconnect().await;
    hub.disable(&device).await;
    assert!(hub.connect_with(hub.connect_packet(&device)).await.is_err());
    let mut long = "a-name-as-long-as-a-name-can-be-".repeat(4);
    long.truncate(128);
    hub.device(&long).await;
    let page = browser.signed_in(&hub, "iothubowner").await;
    for (name, path) in [
        ("device", "/portal/devices/pump-7"),
        ("device-modules", "/portal/devices/pump-7/modules"),
        ("device-messages", "/portal/devices/pump-7/messages"),
        ("device-connections", "/portal/devices/pump-7/connections"),
        ("device-audit", "/portal/devices/pump-7/audit"),
        ("device-credential", "/portal/devices/pump-7/credential"),
        ("device-delete", "/portal/devices/pump-7/delete"),
        ("device-purge", "/portal/devices/pump-7/purge"),
        ("device-new-module", "/portal/devices/pump-7/new-module"),
        ("module", "/portal/devices/pump-7/modules/valve"),
        ("device-long", &format!("/portal/devices/{long}")),
        ("devices-some", "/portal/devices"),
    ] {
        assert_eq!(page.go(path).await, 200, "{path}");
        page.look_at(name).await;
    }
    assert_eq!(page.go("/portal/nowhere").await, 404);
    page.look_at("not-found").await;
    page.click(".bar .out button").await;
    page.wait_for("#policy").await;
    page.look_at("sign-in").await;
    hub.stop().await;
}
