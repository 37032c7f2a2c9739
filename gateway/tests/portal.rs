//! The portal's frame: signing in and out, what a stranger meets, and that no page elsewhere can make use of a session.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::http::Method;
use portcullis::portal::{PageNeeds, routes};
use portcullis_testing::TestHub;
use portcullis_testing::browser::{Browser, form};

/// A path one can ask for.
fn concrete(path: &str) -> String {
    let path = path.replace("{device}", "d1").replace("{module}", "m").replace("{file}", "portal.css");
    path.replace("{*elsewhere}", "elsewhere")
}

async fn is_signed_in(browser: &mut Browser) -> bool {
    let page = browser.open("/portal").await;
    assert!(page.status == 200 || page.header("location") == "/portal/sign-in", "{page:?}");
    page.status == 200
}

#[tokio::test]
async fn t701_a_stranger_is_led_to_where_one_signs_in() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let mut browser = hub.browser();
    for route in routes().iter().filter(|route| route.needs != PageNeeds::Nothing) {
        let path = concrete(route.path);
        for cookie in [
            None,
            Some("__Host-portcullis=".to_owned()),
            Some(format!("__Host-portcullis={}", "0".repeat(64))),
        ] {
            browser.cookie = cookie;
            let page = match route.method {
                Method::GET => browser.open(&path).await,
                _ => browser.post(&path, &[]).await,
            };
            assert_eq!(page.status, 303, "{} {path}", route.method);
            assert!(page.header("location").starts_with("/portal/sign-in"), "{path}");
            let fetched = browser.fetch(&path).await;
            assert!([401, 405].contains(&fetched.status), "{path}");
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn whoever_signs_in_comes_to_the_page_asked_for() {
    let hub = TestHub::start().await;
    let mut browser = hub.browser();
    let page = browser.open("/portal/devices?q=a%2Fb").await;
    assert_eq!(page.header("location"), "/portal/sign-in?next=%2Fportal%2Fdevices%3Fq%3Da%252Fb");
    let page = browser.open(page.header("location")).await;
    assert!(page.says(r#"name="next" value="/portal/devices?q=a%2Fb""#), "{}", page.text);
    let owner = portcullis::operations::policies::owner_connection_string(&hub.hub);
    let fields = [("connection-string", owner.as_str()), ("next", "/portal/devices?q=a%2Fb")];
    let page = browser.post("/portal/sign-in", &fields).await;
    assert_eq!((page.status, page.header("location")), (303, "/portal/devices?q=a%2Fb"));
    hub.stop().await;
}

#[tokio::test]
async fn t714_nobody_is_led_elsewhere() {
    let hub = TestHub::start().await;
    let owner = portcullis::operations::policies::owner_connection_string(&hub.hub);
    for next in [
        "//evil.example",
        "https://evil.example/portal",
        "/portal//evil.example",
        "/\\evil.example",
        "/devices",
    ] {
        let mut browser = hub.browser();
        let page = browser.post("/portal/sign-in", &[("connection-string", &owner), ("next", next)]).await;
        assert_eq!((page.status, page.header("location")), (303, "/portal"), "{next}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t715_a_cookie_is_of_this_host_and_of_this_login() {
    let hub = TestHub::start().await;
    let mut browser = hub.signed_in("registryRead").await;
    let first = browser.cookie.clone().unwrap();
    let key = hub.hub.policies().find("service").unwrap().keys.secondary.to_base64();
    let page = browser.post("/portal/sign-in", &[("policy", "service"), ("key", &key)]).await;
    let cookie = page.header("set-cookie");
    assert!(cookie.starts_with("__Host-portcullis="), "{cookie}");
    for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let second = browser.cookie.clone().unwrap();
    assert_ne!(first, second);
    // The session that was left is over.
    let mut old = hub.browser();
    old.cookie = Some(first);
    assert!(!is_signed_in(&mut old).await);
    let page = browser.open("/portal").await;
    assert!(page.says("service") && page.status == 200);
    let page = browser.post("/portal/sign-out", &[]).await;
    assert_eq!((page.status, page.header("location")), (303, "/portal/sign-in"));
    browser.cookie = Some(second);
    assert!(!is_signed_in(&mut browser).await);
    hub.stop().await;
}

#[tokio::test]
async fn t715_wrong_keys_are_refused_alike_and_guessing_is_slowed() {
    let hub = TestHub::start_with_limits(&[("failed_logins_per_address_per_second_max", "3")]).await;
    let key = portcullis_registry::credential::SymmetricKey::generate().to_base64();
    let owner = hub.hub.policies().find("iothubowner").unwrap().keys.primary.to_base64();
    let mut browser = hub.browser();
    let unknown = browser.post("/portal/sign-in", &[("policy", "nobody"), ("key", &key)]).await;
    let wrong = browser.post("/portal/sign-in", &[("policy", "iothubowner"), ("key", &key)]).await;
    assert_eq!((unknown.status, wrong.status), (401, 401));
    assert_eq!(
        unknown.text,
        wrong
            .text
            .replace("iothubowner\"><label", "nobody\"><label")
            .replace(r#"value="iothubowner""#, r#"value="nobody""#)
    );
    assert!(wrong.says("No policy of this name has this key.") && !wrong.says(&key));
    let mut last = wrong;
    for _ in 0..3 {
        last = browser.post("/portal/sign-in", &[("policy", "iothubowner"), ("key", &key)]).await;
    }
    assert_eq!(last.status, 429);
    assert!(last.says("Too many failed sign-ins"));
    assert_eq!(last.header("retry-after"), "1");
    let page = browser.post("/portal/sign-in", &[("policy", "iothubowner"), ("key", &owner)]).await;
    assert_eq!(page.status, 429, "even the right key is not looked at");
    hub.stop().await;
}

#[tokio::test]
async fn a_login_form_says_what_is_wrong_with_it_and_shows_no_secret() {
    let hub = TestHub::start().await;
    let key = portcullis_registry::credential::SymmetricKey::generate().to_base64();
    let other =
        format!("HostName=other.example.test;SharedAccessKeyName=iothubowner;SharedAccessKey={}", *key);
    let device = format!("HostName=localhost;DeviceId=d1;SharedAccessKey={}", *key);
    let cases = [
        (&[][..], "Enter a connection string"),
        (&[("policy", "service")], "The key of the policy is missing."),
        (&[("policy", "service"), ("key", "no base64!")], "Key: a symmetric key is standard base64."),
        (&[("connection-string", "HostName")], "Connection string: part 1 is not Key=Value"),
        (
            &[("connection-string", other.as_str())],
            "for the hub other.example.test, but this hub is localhost.",
        ),
        (&[("connection-string", device.as_str())], "connection string of a device"),
    ];
    let mut browser = hub.browser();
    for (fields, says) in cases {
        let page = browser.post("/portal/sign-in", fields).await;
        assert_eq!(page.status, 400, "{fields:?}");
        assert!(page.says(says) && !page.says(&key), "{fields:?}: {}", page.text);
        assert_eq!(page.header("set-cookie"), "");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t604_a_session_ends_with_the_key_it_rests_on() {
    let hub = TestHub::start().await;
    let (mut reader, mut owner) = (hub.signed_in("registryRead").await, hub.signed_in("iothubowner").await);
    let rest = hub.rest();
    let regenerate = |key: &'static str| {
        let rest = rest.clone();
        async move {
            let body = serde_json::json!({ "key": key });
            rest.call("POST", "/api/v1/policies/registryRead/regenerate", Some(body)).await.0
        }
    };
    assert_eq!(regenerate("secondary").await, 200);
    assert!(is_signed_in(&mut reader).await);
    assert_eq!(regenerate("primary").await, 200);
    assert!(!is_signed_in(&mut reader).await);
    assert!(is_signed_in(&mut owner).await);
    hub.stop().await;
}

#[tokio::test]
async fn t721_beyond_the_sessions_the_hub_holds_the_one_idle_longest_is_signed_out() {
    let hub = TestHub::start_with_limits(&[("portal_sessions_max", "2")]).await;
    let (mut busy, mut idle) = (hub.signed_in("iothubowner").await, hub.signed_in("iothubowner").await);
    assert!(is_signed_in(&mut busy).await);
    let mut last = hub.signed_in("registryRead").await;
    assert!(!is_signed_in(&mut idle).await);
    assert!(is_signed_in(&mut busy).await && is_signed_in(&mut last).await);
    hub.stop().await;
}

#[tokio::test]
async fn t714_a_form_from_elsewhere_is_refused() {
    let hub = TestHub::start().await;
    let mut browser = hub.signed_in("iothubowner").await;
    let other = hub.signed_in("iothubowner").await.csrf;
    let csrf = browser.csrf.clone();
    let own = format!("https://localhost:{}", hub.https.port());
    for route in routes().iter().filter(|route| route.method == Method::POST) {
        let path = concrete(route.path);
        for (headers, csrf) in [
            (&[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")][..], csrf.as_str()),
            (&[("origin", "https://evil.example")], &csrf),
            (&[("origin", "null"), ("sec-fetch-site", "cross-site")], &csrf),
            (&[("origin", "null")], &csrf),
            (&[("origin", &own), ("sec-fetch-site", "same-site")], &csrf),
            (&[("origin", "https://localhost:1")], &csrf),
            (&[("origin", "http://localhost")], &csrf),
            (&[], &csrf),
        ] {
            let mut request = form(browser.request("POST", &path), &[("csrf", csrf)]);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            assert_eq!(browser.send(request).await.status, 403, "{path} {headers:?}");
        }
        if route.needs == PageNeeds::Nothing {
            continue;
        }
        for csrf in ["", "0", &other, &"0".repeat(64)] {
            let page = browser.post_bare(&path, &[("csrf", csrf)]).await;
            assert_eq!(page.status, 403, "{path} {csrf}");
        }
        let page = browser.post_bare(&path, &[]).await;
        assert_eq!(page.status, 403, "{path}");
        let request = browser.request("POST", &path).header("sec-fetch-site", "same-origin");
        let request = request.header("content-type", "text/plain").body(format!("csrf={csrf}"));
        // A file may be of any kind, but where it comes from a script says in the head.
        let status = if route.takes_a_file { 403 } else { 400 };
        assert_eq!(browser.send(request).await.status, status, "{path}");
    }
    assert!(is_signed_in(&mut browser).await);
    hub.stop().await;
}

#[tokio::test]
async fn t714_a_page_elsewhere_fetches_nothing_and_a_foreign_host_is_refused() {
    let hub = TestHub::start().await;
    let mut browser = hub.signed_in("iothubowner").await;
    for (name, value) in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
    ] {
        let request = browser.request("GET", "/portal").header(name, value).header("sec-fetch-mode", "cors");
        assert_eq!(browser.send(request).await.status, 403, "{name} {value}");
    }
    // A link elsewhere may lead here.
    let request = browser.request("GET", "/portal").header("sec-fetch-site", "cross-site");
    assert_eq!(browser.send(request.header("sec-fetch-mode", "navigate")).await.status, 200);
    for host in ["evil.example", "evil.example:443", "localhost.evil.example", "127.0.0.1", "[::1]:443"] {
        for path in ["/portal", "/portal/sign-in"] {
            let page = browser.send(browser.request("GET", path).header("host", host)).await;
            assert_eq!(page.status, 400, "{host}");
            assert!(page.says("This hub is called localhost"), "{}", page.text);
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn t713_t714_every_answer_is_armoured() {
    let hub = TestHub::start().await;
    let mut browser = hub.signed_in("iothubowner").await;
    for path in ["/portal", "/portal/sign-in", "/portal/elsewhere", "/portal/assets/nothing.css"] {
        let page = browser.open(path).await;
        let policy = page.header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(page.header(name), value, "{path}");
        }
        assert!(!page.says("<style") && !page.says(" style=") && !page.says(" onclick="), "{path}");
        for script in page.text.split("<script").skip(1) {
            assert!(
                script.starts_with(" src=\"/portal/assets/") && script.contains("defer></script>"),
                "{script}"
            );
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn assets_are_kept_under_names_that_tell_their_content() {
    let hub = TestHub::start().await;
    let mut browser = hub.browser();
    let page = browser.open("/portal/sign-in").await;
    let names: Vec<_> =
        page.text.split("/portal/assets/").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let asset = browser.open(&format!("/portal/assets/{name}")).await;
        assert_eq!(
            (asset.status, asset.header("cache-control")),
            (200, "public, max-age=31536000, immutable")
        );
        assert!(!asset.header("content-type").is_empty() && !asset.text.is_empty());
    }
    assert_eq!(browser.open("/portal/assets/..%2f..%2fca.pem").await.status, 404);
    hub.stop().await;
}

#[tokio::test]
async fn a_browser_is_led_to_the_portal_and_a_program_is_not() {
    let hub = TestHub::start().await;
    let mut browser = hub.browser();
    for path in ["/", "/portal/"] {
        let page = browser.open(path).await;
        assert_eq!((page.status, page.header("location")), (303, "/portal"));
    }
    let (status, body) = hub.rest().call("GET", "/", None).await;
    assert_eq!(status, 404);
    assert!(body["Message"].as_str().unwrap().starts_with("ErrorCode:GenericNotFound"), "{body}");
    hub.stop().await;
}
