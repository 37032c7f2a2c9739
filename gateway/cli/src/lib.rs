//! The command line: the verbs, what each takes, and how each ends.
//!
//! Without a verb the program serves. Every other verb is a client of REST and MQTT, as any other program could be.
//! Nouns, verbs and flags are az's, so that scripts port. Standard output carries data, standard error messages.
//!
//! To add a verb: a variant below, its arguments and its `run` in the file of its noun.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::audit::AuditVerb;
use crate::backup::BackupVerb;
use crate::c2d::{C2dVerb, SEND_EXAMPLES};
use crate::cert::CertVerb;
use crate::credential::{ConnectionStringVerb, SHOW_EXAMPLES, TOKEN_EXAMPLES, TokenArgs};
use crate::doctor::DoctorArgs;
use crate::events::MonitorArgs;
use crate::exit::{Exit, Failure};
use crate::feedback::FeedbackArgs;
use crate::identity::{DEVICE_EXAMPLES, DeviceVerb, MODULE_EXAMPLES, ModuleVerb};
use crate::job::JobVerb;
use crate::manual::{COMPLETIONS_EXAMPLES, CompletionsArgs, MAN_EXAMPLES, ManArgs};
use crate::migrate::MigrateVerb;
use crate::policy::PolicyVerb;
use crate::serve::ServeArgs;
use crate::status::StatusArgs;
use crate::why::WhyArgs;
use portcullis::config::{self, Config, ServeFlags};

mod audit;
mod backup;
mod c2d;
mod cert;
mod credential;
mod doctor;
mod events;
mod exit;
mod feedback;
mod identity;
mod job;
mod log;
mod login;
mod manual;
mod migrate;
mod output;
mod policy;
mod progress;
mod rest;
mod serve;
mod status;
mod why;

/// Runs the program with the arguments it was called with, its own name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            // Help and version come here too, for standard output and exit code 0.
            // Where it cannot be printed, nothing can; the exit code tells.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    match line.run() {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit().into()
        }
    }
}

/// A device gateway you run yourself that speaks Azure IoT Hub's language.
#[derive(Parser)]
#[command(name = "portcullis", bin_name = "portcullis", version, args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the hub (also without a verb)
    Serve(ServeArgs),
    /// The hub's settings
    #[command(subcommand, after_help = CONFIG_EXAMPLES)]
    Config(ConfigVerb),
    /// Whether the hub serves, and how many devices it has
    #[command(after_help = status::EXAMPLES)]
    Status(StatusArgs),
    /// Find what is wrong with the hub on this machine, or with the connection to another hub
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(DoctorArgs),
    /// Devices in the registry
    #[command(subcommand, after_help = DEVICE_EXAMPLES)]
    DeviceIdentity(DeviceVerb),
    /// Modules of devices in the registry
    #[command(subcommand, after_help = MODULE_EXAMPLES)]
    ModuleIdentity(ModuleVerb),
    /// Shared access policies, with which services and operators sign in
    #[command(subcommand, after_help = policy::EXAMPLES)]
    Policy(PolicyVerb),
    /// Connection strings of policies, devices and modules
    #[command(subcommand, after_help = SHOW_EXAMPLES)]
    ConnectionString(ConnectionStringVerb),
    /// Print a token with which a device, module or policy signs in
    #[command(after_help = TOKEN_EXAMPLES)]
    GenerateSasToken(TokenArgs),
    /// Messages to devices
    #[command(subcommand, after_help = SEND_EXAMPLES)]
    C2dMessage(C2dVerb),
    /// Certificates of devices, and the CAs that sign them
    #[command(subcommand)]
    Cert(CertVerb),
    /// Explain why a device cannot connect or does not stay connected, and what to do
    #[command(after_help = why::EXAMPLES)]
    Why(WhyArgs),
    /// Print the telemetry of devices as it arrives
    #[command(after_help = MONITOR_EXAMPLES)]
    MonitorEvents(MonitorArgs),
    /// Print the feedback on messages to devices as it arrives
    #[command(after_help = feedback::EXAMPLES)]
    MonitorFeedback(FeedbackArgs),
    /// The audit record: who changed what
    #[command(subcommand)]
    Audit(AuditVerb),
    /// Imports, exports and rollbacks
    #[command(subcommand, after_help = job::EXAMPLES)]
    Job(JobVerb),
    /// Move a fleet from an IoT Hub to this hub
    #[command(subcommand)]
    Migrate(MigrateVerb),
    /// Backups of the hub on this machine
    #[command(subcommand)]
    Backup(BackupVerb),
    /// Print a script that completes verbs and flags in a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(CompletionsArgs),
    /// Print the manual
    #[command(after_help = MAN_EXAMPLES)]
    Man(ManArgs),
}

#[derive(Subcommand)]
enum ConfigVerb {
    /// Check whether the hub can serve with the settings
    Check(ConfigArgs),
    /// Print every setting with its value
    Print(ConfigArgs),
}

#[derive(Args)]
struct ConfigArgs {
    #[command(flatten)]
    serve: ServeArgs,
}

impl CommandLine {
    fn run(self) -> Result<Exit, Failure> {
        let done = |outcome: Result<(), Failure>| outcome.map(|()| Exit::Done);
        match self.verb.unwrap_or(Verb::Serve(self.serve)) {
            Verb::Serve(flags) => done(serve_hub(flags.into())),
            Verb::Config(verb) => done(verb.run()),
            Verb::Status(arguments) => wait_for(arguments.run())?,
            Verb::Doctor(arguments) => wait_for(arguments.run())?,
            Verb::DeviceIdentity(verb) => done(wait_for(verb.run())?),
            Verb::ModuleIdentity(verb) => done(wait_for(verb.run())?),
            Verb::Policy(verb) => done(wait_for(verb.run())?),
            Verb::ConnectionString(verb) => done(wait_for(verb.run())?),
            Verb::GenerateSasToken(arguments) => done(wait_for(arguments.run())?),
            Verb::C2dMessage(verb) => done(wait_for(verb.run())?),
            Verb::Job(verb) => done(wait_for(verb.run())?),
            Verb::Migrate(verb) => wait_for(verb.run())?,
            Verb::Backup(verb) => done(verb.run()),
            Verb::Cert(verb) => wait_for(verb.run())?,
            Verb::Why(arguments) => done(wait_for(arguments.run())?),
            Verb::MonitorEvents(arguments) => wait_for(arguments.run())?,
            Verb::MonitorFeedback(arguments) => wait_for(arguments.run())?,
            Verb::Audit(verb) => wait_for(verb.run())?,
            Verb::Completions(arguments) => done(arguments.run(CommandLine::command())),
            Verb::Man(arguments) => done(arguments.run(CommandLine::command())),
        }
    }
}

impl ConfigVerb {
    fn run(self) -> Result<(), Failure> {
        match self {
            ConfigVerb::Check(arguments) => load(&arguments.serve.into()).map(drop),
            ConfigVerb::Print(arguments) => output::answer(&load(&arguments.serve.into())?.to_toml()),
        }
    }
}

fn serve_hub(flags: ServeFlags) -> Result<(), Failure> {
    let config = load(&flags)?;
    log::start(&config)?;
    let runtime = tokio::runtime::Runtime::new().map_err(|error| Failure::error(error.to_string()))?;
    runtime.block_on(portcullis::serve::run(config)).map_err(|error| Failure::error(format!("{error:#}")))
}

fn load(flags: &ServeFlags) -> Result<Config, Failure> {
    Config::load(flags, config::environment()).map_err(|error| Failure::usage(error.to_string()))
}

/// Runs a client verb. One thread is enough.
fn wait_for<T>(verb: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map(|runtime| runtime.block_on(verb)).map_err(|error| Failure::error(error.to_string()))
}

const EXAMPLES: &str = "\
Examples:
  portcullis                                                 # serve; data in ./portcullis-data
  portcullis --hostname hub.example.com --data-dir /var/lib/portcullis
  portcullis device-identity create --device-id pump-7
  portcullis connection-string show --device-id pump-7       # configure the device with it
  portcullis monitor-events --output json
  portcullis c2d-message send --device-id pump-7 --data 'open valve'

The client verbs find the hub on this machine by its data directory. For another hub:
  portcullis device-identity list --login 'HostName=hub.example.com;SharedAccessKeyName=…' --ca ca.pem
or set PORTCULLIS_CONNECTION_STRING and PORTCULLIS_CA.

A key or connection string can stay off the command line: `@FILE` reads it from a file and `-` from standard input.
Data goes to standard output, messages to standard error.

Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 conflict, 5 unauthorized, 6 throttled or timeout, 7 done in part,
130 Ctrl-C.";
const CONFIG_EXAMPLES: &str = "\
Examples:
  portcullis config print                                    # every setting with its value
  portcullis config check --config /etc/portcullis.toml      # exit code 2 if a setting is wrong";
const MONITOR_EXAMPLES: &str = "\
Examples:
  portcullis monitor-events                                  # as text
  portcullis monitor-events --output json | jq .body         # one JSON object a line
  portcullis monitor-events --device-id pump-7 --output json --count 1";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_tree_is_sound() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn without_a_verb_it_serves() {
        assert!(parse("portcullis").unwrap().verb.is_none());
        assert!(parse("portcullis --data-dir x").unwrap().verb.is_none());
        assert!(matches!(parse("portcullis serve --data-dir x").unwrap().verb, Some(Verb::Serve(_))));
    }

    #[test]
    fn the_flags_of_az_are_taken() {
        for line in [
            "portcullis device-identity create -d pump-7 --am shared_private_key --pk AA== --sk AA== --sta disabled --star why --ee",
            "portcullis device-identity create --device-id pump-7 --auth-method x509_thumbprint --ptp AB --stp CD --ee false",
            "portcullis device-identity create -d pump-7 --am x509_ca --status Enabled -o tsv",
            "portcullis device-identity show -d pump-7 -o jsonc -l HostName=h",
            "portcullis device-identity list --top -1 --output table",
            "portcullis device-identity list --query [].deviceId -o yaml",
            "portcullis device-identity update -d pump-7 --sta disabled --star why --ee false -e AAA=",
            "portcullis device-identity update -d pump-7 --am x509_thumbprint --ptp AB --stp CD --etag *",
            "portcullis device-identity update -d pump-7 --pk @a --sk - -o table",
            "portcullis device-identity update -d pump-7 --set status=disabled capabilities.iotEdge=true",
            "portcullis device-identity renew-key -d pump-7 --kt primary --etag AAA=",
            "portcullis device-identity renew-key -d pump-7 pump-8 --key-type both --im -o table",
            "portcullis device-identity renew-key -d * --kt swap --yes",
            "portcullis device-identity delete -d pump-7 -e AAA= --yes",
            "portcullis device-identity connection-string show -d pump-7 --kt secondary",
            "portcullis module-identity create -d pump-7 -m mod1 --am x509_ca",
            "portcullis module-identity show -d pump-7 -m mod1",
            "portcullis module-identity list -d pump-7",
            "portcullis module-identity update -d pump-7 -m mod1 --am x509_ca --set managedBy=me --etag AAA=",
            "portcullis module-identity renew-key -d pump-7 -m mod1 mod2 --kt secondary",
            "portcullis module-identity renew-key -d pump-7 -m * --kt both",
            "portcullis module-identity delete -d pump-7 -m mod1",
            "portcullis policy list -o table --show-keys",
            "portcullis policy show --policy-name p",
            "portcullis policy create -n p --permissions RegistryWrite serviceconnect --pk @a --sk @b",
            "portcullis policy create --pn p --rights RegistryRead,DeviceConnect",
            "portcullis policy regenerate --name p --kt both",
            "portcullis policy renew-key -n p --key-type swap -o json",
            "portcullis policy delete -n p -y",
            "portcullis status -o table",
            "portcullis doctor --data-dir x -o json",
            "portcullis completions bash",
            "portcullis completions powershell",
            "portcullis man --directory x",
            "portcullis module-identity connection-string show -d pump-7 -m mod1",
            "portcullis connection-string show",
            "portcullis connection-string show --policy-name service --kt secondary -o json",
            "portcullis connection-string show --query connectionString -o tsv",
            "portcullis connection-string show --device-id pump-7 --module-id mod1",
            "portcullis generate-sas-token -d pump-7 -m mod1 --duration 60",
            "portcullis generate-sas-token --policy-name service --du 60",
            "portcullis c2d-message send -d pump-7 -m mod1 --data x --props k=v --expiry +10m --ack full",
            "portcullis c2d-message peek -d pump-7 -m mod1 --top 3 -o table",
            "portcullis c2d-message purge -d pump-7 -o tsv",
            "portcullis why pump-7",
            "portcullis why -d pump-7 -m mod1 -o json --query refusals",
            "portcullis monitor-feedback --device-id pump-7 --output json --count 1",
            "portcullis monitor-events --device-id pump-7 --output json --count 1",
            "portcullis monitor-events --https-port 8443 --mqtt-port 8883 --ca ca.pem --data-dir x",
            "portcullis audit tail -n 5 --device-id pump-7 -o json",
            "portcullis audit tail --follow",
            "portcullis audit verify --data-dir x",
            "portcullis backup create --output f --data-dir x",
            "portcullis backup verify f",
            "portcullis backup restore f --data-dir x",
            "portcullis device-identity import --if f --dry-run --results-file r -o json",
            "portcullis device-identity import --input-file - --no-progress -o table",
            "portcullis device-identity export --of f --ik --im --no-progress",
            "portcullis device-identity export --output-file -",
            "portcullis device-identity export --bcu @f --ik true",
            "portcullis device-identity import --ibcu file:a --obcu file:b -o json",
            "portcullis device-identity rollback --jid x --yes -o json",
            "portcullis job list -o table",
            "portcullis job show --job-id x",
            "portcullis job cancel --jid x",
            "portcullis migrate from-iothub --login @f --ca ca.pem --of f --exclude-keys --page-size 7",
            "portcullis migrate from-iothub -l HostName=h --no-progress",
            "portcullis cert ca create --name fleet --vd 30 --od x --signed-by a.pem --signed-by-key k.pem",
            "portcullis cert ca enrol --name fleet --verified fleet.pem",
            "portcullis cert ca enrol --name fleet --verified --reason why fleet.pem --ca ca.pem",
            "portcullis cert ca list -o table",
            "portcullis cert ca verify --name fleet",
            "portcullis cert ca verify --name fleet --ca-cert fleet.pem --ca-key k.pem",
            "portcullis cert ca verify --name fleet --proof proof.pem",
            "portcullis cert ca remove --name fleet",
            "portcullis cert device issue --device-id pump-7 -m camera --ca-cert fleet.pem",
            "portcullis cert device issue -d pump-7 --self-signed --valid-days 1 --name new",
            "portcullis cert device rotate -d pump-7 --new new.pem",
            "portcullis cert device rotate -d pump-7 -m camera --finish",
            "portcullis cert thumbprint --sha1 pump-7.pem",
            "portcullis cert inspect pump-7.pem -d pump-7 -m camera --ca-cert fleet.pem",
            "portcullis config check",
            "portcullis config print --data-dir x",
        ] {
            assert!(parse(line).is_ok(), "{line}: {}", parse(line).err().unwrap());
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "portcullis nonsense",
            "portcullis device-identity",
            "portcullis device-identity create",
            "portcullis device-identity create -d a/b",
            "portcullis device-identity create -d a+b",
            "portcullis device-identity create -d a --am password",
            "portcullis device-identity list --query [?",
            "portcullis device-identity list --top 0",
            "portcullis device-identity update -d a --set tags.x=1",
            "portcullis device-identity renew-key -d a",
            "portcullis device-identity renew-key --kt both",
            "portcullis device-identity renew-key -d a --im --kt both --etag x",
            "portcullis device-identity renew-key -d a --kt tertiary",
            "portcullis device-identity update -d *x/ --sta enabled",
            "portcullis policy create -n p",
            "portcullis policy create -n p --rights Everything",
            "portcullis policy show",
            "portcullis policy show --name",
            "portcullis completions tcsh",
            "portcullis connection-string show --module-id mod1",
            "portcullis connection-string show --policy-name p -d pump-7",
            "portcullis generate-sas-token --duration 0",
            "portcullis cert device issue -d pump-7",
            "portcullis cert device issue -d pump-7 --self-signed --ca-cert fleet.pem",
            "portcullis cert device rotate -d pump-7",
            "portcullis cert ca enrol --name a/b fleet.pem",
            "portcullis cert ca enrol --name fleet --reason why fleet.pem",
            "portcullis cert ca create --name ../x",
            "portcullis c2d-message peek",
            "portcullis c2d-message peek -d a --top 101",
            "portcullis monitor-feedback --count 0",
            "portcullis monitor-events --output table",
            "portcullis monitor-events --count 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
