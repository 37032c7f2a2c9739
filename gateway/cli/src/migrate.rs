//! `migrate from-iothub`: reads a whole fleet from an IoT Hub into a file that `device-identity import` takes.
//!
//! It reads page by page what any client of that hub's REST interface may read, and changes nothing there. Only the
//! registry has keys, so each device with keys costs one more request. Under IoT Hub's limits that may take hours. The
//! user may stop it at any time, and the same command continues.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::login::{Login, read_secret};
use crate::output::{answer, scalar};
use crate::progress::{Progress, ProgressArgs, Unit};
use crate::rest::Rest;

mod line;
mod source;
mod unfinished;

use line::{Line, Tally};
use source::{Kind, Page, Source};
use unfinished::Unfinished;

/// Verbs that move a fleet to this hub.
#[derive(Subcommand)]
pub(super) enum MigrateVerb {
    /// Read the devices and modules of an IoT Hub, with their keys, into a file to import; change nothing there
    #[command(name = "from-iothub", after_help = EXAMPLES)]
    FromIotHub(FromIotHubArgs),
}

#[derive(Args)]
pub(super) struct FromIotHubArgs {
    /// Connection string of a shared access policy of that hub. The policy needs ServiceConnect to list the devices and
    /// RegistryRead to read their keys, as iothubowner has. `@FILE` reads it from a file, `-` from standard input
    #[arg(short, long, value_name = "CONNSTR")]
    login: String,
    /// The CA certificates to trust, PEM. Without it, the system's, which a real IoT Hub needs
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The new file; it holds keys, and only you may read it
    #[arg(long, visible_alias = "of", value_name = "FILE", default_value = "devices.txt")]
    output_file: PathBuf,
    /// Do not read keys; the import makes new ones
    #[arg(long)]
    exclude_keys: bool,
    /// How many identities to request at once; the hub sends fewer if their twins are large
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
    page_size: u16,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl MigrateVerb {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        match self {
            MigrateVerb::FromIotHub(arguments) => arguments.run().await,
        }
    }
}

impl FromIotHubArgs {
    async fn run(self) -> Result<Exit, Failure> {
        let source = Source::new(Rest::new(Login::parse(&read_secret(&self.login)?, self.ca)?)?);
        let devices = source.count_devices().await?;
        let with_keys = devices.is_some() && !self.exclude_keys;
        if devices.is_none() && !self.exclude_keys {
            eprintln!("note: this policy lacks RegistryRead and may not read keys; continuing without keys");
        }
        let file = Unfinished::open(&self.output_file, source.host(), with_keys)?;
        let before = file.tally().lines();
        if before > 0 {
            eprintln!(
                "continuing after the {before} lines of {}",
                unfinished::part(&self.output_file).display()
            );
        }
        let progress = Progress::begin(self.progress, "reading", Unit::Lines);
        if let Some(devices) = devices {
            progress.expect(devices);
        }
        let mut pull = Pull { source, file, progress, rows: self.page_size.into(), gone: 0 };
        let pulled = tokio::select! {
            pulled = pull.run() => pulled,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Interrupted, "interrupted")),
        };
        let Pull { file, progress, gone, .. } = pull;
        drop(progress);
        if let Err(failure) = pulled {
            let lines = file.tally().lines();
            file.abandon_if_empty();
            return Err(if lines == 0 {
                failure
            } else {
                failure.with_hint(format!("{lines} lines are saved; {GO_ON}"))
            });
        }
        let tally = file.finish()?;
        if gone > 0 {
            eprintln!("note: {gone} identities were deleted during the migration");
        }
        for note in notes(&tally) {
            eprintln!("note: {note}");
        }
        let file = self.output_file.display();
        answer(&format!("{file} holds {} devices and {} modules\n", tally.devices, tally.modules))?;
        eprintln!("next: portcullis device-identity import --input-file {file} --dry-run");
        let is_whole = self.exclude_keys || tally.without_keys == 0;
        Ok(if is_whole { Exit::Done } else { Exit::Partial })
    }
}

/// Notes on what is missing from the file, as text.
fn notes(tally: &Tally) -> Vec<String> {
    let Tally { without_keys, edge, children, .. } = *tally;
    let mut notes = Vec::new();
    if without_keys > 0 {
        notes.push(format!(
            "{without_keys} identities sign in with keys that are not in the file; the import gives them new keys, and \
             their devices cannot connect until they have those keys"
        ));
    }
    if edge > 0 {
        notes.push(format!(
            "{edge} devices are IoT Edge devices: the file holds them and their modules, but not their deployments"
        ));
    }
    if children > 0 {
        notes.push(format!(
            "{children} devices have a parent device, and their lines name its scope; a hub without such scopes \
             admits them only when they connect themselves"
        ));
    }
    notes
}

/// A migration that is running.
struct Pull {
    source: Source,
    file: Unfinished,
    progress: Progress,
    rows: usize,
    /// Identities that were deleted before they were read.
    gone: u64,
}

impl Pull {
    async fn run(&mut self) -> Result<(), Failure> {
        if !self.file.place.at_modules {
            self.all(Kind::Devices).await?;
            self.file.place.at_modules = true;
            self.file.keep_cursor()?;
        }
        self.all(Kind::Modules).await
    }

    async fn all(&mut self, kind: Kind) -> Result<(), Failure> {
        let mut page = match self.page(kind).await {
            // The token of an earlier run may have expired. The file tells what is written, so reading can start again.
            Err(failure) if is_refused(&failure) && self.file.place.continuation.is_some() => {
                self.file.place.continuation = None;
                self.page(kind).await?
            }
            page => page?,
        };
        loop {
            self.take(kind, &page).await?;
            self.file.place.continuation = page.next;
            self.file.keep_cursor()?;
            if self.file.place.continuation.is_none() {
                return Ok(());
            }
            page = self.page(kind).await?;
        }
    }

    async fn page(&self, kind: Kind) -> Result<Page, Failure> {
        let page = self.source.page(kind, self.rows, self.file.place.continuation.as_deref()).await;
        page.map_err(|failure| match failure.exit() {
            Exit::Unauthorized => {
                failure.with_hint("the policy needs ServiceConnect to list devices, as iothubowner has it")
            }
            _ => failure,
        })
    }

    /// Writes the lines of a page that are not in the file yet, with a limited number of requests at a time.
    async fn take(&mut self, kind: Kind, page: &Page) -> Result<(), Failure> {
        let file = &self.file;
        let fresh = page.twins.iter().filter(|twin| {
            let module = twin.get("moduleId").and_then(Value::as_str);
            !file.has(&scalar(twin, "/deviceId"), module)
        });
        let groups = match kind {
            Kind::Devices => fresh.map(|twin| vec![twin]).collect(),
            Kind::Modules => by_device(fresh),
        };
        let (source, with_keys) = (&self.source, file.place.with_keys);
        let mut lines =
            stream::iter(groups).map(|twins| lines(source, kind, twins, with_keys)).buffered(REQUESTS_MAX);
        while let Some(lines) = lines.try_next().await? {
            for line in lines {
                let Some(line) = line else {
                    self.gone += 1;
                    continue;
                };
                if let Some(left_out) = line.left_out {
                    let id = serde_json::from_str(&line.text).map(|line: Value| scalar(&line, "/id"));
                    let id = id.unwrap_or_default();
                    self.progress.print_status(&format!(
                        "note: {id}: left out {left_out}, because its line would be too long"
                    ));
                }
                self.file.write(&line.text)?;
                self.progress.at(self.file.tally().lines(), "");
            }
        }
        Ok(())
    }
}

/// The lines of one device's twins. Deleted identities have no line.
async fn lines(
    source: &Source,
    kind: Kind,
    twins: Vec<&Value>,
    with_keys: bool,
) -> Result<Vec<Option<Line>>, Failure> {
    // For an identity without keys the twin holds everything.
    let needs_entry = with_keys && twins.iter().any(|twin| scalar(twin, "/authenticationType") == "sas");
    if !needs_entry {
        return Ok(twins.into_iter().map(|twin| Some(Line::of(twin, None))).collect());
    }
    let device = twins.first().map(|twin| scalar(twin, "/deviceId")).unwrap_or_default();
    let entries = match kind {
        Kind::Devices => Vec::from_iter(source.device(&device).await?),
        Kind::Modules => source.modules(&device).await?,
    };
    let line = |twin: &Value| {
        let entry = entries.iter().find(|entry| entry.get("moduleId") == twin.get("moduleId"));
        entry.map(|entry| Line::of(twin, Some(entry)))
    };
    Ok(twins.into_iter().map(line).collect())
}

/// The modules grouped by device, with the devices in the order of their first module.
fn by_device<'a>(twins: impl Iterator<Item = &'a Value>) -> Vec<Vec<&'a Value>> {
    let mut groups: Vec<Vec<&Value>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for twin in twins {
        let place = *places.entry(scalar(twin, "/deviceId")).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(twin);
    }
    groups
}

/// Whether the hub rejects the request itself.
fn is_refused(failure: &Failure) -> bool {
    failure.code().is_some_and(|code| code / 1000 == 400)
}

/// How many requests may run at once.
const REQUESTS_MAX: usize = 8;
const GO_ON: &str = "run the same command to continue";
const EXAMPLES: &str = "\
Examples:
  portcullis migrate from-iothub --login @owner.txt                  # into devices.txt
  portcullis migrate from-iothub --login - --output-file fleet.txt < owner.txt
  portcullis migrate from-iothub --login @owner.txt --exclude-keys   # ids, twins, thumbprints

`az iot hub connection-string show -n HUB` prints the connection string. If the migration stops, by
Ctrl-C or otherwise, run the same command to continue. It continues from FILE.part and FILE.resume.
It slows down when the hub throttles it: an IoT Hub of size S1 gives out 100 keys a minute for each
unit. Afterwards the file holds:

  portcullis device-identity import --input-file devices.txt --dry-run   # nothing changes
  portcullis device-identity import --input-file devices.txt

A policy without RegistryRead gives no keys. The import then makes new keys for those identities, and
the exit code is 7. The file holds no IoT Edge deployments, device configurations or CAs.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn modules_of_one_device_are_asked_for_together() {
        let twins: Vec<Value> = [("a", "1"), ("b", "1"), ("a", "2")]
            .map(|(device, module)| json!({"deviceId": device, "moduleId": module}))
            .into();
        let groups = by_device(twins.iter());
        assert_eq!(groups, [vec![&twins[0], &twins[2]], vec![&twins[1]]]);
    }

    #[test]
    fn what_is_not_in_the_file_is_told() {
        assert_eq!(notes(&Tally { devices: 3, modules: 1, ..Tally::default() }), [""; 0]);
        let told = notes(&Tally { without_keys: 1, edge: 2, children: 3, ..Tally::default() });
        assert_eq!(told.len(), 3);
    }
}
