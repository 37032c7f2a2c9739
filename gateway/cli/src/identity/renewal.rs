//! `renew-key`: gives one or more identities new keys.

use clap::ValueEnum;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::identity::{change, pages::Pages};
use crate::output::{Column, Listing, OutputArgs, scalar};
use crate::rest::Rest;

/// Which of the two keys change, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Renewal {
    /// A new primary key
    Primary,
    /// A new secondary key
    Secondary,
    /// Two new keys
    Both,
    /// Swap the two keys, which closes no connection
    Swap,
}

/// An id, or a star for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target<I> {
    All,
    One(I),
}

pub(super) fn parse_device(text: &str) -> Result<Target<DeviceId>, String> {
    if text == "*" {
        return Ok(Target::All);
    }
    DeviceId::parse(text).map(Target::One).map_err(|error| error.to_string())
}

pub(super) fn parse_module(text: &str) -> Result<Target<ModuleId>, String> {
    if text == "*" {
        return Ok(Target::All);
    }
    ModuleId::parse(text).map(Target::One).map_err(|error| error.to_string())
}

/// Gives one identity new keys and prints the identity.
pub(super) async fn renew_one(
    rest: &Rest,
    id: &IdentityId,
    renewal: Renewal,
    etag: Option<&str>,
    output: &OutputArgs,
    columns: &[Column],
) -> Result<(), Failure> {
    output.print(&renew(rest, id, renewal, etag).await?, columns)
}

/// New keys for many identities. Prints each identity once it has its keys. Reports failures on standard error.
pub(super) struct Renewals<'a> {
    rest: &'a Rest,
    renewal: Renewal,
    listing: Listing<'a>,
    done: usize,
    failed: usize,
    first_failure: Option<Failure>,
}

impl<'a> Renewals<'a> {
    pub(super) fn new(
        rest: &'a Rest,
        renewal: Renewal,
        output: &'a OutputArgs,
        columns: &'a [Column],
    ) -> Self {
        Self { rest, renewal, listing: output.list(columns), done: 0, failed: 0, first_failure: None }
    }

    /// Every device that has keys.
    pub(super) async fn all_devices(&mut self, with_modules: bool) -> Result<(), Failure> {
        let mut pages = Pages::new(self.rest, u64::MAX);
        while let Some(devices) = pages.next().await? {
            for device in &devices {
                let Ok(id) = DeviceId::parse(&scalar(device, "/deviceId")) else { continue };
                if has_keys(device) {
                    self.one(&IdentityId::device(id.clone())).await?;
                }
                if with_modules {
                    self.all_modules(&id).await?;
                }
            }
        }
        Ok(())
    }

    /// Every module of a device that has keys.
    pub(super) async fn all_modules(&mut self, device: &DeviceId) -> Result<(), Failure> {
        let modules = match self.rest.get(&["devices", device.as_str(), "modules"], &[]).await {
            Ok(modules) => modules,
            Err(failure) => return self.failed(failure),
        };
        for module in modules.as_array().into_iter().flatten().filter(|module| has_keys(module)) {
            let Ok(id) = ModuleId::parse(&scalar(module, "/moduleId")) else { continue };
            self.one(&IdentityId::module(device.clone(), id)).await?;
        }
        Ok(())
    }

    /// Renews the keys of one identity. `Err` when the rest would fail too.
    pub(super) async fn one(&mut self, id: &IdentityId) -> Result<(), Failure> {
        match renew(self.rest, id, self.renewal, None).await {
            Ok(identity) => {
                self.done += 1;
                // The reader may close standard output, but the operator still wants the keys renewed.
                self.listing.add(vec![identity]).map(drop)
            }
            Err(failure) => self.failed(failure),
        }
    }

    /// Ends the list. Fails if any identity failed.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.listing.end()?;
        match (self.first_failure, self.done) {
            (None, _) => Ok(()),
            (Some(failure), 0) => {
                Err(Failure::new(failure.exit(), "no key was renewed; the reason of each identity is above"))
            }
            (Some(_), done) => {
                Err(Failure::new(Exit::Partial, format!("{done} renewed, {} failed", self.failed)))
            }
        }
    }

    fn failed(&mut self, failure: Failure) -> Result<(), Failure> {
        if failure.ends_all() {
            return Err(failure);
        }
        eprintln!("{failure}");
        self.failed += 1;
        self.first_failure.get_or_insert(failure);
        Ok(())
    }
}

async fn renew(rest: &Rest, id: &IdentityId, renewal: Renewal, etag: Option<&str>) -> Result<Value, Failure> {
    change(rest, id, etag, |identity| {
        if !has_keys(identity) {
            let kind = scalar(identity, "/authentication/type");
            return Err(Failure::error(format!(
                "{id} has no keys to renew: its authentication type is {kind}"
            )));
        }
        let keys = &mut identity["authentication"]["symmetricKey"];
        *keys = renewal.of(keys);
        Ok(())
    })
    .await
}

impl Renewal {
    /// The new keys that replace `keys`.
    fn of(self, keys: &Value) -> Value {
        let [primary, secondary] = ["primaryKey", "secondaryKey"].map(|name| keys[name].clone());
        let new = || Value::from(SymmetricKey::generate().to_base64().as_str());
        let (primary, secondary) = match self {
            Renewal::Primary => (new(), secondary),
            Renewal::Secondary => (primary, new()),
            Renewal::Both => (new(), new()),
            Renewal::Swap => (secondary, primary),
        };
        serde_json::json!({ "primaryKey": primary, "secondaryKey": secondary })
    }
}

fn has_keys(identity: &Value) -> bool {
    scalar(identity, "/authentication/type") == "sas"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn t613_only_the_keys_named_are_new() {
        let keys = json!({"primaryKey": "A", "secondaryKey": "B"});
        let of = |renewal: Renewal| {
            let keys = renewal.of(&keys);
            (keys["primaryKey"].clone(), keys["secondaryKey"].clone())
        };
        let is_new =
            |key: &Value| SymmetricKey::parse_base64(key.as_str().unwrap()).unwrap().as_bytes().len() == 32;
        let (primary, secondary) = of(Renewal::Primary);
        assert!(is_new(&primary) && secondary == "B");
        let (primary, secondary) = of(Renewal::Secondary);
        assert!(primary == "A" && is_new(&secondary));
        let (primary, secondary) = of(Renewal::Both);
        assert!(is_new(&primary) && is_new(&secondary) && primary != secondary);
        assert_eq!(of(Renewal::Swap), (json!("B"), json!("A")));
    }

    #[test]
    fn a_star_means_all_and_is_an_id_nowhere_here() {
        assert_eq!(parse_device("*"), Ok(Target::All));
        assert_eq!(parse_device("a*"), Ok(Target::One(DeviceId::parse("a*").unwrap())));
        assert!(parse_device("a/b").is_err());
        assert_eq!(parse_module("*"), Ok(Target::All));
    }
}
