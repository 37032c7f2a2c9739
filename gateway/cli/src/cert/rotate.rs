//! `cert device rotate`: a new thumbprint beside the one in use, and later in its place, so that no connection drops.
//!
//! First `--new FILE` registers the new certificate as secondary; the device changes over when it likes; then
//! `--finish` makes the secondary primary and forgets the old one.

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
    /// The new certificate, PEM: admitted from now on, beside the old one
    #[arg(long, value_name = "FILE", required_unless_present = "finish")]
    new: Option<PathBuf>,
    /// The device uses the new certificate: forget the old one, and close a connection that still rests on it
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
                "{id} does not prove itself by thumbprint; its authentication type is {kind:?}"
            )));
        }
        let thumbprints = rotated(&found["authentication"]["x509Thumbprint"], new.as_deref())?;
        // Only if nobody else changed it meanwhile.
        let etag = HeaderValue::from_str(&format!("\"{}\"", scalar(&found, "/etag")))
            .map_err(|_| Failure::error("the hub's answer has no etag"))?;
        found["authentication"] = json!({ "type": "selfSigned", "x509Thumbprint": thumbprints });
        let changed = rest.replace(&path(&id), &found, etag).await?;
        if self.new.is_some() {
            eprintln!(
                "Both certificates are admitted. When the device uses the new one: \
                 portcullis cert device rotate -d {} --finish",
                id.device
            );
        }
        output::answer(&format!("{:#}\n", changed["authentication"]["x509Thumbprint"]))
    }
}

/// The pair of thumbprints one step on: with `new` as secondary, or with the secondary in the primary's place.
fn rotated(pair: &Value, new: Option<&str>) -> Result<Value, Failure> {
    let (primary, secondary) = (scalar(pair, "/primaryThumbprint"), scalar(pair, "/secondaryThumbprint"));
    match new {
        Some(new) if !secondary.is_empty() && secondary != new && !primary.is_empty() => Err(Failure::error(
            "two thumbprints are registered already: an earlier rotation was not finished",
        )
        .with_hint("--finish forgets the primary one")),
        Some(new) if primary.is_empty() => {
            Ok(json!({ "primaryThumbprint": secondary, "secondaryThumbprint": new }))
        }
        Some(new) => Ok(json!({ "primaryThumbprint": primary, "secondaryThumbprint": new })),
        None if secondary.is_empty() => Err(Failure::error("no new certificate is registered")
            .with_hint("--new FILE registers one beside the one in use")),
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
