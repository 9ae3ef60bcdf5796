//! What a linter of metrics says, as far as these tests need one.

use std::collections::{BTreeMap, BTreeSet};

/// Every series with its value.
pub(crate) type Series = BTreeMap<String, f64>;

/// Checks an exposition in the text format 0.0.4, and gives its series.
pub(crate) fn lint(text: &str) -> Series {
    let (mut helped, mut types, mut series) = (BTreeSet::new(), BTreeMap::new(), Series::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect("a help text");
            assert!(!words.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').expect("a type");
            assert!(helped.contains(name), "no help before {line}");
            check_name(name, kind);
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "typed twice: {line}");
        } else {
            let (name, value) = sample(line);
            let family = family(&name, &types);
            assert!(family.is_some(), "no type before {line}");
            assert!(series.insert(name, value).is_none(), "twice: {line}");
        }
    }
    series
}

fn check_name(name: &str, kind: &str) {
    assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
    match kind {
        "counter" => assert!(name.ends_with("_total"), "a counter without _total: {name}"),
        "gauge" | "histogram" => assert!(!name.ends_with("_total"), "{kind} with _total: {name}"),
        "untyped" => {}
        other => panic!("{name} has the type {other}"),
    }
    for unit in ["_ms", "_millis", "_milliseconds", "_minutes"] {
        assert!(!name.contains(unit), "{name} is not in base units");
    }
}

fn sample(line: &str) -> (String, f64) {
    let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

fn family<'a>(series: &str, types: &'a BTreeMap<String, String>) -> Option<&'a String> {
    let name = series.split('{').next().unwrap_or_default();
    let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
    let is_histogram = |name: &&str| types.get(*name).is_some_and(|kind| kind == "histogram");
    types.get(histogram.filter(is_histogram).unwrap_or(name))
}
