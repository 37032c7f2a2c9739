//! Answers in pages: how many items a request asks for, and where the answer is to go on.

use axum::http::{HeaderMap, HeaderName};

use crate::iothub::problem::Problem;

/// How many items the request wants on a page at most, if it says.
pub(super) fn parse_count(headers: &HeaderMap) -> Result<Option<usize>, Problem> {
    let Some(header) = headers.get(MAX_ITEM_COUNT) else { return Ok(None) };
    let count = header.to_str().ok().and_then(|text| text.trim().parse().ok());
    let count = count.filter(|count| (1..=ITEMS_MAX).contains(count));
    let problem =
        || Problem::argument_invalid(format!("{MAX_ITEM_COUNT} is not a number from 1 to {ITEMS_MAX}"));
    count.ok_or_else(problem).map(Some)
}

/// The continuation token of the request, if it has one.
pub(super) fn continuation(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(token) = headers.get(CONTINUATION) else { return Ok(None) };
    token.to_str().map(Some).map_err(|_| no_token_of_ours())
}

/// A token this hub did not give.
pub(super) fn no_token_of_ours() -> Problem {
    Problem::argument_invalid(format!("{CONTINUATION} is not one this hub gave"))
}

/// IoT Hub gives at most this many items at once.
pub(super) const ITEMS_MAX: usize = 1000;
pub(super) const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
const MAX_ITEM_COUNT: HeaderName = HeaderName::from_static("x-ms-max-item-count");
