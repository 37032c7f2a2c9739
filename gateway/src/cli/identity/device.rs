//! `device-identity`: devices in the registry.

use clap::Subcommand;
use serde_json::json;

use crate::cli::credential;
use crate::cli::exit::Failure;
use crate::cli::identity::authentication::AuthenticationArgs;
use crate::cli::identity::{
    CredentialArgs, DeleteArgs, DeviceArg, LIST_MAX, OutputArg, StatusArg, TopArg, create, delete, show,
};
use crate::cli::login::Access;
use crate::cli::output::{self, Column, scalar};
use crate::cli::rest::Rest;

/// Verbs on devices.
#[derive(Subcommand)]
pub(in crate::cli) enum DeviceVerb {
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

#[derive(Subcommand)]
pub(in crate::cli) enum DeviceConnectionStringVerb {
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

impl DeviceVerb {
    pub(in crate::cli) async fn run(self) -> Result<(), Failure> {
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

const DEVICE_COLUMNS: &[Column] = &[
    ("Device Id", |device| scalar(device, "/deviceId")),
    ("Status", |device| scalar(device, "/status")),
    ("Connection State", |device| scalar(device, "/connectionState")),
    ("Authentication", |device| scalar(device, "/authentication/type")),
    ("Edge Enabled", |device| scalar(device, "/capabilities/iotEdge")),
    ("Last Activity Time", |device| scalar(device, "/lastActivityTime")),
];
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
