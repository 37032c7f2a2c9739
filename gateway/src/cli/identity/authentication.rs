//! The flags that say how an identity will prove itself, and what they come to in a request.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::cli::exit::Failure;
use crate::cli::login::read_secret;

/// How an identity will prove itself.
#[derive(Args)]
pub(in crate::cli) struct AuthenticationArgs {
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

impl AuthenticationArgs {
    /// Adds `authentication` to a request body, with the members that were given and no others.
    pub(super) fn write(&self, body: &mut Value) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

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
}
