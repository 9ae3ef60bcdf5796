//! Files and functions stay short: each model code base broke in one long function.

use crate::source::{Function, Source};
use crate::tidy::Violation;

/// The most lines a file may have without its tests.
const FILE_LINES_MAX: usize = 800;

/// The most lines a function may have, from its signature to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// A place that is too long until somebody splits it. The bound may fall, and never rise.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// The file, or the file and the function: `crates/a/src/b.rs` or `crates/a/src/b.rs fn c`.
    pub place: &'static str,
    /// The most lines it may have.
    pub lines_max: usize,
}

/// What is still too long. An entry that nothing needs breaks the rule.
pub const RATCHET: &[Bound] = &[];

/// Names every file and function that is too long, and every bound of `ratchet` that no place
/// needs.
#[must_use]
pub fn check(sources: &[Source], ratchet: &[Bound]) -> Vec<Violation> {
    let sizes: Vec<Size> = sources.iter().filter(|source| is_checked(source)).flat_map(sizes).collect();
    let over = sizes.iter().filter(|size| size.lines > size.bound(ratchet));
    let over = over.map(|size| Violation::new(&size.shown, size.message()));
    let idle = ratchet.iter().filter(|bound| !sizes.iter().any(|size| size.needs(bound)));
    let idle = idle.map(|bound| Violation::new(bound.place, "its bound in the ratchet is not needed"));
    over.chain(idle).collect()
}

fn is_checked(source: &Source) -> bool {
    let is_product = source.path.starts_with("crates/") && source.path.contains("/src/");
    !source.is_test && (is_product || source.path.starts_with("xtask/src/"))
}

struct Size {
    /// As [`Bound::place`].
    place: String,
    /// With the line, for whoever has to look.
    shown: String,
    lines: usize,
    lines_max: usize,
}

impl Size {
    fn of_file(source: &Source) -> Self {
        let lines = source.line_count_without_tests();
        Self { place: source.path.clone(), shown: source.path.clone(), lines, lines_max: FILE_LINES_MAX }
    }

    fn of_function(source: &Source, function: &Function) -> Self {
        let place = format!("{} fn {}", source.path, function.name);
        let shown = format!("{}:{} fn {}", source.path, function.line, function.name);
        Self { place, shown, lines: function.line_count, lines_max: FUNCTION_LINES_MAX }
    }

    fn bound(&self, ratchet: &[Bound]) -> usize {
        let own = ratchet.iter().find(|bound| bound.place == self.place);
        own.map_or(self.lines_max, |bound| bound.lines_max)
    }

    fn needs(&self, bound: &Bound) -> bool {
        bound.place == self.place && self.lines > self.lines_max
    }

    fn message(&self) -> String {
        format!("has {} lines without tests, {} are the wall", self.lines, self.lines_max)
    }
}

fn sizes(source: &Source) -> Vec<Size> {
    let functions = source.functions.iter().map(|function| Size::of_function(source, function));
    std::iter::once(Size::of_file(source)).chain(functions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &str, text: &str, ratchet: &[Bound]) -> Vec<String> {
        let source = Source::parse(path, text).expect("readable Rust");
        check(&[source], ratchet).into_iter().map(|violation| violation.place).collect()
    }

    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "a();\n".repeat(lines - 2))
    }

    #[test]
    fn long_functions_are_named_with_their_place() {
        let check = |text: &str, expect: &[&str]| assert_eq!(places("crates/a/src/b.rs", text, &[]), expect);
        check(&function(70), &[]);
        check(&format!("\n{}", function(71)), &["crates/a/src/b.rs:2 fn long"]);
        check(&format!("impl A {{\n{}}}", function(71)), &["crates/a/src/b.rs:2 fn long"]);
        check(&format!("#[cfg(test)]\nmod tests {{\n{}}}", function(71)), &[]);
    }

    #[test]
    fn long_files_are_named_and_their_tests_do_not_count() {
        let items = |count: usize| "const A: u8 = 1;\n".repeat(count);
        let check = |path: &str, text: &str, expect: &[&str]| assert_eq!(places(path, text, &[]), expect);
        check("crates/a/src/b.rs", &items(800), &[]);
        check("crates/a/src/b.rs", &items(801), &["crates/a/src/b.rs"]);
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", items(500));
        check("crates/a/src/b.rs", &format!("{}{tests}", items(800)), &[]);
        check("crates/a/src/tests.rs", &items(801), &[]);
        check("crates/a/benches/b.rs", &items(801), &[]);
    }

    #[test]
    fn a_bound_in_the_ratchet_holds_until_it_is_not_needed() {
        let bound = Bound { place: "crates/a/src/b.rs fn long", lines_max: 80 };
        let check = |lines, expect: &[&str]| {
            assert_eq!(places("crates/a/src/b.rs", &function(lines), &[bound]), expect, "{lines} lines");
        };
        check(80, &[]);
        check(81, &["crates/a/src/b.rs:1 fn long"]);
        check(70, &["crates/a/src/b.rs fn long"]);
    }
}
