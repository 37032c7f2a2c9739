//! The look-up of a host's IP addresses. It happens once, and every address is checked.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::{Reach, reach};
use crate::blob::container::ContainerError;
use crate::config::blob_host::Host;

/// Finds a host's addresses.
pub trait Lookup: Send + Sync {
    /// Every address of a host.
    fn lookup(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The look-up of the operating system.
pub(super) struct System;

impl Lookup for System {
    fn lookup(&self, host: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let host = host.to_owned();
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The addresses of one host, looked up once and checked. Connections go only to these.
pub(super) struct Checked {
    host: String,
    addresses: Vec<IpAddr>,
}

impl Checked {
    /// Looks a host up. One forbidden address refuses them all, because a mix is probably an attack.
    pub(super) async fn find(
        host: &Host,
        lookup: &dyn Lookup,
        private_too: bool,
    ) -> Result<Self, ContainerError> {
        let (host, addresses) = match host {
            Host::Address(address) => (address.to_string(), vec![*address]),
            Host::Name(name) => {
                let found = lookup.lookup(name).await.map_err(|error| {
                    tracing::info!(host = %name, %error, "a blob host cannot be looked up");
                    ContainerError::Unreachable
                })?;
                (name.clone(), found)
            }
        };
        let good = |address: &IpAddr| match reach(*address) {
            Reach::Public => true,
            Reach::Private => private_too,
            Reach::Never => false,
        };
        if let Some(bad) = addresses.iter().find(|address| !good(address)) {
            tracing::info!(%host, address = %bad, "a blob host has an address to which the hub may not connect");
            return Err(ContainerError::Refused(ADDRESS_NOT_ALLOWED.to_owned()));
        }
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            tracing::info!(%host, count = addresses.len(), "a blob host has no address, or too many");
            return Err(ContainerError::Unreachable);
        }
        Ok(Self { host, addresses })
    }

    /// The resolver of a client, which returns these addresses.
    pub(super) fn into_resolver(self) -> Arc<dyn Resolve> {
        Arc::new(self)
    }
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let outcome = if name.as_str() == self.host {
            let addresses: Vec<_> =
                self.addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        } else {
            Err(io::Error::from(io::ErrorKind::PermissionDenied).into())
        };
        Box::pin(std::future::ready(outcome))
    }
}

const ADDRESS_NOT_ALLOWED: &str = "the container's host has an IP address that is not public; to allow a private one, list the host in jobs.blob_hosts";
/// Azure answers with one or two.
const ADDRESSES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    struct Answers(Vec<&'static str>);

    impl Lookup for Answers {
        fn lookup(&self, _: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let answers = self.0.iter().map(|text| text.parse().unwrap()).collect();
            Box::pin(std::future::ready(Ok(answers)))
        }
    }

    /// What becomes of a host with these answers, as a word.
    async fn find(host: &str, answers: &[&'static str], private_too: bool) -> &'static str {
        let host = crate::config::blob_host::BlobHost::parse(host).unwrap();
        match Checked::find(host.host(), &Answers(answers.to_vec()), private_too).await {
            Ok(_) => "good",
            Err(ContainerError::Refused(reason)) if reason == ADDRESS_NOT_ALLOWED => "refused",
            Err(ContainerError::Unreachable) => "unreachable",
            Err(other) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn t802_one_bad_answer_refuses_them_all() {
        let azure = "acct.blob.core.windows.net";
        assert_eq!(find(azure, &["20.60.0.1", "2603:1030::1"], false).await, "good");
        for answers in [
            ["127.0.0.1"].as_slice(),
            &["20.60.0.1", "127.0.0.1"],
            &["10.0.0.1", "20.60.0.1"],
            &["20.60.0.1", "::1"],
            &["20.60.0.1", "::ffff:20.60.0.1"],
            &["20.60.0.1", "169.254.169.254"],
            &["20.60.0.1", "64:ff9b::143c:1"],
            &["20.60.0.1", "0.0.0.0"],
        ] {
            assert_eq!(find(azure, answers, false).await, "refused", "{answers:?}");
        }
    }

    #[tokio::test]
    async fn t801_a_listed_host_may_be_private_and_nothing_stranger() {
        for address in ["127.0.0.1", "10.0.0.1", "fd00::1", "::1", "20.60.0.1"] {
            assert_eq!(find("azurite.local", &[address], true).await, "good", "{address}");
        }
        for address in ["169.254.169.254", "168.63.129.16", "0.0.0.0", "::", "224.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(find("azurite.local", &[address], true).await, "refused", "{address}");
        }
        assert_eq!(find("http://127.0.0.1:10000", &[], true).await, "good");
        assert_eq!(find("http://169.254.169.254", &[], true).await, "refused");
    }

    #[tokio::test]
    async fn t802_no_answer_and_too_many_are_none() {
        assert_eq!(find("azurite.local", &[], true).await, "unreachable");
        let many = vec!["20.60.0.1"; ADDRESSES_MAX + 1];
        assert_eq!(find("azurite.local", &many, true).await, "unreachable");
    }

    #[tokio::test]
    async fn t802_the_client_gets_the_checked_addresses_for_their_host_only() {
        let host = Host::Name("acct.blob.core.windows.net".to_owned());
        let checked = Checked::find(&host, &Answers(vec!["20.60.0.1"]), false).await.unwrap();
        let resolver = checked.into_resolver();
        let found = resolver.resolve("acct.blob.core.windows.net".parse().unwrap()).await.unwrap();
        assert_eq!(found.collect::<Vec<_>>(), ["20.60.0.1:0".parse().unwrap()]);
        assert!(resolver.resolve("evil.test".parse().unwrap()).await.is_err());
    }
}
