//! What the portal tells while a page is open: to whom, until when, and that no reader holds a device up.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::Arc;

use portcullis::auth::{Face, Origin, VerifiedService};
use portcullis::operations::watch::{self, News, WatchError};
use portcullis_registry::id::DeviceId;
use portcullis_registry::policy::Renewal;
use portcullis_testing::browser::Browser;
use portcullis_testing::{TestHub, until, within};
use reqwest::Response;
use serde_json::{Value, json};

/// A stream of events that somebody reads.
struct Stream {
    response: Response,
    read: String,
}

impl Stream {
    async fn open(browser: &Browser, query: &str) -> Self {
        let response = within(ask(browser, query).send()).await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, read: String::new() }
    }

    /// The name and the data of the next event; nothing at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let field = |name: &str| {
                    let mut lines = event.lines().filter_map(|line| line.split_once(": "));
                    lines.find(|(own, _)| *own == name).map(|(_, value)| value.to_owned())
                };
                let (name, data) = (field("event"), field("data"));
                self.read = rest.to_owned();
                let (Some(name), Some(data)) = (name, data) else { continue };
                return Some((name, serde_json::from_str(&data).expect("JSON")));
            }
            let chunk = within(self.response.chunk()).await.ok()??;
            self.read += std::str::from_utf8(&chunk).expect("a text");
        }
    }

    async fn expect(&mut self, name: &str) -> Value {
        let (own, data) = self.next().await.expect("an event");
        assert_eq!(own, name, "{data}");
        data
    }
}

fn ask(browser: &Browser, query: &str) -> reqwest::RequestBuilder {
    ask_from("same-origin", browser, query)
}

fn ask_from(site: &str, browser: &Browser, query: &str) -> reqwest::RequestBuilder {
    let request = browser.request("GET", &format!("/portal/live?{query}")).header("sec-fetch-site", site);
    request.header("cookie", browser.cookie.as_deref().unwrap_or_default())
}

fn service(hub: &TestHub, policy: &str) -> VerifiedService {
    let policies = hub.hub.policies();
    let key = policies.find(policy).expect("a policy").keys.primary.clone();
    let origin = Origin { face: Face::Portal, peer: "127.0.0.1".parse().unwrap() };
    hub.hub.authenticator(&policies).verify_policy_key(policy, &key, origin).expect("the key is the policy's")
}

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

#[tokio::test]
async fn a_page_hears_what_its_device_does() {
    let hub = TestHub::start().await;
    let device = hub.device("pump").await;
    let other = hub.device("other").await;
    let browser = hub.signed_in("iothubowner").await;
    let mut stream = Stream::open(&browser, "telemetry=pump").await;
    let state = |connected: bool| json!({"device": "pump", "module": null, "connected": connected});
    assert_eq!(stream.expect("state").await, state(false));
    let mut others = hub.connect(&other).await;
    others.publish_acknowledged("devices/other/messages/events/", b"not for this page").await;
    let mut client = hub.connect(&device).await;
    assert_eq!(stream.expect("state").await, state(true));
    let topic = "devices/pump/messages/events/%24.ct=text%2Fplain&a=%0Aevent%3A%20state%0A";
    client.publish_acknowledged(topic, b"one\r\nevent: state\n\n").await;
    let told = stream.expect("telemetry").await;
    assert_eq!(told["body"], "one\r\nevent: state\n\n");
    assert_eq!(told["properties"], json!([["$.ct", "text/plain"], ["a", "\nevent: state\n"]]));
    client.disconnect().await;
    assert_eq!(stream.expect("state").await, state(false));
    hub.disable(&device).await;
    assert!(hub.connect_with(hub.connect_packet(&device)).await.is_err());
    assert_eq!(stream.expect("refused").await["reason"], "identity pump is disabled");
    hub.stop().await;
    assert!(stream.next().await.is_none(), "a hub that stops ends its streams");
}

#[tokio::test]
async fn t714_a_page_elsewhere_hears_nothing_and_a_stream_ends_with_its_session() {
    let hub = TestHub::start().await;
    let device = hub.device("pump").await;
    let mut browser = hub.signed_in("iothubowner").await;
    let answer = |request: reqwest::RequestBuilder| async { within(request.send()).await.unwrap().status() };
    assert_eq!(answer(ask(&browser, "device=pump").header("origin", "https://evil.example")).await, 403);
    assert_eq!(answer(ask_from("cross-site", &browser, "device=pump")).await, 403);
    let stranger = hub.browser();
    assert_eq!(answer(ask(&stranger, "device=pump")).await, 303);
    assert_eq!(answer(ask(&browser, "")).await, 400);
    assert_eq!(answer(ask(&browser, "device=a%2Fb")).await, 400);

    let mut stream = Stream::open(&browser, "device=pump").await;
    stream.expect("state").await;
    browser.post("/portal/sign-out", &[]).await;
    let _client = hub.connect(&device).await;
    assert_eq!(stream.next().await, None);

    let browser = hub.signed_in("registryRead").await;
    let mut stream = Stream::open(&browser, "device=pump").await;
    stream.expect("state").await;
    let owner = service(&hub, "iothubowner");
    portcullis::operations::policies::regenerate(&hub.hub, &owner, "registryRead", Renewal::Both)
        .await
        .unwrap();
    assert_eq!(stream.next().await, None);
    hub.stop().await;
}

#[tokio::test]
async fn t716_telemetry_is_for_who_may_read_it() {
    let hub = TestHub::start().await;
    hub.device("pump").await;
    let reader = hub.signed_in("registryRead").await;
    let answer = within(ask(&reader, "telemetry=pump").send()).await.unwrap();
    assert_eq!(answer.status(), 403);
    let device = hub.signed_in("device").await;
    assert_eq!(within(ask(&device, "device=pump").send()).await.unwrap().status(), 403);
    let refused = watch::telemetry(&hub.hub, &service(&hub, "registryRead"), id("pump"));
    assert!(matches!(refused, Err(WatchError::Forbidden(_))));
    hub.stop().await;
}

#[tokio::test]
async fn who_reads_too_slowly_misses_some_and_is_told_how_many() {
    let hub = TestHub::start().await;
    let device = hub.device("pump").await;
    let mut slow = watch::telemetry(&hub.hub, &service(&hub, "iothubowner"), id("pump")).unwrap();
    let mut client = hub.connect(&device).await;
    for number in 0..100 {
        client.publish_acknowledged("devices/pump/messages/events/", format!("{number}").as_bytes()).await;
    }
    until(|| hub.hub.bus.lost() == 36).await;
    let mut heard = Vec::new();
    while heard.len() < 64 {
        if let News::Telemetry(event) = within(slow.next()).await.unwrap() {
            heard.push(Arc::clone(&event));
        }
    }
    assert!(heard.iter().all(|event| event.lost_before == 0));
    client.publish_acknowledged("devices/pump/messages/events/", b"after").await;
    let Some(News::Telemetry(event)) = within(slow.next()).await else { panic!("telemetry comes") };
    assert_eq!((&*event.telemetry.payload, event.lost_before), (b"after".as_slice(), 36));
    hub.stop().await;
}

#[tokio::test]
async fn t720_only_so_many_look_on() {
    let hub = TestHub::start_with_limits(&[("watchers_max", "2")]).await;
    let owner = service(&hub, "iothubowner");
    let look = || watch::presence(&hub.hub, &owner, HashSet::from([id("pump")]));
    let (first, _second) = (look().unwrap(), look().unwrap());
    assert_eq!(look().err(), Some(WatchError::TooMany(2)));
    let browser = hub.signed_in("iothubowner").await;
    let answer = within(ask(&browser, "device=pump").send()).await.unwrap();
    assert_eq!(answer.status(), 429);
    drop(first);
    assert!(look().is_ok());
    hub.stop().await;
}
