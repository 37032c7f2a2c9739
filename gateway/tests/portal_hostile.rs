//! What anybody has written into the hub, or asks the portal for, is text on every page (threats T713).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis_registry::access::Access;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::Status;
use portcullis_registry::message::NewC2d;
use portcullis_testing::TestHub;
use portcullis_testing::hostile::hostile_texts;

/// Reads a page as strictly as the portal writes it, and sees that it holds nothing but what the portal has written:
/// whatever somebody else wrote would show as a tag, an attribute or an address of its own.
fn check_inert(page: &str) {
    let mut rest = page;
    while let Some(begin) = rest.find('<') {
        rest = &rest[begin + 1..];
        if let Some(after) = rest.strip_prefix("!DOCTYPE html>") {
            rest = after;
            continue;
        }
        let is_end = rest.starts_with('/');
        rest = rest.trim_start_matches('/');
        let length = rest.find(|letter: char| !letter.is_ascii_alphanumeric()).expect("a tag ends");
        let (tag, after) = rest.split_at(length);
        assert!(TAGS.contains(&tag), "<{tag} in {page}");
        rest = after;
        while let Some(after) = rest.strip_prefix(' ') {
            assert!(!is_end, "an attribute of </{tag} in {page}");
            let length = after
                .find(|letter: char| !letter.is_ascii_lowercase() && letter != '-')
                .expect("an attribute ends");
            let (name, after) = after.split_at(length);
            rest = after;
            let mut value = "";
            if let Some(after) = rest.strip_prefix("=\"") {
                (value, rest) = after.split_once('"').expect("a value ends");
            }
            check_attribute(tag, name, value);
        }
        rest = rest.strip_prefix('>').unwrap_or_else(|| panic!("<{tag} does not end in {page}"));
        if tag == "script" && !is_end {
            assert!(rest.starts_with("</script>"), "a script of its own in {page}");
        }
    }
}

fn check_attribute(tag: &str, name: &str, value: &str) {
    let forbidden = ["style", "srcdoc", "http-equiv", "ping", "hx-on", "hx-eval"];
    assert!(!name.is_empty() && !name.starts_with("on") && !forbidden.contains(&name), "{name} of <{tag}>");
    let is_local = value.starts_with("/portal") && !value.contains("//");
    match name {
        "href" if value == "#main" => {}
        "href" | "src" | "action" | "formaction" | "hx-get" | "hx-post" => {
            assert!(is_local, "{name}={value} of <{tag}>")
        }
        "hx-vals" => assert!(
            ["{&quot;place&quot;:&quot;0&quot;}", "{&quot;place&quot;:&quot;1&quot;}"].contains(&value),
            "{value}"
        ),
        "hx-trigger" | "hx-target" | "hx-include" => assert!(!value.contains(['[', '(']), "{name}={value}"),
        _ => {}
    }
}

/// The elements the portal uses.
const TAGS: [&str; 53] = [
    "a",
    "abbr",
    "body",
    "button",
    "code",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "fieldset",
    "form",
    "h1",
    "h2",
    "h3",
    "head",
    "header",
    "html",
    "img",
    "input",
    "label",
    "legend",
    "li",
    "link",
    "main",
    "meta",
    "nav",
    "noscript",
    "option",
    "p",
    "pre",
    "script",
    "section",
    "select",
    "span",
    "strong",
    "summary",
    "table",
    "tbody",
    "td",
    "textarea",
    "th",
    "thead",
    "time",
    "title",
    "tr",
    "ul",
    "footer",
    "figure",
    "figcaption",
    "small",
    "em",
    "ol",
];

#[tokio::test]
async fn t713_what_anybody_has_written_is_text_on_every_page() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    hub.module("d1", "m").await;
    hub.device("javascript:alert(1)").await;
    hub.device("'onclick='alert(1)'").await;
    hub.device("$(alert)").await;
    let mut browser = hub.signed_in("iothubowner").await;
    for text in hostile_texts() {
        let reason: String = text.chars().take(128).collect();
        hub.change(&device, |spec| {
            spec.status = Status::Enabled;
            spec.status_reason = Some(reason);
            spec.managed_by = Some(text.clone());
            spec.access = Some(Access::EVERYTHING);
        })
        .await;
        let plain: String = text.chars().filter(|letter| *letter != '\0').collect();
        let message = NewC2d {
            message_id: Some(plain.clone()),
            correlation_id: Some(plain.clone()),
            content_type: Some(plain.clone()),
            properties: vec![(plain.clone(), plain.clone())],
            body: text.clone().into_bytes().into(),
            ..NewC2d::default()
        };
        hub.send_message(&device, message).await;
        // A client that says who it is in such words, and is refused.
        let mut claim = hub.connect_packet(&device);
        claim.username = Some(format!(
            "{}/d1/?api-version=2021-04-12",
            plain.replace(|letter: char| letter == '/' || letter.is_control(), "|")
        ));
        let _ = hub.connect_with(claim).await.err();
        let query =
            percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let mut pages = Vec::new();
        for path in [
            "/portal/devices".to_owned(),
            format!(
                "/portal/devices?q={query}&match=contains&after={query}&before={query}&auth={query}&count={query}"
            ),
            "/portal/devices/d1".to_owned(),
            "/portal/devices/d1/messages".to_owned(),
            "/portal/devices/d1/connections".to_owned(),
            format!("/portal/sign-in?next={query}"),
            format!("/portal/check-id?id={query}"),
            format!("/portal/devices/{query}"),
            format!("/portal/created/{query}"),
            format!("/portal/{query}"),
        ] {
            pages.push(browser.open(&path).await);
        }
        for (path, fields) in [
            (
                "/portal/new-device",
                &[("id", text.as_str()), ("auth", &text), ("primary-key", &text), ("secondary-key", &text)][..],
            ),
            (
                "/portal/new-device",
                &[
                    ("id", "x"),
                    ("auth", "selfSigned"),
                    ("primary-thumbprint", &text),
                    ("primary-certificate", &text),
                ],
            ),
            ("/portal/thumbprint", &[("place", "0"), ("primary-certificate", &text)]),
            (
                "/portal/devices/d1/messages",
                &[
                    ("body", &text),
                    ("property-name", ""),
                    ("property-value", &text),
                    ("message-id", &text),
                    ("expiry", &text),
                    ("ack", &text),
                ],
            ),
            ("/portal/devices/d1/token", &[("minutes", &text), ("key", &text)]),
            ("/portal/devices/d1/new-module", &[("module-id", &text), ("managed-by", &text)]),
            ("/portal/selected/delete", &[("id", &text), ("back", &text)]),
            (
                "/portal/devices/d1/access",
                &[("etag", "x"), ("allow", "list"), ("methods", &text), ("queue-max", &text), ("may", &text)],
            ),
        ] {
            pages.push(browser.post(path, fields).await);
        }
        let mut stranger = hub.browser();
        pages.push(
            stranger.post("/portal/sign-in", &[("policy", &text), ("key", &text), ("next", &text)]).await,
        );
        pages.push(stranger.post("/portal/sign-in", &[("connection-string", &text)]).await);
        for page in pages {
            assert!(page.status < 500, "{text:?}: {}", page.status);
            check_inert(&page.text);
        }
        browser.post("/portal/devices/d1/purge", &[]).await;
    }
    for path in ["/portal/devices", "/portal/devices/javascript%3Aalert%281%29", "/portal/devices/d1/audit"] {
        let page = browser.open(path).await;
        assert_eq!(page.status, 200, "{path}");
        check_inert(&page.text);
    }
    let odd = IdentityId::device(DeviceId::parse("'onclick='alert(1)'").unwrap());
    assert!(hub.hub.registry.entry(&odd).is_some());
    hub.stop().await;
}

#[test]
fn what_is_not_inert_would_be_found() {
    for page in [
        "<p>x</p><script>alert(1)</script>",
        "<p title=\"x\" onclick=\"alert(1)\">x</p>",
        "<p title='x'>",
        "<iframe></iframe>",
        "<a href=\"javascript:alert(1)\">x</a>",
        "<a href=\"//evil\">x</a>",
        "<p><!-- x --></p>",
    ] {
        assert!(std::panic::catch_unwind(|| check_inert(page)).is_err(), "{page}");
    }
    check_inert("<!DOCTYPE html><p title=\"it's\">&lt;x&gt; 'onclick='</p><input disabled>");
}
