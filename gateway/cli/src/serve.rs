//! The flags of the hub itself.

use std::path::PathBuf;

use clap::Args;
use portcullis::config::ServeFlags;

/// The settings of the hub that the command line gives.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    /// The directory where the hub keeps its data [default: portcullis-data]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// The hub's name in connection strings and in its certificate [default: localhost]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// The addresses where devices connect, MQTT over TLS [default: 0.0.0.0:8883,[::]:8883]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    mqtt_listen: Vec<String>,
    /// The addresses where services and operators connect, HTTPS [default: port 443; 8443 if the hub may not bind 443]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    https_listen: Vec<String>,
    /// The addresses that serve metrics and health, plain HTTP [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    ops_listen: Vec<String>,
    /// A configuration file (TOML); a later file overrides an earlier one
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// The format of log lines: auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl From<ServeArgs> for ServeFlags {
    fn from(given: ServeArgs) -> Self {
        let ServeArgs { data_dir, hostname, mqtt_listen, https_listen, ops_listen, config, log_format } =
            given;
        Self { data_dir, hostname, mqtt_listen, https_listen, ops_listen, config, log_format }
    }
}
