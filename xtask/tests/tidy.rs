//! The rules of the house, held against this checkout. `cargo xtask tidy` shows the same.

use std::sync::OnceLock;

use xtask::checkout::{Checkout, repository_root};
use xtask::tidy::RULES;

fn check(rule: &str) {
    static CHECKOUT: OnceLock<Checkout> = OnceLock::new();
    let checkout = CHECKOUT.get_or_init(|| Checkout::open(repository_root()).expect("a checkout"));
    let (_, check) = RULES.iter().find(|(name, _)| *name == rule).expect("a rule of this name");
    let violations = check(checkout).expect("what the rule needs");
    let shown: String = violations.iter().map(|violation| format!("\n  {violation}")).collect();
    assert!(violations.is_empty(), "{rule} is broken:{shown}");
}

/// One test a rule, and a test that none is left out.
macro_rules! rules {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        #[test]
        fn every_rule_has_its_test() {
            let names: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, [$(stringify!($name)),*]);
        }
    };
}

rules! {
    every_rust_file_can_be_read
    crates_depend_in_one_direction
    core_is_fenced
    licences_are_allowed
    deny_toml_allows_the_same_licences
    dependencies_are_argued_for
    files_and_functions_are_short
    no_forbidden_words
    no_machine_paths
    public_interfaces_change_by_decision
}
