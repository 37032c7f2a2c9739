//! Admission control: limits the anonymous connections, in all and by address. Refuses an address with too many failed
//! sign-ins before it costs a handshake.
//!
//! A permit is a guard: dropping it returns it, however the connection ends.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use dashmap::DashMap;

use crate::hub::throttle::{Rate, Throttle};

/// Counts anonymous connections against two limits, and failed sign-ins against a rate.
#[derive(Debug)]
pub struct AdmissionControl {
    anonymous_max: usize,
    per_address_max: usize,
    anonymous: AtomicUsize,
    per_address: DashMap<IpAddr, usize>,
    failed_logins: Throttle<IpAddr>,
}

/// The permit of one anonymous connection. The owner drops it once the peer has signed in or has left.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<AdmissionControl>,
    address: IpAddr,
}

/// Why a peer was refused before a byte was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crowded {
    #[error("too many anonymous connections in all")]
    InAll,
    #[error("too many anonymous connections from this address")]
    FromAddress,
    #[error("too many failed logins from this address")]
    FailedLogins,
}

impl AdmissionControl {
    /// `failed_logins` is the rate that each address may have; none means no limit.
    pub fn new(anonymous_max: usize, per_address_max: usize, failed_logins: Option<Rate>) -> Arc<Self> {
        Arc::new(Self {
            anonymous_max,
            per_address_max,
            anonymous: AtomicUsize::new(0),
            per_address: DashMap::new(),
            failed_logins: Throttle::new(failed_logins, ADDRESSES_MAX),
        })
    }

    /// Counts a failed sign-in against its address. Returns false if the address has used its rate up.
    pub fn login_failed(&self, address: IpAddr, now: Instant) -> bool {
        self.failed_logins.spend(counted_address(address), now)
    }

    /// Whether this address has used up its rate of failed sign-ins for now.
    pub fn is_turned_away(&self, address: IpAddr, now: Instant) -> bool {
        self.failed_logins.is_spent(&counted_address(address), now)
    }

    /// A permit for one more anonymous connection, or the limit that is reached.
    pub fn admit(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Permit, Crowded> {
        let address = counted_address(address);
        if self.is_turned_away(address, now) {
            return Err(Crowded::FailedLogins);
        }
        if self.anonymous.fetch_add(1, Ordering::AcqRel) >= self.anonymous_max {
            self.anonymous.fetch_sub(1, Ordering::AcqRel);
            return Err(Crowded::InAll);
        }
        let mut here = self.per_address.entry(address).or_insert(0);
        if *here >= self.per_address_max {
            drop(here);
            self.anonymous.fetch_sub(1, Ordering::AcqRel);
            return Err(Crowded::FromAddress);
        }
        *here += 1;
        drop(here);
        Ok(Permit { admission: Arc::clone(self), address })
    }

    /// The number of anonymous connections.
    pub fn anonymous(&self) -> usize {
        self.anonymous.load(Ordering::Acquire)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.anonymous.fetch_sub(1, Ordering::AcqRel);
        if let Some(mut here) = self.admission.per_address.get_mut(&self.address) {
            *here -= 1;
        }
        self.admission.per_address.remove_if(&self.address, |_, count| *count == 0);
    }
}

/// The address to count. An IPv6 host owns its whole /64; a mapped IPv4 address is the IPv4 address.
fn counted_address(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address.to_canonical() else { return address.to_canonical() };
    IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX)))
}

/// The most addresses whose failed sign-ins are counted.
const ADDRESSES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(admission: &Arc<AdmissionControl>, address: IpAddr) -> Result<Permit, Crowded> {
        admission.admit(address, Instant::now())
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn t102_the_bound_per_address_holds_and_a_place_comes_back() {
        let admission = AdmissionControl::new(10, 2, None);
        let first = admit(&admission, at("10.0.0.1")).unwrap();
        let _second = admit(&admission, at("10.0.0.1")).unwrap();
        assert_eq!(admit(&admission, at("10.0.0.1")).unwrap_err(), Crowded::FromAddress);
        assert!(admit(&admission, at("10.0.0.2")).is_ok());
        drop(first);
        assert!(admit(&admission, at("10.0.0.1")).is_ok());
    }

    #[test]
    fn t102_the_bound_in_all_holds_and_nothing_leaks() {
        let admission = AdmissionControl::new(3, 3, None);
        let permits: Vec<_> =
            (1..=3).map(|n| admit(&admission, at(&format!("10.0.0.{n}"))).unwrap()).collect();
        assert_eq!(admit(&admission, at("10.0.0.9")).unwrap_err(), Crowded::InAll);
        drop(permits);
        assert_eq!(admission.anonymous(), 0);
        assert!(admission.per_address.is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        let admission = AdmissionControl::new(10, 1, None);
        let _permit = admit(&admission, at("2001:db8::1")).unwrap();
        assert_eq!(admit(&admission, at("2001:db8::2")).unwrap_err(), Crowded::FromAddress);
        assert!(admit(&admission, at("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let admission = AdmissionControl::new(10, 1, None);
        let _permit = admit(&admission, at("::ffff:10.0.0.1")).unwrap();
        assert_eq!(admit(&admission, at("10.0.0.1")).unwrap_err(), Crowded::FromAddress);
    }

    #[test]
    fn t1007_an_address_whose_logins_fail_is_turned_away_for_a_while() {
        let (admission, now) = (AdmissionControl::new(10, 10, Rate::per_second(20)), Instant::now());
        let (bad, good) = (at("10.0.0.1"), at("10.0.0.2"));
        assert!((0..20).all(|_| admission.admit(bad, now).is_ok() && admission.login_failed(bad, now)));
        assert!(!admission.login_failed(at("::ffff:10.0.0.1"), now));
        assert_eq!(admission.admit(bad, now).unwrap_err(), Crowded::FailedLogins);
        assert!(admission.admit(good, now).is_ok());
        assert!(admission.admit(bad, now + std::time::Duration::from_millis(50)).is_ok());
        assert_eq!(admission.anonymous(), 0);
    }
}
