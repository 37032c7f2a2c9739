//! `cert device rotate`: registers a new thumbprint beside the old one, and later in its place. No connection drops.
//!
//! First `--new FILE` registers the new certificate as secondary. Then the device changes over. Last, `--finish` makes
//! the secondary certificate primary and removes the old one.

use std::path::PathBuf;

use clap::Args;
use portcullis_certs::thumbprint::Thumbprints;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use super::{IdentityArgs, read_chain};
use crate::exit::Failure;
use crate::identity::path;
use crate::login::Access;
use crate::output::{self, scalar};
use crate::rest::Rest;

#[derive(Args)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The new certificate, PEM; the hub admits it from now on, beside the old one
    #[arg(long, value_name = "FILE", required_unless_present = "finish")]
    new: Option<PathBuf>,
    /// Remove the old certificate and close a connection that still uses it, once the device uses the new one
    #[arg(long, conflicts_with = "new")]
    finish: bool,
    #[command(flatten)]
    access: Access,
}

impl RotateArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let new = match &self.new {
            Some(file) => Some(Thumbprints::of(&read_chain(file)?.1[0]).sha256.to_string()),
            None => None,
        };
        let id = self.identity.id();
        let rest = Rest::new(self.access.login()?)?;
        let mut found = rest.get(&path(&id), &[]).await?;
        let kind = scalar(&found, "/authentication/type");
        if kind != "selfSigned" {
            return Err(Failure::error(format!(
                "{id} does not use thumbprints; its authentication type is {kind:?}"
            )));
        }
        let thumbprints = rotated(&found["authentication"]["x509Thumbprint"], new.as_deref())?;
        // The write fails if another operator has changed the identity since the read.
        let etag = HeaderValue::from_str(&format!("\"{}\"", scalar(&found, "/etag"))).map_err(|_| {
            Failure::error("the hub's answer has no etag, so the change cannot be made safely")
        })?;
        found["authentication"] = json!({ "type": "selfSigned", "x509Thumbprint": thumbprints });
        let changed = rest.replace(&path(&id), &found, etag).await?;
        if self.new.is_some() {
            eprintln!(
                "The hub admits both certificates. Once the device uses the new one: \
                 portcullis cert device rotate -d {} --finish",
                id.device
            );
        }
        output::answer(&format!("{:#}\n", changed["authentication"]["x509Thumbprint"]))
    }
}

/// The next pair of thumbprints: `new` becomes secondary, or without `new` the secondary becomes primary.
fn rotated(pair: &Value, new: Option<&str>) -> Result<Value, Failure> {
    let (primary, secondary) = (scalar(pair, "/primaryThumbprint"), scalar(pair, "/secondaryThumbprint"));
    match new {
        Some(new) if !secondary.is_empty() && secondary != new && !primary.is_empty() => {
            Err(Failure::error("two thumbprints are registered already: an earlier rotation is not finished")
                .with_hint("--finish removes the primary one"))
        }
        Some(new) if primary.is_empty() => {
            Ok(json!({ "primaryThumbprint": secondary, "secondaryThumbprint": new }))
        }
        Some(new) => Ok(json!({ "primaryThumbprint": primary, "secondaryThumbprint": new })),
        None if secondary.is_empty() => Err(Failure::error("no new certificate is registered")
            .with_hint("--new FILE registers one beside the old one")),
        None => Ok(json!({ "primaryThumbprint": secondary, "secondaryThumbprint": null })),
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis cert device issue -d pump-7 --self-signed --name pump-7-2027
  portcullis cert device rotate -d pump-7 --new pump-7-2027.pem
  portcullis cert device rotate -d pump-7 --finish           # once the device uses the new one";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_always_registered_that_the_device_has() {
        let pair = |primary: Option<&str>, secondary: Option<&str>| json!({ "primaryThumbprint": primary, "secondaryThumbprint": secondary });
        let begun = rotated(&pair(Some("A"), None), Some("B")).unwrap();
        assert_eq!(begun, pair(Some("A"), Some("B")));
        // Twice the same step changes nothing.
        assert_eq!(rotated(&begun, Some("B")).unwrap(), begun);
        assert!(rotated(&begun, Some("C")).is_err());
        let finished = rotated(&begun, None).unwrap();
        assert_eq!(finished, pair(Some("B"), None));
        assert!(rotated(&finished, None).is_err());
        assert_eq!(rotated(&pair(None, Some("A")), Some("B")).unwrap(), pair(Some("A"), Some("B")));
    }
}
