//! `device-identity import`: a file of identities, as IoT Hub exports it, goes to the hub as it is, and the job that the
//! hub makes of it is followed to its end.
//!
//! What a line asks for is the hub's to understand. The file is sent piece by piece, whatever its size.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::Body;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::cli::exit::{Exit, Failure};
use crate::cli::job::{self, Followed, follow};
use crate::cli::output::TextArgs;
use crate::cli::progress::{Progress, ProgressArgs, Unit};
use crate::cli::rest::Rest;

/// What to import.
#[derive(Args)]
pub(in crate::cli) struct ImportArgs {
    /// The file, plain or packed with gzip; - for standard input
    #[arg(long, visible_alias = "if", value_name = "FILE")]
    input_file: PathBuf,
    /// Change nothing; tell what would be created, changed, deleted and refused
    #[arg(long)]
    dry_run: bool,
    /// Write the result of every line into this file, one JSON object a line; - for standard output
    #[arg(long, value_name = "FILE")]
    results_file: Option<PathBuf>,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    output: TextArgs,
}

impl ImportArgs {
    pub(super) async fn run(self, rest: &Rest) -> Result<(), Failure> {
        let input = Input::open(&self.input_file)?;
        let mut results = self.results_file.as_deref().map(results_to).transpose()?;
        // Who may not, or not now, hears it before a long file is sent.
        rest.get(&["jobs"], &[]).await?;
        let mut stop = pin!(tokio::signal::ctrl_c());
        let cut = CancellationToken::new();
        let followed = {
            let mut sending = pin!(self.send(rest, input, cut.clone()));
            let sent = tokio::select! {
                sent = sending.as_mut() => Some(sent?),
                _ = stop.as_mut() => None,
            };
            match sent {
                Some(job) => {
                    let progress = Progress::begin(self.progress, self.doing(), Unit::Lines);
                    follow(rest, job, &progress, stop).await?
                }
                None => {
                    cut.cancel();
                    // The hub may have had the end of the file already.
                    let Ok(Ok(job)) = timeout(CUT_TIME_MAX, sending).await else {
                        return Err(Failure::new(Exit::Interrupted, "interrupted: nothing was imported"));
                    };
                    let progress = Progress::begin(self.progress, self.doing(), Unit::Lines);
                    follow(rest, job, &progress, pin!(std::future::ready(()))).await?
                }
            }
        };
        let Followed { job, interrupted } = followed;
        job::tell_refused(rest, &job, results.as_mut().map(|to| to as &mut dyn Write)).await?;
        match self.results_file.as_deref().is_some_and(is_standard) {
            true => eprint!("{}", job::summary(&job)),
            false => self.output.print_told(&job, || job::summary(&job), || job::table(&job))?,
        }
        let ended = job::ended(&job, interrupted);
        if self.dry_run {
            return ended;
        }
        ended.map_err(|failure| match failure.exit() {
            Exit::Interrupted | Exit::Error => {
                failure.with_hint("`portcullis device-identity rollback` takes back what was done")
            }
            _ => failure,
        })
    }

    fn doing(&self) -> &'static str {
        if self.dry_run { "trying" } else { "importing" }
    }

    /// Sends the file; the job the hub makes of it.
    async fn send(&self, rest: &Rest, input: Input, cut: CancellationToken) -> Result<Value, Failure> {
        let progress = Progress::begin(self.progress, "sending", Unit::Bytes);
        if let Some(bytes) = input.bytes {
            progress.expect(bytes);
        }
        let sent = Arc::new(AtomicU64::new(0));
        let file = body(input, Arc::clone(&sent), cut);
        let dry_run = if self.dry_run { "true" } else { "false" };
        let query = [("dryRun", dry_run)];
        let mut sending = pin!(rest.upload(&["api", "v1", "imports"], &query, file));
        let mut ticks = interval(REDRAW_PERIOD);
        loop {
            tokio::select! {
                job = sending.as_mut() => return job,
                _ = ticks.tick() => progress.at(sent.load(Ordering::Relaxed), ""),
            }
        }
    }
}

/// What is read from.
struct Input {
    name: String,
    file: Box<dyn Read + Send>,
    /// How long it is, if that is known.
    bytes: Option<u64>,
}

impl Input {
    fn open(path: &Path) -> Result<Self, Failure> {
        if is_standard(path) {
            return Ok(Self { name: "standard input".into(), file: Box::new(io::stdin()), bytes: None });
        }
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| Failure::error(format!("{name}: {error}")))?;
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { name, file: Box::new(file), bytes })
    }
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn results_to(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if is_standard(path) {
        return Ok(Box::new(io::stdout()));
    }
    let file = File::create(path).map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
    Ok(Box::new(file))
}

/// The file as the body of a request. A thread reads it: standard input may keep whoever reads it waiting for ever.
fn body(input: Input, sent: Arc<AtomicU64>, cut: CancellationToken) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(2);
    std::thread::spawn(move || {
        let Input { name, mut file, .. } = input;
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = match file.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    piece.truncate(length);
                    Ok(piece.into())
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(io::Error::new(error.kind(), format!("{name}: {error}"))),
            };
            let is_last = read.is_err();
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    let pieces = stream::unfold((receiver, sent, cut), async |(mut receiver, sent, cut)| {
        let piece = tokio::select! {
            biased;
            () = cut.cancelled() => Some(Err(io::Error::other("interrupted"))),
            piece = receiver.recv() => piece,
        }?;
        if let Ok(bytes) = &piece {
            sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        Some((piece.map(Frame::data), (receiver, sent, cut)))
    });
    Body::wrap(StreamBody::new(pieces))
}

const PIECE_BYTES: usize = 64 * 1024;
const REDRAW_PERIOD: Duration = Duration::from_millis(100);
/// How long the hub has to say what it makes of a file that was cut off.
const CUT_TIME_MAX: Duration = Duration::from_secs(5);
pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis device-identity import --input-file devices.txt --dry-run
  portcullis device-identity import --input-file devices.txt.gz --results-file results.txt
  ssh old-hub portcullis device-identity export --ik --im | portcullis device-identity import --input-file -
  portcullis device-identity rollback                        # the last import never was

The file is one an IoT Hub or this hub exports: one JSON object a line, each with an importMode or, without one, created
or updated. Lines that cannot be done are told, the others are done, and the exit code is 7. Ctrl-C cancels the import;
what is done by then stays, until `rollback` takes it back.";
