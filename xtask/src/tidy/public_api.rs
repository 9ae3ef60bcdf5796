//! A public interface changes by decision only: what the sources say must be what
//! `docs/api/<crate>.txt` says.

use std::fs;
use std::path::{Path, PathBuf};

use crate::api;
use crate::checkout::Checkout;
use crate::diff;
use crate::metadata::Package;
use crate::tidy::Violation;

/// The command that writes the listings anew.
pub const BLESS: &str = "cargo xtask public-api --bless";

/// The most lines of a difference that are shown.
const DIFFERENCE_LINES_MAX: usize = 60;

/// One library crate: the file of its listing, and the listing its sources give now.
#[derive(Debug)]
pub struct Interface {
    /// Where the decided listing lies.
    pub file: PathBuf,
    /// The listing of the sources as they are.
    pub listing: String,
}

/// Names every library crate whose interface differs from its listing.
#[must_use]
pub fn check(checkout: &Checkout) -> Vec<Violation> {
    libraries(checkout).filter_map(|(package, library)| check_library(checkout, package, &library)).collect()
}

/// The library crates of the house, each with its root file.
pub fn libraries(checkout: &Checkout) -> impl Iterator<Item = (&Package, PathBuf)> {
    checkout.crates().filter_map(|package| Some((package, package.library()?)))
}

/// Reads the interface of the library `package` whose root file is `library`.
pub fn interface(root: &Path, package: &str, library: &Path) -> Result<Interface, api::ApiError> {
    let file = root.join("docs/api").join(format!("{package}.txt"));
    let listing = api::listing(package, library)?;
    Ok(Interface { file, listing })
}

fn check_library(checkout: &Checkout, package: &Package, library: &Path) -> Option<Violation> {
    match interface(&checkout.root, &package.name, library) {
        Ok(interface) => {
            let decided = fs::read_to_string(&interface.file).ok();
            compare(&package.name, decided.as_deref(), &interface.listing)
        }
        Err(error) => Some(Violation::new(&package.name, format!("its interface cannot be read: {error}"))),
    }
}

/// What to say of a crate whose decided listing is `decided` and whose sources give `listing`.
fn compare(package: &str, decided: Option<&str>, listing: &str) -> Option<Violation> {
    let Some(decided) = decided else {
        return Some(Violation::new(package, format!("its interface has no listing: run `{BLESS}`")));
    };
    let differences = diff::lines(decided, listing);
    if differences.is_empty() {
        return None;
    }
    let shown = differences.iter().take(DIFFERENCE_LINES_MAX).map(|line| format!("\n    {line}"));
    let shown: String = shown.collect();
    let more = differences.len().saturating_sub(DIFFERENCE_LINES_MAX);
    let more = if more > 0 { format!("\n    and {more} lines more") } else { String::new() };
    let advice = format!("its interface changed: if that is decided, run `{BLESS}`");
    Some(Violation::new(package, format!("{advice}{shown}{more}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_interface_is_shown_with_the_command_that_accepts_it() {
        let check = |decided, listing: &str, expect: Option<&str>| {
            let said = compare("a", decided, listing).map(|violation| violation.to_string());
            assert_eq!(said.as_deref(), expect);
        };
        check(Some("pub fn b();\n"), "pub fn b();\n", None);
        check(
            Some("pub fn b();\n"),
            "pub fn b(c: u8);\n",
            Some(
                "a: its interface changed: if that is decided, run `cargo xtask public-api --bless`\n    \
                 -pub fn b();\n    +pub fn b(c: u8);",
            ),
        );
        check(
            None,
            "pub fn b();\n",
            Some("a: its interface has no listing: run `cargo xtask public-api --bless`"),
        );
    }

    #[test]
    fn a_long_difference_is_cut() {
        let listing = "line\n".repeat(DIFFERENCE_LINES_MAX + 3);
        let said = compare("a", Some(""), &listing).expect("a difference").to_string();
        assert!(said.ends_with("and 3 lines more"), "{said}");
    }
}
