//! Which items are public, and in which part of the listing each stands.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Item, ItemUse, Visibility};

use super::tree::{
    Import, ItemPlace, Module, ModulePath, Target, Tree, has_word, imports, macro_definition,
    macro_invocation,
};

/// The public modules of a crate by their public paths, and what each shows.
pub(super) struct Plan {
    pub(super) parts: BTreeMap<ModulePath, Part>,
    /// Every item in the parts.
    listed: BTreeSet<ItemPlace>,
}

/// One public module.
pub(super) struct Part {
    /// The module's place in the sources.
    pub(super) module: ModulePath,
    pub(super) entries: Vec<Entry>,
}

/// One line of a part, or one item with all that belongs to it.
pub(super) enum Entry {
    Item(ItemPlace),
    Use(ItemUse),
}

impl Plan {
    pub(super) fn of(tree: &Tree) -> Self {
        let mut planner =
            Planner { tree, parts: BTreeMap::new(), listed: BTreeSet::new(), spread: BTreeSet::new() };
        if let Some(root) = tree.module(&[]) {
            planner.part(root, Vec::new());
        }
        Self { parts: planner.parts, listed: planner.listed }
    }

    pub(super) fn lists(&self, place: &ItemPlace) -> bool {
        self.listed.contains(place)
    }
}

struct Planner<'a> {
    tree: &'a Tree,
    parts: BTreeMap<ModulePath, Part>,
    listed: BTreeSet<ItemPlace>,
    /// The private modules whose items a `*` has shown. Without it, two modules that show all of
    /// each other would never come to an end.
    spread: BTreeSet<ModulePath>,
}

impl<'a> Planner<'a> {
    /// Makes `module` a part that users know by `name`, and all public modules below it.
    fn part(&mut self, module: &'a Module, name: ModulePath) {
        if self.parts.contains_key(&name) {
            return;
        }
        // An empty part first, so that modules which show each other come to an end.
        self.parts.insert(name.clone(), Part { module: module.path.clone(), entries: Vec::new() });
        let mut entries = Vec::new();
        self.show(module, &name, &mut entries);
        if name.is_empty() {
            self.exported_macros(&mut entries);
        }
        self.parts.insert(name, Part { module: module.path.clone(), entries });
    }

    /// Adds what `module` makes public to `entries`, the part that users know by `name`.
    fn show(&mut self, module: &'a Module, name: &[String], entries: &mut Vec<Entry>) {
        for (number, item) in module.items.iter().enumerate() {
            match item {
                Item::Use(item) if is_public(&item.vis) => self.show_use(module, item, name, entries),
                Item::Mod(item) if is_public(&item.vis) => {
                    self.show_module(&joined(&module.path, &item.ident.to_string()), name);
                }
                item if is_shown(item) => self.show_item((module.path.clone(), number), entries),
                _ => {}
            }
        }
    }

    fn show_module(&mut self, path: &[String], name: &[String]) {
        if let (Some(module), Some(last)) = (self.tree.module(path), path.last()) {
            self.part(module, joined(name, last));
        }
    }

    fn show_item(&mut self, place: ItemPlace, entries: &mut Vec<Entry>) {
        if self.listed.insert(place.clone()) {
            entries.push(Entry::Item(place));
        }
    }

    fn show_use(&mut self, module: &'a Module, item: &ItemUse, name: &[String], entries: &mut Vec<Entry>) {
        entries.push(Entry::Use(item.clone()));
        for import in imports(&item.tree) {
            self.show_import(module, &import, name, entries);
        }
    }

    /// Shows what a private module hides and `import` makes public.
    fn show_import(
        &mut self,
        module: &'a Module,
        import: &Import,
        name: &[String],
        entries: &mut Vec<Entry>,
    ) {
        match (self.tree.resolve(&module.path, &import.path), &import.name) {
            (Some(Target::Items(places)), _) => {
                for place in places.into_iter().filter(|(path, _)| !self.tree.is_reachable(path)) {
                    self.show_item(place, entries);
                }
            }
            (Some(Target::Module(hidden)), _) if self.tree.is_reachable(&hidden.path) => {}
            (Some(Target::Module(hidden)), Some(own)) => self.part(hidden, joined(name, own)),
            (Some(Target::Module(hidden)), None) if self.spread.insert(hidden.path.clone()) => {
                self.show(hidden, name, entries);
            }
            _ => {}
        }
    }

    /// Macros that are exported stand at the root, wherever they are written.
    fn exported_macros(&mut self, entries: &mut Vec<Entry>) {
        for module in self.tree.modules() {
            for (number, item) in module.items.iter().enumerate() {
                let exported = macro_definition(item)
                    .is_some_and(|item| item.attrs.iter().any(|one| one.path().is_ident("macro_export")));
                if exported {
                    self.show_item((module.path.clone(), number), entries);
                }
            }
        }
    }
}

fn is_shown(item: &Item) -> bool {
    if let Some(invocation) = macro_invocation(item) {
        // A macro from elsewhere that seems to write public items.
        return has_word(&invocation.mac.tokens, "pub");
    }
    match item {
        Item::Const(item) => is_public(&item.vis),
        Item::Enum(item) => is_public(&item.vis),
        Item::ExternCrate(item) => is_public(&item.vis),
        Item::Fn(item) => is_public(&item.vis),
        Item::Static(item) => is_public(&item.vis),
        Item::Struct(item) => is_public(&item.vis),
        Item::Trait(item) => is_public(&item.vis),
        Item::TraitAlias(item) => is_public(&item.vis),
        Item::Type(item) => is_public(&item.vis),
        Item::Union(item) => is_public(&item.vis),
        _ => false,
    }
}

fn joined(path: &[String], name: &str) -> ModulePath {
    [path, &[name.to_owned()]].concat()
}

/// Whether everybody may use what has this visibility; `pub(crate)` is not enough.
pub(super) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}
