//! The portal's list of devices and its form for a new one: what they show, what they do, and what is wrong with what
//! was put in, beside the field.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use portcullis_certs::testing::TestCa;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::{Authentication, AuthenticationSpec, Identity, IdentitySpec, Status};
use portcullis_testing::TestHub;
use portcullis_testing::browser::{Browser, Page};

/// The ids in a list, in its order.
fn listed(page: &Page) -> Vec<String> {
    let parts = page.text.split(r#"<a class="id" href=""#).skip(1);
    parts.filter_map(|part| Some(part.split_once('>')?.1.split_once('<')?.0.replace("&#39;", "'"))).collect()
}

/// Where a link of that name leads.
fn link(page: &Page, name: &str) -> Option<String> {
    let before = page.text.split(&format!(">{name}</a>")).next()?;
    if before.len() == page.text.len() {
        return None;
    }
    let (_, link) = before.rsplit_once("href=\"")?;
    Some(link.split('"').next()?.replace("&amp;", "&"))
}

fn id(name: &str) -> IdentityId {
    IdentityId::device(DeviceId::parse(name).unwrap())
}

fn identity(hub: &TestHub, name: &str) -> Option<std::sync::Arc<Identity>> {
    hub.hub.registry.entry(&id(name)).map(|entry| entry.identity())
}

async fn add(hub: &TestHub, names: impl IntoIterator<Item = String>) {
    let spec = |name: String| IdentitySpec::sas_device(id(&name));
    let creates = names.into_iter().map(|name| hub.hub.registry.create(spec(name), hub.hub.clock.wall()));
    for created in futures_util::future::join_all(creates).await {
        created.unwrap();
    }
}

#[tokio::test]
async fn a_newcomer_is_led_to_a_first_device() {
    let hub = TestHub::start().await;
    let page = hub.signed_in("iothubowner").await.open("/portal/devices").await;
    assert!(page.says("No devices yet"));
    assert_eq!(link(&page, "Add the first device").as_deref(), Some("/portal/new-device"));
    let page = hub.signed_in("registryRead").await.open("/portal/devices").await;
    assert!(page.says("No devices yet") && link(&page, "Add the first device").is_none());
    hub.stop().await;
}

#[tokio::test]
async fn pages_lead_through_every_device_once_and_back_again() {
    let hub = TestHub::start().await;
    add(&hub, (0..60).map(|number| format!("d{number:03}"))).await;
    let mut browser = hub.signed_in("registryRead").await;
    for (query, is_descending) in [("count=25", false), ("count=25&order=descending", true)] {
        let (mut path, mut seen, mut pages) =
            (Some(format!("/portal/devices?{query}")), Vec::new(), Vec::new());
        while let Some(next) = path {
            let page = browser.open(&next).await;
            let ids = listed(&page);
            assert!(!ids.is_empty() && ids.len() <= 25, "{next}");
            seen.extend(ids.clone());
            path = link(&page, "Next");
            pages.push((ids, page));
        }
        let mut all: Vec<_> = (0..60).map(|number| format!("d{number:03}")).collect();
        if is_descending {
            all.reverse();
        }
        assert_eq!(seen, all, "{query}");
        assert_eq!(pages.len(), 3);
        // And back, page by page.
        let second = browser.open(&link(&pages[2].1, "Previous").unwrap()).await;
        assert_eq!(listed(&second), pages[1].0);
        let first = browser.open(&link(&second, "Previous").unwrap()).await;
        assert_eq!(listed(&first), pages[0].0);
        assert_eq!(link(&first, "Previous"), None);
        assert_eq!(link(&first, "Next"), link(&pages[0].1, "Next"));
    }
    hub.stop().await;
}

#[tokio::test]
async fn filters_narrow_the_list() {
    let hub = TestHub::start().await;
    add(&hub, ["pump-1", "pump-2", "Pump-3", "valve-1", "valve-pump"].map(str::to_owned)).await;
    let pump = hub.device("pump-live").await;
    let by_ca = IdentitySpec {
        authentication: AuthenticationSpec::CertificateAuthority,
        iot_edge: true,
        status: Status::Disabled,
        ..IdentitySpec::sas_device(id("edge"))
    };
    hub.hub.registry.create(by_ca, hub.hub.clock.wall()).await.unwrap();
    let client = hub.connect(&pump).await;
    let mut browser = hub.signed_in("registryRead").await;
    let cases = [
        ("q=pump-", "pump-1 pump-2 pump-live"),
        ("q=pump&match=contains", "Pump-3 pump-1 pump-2 pump-live valve-pump"),
        ("q=pump-1", "pump-1"),
        ("q=PUMP", ""),
        ("q=%25", ""),
        ("status=disabled", "edge"),
        ("status=enabled&q=valve", "valve-1 valve-pump"),
        ("auth=certificateAuthority", "edge"),
        ("auth=selfSigned", ""),
        ("type=edge", "edge"),
        ("type=device&q=e", ""),
        ("connected=yes", "pump-live"),
        ("connected=yes&q=valve", ""),
        ("connected=no&q=pump-", "pump-1 pump-2"),
        ("connected=yes&order=descending", "pump-live"),
    ];
    for (query, expected) in cases {
        let page = browser.open(&format!("/portal/devices?{query}")).await;
        assert_eq!(listed(&page).join(" "), expected, "{query}");
        assert_eq!(page.says("No device matches"), expected.is_empty(), "{query}");
        // A script gets the same page and takes its part of it.
        let fetched = browser.fetch(&format!("/portal/devices?{query}")).await;
        assert_eq!((listed(&fetched), fetched.says(r#"id="devices""#)), (listed(&page), true));
    }
    let page = browser.open("/portal/devices?connected=yes").await;
    assert!(page.says(r#"<span class="chip good">Connected</span>"#));
    drop(client);
    hub.stop().await;
}

#[tokio::test]
async fn a_search_looks_at_a_bounded_number_of_devices_and_goes_on_from_there() {
    let hub = TestHub::start().await;
    add(&hub, (0..8_500).map(|number| format!("d{number:05}"))).await;
    hub.device("z-needle").await;
    let mut browser = hub.signed_in("registryRead").await;
    let page = browser.open("/portal/devices?q=needle&match=contains").await;
    assert!(listed(&page).is_empty() && page.says("The search has reached"), "{}", page.text);
    assert!(page.says(r#"hx-trigger="load""#), "a script looks on by itself");
    let page = browser.open(&link(&page, "Continue the search").unwrap()).await;
    assert_eq!(listed(&page), ["z-needle"]);
    assert_eq!(link(&page, "Next"), None);
    // How an id begins is not searched for but looked up.
    let page = browser.open("/portal/devices?q=z-").await;
    assert_eq!(listed(&page), ["z-needle"]);
    hub.stop().await;
}

#[tokio::test]
async fn ticked_devices_are_named_before_anything_is_done_to_them() {
    let hub = TestHub::start().await;
    add(&hub, ["a", "b", "c", "it's-$x"].map(str::to_owned)).await;
    hub.module("a", "m").await;
    let mut browser = hub.signed_in("registryReadWrite").await;
    let back = ("back", "/portal/devices?q=a");
    let page = browser.post("/portal/selected/disable", &[("id", "a"), ("id", "it's-$x"), back]).await;
    assert_eq!(page.status, 200);
    assert!(
        page.says("Disable 2 devices?") && page.says("<li>a</li>") && page.says("<li>it&#39;s-$x</li>")
            || page.says("<li>it's-$x</li>"),
        "{}",
        page.text
    );
    assert_eq!(identity(&hub, "a").unwrap().status, Status::Enabled, "nothing is done yet");
    let yes = ("confirmed", "yes");
    let page = browser.post("/portal/selected/disable", &[("id", "a"), ("id", "it's-$x"), back, yes]).await;
    assert_eq!((page.status, page.header("location")), (303, "/portal/devices?q=a"));
    let page = browser.open("/portal/devices").await;
    assert!(page.says("2 devices disabled."), "{}", page.text);
    assert!(!browser.open("/portal/devices").await.says("2 devices disabled."), "it is told once");
    let before = identity(&hub, "a").unwrap();
    assert_eq!(before.status, Status::Disabled);
    browser.post("/portal/selected/enable", &[("id", "a"), yes]).await;
    let after = identity(&hub, "a").unwrap();
    assert_eq!((after.status, &after.authentication), (Status::Enabled, &before.authentication));
    let page = browser.post("/portal/selected/delete", &[("id", "a"), ("id", "b"), back]).await;
    assert!(page.says("Delete 2 devices?") && page.says("with 1 module"), "{}", page.text);
    let page =
        browser.post("/portal/selected/delete", &[("id", "a"), ("id", "b"), ("id", "gone"), yes]).await;
    assert_eq!(page.status, 404);
    assert!(page.says("2 devices deleted.") && page.says("1 device not deleted"), "{}", page.text);
    assert!(identity(&hub, "a").is_none() && identity(&hub, "c").is_some());
    let page = browser.post("/portal/selected/delete", &[back, yes]).await;
    assert_eq!(page.status, 303);
    assert!(browser.open("/portal/devices").await.says("Select devices first"));
    let many: Vec<_> = (0..101).map(|number| format!("d{number}")).collect();
    let fields: Vec<_> = many.iter().map(|id| ("id", id.as_str())).chain([yes]).collect();
    assert_eq!(browser.post("/portal/selected/delete", &fields).await.status, 400);
    hub.stop().await;
}

#[tokio::test]
async fn t716_an_export_holds_the_page_and_no_formula() {
    let hub = TestHub::start().await;
    add(&hub, ["=cmd", "-1", "@sum", "plain"].map(str::to_owned)).await;
    let mut browser = hub.signed_in("registryRead").await;
    let page = browser.open("/portal/devices.csv").await;
    assert_eq!(page.header("content-type"), "text/csv; charset=utf-8");
    assert!(page.header("content-disposition").starts_with("attachment"));
    let firsts: BTreeSet<_> = page.text.lines().map(|line| line.split(',').next().unwrap()).collect();
    assert_eq!(firsts, ["\"deviceId\"", "\"'=cmd\"", "\"'-1\"", "\"'@sum\"", "\"plain\""].into());
    let page = browser.open("/portal/devices.csv?q=p").await;
    assert_eq!(page.text.lines().count(), 2);
    hub.stop().await;
}

/// What is put into a form, by field.
type Form<'a> = &'a [(&'a str, &'a str)];

async fn create(browser: &mut Browser, fields: Form<'_>) -> Page {
    browser.post("/portal/new-device", fields).await
}

#[tokio::test]
async fn a_device_of_each_kind_is_created() {
    let hub = TestHub::start().await;
    let mut browser = hub.signed_in("registryReadWrite").await;
    let page =
        create(&mut browser, &[("id", "auto"), ("auth", "sas"), ("auto", "yes"), ("status", "enabled")])
            .await;
    assert_eq!((page.status, page.header("location")), (303, "/portal/created/auto"));
    let device = identity(&hub, "auto").unwrap();
    assert!(matches!(device.authentication, Authentication::Sas(_)) && device.status == Status::Enabled);

    let (primary, secondary) = ("AAECAwQFBgcICQoLDA0ODw==", "Dw4NDAsKCQgHBgUEAwIBAA==");
    let own = [
        ("id", "own"),
        ("auth", "sas"),
        ("primary-key", primary),
        ("secondary-key", secondary),
        ("status", "disabled"),
        ("edge", "yes"),
    ];
    assert_eq!(create(&mut browser, &own).await.status, 303);
    let device = identity(&hub, "own").unwrap();
    let Authentication::Sas(keys) = &device.authentication else { panic!("{device:?}") };
    assert_eq!(
        (keys.primary.to_base64().as_str(), keys.secondary.to_base64().as_str()),
        (primary, secondary)
    );
    assert_eq!((device.status, device.iot_edge), (Status::Disabled, true));

    let ca = TestCa::new();
    let certificate = portcullis_certs::pem::write_certificate(ca.certificate());
    let sha256 = portcullis_certs::thumbprint::Sha256Thumbprint::of(ca.certificate()).to_string();
    let sha1 = "ab".repeat(20);
    let fields = [
        ("id", "thumb"),
        ("auth", "selfSigned"),
        ("primary-certificate", &certificate),
        ("secondary-thumbprint", &sha1),
    ];
    assert_eq!(create(&mut browser, &fields).await.status, 303);
    let device = identity(&hub, "thumb").unwrap();
    let Authentication::SelfSigned(pair) = &device.authentication else { panic!("{device:?}") };
    assert_eq!(pair.primary.as_ref().unwrap().as_str(), sha256);
    assert_eq!(pair.secondary.as_ref().unwrap().as_str(), sha1.to_uppercase());

    assert_eq!(create(&mut browser, &[("id", "ca"), ("auth", "certificateAuthority")]).await.status, 303);
    assert_eq!(identity(&hub, "ca").unwrap().authentication, Authentication::CertificateAuthority);
    for name in ["auto", "own", "thumb", "ca"] {
        let page = browser.open(&format!("/portal/created/{name}")).await;
        assert!(page.status == 200 && page.says(&format!("Connect {name}")), "{name}");
        assert!(page.says("azure-iot-device") && page.says("mosquitto_pub") && page.says("ca.pem"), "{name}");
    }
    // Who created them, and by which face, is in the record.
    let (_, audit) = hub.rest().call("GET", "/api/v1/audit?target=auto", None).await;
    assert_eq!(
        (&audit[0]["source"], &audit[0]["actor"], &audit[0]["op"]),
        (&"portal".into(), &"registryReadWrite".into(), &"createIdentity".into())
    );
    hub.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_beside_its_field_and_nothing_is_created() {
    let hub = TestHub::start().await;
    hub.device("taken").await;
    let mut browser = hub.signed_in("registryReadWrite").await;
    let good = "AAECAwQFBgcICQoLDA0ODw==";
    let key = TestCa::new().server(&["x"]).key_pem;
    let other = "ab".repeat(32);
    let ca = TestCa::new();
    let certificate = portcullis_certs::pem::write_certificate(ca.certificate());
    let long = "x".repeat(129);
    let cases: &[(Form<'_>, &str, &str)] = &[
        (&[("auth", "sas"), ("auto", "yes")], "id", "An id has 1 to 128 characters, this one has 0."),
        (&[("id", &long), ("auto", "yes")], "id", "this one has 129."),
        (&[("id", "a b"), ("auto", "yes")], "id", "may not be in an id"),
        (&[("id", "a+b"), ("auto", "yes")], "id", "MQTT gives it a meaning of its own."),
        (&[("id", "taken"), ("auto", "yes")], "id", "is already registered."),
        (
            &[("id", "n"), ("primary-key", "short"), ("secondary-key", good)],
            "primary-key",
            "A symmetric key is standard base64.",
        ),
        (
            &[("id", "n"), ("primary-key", good)],
            "secondary-key",
            "Give both keys, or let the hub generate them.",
        ),
        (&[("id", "n"), ("auth", "selfSigned")], "primary-thumbprint", "Give at least one thumbprint"),
        (
            &[("id", "n"), ("auth", "selfSigned"), ("primary-thumbprint", "abc")],
            "primary-thumbprint",
            "this one has 3.",
        ),
        (
            &[("id", "n"), ("auth", "selfSigned"), ("secondary-thumbprint", "zz")],
            "secondary-thumbprint",
            "consists of hex digits.",
        ),
        (
            &[("id", "n"), ("auth", "selfSigned"), ("primary-certificate", &key)],
            "primary-certificate",
            "private key where only certificates belong.",
        ),
        (
            &[("id", "n"), ("auth", "selfSigned"), ("primary-certificate", "x")],
            "primary-certificate",
            "holds no certificate.",
        ),
        (
            &[
                ("id", "n"),
                ("auth", "selfSigned"),
                ("primary-certificate", &certificate),
                ("primary-thumbprint", &other),
            ],
            "primary-thumbprint",
            "This thumbprint does not match the certificate below; remove one of the two.",
        ),
    ];
    for (fields, field, says) in cases {
        let page = create(&mut browser, fields).await;
        assert!([400, 409].contains(&page.status), "{fields:?}: {}", page.status);
        let place = page.text.split(&format!(r#"<div id="{field}-says""#)).nth(1).unwrap();
        let place = place.split("</div>").next().unwrap();
        assert!(place.contains(r#"class="error""#) && place.contains(says), "{fields:?}: {place}");
        let input = page.text.split(&format!(r#"id="{field}""#)).nth(1).unwrap().split('>').next().unwrap();
        assert!(input.contains(r#"aria-invalid="true""#), "{input}");
    }
    assert_eq!(hub.hub.registry.counts().devices, 1);
    hub.stop().await;
}

#[tokio::test]
async fn an_id_and_a_certificate_are_looked_at_while_they_are_put_in() {
    let hub = TestHub::start().await;
    hub.device("taken").await;
    let mut browser = hub.signed_in("registryReadWrite").await;
    for (id, says) in [
        ("pump-7", "This id is free."),
        ("taken", "A device with this id exists already."),
        ("a%20b", "may not be in an id"),
        ("%3Cscript%3E", "may not be in an id"),
        ("", "Up to 128 letters"),
    ] {
        let page = browser.fetch(&format!("/portal/check-id?id={id}")).await;
        assert!(page.status == 200 && page.says(says) && !page.says("<script>"), "{id}: {}", page.text);
        assert!(!page.says("<html"));
    }
    let ca = TestCa::new();
    let certificate = portcullis_certs::pem::write_certificate(ca.certificate());
    let sha256 = portcullis_certs::thumbprint::Sha256Thumbprint::of(ca.certificate()).to_string();
    let page =
        browser.post("/portal/thumbprint", &[("place", "1"), ("secondary-certificate", &certificate)]).await;
    assert!(page.says(&sha256) && page.says(r#"id="secondary-thumbprint""#), "{}", page.text);
    let page =
        browser.post("/portal/thumbprint", &[("place", "0"), ("primary-certificate", "nonsense")]).await;
    assert!(page.says("It holds no certificate."), "{}", page.text);
    hub.stop().await;
}

#[tokio::test]
async fn a_secret_is_on_a_page_only_after_it_was_asked_for() {
    let hub = TestHub::start().await;
    let device = hub.device("pump-7").await;
    let key = device.keys.primary.to_base64();
    let mut browser = hub.signed_in("registryReadWrite").await;
    let page = browser.open("/portal/created/pump-7").await;
    assert!(!page.says(&key) && page.says("SharedAccessKey=…"), "{}", page.text);
    let page = browser.post("/portal/devices/pump-7/reveal", &[("snippets", "yes")]).await;
    let string = format!("HostName=localhost;DeviceId=pump-7;SharedAccessKey={}", *key);
    assert!(page.status == 200 && page.says(&string) && page.header("cache-control") == "no-store");
    assert!(page.says(&format!("-p {}", hub.mqtt.port())) && page.says("SharedAccessSignature sr="));
    let (_, audit) = hub.rest().call("GET", "/api/v1/audit?target=pump-7", None).await;
    let last = audit.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["op"], &last["source"], &last["result"]),
        (&"revealCredential".into(), &"portal".into(), &"done".into())
    );
    assert!(!audit.to_string().contains(key.as_str()));
    hub.stop().await;
}
