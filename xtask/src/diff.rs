//! How two texts differ, line by line.

/// The most cells of the comparison table; above it the middle counts as replaced as a whole.
const CELLS_MAX: usize = 4_000_000;

/// The lines that differ, `-` before what only `old` has and `+` before what only `new` has, in
/// the order of the texts. Empty if the texts have the same lines.
#[must_use]
pub fn lines(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let head = same(old.iter().zip(&new));
    let (old, new) = (&old[head..], &new[head..]);
    let tail = same(old.iter().rev().zip(new.iter().rev()));
    middle(&old[..old.len() - tail], &new[..new.len() - tail])
}

fn same<'a>(pairs: impl Iterator<Item = (&'a &'a str, &'a &'a str)>) -> usize {
    pairs.take_while(|(old, new)| old == new).count()
}

fn middle(old: &[&str], new: &[&str]) -> Vec<String> {
    if old.len() * new.len() > CELLS_MAX {
        return replaced(old, new);
    }
    let common = common_lengths(old, new);
    let (mut row, mut column, mut lines) = (0, 0, Vec::new());
    while row < old.len() && column < new.len() {
        if old[row] == new[column] {
            (row, column) = (row + 1, column + 1);
        } else if common[row + 1][column] >= common[row][column + 1] {
            lines.push(format!("-{}", old[row]));
            row += 1;
        } else {
            lines.push(format!("+{}", new[column]));
            column += 1;
        }
    }
    lines.extend(replaced(&old[row..], &new[column..]));
    lines
}

fn replaced(old: &[&str], new: &[&str]) -> Vec<String> {
    let removed = old.iter().map(|line| format!("-{line}"));
    removed.chain(new.iter().map(|line| format!("+{line}"))).collect()
}

/// `[row][column]` is the length of the longest common subsequence of the texts from there on.
fn common_lengths(old: &[&str], new: &[&str]) -> Vec<Vec<usize>> {
    let mut common = vec![vec![0; new.len() + 1]; old.len() + 1];
    for row in (0..old.len()).rev() {
        for column in (0..new.len()).rev() {
            common[row][column] = if old[row] == new[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_differ_are_named() {
        let check = |old: &str, new: &str, expect: &[&str]| assert_eq!(lines(old, new), expect);
        check("", "", &[]);
        check("a\nb\n", "a\nb\n", &[]);
        check("a\nb\nc\n", "a\nc\n", &["-b"]);
        check("a\nc\n", "a\nb\nc\n", &["+b"]);
        check("a\nb\nc\n", "a\nx\nc\n", &["-b", "+x"]);
        check("a\nb\nc\nd\n", "b\nx\nd\ne\n", &["-a", "-c", "+x", "+e"]);
        check("", "a\n", &["+a"]);
    }

    #[test]
    fn texts_too_long_to_compare_count_as_replaced() {
        let old = (0..2_001).map(|n| format!("old {n}\n")).collect::<String>();
        let new = (0..2_001).map(|n| format!("new {n}\n")).collect::<String>();
        assert_eq!(lines(&old, &new).len(), 4_002);
    }
}
