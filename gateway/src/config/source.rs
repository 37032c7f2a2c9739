//! The sources of settings: flags, environment, files. Each becomes a list of dotted keys with texts.

use std::path::{Path, PathBuf};

use super::{ConfigError, ServeFlags};

/// One setting of a source.
#[derive(Debug)]
pub(super) struct Given {
    /// Dotted, such as `limits.keep_alive_max`.
    pub(super) key: String,
    pub(super) text: Text,
    pub(super) origin: SettingOrigin,
}

/// A value: one text, several, a switch, or an empty section.
#[derive(Debug)]
pub(super) enum Text {
    One(String),
    Many(Vec<String>),
    /// TOML's `true` or `false`.
    Switch(bool),
    EmptySection,
}

/// The source of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    Flag(&'static str),
    Variable(String),
    File(PathBuf),
}

impl SettingOrigin {
    /// How this source spells `key`.
    pub(super) fn spell(&self, key: &str) -> String {
        match self {
            Self::Variable(_) => format!("{PREFIX}{}", key.replace('.', "__").to_uppercase()),
            Self::Flag(_) | Self::File(_) => key.to_owned(),
        }
    }

    /// The place of `key` in this source, as text for the operator.
    pub(super) fn place(&self, key: &str) -> String {
        match self {
            Self::Flag(name) => format!("the flag {name}"),
            Self::Variable(name) => format!("the environment variable {name}"),
            Self::File(path) => format!("{key} in {}", path.display()),
        }
    }
}

impl Text {
    /// The text of a setting that takes one.
    pub(super) fn one(&self) -> Result<&str, String> {
        match self {
            Self::One(text) => Ok(text),
            Self::Switch(_) => Err("it must be a text or a number".to_owned()),
            Self::Many(_) | Self::EmptySection => Err("give one value".to_owned()),
        }
    }

    /// The position of a switch.
    pub(super) fn switch(&self) -> Result<bool, String> {
        match self {
            Self::Switch(position) => Ok(*position),
            other => {
                let text = other.one()?;
                text.parse().map_err(|_| format!("{text:?} must be true or false"))
            }
        }
    }

    /// The texts of a setting that takes several: a list, or one text separated by commas.
    pub(super) fn many(&self) -> Result<Vec<&str>, String> {
        match self {
            Self::One(text) if text.is_empty() => Ok(Vec::new()),
            Self::One(text) => Ok(text.split(',').map(str::trim).collect()),
            Self::Many(texts) => Ok(texts.iter().map(String::as_str).collect()),
            Self::Switch(_) | Self::EmptySection => Err("give a list".to_owned()),
        }
    }
}

/// The settings of the command line, without `--config` and `--data-dir`.
pub(super) fn from_flags(flags: &ServeFlags) -> Vec<Given> {
    let mut layer = Vec::new();
    for (key, flag, text) in
        [("hostname", "--hostname", &flags.hostname), ("log.format", "--log-format", &flags.log_format)]
    {
        layer.extend(text.iter().map(|text| given(key, Text::One(text.clone()), SettingOrigin::Flag(flag))));
    }
    for (key, flag, texts) in [
        ("mqtt.listen", "--mqtt-listen", &flags.mqtt_listen),
        ("https.listen", "--https-listen", &flags.https_listen),
        ("ops.listen", "--ops-listen", &flags.ops_listen),
    ] {
        if !texts.is_empty() {
            layer.push(given(key, Text::Many(texts.clone()), SettingOrigin::Flag(flag)));
        }
    }
    layer
}

/// The settings of the environment. Variables of other programs are ignored.
pub(super) fn from_environment(variables: impl Iterator<Item = (String, String)>) -> Vec<Given> {
    let ours = variables.filter_map(|(name, text)| {
        let key = match name.strip_prefix(PREFIX) {
            Some(rest) => rest.to_lowercase().replace("__", "."),
            None if name == LOG_FILTER => "log.filter".to_owned(),
            None => return None,
        };
        Some(given(&key, Text::One(text), SettingOrigin::Variable(name)))
    });
    ours.collect()
}

/// The settings of one file.
pub(super) fn from_file(path: &Path) -> Result<Vec<Given>, ConfigError> {
    let unreadable = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = read_bounded(path, FILE_BYTES_MAX).map_err(unreadable)?;
    // An empty file may be a truncated one. Its defaults would listen on more addresses than the lost settings did.
    if text.trim().is_empty() {
        return Err(unreadable("the file is empty".to_owned()));
    }
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        // The error's full text quotes the line, which may hold a key.
        let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
        unreadable(format!("line {line}: {}", error.message()))
    })?;
    let mut layer = Vec::new();
    flatten(&mut layer, "", table, &SettingOrigin::File(path.to_owned()))?;
    Ok(layer)
}

/// The contents of a small text file.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> Result<String, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| format!("it cannot be opened: {error}"))?;
    let mut text = String::new();
    let read = file
        .take(bytes_max + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("it cannot be read: {error}"))?;
    if read as u64 > bytes_max {
        Err(format!("it is longer than {bytes_max} bytes, the most allowed"))
    } else {
        Ok(text)
    }
}

fn flatten(
    layer: &mut Vec<Given>,
    section: &str,
    table: toml::Table,
    origin: &SettingOrigin,
) -> Result<(), ConfigError> {
    if table.is_empty() && !section.is_empty() {
        layer.push(given(section, Text::EmptySection, origin.clone()));
    }
    for (name, value) in table {
        let key = if section.is_empty() { name } else { format!("{section}.{name}") };
        let text = match value {
            toml::Value::Table(table) => {
                flatten(layer, &key, table, origin)?;
                continue;
            }
            toml::Value::Array(values) => {
                values.into_iter().map(scalar).collect::<Option<_>>().map(Text::Many)
            }
            toml::Value::Boolean(position) => Some(Text::Switch(position)),
            value => scalar(value).map(Text::One),
        };
        let Some(text) = text else {
            let reason = "it must be a text, a number, a switch or a list of texts".to_owned();
            return Err(ConfigError::Invalid { key, origin: origin.clone(), reason });
        };
        layer.push(given(&key, text, origin.clone()));
    }
    Ok(())
}

fn scalar(value: toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Boolean(_)
        | toml::Value::Float(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}

fn given(key: &str, text: Text, origin: SettingOrigin) -> Given {
    Given { key: key.to_owned(), text, origin }
}

/// The prefix of the hub's variables. Variables with one underscore belong to the command line.
const PREFIX: &str = "PORTCULLIS__";
/// The usual short name of `PORTCULLIS__LOG__FILTER`.
const LOG_FILTER: &str = "PORTCULLIS_LOG";
const FILE_BYTES_MAX: u64 = 1024 * 1024;
