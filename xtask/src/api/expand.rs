//! The crate's own `macro_rules!`, expanded as far as a listing needs: the items that an invocation
//! writes are then read like any others.
//!
//! This is not the compiler's expander. A fragment that may have many tokens, such as a type, ends at
//! the next token that its matcher names; a macro that needs more stays an invocation in the listing.

use std::collections::BTreeMap;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use syn::Item;

use super::tree::{macro_definition, macro_invocation};

/// How many times the items of a macro are expanded again.
const DEPTH_MAX: usize = 8;

/// The macros of a crate, by name.
pub(super) struct Macros {
    rules: BTreeMap<String, Vec<Rule>>,
}

/// One arm of a macro.
struct Rule {
    matcher: Vec<TokenTree>,
    body: Vec<TokenTree>,
}

/// What the variables of a matcher stand for.
type Bindings = BTreeMap<String, Binding>;

#[derive(Clone)]
enum Binding {
    /// One for each round of the repetition that the variable stands in.
    Many(Vec<Bindings>),
    One(Vec<TokenTree>),
}

impl Macros {
    pub(super) fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let definitions = items.filter_map(macro_definition);
        let named = definitions.filter_map(|item| {
            let name = item.ident.as_ref()?.to_string();
            Some((name, rules(&trees(item.mac.tokens.clone()))))
        });
        Self { rules: named.collect() }
    }

    /// The items with every invocation replaced by what it writes, where that can be told.
    pub(super) fn expand(&self, items: Vec<Item>) -> Vec<Item> {
        self.expand_within(items, DEPTH_MAX)
    }

    fn expand_within(&self, items: Vec<Item>, depth: usize) -> Vec<Item> {
        let expanded = items.into_iter().flat_map(|item| match self.written_by(&item) {
            Some(written) if depth > 0 => self.expand_within(written, depth - 1),
            _ => vec![item],
        });
        expanded.collect()
    }

    /// The items that `item` writes, if it is an invocation that can be expanded.
    fn written_by(&self, item: &Item) -> Option<Vec<Item>> {
        let invocation = macro_invocation(item)?;
        let name = invocation.mac.path.segments.last()?.ident.to_string();
        let arguments = trees(invocation.mac.tokens.clone());
        let tokens = self.rules.get(&name)?.iter().find_map(|rule| rule.apply(&arguments))?;
        syn::parse2::<syn::File>(tokens).ok().map(|file| file.items)
    }
}

impl Rule {
    /// What the rule writes for these arguments, if they match.
    fn apply(&self, arguments: &[TokenTree]) -> Option<TokenStream> {
        let mut input = Input { trees: arguments, next: 0 };
        let bindings = match_all(&self.matcher, &mut input)?;
        input.rest().is_empty().then(|| transcribe(&self.body, &bindings).into_iter().collect())
    }
}

/// The arms of a macro: `(matcher) => { body }`, with a semicolon between two.
fn rules(definition: &[TokenTree]) -> Vec<Rule> {
    let groups = definition.iter().filter_map(|tree| match tree {
        TokenTree::Group(group) => Some(trees(group.stream())),
        _ => None,
    });
    let mut groups = groups.fuse();
    let mut rules = Vec::new();
    while let (Some(matcher), Some(body)) = (groups.next(), groups.next()) {
        rules.push(Rule { matcher, body });
    }
    rules
}

/// Arguments that are not matched yet.
struct Input<'a> {
    trees: &'a [TokenTree],
    next: usize,
}

impl<'a> Input<'a> {
    fn rest(&self) -> &'a [TokenTree] {
        &self.trees[self.next..]
    }

    fn take(&mut self) -> Option<&'a TokenTree> {
        let tree = self.trees.get(self.next)?;
        self.next += 1;
        Some(tree)
    }
}

/// One part of a matcher or a body.
enum Piece<'a> {
    /// `$( .. ) separator *`
    Repetition {
        inner: Vec<TokenTree>,
        separator: Option<&'a TokenTree>,
    },
    Tree(&'a TokenTree),
    /// `$name`, in a matcher with its `:fragment`.
    Variable(String),
}

/// The first piece of `trees`, and what follows it. The fragments of a matcher are pieces of their
/// own: a colon and a name.
fn piece(trees: &[TokenTree]) -> Option<(Piece<'_>, &[TokenTree])> {
    match trees {
        [dollar, TokenTree::Ident(name), rest @ ..] if is_sign(dollar, '$') => {
            Some((Piece::Variable(name.to_string()), rest))
        }
        [dollar, TokenTree::Group(group), rest @ ..] if is_sign(dollar, '$') => {
            let inner = self::trees(group.stream());
            let (separator, rest) = match rest {
                [operator, rest @ ..] if is_operator(operator) => (None, rest),
                [separator, _, rest @ ..] => (Some(separator), rest),
                _ => return None,
            };
            Some((Piece::Repetition { inner, separator }, rest))
        }
        [tree, rest @ ..] => Some((Piece::Tree(tree), rest)),
        [] => None,
    }
}

fn match_all(matcher: &[TokenTree], input: &mut Input<'_>) -> Option<Bindings> {
    let mut bindings = Bindings::new();
    let mut left = matcher;
    while let Some((piece, rest)) = piece(left) {
        left = rest;
        match piece {
            Piece::Repetition { inner, separator } => match_rounds(&inner, separator, input, &mut bindings),
            Piece::Tree(TokenTree::Group(group)) => bindings.extend(match_group(group, input)?),
            Piece::Tree(tree) => {
                input.take().filter(|found| found.to_string() == tree.to_string())?;
            }
            Piece::Variable(name) => {
                let [_, TokenTree::Ident(fragment), after @ ..] = left else { return None };
                bindings.insert(name, Binding::One(match_fragment(&fragment.to_string(), after, input)?));
                left = after;
            }
        }
    }
    Some(bindings)
}

fn match_group(group: &Group, input: &mut Input<'_>) -> Option<Bindings> {
    let Some(TokenTree::Group(found)) = input.take() else { return None };
    let inner = trees(found.stream());
    let mut inside = Input { trees: &inner, next: 0 };
    let bindings = match_all(&trees(group.stream()), &mut inside)?;
    (found.delimiter() == group.delimiter() && inside.rest().is_empty()).then_some(bindings)
}

/// Matches `inner` as often as it goes.
fn match_rounds(
    inner: &[TokenTree],
    separator: Option<&TokenTree>,
    input: &mut Input<'_>,
    bindings: &mut Bindings,
) {
    let mut rounds = Vec::new();
    while !input.rest().is_empty() {
        let mut attempt = Input { trees: input.trees, next: input.next };
        let is_separated = rounds.is_empty()
            || separator.is_none_or(|sign| attempt.take().is_some_and(|found| same(found, sign)));
        let Some(round) = match_all(inner, &mut attempt).filter(|_| is_separated) else { break };
        if attempt.next == input.next {
            break;
        }
        input.next = attempt.next;
        rounds.push(round);
    }
    for name in variables(inner) {
        bindings.insert(name, Binding::Many(rounds.clone()));
    }
}

/// The trees of one fragment: one, or all up to the next token that the matcher names.
fn match_fragment(fragment: &str, after: &[TokenTree], input: &mut Input<'_>) -> Option<Vec<TokenTree>> {
    let end = after.first().filter(|tree| !is_sign(tree, '$'));
    let length = match fragment {
        "ident" => input.rest().iter().take(1).filter(|tree| matches!(tree, TokenTree::Ident(_))).count(),
        "block" | "tt" => input.rest().len().min(1),
        "vis" => visibility_length(input.rest()),
        _ => input.rest().iter().take_while(|tree| end.is_none_or(|end| !same(tree, end))).count(),
    };
    let taken = input.rest()[..length].to_vec();
    input.next += length;
    (length > 0 || fragment == "vis").then_some(taken)
}

/// How many trees `pub`, `pub(crate)` or nothing at all have.
fn visibility_length(trees: &[TokenTree]) -> usize {
    match trees {
        [TokenTree::Ident(word), rest @ ..] if word == "pub" => {
            let is_parenthesis = |tree: &TokenTree| matches!(tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis);
            1 + rest.iter().take(1).filter(|tree| is_parenthesis(tree)).count()
        }
        _ => 0,
    }
}

fn transcribe(body: &[TokenTree], bindings: &Bindings) -> Vec<TokenTree> {
    let mut written = Vec::new();
    let mut left = body;
    while let Some((piece, rest)) = piece(left) {
        left = rest;
        match piece {
            Piece::Repetition { inner, separator } => {
                written.extend(transcribe_rounds(&inner, separator, bindings));
            }
            Piece::Tree(TokenTree::Group(group)) => {
                let inner = transcribe(&trees(group.stream()), bindings);
                written.push(Group::new(group.delimiter(), inner.into_iter().collect()).into());
            }
            Piece::Tree(tree) => written.push(tree.clone()),
            Piece::Variable(name) => match bindings.get(&name) {
                Some(Binding::One(trees)) => written.extend(trees.iter().cloned()),
                // `$crate`, the only name with a dollar that no matcher binds.
                _ => written.push(proc_macro2::Ident::new(&name, proc_macro2::Span::call_site()).into()),
            },
        }
    }
    written
}

fn transcribe_rounds(
    inner: &[TokenTree],
    separator: Option<&TokenTree>,
    bindings: &Bindings,
) -> Vec<TokenTree> {
    let rounds = variables(inner).into_iter().find_map(|name| match bindings.get(&name) {
        Some(Binding::Many(rounds)) => Some(rounds.as_slice()),
        _ => None,
    });
    let mut written = Vec::new();
    for round in rounds.unwrap_or_default() {
        if !written.is_empty() {
            written.extend(separator.cloned());
        }
        let mut all = bindings.clone();
        all.extend(round.clone());
        written.extend(transcribe(inner, &all));
    }
    written
}

/// The variables of a matcher or body, however deep.
fn variables(of: &[TokenTree]) -> Vec<String> {
    let mut names = Vec::new();
    let mut left = of;
    while let Some((piece, rest)) = piece(left) {
        left = rest;
        match piece {
            Piece::Repetition { inner, .. } => names.extend(variables(&inner)),
            Piece::Tree(TokenTree::Group(group)) => names.extend(variables(&trees(group.stream()))),
            Piece::Tree(_) => {}
            Piece::Variable(name) => names.push(name),
        }
    }
    names
}

fn trees(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}

fn same(one: &TokenTree, other: &TokenTree) -> bool {
    one.to_string() == other.to_string()
}

fn is_operator(tree: &TokenTree) -> bool {
    ['*', '+', '?'].iter().any(|&sign| is_sign(tree, sign))
}

fn is_sign(tree: &TokenTree, sign: char) -> bool {
    matches!(tree, TokenTree::Punct(punct) if punct.as_char() == sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expands a file and shows its items, the definitions left out.
    fn check(text: &str, expect: &str) {
        let file = syn::parse_file(text).expect("readable Rust");
        let macros = Macros::of(file.items.iter());
        let mut expanded = file.clone();
        expanded.items = macros.expand(file.items);
        expanded.items.retain(|item| macro_definition(item).is_none());
        let expect = syn::parse_file(expect).expect("readable Rust");
        assert_eq!(prettyplease::unparse(&expanded), prettyplease::unparse(&expect), "{text}");
    }

    #[test]
    fn variables_stand_for_what_they_match() {
        check(
            "macro_rules! m { ($a:ident, $b:ty, $c:expr) => { pub const $a: $b = $c; } }\n\
             m!(A, Vec<u8>, f(1, 2) + 3);",
            "pub const A: Vec<u8> = f(1, 2) + 3;",
        );
        check(
            "macro_rules! m { ($v:vis $a:ident) => { $v struct $a; } }\nm!(A);\nm!(pub(crate) B);",
            "struct A;\npub(crate) struct B;",
        );
    }

    #[test]
    fn repetitions_write_one_round_for_each_they_match() {
        let rule = "macro_rules! m { ($($(#[$d:meta])* $a:ident($b:ty)),* $(,)?) => { $($(#[$d])* pub struct $a($b);)* } }";
        check(&format!("{rule}\nm!();"), "");
        check(&format!("{rule}\nm!(A(u8));"), "pub struct A(u8);");
        check(
            &format!("{rule}\nm!(#[b] #[c(d)] A(u8), B(u16),);"),
            "#[b] #[c(d)] pub struct A(u8);\npub struct B(u16);",
        );
        check("macro_rules! m { ($($a:ident)|+) => { use b::{$($a),+}; } }\nm!(c | d);", "use b::{c, d};");
    }

    #[test]
    fn the_first_arm_that_matches_counts() {
        check(
            "macro_rules! m { (a $b:ident) => { struct $b; }; ($b:ident) => { enum $b {} } }\nm!(a C);\nm!(D);",
            "struct C;\nenum D {}",
        );
    }

    #[test]
    fn macros_in_macros_are_expanded_up_to_a_bound() {
        check(
            "macro_rules! one { ($a:ident) => { struct $a; } }\n\
             macro_rules! all { ($($a:ident)*) => { $(one!($a);)* } }\nall!(A B);",
            "struct A;\nstruct B;",
        );
        check("macro_rules! m { () => { m!(); } }\nm!();", "m!();");
    }

    #[test]
    fn what_matches_no_arm_or_is_from_elsewhere_stays() {
        check(
            "macro_rules! m { ($a:ident) => { struct $a; } }\nm!(1);\nm!(A B);\nn!(A);",
            "m!(1);\nm!(A B);\nn!(A);",
        );
    }
}
