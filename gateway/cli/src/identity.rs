//! `device-identity` and `module-identity`: the identities of the registry.
//!
//! The hub decides which identity is valid. The command line only writes down what the operator asks for.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use reqwest::header::HeaderValue;
use serde_json::Value;

use crate::credential::KeyType;
use crate::exit::Failure;
use crate::login::Access;
use crate::output::{Column, OutputArgs, TextArgs, printable, scalar};
use crate::rest::Rest;

mod allowed;
mod authentication;
mod device;
mod export;
mod import;
mod module;
mod pages;
mod properties;
mod queue;
mod renewal;
mod rollback;
mod update;

pub(super) use device::DeviceVerb;
pub(super) use module::ModuleVerb;

/// A device.
#[derive(Args)]
pub(super) struct DeviceArg {
    /// The device
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: DeviceId,
}

/// A module of a device.
#[derive(Args)]
pub(super) struct ModuleArgs {
    #[command(flatten)]
    device: DeviceArg,
    /// The module
    #[arg(short, long, value_name = "ID", value_parser = ModuleId::parse)]
    module_id: ModuleId,
}

#[derive(Args)]
pub(super) struct TopArg {
    /// The highest number of results; -1 for all
    #[arg(long, value_name = "N", default_value = "-1", allow_hyphen_values = true, value_parser = parse_top)]
    top: u64,
}

#[derive(Args)]
pub(super) struct DeleteArgs {
    /// Continue only if the identity still has this etag
    #[arg(short, long, default_value = "*")]
    etag: String,
    /// Do not ask first; without a terminal there is no question
    #[arg(short, long)]
    yes: bool,
}

#[derive(Args)]
pub(super) struct CredentialArgs {
    /// Which of the two keys
    #[arg(long, visible_alias = "kt", value_enum, default_value = "primary")]
    key_type: KeyType,
    #[command(flatten)]
    output: TextArgs,
}

impl DeviceArg {
    fn id(&self) -> IdentityId {
        IdentityId::device(self.device_id.clone())
    }
}

impl ModuleArgs {
    fn id(&self) -> IdentityId {
        IdentityId::module(self.device.device_id.clone(), self.module_id.clone())
    }
}

/// The path of an identity in REST.
pub(super) fn path(id: &IdentityId) -> Vec<&str> {
    match &id.module {
        None => vec!["devices", id.device.as_str()],
        Some(module) => vec!["devices", id.device.as_str(), "modules", module.as_str()],
    }
}

async fn create(
    access: &Access,
    id: &IdentityId,
    body: &Value,
    output: &OutputArgs,
    columns: &[Column],
) -> Result<(), Failure> {
    let rest = Rest::new(access.login()?)?;
    output.print(&rest.create(&path(id), body).await?, columns)
}

async fn show(
    access: &Access,
    id: &IdentityId,
    output: &OutputArgs,
    columns: &[Column],
) -> Result<(), Failure> {
    let rest = Rest::new(access.login()?)?;
    let found = rest.get(&path(id), &[]).await;
    // An operator who looks up an identity next asks why it was last refused, registered or not.
    if let Ok(connections) = rest.get(&connections_path(id), &[]).await
        && let Some(line) = last_refusal(&connections)
    {
        eprintln!("{line}");
    }
    let found = found?;
    if let Some(line) = weak_thumbprint(&found) {
        eprintln!("{line}");
    }
    output.print(&found, columns)
}

/// Reads an identity, changes it and writes it back. Fails if somebody else changed it in between.
///
/// A given etag replaces the one that was read; `*` overwrites any version.
async fn change(
    rest: &Rest,
    id: &IdentityId,
    etag: Option<&str>,
    change: impl FnOnce(&mut Value) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let mut identity = rest.get(&path(id), &[]).await?;
    let read = scalar(&identity, "/etag");
    let etag = etag.filter(|etag| !etag.is_empty()).unwrap_or(&read);
    if etag.is_empty() {
        return Err(Failure::error(format!(
            "the hub's answer for {id} has no etag, so the change cannot be made safely"
        )));
    }
    let if_match = if_match(etag)?;
    change(&mut identity)?;
    rest.replace(&path(id), &identity, if_match).await
}

/// The path of an identity's connections in REST.
pub(super) fn connections_path(id: &IdentityId) -> Vec<&str> {
    [&["api", "v1"][..], &path(id), &["connections"]].concat()
}

/// The last refusal as text, if there is one.
fn last_refusal(connections: &Value) -> Option<String> {
    let refusal = connections.get("lastRefusal").filter(|refusal| refusal.is_object())?;
    let text = |pointer: &str| printable(&scalar(refusal, pointer));
    let (time, peer, count, reason) = (text("/time"), text("/peer"), text("/count"), text("/reason"));
    Some(format!(
        "note: last refused at {time} from {peer}, {count} time(s) in all: {reason} (run `portcullis why` for details)"
    ))
}

/// A warning about thumbprints that can be forged, if one is registered.
fn weak_thumbprint(identity: &Value) -> Option<String> {
    let of = |name: &str| scalar(identity, &format!("/authentication/x509Thumbprint/{name}"));
    let names = ["primaryThumbprint", "secondaryThumbprint"].into_iter();
    let weak: Vec<_> = names.filter(|name| of(name).len() == SHA1_DIGITS).collect();
    (!weak.is_empty()).then(|| {
        let weak = weak.join(" and ");
        format!(
            "note: {weak} is SHA-1, which can be forged; `portcullis cert thumbprint FILE` prints SHA-256"
        )
    })
}

async fn delete(access: &Access, id: &IdentityId, confirmation: &DeleteArgs) -> Result<(), Failure> {
    let if_match = if_match(&confirmation.etag)?;
    let rest = Rest::new(access.login()?)?;
    if !confirmation.yes && !is_confirmed(&format!("Delete {id} and the messages that wait for it?")) {
        return Err(Failure::error(format!("{id} was not deleted, because you did not confirm it")));
    }
    rest.delete(&path(id), Some(if_match)).await
}

/// Asks the user at the terminal. Without a terminal it asks nothing and returns true.
pub(super) fn is_confirmed(question: &str) -> bool {
    if !io::stdin().is_terminal() {
        return true;
    }
    eprint!("{question} [y/N] ");
    // Without a question to be seen there is no answer, which means no.
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// An If-Match value: `*` unchanged, any other etag in quotation marks.
fn if_match(etag: &str) -> Result<HeaderValue, Failure> {
    let bare = etag.trim_matches('"');
    let text = if matches!(bare, "*" | "") { "*".to_owned() } else { format!("\"{bare}\"") };
    HeaderValue::from_str(&text)
        .map_err(|_| Failure::usage("--etag: this is not an etag; `show` prints the present one"))
}

fn parse_top(text: &str) -> Result<u64, String> {
    match text.parse::<i64>() {
        Ok(-1) => Ok(u64::MAX),
        Ok(top) if top >= 1 => Ok(top.unsigned_abs()),
        _ => Err("expected -1 or a number from 1 on".into()),
    }
}

/// The columns for devices and modules in one list.
const RENEWED_COLUMNS: &[Column] = &[
    ("Device Id", |identity| scalar(identity, "/deviceId")),
    ("Module Id", |identity| scalar(identity, "/moduleId")),
    ("Authentication", |identity| scalar(identity, "/authentication/type")),
    ("Etag", |identity| scalar(identity, "/etag")),
];

pub(super) const DEVICE_EXAMPLES: &str = "\
Examples:
  portcullis device-identity create -d pump-7
  portcullis device-identity list -o table
  portcullis device-identity update -d pump-7 --status disabled
  portcullis device-identity renew-key -d pump-7 --kt primary
  portcullis device-identity connection-string show -d pump-7

`portcullis device-identity VERB --help` explains each verb.";
pub(super) const MODULE_EXAMPLES: &str = "\
Examples:
  portcullis module-identity create -d pump-7 -m camera
  portcullis module-identity list -d pump-7 -o table
  portcullis module-identity renew-key -d pump-7 -m camera --kt secondary
  portcullis module-identity connection-string show -d pump-7 -m camera

`portcullis module-identity VERB --help` explains each verb.";

const SHA1_DIGITS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t401_a_sha_1_thumbprint_is_flagged() {
        let with = |primary: &str| {
            let thumbprints =
                serde_json::json!({ "primaryThumbprint": primary, "secondaryThumbprint": null });
            serde_json::json!({ "authentication": { "x509Thumbprint": thumbprints } })
        };
        assert!(weak_thumbprint(&with(&"A".repeat(40))).unwrap().contains("primaryThumbprint is SHA-1"));
        assert_eq!(weak_thumbprint(&with(&"A".repeat(64))), None);
        assert_eq!(weak_thumbprint(&serde_json::json!({})), None);
    }

    #[test]
    fn t705_a_tag_is_sent_in_quotation_marks_and_a_star_without() {
        for (given, sent) in
            [("*", "*"), ("\"*\"", "*"), ("", "*"), ("AAA=", "\"AAA=\""), ("\"AAA=\"", "\"AAA=\"")]
        {
            assert_eq!(if_match(given).unwrap(), sent, "{given}");
        }
        assert!(if_match("a\nb").is_err());
    }

    #[test]
    fn top_is_minus_one_or_a_number_from_one_on() {
        assert_eq!(parse_top("-1"), Ok(u64::MAX));
        assert_eq!(parse_top("7"), Ok(7));
        assert_eq!(parse_top("5000"), Ok(5000));
        for bad in ["0", "-2", "x", ""] {
            assert!(parse_top(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_modules_path_is_under_its_device() {
        let id = IdentityId::module(DeviceId::parse("d").unwrap(), ModuleId::parse("m").unwrap());
        assert_eq!(path(&id), ["devices", "d", "modules", "m"]);
    }
}
