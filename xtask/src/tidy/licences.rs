//! Everything we build on may be given on under our licence.

use crate::metadata::Package;
use crate::spdx::Expression;
use crate::tidy::Violation;

/// The licences that any package may have. `deny.toml` has the same list, for those who run
/// cargo-deny.
pub const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// One package that may have a licence of its own.
#[derive(Debug, Clone, Copy)]
pub struct Exception {
    /// The package.
    pub package: &'static str,
    /// The licence that it alone may have.
    pub licence: &'static str,
    /// Why that is fine.
    pub reason: &'static str,
}

/// Packages with a licence of their own. An entry that nothing needs breaks the rule.
pub const EXCEPTIONS: &[Exception] = &[];

/// Names every package whose licence is missing, unreadable or not allowed, and every exception
/// that no package needs.
#[must_use]
pub fn check(packages: &[Package], exceptions: &[Exception]) -> Vec<Violation> {
    let broken = packages.iter().filter_map(|package| {
        let message = judge(package, exceptions)?;
        Some(Violation::new(format!("{} {}", package.name, package.version), message))
    });
    let idle = exceptions.iter().filter(|exception| is_idle(exception, packages));
    let idle = idle.map(|exception| Violation::new(exception.package, "its licence exception is not needed"));
    broken.chain(idle).collect()
}

/// What is wrong with the licence of `package`, if anything is.
fn judge(package: &Package, exceptions: &[Exception]) -> Option<String> {
    let Some(text) = &package.license else { return Some("has no licence expression".to_owned()) };
    let is_allowed = |licence: &str| {
        let excepts =
            |exception: &Exception| exception.package == package.name && exception.licence == licence;
        ALLOWED.contains(&licence) || exceptions.iter().any(excepts)
    };
    match text.parse::<Expression>() {
        Ok(expression) if expression.is_met(&is_allowed) => None,
        Ok(_) => Some(format!("{text} is not allowed")),
        Err(error) => Some(format!("{text:?} cannot be read: {error}")),
    }
}

fn is_idle(exception: &Exception, packages: &[Package]) -> bool {
    let needs_it = |package: &Package| package.name == exception.package && judge(package, &[]).is_some();
    !packages.iter().any(needs_it)
}

/// Names every difference between [`ALLOWED`] and the list `allow` of `deny`, the text of
/// `deny.toml`.
#[must_use]
pub fn check_deny_file(deny: &str) -> Vec<Violation> {
    let listed = allow_list(deny);
    let missing = ALLOWED.iter().filter(|licence| !listed.contains(licence));
    let missing = missing.map(|licence| Violation::new("deny.toml", format!("does not allow {licence}")));
    let added = listed.iter().filter(|licence| !ALLOWED.contains(licence));
    let added = added.map(|licence| Violation::new("deny.toml", format!("allows {licence}, tidy does not")));
    missing.chain(added).collect()
}

/// The quoted texts between `allow = [` and the closing bracket.
fn allow_list(deny: &str) -> Vec<&str> {
    let list = deny.split_once("\nallow = [").map_or("", |(_, rest)| rest);
    let list = list.split_once(']').map_or(list, |(list, _)| list);
    list.split('"').skip(1).step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, license: Option<&str>) -> Package {
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            manifest_path: "/Cargo.toml".into(),
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn only_allowed_licences_pass() {
        let check = |license, expect: &[&str]| {
            let messages: Vec<String> =
                check(&[package("a", license)], &[]).iter().map(ToString::to_string).collect();
            assert_eq!(messages, expect);
        };
        check(Some("MIT OR Apache-2.0"), &[]);
        check(Some("(MIT OR GPL-2.0-only) AND Unicode-3.0"), &[]);
        check(Some("GPL-3.0-only"), &["a 1.0.0: GPL-3.0-only is not allowed"]);
        check(Some("MIT AND MPL-2.0"), &["a 1.0.0: MIT AND MPL-2.0 is not allowed"]);
        check(Some("MIT AND"), &["a 1.0.0: \"MIT AND\" cannot be read: the expression stops too early"]);
        check(None, &["a 1.0.0: has no licence expression"]);
    }

    #[test]
    fn an_exception_holds_for_its_package_and_licence_alone() {
        let exceptions = [Exception { package: "a", licence: "MPL-2.0", reason: "for the test" }];
        let check = |name: &str, license: &str, expect: usize| {
            assert_eq!(check(&[package(name, Some(license))], &exceptions).len(), expect, "{name} {license}");
        };
        check("a", "MPL-2.0", 0);
        check("a", "GPL-3.0-only", 1);
        // The package is not allowed, and nothing needs the exception.
        check("b", "MPL-2.0", 2);
        check("a", "MIT", 1);
    }

    #[test]
    fn the_list_of_cargo_deny_must_be_the_same() {
        let file =
            |licences: &[&str]| format!("[licenses]\nallow = [\n\"{}\",\n]\n", licences.join("\",\n\""));
        let with_more: Vec<&str> = ALLOWED.iter().copied().chain(["GPL-3.0-only"]).collect();
        assert_eq!(check_deny_file(&file(ALLOWED)), []);
        assert_eq!(
            check_deny_file(&file(&with_more)),
            [Violation::new("deny.toml", "allows GPL-3.0-only, tidy does not")]
        );
        assert_eq!(check_deny_file("").len(), ALLOWED.len());
    }
}
