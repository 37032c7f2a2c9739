//! A browser that tests look at the portal with: Chromium, spoken to over the DevTools protocol.
//!
//! It listens on no port: requests and answers go through a pair of pipes, and the browser ends when they close, which
//! is when the test process ends. One thread reads the pipe and hands each answer to who waits for it and each event to
//! its page, so pages of tests that run in runtimes of their own share one browser. See [`Page`] for what a test does.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{TestHub, tools, within};

mod page;
mod portal;

pub use page::Page;
use page::Seen;

/// A running browser.
#[derive(Debug)]
pub struct Chromium {
    shared: Arc<Shared>,
    _child: Child,
}

/// What the thread that reads knows too.
#[derive(Debug)]
struct Shared {
    input: Mutex<ChildStdin>,
    /// The number of the next request.
    next: AtomicU64,
    /// Who waits for an answer, by the request's number.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    /// The open pages by the name of their session.
    pages: Mutex<HashMap<String, Weak<Seen>>>,
    /// The last that the browser said to nobody in particular.
    said: Mutex<String>,
}

/// The result of a request, or what the browser had against it.
type Answer = Result<Value, String>;

impl Chromium {
    /// The browser of this test process, started by whoever asks first.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Chromium> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&tools::chromium()))
    }

    fn start(chromium: &tools::ChromiumTool) -> Self {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", RUN]).arg(&chromium.program).args(ARGUMENTS);
        if let Some(libraries) = &chromium.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a shell runs");
        let input = child.stdin.take().expect("a pipe");
        let output = child.stdout.take().expect("a pipe");
        let errors = child.stderr.take().expect("a pipe");
        let shared = Arc::new(Shared {
            input: Mutex::new(input),
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            pages: Mutex::default(),
            said: Mutex::default(),
        });
        let (reader, listener) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || reader.read(output));
        thread::spawn(move || listener.hear(errors));
        Self { shared, _child: child }
    }

    /// A page of its own, with its own cookies, that takes the hub's certificate for good.
    pub async fn page(&'static self, hub: &TestHub) -> Page {
        let context = self.call(None, "Target.createBrowserContext", json!({})).await;
        let context = context["browserContextId"].clone();
        let about = json!({"url": "about:blank", "browserContextId": context});
        let target = self.call(None, "Target.createTarget", about).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.call(None, "Target.attachToTarget", attach).await;
        let session = session["sessionId"].as_str().expect("a session").to_owned();
        let seen = Arc::new(Seen::default());
        lock(&self.shared.pages).insert(session.clone(), Arc::downgrade(&seen));
        let base = format!("https://{}:{}", hub.hub.hosts.primary(), hub.https.port());
        Page::open(self, session, base, seen).await
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Panics
    /// When the browser has something against it.
    async fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let answer = self.try_call(session, method, parameters).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    async fn try_call(&self, session: Option<&str>, method: &str, parameters: Value) -> Answer {
        let (sender, answer) = oneshot::channel();
        self.shared.send(session, method, parameters, Some(sender));
        within(answer).await.unwrap_or_else(|_| panic!("the browser ended: {}", lock(&self.shared.said)))
    }

    /// Closes a page that nobody holds any more.
    fn forget(&self, session: &str) {
        lock(&self.shared.pages).remove(session);
        self.shared.send(Some(session), "Page.close", json!({}), None);
    }
}

impl Shared {
    /// Sends a request; its answer goes to `waiting` if anybody waits for it.
    fn send(
        &self,
        session: Option<&str>,
        method: &str,
        parameters: Value,
        waiting: Option<oneshot::Sender<Answer>>,
    ) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        if let Some(waiting) = waiting {
            lock(&self.waiting).insert(id, waiting);
        }
        let mut request = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = session {
            request["sessionId"] = session.into();
        }
        let mut bytes = request.to_string().into_bytes();
        bytes.push(0);
        // A browser that is gone shows in the answer, which then never comes.
        let _ = lock(&self.input).write_all(&bytes);
    }

    fn read(&self, output: ChildStdout) {
        let mut output = BufReader::new(output);
        let mut message = Vec::new();
        while output.read_until(0, &mut message).is_ok_and(|count| count > 0) {
            message.pop();
            let parsed: Value = serde_json::from_slice(&message).expect("the browser speaks JSON");
            self.take(parsed);
            message.clear();
        }
        lock(&self.waiting).clear();
    }

    fn take(&self, mut message: Value) {
        if let Some(id) = message["id"].as_u64() {
            let answer = match message.get("error") {
                Some(error) => Err(error["message"].as_str().unwrap_or("an error").to_owned()),
                None => Ok(message["result"].take()),
            };
            if let Some(waiting) = lock(&self.waiting).remove(&id) {
                let _ = waiting.send(answer);
            }
            return;
        }
        let session = message["sessionId"].as_str().unwrap_or_default();
        let page = lock(&self.pages).get(session).and_then(Weak::upgrade);
        if let (Some(page), Some(method)) = (page, message["method"].as_str()) {
            page.take(method, &message["params"]);
            if method == "Page.javascriptDialogOpening" {
                // The page stands still until it is closed.
                self.send(Some(session), "Page.handleJavaScriptDialog", json!({"accept": false}), None);
            }
        }
    }

    fn hear(&self, mut errors: ChildStderr) {
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = errors.read(&mut part) {
            *lock(&self.said) = String::from_utf8_lossy(&part[..count]).into_owned();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the browser in a directory that goes when it ends; it finds its pipes at the descriptors 3 and 4.
const RUN: &str = r#"
    home=$(mktemp -d)
    HOME="$home" "$0" "$@" --user-data-dir="$home" 3<&0 4>&1 0</dev/null 1>&2
    rm -rf "$home"
"#;
/// No sandbox, since it must run as any user and shows nothing but pages of the hub under test; no host but this one.
const ARGUMENTS: [&str; 10] = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost",
];
