//! The portal as somebody in front of a browser has it. Pictures of its pages come to lie in `target/portal`.

use std::path::{Path, PathBuf};

use portcullis::mqtt::packet::ConnectReturnCode;
use portcullis::testing::TestHub;
use portcullis::testing::chromium::{Chromium, Page};

/// A page on which somebody is signed in with a policy.
async fn signed_in(browser: &'static Chromium, hub: &TestHub, policy: &str) -> Page {
    let page = browser.page(hub).await;
    assert_eq!(page.go("/portal").await, 200);
    let key = hub.hub.policies().find(policy).expect("a policy").keys.primary.to_base64();
    page.fill("#policy", policy).await;
    page.fill("#key", &key).await;
    assert_eq!(page.follow("form button.primary").await, 200);
    page.wait_for("form.out").await;
    page
}

/// Where a picture belongs.
fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/portal").join(format!("{name}.png"))
}

/// Takes pictures of the page that is shown: light, dark, and as wide as a small telephone; in each way it must keep
/// nobody out and do nothing wrong, and in the narrow one it must not be wider than what is seen.
async fn look_at(page: &Page, name: &str) {
    for scheme in ["light", "dark"] {
        page.scheme(scheme).await;
        assert_eq!(page.barriers().await, [""; 0], "{name} in {scheme}");
        page.screenshot(&picture(&format!("{name}-{scheme}"))).await;
    }
    page.scheme("light").await;
    page.viewport(360, 740).await;
    assert_eq!(page.overflow().await, 0, "{name} is wider than a telephone");
    assert_eq!(page.barriers().await, [""; 0], "{name} on a telephone");
    page.screenshot(&picture(&format!("{name}-360"))).await;
    page.viewport(1280, 800).await;
    assert_eq!(page.mishaps(), [""; 0], "{name}");
}

#[tokio::test]
async fn the_browser_tells_what_a_page_does_wrong() {
    let Some(browser) = Chromium::shared() else { return };
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
    page.wait_for("img").await;
    let mishaps = page.mishaps();
    for mishap in ["hello", "an error", "thrown", "script-src"] {
        assert!(mishaps.iter().any(|seen| seen.contains(mishap)), "{mishap}: {mishaps:?}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn the_overview_shows_what_the_fleet_does() {
    let Some(browser) = Chromium::shared() else { return };
    let hub = TestHub::start().await;
    let page = signed_in(browser, &hub, "iothubowner").await;
    page.wait_for_text("#glance .empty", "No devices yet").await;
    look_at(&page, "overview-empty").await;
    let device = hub.device("pump-7").await;
    let disabled = hub.device("pump-8").await;
    hub.disable(&disabled).await;
    let mut client = hub.connect(&device).await;
    client.publish_acknowledged("devices/pump-7/messages/events/", b"{}").await;
    assert_eq!(
        hub.connect_with(hub.connect_packet(&disabled)).await.err(),
        Some(ConnectReturnCode::NotAuthorized)
    );
    page.go("/portal").await;
    page.wait_for_text("#glance", "identity pump-8 is disabled").await;
    page.wait_for_text(".bars", "disabled").await;
    assert_eq!(page.text(".tile:last-child strong").await, "1");
    look_at(&page, "overview").await;
    hub.stop().await;
}
