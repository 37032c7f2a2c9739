//! The command line: the hub, the fleet and the scenario. It becomes a [`Fleet`], and no other file reads it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::access::{AccessError, HubAccess, Ports};
use crate::connection_strings::GivenFleet;
use crate::fleet::Fleet;
use crate::scenario::builtin;
use crate::scenario::{FleetSpec, Phase, Scenario, parse_duration, parse_rate};

/// Simulate a fleet of devices, for load tests and demos of Portcullis or any IoT hub.
#[derive(Debug, Parser)]
#[command(name = "portcullis-simulator", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create devices, connect them, run a scenario, and report.
    ///
    /// Without --login the hub is the one whose data directory is here. The exit code is 1 if the run does not meet an
    /// expectation of the scenario. Without a scenario it is 1 if a device never connected.
    Run(Box<RunArgs>),
    /// List the built-in scenarios, or print one as a start for your own.
    Scenarios {
        /// The scenario to print.
        name: Option<String>,
    },
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// A file with your own scenario.
    #[arg(value_name = "SCENARIO.toml")]
    file: Option<PathBuf>,
    /// A built-in scenario; `portcullis-simulator scenarios` lists them.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    scenario: Option<String>,
    /// The number of devices; 100 unless the scenario sets another.
    #[arg(long)]
    devices: Option<usize>,
    /// The beginning of every device id.
    #[arg(long)]
    prefix: Option<String>,
    /// The seed; the same seed gives the same ids, schedule and payloads.
    #[arg(long)]
    seed: Option<u64>,
    /// Keep the devices in the registry at the end.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    plain: PlainArgs,
    /// Write the report to this file as JSON.
    #[arg(long, visible_alias = "json", value_name = "FILE")]
    pub report_json: Option<PathBuf>,
    /// Write the report to this file as a page with charts.
    #[arg(long, value_name = "FILE")]
    pub report_html: Option<PathBuf>,
    #[command(flatten)]
    hub: HubArgs,
}

/// A run without a scenario.
#[derive(Debug, Args)]
struct PlainArgs {
    /// Telemetry messages a second from each device; 0 keeps them silent.
    #[arg(long, default_value = "1", value_parser = parse_rate, conflicts_with_all = ["file", "scenario"])]
    rate: f64,
    /// How long to send, for example 60s or 5m; without it, until Ctrl-C.
    #[arg(long, value_parser = parse_duration, conflicts_with_all = ["file", "scenario"])]
    duration: Option<Duration>,
    /// Bytes of each message's body.
    #[arg(long, default_value_t = 64, conflicts_with_all = ["file", "scenario"])]
    payload_size: usize,
    /// Cloud-to-device messages a second, over the whole fleet, sent over REST.
    #[arg(long, default_value = "0", value_parser = parse_rate, conflicts_with_all = ["file", "scenario"])]
    c2d_rate: f64,
}

#[derive(Debug, Args)]
struct HubArgs {
    /// Connection string of a policy that may write the registry and connect as a service.
    #[arg(long, env = "PORTCULLIS_CONNECTION_STRING", hide_env_values = true)]
    login: Option<String>,
    /// A file with the connection string of a registered device on each line; the run then creates no devices
    /// and needs no policy.
    #[arg(long, value_name = "FILE")]
    devices_file: Option<PathBuf>,
    /// The only CA to trust; for a hub on this machine, its own CA by default.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The data directory of a hub on this machine.
    #[arg(long, default_value = "portcullis-data")]
    data_dir: PathBuf,
    /// The hub's MQTT port, with --login or --devices-file.
    #[arg(long, default_value_t = 8883)]
    mqtt_port: u16,
    /// The hub's HTTPS port, with --login.
    #[arg(long, default_value_t = 443)]
    https_port: u16,
}

impl RunArgs {
    /// The scenario of the run.
    pub fn scenario(&self) -> anyhow::Result<Scenario> {
        let mut scenario = match (&self.file, &self.scenario) {
            (Some(file), _) => {
                Scenario::read(file).with_context(|| format!("{} is not a valid scenario", file.display()))?
            }
            (None, Some(name)) => builtin_named(name)?.scenario()?,
            (None, None) => self.plain.scenario(),
        };
        let fleet = &mut scenario.fleet;
        fleet.devices = self.devices.unwrap_or(fleet.devices);
        fleet.keep |= self.keep;
        if let Some(prefix) = &self.prefix {
            fleet.prefix.clone_from(prefix);
        }
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        Ok(scenario.check()?)
    }

    /// The fleet and its hub: the hub of `--login`, of a file of devices, or on this machine.
    pub fn fleet(&self) -> anyhow::Result<Fleet> {
        let scenario = self.scenario()?;
        let Some(file) = &self.hub.devices_file else { return Ok(Fleet::new(self.hub.access()?, scenario)) };
        let GivenFleet { hostname, identities } = GivenFleet::read(file)?;
        let access = match self.hub.login() {
            Some(_) => self.hub.access()?,
            None => HubAccess::of_devices(&hostname, self.hub.ca.as_deref(), self.hub.ports())?,
        };
        Ok(Fleet::of(access, scenario, identities)?)
    }
}

impl PlainArgs {
    /// All devices connect as fast as they can. Once all have tried, they start to send together.
    fn scenario(&self) -> Scenario {
        let connect = Phase {
            name: "connect".into(),
            duration: Some(Duration::from_millis(1)),
            settle: true,
            ..Phase::default()
        };
        let steady = Phase {
            duration: self.duration,
            telemetry_per_second: self.rate,
            payload_bytes: self.payload_size,
            c2d_per_second: self.c2d_rate,
            ..Phase::default()
        };
        Scenario { fleet: FleetSpec::default(), phases: vec![connect, steady], ..Scenario::default() }
    }
}

impl HubArgs {
    fn login(&self) -> Option<&str> {
        self.login.as_deref().filter(|login| !login.is_empty())
    }

    fn ports(&self) -> Ports {
        Ports { mqtt: self.mqtt_port, https: self.https_port }
    }

    fn access(&self) -> Result<HubAccess, AccessError> {
        match self.login() {
            Some(login) => HubAccess::remote(login, self.ca.as_deref(), self.ports()),
            None => HubAccess::local(&self.data_dir, self.ca.as_deref()),
        }
    }
}

/// The built-in scenario called `name`.
pub fn builtin_named(name: &str) -> anyhow::Result<&'static builtin::Builtin> {
    builtin::find(name).map_err(|meant| match meant {
        Some(meant) => anyhow::anyhow!("there is no scenario {name:?}; did you mean {meant:?}?"),
        None => anyhow::anyhow!("there is no scenario {name:?}; `portcullis-simulator scenarios` lists them"),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<RunArgs, clap::Error> {
        match Cli::try_parse_from(line.split_whitespace())?.command {
            Command::Run(args) => Ok(*args),
            Command::Scenarios { .. } => panic!("{line}"),
        }
    }

    fn args(line: &str) -> RunArgs {
        parse(line).unwrap()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_given_reaches_the_scenario() {
        let line = "simulator run --devices 3 --rate 0.5 --duration 2m --payload-size 100 --c2d-rate 7 --prefix pump --keep --seed 9";
        let scenario = args(line).scenario().unwrap();
        assert_eq!(
            (scenario.fleet.devices, scenario.fleet.prefix.as_str(), scenario.fleet.keep),
            (3, "pump", true)
        );
        assert_eq!(scenario.seed, 9);
        let steady = &scenario.phases[1];
        assert_eq!(steady.duration, Some(Duration::from_secs(120)));
        assert_eq!(
            (steady.telemetry_per_second, steady.payload_bytes, steady.c2d_per_second),
            (0.5, 100, 7.0)
        );
    }

    #[test]
    fn a_scenario_is_named_and_its_fleet_changed() {
        let scenario = args("simulator run --scenario storm --devices 7 --prefix gust").scenario().unwrap();
        assert_eq!((scenario.name.as_str(), scenario.fleet.devices), ("storm", 7));
        let error = args("simulator run --scenario stork").scenario().unwrap_err();
        assert!(error.to_string().contains("did you mean \"storm\"?"), "{error}");
        for flag in ["--rate 2", "--duration 1s", "--c2d-rate 1", "--payload-size 1"] {
            assert!(parse(&format!("simulator run --scenario storm {flag}")).is_err(), "{flag}");
        }
        assert!(parse("simulator run mine.toml --scenario storm").is_err());
    }

    #[test]
    fn a_scenario_that_cannot_be_is_refused() {
        for line in
            ["simulator run --devices 0", "simulator run --prefix a/b", "simulator run --payload-size 300000"]
        {
            assert!(args(line).scenario().is_err(), "{line}");
        }
        for line in ["simulator run --rate -1", "simulator run --rate NaN", "simulator run --duration never"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_login_needs_its_ca() {
        let args = args("simulator run --login HostName=h;SharedAccessKeyName=p;SharedAccessKey=AAAA");
        assert!(matches!(args.hub.access(), Err(AccessError::NoCa)));
    }

    #[test]
    fn the_older_name_of_the_json_report_still_works() {
        assert_eq!(args("simulator run --json r.json").report_json, Some(PathBuf::from("r.json")));
    }
}
