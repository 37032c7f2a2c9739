//! `device-identity` and `module-identity`: the registry, one identity at a time.
//!
//! What is a valid identity is the hub's to say; this only writes down what was asked for.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::{Args, Subcommand, ValueEnum};
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use reqwest::header::HeaderValue;
use serde_json::{Map, Value, json};

use crate::cli::credential::{self, KeyType};
use crate::cli::exit::Failure;
use crate::cli::login::{Access, read_secret};
use crate::cli::output::{self, Column, Format, scalar};
use crate::cli::rest::Rest;

/// Verbs on devices.
#[derive(Subcommand)]
pub(super) enum DeviceVerb {
    /// Register a device; the hub makes its keys unless told otherwise
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        authentication: AuthenticationArgs,
        /// Whether it may connect
        #[arg(long, visible_alias = "sta", value_enum, ignore_case = true)]
        status: Option<StatusArg>,
        /// Why it has that status; up to 128 characters
        #[arg(long, visible_alias = "star", value_name = "TEXT")]
        status_reason: Option<String>,
        /// An IoT Edge device
        #[arg(long, visible_alias = "ee", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
        edge_enabled: Option<bool>,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        access: Access,
    },
    /// Print a device
    Show {
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        access: Access,
    },
    /// Print devices, at most 1,000
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        top: TopArg,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        access: Access,
    },
    /// Delete a device with its modules and the messages that wait for them
    Delete {
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        confirmation: DeleteArgs,
        #[command(flatten)]
        access: Access,
    },
    /// The device's connection string
    #[command(subcommand)]
    ConnectionString(DeviceConnectionStringVerb),
}

/// Verbs on modules.
#[derive(Subcommand)]
pub(super) enum ModuleVerb {
    /// Register a module under a device; the hub makes its keys unless told otherwise
    Create {
        #[command(flatten)]
        module: ModuleArgs,
        #[command(flatten)]
        authentication: AuthenticationArgs,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        access: Access,
    },
    /// Print a module
    Show {
        #[command(flatten)]
        module: ModuleArgs,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        access: Access,
    },
    /// Print the modules of a device
    List {
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        top: TopArg,
        #[command(flatten)]
        output: OutputArg,
        #[command(flatten)]
        access: Access,
    },
    /// Delete a module and the messages that wait for it
    Delete {
        #[command(flatten)]
        module: ModuleArgs,
        #[command(flatten)]
        confirmation: DeleteArgs,
        #[command(flatten)]
        access: Access,
    },
    /// The module's connection string
    #[command(subcommand)]
    ConnectionString(ModuleConnectionStringVerb),
}

#[derive(Subcommand)]
pub(super) enum DeviceConnectionStringVerb {
    /// Print it
    Show {
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        credential: CredentialArgs,
        #[command(flatten)]
        access: Access,
    },
}

#[derive(Subcommand)]
pub(super) enum ModuleConnectionStringVerb {
    /// Print it
    Show {
        #[command(flatten)]
        module: ModuleArgs,
        #[command(flatten)]
        credential: CredentialArgs,
        #[command(flatten)]
        access: Access,
    },
}

/// Which device.
#[derive(Args)]
pub(super) struct DeviceArg {
    /// The device
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: DeviceId,
}

/// Which module of which device.
#[derive(Args)]
pub(super) struct ModuleArgs {
    #[command(flatten)]
    device: DeviceArg,
    /// The module
    #[arg(short, long, value_name = "ID", value_parser = ModuleId::parse)]
    module_id: ModuleId,
}

/// How an identity will prove itself.
#[derive(Args)]
pub(super) struct AuthenticationArgs {
    /// How it proves itself; without it, by what is given: thumbprints, else keys
    #[arg(long, visible_alias = "am", value_enum)]
    auth_method: Option<AuthMethod>,
    /// Base64 of 16 to 64 bytes, both keys or neither; `@FILE` reads it from a file
    #[arg(long, visible_alias = "pk", value_name = "KEY")]
    primary_key: Option<String>,
    /// As --primary-key
    #[arg(long, visible_alias = "sk", value_name = "KEY")]
    secondary_key: Option<String>,
    /// SHA-1 or SHA-256 of the certificate, in hex
    #[arg(long, visible_alias = "ptp", value_name = "HEX")]
    primary_thumbprint: Option<String>,
    /// As --primary-thumbprint
    #[arg(long, visible_alias = "stp", value_name = "HEX")]
    secondary_thumbprint: Option<String>,
}

/// az's words for the authentication types.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum AuthMethod {
    SharedPrivateKey,
    /// A certificate known by its thumbprint
    X509Thumbprint,
    /// A certificate of an enrolled CA
    X509Ca,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum StatusArg {
    Enabled,
    Disabled,
}

#[derive(Args)]
pub(super) struct TopArg {
    /// How many at most; -1 for as many as the hub lists
    #[arg(long, value_name = "N", default_value = "-1", allow_hyphen_values = true, value_parser = parse_top)]
    top: usize,
}

#[derive(Args)]
pub(super) struct OutputArg {
    /// How to print
    #[arg(short, long, value_enum, default_value = "json")]
    output: Format,
}

#[derive(Args)]
pub(super) struct DeleteArgs {
    /// Only if it still is the version with this etag
    #[arg(short, long, default_value = "*")]
    etag: String,
    /// Do not ask first; nothing is asked where no terminal is
    #[arg(short, long)]
    yes: bool,
}

#[derive(Args)]
pub(super) struct CredentialArgs {
    /// Which of the two keys
    #[arg(long, visible_alias = "kt", value_enum, default_value = "primary")]
    key_type: KeyType,
    /// How to print; without it the bare text
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

impl DeviceVerb {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            DeviceVerb::Create {
                device,
                authentication,
                status,
                status_reason,
                edge_enabled,
                output,
                access,
            } => {
                let mut body = json!({ "deviceId": device.device_id.as_str() });
                authentication.write(&mut body)?;
                if let Some(status) = status {
                    body["status"] = status.word().into();
                }
                if let Some(reason) = status_reason.filter(|reason| !reason.is_empty()) {
                    body["statusReason"] = reason.into();
                }
                if let Some(iot_edge) = edge_enabled {
                    body["capabilities"] = json!({ "iotEdge": iot_edge });
                }
                create(&access, &device.id(), &body, output.output, DEVICE_COLUMNS).await
            }
            DeviceVerb::Show { device, output, access } => {
                show(&access, &device.id(), output.output, DEVICE_COLUMNS).await
            }
            DeviceVerb::List { top, output, access } => {
                let rest = Rest::new(access.login()?)?;
                let devices = rest.get(&["devices"], &[("top", &top.top.to_string())]).await?;
                if devices.as_array().is_some_and(|devices| devices.len() == LIST_MAX) {
                    eprintln!("note: the hub lists at most {LIST_MAX} devices; there may be more");
                }
                output::print(&devices, output.output, DEVICE_COLUMNS)
            }
            DeviceVerb::Delete { device, confirmation, access } => {
                delete(&access, &device.id(), &confirmation).await
            }
            DeviceVerb::ConnectionString(DeviceConnectionStringVerb::Show { device, credential, access }) => {
                credential::show_connection_string(
                    &access,
                    &device.id(),
                    credential.key_type,
                    credential.output,
                )
                .await
            }
        }
    }
}

impl ModuleVerb {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            ModuleVerb::Create { module, authentication, output, access } => {
                let mut body = json!({ "deviceId": module.device.device_id.as_str(), "moduleId": module.module_id.as_str() });
                authentication.write(&mut body)?;
                create(&access, &module.id(), &body, output.output, MODULE_COLUMNS).await
            }
            ModuleVerb::Show { module, output, access } => {
                show(&access, &module.id(), output.output, MODULE_COLUMNS).await
            }
            ModuleVerb::List { device, top, output, access } => {
                let rest = Rest::new(access.login()?)?;
                let mut modules = rest.get(&["devices", device.device_id.as_str(), "modules"], &[]).await?;
                if let Some(modules) = modules.as_array_mut() {
                    modules.truncate(top.top);
                }
                output::print(&modules, output.output, MODULE_COLUMNS)
            }
            ModuleVerb::Delete { module, confirmation, access } => {
                delete(&access, &module.id(), &confirmation).await
            }
            ModuleVerb::ConnectionString(ModuleConnectionStringVerb::Show { module, credential, access }) => {
                credential::show_connection_string(
                    &access,
                    &module.id(),
                    credential.key_type,
                    credential.output,
                )
                .await
            }
        }
    }
}

impl DeviceArg {
    fn id(&self) -> IdentityId {
        IdentityId::device(self.device_id.clone())
    }
}

impl ModuleArgs {
    fn id(&self) -> IdentityId {
        IdentityId::module(self.device.device_id.clone(), self.module_id.clone())
    }
}

impl StatusArg {
    fn word(self) -> &'static str {
        match self {
            StatusArg::Enabled => "enabled",
            StatusArg::Disabled => "disabled",
        }
    }
}

impl AuthenticationArgs {
    /// Adds `authentication` to a request body, with the members that were given and no others.
    fn write(&self, body: &mut Value) -> Result<(), Failure> {
        let mut authentication = Map::new();
        let mut keys = Map::new();
        for (name, given) in [("primaryKey", &self.primary_key), ("secondaryKey", &self.secondary_key)] {
            if let Some(given) = given.as_deref().filter(|given| !given.is_empty()) {
                keys.insert(name.into(), read_secret(given)?.into());
            }
        }
        let mut thumbprints = Map::new();
        for (name, given) in [
            ("primaryThumbprint", &self.primary_thumbprint),
            ("secondaryThumbprint", &self.secondary_thumbprint),
        ] {
            if let Some(given) = given.as_deref().filter(|given| !given.is_empty()) {
                thumbprints.insert(name.into(), given.into());
            }
        }
        if !keys.is_empty() {
            authentication.insert("symmetricKey".into(), keys.into());
        }
        if !thumbprints.is_empty() {
            authentication.insert("x509Thumbprint".into(), thumbprints.into());
        }
        if let Some(method) = self.auth_method {
            let word = match method {
                AuthMethod::SharedPrivateKey => "sas",
                AuthMethod::X509Thumbprint => "selfSigned",
                AuthMethod::X509Ca => "certificateAuthority",
            };
            authentication.insert("type".into(), word.into());
        }
        if !authentication.is_empty() {
            body["authentication"] = authentication.into();
        }
        Ok(())
    }
}

/// Where REST keeps an identity.
pub(super) fn path(id: &IdentityId) -> Vec<&str> {
    match &id.module {
        None => vec!["devices", id.device.as_str()],
        Some(module) => vec!["devices", id.device.as_str(), "modules", module.as_str()],
    }
}

async fn create(
    access: &Access,
    id: &IdentityId,
    body: &Value,
    format: Format,
    columns: &[Column],
) -> Result<(), Failure> {
    let rest = Rest::new(access.login()?)?;
    output::print(&rest.create(&path(id), body).await?, format, columns)
}

async fn show(access: &Access, id: &IdentityId, format: Format, columns: &[Column]) -> Result<(), Failure> {
    let rest = Rest::new(access.login()?)?;
    let found = rest.get(&path(id), &[]).await;
    // Whether it is registered or not, why it was last refused is what an operator asks next.
    if let Ok(connections) = rest.get(&connections_path(id), &[]).await
        && let Some(line) = last_refusal(&connections)
    {
        eprintln!("{line}");
    }
    output::print(&found?, format, columns)
}

/// Where REST tells how an identity's connections went.
fn connections_path(id: &IdentityId) -> Vec<&str> {
    [&["api", "v1"][..], &path(id), &["connections"]].concat()
}

/// The last refusal in words, if there was one.
fn last_refusal(connections: &Value) -> Option<String> {
    let refusal = connections.get("lastRefusal").filter(|refusal| refusal.is_object())?;
    let text = |pointer: &str| output::printable(&scalar(refusal, pointer));
    let (time, peer, count, reason) = (text("/time"), text("/peer"), text("/count"), text("/reason"));
    Some(format!("note: last refused at {time} from {peer}, {count} time(s) in all: {reason}"))
}

async fn delete(access: &Access, id: &IdentityId, confirmation: &DeleteArgs) -> Result<(), Failure> {
    let if_match = if_match(&confirmation.etag)?;
    let rest = Rest::new(access.login()?)?;
    if !confirmation.yes && io::stdin().is_terminal() && !is_confirmed(id) {
        return Err(Failure::error("not deleted"));
    }
    rest.delete(&path(id), if_match).await
}

/// Asks whoever sits at the terminal.
fn is_confirmed(id: &IdentityId) -> bool {
    eprint!("Delete {id} and the messages that wait for it? [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// The star as it is, a tag in quotation marks.
fn if_match(etag: &str) -> Result<HeaderValue, Failure> {
    let bare = etag.trim_matches('"');
    let text = if matches!(bare, "*" | "") { "*".to_owned() } else { format!("\"{bare}\"") };
    HeaderValue::from_str(&text).map_err(|_| Failure::usage("--etag: not an etag"))
}

fn parse_top(text: &str) -> Result<usize, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(LIST_MAX),
        Ok(top) if top >= 1 => Ok(usize::try_from(top).unwrap_or(LIST_MAX).min(LIST_MAX)),
        _ => Err("expected -1 or a number from 1 on".into()),
    }
}

const DEVICE_COLUMNS: &[Column] = &[
    ("Device Id", |device| scalar(device, "/deviceId")),
    ("Status", |device| scalar(device, "/status")),
    ("Connection State", |device| scalar(device, "/connectionState")),
    ("Authentication", |device| scalar(device, "/authentication/type")),
    ("Edge Enabled", |device| scalar(device, "/capabilities/iotEdge")),
    ("Last Activity Time", |device| scalar(device, "/lastActivityTime")),
];
const MODULE_COLUMNS: &[Column] = &[
    ("Device Id", |module| scalar(module, "/deviceId")),
    ("Module Id", |module| scalar(module, "/moduleId")),
    ("Connection State", |module| scalar(module, "/connectionState")),
    ("Authentication", |module| scalar(module, "/authentication/type")),
    ("Last Activity Time", |module| scalar(module, "/lastActivityTime")),
];
/// IoT Hub lists at most this many identities at once.
const LIST_MAX: usize = 1000;
const CREATE_EXAMPLES: &str = "\
Examples:
  portcullis device-identity create -d pump-7
  portcullis device-identity create -d pump-7 --pk @primary.key --sk @secondary.key
  portcullis device-identity create -d pump-7 --am x509_thumbprint --ptp 5A:0D:…
  portcullis device-identity create -d pump-7 --status disabled --star 'not yet installed'";
const LIST_EXAMPLES: &str = "\
Examples:
  portcullis device-identity list -o table
  portcullis device-identity list --top 10 -o tsv";

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> AuthenticationArgs {
        AuthenticationArgs {
            auth_method: None,
            primary_key: None,
            secondary_key: None,
            primary_thumbprint: None,
            secondary_thumbprint: None,
        }
    }

    fn written(arguments: &AuthenticationArgs) -> Value {
        let mut body = json!({});
        arguments.write(&mut body).unwrap();
        body
    }

    #[test]
    fn only_what_was_given_is_asked_for() {
        assert_eq!(written(&arguments()), json!({}));
        let empty = AuthenticationArgs { primary_key: Some(String::new()), ..arguments() };
        assert_eq!(written(&empty), json!({}));
        let keys = AuthenticationArgs {
            primary_key: Some("A".into()),
            secondary_key: Some("B".into()),
            ..arguments()
        };
        assert_eq!(
            written(&keys),
            json!({"authentication": {"symmetricKey": {"primaryKey": "A", "secondaryKey": "B"}}})
        );
        let thumbprint = AuthenticationArgs {
            auth_method: Some(AuthMethod::X509Thumbprint),
            primary_thumbprint: Some("AB".into()),
            ..arguments()
        };
        let expected = json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB"}});
        assert_eq!(written(&thumbprint), json!({ "authentication": expected }));
    }

    #[test]
    fn t705_a_tag_is_sent_in_quotation_marks_and_a_star_without() {
        for (given, sent) in
            [("*", "*"), ("\"*\"", "*"), ("", "*"), ("AAA=", "\"AAA=\""), ("\"AAA=\"", "\"AAA=\"")]
        {
            assert_eq!(if_match(given).unwrap(), sent, "{given}");
        }
        assert!(if_match("a\nb").is_err());
    }

    #[test]
    fn top_is_minus_one_or_a_number_from_one_on() {
        assert_eq!(parse_top("-1"), Ok(1000));
        assert_eq!(parse_top("7"), Ok(7));
        assert_eq!(parse_top("5000"), Ok(1000));
        for bad in ["0", "-2", "x", ""] {
            assert!(parse_top(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_modules_path_is_under_its_device() {
        let id = IdentityId::module(DeviceId::parse("d").unwrap(), ModuleId::parse("m").unwrap());
        assert_eq!(path(&id), ["devices", "d", "modules", "m"]);
    }
}
