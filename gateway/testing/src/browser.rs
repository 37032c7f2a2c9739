//! A browser without a screen for the portal's tests: it keeps its cookie, says where its requests come from as
//! browsers do, and posts a form with what the form's page holds. It runs no scripts.

use std::collections::HashMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{RestClient, TestHub, within};

/// One browser.
pub struct Browser {
    http: RestClient,
    host: String,
    /// The session's cookie, as `name=value`.
    pub cookie: Option<String>,
    /// The token in the forms of the session.
    pub csrf: String,
}

/// What a browser got.
#[derive(Clone, Debug)]
pub struct Page {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub text: String,
}

impl TestHub {
    /// A browser in which nobody is signed in.
    pub fn browser(&self) -> Browser {
        let http = RestClient { token: None, ..self.rest() };
        let host = format!("{}:{}", self.hub.hosts.primary(), self.https.port());
        Browser { http, host, cookie: None, csrf: String::new() }
    }

    /// A browser in which somebody is signed in with the primary key of a policy.
    pub async fn signed_in(&self, policy: &str) -> Browser {
        let mut browser = self.browser();
        let key = self.hub.policies().find(policy).expect("a policy").keys.primary.to_base64();
        let page = browser.post("/portal/sign-in", &[("policy", policy), ("key", &key)]).await;
        assert_eq!((page.status, page.header("location")), (303, "/portal"), "{}", page.text);
        browser.open("/portal").await;
        browser
    }
}

impl Browser {
    /// Goes to a page, as by its address.
    pub async fn open(&mut self, path: &str) -> Page {
        let request = self.http.request("GET", path).header("accept", "text/html");
        self.send(request.header("sec-fetch-site", "none").header("sec-fetch-mode", "navigate")).await
    }

    /// Has a script of the page fetch something with htmx.
    pub async fn fetch(&mut self, path: &str) -> Page {
        let request = self.http.request("GET", path).header("hx-request", "true");
        self.send(request.header("sec-fetch-site", "same-origin").header("sec-fetch-mode", "cors")).await
    }

    /// Posts a form of the session's.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let csrf = self.csrf.clone();
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", csrf.as_str())]).collect();
        self.post_bare(path, &fields).await
    }

    /// Has a script of the page send a file.
    pub async fn send_file(&mut self, path: &str, file: &str) -> Page {
        let request = self.http.request("POST", path).header("x-portcullis-csrf", &self.csrf);
        let request = request.header("origin", format!("https://{}", self.host));
        self.send(request.header("sec-fetch-site", "same-origin").body(file.to_owned())).await
    }

    /// Posts a form that holds nothing but these fields.
    pub async fn post_bare(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        let request = self.http.request("POST", path).header("origin", format!("https://{}", self.host));
        let request = request.header("sec-fetch-site", "same-origin");
        self.send(form(request, fields)).await
    }

    /// A request with the session's cookie and nothing else.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, path)
    }

    /// Sends a request with the cookie and reads what comes; a new cookie and the token of a page's forms are kept.
    pub async fn send(&mut self, request: reqwest::RequestBuilder) -> Page {
        let request = match &self.cookie {
            Some(cookie) => request.header("cookie", cookie),
            None => request,
        };
        let response = within(request.send()).await.expect("an answer");
        let status = response.status().as_u16();
        let text = |value: &reqwest::header::HeaderValue| value.to_str().expect("a text").to_owned();
        let headers: HashMap<_, _> =
            response.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        let text = within(response.text()).await.expect("a text");
        if let Some(cookie) = headers.get("set-cookie") {
            let pair = cookie.split(';').next().expect("a cookie");
            self.cookie = Some(pair.to_owned()).filter(|pair| !pair.ends_with('='));
        }
        if let Some((_, rest)) = text.split_once(r#"name="csrf" value=""#) {
            self.csrf = rest.split('"').next().unwrap_or_default().to_owned();
        }
        Page { status, headers, text }
    }
}

impl Page {
    /// A header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whether the page says this, as text.
    pub fn says(&self, text: &str) -> bool {
        self.text.contains(text)
    }
}

/// A request with a form as its body.
pub fn form(request: reqwest::RequestBuilder, fields: &[(&str, &str)]) -> reqwest::RequestBuilder {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
    let body = pairs.collect::<Vec<_>>().join("&");
    request.header("content-type", "application/x-www-form-urlencoded").body(body)
}
