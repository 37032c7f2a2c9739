//! `monitor-feedback`: the outcomes of messages whose senders asked for feedback, read over REST.
//!
//! The program completes a batch once it is printed. If it ends in between, the next reader gets the batch again.
//! Several readers share the feedback; each record goes to one of them.

use std::time::Duration;

use clap::Args;
use portcullis_registry::id::DeviceId;
use serde_json::Value;

use crate::events::EventFormat;
use crate::exit::{Exit, Failure};
use crate::login::Access;
use crate::output::{answer, printable, scalar};
use crate::rest::Rest;

/// `monitor-feedback`.
#[derive(Args)]
pub(super) struct FeedbackArgs {
    /// Print only feedback of this device and its modules; feedback of other devices is consumed too
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: Option<DeviceId>,
    /// json: one object a line; text: one readable line for each record
    #[arg(short, long, value_enum, default_value = "text")]
    output: EventFormat,
    /// Stop after this number of records; the last batch is always printed whole
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    access: Access,
}

impl FeedbackArgs {
    /// Runs until the count is reached or Ctrl-C.
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let rest = Rest::new(self.access.login()?)?;
        tokio::select! {
            outcome = self.watch(&rest) => outcome.map(|()| Exit::Done),
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    }

    async fn watch(&self, rest: &Rest) -> Result<(), Failure> {
        let mut left = self.count;
        loop {
            let Some((token, batch)) = rest.receive(&PATH).await? else {
                tokio::time::sleep(LOOK_PERIOD).await;
                continue;
            };
            let records = batch.as_array().map(Vec::as_slice).unwrap_or_default();
            let mut printed = 0;
            for record in records.iter().filter(|record| self.is_wanted(record)) {
                answer(&line(record, self.output))?;
                printed += 1;
            }
            rest.delete(&[&PATH[..], &[&token]].concat(), None).await?;
            left = left.map(|left| left.saturating_sub(printed));
            if left == Some(0) {
                return Ok(());
            }
        }
    }

    fn is_wanted(&self, record: &Value) -> bool {
        self.device_id.as_ref().is_none_or(|device| record["deviceId"] == device.as_str())
    }
}

fn line(record: &Value, format: EventFormat) -> String {
    match format {
        EventFormat::Json => format!("{record}\n"),
        EventFormat::Text => {
            let members = ["/enqueuedTimeUtc", "/deviceId", "/moduleId", "/originalMessageId", "/statusCode"];
            let cells = members.iter().map(|member| printable(&scalar(record, member)));
            cells.filter(|cell| !cell.is_empty()).collect::<Vec<_>>().join("  ") + "\n"
        }
    }
}

const PATH: [&str; 3] = ["messages", "serviceBound", "feedback"];
const LOOK_PERIOD: Duration = Duration::from_secs(1);

pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis c2d-message send -d pump-7 --data 'open valve' --message-id order-1 --ack full
  portcullis monitor-feedback                                # for eyes
  portcullis monitor-feedback --output json --count 1        # one JSON object a line

Feedback comes in batches: 64 records, or those that came within 15 s after the first.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_one_line_for_programs_and_for_eyes() {
        let record = json!({"originalMessageId": "m\u{1b}1", "statusCode": "Success", "deviceId": "d1",
            "enqueuedTimeUtc": "2024-05-01T08:15:30.0000000Z"});
        let text = line(&record, EventFormat::Text);
        assert_eq!(text, "2024-05-01T08:15:30.0000000Z  d1  m\\u{1b}1  Success\n");
        let json = line(&record, EventFormat::Json);
        assert_eq!((json.lines().count(), serde_json::from_str::<Value>(&json).unwrap()), (1, record));
    }
}
