//! No unbounded channels, unfinished code, skipped tests, or sleeps in tests.

use crate::source::{Source, SourceToken};
use crate::tidy::Violation;

/// The comment that lets a test sleep: what follows it must say why.
const ESCAPE: &str = "// tidy: ";

/// Calls and types that make a queue without a bound.
const UNBOUNDED: &[&[&str]] =
    &[&["UnboundedReceiver"], &["UnboundedSender"], &["unbounded", "(", ")"], &["unbounded_channel"]];

/// Macros that stand for code that is not there, or is there for a moment.
const UNFINISHED: &[&str] = &["dbg", "todo", "unimplemented"];

/// Names every forbidden word of every Rust file.
#[must_use]
pub fn check(sources: &[Source]) -> Vec<Violation> {
    sources.iter().flat_map(check_file).collect()
}

fn check_file(source: &Source) -> Vec<Violation> {
    let tokens = without_turbofish(&source.tokens);
    let mut violations = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let place = Place { source, before: &tokens[..at], after: &tokens[at..] };
        let found = [place.boundless(), place.unfinished(), place.ignored(), place.sleeping()];
        let messages = found.into_iter().flatten();
        violations.extend(messages.map(|message| Violation::at(&source.path, token.line, message)));
    }
    violations
}

/// One token with everything around it.
struct Place<'a> {
    source: &'a Source,
    before: &'a [&'a SourceToken],
    after: &'a [&'a SourceToken],
}

impl Place<'_> {
    fn boundless(&self) -> Option<&'static str> {
        let is_listed = UNBOUNDED.iter().any(|words| self.reads(words));
        // `channel()` without a size is std's. A oneshot channel has no size and holds one value.
        let is_call = self.reads(&["channel", "(", ")"]) && !self.is_definition() && !self.follows(&["."]);
        let is_std = is_call && !self.follows(&["oneshot", ":", ":"]);
        (is_listed || is_std).then_some("a channel without a bound: name one in limits and use it")
    }

    fn unfinished(&self) -> Option<&'static str> {
        let is_macro =
            UNFINISHED.iter().any(|name| ["(", "[", "{"].iter().any(|open| self.reads(&[name, "!", open])));
        is_macro.then_some("unfinished code: write it or leave it out")
    }

    fn ignored(&self) -> Option<&'static str> {
        let is_ignored = self.reads(&["#", "[", "ignore"]);
        is_ignored.then_some("a test that does not run: repair it or delete it")
    }

    fn sleeping(&self) -> Option<&'static str> {
        // `clock.sleep_until(..)` is the house's own clock, which a test can set forward.
        let is_tokio = self.reads(&["sleep_until", "("]) && !self.follows(&["."]);
        let is_call = is_tokio || self.reads(&["sleep", "("]);
        let is_at_fault = is_call && !self.is_definition() && self.is_in_test() && !self.has_escape();
        is_at_fault.then_some("a sleep in a test: wait for what must happen, or say why after `// tidy:`")
    }

    fn reads(&self, words: &[&str]) -> bool {
        self.after.len() >= words.len()
            && self.after.iter().zip(words).all(|(token, word)| token.text == *word)
    }

    fn follows(&self, words: &[&str]) -> bool {
        let start = self.before.len().saturating_sub(words.len());
        self.before[start..].iter().map(|token| token.text.as_str()).eq(words.iter().copied())
    }

    fn is_definition(&self) -> bool {
        self.follows(&["fn"])
    }

    fn line(&self) -> usize {
        self.after[0].line
    }

    fn is_in_test(&self) -> bool {
        self.source.is_test_line(self.line())
    }

    /// Whether this line ends with a reason, or the line above is nothing but one.
    fn has_escape(&self) -> bool {
        let above = self.source.line(self.line().saturating_sub(1)).trim_start();
        has_reason(self.source.line(self.line())) || above.starts_with(ESCAPE) && has_reason(above)
    }
}

fn has_reason(line: &str) -> bool {
    line.split_once(ESCAPE).is_some_and(|(_, reason)| !reason.trim().is_empty())
}

/// The tokens without `::<...>`, so that `channel::<u8>()` reads like `channel()`.
fn without_turbofish(tokens: &[SourceToken]) -> Vec<&SourceToken> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        match turbofish_length(&tokens[at..]) {
            0 => {
                kept.push(&tokens[at]);
                at += 1;
            }
            length => at += length,
        }
    }
    kept
}

/// How many tokens the turbofish has that `tokens` begins with, 0 if there is none.
fn turbofish_length(tokens: &[SourceToken]) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    if [text(0), text(1), text(2)] != [":", ":", "<"] {
        return 0;
    }
    let mut depth = 0_usize;
    for at in 2..tokens.len() {
        match text(at) {
            "<" => depth += 1,
            // The arrow of a function type closes nothing.
            ">" if text(at - 1) != "-" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(path: &str, text: &str) -> Vec<String> {
        let source = Source::parse(path, text).expect("readable Rust");
        check(&[source]).into_iter().map(|violation| violation.place).collect()
    }

    fn check_call(call: &str, expect: bool) {
        let text = format!("fn a() {{\n    let b = {call};\n}}\n");
        let expect: &[&str] = if expect { &["crates/a/src/b.rs:2"] } else { &[] };
        assert_eq!(places("crates/a/src/b.rs", &text), expect, "{call}");
    }

    #[test]
    fn channels_without_a_bound_are_named() {
        check_call("mpsc::unbounded_channel()", true);
        check_call("tokio::sync::mpsc::unbounded_channel::<Vec<u8>>()", true);
        check_call("flume::unbounded()", true);
        check_call("std::sync::mpsc::channel()", true);
        check_call("mpsc::channel::<Box<dyn Fn() -> u8>>()", true);
        check_call("channel()", true);
        check_call("mpsc::channel(MAILBOX_MAX)", false);
        check_call("mpsc::sync_channel(1)", false);
        check_call("oneshot::channel()", false);
        check_call("oneshot::channel::<u8>()", false);
        check_call("node.channel()", false);
        check_call("\"unbounded_channel\"", false);
        check_call("(Bound::Unbounded, 1 < 2, a::<u8>(3) > 4)", false);
    }

    #[test]
    fn unfinished_code_is_named() {
        check_call("todo!()", true);
        check_call("unimplemented!(\"later\")", true);
        check_call("dbg!(c)", true);
        check_call("vec![dbg![c]]", true);
        check_call("todo != c", false);
        check_call("todo()", false);
    }

    #[test]
    fn tests_that_do_not_run_are_named() {
        let check = |text: &str, expect: &[&str]| assert_eq!(places("crates/a/src/b.rs", text), expect);
        check("#[test]\n#[ignore]\nfn a() {}", &["crates/a/src/b.rs:2"]);
        check("#[test]\n#[ignore = \"slow\"]\nfn a() {}", &["crates/a/src/b.rs:2"]);
        check("#[test]\nfn ignore() {}", &[]);
    }

    #[test]
    fn sleeps_in_tests_need_a_reason() {
        let check = |line: &str, expect: bool| {
            let text = format!("\n#[cfg(test)]\nmod tests {{\n    fn a() {{\n{line}\n    }}\n}}\n");
            assert_eq!(!places("crates/a/src/b.rs", &text).is_empty(), expect, "{line}");
        };
        check("thread::sleep(second);", true);
        check("tokio::time::sleep(second).await;", true);
        check("select! { () = sleep_until(then) => {} }", true);
        check("sleep(second); // tidy: the clock is simulated", false);
        check("// tidy: the clock is simulated\nsleep(second);", false);
        check("sleep(second); // tidy: ", true);
        check("sleep(second); // for a second", true);
        check("fn sleep(time: Duration) {}", false);
        check("clock.sleep_until(then).await;", false);
    }

    #[test]
    fn only_tests_must_not_sleep() {
        let check = |path: &str, expect: usize| {
            assert_eq!(places(path, "fn a() { sleep(second) }").len(), expect, "{path}");
        };
        check("crates/a/src/b.rs", 0);
        check("crates/a/src/tests.rs", 1);
        check("crates/a/tests/b.rs", 1);
    }
}
