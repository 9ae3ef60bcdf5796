//! Items as text: without bodies, comments, private fields, and attributes that mean nothing to a
//! caller.

use proc_macro2::TokenStream;
use syn::{
    Attribute, Block, Expr, Field, Fields, FnArg, ImplItem, Item, ItemConst, ItemImpl, ItemMacro, ItemTrait,
    Meta, Pat, ReceiverKind, Signature, TraitItem, Type,
};

use super::impls::{Impl, Impls};
use super::plan::{Entry, Part, Plan, is_public};
use super::tree::Tree;

/// Attributes that change what a caller can do.
const KEPT_ATTRIBUTES: &[&str] = &[
    "cfg",
    "cfg_attr",
    "default",
    "deprecated",
    "derive",
    "from",
    "macro_export",
    "must_use",
    "non_exhaustive",
    "repr",
];

/// The longest value of a constant that is shown; a longer one is shown as `_`.
const VALUE_CHARACTERS_MAX: usize = 100;

/// Stands for a body that callers do not see.
const BODY: &str = "__body_left_out";
/// Stands for the body of a trait's method that implementors need not write.
const PROVIDED: &str = "__body_provided";
/// Stands for the fields that callers do not see.
const PRIVATE: &str = "__private_fields";

/// The whole listing of `package`.
pub(super) fn listing(package: &str, tree: &Tree, plan: &Plan, impls: &Impls<'_>) -> String {
    let renderer = Renderer { tree, plan, impls };
    let root = package.replace('-', "_");
    let mut text = format!(
        "// The public interface of {package}. A test compares it with the sources; once a change\n\
         // of it is decided, `{}` writes it anew.\n",
        crate::tidy::public_api::BLESS
    );
    for (path, part) in plan.parts.iter().filter(|(_, part)| !part.entries.is_empty()) {
        text.push_str(&renderer.part(&root, path, part));
    }
    text
}

struct Renderer<'a> {
    tree: &'a Tree,
    plan: &'a Plan,
    impls: &'a Impls<'a>,
}

impl Renderer<'_> {
    fn part(&self, root: &str, path: &[String], part: &Part) -> String {
        let name = [&[root.to_owned()], path].concat().join("::");
        let module = self.tree.module(&part.module);
        let attributes = module.map(|module| attribute_lines(&module.attributes)).unwrap_or_default();
        let entries: Vec<String> = part.entries.iter().map(|entry| self.entry(entry)).collect();
        format!("\n// ---- {name}{attributes}\n\n{}", entries.join("\n"))
    }

    fn entry(&self, entry: &Entry) -> String {
        match entry {
            Entry::Use(item) => item_text(Item::Use(item.clone())),
            Entry::Item(place) => {
                let own = item_text(self.tree.item(place).clone());
                let impls = self.impls.belonging_to(place).iter();
                let impls = impls.filter(|one| self.is_shown(one)).filter_map(|one| impl_text(one.item));
                std::iter::once(own).chain(impls).collect()
            }
        }
    }

    /// An impl of a private trait is of no use to a caller.
    fn is_shown(&self, one: &Impl<'_>) -> bool {
        one.own_trait.as_ref().is_none_or(|place| self.plan.lists(place))
    }
}

/// The attributes of a module, for the line that begins its part.
fn attribute_lines(attributes: &[Attribute]) -> String {
    let mut module: Item = parsed("mod m;");
    if let Item::Mod(module) = &mut module {
        module.attrs = attributes.to_vec();
        keep_attributes(&mut module.attrs);
    }
    let text = unparse(vec![module]);
    text.lines().filter(|line| line.starts_with('#')).map(|line| format!(" {line}")).collect()
}

fn item_text(mut item: Item) -> String {
    strip(&mut item);
    finish(&unparse(vec![item]))
}

/// An impl of a type: its public parts, or nothing if it has none.
fn impl_text(item: &ItemImpl) -> Option<String> {
    let mut item = item.clone();
    keep_attributes(&mut item.attrs);
    let is_inherent = item.trait_.is_none();
    item.items.retain(|part| if is_inherent { is_public_part(part) } else { is_header_part(part) });
    if is_inherent && item.items.is_empty() {
        return None;
    }
    item.items.iter_mut().for_each(strip_impl_item);
    Some(finish(&unparse(vec![Item::Impl(item)])))
}

fn is_public_part(part: &ImplItem) -> bool {
    match part {
        ImplItem::Const(part) => is_public(&part.vis),
        ImplItem::Fn(part) => is_public(&part.vis),
        ImplItem::Type(part) => is_public(&part.vis),
        ImplItem::Macro(_) => true,
        _ => false,
    }
}

fn is_header_part(part: &ImplItem) -> bool {
    matches!(part, ImplItem::Const(_) | ImplItem::Type(_))
}

fn strip(item: &mut Item) {
    match item {
        Item::Const(item) => strip_const(item),
        Item::Enum(item) => {
            keep_attributes(&mut item.attrs);
            for variant in &mut item.variants {
                keep_attributes(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| keep_attributes(&mut field.attrs));
            }
        }
        Item::ExternCrate(item) => keep_attributes(&mut item.attrs),
        Item::Fn(item) => {
            keep_attributes(&mut item.attrs);
            strip_signature(&mut item.sig);
            *item.block = block(BODY);
        }
        Item::Macro(item) => strip_macro(item),
        Item::Static(item) => {
            keep_attributes(&mut item.attrs);
            *item.expr = parsed("_");
        }
        Item::Struct(item) => {
            keep_attributes(&mut item.attrs);
            strip_fields(&mut item.fields);
        }
        Item::Trait(item) => strip_trait(item),
        Item::TraitAlias(item) => keep_attributes(&mut item.attrs),
        Item::Type(item) => keep_attributes(&mut item.attrs),
        Item::Union(item) => keep_attributes(&mut item.attrs),
        Item::Use(item) => keep_attributes(&mut item.attrs),
        _ => {}
    }
}

fn strip_const(item: &mut ItemConst) {
    keep_attributes(&mut item.attrs);
    let text = unparse(vec![Item::Const(item.clone())]);
    let value = text.split_once(" = ").map_or("", |(_, value)| value);
    if value.chars().count() > VALUE_CHARACTERS_MAX {
        *item.expr = parsed("_");
    }
}

/// An exported macro is shown by its name, an invocation as it stands.
fn strip_macro(item: &mut ItemMacro) {
    keep_attributes(&mut item.attrs);
    if item.ident.is_some() {
        item.mac.tokens = TokenStream::new();
    }
}

fn strip_fields(fields: &mut Fields) {
    match fields {
        Fields::Named(fields) => {
            let count = fields.named.len();
            fields.named =
                std::mem::take(&mut fields.named).into_iter().filter(|field| is_public(&field.vis)).collect();
            if fields.named.len() < count {
                fields.named.push(private_field());
            }
        }
        Fields::Unnamed(fields) => {
            for field in fields.unnamed.iter_mut().filter(|field| !is_public(&field.vis)) {
                field.ty = parsed::<Type>("_");
            }
        }
        Fields::Unit => {}
    }
    fields.iter_mut().for_each(|field| keep_attributes(&mut field.attrs));
}

fn private_field() -> Field {
    let item: syn::ItemStruct = parsed(&format!("struct S {{ {PRIVATE}: () }}"));
    item.fields.iter().next().cloned().expect("the struct has one field")
}

fn strip_trait(item: &mut ItemTrait) {
    keep_attributes(&mut item.attrs);
    for part in &mut item.items {
        match part {
            TraitItem::Const(part) => keep_attributes(&mut part.attrs),
            TraitItem::Fn(part) => {
                keep_attributes(&mut part.attrs);
                strip_signature(&mut part.sig);
                part.default = part.default.as_ref().map(|_| block(PROVIDED));
            }
            TraitItem::Type(part) => keep_attributes(&mut part.attrs),
            _ => {}
        }
    }
}

fn strip_impl_item(part: &mut ImplItem) {
    match part {
        ImplItem::Const(part) => keep_attributes(&mut part.attrs),
        ImplItem::Fn(part) => {
            keep_attributes(&mut part.attrs);
            strip_signature(&mut part.sig);
            part.block = block(BODY);
        }
        ImplItem::Type(part) => keep_attributes(&mut part.attrs),
        _ => {}
    }
}

/// A `mut` before the name of an argument is no matter of the caller.
fn strip_signature(signature: &mut Signature) {
    for argument in &mut signature.inputs {
        match argument {
            FnArg::Receiver(receiver) if matches!(receiver.kind, ReceiverKind::Value) => {
                receiver.mutability = None;
            }
            FnArg::Typed(argument) => {
                if let Pat::Ident(pattern) = &mut *argument.pat {
                    pattern.mutability = None;
                }
            }
            FnArg::Receiver(_) => {}
        }
    }
}

fn keep_attributes(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| {
        is_hidden(attribute) || KEPT_ATTRIBUTES.iter().any(|name| attribute.path().is_ident(name))
    });
}

/// `#[doc(hidden)]`: callers can use the item, and are told not to.
fn is_hidden(attribute: &Attribute) -> bool {
    attribute.path().is_ident("doc") && matches!(&attribute.meta, Meta::List(_))
}

fn block(marker: &str) -> Block {
    let body: Expr = parsed(marker);
    let mut block: Block = parsed("{}");
    block.stmts.push(syn::Stmt::Expr(body, None));
    block
}

fn parsed<T: syn::parse::Parse>(text: &str) -> T {
    syn::parse_str(text).expect("the text is a constant of this file")
}

fn unparse(items: Vec<Item>) -> String {
    let mut file: syn::File = parsed("");
    file.items = items;
    prettyplease::unparse(&file)
}

/// Replaces the markers by what a reader expects there, and takes no line for each derived trait.
fn finish(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut rest = text.lines();
    while let Some(line) = rest.next() {
        match line.trim() {
            marker if marker == BODY || marker == PROVIDED => {
                rest.next();
                close(&mut lines, marker == PROVIDED);
            }
            "#[derive(" => {
                let traits = rest.by_ref().map(str::trim).take_while(|line| *line != ")]");
                let traits = traits.collect::<Vec<_>>().join(" ");
                lines.push(format!("#[derive({})]", traits.trim_end_matches(',')));
            }
            marker if marker.starts_with(PRIVATE) => {
                let indent = line.len() - line.trim_start().len();
                lines.push(format!("{}// some fields are private", " ".repeat(indent)));
            }
            _ => lines.push(line.to_owned()),
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Ends the signature whose last line opens a body.
fn close(lines: &mut Vec<String>, is_provided: bool) {
    let opening = lines.pop().unwrap_or_default();
    let mut signature = opening.trim_end_matches('{').trim_end().to_owned();
    if signature.is_empty() {
        // The brace stood alone, after a where clause.
        let last = lines.pop().unwrap_or_default();
        signature = last.trim_end_matches(',').to_owned();
    }
    lines.push(signature + if is_provided { " { .. }" } else { ";" });
}
