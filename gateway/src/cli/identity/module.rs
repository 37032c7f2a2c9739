//! `module-identity`: modules of devices in the registry.

use clap::Subcommand;
use serde_json::json;

use crate::cli::credential;
use crate::cli::exit::Failure;
use crate::cli::identity::authentication::AuthenticationArgs;
use crate::cli::identity::{
    CredentialArgs, DeleteArgs, DeviceArg, ModuleArgs, OutputArg, TopArg, create, delete, show,
};
use crate::cli::login::Access;
use crate::cli::output::{self, Column, scalar};
use crate::cli::rest::Rest;

/// Verbs on modules.
#[derive(Subcommand)]
pub(in crate::cli) enum ModuleVerb {
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
pub(in crate::cli) enum ModuleConnectionStringVerb {
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
    pub(in crate::cli) async fn run(self) -> Result<(), Failure> {
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

const MODULE_COLUMNS: &[Column] = &[
    ("Device Id", |module| scalar(module, "/deviceId")),
    ("Module Id", |module| scalar(module, "/moduleId")),
    ("Connection State", |module| scalar(module, "/connectionState")),
    ("Authentication", |module| scalar(module, "/authentication/type")),
    ("Last Activity Time", |module| scalar(module, "/lastActivityTime")),
];
