//! The modules of a crate, and what a path means in one of them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Attribute, Expr, ExprLit, Item, ItemMacro, ItemMod, Lit, Meta, UseTree, Visibility};

use super::ApiError;
use super::expand::Macros;
use crate::source::{attributes, is_test_only};

/// How many imports a path may lead through before it counts as leading nowhere.
const IMPORTS_MAX: usize = 8;

/// Reads a file.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// The names from the crate's root to a module; the root has none.
pub(super) type ModulePath = Vec<String>;

/// The place of an item: its module, and its number among the module's items.
pub(super) type ItemPlace = (ModulePath, usize);

/// Every module of a crate, without those of test builds.
pub(super) struct Tree {
    modules: BTreeMap<ModulePath, Module>,
}

/// One module.
pub(super) struct Module {
    pub(super) path: ModulePath,
    pub(super) is_public: bool,
    pub(super) attributes: Vec<Attribute>,
    /// Its items in the order of its file, without those of test builds, and with those that the
    /// crate's own macros write.
    pub(super) items: Vec<Item>,
}

/// What a path leads to.
pub(super) enum Target<'a> {
    /// The items of one name: a type and a function can share it.
    Items(Vec<ItemPlace>),
    Module(&'a Module),
}

/// One name that a `use` brings.
pub(super) struct Import {
    pub(super) path: Vec<String>,
    /// The name it gets here, or nothing for `*`.
    pub(super) name: Option<String>,
}

impl Tree {
    /// Reads the crate whose root is the file `library`.
    pub(super) fn load(library: &Path, read: Read<'_>) -> Result<Self, ApiError> {
        let mut loader = Loader { read, modules: BTreeMap::new() };
        let root = loader.file(library)?;
        let folder = library.parent().unwrap_or(Path::new("")).to_owned();
        loader.module(Module { path: Vec::new(), is_public: true, ..root }, &folder)?;
        let mut modules = loader.modules;
        let macros = Macros::of(modules.values().flat_map(|module| &module.items));
        for module in modules.values_mut() {
            module.items = macros.expand(std::mem::take(&mut module.items));
        }
        Ok(Self { modules })
    }

    pub(super) fn modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.values()
    }

    pub(super) fn module(&self, path: &[String]) -> Option<&Module> {
        self.modules.get(path)
    }

    pub(super) fn item(&self, (path, number): &ItemPlace) -> &Item {
        &self.modules[path].items[*number]
    }

    /// Whether every module on the way to `path` is public.
    pub(super) fn is_reachable(&self, path: &[String]) -> bool {
        (0..=path.len()).all(|length| self.module(&path[..length]).is_some_and(|module| module.is_public))
    }

    /// What `path` leads to if it stands in the module `from`; nothing if it leads out of the crate.
    pub(super) fn resolve(&self, from: &[String], path: &[String]) -> Option<Target<'_>> {
        self.resolve_within(from, path, IMPORTS_MAX)
    }

    fn resolve_within(&self, from: &[String], path: &[String], imports: usize) -> Option<Target<'_>> {
        let mut module = self.module(from)?;
        let mut rest = path;
        loop {
            let (first, after) = match rest {
                [] => return Some(Target::Module(module)),
                [last] if !is_relative(last) => return self.named(module, last, imports),
                [first, after @ ..] => (first, after),
            };
            module = self.step(module, first, imports)?;
            rest = after;
        }
    }

    /// The module that `name` leads to from `module`.
    fn step<'a>(&'a self, module: &'a Module, name: &str, imports: usize) -> Option<&'a Module> {
        match name {
            "crate" => self.module(&[]),
            "self" => Some(module),
            "super" => self.module(module.path.split_last()?.1),
            _ => self.child(module, name).or_else(|| match self.imported(module, name, imports)? {
                Target::Module(module) => Some(module),
                Target::Items(_) => None,
            }),
        }
    }

    fn named<'a>(&'a self, module: &'a Module, name: &str, imports: usize) -> Option<Target<'a>> {
        let numbers = defining(module, name);
        if !numbers.is_empty() {
            return Some(Target::Items(numbers.iter().map(|&at| (module.path.clone(), at)).collect()));
        }
        let child = self.child(module, name).map(Target::Module);
        child.or_else(|| self.imported(module, name, imports))
    }

    fn child(&self, module: &Module, name: &str) -> Option<&Module> {
        let path = [module.path.as_slice(), &[name.to_owned()]].concat();
        self.module(&path)
    }

    fn imported<'a>(&'a self, module: &'a Module, name: &str, imports: usize) -> Option<Target<'a>> {
        let imports = imports.checked_sub(1)?;
        let all: Vec<Import> = module.imports().collect();
        let by_name = all.iter().filter(|import| import.name.as_deref() == Some(name));
        let by_name = by_name.filter_map(|import| self.resolve_within(&module.path, &import.path, imports));
        let by_star = all.iter().filter(|import| import.name.is_none());
        let by_star =
            by_star.filter_map(|import| match self.resolve_within(&module.path, &import.path, imports)? {
                Target::Module(source) if source.path != module.path => self.named(source, name, imports),
                _ => None,
            });
        by_name.chain(by_star).next()
    }
}

impl Module {
    fn imports(&self) -> impl Iterator<Item = Import> {
        self.items.iter().flat_map(|item| match item {
            Item::Use(item) => imports(&item.tree),
            _ => Vec::new(),
        })
    }
}

/// The items of `module` that define `name`.
fn defining(module: &Module, name: &str) -> Vec<usize> {
    let numbered = module.items.iter().enumerate();
    let defining = numbered.filter(|(_, item)| item_name(item).is_some_and(|own| own == name));
    defining.map(|(number, _)| number).collect()
}

/// Every name that a `use` brings.
pub(super) fn imports(tree: &UseTree) -> Vec<Import> {
    let mut imports = Vec::new();
    collect_imports(tree, &mut Vec::new(), &mut imports);
    imports
}

fn collect_imports(tree: &UseTree, before: &mut Vec<String>, imports: &mut Vec<Import>) {
    match tree {
        UseTree::Path(tree) => {
            before.push(tree.ident.to_string());
            collect_imports(&tree.tree, before, imports);
            before.pop();
        }
        UseTree::Name(tree) => imports.push(import(before, &tree.ident.to_string(), None)),
        UseTree::Rename(tree) => {
            imports.push(import(before, &tree.ident.to_string(), Some(tree.rename.to_string())));
        }
        UseTree::Glob(_) => imports.push(Import { path: before.clone(), name: None }),
        UseTree::Group(tree) => tree.items.iter().for_each(|tree| collect_imports(tree, before, imports)),
    }
}

fn import(before: &[String], last: &str, rename: Option<String>) -> Import {
    let mut path = before.to_vec();
    // In a group, `self` is the module before the braces.
    if last != "self" || before.is_empty() {
        path.push(last.to_owned());
    }
    let name = rename.or_else(|| path.last().cloned());
    Import { path, name }
}

fn is_relative(name: &str) -> bool {
    matches!(name, "crate" | "self" | "super")
}

/// The name that an item has in its module.
pub(super) fn item_name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// The item as a `macro_rules!` definition, if it is one.
pub(super) fn macro_definition(item: &Item) -> Option<&ItemMacro> {
    match item {
        Item::Macro(item) if item.ident.is_some() => Some(item),
        _ => None,
    }
}

/// The item as an invocation of a macro, if it is one.
pub(super) fn macro_invocation(item: &Item) -> Option<&ItemMacro> {
    match item {
        Item::Macro(item) if item.ident.is_none() => Some(item),
        _ => None,
    }
}

/// Whether `word` stands anywhere in `tokens`.
pub(super) fn has_word(tokens: &TokenStream, word: &str) -> bool {
    tokens.clone().into_iter().any(|tree| match tree {
        TokenTree::Group(group) => has_word(&group.stream(), word),
        TokenTree::Ident(ident) => ident == word,
        _ => false,
    })
}

struct Loader<'a> {
    read: Read<'a>,
    modules: BTreeMap<ModulePath, Module>,
}

impl Loader<'_> {
    /// Takes in `module` and all below it, whose files lie in `folder`.
    fn module(&mut self, mut module: Module, folder: &Path) -> Result<(), ApiError> {
        module.items.retain(|item| !is_test_only(attributes(item)));
        for item in &module.items {
            if let Item::Mod(item) = item {
                let folder_below = folder.join(item.ident.to_string());
                let found = self.body(item, folder)?;
                let path = [module.path.as_slice(), &[item.ident.to_string()]].concat();
                let is_public = matches!(item.vis, Visibility::Public(_));
                let attributes = item.attrs.clone();
                self.module(Module { path, is_public, attributes, items: found.items }, &folder_below)?;
            }
        }
        self.modules.insert(module.path.clone(), module);
        Ok(())
    }

    fn body(&self, item: &ItemMod, folder: &Path) -> Result<Module, ApiError> {
        match &item.content {
            Some((_, items)) => Ok(Module::bare(items.clone())),
            None => self.file(&self.place(item, folder)),
        }
    }

    /// The file of a module that is declared without a body.
    fn place(&self, item: &ItemMod, folder: &Path) -> PathBuf {
        if let Some(named) = path_attribute(&item.attrs) {
            return folder.join(named);
        }
        let flat = folder.join(format!("{}.rs", item.ident));
        let nested = folder.join(item.ident.to_string()).join("mod.rs");
        if (self.read)(&nested).is_ok() { nested } else { flat }
    }

    fn file(&self, file: &Path) -> Result<Module, ApiError> {
        let text = (self.read)(file).map_err(|source| ApiError::Read { file: file.to_owned(), source })?;
        let parsed =
            syn::parse_file(&text).map_err(|source| ApiError::Syntax { file: file.to_owned(), source })?;
        Ok(Module::bare(parsed.items))
    }
}

impl Module {
    fn bare(items: Vec<Item>) -> Self {
        Self { path: Vec::new(), is_public: false, attributes: Vec::new(), items }
    }
}

/// The text of `#[path = "..."]`.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}
