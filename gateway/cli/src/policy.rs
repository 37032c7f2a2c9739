//! `policy`: shared access policies, with which services and operators sign in.
//!
//! Tables show keys only on request, because other people may see a screen.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::identity::is_confirmed;
use crate::login::{Access, read_secret};
use crate::output::{Column, OutputArgs, scalar};
use crate::rest::Rest;

/// Verbs on shared access policies.
#[derive(Subcommand)]
pub(super) enum PolicyVerb {
    /// Print every policy
    List {
        #[command(flatten)]
        keys: ShowKeysArg,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Print a policy
    Show {
        #[command(flatten)]
        policy: NameArg,
        #[command(flatten)]
        keys: ShowKeysArg,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Create a policy; the hub makes its keys unless you give them
    Create {
        #[command(flatten)]
        policy: NameArg,
        /// What it may do
        #[arg(long, visible_alias = "permissions", value_enum, ignore_case = true, required = true, num_args = 1.., value_delimiter = ',')]
        rights: Vec<Right>,
        /// Base64 of 16 to 64 bytes; `@FILE` reads it from a file
        #[arg(long, visible_alias = "pk", value_name = "KEY")]
        primary_key: Option<String>,
        /// As --primary-key
        #[arg(long, visible_alias = "sk", value_name = "KEY")]
        secondary_key: Option<String>,
        #[command(flatten)]
        keys: ShowKeysArg,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Give a policy new keys; the hub refuses an old key from then on
    #[command(visible_alias = "renew-key")]
    Regenerate {
        #[command(flatten)]
        policy: NameArg,
        /// Which key
        #[arg(long, visible_alias = "kt", value_enum)]
        key_type: PolicyRenewal,
        #[command(flatten)]
        keys: ShowKeysArg,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Delete a policy; the built-in ones cannot be deleted
    Delete {
        #[command(flatten)]
        policy: NameArg,
        /// Do not ask first; without a terminal there is no question
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        access: Access,
    },
}

/// Which policy.
#[derive(Args)]
pub(super) struct NameArg {
    /// The policy
    #[arg(short, long, visible_aliases = ["policy-name", "pn"], value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
}

#[derive(Args)]
pub(super) struct ShowKeysArg {
    /// Show the keys in tables too
    #[arg(long)]
    show_keys: bool,
}

/// IoT Hub's names of the rights.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub(super) enum Right {
    RegistryRead,
    RegistryWrite,
    ServiceConnect,
    DeviceConnect,
}

/// Which of the two keys change, and how.
#[derive(Clone, Copy, ValueEnum)]
pub(super) enum PolicyRenewal {
    /// A new primary key
    Primary,
    /// A new secondary key
    Secondary,
    /// Two new keys
    Both,
    /// Swap the two keys
    Swap,
}

impl PolicyVerb {
    pub(super) async fn run(self) -> Result<(), Failure> {
        self.ask().await.map_err(|failure| match failure.exit() {
            Exit::NotFound => failure.with_hint("`portcullis policy list` prints the policies that exist"),
            _ => failure,
        })
    }

    async fn ask(self) -> Result<(), Failure> {
        match self {
            PolicyVerb::List { keys, output, access } => {
                let rest = Rest::new(access.login()?)?;
                keys.print(rest.get(&POLICIES, &[]).await?, &output)
            }
            PolicyVerb::Show { policy, keys, output, access } => {
                let rest = Rest::new(access.login()?)?;
                keys.print(rest.get(&policy.path(), &[]).await?, &output)
            }
            PolicyVerb::Create { policy, rights, primary_key, secondary_key, keys, output, access } => {
                let mut body = json!({ "rights": rights.into_iter().map(word).collect::<Vec<_>>() });
                for (name, given) in [("primaryKey", primary_key), ("secondaryKey", secondary_key)] {
                    if let Some(given) = given.filter(|given| !given.is_empty()) {
                        body[name] = read_secret(&given)?.into();
                    }
                }
                let rest = Rest::new(access.login()?)?;
                keys.print(rest.create(&policy.path(), &body).await?, &output)
            }
            PolicyVerb::Regenerate { policy, key_type, keys, output, access } => {
                let rest = Rest::new(access.login()?)?;
                let path = [&policy.path()[..], &["regenerate"]].concat();
                keys.print(rest.act(&path, &json!({ "key": word(key_type) })).await?, &output)
            }
            PolicyVerb::Delete { policy, yes, access } => {
                let rest = Rest::new(access.login()?)?;
                let question = format!(
                    "Delete the policy {:?}? The hub then refuses every client that signs in with it.",
                    policy.name
                );
                if !yes && !is_confirmed(&question) {
                    return Err(Failure::error("the policy was not deleted, because you did not confirm it"));
                }
                rest.delete(&policy.path(), None).await
            }
        }
    }
}

impl NameArg {
    fn path(&self) -> [&str; 4] {
        let [api, version, policies] = POLICIES;
        [api, version, policies, &self.name]
    }
}

impl ShowKeysArg {
    /// Prints policies. A table has their keys only on request.
    fn print(&self, mut policies: Value, output: &OutputArgs) -> Result<(), Failure> {
        if self.show_keys {
            return output.print(&policies, COLUMNS_WITH_KEYS);
        }
        if output.is_table() {
            // A query could select the keys too.
            match &mut policies {
                Value::Array(policies) => policies.iter_mut().for_each(hide_keys),
                policy => hide_keys(policy),
            }
        }
        output.print(&policies, COLUMNS)
    }
}

fn hide_keys(policy: &mut Value) {
    if let Some(policy) = policy.as_object_mut() {
        policy.remove("primaryKey");
        policy.remove("secondaryKey");
    }
}

/// The name of a choice in the hub's REST interface.
fn word(choice: impl ValueEnum) -> String {
    choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn rights(policy: &Value) -> String {
    let rights = policy.get("rights").and_then(Value::as_array);
    let names = rights.into_iter().flatten().filter_map(Value::as_str);
    names.collect::<Vec<_>>().join(", ")
}

/// Where the hub keeps its policies.
const POLICIES: [&str; 3] = ["api", "v1", "policies"];
const NAME: Column = ("Name", |policy| scalar(policy, "/name"));
const RIGHTS: Column = ("Rights", rights);
const BUILT_IN: Column = ("Built In", |policy| scalar(policy, "/builtIn"));
const COLUMNS: &[Column] = &[NAME, RIGHTS, BUILT_IN];
const COLUMNS_WITH_KEYS: &[Column] = &[
    NAME,
    RIGHTS,
    BUILT_IN,
    ("Primary Key", |policy| scalar(policy, "/primaryKey")),
    ("Secondary Key", |policy| scalar(policy, "/secondaryKey")),
];
pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis policy list -o table
  portcullis policy create --name dashboard --rights ServiceConnect RegistryRead
  portcullis connection-string show --policy-name dashboard  # configure the dashboard with it
  portcullis policy regenerate --name dashboard --kt secondary
  portcullis policy delete --name dashboard --yes";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_sent_by_the_hubs_names() {
        assert_eq!(word(Right::RegistryRead), "RegistryRead");
        assert_eq!(word(Right::DeviceConnect), "DeviceConnect");
        assert_eq!(word(PolicyRenewal::Swap), "swap");
    }

    #[test]
    fn p12_no_column_shows_a_key_unless_asked() {
        let policy = json!({"name": "n", "rights": ["RegistryRead", "ServiceConnect"], "primaryKey": "PPP", "secondaryKey": "SSS", "builtIn": true});
        let cells = |columns: &[Column]| columns.iter().map(|(_, cell)| cell(&policy)).collect::<Vec<_>>();
        assert_eq!(cells(COLUMNS), ["n", "RegistryRead, ServiceConnect", "true"]);
        assert_eq!(cells(COLUMNS_WITH_KEYS)[3..], ["PPP", "SSS"]);
        let mut hidden = policy.clone();
        hide_keys(&mut hidden);
        assert_eq!(
            hidden,
            json!({"name": "n", "rights": ["RegistryRead", "ServiceConnect"], "builtIn": true})
        );
    }
}
