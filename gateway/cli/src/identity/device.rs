//! `device-identity`: devices in the registry.

use clap::Subcommand;
use portcullis_registry::id::{DeviceId, IdentityId};
use serde_json::json;

use crate::credential;
use crate::exit::Failure;
use crate::identity::allowed::AllowedArg;
use crate::identity::authentication::AuthenticationArgs;
use crate::identity::export::ExportArgs;
use crate::identity::import::ImportArgs;
use crate::identity::pages::Pages;
use crate::identity::properties::PropertyArgs;
use crate::identity::queue::QueueArg;
use crate::identity::renewal::{self, Renewal, Renewals, Target, renew_one};
use crate::identity::rollback::RollbackArgs;
use crate::identity::update::{UpdateArgs, nothing_to_change};
use crate::identity::{
    CredentialArgs, DeleteArgs, DeviceArg, RENEWED_COLUMNS, TopArg, change, create, delete, export, import,
    is_confirmed, rollback, show,
};
use crate::login::Access;
use crate::output::{Column, OutputArgs, scalar};
use crate::rest::Rest;

/// Verbs on devices.
#[derive(Subcommand)]
pub(crate) enum DeviceVerb {
    /// Register a device; the hub makes its keys unless you give them
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        authentication: AuthenticationArgs,
        #[command(flatten)]
        allowed: AllowedArg,
        #[command(flatten)]
        queue: QueueArg,
        #[command(flatten)]
        properties: PropertyArgs,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Print a device
    Show {
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Print devices in the order of their ids
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        top: TopArg,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Change a device; what you do not name stays as it is
    #[command(after_help = UPDATE_EXAMPLES)]
    Update {
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        properties: PropertyArgs,
        #[command(flatten)]
        update: UpdateArgs,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Give devices new keys, which closes every connection that uses an old key
    #[command(after_help = RENEW_EXAMPLES)]
    RenewKey {
        /// The devices; '*' for all that have keys
        #[arg(short, long, value_name = "ID", num_args = 1.., required = true, value_parser = renewal::parse_device)]
        device_id: Vec<Target<DeviceId>>,
        /// Which key
        #[arg(long, visible_alias = "kt", value_enum)]
        key_type: Renewal,
        /// Renew the keys of their modules too
        #[arg(long, visible_alias = "im")]
        include_modules: bool,
        /// Continue only if the device still has this etag; for a single device
        #[arg(short, long, conflicts_with = "include_modules")]
        etag: Option<String>,
        /// Do not ask before the keys of all devices are renewed; without a terminal there is no question
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Delete a device, its modules and their waiting messages
    Delete {
        #[command(flatten)]
        device: DeviceArg,
        #[command(flatten)]
        confirmation: DeleteArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Apply each line of a file, in the order of the file
    #[command(after_help = import::EXAMPLES)]
    Import {
        #[command(flatten)]
        import: ImportArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Write every device as a line that `import` takes
    #[command(after_help = export::EXAMPLES)]
    Export {
        #[command(flatten)]
        export: ExportArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Undo the changes of an import, by default the last one
    #[command(after_help = rollback::EXAMPLES)]
    Rollback {
        #[command(flatten)]
        rollback: RollbackArgs,
        #[command(flatten)]
        access: Access,
    },
    /// The device's connection string
    #[command(subcommand)]
    ConnectionString(DeviceConnectionStringVerb),
}

#[derive(Subcommand)]
pub(crate) enum DeviceConnectionStringVerb {
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
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            DeviceVerb::Create { device, authentication, allowed, queue, properties, output, access } => {
                let mut body = json!({ "deviceId": device.device_id.as_str() });
                authentication.write(&mut body)?;
                allowed.write(&mut body);
                queue.write(&mut body);
                properties.write(&mut body);
                create(&access, &device.id(), &body, &output, DEVICE_COLUMNS).await
            }
            DeviceVerb::Show { device, output, access } => {
                show(&access, &device.id(), &output, DEVICE_COLUMNS).await
            }
            DeviceVerb::List { top, output, access } => {
                let rest = Rest::new(access.login()?)?;
                let mut pages = Pages::new(&rest, top.top);
                let mut listing = output.list(DEVICE_COLUMNS);
                while let Some(devices) = pages.next().await? {
                    if listing.add(devices)?.is_break() {
                        return Ok(());
                    }
                }
                listing.end()
            }
            DeviceVerb::Update { device, properties, update, output, access } => {
                if properties.is_empty() && update.is_empty() {
                    return Err(nothing_to_change());
                }
                let rest = Rest::new(access.login()?)?;
                let changed = change(&rest, &device.id(), update.etag.as_deref(), |device| {
                    properties.write(device);
                    update.change(device)
                })
                .await?;
                output.print(&changed, DEVICE_COLUMNS)
            }
            DeviceVerb::RenewKey { device_id, key_type, include_modules, etag, yes, output, access } => {
                let rest = Rest::new(access.login()?)?;
                if let ([Target::One(device)], false) = (device_id.as_slice(), include_modules) {
                    let id = IdentityId::device(device.clone());
                    return renew_one(&rest, &id, key_type, etag.as_deref(), &output, DEVICE_COLUMNS).await;
                }
                if etag.is_some() {
                    return Err(Failure::usage("--etag is for a single device"));
                }
                if device_id.contains(&Target::All)
                    && !yes
                    && !is_confirmed("Renew the keys of every device?")
                {
                    return Err(Failure::error("no key was renewed, because you did not confirm it"));
                }
                let mut renewals = Renewals::new(&rest, key_type, &output, RENEWED_COLUMNS);
                for target in device_id {
                    match target {
                        Target::All => renewals.all_devices(include_modules).await?,
                        Target::One(device) => {
                            renewals.one(&IdentityId::device(device.clone())).await?;
                            if include_modules {
                                renewals.all_modules(&device).await?;
                            }
                        }
                    }
                }
                renewals.end()
            }
            DeviceVerb::Delete { device, confirmation, access } => {
                delete(&access, &device.id(), &confirmation).await
            }
            DeviceVerb::Import { import, access } => import.run(&Rest::new(access.login()?)?).await,
            DeviceVerb::Export { export, access } => export.run(&Rest::new(access.login()?)?).await,
            DeviceVerb::Rollback { rollback, access } => rollback.run(&Rest::new(access.login()?)?).await,
            DeviceVerb::ConnectionString(DeviceConnectionStringVerb::Show { device, credential, access }) => {
                credential::show_connection_string(
                    &access,
                    &device.id(),
                    credential.key_type,
                    &credential.output,
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
  portcullis device-identity create -d pump-7 --status disabled --star 'not yet installed'
  portcullis device-identity create -d pump-7 --access telemetry,twin";
const LIST_EXAMPLES: &str = "\
Examples:
  portcullis device-identity list -o table                   # all of them, page by page
  portcullis device-identity list --top 10 -o tsv
  portcullis device-identity list --query \"[?status=='disabled'].deviceId\" -o tsv";
const UPDATE_EXAMPLES: &str = "\
Examples:
  portcullis device-identity update -d pump-7 --status disabled --star 'stolen'
  portcullis device-identity update -d pump-7 --set statusReason=null
  portcullis device-identity update -d pump-7 --access telemetry    # or all, or none
  portcullis device-identity update -d pump-7 --am x509_thumbprint --ptp 5A:0D:…
  portcullis device-identity update -d pump-7 --pk @primary.key --etag '*'";
const RENEW_EXAMPLES: &str = "\
Examples:
  portcullis device-identity renew-key -d pump-7 --kt primary
  portcullis device-identity renew-key -d pump-7 pump-8 --kt both --include-modules
  portcullis device-identity renew-key -d '*' --kt secondary --output none

To renew both keys without downtime: move the device to its secondary key, renew the primary key, move the device back,
and renew the secondary key. If some of several devices fail, the others still get new keys and the exit code is 7.";
