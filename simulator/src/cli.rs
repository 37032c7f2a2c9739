//! The command line: which hub, which fleet. Parsed here into a [`Scenario`] and a [`HubAccess`]; nothing else reads it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::access::{AccessError, HubAccess};
use crate::scenario::{InvalidScenario, Scenario, parse_duration, parse_rate};

/// A fleet of simulated devices, for load tests and demos of Portcullis.
#[derive(Debug, Parser)]
#[command(name = "portcullis-simulator", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make devices, connect them, send telemetry, report.
    ///
    /// Without --login it talks to the hub whose data directory is here. The exit code is 1 when a device never
    /// connected.
    Run(RunArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// How many devices.
    #[arg(long, default_value_t = 100)]
    devices: usize,
    /// Telemetry messages a second from each device; 0 keeps them silent.
    #[arg(long, default_value = "1", value_parser = parse_rate)]
    rate: f64,
    /// How long to send, such as 60s or 5m; until Ctrl-C when absent.
    #[arg(long, value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Bytes of each telemetry message's body.
    #[arg(long, default_value_t = 64)]
    payload_size: usize,
    /// Cloud-to-device messages a second, over the whole fleet, sent over REST.
    #[arg(long, default_value = "0", value_parser = parse_rate)]
    c2d_rate: f64,
    /// What device ids begin with.
    #[arg(long, default_value = "sim")]
    prefix: String,
    /// Leave the devices in the registry at the end.
    #[arg(long)]
    keep: bool,
    /// Write the report to this file as JSON too.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Connection string of a policy that may write the registry and connect as a service.
    #[arg(long, env = "PORTCULLIS_CONNECTION_STRING", hide_env_values = true)]
    login: Option<String>,
    /// The CA to trust, and the only one; with a hub on this machine its own.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// The data directory of a hub on this machine.
    #[arg(long, default_value = "portcullis-data")]
    data_dir: PathBuf,
    /// The hub's MQTT port, with --login.
    #[arg(long, default_value_t = 8883)]
    mqtt_port: u16,
    /// The hub's HTTPS port, with --login.
    #[arg(long, default_value_t = 443)]
    https_port: u16,
}

impl RunArgs {
    /// What the fleet is to do.
    pub fn scenario(&self) -> Result<Scenario, InvalidScenario> {
        Scenario {
            devices: self.devices,
            prefix: self.prefix.clone(),
            rate_per_second: self.rate,
            duration: self.duration,
            payload_bytes: self.payload_size,
            c2d_rate_per_second: self.c2d_rate,
            keep: self.keep,
        }
        .check()
    }

    /// The hub to talk to: the one of `--login`, or the one on this machine.
    pub fn access(&self) -> Result<HubAccess, AccessError> {
        match self.login.as_deref().filter(|login| !login.is_empty()) {
            Some(login) => HubAccess::remote(login, self.ca.as_deref(), self.mqtt_port, self.https_port),
            None => HubAccess::local(&self.data_dir, self.ca.as_deref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn args(line: &str) -> RunArgs {
        let Command::Run(args) = Cli::try_parse_from(line.split_whitespace()).unwrap().command;
        args
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn everything_given_reaches_the_scenario() {
        let line = "simulator run --devices 3 --rate 0.5 --duration 2m --payload-size 100 --c2d-rate 7 --prefix pump --keep";
        let scenario = args(line).scenario().unwrap();
        let expected = Scenario {
            devices: 3,
            prefix: "pump".into(),
            rate_per_second: 0.5,
            duration: Some(Duration::from_secs(120)),
            payload_bytes: 100,
            c2d_rate_per_second: 7.0,
            keep: true,
        };
        assert_eq!(scenario, expected);
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
            assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_login_needs_its_ca() {
        let error =
            args("simulator run --login HostName=h;SharedAccessKeyName=p;SharedAccessKey=AAAA").access();
        assert!(matches!(error, Err(AccessError::NoCa)), "{error:?}");
    }
}
