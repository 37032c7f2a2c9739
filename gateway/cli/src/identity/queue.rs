//! The flag that limits the queue of an identity.

use clap::Args;
use portcullis_registry::queue_max::QueueMax;
use serde_json::{Value, json};

/// The limit of the queue. Without the flag the request does not mention the limit.
#[derive(Args)]
pub(crate) struct QueueArg {
    /// How many C2D messages may wait, 1 to 10000; `default` for the hub's own setting
    #[arg(long, value_name = "N", value_parser = parse)]
    queue_messages_max: Option<Wish>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Default,
    Bound(QueueMax),
}

impl QueueArg {
    /// Whether the flag is absent.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.queue_messages_max, None | Some(Wish::Nothing))
    }

    /// Writes the limit into an identity.
    pub(super) fn write(&self, identity: &mut Value) {
        identity["queueMessagesMax"] = match self.queue_messages_max {
            None | Some(Wish::Nothing) => return,
            Some(Wish::Default) => Value::Null,
            Some(Wish::Bound(bound)) => json!(bound.get()),
        };
    }
}

/// An option with an empty value counts as absent.
fn parse(text: &str) -> Result<Wish, String> {
    match text.trim() {
        "" => Ok(Wish::Nothing),
        "default" => Ok(Wish::Default),
        number => {
            let bound = number.parse().ok().and_then(QueueMax::new).map(Wish::Bound);
            bound.ok_or_else(|| format!("expected a number from 1 to {}, or `default`", QueueMax::HIGHEST))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_written_as_it_is_asked_for() {
        let written = |text: Option<&str>| {
            let mut identity = json!({ "queueMessagesMax": 7 });
            let queue_messages_max = text.map(|text| parse(text).unwrap());
            QueueArg { queue_messages_max }.write(&mut identity);
            identity["queueMessagesMax"].take()
        };
        assert_eq!(written(None), 7);
        assert_eq!(written(Some(" ")), 7);
        assert_eq!(written(Some("default")), Value::Null);
        assert_eq!(written(Some("200")), 200);
        for wrong in ["0", "10001", "-1", "many", "1.5"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
