//! One page of the browser: what somebody in front of it does and sees, and what the page does wrong meanwhile.
//!
//! Nothing here sleeps. Waits for something on the page are promises on the page, kept by an observer of its document;
//! a page that is left breaks its promises, and the wait begins anew on the next one.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Answer, Chromium, lock};
use crate::{tools, within};

/// One page, with its own cookies; the clipboard is shared by all.
#[derive(Debug)]
pub struct Page {
    browser: &'static Chromium,
    session: String,
    /// Scheme, host and port of the hub.
    base: String,
    seen: Arc<Seen>,
}

/// What was seen of a page.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// What it did wrong.
    mishaps: watch::Sender<Vec<String>>,
    /// The documents that were loaded with all they name.
    loaded: watch::Sender<HashSet<String>>,
    /// The status of the last answer that became a document.
    status: Mutex<u16>,
}

impl Seen {
    /// Takes an event of the DevTools protocol.
    pub(super) fn take(&self, method: &str, event: &Value) {
        match method {
            "Page.lifecycleEvent" if event["name"] == "load" => {
                let loader = event["loaderId"].as_str().unwrap_or_default().to_owned();
                self.loaded.send_if_modified(|loaded| loaded.insert(loader));
            }
            "Network.responseReceived" if event["type"] == "Document" => {
                let status = event["response"]["status"].as_u64().unwrap_or_default();
                *lock(&self.status) = u16::try_from(status).unwrap_or_default();
            }
            "Runtime.exceptionThrown" => self.mishap("an exception", &event["exceptionDetails"]),
            "Runtime.consoleAPICalled" if matches!(event["type"].as_str(), Some("error" | "assert")) => {
                self.mishap("on the console", &event["args"]);
            }
            // What the server refuses is a test's to judge.
            "Log.entryAdded"
                if event["entry"]["level"] == "error" && event["entry"]["source"] != "network" =>
            {
                self.mishap("in the log", &event["entry"]);
            }
            "Audits.issueAdded" if event["issue"]["code"] == "ContentSecurityPolicyIssue" => {
                self.mishap("against the content security policy", &event["issue"]["details"]);
            }
            "Page.javascriptDialogOpening" => self.mishap("a dialog", &event["message"]),
            _ => {}
        }
    }

    fn mishap(&self, what: &str, details: &Value) {
        self.mishaps.send_modify(|mishaps| mishaps.push(format!("{what}: {details}")));
    }
}

impl Page {
    pub(super) async fn open(
        browser: &'static Chromium,
        session: String,
        base: String,
        seen: Arc<Seen>,
    ) -> Self {
        let page = Self { browser, session, base, seen };
        for domain in ["Page", "Runtime", "Network", "Log", "Audits", "DOM"] {
            page.call(&format!("{domain}.enable"), json!({})).await;
        }
        page.call("Page.setLifecycleEventsEnabled", json!({"enabled": true})).await;
        page.call("Security.setIgnoreCertificateErrors", json!({"ignore": true})).await;
        page.viewport(1280, 800).await;
        page
    }

    /// Scheme, host and port of the hub.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Goes to a path of the hub and waits until all it names is there; the status it was answered with.
    pub async fn go(&self, path: &str) -> u16 {
        let url = format!("{}{path}", self.base);
        let mut loaded = self.seen.loaded.subscribe();
        let begun = self.call("Page.navigate", json!({"url": url})).await;
        if let Some(error) = begun["errorText"].as_str() {
            panic!("{url}: {error}");
        }
        // Without one it was a jump within the page.
        if let Some(loader) = begun["loaderId"].as_str() {
            within(loaded.wait_for(|loaded| loaded.contains(loader))).await.expect("the page is watched");
        }
        *lock(&self.seen.status)
    }

    /// Does what makes the browser go to another page, and waits until that one is there; the status it came with.
    pub async fn to_next(&self, act: impl Future<Output = ()>) -> u16 {
        let mut loaded = self.seen.loaded.subscribe();
        let before = loaded.borrow_and_update().len();
        act.await;
        within(loaded.wait_for(|loaded| loaded.len() > before)).await.expect("the page is watched");
        *lock(&self.seen.status)
    }

    /// Clicks on what leads to another page, and waits until that one is there; the status it came with.
    pub async fn follow(&self, selector: &str) -> u16 {
        self.to_next(self.click(selector)).await
    }

    /// The value of an expression; a promise is waited for.
    pub async fn value(&self, expression: &str) -> Value {
        let value = self.try_value(expression).await;
        value.unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// The text of the first element that matches, as it is shown.
    pub async fn text(&self, selector: &str) -> String {
        self.wait_for(selector).await;
        let text = self.value(&format!("document.querySelector({}).innerText", quoted(selector))).await;
        text.as_str().expect("an element has a text").to_owned()
    }

    /// What stands in a field.
    pub async fn field(&self, selector: &str) -> String {
        self.wait_for(selector).await;
        let text = self.value(&format!("document.querySelector({}).value", quoted(selector))).await;
        text.as_str().expect("a field has a value").to_owned()
    }

    /// Waits for an element.
    pub async fn wait_for(&self, selector: &str) {
        self.until(&format!("document.querySelector({}) !== null", quoted(selector))).await;
    }

    /// Waits until the text of an element holds `text`.
    pub async fn wait_for_text(&self, selector: &str, text: &str) {
        let (selector, text) = (quoted(selector), quoted(text));
        let holds =
            format!("[...document.querySelectorAll({selector})].some(e => e.innerText.includes({text}))");
        self.until(&holds).await;
    }

    /// Waits until an expression holds; it is asked again whenever the document changes.
    pub async fn until(&self, holds: &str) {
        let promise = format!(
            "new Promise(keep => {{
                const holds = () => ({holds});
                if (holds()) return keep(true);
                const observer = new MutationObserver(() => {{
                    if (holds()) {{ observer.disconnect(); keep(true); }}
                }});
                observer.observe(document, {{
                    subtree: true, childList: true, attributes: true, characterData: true
                }});
                document.addEventListener('input', () => holds() && keep(true));
            }})"
        );
        let wait = async {
            while let Err(error) = self.try_value(&promise).await {
                assert!(is_left(&error), "{holds}: {error}");
            }
        };
        let patience = std::time::Duration::from_secs(50);
        if tokio::time::timeout(patience, wait).await.is_err() {
            let shown = self.value("location.href + '\\n' + document.body.innerText").await;
            panic!("never came: {holds}\n{}", shown.as_str().unwrap_or_default());
        }
    }

    /// Clicks in the middle of an element, as soon as it is there.
    pub async fn click(&self, selector: &str) {
        self.wait_for(selector).await;
        let place = self
            .value(&format!(
                "(() => {{
                    const element = document.querySelector({});
                    element.scrollIntoView({{block: 'center', behavior: 'instant'}});
                    const box = element.getBoundingClientRect();
                    return {{x: box.x + box.width / 2, y: box.y + box.height / 2, width: box.width}};
                }})()",
                quoted(selector)
            ))
            .await;
        assert!(place["width"].as_f64().is_some_and(|width| width > 0.0), "{selector} is not shown");
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let click = json!({
                "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1
            });
            self.call("Input.dispatchMouseEvent", click).await;
        }
    }

    /// Replaces what stands in a field, as typing does.
    pub async fn fill(&self, selector: &str, text: &str) {
        self.click(selector).await;
        self.value(&format!("document.querySelector({}).select()", quoted(selector))).await;
        if text.is_empty() {
            self.press("Delete").await;
        }
        self.type_text(text).await;
    }

    /// Types where the focus is.
    pub async fn type_text(&self, text: &str) {
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// Chooses an option of a list by its value.
    pub async fn choose(&self, selector: &str, value: &str) {
        self.wait_for(selector).await;
        self.value(&format!(
            "(() => {{
                const list = document.querySelector({});
                list.value = {};
                list.dispatchEvent(new Event('input', {{bubbles: true}}));
                list.dispatchEvent(new Event('change', {{bubbles: true}}));
            }})()",
            quoted(selector),
            quoted(value)
        ))
        .await;
    }

    /// Presses and releases a key, with Shift if it is written `Shift+Tab`.
    pub async fn press(&self, key: &str) {
        let (modifiers, key) = key.strip_prefix("Shift+").map_or((0, key), |key| (8, key));
        let (code, number, text) = match key {
            "Tab" => ("Tab", 9, ""),
            "Enter" => ("Enter", 13, "\r"),
            "Escape" => ("Escape", 27, ""),
            " " => ("Space", 32, " "),
            "Delete" => ("Delete", 46, ""),
            "ArrowDown" => ("ArrowDown", 40, ""),
            "ArrowUp" => ("ArrowUp", 38, ""),
            other => panic!("key {other:?} has no number here"),
        };
        let mut press = json!({
            "type": "keyDown", "key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers
        });
        if !text.is_empty() {
            press["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", press.clone()).await;
        press["type"] = "keyUp".into();
        self.call("Input.dispatchKeyEvent", press).await;
    }

    /// Gives a field files from the disk.
    pub async fn choose_file(&self, selector: &str, file: &Path) {
        self.wait_for(selector).await;
        let expression = format!("document.querySelector({})", quoted(selector));
        let object = self.call("Runtime.evaluate", json!({"expression": expression})).await;
        let object = object["result"]["objectId"].clone();
        self.call("DOM.setFileInputFiles", json!({"files": [file], "objectId": object})).await;
    }

    /// Drops a file with this text on an element.
    pub async fn drop_file(&self, selector: &str, name: &str, text: &str) {
        self.wait_for(selector).await;
        self.value(&format!(
            "(() => {{
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File([{}], {}));
                const element = document.querySelector({});
                for (const kind of ['dragenter', 'dragover', 'drop'])
                    element.dispatchEvent(
                        new DragEvent(kind, {{dataTransfer, bubbles: true, cancelable: true}}));
            }})()",
            quoted(text),
            quoted(name),
            quoted(selector)
        ))
        .await;
    }

    /// Sets the size of what is seen, in CSS pixels.
    pub async fn viewport(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Prefers `light` or `dark`.
    pub async fn scheme(&self, scheme: &str) {
        // What moves from one colour to the other would be seen on its way.
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// Switches scripts off or on, for pages from now on.
    pub async fn scripts(&self, on: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": !on})).await;
    }

    /// By how many pixels the document is wider than what is seen.
    pub async fn overflow(&self) -> i64 {
        let width = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.value(width).await.as_i64().expect("a number of pixels")
    }

    /// Writes a picture of the whole page.
    pub async fn screenshot(&self, file: &Path) {
        let picture = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", picture).await;
        let picture = STANDARD.decode(picture["data"].as_str().unwrap_or_default()).expect("base64");
        std::fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
        std::fs::write(file, picture).expect("the picture can be written");
    }

    /// What keeps people out of the page, as axe finds it: what is serious or critical.
    pub async fn barriers(&self) -> Vec<String> {
        let script = std::fs::read_to_string(tools::axe()).expect("axe was fetched");
        if self.value("typeof axe").await == "undefined" {
            self.value(&format!("{script};0")).await;
        }
        let found = self
            .value(
                "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations
                    .filter(one => ['serious', 'critical'].includes(one.impact))
                    .map(one => one.id + ': ' + one.nodes.slice(0, 5).map(node => node.html + ' '
                        + node.failureSummary).join(' | ')))",
            )
            .await;
        let found = found.as_array().expect("a list").iter();
        found.map(|one| one.as_str().unwrap_or_default().to_owned()).collect()
    }

    /// What the page has done wrong so far: exceptions, errors on the console, dialogs, breaches of its policy.
    pub fn mishaps(&self) -> Vec<String> {
        self.seen.mishaps.borrow().clone()
    }

    /// Waits until the page has done something wrong that `text` tells of: the browser reports some of it late.
    pub async fn wait_for_mishap(&self, text: &str) {
        let mut mishaps = self.seen.mishaps.subscribe();
        let told = |mishaps: &Vec<String>| mishaps.iter().any(|mishap| mishap.contains(text));
        within(mishaps.wait_for(told)).await.expect("the page is watched");
    }

    /// Forgets what the page has done wrong; what it was.
    pub fn take_mishaps(&self) -> Vec<String> {
        self.seen.mishaps.send_replace(Vec::new())
    }

    async fn try_value(&self, expression: &str) -> Answer {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut answer = self.browser.try_call(Some(&self.session), "Runtime.evaluate", asked).await?;
        match answer.get("exceptionDetails") {
            Some(thrown) => {
                let text = thrown["exception"]["description"].as_str().or(thrown["text"].as_str());
                Err(text.unwrap_or("an exception").to_owned())
            }
            None => Ok(answer["result"]["value"].take()),
        }
    }

    async fn call(&self, method: &str, parameters: Value) -> Value {
        self.browser.call(Some(&self.session), method, parameters).await
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        self.browser.forget(&self.session);
    }
}

/// Whether an expression came to nothing because its page was left.
fn is_left(error: &str) -> bool {
    ["context was destroyed", "navigated", "Cannot find context", "closed"]
        .iter()
        .any(|part| error.contains(part))
}

/// A text as JavaScript writes it.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
