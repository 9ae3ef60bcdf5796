//! How many connections there may be, in all and from one address.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::http::limits::{CONNECTIONS_MAX, CONNECTIONS_PER_ADDRESS_MAX};

/// The connections of one port.
#[derive(Debug, Clone, Default)]
pub(super) struct Admission(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_address: BTreeMap<IpAddr, usize>,
}

impl Admission {
    /// A place for a connection from `address`, given back when it is dropped. `None` when there is
    /// none left.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Place> {
        let address = accountable(address);
        let mut taken = self.taken();
        let own = taken.by_address.get(&address).copied().unwrap_or_default();
        let is_full = own >= CONNECTIONS_PER_ADDRESS_MAX && !address.is_loopback();
        if is_full || taken.total >= CONNECTIONS_MAX {
            return None;
        }
        taken.total += 1;
        taken.by_address.insert(address, own + 1);
        drop(taken);
        Some(Place { admission: self.clone(), address })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, address: IpAddr) {
        let mut taken = self.taken();
        taken.total -= 1;
        match taken.by_address.get_mut(&address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(taken.by_address.remove(&address)),
        }
    }
}

/// Whom a connection is counted for: a machine has a whole /64 network of IPv6 addresses.
fn accountable(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64))
        }
        other => other,
    }
}

/// A place of one connection.
#[derive(Debug)]
pub(super) struct Place {
    admission: Admission,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn fill(admission: &Admission, from: &str, count: usize) -> Vec<Place> {
        (0..count).map_while(|_| admission.admit(address(from))).collect()
    }

    #[test]
    fn one_address_has_its_share_and_others_have_theirs() {
        let admission = Admission::default();
        let mut places = fill(&admission, "192.0.2.1", CONNECTIONS_PER_ADDRESS_MAX + 1);
        assert_eq!(places.len(), CONNECTIONS_PER_ADDRESS_MAX);
        assert!(admission.admit(address("::ffff:192.0.2.1")).is_none(), "the same address, mapped");
        assert!(admission.admit(address("192.0.2.2")).is_some());
        places.pop();
        assert!(admission.admit(address("192.0.2.1")).is_some());
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let admission = Admission::default();
        let _places = fill(&admission, "2001:db8::1", CONNECTIONS_PER_ADDRESS_MAX);
        assert!(admission.admit(address("2001:db8::ffff:1")).is_none());
        assert!(admission.admit(address("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn this_machine_is_bounded_by_the_total_alone() {
        let admission = Admission::default();
        let places = fill(&admission, "127.0.0.1", CONNECTIONS_MAX + 1);
        assert_eq!(places.len(), CONNECTIONS_MAX);
        assert!(admission.admit(address("192.0.2.1")).is_none());
        drop(places);
        assert_eq!(admission.taken().total, 0);
        assert!(admission.taken().by_address.is_empty());
    }
}
