//! `module-identity`: modules of devices in the registry.

use clap::Subcommand;
use portcullis_registry::id::{IdentityId, ModuleId};
use serde_json::json;

use crate::credential;
use crate::exit::Failure;
use crate::identity::allowed::AllowedArg;
use crate::identity::authentication::AuthenticationArgs;
use crate::identity::queue::QueueArg;
use crate::identity::renewal::{self, Renewal, Renewals, Target, renew_one};
use crate::identity::update::{UpdateArgs, nothing_to_change};
use crate::identity::{
    CredentialArgs, DeleteArgs, DeviceArg, ModuleArgs, RENEWED_COLUMNS, TopArg, change, create, delete, show,
};
use crate::login::Access;
use crate::output::{Column, OutputArgs, scalar};
use crate::rest::Rest;

/// Verbs on modules.
#[derive(Subcommand)]
pub(crate) enum ModuleVerb {
    /// Register a module under a device; the hub makes its keys unless you give them
    Create {
        #[command(flatten)]
        module: ModuleArgs,
        #[command(flatten)]
        authentication: AuthenticationArgs,
        #[command(flatten)]
        allowed: AllowedArg,
        #[command(flatten)]
        queue: QueueArg,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Print a module
    Show {
        #[command(flatten)]
        module: ModuleArgs,
        #[command(flatten)]
        output: OutputArgs,
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
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Change a module; what you do not name stays as it is
    #[command(after_help = UPDATE_EXAMPLES)]
    Update {
        #[command(flatten)]
        module: ModuleArgs,
        #[command(flatten)]
        update: UpdateArgs,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Give modules of a device new keys, which closes every connection that uses an old key
    #[command(after_help = RENEW_EXAMPLES)]
    RenewKey {
        #[command(flatten)]
        device: DeviceArg,
        /// The modules; '*' for all that have keys
        #[arg(short, long, value_name = "ID", num_args = 1.., required = true, value_parser = renewal::parse_module)]
        module_id: Vec<Target<ModuleId>>,
        /// Which key
        #[arg(long, visible_alias = "kt", value_enum)]
        key_type: Renewal,
        /// Continue only if the module still has this etag; for a single module
        #[arg(short, long)]
        etag: Option<String>,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Delete a module and its waiting messages
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
pub(crate) enum ModuleConnectionStringVerb {
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

impl ModuleVerb {
    pub(crate) async fn run(self) -> Result<(), Failure> {
        match self {
            ModuleVerb::Create { module, authentication, allowed, queue, output, access } => {
                let mut body = json!({ "deviceId": module.device.device_id.as_str(), "moduleId": module.module_id.as_str() });
                authentication.write(&mut body)?;
                allowed.write(&mut body);
                queue.write(&mut body);
                create(&access, &module.id(), &body, &output, MODULE_COLUMNS).await
            }
            ModuleVerb::Show { module, output, access } => {
                show(&access, &module.id(), &output, MODULE_COLUMNS).await
            }
            ModuleVerb::List { device, top, output, access } => {
                let rest = Rest::new(access.login()?)?;
                let mut modules = rest.get(&["devices", device.device_id.as_str(), "modules"], &[]).await?;
                if let Some(modules) = modules.as_array_mut() {
                    modules.truncate(usize::try_from(top.top).unwrap_or(usize::MAX));
                }
                output.print(&modules, MODULE_COLUMNS)
            }
            ModuleVerb::Update { module, update, output, access } => {
                if update.is_empty() {
                    return Err(nothing_to_change());
                }
                let rest = Rest::new(access.login()?)?;
                let etag = update.etag.as_deref();
                let changed = change(&rest, &module.id(), etag, |module| update.change(module)).await?;
                output.print(&changed, MODULE_COLUMNS)
            }
            ModuleVerb::RenewKey { device, module_id, key_type, etag, output, access } => {
                let rest = Rest::new(access.login()?)?;
                let device = device.device_id;
                if let [Target::One(module)] = module_id.as_slice() {
                    let id = IdentityId::module(device, module.clone());
                    return renew_one(&rest, &id, key_type, etag.as_deref(), &output, MODULE_COLUMNS).await;
                }
                if etag.is_some() {
                    return Err(Failure::usage("--etag is for a single module"));
                }
                let mut renewals = Renewals::new(&rest, key_type, &output, RENEWED_COLUMNS);
                for target in module_id {
                    match target {
                        Target::All => renewals.all_modules(&device).await?,
                        Target::One(module) => {
                            renewals.one(&IdentityId::module(device.clone(), module)).await?;
                        }
                    }
                }
                renewals.end()
            }
            ModuleVerb::Delete { module, confirmation, access } => {
                delete(&access, &module.id(), &confirmation).await
            }
            ModuleVerb::ConnectionString(ModuleConnectionStringVerb::Show { module, credential, access }) => {
                credential::show_connection_string(
                    &access,
                    &module.id(),
                    credential.key_type,
                    &credential.output,
                )
                .await
            }
        }
    }
}

const MODULE_COLUMNS: &[Column] = &[
    ("Device Id", |module| scalar(module, "/deviceId")),
    ("Module Id", |module| scalar(module, "/moduleId")),
    ("Connection State", |module| scalar(module, "/connectionState")),
    ("Authentication", |module| scalar(module, "/authentication/type")),
    ("Last Activity Time", |module| scalar(module, "/lastActivityTime")),
];
const UPDATE_EXAMPLES: &str = "\
Examples:
  portcullis module-identity update -d pump-7 -m camera --am x509_ca
  portcullis module-identity update -d pump-7 -m camera --set managedBy=operations
  portcullis module-identity update -d pump-7 -m camera --access 'c2d,methods:diag*'";
const RENEW_EXAMPLES: &str = "\
Examples:
  portcullis module-identity renew-key -d pump-7 -m camera --kt primary
  portcullis module-identity renew-key -d pump-7 -m '*' --kt swap";
