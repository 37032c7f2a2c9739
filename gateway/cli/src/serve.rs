//! The flags of the hub itself.

use std::path::PathBuf;

use clap::Args;
use portcullis::config::ServeFlags;

/// The command line's part of the hub's configuration, as given.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServeArgs {
    /// Where the hub keeps its data [default: portcullis-data]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// The hub's name in connection strings and in its certificate [default: localhost]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Where devices connect, MQTT over TLS [default: 0.0.0.0:8883,[::]:8883]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    mqtt_listen: Vec<String>,
    /// Where services and operators connect, HTTPS [default: port 443, or 8443 where 443 may not be bound]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    https_listen: Vec<String>,
    /// Where metrics and health are served, plain HTTP [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    ops_listen: Vec<String>,
    /// A configuration file (TOML); may be repeated, later ones win
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// How log lines look: auto, text or json [default: auto]
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
