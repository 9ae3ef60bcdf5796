//! The known name that a mistyped one was probably meant to be.

/// The nearest of `known` to `typed`, when it is near enough to be meant.
pub(crate) fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let reach = (typed.chars().count() / 3).max(2);
    let measured = known.into_iter().map(|name| (distance(typed, name), name));
    measured.filter(|(away, _)| *away <= reach).min().map(|(_, name)| name)
}

/// Letters to insert, delete or replace until `a` is `b` (Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        let check = |a: &str, b: &str, expect: usize| {
            assert_eq!(distance(a, b), expect, "{a} {b}");
            assert_eq!(distance(b, a), expect, "{b} {a}");
        };
        check("", "", 0);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
        check("node_id", "node-id", 1);
        check("seeds", "seed", 1);
        check("same", "same", 0);
    }

    #[test]
    fn only_a_near_name_is_offered() {
        let known = ["node_id", "seeds", "http_addr", "partitions"];
        let check = |typed: &str, expect: Option<&str>| assert_eq!(nearest(typed, known), expect, "{typed}");
        check("nodeid", Some("node_id"));
        check("seed", Some("seeds"));
        check("partition_count", None);
        check("http_address", Some("http_addr"));
        check("zebra", None);
    }
}
