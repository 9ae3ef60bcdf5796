//! Core has no std, clock, chance, async or unordered map: what it decides depends on its
//! arguments alone. [`crate::fence`] proves the first by compiler; this rule names the line.

use crate::source::{Source, SourceToken};
use crate::tidy::Violation;

/// The folder of core's sources.
const CORE: &str = "crates/clusterkit-core/src/";

/// Sequences of tokens that core's code must not have, and what to do instead.
const FORBIDDEN: &[(&[&str], &str)] = &[
    (&["std", ":", ":"], "std is out of bounds: take it from core or alloc"),
    (&["crate", "std"], "std is out of bounds: take it from core or alloc"),
    (&["use", "std"], "std is out of bounds: take it from core or alloc"),
    (&["HashMap"], "its order is chance: use BTreeMap"),
    (&["HashSet"], "its order is chance: use BTreeSet"),
    (&["Instant", ":", ":", "now"], "core asks no clock: take the time as an argument"),
    (&["SystemTime"], "core asks no clock: take the time as an argument"),
    (&["async"], "core never waits: hand the work out by poll_action"),
    (&["getrandom"], "core draws no chance: take a seed as an argument"),
    (&["rand"], "core draws no chance: take a seed as an argument"),
    (&["tokio"], "core knows no runtime: decide here, carry in the shell"),
];

/// Names what core's sources must not hold. Without a core crate there is nothing to hold.
#[must_use]
pub fn check(sources: &[Source]) -> Vec<Violation> {
    sources.iter().filter(|source| source.path.starts_with(CORE)).flat_map(check_file).collect()
}

fn check_file(source: &Source) -> Vec<Violation> {
    let mut violations = missing_no_std(source);
    for (at, token) in source.tokens.iter().enumerate() {
        if !source.is_test_line(token.line) {
            let found = FORBIDDEN.iter().filter(|(words, _)| begins_with(&source.tokens[at..], words));
            violations.extend(found.map(|(words, instead)| {
                Violation::at(&source.path, token.line, format!("`{}`: {instead}", words.concat()))
            }));
        }
    }
    violations
}

fn missing_no_std(source: &Source) -> Vec<Violation> {
    let is_root = source.path.strip_prefix(CORE) == Some("lib.rs");
    let attribute = ["#", "!", "[", "no_std", "]"];
    let has_it = (0..source.tokens.len()).any(|at| begins_with(&source.tokens[at..], &attribute));
    let missing = (is_root && !has_it).then(|| Violation::new(&source.path, "`#![no_std]` is missing"));
    missing.into_iter().collect()
}

fn begins_with(tokens: &[SourceToken], words: &[&str]) -> bool {
    tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| token.text == *word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(path, text).expect("readable Rust");
        check(&[source]).into_iter().map(|violation| violation.place).collect()
    }

    #[test]
    fn everything_from_outside_the_fence_is_named() {
        let check = |text: &str, expect: usize| {
            assert_eq!(lines("crates/clusterkit-core/src/a.rs", text).len(), expect, "{text}");
        };
        check("use core::fmt; use alloc::vec::Vec;", 0);
        check("use std::fmt;", 2);
        check("extern crate std;", 1);
        check("fn a() -> std::string::String {}", 1);
        check("fn a() { m!(std::mem::swap) }", 1);
        check("use hashbrown::HashMap;", 1);
        check("fn a() { Instant::now() }", 1);
        check("fn a(now: Instant) {}", 0);
        check("fn a() { SystemTime::UNIX_EPOCH }", 1);
        check("fn a() { rand::random() }", 1);
        check("fn a() { tokio::spawn(b) }", 1);
        check("async fn a() {}", 1);
        check("// std::time and rand\n/// HashMap\nfn a() { \"tokio\" }", 0);
        check("#[cfg(test)]\nmod tests { use std::collections::HashMap; }", 0);
    }

    #[test]
    fn only_core_is_fenced_and_its_tests_are_not() {
        let check = |path: &str, expect: &[&str]| assert_eq!(lines(path, "\nfn a() { rand() }"), expect);
        check("crates/clusterkit-core/src/a/b.rs", &["crates/clusterkit-core/src/a/b.rs:2"]);
        check("crates/clusterkit-core/src/a/tests.rs", &[]);
        check("crates/clusterkit-core/benches/a.rs", &[]);
        check("crates/clusterkit/src/a.rs", &[]);
    }

    #[test]
    fn core_without_no_std_is_named() {
        let root = "crates/clusterkit-core/src/lib.rs";
        assert_eq!(lines(root, "extern crate alloc;"), [root]);
        assert_eq!(lines(root, "//! Doc.\n#![no_std]\nextern crate alloc;"), [""; 0]);
    }
}
