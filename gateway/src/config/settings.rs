//! Every setting except the limits and the policies' keys: its name, and how it is read and shown.

use std::path::{Path, PathBuf};

use tracing_subscriber::filter::Targets;

use super::draft::Draft;
use super::source::Text;
use super::{Config, HostName, Listen, LogFormat};
use crate::config::blob_host::BlobHost;

/// One setting: its name, and how it is read and shown.
pub(super) struct Setting {
    pub(super) key: &'static str,
    pub(super) help: &'static str,
    pub(super) set: fn(&mut Draft, &Text) -> Result<(), String>,
    pub(super) show: fn(&Config) -> SettingText,
}

/// A value as TOML: one that is set, or one to show as a comment because it is a default or an example.
pub(super) enum SettingText {
    Set(String),
    Unset(String),
}

/// Every setting except the limits and the policies' keys. Those without a section come first.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        key: "hostname",
        help: "The hub's name in connection strings and in its certificate.",
        set: |draft, text| assign(&mut draft.config.hostname, parse_host_name(text.one()?)),
        show: |config| SettingText::Set(quoted(config.hostname.to_string())),
    },
    Setting {
        key: "aliases",
        help: "Other names of the hub.",
        set: |draft, text| assign(&mut draft.config.aliases, parse_aliases(text)),
        show: |config| {
            let names: Vec<_> = config.aliases.iter().map(|name| quoted(name.to_string())).collect();
            SettingText::Set(format!("[{}]", names.join(", ")))
        },
    },
    Setting {
        key: "data_dir",
        help: "The directory where the hub keeps its data.",
        set: |draft, text| assign(&mut draft.config.data_dir, parse_path(text)),
        show: |config| SettingText::Set(quoted(config.data_dir.display().to_string())),
    },
    Setting {
        key: "mqtt.listen",
        help: "The addresses where devices connect, MQTT over TLS.",
        set: |draft, text| assign(&mut draft.config.mqtt_listen, Listen::parse(text)),
        show: |config| config.mqtt_listen.show(),
    },
    Setting {
        key: "https.listen",
        help: "The addresses where services and operators connect, HTTPS. Default: port 443; 8443 if the hub may not bind 443.",
        set: |draft, text| assign(&mut draft.config.https_listen, Listen::parse(text)),
        show: |config| config.https_listen.show(),
    },
    Setting {
        key: "ops.listen",
        help: "The addresses that serve metrics and health, plain HTTP.",
        set: |draft, text| assign(&mut draft.config.ops_listen, Listen::parse(text)),
        show: |config| config.ops_listen.show(),
    },
    Setting {
        key: "tls.certificate",
        help: "Your own server certificate: the chain, PEM, with the server's certificate first.",
        set: |draft, text| assign(&mut draft.chain, parse_path(text).map(Some)),
        show: |config| {
            show_path(config.certificate.as_ref().map(|files| files.chain.as_path()), "server.pem")
        },
    },
    Setting {
        key: "tls.key",
        help: "The key of that certificate, PEM.",
        set: |draft, text| assign(&mut draft.key, parse_path(text).map(Some)),
        show: |config| {
            show_path(config.certificate.as_ref().map(|files| files.key.as_path()), "server-key.pem")
        },
    },
    Setting {
        key: "sas.devices",
        help: "Whether devices may sign in with SAS tokens; if false, they need certificates.",
        set: |draft, text| assign(&mut draft.config.sas.devices, text.switch()),
        show: |config| SettingText::Set(config.sas.devices.to_string()),
    },
    Setting {
        key: "sas.modules",
        help: "The same as sas.devices, for modules.",
        set: |draft, text| assign(&mut draft.config.sas.modules, text.switch()),
        show: |config| SettingText::Set(config.sas.modules.to_string()),
    },
    Setting {
        key: "jobs.folder",
        help: "The folder of the containers file:NAME of import and export jobs. Default: containers in the data directory.",
        set: |draft, text| assign(&mut draft.config.jobs_folder, parse_path(text).map(Some)),
        show: |config| show_path(config.jobs_folder.as_deref(), "portcullis-data/containers"),
    },
    Setting {
        key: "jobs.blob_hosts",
        help: "Blob stores that jobs may use besides https://*.blob.core.windows.net, for example \"http://127.0.0.1:10000\"; only these may be private or plain http.",
        set: |draft, text| assign(&mut draft.config.blob_hosts, parse_blob_hosts(text)),
        show: |config| {
            let hosts: Vec<_> = config.blob_hosts.iter().map(|host| quoted(host.to_string())).collect();
            SettingText::Set(format!("[{}]", hosts.join(", ")))
        },
    },
    Setting {
        key: "log.filter",
        help: "What is logged: off, error, warn, info, debug or trace; by module, for example \"info,portcullis::auth=debug\".",
        set: |draft, text| assign(&mut draft.config.log_filter, parse_filter(text.one()?)),
        show: |config| SettingText::Set(quoted(config.log_filter.to_string())),
    },
    Setting {
        key: "log.format",
        help: "The format of log lines: auto (text on a terminal, JSON elsewhere), text or json.",
        set: |draft, text| assign(&mut draft.config.log_format, LogFormat::parse(text.one()?)),
        show: |config| SettingText::Set(quoted(config.log_format.as_str().to_owned())),
    },
];

fn assign<T>(place: &mut T, parsed: Result<T, String>) -> Result<(), String> {
    *place = parsed?;
    Ok(())
}

fn parse_host_name(text: &str) -> Result<HostName, String> {
    HostName::parse(text).map_err(|error| error.to_string())
}

fn parse_aliases(text: &Text) -> Result<Vec<HostName>, String> {
    let texts = text.many()?;
    if texts.len() > ALIASES_MAX {
        return Err(format!("there are more than {ALIASES_MAX} names"));
    }
    texts.into_iter().map(parse_host_name).collect()
}

fn parse_blob_hosts(text: &Text) -> Result<Vec<BlobHost>, String> {
    let texts = text.many()?;
    if texts.len() > BLOB_HOSTS_MAX {
        return Err(format!("there are more than {BLOB_HOSTS_MAX} hosts"));
    }
    let host = |text| BlobHost::parse(text).map_err(|error| error.to_string());
    texts.into_iter().map(host).collect()
}

fn parse_path(text: &Text) -> Result<PathBuf, String> {
    match text.one()? {
        "" => Err("it is empty; give a path".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

fn parse_filter(text: &str) -> Result<Targets, String> {
    let parsed = text.parse().ok().filter(|_| !text.trim().is_empty());
    parsed.ok_or_else(|| {
        format!("{text:?} is not a filter such as \"info\" or \"info,portcullis::auth=debug\"")
    })
}

fn show_path(path: Option<&Path>, example: &str) -> SettingText {
    match path {
        Some(path) => SettingText::Set(quoted(path.display().to_string())),
        None => SettingText::Unset(quoted(example.to_owned())),
    }
}

/// A text in TOML's syntax.
pub(super) fn quoted(text: String) -> String {
    toml::Value::String(text).to_string()
}

const ALIASES_MAX: usize = 64;
const BLOB_HOSTS_MAX: usize = 64;
