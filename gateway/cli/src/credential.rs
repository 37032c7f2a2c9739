//! `connection-string show` and `generate-sas-token`: the credentials of a device, module or service.

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use portcullis_registry::sas;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::identity::path;
use crate::login::{Access, Login};
use crate::output::{TextArgs, scalar};
use crate::rest::Rest;
use portcullis::iothub::connection_string::{ConnectionString, Secret};

/// Verbs on connection strings.
#[derive(Subcommand)]
pub(super) enum ConnectionStringVerb {
    /// Print the connection string of a shared access policy, a device or a module
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowArgs),
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// A shared access policy; without it and without a device, iothubowner
    #[arg(long, visible_alias = "pn", value_name = "NAME", conflicts_with = "device_id")]
    policy_name: Option<String>,
    /// A device
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: Option<DeviceId>,
    /// A module of the device
    #[arg(short, long, value_name = "ID", requires = "device_id", value_parser = ModuleId::parse)]
    module_id: Option<ModuleId>,
    /// Which of the two keys
    #[arg(long, visible_alias = "kt", value_enum, default_value = "primary")]
    key_type: KeyType,
    #[command(flatten)]
    output: TextArgs,
    #[command(flatten)]
    access: Access,
}

/// `generate-sas-token`.
#[derive(Args)]
pub(super) struct TokenArgs {
    /// Make it for this device, signed with the device's key unless a policy is named
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: Option<DeviceId>,
    /// Make it for this module of the device
    #[arg(short, long, value_name = "ID", requires = "device_id", value_parser = ModuleId::parse)]
    module_id: Option<ModuleId>,
    /// Sign with the key of this shared access policy; without it and without a device, the policy of the login
    #[arg(long, visible_alias = "pn", value_name = "NAME")]
    policy_name: Option<String>,
    /// How many seconds it is valid
    #[arg(long, visible_alias = "du", value_name = "SECONDS", default_value = "3600", value_parser = clap::value_parser!(u32).range(1..))]
    duration: u32,
    /// Which of the two keys
    #[arg(long, visible_alias = "kt", value_enum, default_value = "primary")]
    key_type: KeyType,
    #[command(flatten)]
    output: TextArgs,
    #[command(flatten)]
    access: Access,
}

/// Which of the two keys of an identity or policy.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum KeyType {
    Primary,
    Secondary,
}

impl ConnectionStringVerb {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let ConnectionStringVerb::Show(args) = self;
        match identity(args.device_id, args.module_id) {
            Some(id) => show_connection_string(&args.access, &id, args.key_type, &args.output).await,
            None => {
                let name = args.policy_name.filter(|name| !name.is_empty()).unwrap_or_else(|| OWNER.into());
                show_policy(&args.access, name, args.key_type, &args.output).await
            }
        }
    }
}

impl TokenArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let login = self.access.login()?;
        let expiry = Timestamp::now().as_second() + i64::from(self.duration);
        let policy = self.policy_name.filter(|name| !name.is_empty());
        let token = match (identity(self.device_id, self.module_id), policy) {
            (Some(id), None) => {
                let rest = Rest::new(login)?;
                let key = identity_key(&rest, &id, self.key_type).await?;
                let key = key.ok_or_else(|| {
                    Failure::error(format!("{id} has no key: it signs in with a certificate"))
                })?;
                sas::sign(&resource(&rest.login().host, &id), &key, expiry, None)
            }
            (id, policy) => {
                let policy = policy.unwrap_or_else(|| login.policy.clone());
                let resource = id.map_or_else(|| login.host.clone(), |id| resource(&login.host, &id));
                let key = policy_key(login, &policy, self.key_type).await?;
                sas::sign(&resource, &key, expiry, Some(&policy))
            }
        };
        self.output.print("sas", &token)
    }
}

/// Prints the connection string of a device or module.
pub(super) async fn show_connection_string(
    access: &Access,
    id: &IdentityId,
    key_type: KeyType,
    output: &TextArgs,
) -> Result<(), Failure> {
    check_expressible(id)?;
    let rest = Rest::new(access.login()?)?;
    let secret = match identity_key(&rest, id, key_type).await? {
        Some(key) => Secret::Key { policy: None, key },
        None => Secret::X509,
    };
    let text = ConnectionString::of_identity(&rest.login().host, id, secret);
    output.print("connectionString", &text.to_string())
}

async fn show_policy(
    access: &Access,
    name: String,
    key_type: KeyType,
    output: &TextArgs,
) -> Result<(), Failure> {
    let login = access.login()?;
    let (host, port) = (login.host.clone(), login.https_port);
    let key = policy_key(login, &name, key_type).await?;
    if port != 443 {
        eprintln!(
            "note: this hub serves REST at port {port}; service SDKs that take a port need HostName={host}:{port}"
        );
    }
    let text = ConnectionString::of_policy(&host, &name, &key);
    output.print("connectionString", &text.to_string())
}

/// The key of a policy. The login's own key needs no request.
async fn policy_key(login: Login, name: &str, key_type: KeyType) -> Result<SymmetricKey, Failure> {
    if login.policy == name && key_type == KeyType::Primary {
        return Ok(login.key);
    }
    let rest = Rest::new(login)?;
    let policy = rest.get(&["api", "v1", "policies", name], &[]).await?;
    key_of(&policy, key_type)
}

/// The key of an identity, or none if the identity uses a certificate.
async fn identity_key(
    rest: &Rest,
    id: &IdentityId,
    key_type: KeyType,
) -> Result<Option<SymmetricKey>, Failure> {
    let found = rest.get(&path(id), &[]).await?;
    let authentication = &found["authentication"];
    match scalar(authentication, "/type").as_str() {
        "sas" => key_of(&authentication["symmetricKey"], key_type).map(Some),
        "selfSigned" | "certificateAuthority" => Ok(None),
        other => Err(Failure::new(
            Exit::Error,
            format!("{id} has no credential: its authentication type is {other:?}"),
        )),
    }
}

fn key_of(keys: &Value, key_type: KeyType) -> Result<SymmetricKey, Failure> {
    let text = match key_type {
        KeyType::Primary => scalar(keys, "/primaryKey"),
        KeyType::Secondary => scalar(keys, "/secondaryKey"),
    };
    SymmetricKey::parse_base64(&text)
        .map_err(|error| Failure::error(format!("the key in the hub's answer cannot be read: {error}")))
}

fn identity(device: Option<DeviceId>, module: Option<ModuleId>) -> Option<IdentityId> {
    device.map(|device| IdentityId { device, module })
}

/// The resource that a token for an identity names, decoded.
fn resource(host: &str, id: &IdentityId) -> String {
    format!("{host}/{}", path(id).join("/"))
}

/// An id may hold `;`, but `;` ends a value in a connection string.
fn check_expressible(id: &IdentityId) -> Result<(), Failure> {
    if id.to_string().contains(';') {
        return Err(Failure::error(format!("{id} contains `;`, which a connection string cannot hold")));
    }
    Ok(())
}

/// The policy with every right.
const OWNER: &str = "iothubowner";
pub(super) const SHOW_EXAMPLES: &str = "\
Examples:
  portcullis connection-string show                          # the owner's
  portcullis connection-string show --policy-name service
  portcullis connection-string show --device-id pump-7
  portcullis connection-string show -d pump-7 -m camera -o json";
pub(super) const TOKEN_EXAMPLES: &str = "\
Examples:
  TOKEN=$(portcullis generate-sas-token -d pump-7)           # signs in as the device, for an hour
  portcullis generate-sas-token -d pump-7 --duration 86400
  portcullis generate-sas-token --policy-name service        # for REST: Authorization: <token>";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(device: &str, module: Option<&str>) -> IdentityId {
        let module = module.map(|module| ModuleId::parse(module).unwrap());
        IdentityId { device: DeviceId::parse(device).unwrap(), module }
    }

    #[test]
    fn a_token_is_for_host_and_path() {
        assert_eq!(resource("h", &id("d%1", None)), "h/devices/d%1");
        assert_eq!(resource("h", &id("d", Some("m"))), "h/devices/d/modules/m");
    }

    #[test]
    fn the_key_asked_for_is_taken() {
        let keys =
            json!({"primaryKey": "AAECAwQFBgcICQoLDA0ODw==", "secondaryKey": "Dw4NDAsKCQgHBgUEAwIBAA=="});
        let key = |key_type| key_of(&keys, key_type).unwrap().to_base64().as_str().to_owned();
        assert_eq!(key(KeyType::Primary), "AAECAwQFBgcICQoLDA0ODw==");
        assert_eq!(key(KeyType::Secondary), "Dw4NDAsKCQgHBgUEAwIBAA==");
        assert!(key_of(&json!({}), KeyType::Primary).is_err());
    }

    #[test]
    fn an_id_with_a_semicolon_has_no_connection_string() {
        assert!(check_expressible(&id("a;b", None)).is_err());
        assert!(check_expressible(&id("a=b", Some("m"))).is_ok());
    }
}
