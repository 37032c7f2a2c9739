//! The portal's pages of one device: what can be changed there, what is said when it cannot, and what they show.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use portcullis_registry::credential::{KeyPair, ThumbprintPair};
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use portcullis_registry::identity::{Authentication, Identity, Status};
use portcullis_registry::message::{Ack, NewC2d};
use portcullis_registry::sas::SasToken;
use portcullis_testing::browser::{Browser, Page};
use portcullis_testing::{TestHub, TestIdentity};

fn id(text: &str) -> IdentityId {
    let (device, module) =
        text.split_once('/').map_or((text, None), |(device, module)| (device, Some(module)));
    IdentityId {
        device: DeviceId::parse(device).unwrap(),
        module: module.map(|module| ModuleId::parse(module).unwrap()),
    }
}

fn path(text: &str) -> String {
    format!("/portal/devices/{}", text.replace('/', "/modules/"))
}

fn identity(hub: &TestHub, text: &str) -> Arc<Identity> {
    hub.hub.registry.entry(&id(text)).expect("it is there").identity()
}

fn keys(identity: &Identity) -> KeyPair {
    let Authentication::Sas(keys) = &identity.authentication else { panic!("{identity:?}") };
    keys.clone()
}

/// A form of an identity, made from its version as it is now.
async fn post(browser: &mut Browser, hub: &TestHub, of: &str, what: &str, fields: &[(&str, &str)]) -> Page {
    let etag = identity(hub, of).etag().to_string();
    let fields: Vec<_> = fields.iter().copied().chain([("etag", etag.as_str())]).collect();
    browser.post(&format!("{}/{what}", path(of)), &fields).await
}

/// What is said beside a field.
fn said(page: &Page, field: &str) -> String {
    let place = page.text.split(&format!(r#"id="{field}-says""#)).nth(1).unwrap_or_default();
    place.split("</div>").next().unwrap_or_default().to_owned()
}

async fn audited(hub: &TestHub, target: &str) -> Vec<(String, String, String)> {
    let (_, lines) = hub.rest().call("GET", &format!("/api/v1/audit?target={target}"), None).await;
    let text = |line: &serde_json::Value, member: &str| line[member].as_str().unwrap_or_default().to_owned();
    let lines = lines.as_array().unwrap();
    lines.iter().map(|line| (text(line, "op"), text(line, "source"), text(line, "result"))).collect()
}

async fn hub_with(names: &[&str]) -> (TestHub, Vec<TestIdentity>, Browser) {
    let hub = TestHub::start().await;
    let mut identities = Vec::new();
    for name in names {
        identities.push(match name.split_once('/') {
            None => hub.device(name).await,
            Some((device, module)) => hub.module(device, module).await,
        });
    }
    let browser = hub.signed_in("iothubowner").await;
    (hub, identities, browser)
}

#[tokio::test]
async fn every_page_of_a_device_and_a_module_is_there() {
    let (hub, _, mut browser) = hub_with(&["d1", "d1/m"]).await;
    for of in ["d1", "d1/m"] {
        for tab in ["", "/messages", "/connections", "/audit", "/credential", "/delete", "/purge"] {
            let page = browser.open(&format!("{}{tab}", path(of))).await;
            assert_eq!(page.status, 200, "{of}{tab}");
        }
    }
    for tab in ["/modules", "/new-module"] {
        assert_eq!(browser.open(&format!("{}{tab}", path("d1"))).await.status, 200, "{tab}");
    }
    let page = browser.open("/portal/devices/d1/modules").await;
    assert!(page.says("1 of 20") && page.says(r#"href="/portal/devices/d1/modules/m""#), "{}", page.text);
    for gone in ["nobody", "d1/nobody", "nobody/m"] {
        for tab in ["", "/messages", "/connections", "/delete"] {
            let page = browser.open(&format!("{}{tab}", path(gone))).await;
            assert_eq!(page.status, 404, "{gone}{tab}");
            assert!(page.says("Not found") && page.says(gone), "{}", page.text);
        }
    }
    assert_eq!(browser.open("/portal/devices/a%20b").await.status, 400);
    hub.stop().await;
}

#[tokio::test]
async fn t502_t504_any_id_has_a_page_of_its_own() {
    let (hub, _, mut browser) = hub_with(&[]).await;
    for name in
        ["a%2", "d%31", "it's", "x?y=z", "new-device", "modules", "messages", "$iothub", "a;b", "!()*,:@"]
    {
        hub.device(name).await;
        let list = browser.open("/portal/devices").await;
        let shown = name.replace('&', "&amp;").replace('\'', "&#39;");
        let link = list.text.split(r#"<a class="id" href=""#).skip(1).find(|part| {
            let text = part.split_once('>').unwrap().1.split("</a>").next().unwrap();
            text == shown || text == name
        });
        let link =
            link.unwrap_or_else(|| panic!("{name} is not in the list")).split('"').next().unwrap().to_owned();
        let page = browser.open(&link).await;
        assert!(page.status == 200 && page.says(&format!("<title>{name} · ")), "{name} at {link}");
        let page = browser.post(&format!("{link}/reveal"), &[]).await;
        assert_eq!(page.status, 200, "{name}");
        assert_eq!(page.says("a connection string cannot hold"), name.contains(';'));
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_device_is_disabled_with_a_reason_and_its_connection_falls() {
    let (hub, devices, mut browser) = hub_with(&["d1"]).await;
    let mut client = hub.connect(&devices[0]).await;
    assert!(browser.open(&path("d1")).await.says(r#"<span class="chip good">Connected</span>"#));
    let fields = [("status", "disabled"), ("reason", "<b>stolen</b>"), ("edge", "yes")];
    let page = post(&mut browser, &hub, "d1", "status", &fields).await;
    assert_eq!((page.status, page.header("location")), (303, "/portal/devices/d1"));
    assert!(client.closed().await);
    let device = identity(&hub, "d1");
    assert_eq!((device.status, device.iot_edge), (Status::Disabled, true));
    assert_eq!(device.status_reason.as_deref(), Some("<b>stolen</b>"));
    assert_eq!(keys(&device), devices[0].keys);
    let page = browser.open(&path("d1")).await;
    assert!(page.says("Saved.") && page.says("&lt;b&gt;stolen&lt;/b&gt;") && !page.says("<b>stolen"));
    let long = "x".repeat(129);
    let page = post(&mut browser, &hub, "d1", "status", &[("status", "enabled"), ("reason", &long)]).await;
    assert_eq!(page.status, 400);
    assert!(
        said(&page, "reason").contains("A reason may have at most 128 characters."),
        "{}",
        said(&page, "reason")
    );
    assert!(page.says(&long) && identity(&hub, "d1").status == Status::Disabled);
    hub.stop().await;
}

#[tokio::test]
async fn a_form_made_from_an_older_version_changes_nothing() {
    let (hub, devices, mut browser) = hub_with(&["d1"]).await;
    let old = identity(&hub, "d1").etag().to_string();
    hub.change(&devices[0], |spec| spec.status_reason = Some("somebody else".into())).await;
    for (what, fields) in [
        ("status", &[("status", "disabled")][..]),
        ("access", &[("allow", "list")]),
        ("keys", &[("renew", "primary")]),
        ("credential", &[("auth", "certificateAuthority")]),
        ("delete", &[]),
    ] {
        let fields: Vec<_> = fields.iter().copied().chain([("etag", old.as_str())]).collect();
        let page = browser.post(&format!("/portal/devices/d1/{what}"), &fields).await;
        assert_eq!((page.status, page.header("location")), (303, "/portal/devices/d1"), "{what}");
        assert!(
            browser
                .open("/portal/devices/d1")
                .await
                .says("in the meantime. This page shows its present state."),
            "{what}"
        );
        let page = browser.post(&format!("/portal/devices/d1/{what}"), &[]).await;
        assert_eq!(page.status, 400, "{what}: a form without its version");
    }
    assert_eq!(keys(&identity(&hub, "d1")), devices[0].keys);
    assert_eq!(identity(&hub, "d1").status, Status::Enabled);
    hub.stop().await;
}

#[tokio::test]
async fn keys_are_renewed_swapped_and_revealed_and_each_time_is_recorded() {
    let (hub, devices, mut browser) = hub_with(&["d1"]).await;
    let KeyPair { primary, secondary } = devices[0].keys.clone();
    post(&mut browser, &hub, "d1", "keys", &[("renew", "swap")]).await;
    assert_eq!(
        keys(&identity(&hub, "d1")),
        KeyPair { primary: secondary.clone(), secondary: primary.clone() }
    );
    post(&mut browser, &hub, "d1", "keys", &[("renew", "primary")]).await;
    let after = keys(&identity(&hub, "d1"));
    assert!(after.primary != secondary && after.secondary == primary);
    post(&mut browser, &hub, "d1", "keys", &[("renew", "secondary")]).await;
    let last = keys(&identity(&hub, "d1"));
    assert!(last.primary == after.primary && last.secondary != primary);
    assert_eq!(post(&mut browser, &hub, "d1", "keys", &[("renew", "odd")]).await.status, 400);
    let (primary, secondary) = (last.primary.to_base64(), last.secondary.to_base64());
    let page = browser.open(&path("d1")).await;
    assert!(!page.says(&primary) && !page.says(&secondary));
    let page = browser.post(&format!("{}/reveal", path("d1")), &[]).await;
    assert!(
        page.says(&primary)
            && page.says(&format!("HostName=localhost;DeviceId=d1;SharedAccessKey={}", *secondary))
    );
    let lines = audited(&hub, "d1").await;
    let ops: Vec<_> =
        lines.iter().map(|(op, source, result)| (op.as_str(), source.as_str(), result.as_str())).collect();
    let (update, reveal) = (("updateIdentity", "portal", "done"), ("revealCredential", "portal", "done"));
    assert_eq!(ops, [update, update, update, reveal]);
    hub.stop().await;
}

#[tokio::test]
async fn a_token_is_made_for_the_time_asked_for() {
    let (hub, devices, mut browser) = hub_with(&["d1", "d1/m"]).await;
    for (of, key, resource, signer) in [
        ("d1", "primary", "localhost/devices/d1", &devices[0].keys.primary),
        ("d1/m", "secondary", "localhost/devices/d1/modules/m", &devices[1].keys.secondary),
    ] {
        let page = browser.post(&format!("{}/token", path(of)), &[("key", key), ("minutes", "30")]).await;
        assert_eq!(page.status, 200);
        let text = page.text.split(r#"id="token-value">"#).nth(1).unwrap().split('<').next().unwrap();
        let text = text.replace("&amp;", "&");
        let token = SasToken::parse(&text).unwrap();
        assert!(token.is_signed_by(signer) && token.resource() == resource, "{text}");
        let seconds = token.expiry() - hub.hub.clock.wall().as_second();
        assert!((1_700..=1_800).contains(&seconds), "{seconds}");
    }
    for minutes in ["", "0", "-1", "525601", "1.5", "x"] {
        let page = browser.post(&format!("{}/token", path("d1")), &[("minutes", minutes)]).await;
        assert_eq!(page.status, 400, "{minutes}");
        assert!(said(&page, "minutes").contains("Enter a number of minutes from 1 to 525600."), "{minutes}");
    }
    let revealed =
        audited(&hub, "d1").await.into_iter().filter(|(op, _, _)| op == "revealCredential").count();
    assert_eq!(revealed, 2, "one of the device, one of the module, none for what was not made");
    hub.stop().await;
}

#[tokio::test]
async fn a_device_changes_how_it_proves_itself() {
    let (hub, devices, mut browser) = hub_with(&["d1"]).await;
    let mut client = hub.connect(&devices[0]).await;
    let (one, other) = ("AB".repeat(32), "CD".repeat(20));
    let fields =
        [("auth", "selfSigned"), ("primary-thumbprint", one.as_str()), ("secondary-thumbprint", &other)];
    assert_eq!(post(&mut browser, &hub, "d1", "credential", &fields).await.status, 303);
    assert!(client.closed().await);
    let device = identity(&hub, "d1");
    let Authentication::SelfSigned(ThumbprintPair { primary, secondary }) = &device.authentication else {
        panic!()
    };
    assert_eq!(
        (primary.as_ref().unwrap().as_str(), secondary.as_ref().unwrap().as_str()),
        (one.as_str(), other.as_str())
    );
    let page = browser.open(&path("d1")).await;
    assert!(page.says(&one) && page.says("SHA-1") && !page.says("Regenerate") && !page.says("SAS token"));
    let page = browser.open(&format!("{}/credential", path("d1"))).await;
    assert!(page.says(&format!(r#"value="{one}""#)), "thumbprints can be edited where they are");
    assert_eq!(post(&mut browser, &hub, "d1", "keys", &[("renew", "swap")]).await.status, 400);
    assert_eq!(browser.post(&format!("{}/token", path("d1")), &[("minutes", "1")]).await.status, 400);
    assert_eq!(
        post(&mut browser, &hub, "d1", "credential", &[("auth", "certificateAuthority")]).await.status,
        303
    );
    assert_eq!(identity(&hub, "d1").authentication, Authentication::CertificateAuthority);
    assert_eq!(
        post(&mut browser, &hub, "d1", "credential", &[("auth", "sas"), ("auto", "yes")]).await.status,
        303
    );
    let fresh = keys(&identity(&hub, "d1"));
    assert!(fresh.primary != devices[0].keys.primary);
    let page = post(&mut browser, &hub, "d1", "credential", &[("auth", "sas"), ("primary-key", "x")]).await;
    assert_eq!(page.status, 400);
    assert!(
        said(&page, "primary-key").contains("standard base64.")
            && said(&page, "secondary-key").contains("Give both keys")
    );
    assert_eq!(keys(&identity(&hub, "d1")), fresh);
    hub.stop().await;
}

#[tokio::test]
async fn an_access_list_and_a_queue_bound_are_edited() {
    let (hub, _, mut browser) = hub_with(&["d1", "d1/m"]).await;
    for of in ["d1", "d1/m"] {
        let fields = [
            ("allow", "list"),
            ("may", "telemetry"),
            ("may", "twin"),
            ("methods", "reboot, diag*,"),
            ("queue-max", "7"),
        ];
        assert_eq!(post(&mut browser, &hub, of, "access", &fields).await.status, 303);
        let stored = identity(&hub, of);
        assert_eq!(
            stored.access.to_entries().unwrap(),
            ["telemetry", "twin", "methods:diag*", "methods:reboot"]
        );
        assert_eq!(stored.queue_max.map(|own| own.get()), Some(7));
        let page = browser.open(&path(of)).await;
        assert!(page.says(r#"value="diag*, reboot""#) && page.says(r#"value="7""#), "{}", page.text);
        for (fields, field, says) in [
            (&[("allow", "list"), ("methods", "a/b")][..], "methods", "the name of a method"),
            (&[("allow", "list"), ("may", "everything")], "methods", "is none of telemetry, c2d, twin"),
            (&[("queue-max", "0")], "queue-max", "Enter a number from 1 to 10000, or leave it empty."),
            (&[("queue-max", "many")], "queue-max", "Enter a number from 1 to 10000, or leave it empty."),
        ] {
            let page = post(&mut browser, &hub, of, "access", fields).await;
            assert_eq!(page.status, 400, "{fields:?}");
            assert!(said(&page, field).contains(says), "{fields:?}: {}", said(&page, field));
        }
        assert_eq!(identity(&hub, of).queue_max.map(|own| own.get()), Some(7));
        assert_eq!(post(&mut browser, &hub, of, "access", &[("allow", "everything")]).await.status, 303);
        let stored = identity(&hub, of);
        assert_eq!((stored.access.to_entries(), stored.queue_max), (None, None));
    }
    hub.stop().await;
}

#[tokio::test]
async fn modules_are_made_edited_and_deleted() {
    let (hub, _, mut browser) = hub_with(&["d1"]).await;
    let new = "/portal/devices/d1/new-module";
    let page = browser
        .post(new, &[("module-id", "cam"), ("managed-by", "ops"), ("auth", "sas"), ("auto", "yes")])
        .await;
    assert_eq!((page.status, page.header("location")), (303, "/portal/devices/d1/modules/cam"));
    assert_eq!(identity(&hub, "d1/cam").managed_by.as_deref(), Some("ops"));
    for (fields, status, says) in [
        (&[("module-id", "cam"), ("auto", "yes")][..], 409, "already"),
        (&[("module-id", "a b"), ("auto", "yes")], 400, "may not be in an id"),
        (&[("module-id", ""), ("auto", "yes")], 400, "this one has 0"),
    ] {
        let page = browser.post(new, fields).await;
        assert_eq!(page.status, status, "{fields:?}");
        assert!(said(&page, "module-id").contains(says), "{fields:?}: {}", said(&page, "module-id"));
    }
    for number in 1..20 {
        hub.module("d1", &format!("m{number}")).await;
    }
    let page = browser.open("/portal/devices/d1/modules").await;
    assert!(page.says("20 of 20") && !page.says("/new-module\""), "{}", page.text);
    let page = browser.post(new, &[("module-id", "one-more"), ("auto", "yes")]).await;
    assert_eq!(page.status, 413);
    assert!(page.says("20") && page.says(r#"role="alert""#), "{}", page.text);
    assert_eq!(post(&mut browser, &hub, "d1/cam", "status", &[("managed-by", "")]).await.status, 303);
    assert_eq!(identity(&hub, "d1/cam").managed_by, None);
    let page = post(&mut browser, &hub, "d1/cam", "delete", &[]).await;
    assert_eq!((page.status, page.header("location")), (303, "/portal/devices/d1/modules"));
    assert!(hub.hub.registry.entry(&id("d1/cam")).is_none());
    let page =
        browser.post("/portal/devices/nobody/new-module", &[("module-id", "m"), ("auto", "yes")]).await;
    assert_eq!(page.status, 404);
    hub.stop().await;
}

#[tokio::test]
async fn a_device_is_deleted_once_it_is_confirmed() {
    let (hub, devices, mut browser) = hub_with(&["d1", "d1/m"]).await;
    hub.send(&devices[0], "x").await;
    let page = browser.open("/portal/devices/d1/delete").await;
    assert!(page.says("Delete d1?") && page.says("1 module") && page.says("1 message"), "{}", page.text);
    assert!(hub.hub.registry.entry(&id("d1")).is_some());
    let page = post(&mut browser, &hub, "d1", "delete", &[]).await;
    assert_eq!((page.status, page.header("location")), (303, "/portal/devices"));
    assert!(browser.open("/portal/devices").await.says("d1 is deleted."));
    assert_eq!(hub.hub.registry.counts().devices, 0);
    hub.stop().await;
}

#[tokio::test]
async fn messages_are_sent_seen_and_purged() {
    let (hub, devices, mut browser) = hub_with(&["d1", "d1/m"]).await;
    let queue = "/portal/devices/d1/messages";
    let fields = [
        ("body", "open\r\nvalve"),
        ("property-name", "valve"),
        ("property-value", "3"),
        ("property-name", "a&b"),
        ("property-value", "<i>=x</i>"),
        ("property-name", ""),
        ("property-value", ""),
        ("message-id", "m-1"),
        ("correlation-id", "c-1"),
        ("content-type", "text/plain"),
        ("content-encoding", "utf-8"),
        ("expiry", "5"),
        ("ack", "full"),
    ];
    let page = browser.post(queue, &fields).await;
    assert_eq!((page.status, page.header("location")), (303, queue), "{}", page.text);
    let queued = hub.hub.registry.entry(&id("d1")).unwrap().peek(9);
    let message = &queued[0].message;
    assert_eq!(message.body, "open\nvalve");
    assert_eq!(message.properties, [("valve".into(), "3".into()), ("a&b".into(), "<i>=x</i>".into())]);
    assert_eq!((message.message_id.as_str(), message.correlation_id.as_deref()), ("m-1", Some("c-1")));
    assert_eq!((message.content_type.as_deref(), message.ack), (Some("text/plain"), Ack::Full));
    let minutes = message.expiry.duration_since(message.enqueued).as_secs();
    assert!((299..=300).contains(&minutes), "{minutes}");
    hub.send_message(&devices[0], NewC2d { body: vec![0xff, 0].into(), ..NewC2d::default() }).await;
    let page = browser.open(queue).await;
    assert!(
        page.says("Message m-1 accepted.")
            && page.says("a&amp;b=&lt;i&gt;=x&lt;/i&gt;")
            && page.says("base64")
            && page.says("/wA=")
    );
    assert!(page.says("2 messages"));
    let page = browser.post("/portal/devices/d1/purge", &[]).await;
    assert_eq!(page.status, 303);
    assert!(browser.open(queue).await.says("2 messages purged."));
    assert_eq!(hub.hub.registry.entry(&id("d1")).unwrap().queued(), 0);
    let page = browser.post("/portal/devices/d1/modules/m/messages", &[("body", "x")]).await;
    assert_eq!(page.status, 303);
    assert_eq!(hub.hub.registry.entry(&id("d1/m")).unwrap().queued(), 1);
    hub.stop().await;
}

#[tokio::test]
async fn why_a_message_is_not_taken_is_said_beside_its_field() {
    let (hub, devices, mut browser) = hub_with(&["d1"]).await;
    let queue = "/portal/devices/d1/messages";
    let (long_id, large) = ("x".repeat(129), "x".repeat(65_537));
    let long = "é".repeat(20_000);
    for (fields, field, says) in [
        (
            &[("body", "x"), ("property-name", ""), ("property-value", "3")][..],
            "properties",
            "Give the property a name.",
        ),
        (&[("body", "x"), ("property-name", "a\0"), ("property-value", "3")], "properties", "NUL"),
        (&[("body", "x"), ("property-name", "a"), ("property-value", &long)], "properties", "do not fit"),
        (&[("body", &large)], "body", "bytes"),
        (&[("body", "x"), ("message-id", &long_id)], "message-id", "128"),
        (
            &[("body", "x"), ("expiry", "0")],
            "expiry",
            "Enter a number of minutes above 0, or leave it empty.",
        ),
        (
            &[("body", "x"), ("expiry", "soon")],
            "expiry",
            "Enter a number of minutes above 0, or leave it empty.",
        ),
        (&[("body", "x"), ("expiry", "99999")], "expiry", "expir"),
    ] {
        let page = browser.post(queue, fields).await;
        let about: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        assert_eq!(page.status, 400, "{about:?}");
        let said = said(&page, field);
        assert!(said.contains(r#"class="error""#) && said.contains(says), "{about:?}: {said}");
    }
    for _ in 0..50 {
        hub.send(&devices[0], "x").await;
    }
    let page = browser.post(queue, &[("body", "one too many")]).await;
    assert!(page.status == 403 && page.says("Not sent: ") && page.says("one too many"), "{}", page.status);
    hub.disable(&devices[0]).await;
    let page = browser.post(queue, &[("body", "x")]).await;
    assert!(page.status == 400 && page.says("d1 is disabled and accepts no messages."));
    hub.stop().await;
}

#[tokio::test]
async fn a_refusal_is_shown_with_its_exact_reason_and_what_to_do() {
    let (hub, devices, mut browser) = hub_with(&["d1"]).await;
    hub.connect(&devices[0]).await.disconnect().await;
    let mut wrong = hub.connect_packet(&devices[0]);
    let token = hub.token_for(&TestIdentity { keys: KeyPair::generate(), ..devices[0].clone() }, 3600);
    wrong.password = Some(portcullis::mqtt::packet::Password::from_bytes(token.as_bytes()));
    assert!(hub.connect_with(wrong).await.is_err());
    let page = browser.open("/portal/devices/d1/connections").await;
    for says in [
        "its signature was made with another key",
        "sas_bad_signature",
        "the device has another key than the registry",
        "it said goodbye",
        "SAS token",
        "127.0.0.1",
    ] {
        assert!(page.says(says), "{says}: {}", page.text);
    }
    hub.stop().await;
}

#[tokio::test]
async fn the_audit_of_a_device_is_its_own() {
    let (hub, _, mut browser) = hub_with(&["d1", "d10"]).await;
    post(&mut browser, &hub, "d1", "status", &[("status", "disabled")]).await;
    browser.post("/portal/devices/d10/purge", &[]).await;
    let page = browser.open("/portal/devices/d1/audit").await;
    assert!(page.says("updateIdentity") && page.says("iothubowner") && page.says("portal"), "{}", page.text);
    assert!(!page.says("purgeQueue") && !page.says("d10"));
    hub.stop().await;
}
