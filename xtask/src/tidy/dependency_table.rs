//! ARCHITECTURE.md says of each dependency why it is there.

use std::collections::BTreeSet;

use crate::metadata::{DependencyKind, Package};
use crate::tidy::Violation;

/// Names every external dependency of a member that has no row of its own in `architecture`: a
/// line that begins with the name in backticks between the first two bars.
#[must_use]
pub fn check(members: &[Package], architecture: &str) -> Vec<Violation> {
    let has_row = |name: &str| {
        let beginning = format!("| `{name}` |");
        architecture.lines().any(|line| line.starts_with(&beginning))
    };
    let missing = external(members).into_iter().filter(|name| !has_row(name));
    let message = |name: &str| format!("has no row for the dependency `{name}`: say why we need it");
    missing.map(|name| Violation::new("ARCHITECTURE.md", message(name))).collect()
}

fn external(members: &[Package]) -> BTreeSet<&str> {
    let dependencies = members.iter().flat_map(|member| &member.dependencies);
    let external = dependencies.filter(|one| one.kind == DependencyKind::Normal && one.path.is_none());
    external.map(|one| one.name.as_str()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Dependency;

    fn member(name: &str, kind: DependencyKind, path: Option<&str>) -> Package {
        let dependency = Dependency { name: name.to_owned(), kind, path: path.map(Into::into) };
        Package {
            name: "member".to_owned(),
            version: "1.0.0".to_owned(),
            license: None,
            manifest_path: "/Cargo.toml".into(),
            dependencies: vec![dependency],
        }
    }

    #[test]
    fn a_dependency_without_a_row_is_named() {
        let check = |table: &str, expect: usize| {
            let members = [member("bytes", DependencyKind::Normal, None)];
            assert_eq!(check(&members, table).len(), expect, "{table}");
        };
        check("| dependency | why |\n| --- | --- |\n| `bytes` | shared slices |\n", 0);
        check("| dependency | why |\n| `bytes-utils` | no |\n", 1);
        check("we use | `bytes` | here\n", 1);
        check("", 1);
    }

    #[test]
    fn own_crates_and_dependencies_of_tests_need_no_row() {
        let check = |kind, path, expect: usize| {
            assert_eq!(check(&[member("a", kind, path)], "").len(), expect, "{kind:?} {path:?}");
        };
        check(DependencyKind::Normal, None, 1);
        check(DependencyKind::Normal, Some("/r/crates/a"), 0);
        check(DependencyKind::Dev, None, 0);
    }
}
