//! `audit`: who changed what, from which address, and with which result.

use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use portcullis_registry::id::DeviceId;
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::login::Access;
use crate::output::{self, Column, Format, scalar};
use crate::rest::Rest;
use portcullis::config::DATA_DIR_DEFAULT;
use portcullis::hub::audit::trail;

/// Verbs on the audit record.
#[derive(Subcommand)]
pub(super) enum AuditVerb {
    /// Print the latest changes
    #[command(after_help = TAIL_EXAMPLES)]
    Tail {
        /// How many changes to print
        #[arg(short = 'n', long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u64).range(1..=1000))]
        lines: u64,
        /// Continue with new changes as they come, until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        /// Print only changes of this device and its modules
        #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
        device_id: Option<DeviceId>,
        /// The output format
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
        #[command(flatten)]
        access: Access,
    },
    /// Check on the hub's machine that no line of the record was changed or removed
    Verify {
        /// The hub's data directory
        #[arg(long, value_name = "DIR", default_value = DATA_DIR_DEFAULT)]
        data_dir: PathBuf,
    },
}

impl AuditVerb {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            AuditVerb::Tail { lines, follow, device_id, output, access } => {
                let tail = Tail { rest: Rest::new(access.login()?)?, device: device_id, output };
                let last = tail.print(0, lines).await?;
                if !follow {
                    return Ok(Exit::Done);
                }
                tokio::select! {
                    outcome = tail.follow(last) => outcome.map(|()| Exit::Done),
                    _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
                }
            }
            AuditVerb::Verify { data_dir } => verify(&data_dir.join("audit")).map(|()| Exit::Done),
        }
    }
}

struct Tail {
    rest: Rest,
    device: Option<DeviceId>,
    output: Format,
}

impl Tail {
    /// Prints at most `count` lines after number `after`. Returns the number of the last line.
    async fn print(&self, after: u64, count: u64) -> Result<u64, Failure> {
        let (after_text, count) = (after.to_string(), count.to_string());
        let mut query = vec![("after", after_text.as_str()), ("count", count.as_str())];
        if let Some(device) = &self.device {
            query.push(("target", device.as_str()));
        }
        let lines = self.rest.get(&["api", "v1", "audit"], &query).await?;
        let last = lines.as_array().and_then(|lines| lines.last()).and_then(|line| line["number"].as_u64());
        if last.is_some() || after == 0 {
            output::print(&lines, self.output, COLUMNS)?;
        }
        Ok(last.unwrap_or(after))
    }

    async fn follow(&self, mut last: u64) -> Result<(), Failure> {
        loop {
            tokio::time::sleep(LOOK_PERIOD).await;
            last = self.print(last, FOLLOW_LINES_MAX).await?;
        }
    }
}

fn verify(directory: &std::path::Path) -> Result<(), Failure> {
    let verified = trail::verify(directory).map_err(|error| Failure::error(error.to_string()))?;
    output::print(&json!({ "lines": verified.lines, "cut": verified.cut }), Format::Json, &[])
}

const LOOK_PERIOD: Duration = Duration::from_secs(1);
const FOLLOW_LINES_MAX: u64 = 1000;
const COLUMNS: &[Column] = &[
    ("Time", |line| scalar(line, "/time")),
    ("Actor", |line| scalar(line, "/actor")),
    ("Source", |line| scalar(line, "/source")),
    ("Ip", |line| scalar(line, "/ip")),
    ("Operation", |line| scalar(line, "/op")),
    ("Target", |line| scalar(line, "/target")),
    ("Result", |line| scalar(line, "/result")),
    ("What", trail::effect_text),
];
const TAIL_EXAMPLES: &str = "\
Examples:
  portcullis audit tail                                      # the last 20 changes
  portcullis audit tail --device-id pump-7 -n 100 -o json
  portcullis audit tail --follow                             # as they come";
