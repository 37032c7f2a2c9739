//! Times as pages show them: UTC, to the second, and exactly for who asks the browser.

use jiff::Timestamp;
use maud::{Markup, html};

/// A moment.
pub(super) fn time(moment: Timestamp) -> Markup {
    html! {
        time datetime=(moment) title=(moment) { (moment.strftime("%Y-%m-%d %H:%M:%S")) }
    }
}
