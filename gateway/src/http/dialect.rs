//! How some clients say what others say plainly: such requests are put into the plain words before they are routed.

use axum::Router;
use axum::extract::Request;
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, Method, Uri};
use axum::middleware::map_request;

/// `router`, and the dialect in front of it: what a layer of `router` itself changes no longer moves a route.
pub(super) fn understood_by(router: Router) -> Router {
    Router::new().fallback_service(router).layer(map_request(plain))
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
