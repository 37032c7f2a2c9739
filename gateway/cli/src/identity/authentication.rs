//! The flags that set how an identity signs in, and the part of a request that they become.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

use crate::exit::Failure;
use crate::login::read_secret;

/// How an identity signs in.
#[derive(Args)]
pub(crate) struct AuthenticationArgs {
    /// How it signs in; without it, thumbprints if they are given, else keys
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

/// az's names of the authentication types.
#[derive(Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum AuthMethod {
    SharedPrivateKey,
    /// A certificate with a registered thumbprint
    X509Thumbprint,
    /// A certificate that an enrolled CA signed
    X509Ca,
}

impl AuthenticationArgs {
    /// Whether all flags are absent.
    pub(super) fn is_empty(&self) -> bool {
        let texts =
            [&self.primary_key, &self.secondary_key, &self.primary_thumbprint, &self.secondary_thumbprint];
        self.auth_method.is_none() && texts.into_iter().all(|text| given(text).is_none())
    }

    /// Adds `authentication` to a request body, with only the members that were given.
    pub(super) fn write(&self, body: &mut Value) -> Result<(), Failure> {
        let mut authentication = Map::new();
        self.lay_over(&mut authentication)?;
        if let Some(method) = self.auth_method {
            authentication.insert("type".into(), method.word().into());
        }
        if !authentication.is_empty() {
            body["authentication"] = authentication.into();
        }
        Ok(())
    }

    /// Changes the `authentication` of an identity that was read. Removes credentials of another type.
    pub(super) fn change(&self, identity: &mut Value) -> Result<(), Failure> {
        let Some(method) = self.auth_method.or_else(|| self.implied()) else { return Ok(()) };
        let mut authentication = match identity.get_mut("authentication").map(Value::take) {
            Some(Value::Object(authentication))
                if authentication.get("type").is_some_and(|kind| kind == method.word()) =>
            {
                authentication
            }
            _ => Map::new(),
        };
        authentication.insert("type".into(), method.word().into());
        self.lay_over(&mut authentication)?;
        identity["authentication"] = authentication.into();
        Ok(())
    }

    /// The type that the given keys or thumbprints belong to.
    fn implied(&self) -> Option<AuthMethod> {
        if given(&self.primary_thumbprint).or(given(&self.secondary_thumbprint)).is_some() {
            return Some(AuthMethod::X509Thumbprint);
        }
        given(&self.primary_key).or(given(&self.secondary_key)).map(|_| AuthMethod::SharedPrivateKey)
    }

    fn lay_over(&self, authentication: &mut Map<String, Value>) -> Result<(), Failure> {
        for (name, text) in [("primaryKey", &self.primary_key), ("secondaryKey", &self.secondary_key)] {
            if let Some(text) = given(text) {
                set_member(authentication, "symmetricKey", name, read_secret(text)?);
            }
        }
        for (name, text) in [
            ("primaryThumbprint", &self.primary_thumbprint),
            ("secondaryThumbprint", &self.secondary_thumbprint),
        ] {
            if let Some(text) = given(text) {
                set_member(authentication, "x509Thumbprint", name, text.to_owned());
            }
        }
        Ok(())
    }
}

impl AuthMethod {
    /// REST's name of the type.
    fn word(self) -> &'static str {
        match self {
            AuthMethod::SharedPrivateKey => "sas",
            AuthMethod::X509Thumbprint => "selfSigned",
            AuthMethod::X509Ca => "certificateAuthority",
        }
    }
}

/// An option with an empty value counts as absent.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn set_member(object: &mut Map<String, Value>, within: &str, name: &str, value: String) {
    let inner = object.entry(within).or_insert_with(|| Map::new().into());
    if !inner.is_object() {
        *inner = Map::new().into();
    }
    inner[name] = value.into();
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
    fn changed(arguments: &AuthenticationArgs, authentication: Value) -> Value {
        let mut identity = json!({"deviceId": "d", "authentication": authentication});
        arguments.change(&mut identity).unwrap();
        identity["authentication"].take()
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_unless_the_method_changes() {
        let keys = json!({"type": "sas", "symmetricKey": {"primaryKey": "A", "secondaryKey": "B"}, "x509Thumbprint": {"primaryThumbprint": null}});
        let certificate = json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB", "secondaryThumbprint": "CD"}});
        let none = arguments();
        assert!(none.is_empty());
        assert_eq!(changed(&none, keys.clone()), keys);
        let primary = AuthenticationArgs { primary_key: Some("C".into()), ..arguments() };
        assert!(!primary.is_empty());
        assert_eq!(
            changed(&primary, keys.clone())["symmetricKey"],
            json!({"primaryKey": "C", "secondaryKey": "B"})
        );
        let thumbprint = AuthenticationArgs { secondary_thumbprint: Some("EF".into()), ..arguments() };
        let expected = json!({"primaryThumbprint": "AB", "secondaryThumbprint": "EF"});
        assert_eq!(changed(&thumbprint, certificate.clone())["x509Thumbprint"], expected);
        let expected = json!({"type": "selfSigned", "x509Thumbprint": {"secondaryThumbprint": "EF"}});
        assert_eq!(changed(&thumbprint, keys.clone()), expected);
        let method = |method| AuthenticationArgs { auth_method: Some(method), ..arguments() };
        assert_eq!(
            changed(&method(AuthMethod::X509Ca), keys.clone()),
            json!({"type": "certificateAuthority"})
        );
        assert_eq!(changed(&method(AuthMethod::SharedPrivateKey), certificate), json!({"type": "sas"}));
        assert_eq!(changed(&method(AuthMethod::SharedPrivateKey), keys.clone()), keys);
    }
}
