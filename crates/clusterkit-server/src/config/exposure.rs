//! Nothing is encrypted or authenticated yet, so a node listens beyond its own machine only when its
//! operator says that this is meant.

use std::net::IpAddr;

use super::value::Address;

/// Whether connections from other machines may reach a listener at `addr`. A name may stand for any
/// address, so that only `localhost` counts as this machine.
pub(crate) fn is_exposed(addr: &Address<'_>) -> bool {
    match addr.host.parse::<IpAddr>() {
        Ok(ip) => !ip.to_canonical().is_loopback(),
        Err(_) => !addr.host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_not_exposed() {
        let check = |text: &str, expect: bool| {
            let addr = Address::parse(text).expect("an address");
            assert_eq!(is_exposed(&addr), expect, "{text}");
        };
        check("127.0.0.1:1", false);
        check("127.8.9.10:1", false);
        check("localhost:1", false);
        check("LocalHost:1", false);
        check("[::1]:1", false);
        check("[::ffff:127.0.0.1]:1", false);
        check(":1", true);
        check("0.0.0.0:1", true);
        check("[::]:1", true);
        check("10.0.0.1:1", true);
        check("[fe80::1]:1", true);
        check("[::ffff:10.0.0.1]:1", true);
        check("localhost.example:1", true);
        check("node-1:1", true);
    }
}
