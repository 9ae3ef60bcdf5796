//! One Rust file, taken apart for the rules: its tokens, its functions, and which lines are tests.
//!
//! Rules look at tokens, never at text: a forbidden word in a comment or a string breaks nothing,
//! and a call that is spread over lines is still found.

use std::ops::RangeInclusive;
use std::str::FromStr;

use proc_macro2::{Delimiter, LineColumn, TokenStream, TokenTree};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, Token};

/// One Rust file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its place below the repository's root, with `/` between the parts.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Its tokens in order, the delimiters of groups among them.
    pub tokens: Vec<SourceToken>,
    /// Its functions and methods with a body, tests and those inside other functions left out.
    pub functions: Vec<Function>,
    /// The lines of items that only exist in a test build.
    pub test_lines: Vec<RangeInclusive<usize>>,
    /// The names of the modules that the file declares for test builds alone.
    pub test_modules: Vec<String>,
    /// Whether the whole file only exists in a test build.
    pub is_test: bool,
}

impl Source {
    /// Takes `text`, the file at `path`, apart.
    pub fn parse(path: &str, text: &str) -> Result<Self, SourceError> {
        let tokens = TokenStream::from_str(text)
            .map_err(|error| SourceError::new(path, error.span().start(), error.to_string()))?;
        let file: syn::File = syn::parse2(tokens.clone())
            .map_err(|error| SourceError::new(path, error.span().start(), error.to_string()))?;
        let mut walker = Walker::default();
        walker.visit_file(&file);
        Ok(Self {
            path: path.to_owned(),
            text: text.to_owned(),
            tokens: flatten(tokens),
            functions: walker.functions,
            test_lines: walker.test_lines,
            test_modules: walker.test_modules,
            is_test: is_test_path(path) || is_test_only(&file.attrs),
        })
    }

    /// Whether `line`, counted from 1, only exists in a test build.
    #[must_use]
    pub fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.test_lines.iter().any(|lines| lines.contains(&line))
    }

    /// How many lines the file has without its tests.
    #[must_use]
    pub fn line_count_without_tests(&self) -> usize {
        (1..=self.text.lines().count()).filter(|&line| !self.is_test_line(line)).count()
    }

    /// Line `line`, counted from 1.
    #[must_use]
    pub fn line(&self, line: usize) -> &str {
        self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default()
    }

    /// Where the files of a module `name` that is declared here can lie: its file, and its folder.
    fn module_places(&self, name: &str) -> [String; 2] {
        let folder = module_folder(&self.path);
        [format!("{folder}/{name}.rs"), format!("{folder}/{name}/")]
    }
}

/// Marks as tests the files of modules that another file declares for test builds alone.
pub fn mark_test_modules(sources: &mut [Source]) {
    let places: Vec<String> = sources
        .iter()
        .flat_map(|source| source.test_modules.iter().flat_map(|name| source.module_places(name)))
        .collect();
    for source in sources {
        source.is_test |= places.iter().any(|place| source.path.starts_with(place));
    }
}

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceToken {
    /// The identifier, the sign, the delimiter or the whole literal.
    pub text: String,
    /// Its line, counted from 1.
    pub line: usize,
}

/// One function or method with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its signature, counted from 1.
    pub line: usize,
    /// How many lines signature and body take.
    pub line_count: usize,
}

/// The file is not Rust that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}: {message}")]
pub struct SourceError {
    /// The file.
    pub path: String,
    /// Where reading stopped, counted from 1.
    pub line: usize,
    /// What the parser says.
    pub message: String,
}

impl SourceError {
    fn new(path: &str, at: LineColumn, message: String) -> Self {
        Self { path: path.to_owned(), line: at.line, message }
    }
}

/// Whether items with these attributes only exist in a test build.
#[must_use]
pub fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<Meta>().is_ok_and(|condition| needs_test(&condition))
        }
        meta => meta.path().is_ident("test"),
    })
}

fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("all") => conditions(&list.tokens).iter().any(needs_test),
        Meta::List(list) if list.path.is_ident("any") => conditions(&list.tokens).iter().all(needs_test),
        _ => false,
    }
}

fn conditions(tokens: &TokenStream) -> Vec<Meta> {
    let parser = Punctuated::<Meta, Token![,]>::parse_terminated;
    parser.parse2(tokens.clone()).map(|list| list.into_iter().collect()).unwrap_or_default()
}

/// Whether a file at `path` is a test by its place or name.
fn is_test_path(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    parts.next() == Some("tests.rs") || parts.any(|part| part == "tests")
}

/// The folder of the modules that the file at `path` declares.
fn module_folder(path: &str) -> &str {
    let (folder, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder,
        _ => path.strip_suffix(".rs").unwrap_or(path),
    }
}

/// The attributes of an item, whatever it is.
#[must_use]
pub fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

#[derive(Default)]
struct Walker {
    functions: Vec<Function>,
    test_lines: Vec<RangeInclusive<usize>>,
    test_modules: Vec<String>,
}

impl Walker {
    fn note_test(&mut self, item: &impl Spanned) {
        let span = item.span();
        self.test_lines.push(span.start().line..=span.end().line);
    }

    fn note_function(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let line = signature.span().start().line;
        let line_count = body.span().end().line - line + 1;
        self.functions.push(Function { name: signature.ident.to_string(), line, line_count });
    }
}

impl<'ast> Visit<'ast> for Walker {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_test_only(attributes(item)) {
            return visit::visit_item(self, item);
        }
        self.note_test(item);
        if let Item::Mod(module) = item {
            self.test_modules.push(module.ident.to_string());
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.note_function(&item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_test_only(&item.attrs) {
            self.note_test(item);
        } else {
            self.note_function(&item.sig, &item.block);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.note_function(&item.sig, body);
        }
    }
}

fn flatten(stream: TokenStream) -> Vec<SourceToken> {
    let mut tokens = Vec::new();
    flatten_into(stream, &mut tokens);
    tokens
}

fn flatten_into(stream: TokenStream, tokens: &mut Vec<SourceToken>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = signs(group.delimiter());
                tokens.push(SourceToken { text: open.to_owned(), line });
                flatten_into(group.stream(), tokens);
                let line = group.span_close().start().line;
                tokens.push(SourceToken { text: close.to_owned(), line });
            }
            leaf => tokens.push(SourceToken { text: leaf.to_string(), line }),
        }
    }
}

fn signs(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Source {
        Source::parse("crates/a/src/b.rs", text).expect("readable Rust")
    }

    #[test]
    fn items_that_need_a_test_build_are_test_lines() {
        let check = |condition: &str, expect| {
            let source = parse(&format!("fn a() {{}}\n{condition}\nfn b() {{\n}}\nfn c() {{}}\n"));
            let lines: Vec<usize> = (1..=5).filter(|&line| source.is_test_line(line)).collect();
            assert_eq!(lines, expect, "{condition}");
        };
        check("#[cfg(test)]", vec![2, 3, 4]);
        check("#[test]", vec![2, 3, 4]);
        check("#[cfg(all(test, unix))]", vec![2, 3, 4]);
        check("#[cfg(any(test, all(test, unix)))]", vec![2, 3, 4]);
        check(r#"#[cfg(any(test, feature = "testing"))]"#, vec![]);
        check("#[cfg(not(test))]", vec![]);
        check("#[inline]", vec![]);
    }

    #[test]
    fn lines_of_tests_do_not_count() {
        let source = parse("#[cfg(test)]\nuse a::b;\n\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n}\n");
        assert_eq!(source.line_count_without_tests(), 3);
    }

    #[test]
    fn files_are_tests_by_place_by_name_and_by_inner_attribute() {
        let check = |path: &str, text: &str, expect| {
            assert_eq!(Source::parse(path, text).expect("readable Rust").is_test, expect, "{path}");
        };
        check("crates/a/tests/b.rs", "", true);
        check("crates/a/src/tests.rs", "", true);
        check("crates/a/src/b/tests/c.rs", "", true);
        check("crates/a/src/b.rs", "", false);
        check("crates/a/src/b.rs", "#![cfg(test)]", true);
    }

    #[test]
    fn files_of_modules_declared_for_tests_are_tests() {
        let file = |path: &str, text: &str| Source::parse(path, text).expect("readable Rust");
        let mut sources = [
            file("crates/a/src/lib.rs", "#[cfg(test)] mod walk; mod real;"),
            file("crates/a/src/walk.rs", ""),
            file("crates/a/src/walk/deep.rs", ""),
            file("crates/a/src/real.rs", "#[cfg(test)] mod twin;"),
            file("crates/a/src/real/twin.rs", ""),
            file("crates/b/src/walk.rs", ""),
        ];
        mark_test_modules(&mut sources);
        assert_eq!(sources.map(|source| source.is_test), [false, true, true, false, true, false]);
    }

    #[test]
    fn functions_have_name_place_and_length() {
        let text = "impl A {\n    /// Doc.\n    pub fn one(\n    ) {\n        fn inner() {}\n    }\n}\n\
                    trait T { fn bare(); fn two() {} }\n#[cfg(test)]\nfn three() {}\n";
        let function = |name: &str, line, line_count| Function { name: name.to_owned(), line, line_count };
        assert_eq!(parse(text).functions, [function("one", 3, 4), function("two", 8, 1)]);
    }

    #[test]
    fn tokens_know_their_lines_and_leave_comments_out() {
        let source = parse("// a\nfn b() {\n    c(\"d\")\n}\n");
        let shown: Vec<String> =
            source.tokens.iter().map(|token| format!("{}@{}", token.text, token.line)).collect();
        assert_eq!(shown.join(" "), "fn@2 b@2 (@2 )@2 {@2 c@3 (@3 \"d\"@3 )@3 }@4");
    }

    #[test]
    fn what_is_no_rust_is_refused_with_its_place() {
        let check = |text: &str, line| {
            assert_eq!(Source::parse("a.rs", text).expect_err("no Rust").line, line, "{text}");
        };
        check("fn a() {}\nfn fn", 2);
        check("fn a() {}\n)", 2);
    }
}
