//! What cargo knows about the packages of the workspace and of everything below them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// The answer of `cargo metadata`, as far as the rules read it.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    /// Every package: the members alone, or the members and all they depend on.
    pub packages: Vec<Package>,
    /// Where cargo builds.
    pub target_directory: PathBuf,
}

impl Metadata {
    /// Asks cargo about the members of the workspace in `root`. Needs no network and no lock file.
    pub fn of_members(root: &Path) -> Result<Self, MetadataError> {
        Self::ask(root, &["--no-deps"])
    }

    /// Asks cargo about every package in the lock file, whatever platform or feature it is for.
    /// Needs the sources of all of them: `cargo fetch` brings those that are missing.
    pub fn of_everything(root: &Path) -> Result<Self, MetadataError> {
        Self::ask(root, &["--all-features"])
    }

    fn ask(root: &Path, options: &[&str]) -> Result<Self, MetadataError> {
        let output = Command::new(cargo())
            .args(["metadata", "--format-version", "1"])
            .args(options)
            .current_dir(root)
            .output()
            .map_err(MetadataError::Spawn)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(MetadataError::Refused { said });
        }
        serde_json::from_slice(&output.stdout).map_err(MetadataError::Answer)
    }
}

/// One package.
#[derive(Debug, Clone, Deserialize)]
pub struct Package {
    /// Its name in the registry.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The licence expression, where the manifest has one.
    pub license: Option<String>,
    /// The place of its manifest.
    pub manifest_path: PathBuf,
    /// What its manifest asks for.
    pub dependencies: Vec<Dependency>,
}

impl Package {
    /// Whether the package lies in `crates/` of `root`: one of the house's own crates, no tool.
    #[must_use]
    pub fn is_in_crates(&self, root: &Path) -> bool {
        self.manifest_path.starts_with(root.join("crates"))
    }

    /// The root file of the package's library, if the package has one.
    #[must_use]
    pub fn library(&self) -> Option<PathBuf> {
        let file = self.manifest_path.with_file_name("src").join("lib.rs");
        file.is_file().then_some(file)
    }
}

/// One dependency line of a manifest.
#[derive(Debug, Clone, Deserialize)]
pub struct Dependency {
    /// The package's name in the registry, also where the manifest renames it.
    pub name: String,
    /// What the dependency is for.
    #[serde(deserialize_with = "kind_or_normal")]
    pub kind: DependencyKind,
    /// The folder of the package, where it is one of the house's own.
    pub path: Option<PathBuf>,
}

/// What a dependency is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DependencyKind {
    /// Build scripts.
    Build,
    /// Tests, benchmarks and examples.
    Dev,
    /// The crate itself. Cargo writes it as null.
    Normal,
}

fn kind_or_normal<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<DependencyKind, D::Error> {
    Option::deserialize(deserializer).map(|kind| kind.unwrap_or(DependencyKind::Normal))
}

/// Cargo gave no usable answer. Nothing changed; asking again is harmless.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// Cargo's answer is not of the expected form. Asking again gives the same.
    #[error("the answer of `cargo metadata` cannot be read")]
    Answer(#[source] serde_json::Error),
    /// Cargo refused, most often for a broken manifest or for want of a network.
    #[error("`cargo metadata` failed: {said}")]
    Refused {
        /// What cargo wrote to its error output.
        said: String,
    },
    /// Cargo could not be started.
    #[error("cargo cannot be started")]
    Spawn(#[source] std::io::Error),
}

/// The cargo that runs us, or else the one on the path.
#[must_use]
pub fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_without_kind_is_a_normal_one() {
        let check = |kind: &str, expect| {
            let json = format!(r#"{{"name":"a","kind":{kind},"path":null}}"#);
            let dependency: Dependency = serde_json::from_str(&json).expect("a dependency");
            assert_eq!(dependency.kind, expect);
        };
        check("null", DependencyKind::Normal);
        check(r#""dev""#, DependencyKind::Dev);
        check(r#""build""#, DependencyKind::Build);
    }

    #[test]
    fn only_packages_below_crates_are_house_crates() {
        let check = |manifest: &str, expect| {
            let json = format!(
                r#"{{"name":"a","version":"1.0.0","license":null,"manifest_path":"{manifest}","dependencies":[]}}"#
            );
            let package: Package = serde_json::from_str(&json).expect("a package");
            assert_eq!(package.is_in_crates(Path::new("/r")), expect);
        };
        check("/r/crates/a/Cargo.toml", true);
        check("/r/xtask/Cargo.toml", false);
        check("/elsewhere/crates/a/Cargo.toml", false);
    }
}
