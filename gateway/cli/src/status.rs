//! `status`: whether the hub serves, and how many devices it has.
//!
//! The exit code is for scripts and health checks: 0 it serves, 1 it cannot be reached, 2 it runs but does not serve.

use clap::Args;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::login::Access;
use crate::output::{Column, OutputArgs, scalar};
use crate::rest::Rest;

/// `status`.
#[derive(Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: Access,
}

impl StatusArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let login = self.access.login()?;
        let version = login.hub_version.clone();
        let rest = Rest::new(login)?;
        let ready = rest.readiness().await?.ready;
        let mut status = json!({
            "host": rest.login().host,
            "ready": ready,
            "version": version,
            "devices": Value::Null,
            "enabledDevices": Value::Null,
            "connectedDevices": Value::Null,
        });
        // A policy may have the right to one of them only. A hub that is stopping answers neither.
        let devices = rest.get(&["statistics", "devices"], &[]).await;
        let service = rest.get(&["statistics", "service"], &[]).await;
        for (name, counts, member) in [
            ("devices", &devices, "totalDeviceCount"),
            ("enabledDevices", &devices, "enabledDeviceCount"),
            ("connectedDevices", &service, "connectedDeviceCount"),
        ] {
            match counts {
                Ok(counts) => status[name] = counts[member].clone(),
                Err(failure) if !ready || failure.exit() == Exit::Unauthorized => {}
                Err(failure) => return Err(failure.clone()),
            }
        }
        if let (Err(failure), Err(_)) = (&devices, &service)
            && ready
        {
            eprintln!("{failure}");
        }
        self.output.print(&status, COLUMNS)?;
        Ok(if ready { Exit::Done } else { Exit::NotReady })
    }
}

const COLUMNS: &[Column] = &[
    ("Host", |status| scalar(status, "/host")),
    ("Ready", |status| scalar(status, "/ready")),
    ("Version", |status| scalar(status, "/version")),
    ("Devices", |status| scalar(status, "/devices")),
    ("Enabled", |status| scalar(status, "/enabledDevices")),
    ("Connected", |status| scalar(status, "/connectedDevices")),
];
pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis status -o table
  until portcullis status -o none; do sleep 1; done          # wait until it serves

Exit codes: 0 it serves, 1 it cannot be reached, 2 it runs but does not serve.";
