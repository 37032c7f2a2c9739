//! How some clients say what others say plainly: such requests are put into the plain words before they are routed.
//! And what every answer has in IoT Hub's words, whoever gave it.

use axum::Router;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::{map_request, map_response};
use axum::response::Response;

use super::problem::tracking_id;

/// `router`, and the dialect in front of it: what a layer of `router` itself changes no longer moves a route.
pub(super) fn understood_by(router: Router) -> Router {
    Router::new().fallback_service(router).layer(map_request(plain)).layer(map_response(dressed))
}

async fn plain(mut request: Request) -> Request {
    // IoT Hub: older Java service SDKs send PATCH this way. No other method may be had by it.
    if request.method() == Method::POST
        && request.headers().get(METHOD_OVERRIDE).is_some_and(|method| method.as_bytes() == b"PATCH")
    {
        *request.method_mut() = Method::PATCH;
    }
    if let Some(uri) = with_separators(request.uri()) {
        *request.uri_mut() = uri;
    }
    request
}

/// IoT Hub names the encoding of its JSON, and gives each answer an id by which both sides can speak of it.
async fn dressed(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json") {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    }
    if !headers.contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::from_str(&tracking_id())
    {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// IoT Explorer encodes the whole path, separators too. `/` is in no id, so each `%2F` can only be a separator.
fn with_separators(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("%2F") && !path.contains("%2f") {
        return None;
    }
    let path = path.replace("%2F", "/").replace("%2f", "/");
    let whole = match uri.query() {
        None => path,
        Some(query) => format!("{path}?{query}"),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(whole).ok()?);
    Uri::from_parts(parts).ok()
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t708_an_encoded_separator_is_one_and_nothing_else_is_decoded() {
        let read = |uri: &str| with_separators(&uri.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(read("/twins%2Fpump-7?a=%2F"), Some("/twins/pump-7?a=%2F".to_owned()));
        assert_eq!(read("/devices%2fa%252Fb%3A"), Some("/devices/a%252Fb%3A".to_owned()));
        assert_eq!(read("/devices/a%252Fb?top=%2f"), None);
        assert_eq!(read("/%2F..%2f?"), Some("//../?".to_owned()));
    }
}
