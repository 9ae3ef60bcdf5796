//! Which impls belong to which item, wherever in the crate they stand.

use std::collections::BTreeMap;

use syn::{GenericArgument, Item, ItemImpl, Path, PathArguments, Type};

use super::tree::{ItemPlace, Target, Tree};

/// The impls of a crate by the item that they belong to, in the order of modules and files.
pub(super) struct Impls<'a> {
    by_item: BTreeMap<ItemPlace, Vec<Impl<'a>>>,
}

/// One impl.
pub(super) struct Impl<'a> {
    pub(super) item: &'a ItemImpl,
    /// The crate's own trait that it implements, if it is one.
    pub(super) own_trait: Option<ItemPlace>,
}

impl<'a> Impls<'a> {
    pub(super) fn of(tree: &'a Tree) -> Self {
        let mut by_item: BTreeMap<ItemPlace, Vec<Impl<'a>>> = BTreeMap::new();
        for module in tree.modules() {
            for item in &module.items {
                if let Item::Impl(item) = item
                    && let Some(owner) = owner(tree, &module.path, item)
                {
                    let own_trait =
                        item.trait_.as_ref().and_then(|(path, _)| place(tree, &module.path, path));
                    by_item.entry(owner).or_default().push(Impl { item, own_trait });
                }
            }
        }
        Self { by_item }
    }

    pub(super) fn belonging_to(&self, place: &ItemPlace) -> &[Impl<'a>] {
        self.by_item.get(place).map_or(&[], Vec::as_slice)
    }
}

/// The item that an impl belongs to: the type it is for or, if that is from elsewhere, the first
/// of the crate's own types in the arguments of the trait, as in `impl From<Own> for String`.
fn owner(tree: &Tree, module: &[String], item: &ItemImpl) -> Option<ItemPlace> {
    let own = own_type(tree, module, &item.self_ty);
    own.or_else(|| own_argument(tree, module, &item.trait_.as_ref()?.0))
}

fn own_type(tree: &Tree, module: &[String], of: &Type) -> Option<ItemPlace> {
    match of {
        Type::Reference(of) => own_type(tree, module, &of.elem),
        Type::Path(of) => place(tree, module, &of.path).or_else(|| own_argument(tree, module, &of.path)),
        _ => None,
    }
}

fn own_argument(tree: &Tree, module: &[String], path: &Path) -> Option<ItemPlace> {
    let PathArguments::AngleBracketed(arguments) = &path.segments.last()?.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(of) => own_type(tree, module, of),
        _ => None,
    })
}

fn place(tree: &Tree, module: &[String], path: &Path) -> Option<ItemPlace> {
    let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    match tree.resolve(module, &names)? {
        Target::Items(places) => places.into_iter().next(),
        Target::Module(_) => None,
    }
}
