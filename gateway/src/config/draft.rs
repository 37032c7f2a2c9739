//! A configuration that is being built: each source overrides the defaults, and each key is checked at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use portcullis_registry::credential::SymmetricKey;

use super::limits::LIMITS;
use super::settings::SETTINGS;
use super::source::{Given, SettingOrigin, Text, read_bounded};
use super::{CertificateFiles, Config, ConfigError};

/// A configuration that is being built.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) config: Config,
    pub(super) chain: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl Draft {
    /// Overrides the settings with those of one source.
    pub(super) fn apply(&mut self, layer: Vec<Given>) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for Given { key, text, origin } in layer {
            let key = match canonical(&key) {
                Some(key) => key,
                None if matches!(text, Text::EmptySection) && is_section(&key) => continue,
                None => return Err(unknown(key, origin)),
            };
            // A key and the file that holds the key are the same setting.
            if !seen.insert(key.trim_end_matches(FILE_SUFFIX).to_owned()) {
                return Err(ConfigError::Twice { key, origin });
            }
            self.set(&key, &text).map_err(|reason| ConfigError::Invalid { key, origin, reason })?;
        }
        Ok(())
    }

    /// Sets one setting by its exact key.
    fn set(&mut self, key: &str, text: &Text) -> Result<(), String> {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
            return (setting.set)(self, text);
        }
        if let Some(limit) = LIMITS.iter().find(|limit| key.strip_prefix(LIMITS_PREFIX) == Some(limit.name)) {
            return (limit.set)(&mut self.config.limits, text.one()?);
        }
        self.set_policy_key(key, text.one()?)
    }

    fn set_policy_key(&mut self, key: &str, text: &str) -> Result<(), String> {
        let name_and_field = key.strip_prefix(POLICIES_PREFIX).and_then(|rest| rest.split_once('.'));
        let (name, field) = name_and_field.ok_or("it is not a key of a policy")?;
        let policy = POLICIES
            .into_iter()
            .find(|policy| *policy == name)
            .ok_or("the hub has no built-in policy of this name")?;
        let text = match field.ends_with(FILE_SUFFIX) {
            true => read_bounded(Path::new(text), SECRET_FILE_BYTES_MAX)?,
            false => text.to_owned(),
        };
        let secret = SymmetricKey::parse_base64(text.trim()).map_err(|error| error.to_string())?;
        let keys = self.config.policy_keys.entry(policy).or_default();
        let half = if field.starts_with("primary") { &mut keys.primary } else { &mut keys.secondary };
        *half = Some(secret);
        Ok(())
    }

    /// The configuration, if its settings agree with each other.
    pub(super) fn finish(mut self) -> Result<Config, ConfigError> {
        self.config.certificate = match (self.chain, self.key) {
            (Some(chain), Some(key)) => Some(CertificateFiles { chain, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(ConfigError::HalfACertificate),
        };
        match self.config.limits.contradiction() {
            Some(what) => Err(ConfigError::Contradiction(what)),
            None => Ok(self.config),
        }
    }
}

/// The exact form of a key. Only a policy's name may differ in letter case, because variables are upper-case.
fn canonical(key: &str) -> Option<String> {
    known_keys().find(|known| match known.starts_with(POLICIES_PREFIX) {
        true => known.eq_ignore_ascii_case(key),
        false => known == key,
    })
}

fn is_section(key: &str) -> bool {
    known_keys().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

fn known_keys() -> impl Iterator<Item = String> {
    let settings = SETTINGS.iter().map(|setting| setting.key.to_owned());
    let limits = LIMITS.iter().map(|limit| format!("{LIMITS_PREFIX}{}", limit.name));
    let fields = ["primary_key", "primary_key_file", "secondary_key", "secondary_key_file"];
    let policies = POLICIES
        .iter()
        .flat_map(move |policy| fields.map(|field| format!("{POLICIES_PREFIX}{policy}.{field}")));
    settings.chain(limits).chain(policies)
}

fn unknown(key: String, origin: SettingOrigin) -> ConfigError {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(&known.to_lowercase(), &key);
        let end = strsim::normalized_damerau_levenshtein(&last(known), &last(&key));
        whole.max(end * LAST_PART_WEIGHT)
    };
    let liked =
        known_keys().map(|known| (likeness(&known), known)).filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    let best = liked.max_by(|(one, _), (other, _)| one.total_cmp(other));
    let suggestion = best.map(|(_, known)| origin.spell(&known));
    ConfigError::Unknown { key, origin, suggestion }
}

const LIMITS_PREFIX: &str = "limits.";
const POLICIES_PREFIX: &str = "policies.";
/// The built-in shared access policies.
pub(super) const POLICIES: [&str; 5] =
    ["iothubowner", "service", "device", "registryRead", "registryReadWrite"];
/// The end of a setting's name that gives the file of a secret instead of the secret.
const FILE_SUFFIX: &str = "_file";
const SECRET_FILE_BYTES_MAX: u64 = 4_096;
const LIKENESS_MIN: f64 = 0.7;
/// A match of the last part alone counts less than a match of the whole.
const LAST_PART_WEIGHT: f64 = 0.95;
