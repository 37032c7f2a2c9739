//! The description of the REST interface: it describes every body, and what the hub answers is as it says.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use portcullis_certs::testing::TestCa;
use portcullis_testing::{HubSettings, RestClient, TestHub};
use serde_json::{Map, Value, json};

const V: &str = "api-version=2021-04-12";

/// Bodies, or parts of some, that hold whatever somebody put there: where, and why.
const FREE: &[(&str, &str)] = &[
    ("POST /devices/query 200", "a row has the members its query selects"),
    ("GET /api/v1/openapi.json 200", "it is described by the OpenAPI specification"),
    ("AuditLineOut.changes.before", "the value of any field"),
    ("AuditLineOut.changes.after", "the value of any field"),
    ("AuditLineOut.details", "each operation has details of its own"),
    ("BulkItemIn.tags", "twins are not kept, and any is read"),
    ("BulkItemIn.properties", "twins are not kept, and any is read"),
];

async fn description(rest: &RestClient) -> Value {
    let (status, description) = rest.call("GET", "/api/v1/openapi.json", None).await;
    assert_eq!(status, 200);
    description
}

/// Notes each part of a schema that says nothing of what may be there.
fn note_free(schema: &Value, at: &str, found: &mut BTreeSet<String>) {
    let members = |name: &str| schema[name].as_object().into_iter().flatten();
    let branches = ["allOf", "oneOf", "anyOf"].map(|name| schema[name].as_array());
    let says_something = schema.get("$ref").is_some()
        || branches.iter().any(Option::is_some)
        || schema.get("enum").is_some()
        || schema["properties"].as_object().is_some_and(|own| !own.is_empty());
    let is_described_map = schema["additionalProperties"].is_object();
    match schema["type"].as_str() {
        _ if says_something || is_described_map || schema["type"].is_array() => {}
        Some("array") => {}
        Some("object") | None => _ = found.insert(at.to_owned()),
        Some(_) => {}
    }
    for (name, member) in members("properties") {
        note_free(member, &format!("{at}.{name}"), found);
    }
    for branch in branches.into_iter().flatten().flatten() {
        note_free(branch, at, found);
    }
    for inner in ["items", "additionalProperties"] {
        if schema[inner].is_object() {
            note_free(&schema[inner], at, found);
        }
    }
}

#[tokio::test]
async fn every_body_is_described_but_those_that_are_free_by_nature() {
    let hub = TestHub::start().await;
    let description = description(&hub.rest()).await;
    let (mut found, mut bodies) = (BTreeSet::new(), 0);
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let request = operation.get("requestBody").map(|body| ("request", body));
            let answers = operation["responses"].as_object().unwrap().iter();
            for (which, body) in
                request.into_iter().chain(answers.map(|(status, body)| (status.as_str(), body)))
            {
                for content in body["content"].as_object().into_iter().flatten() {
                    bodies += 1;
                    let at = format!("{} {path} {which}", method.to_uppercase());
                    note_free(&content.1["schema"], &at, &mut found);
                }
            }
            let error = &operation["responses"]["default"]["content"]["application/json"]["schema"];
            assert_eq!(error["$ref"], "#/components/schemas/ProblemOut", "{method} {path}");
        }
    }
    for (name, schema) in description["components"]["schemas"].as_object().unwrap() {
        note_free(schema, name, &mut found);
    }
    assert!(bodies > 100, "the check no longer sees bodies: {bodies}");
    let expected: BTreeSet<_> = FREE.iter().map(|(at, _)| (*at).to_owned()).collect();
    assert_eq!(found, expected);
    hub.stop().await;
}

/// A schema with its reference followed, and with its parts put together if it is all of several.
fn resolve(description: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.strip_prefix("#/components/schemas/").unwrap();
        return resolve(description, &description["components"]["schemas"][name]);
    }
    let Some(parts) = schema["allOf"].as_array() else { return schema.clone() };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for part in parts {
        let part = resolve(description, part);
        properties.extend(part["properties"].as_object().cloned().unwrap_or_default());
        required.extend(part["required"].as_array().cloned().unwrap_or_default());
    }
    json!({ "type": "object", "properties": properties, "required": required })
}

/// How a value is otherwise than its schema says; nothing if it is not.
fn difference(description: &Value, schema: &Value, value: &Value, at: &str) -> Option<String> {
    let schema = &resolve(description, schema);
    for alternatives in ["oneOf", "anyOf"] {
        if let Some(branches) = schema[alternatives].as_array() {
            let fits = |branch| difference(description, branch, value, at).is_none();
            return (!branches.iter().any(fits)).then(|| format!("{at} fits none of {branches:?}: {value}"));
        }
    }
    if let Some(values) = schema["enum"].as_array()
        && !values.contains(value)
    {
        return Some(format!("{at} is none of {values:?}: {value}"));
    }
    let types: Vec<_> = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    let is = |kind: &&str| match *kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{at}: no type is called {other}"),
    };
    if !types.iter().any(is) {
        return Some(format!("{at} is not {types:?}: {value}"));
    }
    if schema["minimum"].as_f64().zip(value.as_f64()).is_some_and(|(minimum, value)| value < minimum) {
        return Some(format!("{at} is below its minimum: {value}"));
    }
    if let Some(items) = value.as_array() {
        let mut items = items.iter().enumerate();
        return items.find_map(|(index, item)| {
            difference(description, &schema["items"], item, &format!("{at}[{index}]"))
        });
    }
    let members = value.as_object()?;
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<_> = required.filter(|name| !members.contains_key(*name)).collect();
    if !missing.is_empty() {
        return Some(format!("{at} lacks {missing:?}: {value}"));
    }
    members.iter().find_map(|(name, member)| {
        let at = format!("{at}.{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(described), _) => difference(description, described, member, &at),
            (None, Value::Bool(true)) => None,
            (None, any @ Value::Object(_)) => difference(description, any, member, &at),
            (None, _) => Some(format!("{at} is not described: {member}")),
        }
    })
}

/// A caller that holds each answer against the description.
struct Checked<'h> {
    rest: RestClient,
    description: &'h Value,
    /// What was answered, as method, path and status of the description.
    seen: BTreeSet<String>,
    /// Of the last answer, without its quotation marks.
    etag: String,
}

impl Checked<'_> {
    /// Calls a route of the description with the parameters of its path in their order; the status and body.
    async fn call(&mut self, method: &str, path: &str, named: &[&str], body: Option<Value>) -> (u16, Value) {
        let mut request = self.rest.request(method, &concrete(path, named));
        if let Some(body) = body {
            request = request.json(&body);
        }
        self.send(method, path, request).await
    }

    /// Sends a request of its own to a route.
    async fn send(&mut self, method: &str, path: &str, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let media = response.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let etag =
            response.headers().get("etag").map(|etag| etag.to_str().unwrap().trim_matches('"').to_owned());
        self.etag = etag.unwrap_or_default();
        let text = response.text().await.unwrap();
        let at = format!("{method} {path} {status}");
        let operation = &self.description["paths"][path][method.to_lowercase()];
        assert!(operation.is_object(), "{at} is not described");
        let responses = &operation["responses"];
        let own = responses.get(status.to_string());
        let described = match own {
            Some(own) => own,
            None if status >= 400 => &responses["default"],
            None => panic!("{at} is not described: {text}"),
        };
        let Some(contents) = described["content"].as_object() else {
            assert_eq!(text, "", "{at} has a body");
            self.seen.insert(at);
            return (status, Value::Null);
        };
        let media = media.unwrap_or_else(|| panic!("{at} has no media type: {text}"));
        let media = media.split(';').next().unwrap();
        let schema =
            &contents.get(media).unwrap_or_else(|| panic!("{at}: {media} is not described"))["schema"];
        let value = if media.ends_with("json") && media != "application/x-ndjson" {
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{at}: {error}: {text}"))
        } else {
            Value::String(text)
        };
        if let Some(difference) = difference(self.description, schema, &value, &at) {
            panic!("not as described: {difference}");
        }
        self.seen.insert(if own.is_some() { at } else { format!("{method} {path} default") });
        (status, value)
    }
}

fn concrete(path: &str, named: &[&str]) -> String {
    let mut named = named.iter();
    let segments = path.split('/').map(|segment| match segment.starts_with('{') {
        true => named.next().expect("each parameter has a value"),
        false => segment,
    });
    format!("{}?{V}", segments.collect::<Vec<_>>().join("/"))
}

#[tokio::test]
async fn answers_are_as_they_are_described() {
    let environment = vec![("PORTCULLIS__LIMITS__FEEDBACK_BATCH_TIME_MAX".to_owned(), "0s".to_owned())];
    let hub = TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await;
    let description = description(&hub.rest()).await;
    let mut checked =
        Checked { rest: hub.rest(), description: &description, seen: BTreeSet::new(), etag: String::new() };
    identities(&mut checked).await;
    messages(&mut checked, &hub).await;
    authorities(&mut checked).await;
    policies(&mut checked).await;
    jobs(&mut checked).await;
    what_the_hub_says(&mut checked, &hub).await;
    let mut described = BTreeSet::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let answers = operation["responses"].as_object().unwrap().iter();
            let bodies =
                answers.filter(|(status, answer)| *status != "default" && answer["content"].is_object());
            described.extend(bodies.map(|(status, _)| format!("{} {path} {status}", method.to_uppercase())));
        }
    }
    let unseen: Vec<_> = described.difference(&checked.seen).collect();
    assert_eq!(unseen, NOT_TRIED.map(|(at, _)| at), "nobody compared these answers");
    hub.stop().await;
}

/// Answers that need more than this test has, and why.
const NOT_TRIED: [(&str, &str); 5] = [
    ("GET /healthz 503", "of a hub that stops"),
    ("GET /healthz/ready 503", "of a hub that stops"),
    ("GET /healthz/started 503", "of a hub that stops"),
    ("GET /readyz 503", "of a hub that stops"),
    ("POST /jobs/create 200", "needs a container; what it answers is what every job is"),
];

const DEVICE: &str = "/devices/{device}";
const MODULE: &str = "/devices/{device}/modules/{module}";

async fn identities(checked: &mut Checked<'_>) {
    let full = json!({
        "status": "disabled",
        "statusReason": "in repair",
        "access": {"allow": ["telemetry"]},
        "queueMessagesMax": 10,
        "capabilities": {"iotEdge": true},
    });
    let thumbprint = json!({"primaryThumbprint": "A".repeat(40)});
    let self_signed = json!({"authentication": {"type": "selfSigned", "x509Thumbprint": thumbprint}});
    for (body, status) in [(full, 200), (json!({}), 409)] {
        assert_eq!(checked.call("PUT", DEVICE, &["d1"], Some(body)).await.0, status);
    }
    for (method, path, named, body, status) in [
        ("PUT", DEVICE, &["d2"][..], Some(self_signed), 200),
        ("GET", DEVICE, &["d1"], None, 200),
        ("GET", DEVICE, &["nobody"], None, 404),
        ("PUT", MODULE, &["d1", "m"], Some(json!({"managedBy": "edge"})), 200),
        ("GET", MODULE, &["d1", "m"], None, 200),
        ("GET", "/devices/{device}/modules", &["d1"], None, 200),
        ("GET", "/devices", &[], None, 200),
        ("POST", "/devices", &[], Some(json!([{"id": "d4", "tags": {"a": 1}}, {"id": "d5"}])), 200),
        ("POST", "/devices", &[], Some(json!([{"id": "d4", "importMode": "create"}, {"id": 1}])), 400),
        ("POST", "/devices", &[], Some(json!([])), 400),
        ("POST", "/devices/query", &[], Some(json!({"query": "SELECT * FROM devices"})), 200),
        ("POST", "/devices/query", &[], Some(json!({"query": "SELECT"})), 400),
        ("GET", "/statistics/devices", &[], None, 200),
        ("GET", "/statistics/service", &[], None, 200),
        ("DELETE", MODULE, &["d1", "m"], None, 204),
        ("DELETE", DEVICE, &["d2"], None, 204),
    ] {
        let (answered, answer) = checked.call(method, path, named, body).await;
        assert_eq!(answered, status, "{method} {path}: {answer}");
    }
}

async fn messages(checked: &mut Checked<'_>, hub: &TestHub) {
    let device = hub.device("d3").await;
    let module = hub.module("d3", "m").await;
    let service = checked.rest.token.clone();
    let orders = json!([
        {"deviceId": "d3", "body": "open", "ack": "full", "properties": {"colour": "red"}, "messageId": "m1"},
        {"deviceId": "d3", "moduleId": "m", "body": "AP8=", "bodyEncoding": "base64"},
        {"deviceId": "nobody"},
        {"deviceId": "d3", "ack": "perhaps"},
    ]);
    assert_eq!(checked.call("POST", "/api/v1/c2d-messages", &[], Some(orders)).await.0, 200);
    for (identity, beneath, named) in [(device, DEVICE, &["d3"][..]), (module, MODULE, &["d3", "m"])] {
        let queue = format!("{beneath}/messages/{{bound}}");
        let bound = [named, &["deviceBound"]].concat();
        let (status, waiting) =
            checked.call("GET", &format!("/api/v1{beneath}/c2d-messages"), named, None).await;
        assert_eq!((status, waiting.as_array().map(Vec::len)), (200, Some(1)), "{waiting}");

        checked.rest.token = Some(hub.token_for(&identity, 3600));
        assert_eq!(checked.call("GET", &queue, &bound, None).await.0, 200);
        let settle = format!("{queue}/{{token}}");
        let token = checked.etag.clone();
        let delivery = [&bound[..], &[token.as_str()]].concat();
        assert_eq!(checked.call("POST", &format!("{settle}/abandon"), &delivery, None).await.0, 204);
        assert_eq!(checked.call("DELETE", &settle, &delivery, None).await.0, 412);
        assert_eq!(checked.call("GET", &queue, &bound, None).await.0, 200);
        let token = checked.etag.clone();
        assert_eq!(
            checked.call("DELETE", &settle, &[&bound[..], &[token.as_str()]].concat(), None).await.0,
            204
        );
        assert_eq!(checked.call("GET", &queue, &bound, None).await.0, 204);
        let events = format!("{beneath}/messages/events");
        assert_eq!(checked.call("POST", &events, named, Some(json!({"heat": 20}))).await.0, 204);
        checked.rest.token = service.clone();

        assert_eq!(checked.call("POST", &queue, &bound, Some(json!("close"))).await.0, 204);
        let (status, purged) = checked.call("DELETE", &format!("{beneath}/commands"), named, None).await;
        assert_eq!((status, &purged["totalMessagesPurged"]), (200, &json!(1)));
    }
    let feedback = "/messages/serviceBound/feedback";
    let (status, records) = checked.call("GET", feedback, &[], None).await;
    assert_eq!((status, records.as_array().map(Vec::len)), (200, Some(1)), "{records}");
    let token = checked.etag.clone();
    let settle = format!("{feedback}/{{token}}");
    assert_eq!(checked.call("DELETE", &settle, &[token.as_str()], None).await.0, 204);
    assert_eq!(checked.call("GET", feedback, &[], None).await.0, 204);
}

async fn authorities(checked: &mut Checked<'_>) {
    const ALL: &str = "/api/v1/certificate-authorities";
    const ONE: &str = "/api/v1/certificate-authorities/{name}";
    let ca = TestCa::root("fleet root");
    let other = TestCa::root("another");
    let asserted = json!({"certificate": other.pem(), "verified": true, "reason": "its key is in a vault"});
    for (name, body) in [("fleet", json!({"certificate": ca.pem()})), ("vault", asserted)] {
        assert_eq!(checked.call("PUT", ONE, &[name], Some(body)).await.0, 200);
    }
    let (_, code) = checked.call("POST", &format!("{ONE}/verification-code"), &["fleet"], None).await;
    assert_eq!(checked.call("GET", ALL, &[], None).await.0, 200);
    let proof = ca.device(code["verificationCode"].as_str().unwrap()).certificate_pem;
    let proof = Some(json!({ "certificate": proof }));
    assert_eq!(checked.call("POST", &format!("{ONE}/verify"), &["fleet"], proof).await.0, 200);
    assert_eq!(checked.call("GET", ONE, &["fleet"], None).await.0, 200);
    let certificate = Some(json!({"certificate": ca.device("d5").certificate_pem}));
    for (path, named) in [(DEVICE, &["d3"][..]), (MODULE, &["d3", "m"])] {
        let path = format!("/api/v1{path}/certificate-verdict");
        let (status, verdict) = checked.call("POST", &path, named, certificate.clone()).await;
        assert_eq!((status, &verdict["admitted"]), (200, &json!(false)), "{verdict}");
    }
    assert_eq!(checked.call("DELETE", ONE, &["fleet"], None).await.0, 204);
    assert_eq!(checked.call("GET", ONE, &["fleet"], None).await.0, 404);
}

async fn policies(checked: &mut Checked<'_>) {
    const ALL: &str = "/api/v1/policies";
    const ONE: &str = "/api/v1/policies/{name}";
    for (method, path, named, body, status) in [
        ("PUT", ONE, &["reader"][..], Some(json!({"rights": ["RegistryRead"]})), 200),
        ("PUT", ONE, &["other"], Some(json!({"rights": ["Everything"]})), 400),
        ("GET", ALL, &[], None, 200),
        ("GET", ONE, &["reader"], None, 200),
        ("POST", "/api/v1/policies/{name}/regenerate", &["reader"], Some(json!({"key": "swap"})), 200),
        ("DELETE", ONE, &["reader"], None, 204),
        ("GET", ONE, &["reader"], None, 404),
    ] {
        let (answered, answer) = checked.call(method, path, named, body).await;
        assert_eq!(answered, status, "{method} {path}: {answer}");
    }
}

async fn jobs(checked: &mut Checked<'_>) {
    let lines = "{\"id\":\"d6\",\"importMode\":\"create\"}\n{\"id\":\"d3\",\"importMode\":\"create\"}\n";
    let request = checked.rest.request("POST", "/api/v1/imports?dryRun=false").body(lines);
    let (status, import) = checked.send("POST", "/api/v1/imports", request).await;
    assert_eq!(status, 202);
    checked.rest.job_over(&import).await;
    let import = import["jobId"].as_str().unwrap();
    let (status, export) = checked.call("POST", "/api/v1/exports", &[], None).await;
    assert_eq!(status, 202);
    checked.rest.job_over(&export).await;
    let file = "/api/v1/jobs/{job}/files/{file}";
    assert_eq!(checked.call("GET", file, &[import, "results.txt"], None).await.0, 200);
    let (status, back) = checked.call("POST", "/api/v1/jobs/{job}/rollback", &[import], None).await;
    assert_eq!(status, 202, "{back}");
    checked.rest.job_over(&back).await;
    assert_eq!(checked.call("GET", "/jobs/{job}", &[import], None).await.0, 200);
    assert_eq!(checked.call("GET", "/jobs/{job}", &["nobody"], None).await.0, 404);
    assert_eq!(checked.call("GET", "/jobs", &[], None).await.0, 200);
}

async fn what_the_hub_says(checked: &mut Checked<'_>, hub: &TestHub) {
    let device = hub.device("d7").await;
    let module = hub.module("d7", "m").await;
    for (identity, path, named) in [(device, DEVICE, &["d7"][..]), (module, MODULE, &["d7", "m"])] {
        hub.connect(&identity).await.disconnect().await;
        let _connected = hub.connect(&identity).await;
        let service = checked.rest.token.replace("SharedAccessSignature sr=nothing".to_owned());
        let bound = [named, &["deviceBound"]].concat();
        assert_eq!(checked.call("GET", &format!("{path}/messages/{{bound}}"), &bound, None).await.0, 401);
        checked.rest.token = service;
        let path = format!("/api/v1{path}/connections");
        let (status, report) = checked.call("GET", &path, named, None).await;
        assert_eq!((status, &report["connected"], &report["refusalCount"]), (200, &json!(true), &json!(1)));
        assert!(report["connections"].as_array().unwrap().len() > 1, "{report}");
    }
    let (status, lines) = checked.call("GET", "/api/v1/audit", &[], None).await;
    assert!(status == 200 && lines.as_array().unwrap().len() > 10, "{lines}");
    for path in ["/healthz", "/healthz/ready", "/healthz/started", "/healthz/live", "/readyz", "/livez"] {
        assert_eq!(checked.call("GET", path, &[], None).await.0, 200);
    }
    assert_eq!(checked.call("GET", "/api/v1/openapi.json", &[], None).await.0, 200);
    assert_eq!(checked.call("GET", "/$iothub/websocket", &[], None).await.0, 400);
    checked.rest.token = None;
    assert_eq!(checked.call("GET", "/devices", &[], None).await.0, 401);
}

#[test]
fn a_difference_is_seen() {
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "count": {"type": ["integer", "null"]},
            "inner": {"oneOf": [{"type": "null"}, {"type": "array", "items": {"type": "boolean"}}]},
        },
        "required": ["name"],
    });
    let fits = |value: Value| difference(&Value::Null, &schema, &value, "it").is_none();
    assert!(fits(json!({"name": "a", "count": null, "inner": [true]})));
    for value in [
        json!({}),
        json!({"name": null}),
        json!({"name": "a", "count": "1"}),
        json!({"name": "a", "count": 1.5}),
        json!({"name": "a", "inner": [1]}),
        json!({"name": "a", "other": 1}),
        json!([]),
    ] {
        assert!(!fits(value.clone()), "{value}");
    }
}
