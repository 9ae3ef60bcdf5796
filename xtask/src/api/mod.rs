//! The listing of a crate's public interface, read from its sources.
//!
//! The listing has one part for each public module, sorted by path, and in it the public items in
//! the order of their file: without bodies, comments and attributes that mean nothing to a caller,
//! each type followed by its public methods and the headers of its trait impls, wherever they
//! stand. An item that a private module hides and a `pub use` shows stands below that line.
//!
//! It is read from syntax alone, which keeps it independent of the compiler's version and costs a
//! few rules: what the crate's own simple macros write is listed as if it were written by hand, while
//! any other macro that may write public items is listed as its invocation; and a type is found by
//! paths and imports as they are written.

mod expand;
mod impls;
mod plan;
mod render;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

/// Lists the public interface of `package`, whose library has its root in the file `library`.
pub fn listing(package: &str, library: &Path) -> Result<String, ApiError> {
    listing_from(package, library, &|file| std::fs::read_to_string(file))
}

fn listing_from(package: &str, library: &Path, read: tree::Read<'_>) -> Result<String, ApiError> {
    let tree = tree::Tree::load(library, read)?;
    let plan = plan::Plan::of(&tree);
    let impls = impls::Impls::of(&tree);
    Ok(render::listing(package, &tree, &plan, &impls))
}

/// The sources cannot be listed. Nothing changed; they must be repaired first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The file of a module cannot be read, or is not where modules lie.
    #[error("{}: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What reading it said.
        source: io::Error,
    },
    /// The file of a module is not Rust that can be read.
    #[error("{}:{}: {source}", file.display(), source.span().start().line)]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where and why the parser stopped.
        source: syn::Error,
    },
}

#[cfg(test)]
mod tests;
