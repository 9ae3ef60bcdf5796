//! The files and packages that the rules look at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::metadata::{Metadata, MetadataError, Package};
use crate::source::{Source, SourceError, mark_test_modules};

/// One checkout of the repository, read once.
#[derive(Debug)]
pub struct Checkout {
    /// The repository's root.
    pub root: PathBuf,
    /// The packages of the workspace.
    pub members: Vec<Package>,
    /// Every text file that git tracks or would track.
    pub texts: Vec<TextFile>,
    /// Every Rust file among them that can be read.
    pub sources: Vec<Source>,
    /// Every Rust file among them that cannot.
    pub unreadable: Vec<SourceError>,
}

/// One text file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextFile {
    /// Its place below the repository's root, with `/` between the parts.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Checkout {
    /// Reads the checkout at `root`. Costs a run of git, one of cargo, and reading every file once.
    pub fn open(root: &Path) -> Result<Self, CheckoutError> {
        let texts = texts(root)?;
        let (mut sources, unreadable) = sources(&texts);
        mark_test_modules(&mut sources);
        let members = Metadata::of_members(root)?.packages;
        Ok(Self { root: root.to_owned(), members, texts, sources, unreadable })
    }

    /// The text of the file at `path`, empty if there is none.
    #[must_use]
    pub fn text(&self, path: &str) -> &str {
        self.texts.iter().find(|file| file.path == path).map_or("", |file| &file.text)
    }

    /// The members that are crates of the house, without tools like this one.
    pub fn crates(&self) -> impl Iterator<Item = &Package> {
        self.members.iter().filter(|package| package.is_in_crates(&self.root))
    }
}

/// The root of the repository that this tool was built in.
#[must_use]
pub fn repository_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository's root")
}

fn texts(root: &Path) -> Result<Vec<TextFile>, CheckoutError> {
    let mut texts = Vec::new();
    for path in paths(root)? {
        // A tracked file can be missing from the disk, and a link can point to a folder.
        if let Ok(bytes) = fs::read(root.join(&path)) {
            texts.extend(as_text(path, bytes));
        }
    }
    Ok(texts)
}

fn as_text(path: String, bytes: Vec<u8>) -> Option<TextFile> {
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(TextFile { path, text })
}

/// The files that git tracks, and those it would: new ones that nothing tells it to ignore.
fn paths(root: &Path) -> Result<Vec<String>, CheckoutError> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(CheckoutError::Spawn)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(CheckoutError::Git { said });
    }
    let listed = String::from_utf8_lossy(&output.stdout);
    let mut paths: Vec<String> =
        listed.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

fn sources(texts: &[TextFile]) -> (Vec<Source>, Vec<SourceError>) {
    let (mut sources, mut unreadable) = (Vec::new(), Vec::new());
    for file in texts.iter().filter(|file| file.path.ends_with(".rs")) {
        match Source::parse(&file.path, &file.text) {
            Ok(source) => sources.push(source),
            Err(error) => unreadable.push(error),
        }
    }
    (sources, unreadable)
}

/// The checkout cannot be read. Nothing changed; trying again is harmless.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckoutError {
    /// Git refused to list the files.
    #[error("`git ls-files` failed: {said}")]
    Git {
        /// What git wrote to its error output.
        said: String,
    },
    /// Cargo gave no list of packages.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Git could not be started.
    #[error("git cannot be started")]
    Spawn(#[source] std::io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_counts() {
        let check = |bytes: &[u8], expect| {
            assert_eq!(as_text("a".to_owned(), bytes.to_vec()).is_some(), expect);
        };
        check(b"text", true);
        check(b"", true);
        check(b"a\0b", false);
        check(&[0xff, 0xfe], false);
    }

    #[test]
    fn rust_files_are_read_and_unreadable_ones_named() {
        let file = |path: &str, text: &str| TextFile { path: path.to_owned(), text: text.to_owned() };
        let (sources, unreadable) =
            sources(&[file("a.rs", "fn a() {}"), file("b.rs", "fn fn"), file("c.md", "fn fn")]);
        assert_eq!(sources.iter().map(|source| source.path.as_str()).collect::<Vec<_>>(), ["a.rs"]);
        assert_eq!(unreadable.iter().map(|error| error.path.as_str()).collect::<Vec<_>>(), ["b.rs"]);
    }
}
