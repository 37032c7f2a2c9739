//! Every device of a hub, page by page.

use reqwest::header::HeaderValue;
use serde_json::Value;

use crate::exit::Failure;
use crate::rest::Rest;

/// Pages of devices, in the order of their ids.
pub(super) struct Pages<'a> {
    rest: &'a Rest,
    /// How many more devices the caller wants.
    left: u64,
    continuation: Option<HeaderValue>,
}

impl<'a> Pages<'a> {
    /// At most `top` devices.
    pub(super) fn new(rest: &'a Rest, top: u64) -> Self {
        Self { rest, left: top, continuation: None }
    }

    /// The next page, or none after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Value>>, Failure> {
        let count = usize::try_from(self.left).unwrap_or(PAGE_DEVICES).min(PAGE_DEVICES);
        if count == 0 {
            return Ok(None);
        }
        let (devices, continuation) = self.rest.page(&["devices"], count, self.continuation.as_ref()).await?;
        self.left = match continuation {
            // A page without a device ends the list.
            Some(_) if !devices.is_empty() => self.left.saturating_sub(devices.len() as u64),
            _ => 0,
        };
        self.continuation = continuation;
        Ok(Some(devices))
    }
}

/// IoT Hub's largest page.
const PAGE_DEVICES: usize = 1000;
