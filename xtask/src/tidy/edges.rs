//! Crates depend on each other in one direction.

use std::collections::BTreeSet;
use std::path::Path;

use crate::metadata::{Dependency, DependencyKind, Package};
use crate::tidy::Violation;

/// Who may use whom. What a crate may use, it may also use through another: the rule allows
/// the transitive closure. A crate of `crates/` that has no line here breaks the rule; tools and
/// examples outside it may use every crate, and none may use them.
const EDGES: &[(&str, &[&str])] = &[
    ("clusterkit-core", &[]),
    ("clusterkit-wire", &["clusterkit-core"]),
    ("clusterkit-storage", &["clusterkit-core", "clusterkit-wire"]),
    ("clusterkit", &["clusterkit-core", "clusterkit-wire", "clusterkit-storage"]),
    ("clusterkit-client", &["clusterkit-wire"]),
    ("clusterkit-data", &["clusterkit", "clusterkit-storage"]),
    ("clusterkit-services", &["clusterkit-data"]),
    ("clusterkit-server", &["clusterkit-services", "clusterkit-client"]),
    ("clusterkit-sim", &["clusterkit-services", "clusterkit-client"]),
];

/// Names every dependency between members that goes against the direction.
#[must_use]
pub fn check(root: &Path, members: &[Package]) -> Vec<Violation> {
    let houses: Vec<&Package> = members.iter().filter(|package| package.is_in_crates(root)).collect();
    let is_member = |name: &str| members.iter().any(|member| member.name == name);
    let mut violations = Vec::new();
    for package in houses {
        let internal = package.dependencies.iter().filter(|dependency| is_member(&dependency.name));
        match reachable(&package.name) {
            Some(allowed) => violations.extend(internal.filter_map(|edge| judge(package, edge, &allowed))),
            None => violations.push(Violation::new(&package.name, "has no line in the table of crate edges")),
        }
    }
    violations
}

fn judge(package: &Package, edge: &Dependency, allowed: &BTreeSet<&str>) -> Option<Violation> {
    // A crate's own tests build it once more with its testing feature.
    let is_own_test = edge.kind == DependencyKind::Dev && edge.name == package.name;
    let is_fine = is_own_test || allowed.contains(edge.name.as_str());
    (!is_fine).then(|| Violation::new(&package.name, format!("must not depend on {}", edge.name)))
}

/// The crates that `name` may use, directly and through others, or nothing if it has no line.
fn reachable(name: &str) -> Option<BTreeSet<&'static str>> {
    let mut waiting = direct(name)?.to_vec();
    let mut reached = BTreeSet::new();
    while let Some(next) = waiting.pop() {
        if reached.insert(next) {
            waiting.extend(direct(next).unwrap_or_default());
        }
    }
    Some(reached)
}

fn direct(name: &str) -> Option<&'static [&'static str]> {
    EDGES.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, folder: &str, dependencies: &[(&str, DependencyKind)]) -> Package {
        let edge = |(name, kind): &(&str, DependencyKind)| Dependency {
            name: (*name).to_owned(),
            kind: *kind,
            path: None,
        };
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: None,
            manifest_path: format!("/r/{folder}/{name}/Cargo.toml").into(),
            dependencies: dependencies.iter().map(edge).collect(),
        }
    }

    #[test]
    fn edges_against_the_direction_are_named() {
        use DependencyKind::{Build, Dev, Normal};
        let check = |from: &str, to: &str, kind, expect: bool| {
            let mut members = vec![package(from, "crates", &[(to, kind)])];
            if from != to {
                members.push(package(to, "crates", &[]));
            }
            assert_eq!(check(Path::new("/r"), &members).is_empty(), expect, "{from} -> {to}");
        };
        check("clusterkit-wire", "clusterkit-core", Normal, true);
        check("clusterkit-core", "clusterkit-wire", Normal, false);
        check("clusterkit-core", "clusterkit-wire", Dev, false);
        check("clusterkit-core", "clusterkit-wire", Build, false);
        check("clusterkit-storage", "clusterkit-wire", Normal, true);
        check("clusterkit-wire", "clusterkit-storage", Normal, false);
        check("clusterkit", "clusterkit-data", Normal, false);
        check("clusterkit", "clusterkit", Dev, true);
        check("clusterkit-server", "clusterkit-core", Normal, true);
        check("clusterkit-client", "clusterkit", Normal, false);
        check("clusterkit-sim", "clusterkit-client", Normal, true);
        check("clusterkit-sim", "clusterkit-server", Normal, false);
    }

    #[test]
    fn a_crate_without_a_line_is_named_and_a_tool_is_not() {
        let check = |name: &str, folder: &str, expect: usize| {
            let members = [package(name, folder, &[("clusterkit-core", DependencyKind::Normal)])];
            assert_eq!(check(Path::new("/r"), &members).len(), expect, "{folder}/{name}");
        };
        check("clusterkit-new", "crates", 1);
        check("xtask", "tools", 0);
    }

    #[test]
    fn a_house_crate_must_not_use_a_tool() {
        let members = [
            package("clusterkit-core", "crates", &[("xtask", DependencyKind::Normal)]),
            package("xtask", "tools", &[]),
        ];
        assert_eq!(
            check(Path::new("/r"), &members),
            [Violation::new("clusterkit-core", "must not depend on xtask")]
        );
    }

    #[test]
    fn the_table_has_no_cycle() {
        for (name, _) in EDGES {
            assert!(!reachable(name).expect("a line").contains(name), "{name} reaches itself");
        }
    }
}
