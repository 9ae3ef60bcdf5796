//! The rules of the house. Each is a pure function from what it reads to what breaks it, so that
//! its unit tests can show it a bad sample and see it fail.
//!
//! | rule | holds |
//! | --- | --- |
//! | [`core_fence`] | core has no std, clock, chance, async or unordered map |
//! | [`dependency_table`] | ARCHITECTURE.md says of each dependency why it is there |
//! | [`edges`] | crates depend on each other in one direction |
//! | [`licences`] | everything we build on may be given on under our licence |
//! | [`machine_paths`] | no file names a place on somebody's machine |
//! | [`public_api`] | a public interface changes by decision only |
//! | [`size`] | files and functions stay short |
//! | [`words`] | no unbounded channels, unfinished code, skipped tests, sleeps in tests |

pub mod core_fence;
pub mod dependency_table;
pub mod edges;
pub mod licences;
pub mod machine_paths;
pub mod public_api;
pub mod size;
pub mod words;

use std::fmt;

use crate::checkout::Checkout;
use crate::metadata::{Metadata, MetadataError};

/// A rule over a checkout.
pub type Check = fn(&Checkout) -> Result<Vec<Violation>, MetadataError>;

/// Every rule with its name, in the order they are checked.
pub const RULES: &[(&str, Check)] = &[
    ("every_rust_file_can_be_read", readable),
    ("crates_depend_in_one_direction", |checkout| Ok(edges::check(&checkout.root, &checkout.members))),
    ("core_is_fenced", |checkout| Ok(core_fence::check(&checkout.sources))),
    ("licences_are_allowed", licences),
    ("deny_toml_allows_the_same_licences", |checkout| {
        Ok(licences::check_deny_file(checkout.text("deny.toml")))
    }),
    ("dependencies_are_argued_for", |checkout| {
        Ok(dependency_table::check(&checkout.members, checkout.text("ARCHITECTURE.md")))
    }),
    ("files_and_functions_are_short", |checkout| Ok(size::check(&checkout.sources, size::RATCHET))),
    ("no_forbidden_words", |checkout| Ok(words::check(&checkout.sources))),
    ("no_machine_paths", |checkout| Ok(machine_paths::check(&checkout.texts))),
    ("public_interfaces_change_by_decision", |checkout| Ok(public_api::check(checkout))),
];

fn readable(checkout: &Checkout) -> Result<Vec<Violation>, MetadataError> {
    let broken = checkout.unreadable.iter();
    Ok(broken.map(|error| Violation::at(&error.path, error.line, &error.message)).collect())
}

fn licences(checkout: &Checkout) -> Result<Vec<Violation>, MetadataError> {
    let everything = Metadata::of_everything(&checkout.root)?;
    Ok(licences::check(&everything.packages, licences::EXCEPTIONS))
}

/// One place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The file and line, the crate or the package.
    pub place: String,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Violation {
    /// A violation of a whole file, crate or package.
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }

    /// A violation at a line, counted from 1.
    pub fn at(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), message)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}
