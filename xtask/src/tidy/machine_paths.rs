//! No file names a place on somebody's machine.

use crate::checkout::TextFile;
use crate::tidy::Violation;

/// The folders that paths of machines begin with. Written in parts, since this file is read too.
fn roots() -> [String; 3] {
    ["work", "root", "home"].map(|folder| format!("/{folder}/"))
}

/// Names every line of every text file that holds a path of a machine.
#[must_use]
pub fn check(texts: &[TextFile]) -> Vec<Violation> {
    let roots = roots();
    texts.iter().flat_map(|file| check_file(file, &roots)).collect()
}

fn check_file(file: &TextFile, roots: &[String]) -> Vec<Violation> {
    let numbered = (1..).zip(file.text.lines());
    let found = numbered.filter(|(_, line)| roots.iter().any(|root| names(line, root)));
    found.map(|(line, _)| Violation::at(&file.path, line, "names a place on a machine")).collect()
}

/// Whether a path that begins with `root` stands in `line`. In the middle of a longer path, as in
/// `docs/work/`, it does not.
fn names(line: &str, root: &str) -> bool {
    let is_inside = |before: char| before.is_alphanumeric() || "._-*})>".contains(before);
    line.match_indices(root).any(|(at, _)| !line[..at].ends_with(is_inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_machines_are_named_with_their_line() {
        let check = |line: &str, expect: bool| {
            let file = TextFile { path: "a.md".to_owned(), text: format!("\n{line}\n") };
            let expect: &[Violation] =
                &if expect { vec![Violation::at("a.md", 2, "names a place on a machine")] } else { vec![] };
            assert_eq!(check(&[file]), expect, "{line}");
        };
        for root in roots() {
            check(&format!("{root}a"), true);
            check(&format!("see `{root}a`"), true);
            check(&format!("PATH={root}a"), true);
            check(&format!("file://{root}a"), true);
            check(&format!("docs{root}a"), false);
            check(&format!("../{}", &root[1..]), false);
            check(&format!("$DIR{root}a and ${{DIR}}{root}a"), false);
        }
        check("the root of the work is at home", false);
    }
}
