//! The portal as somebody in front of a browser has it.

use portcullis::testing::TestHub;
use portcullis::testing::chromium::Chromium;

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
    page.value("0").await;
    let mishaps = page.mishaps();
    for mishap in ["hello", "an error", "thrown"] {
        assert!(mishaps.iter().any(|seen| seen.contains(mishap)), "{mishap}: {mishaps:?}");
    }
    hub.stop().await;
}
