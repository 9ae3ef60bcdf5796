//! The proof by compiler that core does not link std.
//!
//! A program can have one panic handler, and std brings one. So core is built as it is for a
//! machine without std, and then a probe with a panic handler of its own is compiled against it:
//! that fails if std is anywhere below core, be it by core's own fault or through a feature of a
//! dependency. No other target and no network is needed.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde::Deserialize;

use crate::metadata::cargo;

/// The crate behind the fence.
pub const CORE: &str = "clusterkit-core";

/// The crate's name in code.
const CORE_IN_CODE: &str = "clusterkit_core";

/// Builds core without features in the workspace at `root`, and the probe against it. The outputs
/// go to `target`, the folder that cargo builds in.
pub fn check(root: &Path, target: &Path) -> Result<(), FenceError> {
    let library = build(root)?;
    probe(CORE_IN_CODE, &library, &target.join("fence"))
}

/// Builds core and returns the place of its library.
fn build(root: &Path) -> Result<PathBuf, FenceError> {
    let output = Command::new(cargo())
        .args(["build", "--package", CORE, "--no-default-features"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .map_err(FenceError::Spawn)?;
    if !output.status.success() {
        return Err(FenceError::Build { status: output.status });
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    messages.lines().find_map(library).ok_or(FenceError::NoLibrary)
}

/// The place of core's library, if the message tells it.
fn library(message: &str) -> Option<PathBuf> {
    let message: Message = serde_json::from_str(message).ok()?;
    let is_core = message.target.is_some_and(|target| target.name == CORE_IN_CODE);
    let file = message.filenames.into_iter().find(|file| file.extension().is_some_and(|end| end == "rlib"));
    file.filter(|_| is_core)
}

/// One message of `cargo build`, as far as it is read here.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Compiles the probe against the crate `name`, whose library is the file `library`. What the
/// libraries below it need is looked for in the folder `deps` beside it.
fn probe(name: &str, library: &Path, folder: &Path) -> Result<(), FenceError> {
    fs::create_dir_all(folder).map_err(FenceError::Probe)?;
    let source = folder.join("probe.rs");
    fs::write(&source, text(name)).map_err(FenceError::Probe)?;
    let libraries = library.with_file_name("deps");
    let output = Command::new(rustc())
        .args(["--edition=2024", "--crate-type=lib", "--emit=metadata"])
        .args([
            OsString::from("--out-dir"),
            folder.into(),
            "--extern".into(),
            joined(&format!("{name}="), library),
            "-L".into(),
            joined("dependency=", &libraries),
            source.into(),
        ])
        .output()
        .map_err(FenceError::Spawn)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(FenceError::LinksStd { said })
}

fn text(name: &str) -> String {
    format!(
        "#![no_std]\nextern crate {name};\n\n\
         #[panic_handler]\nfn panic(_: &core::panic::PanicInfo<'_>) -> ! {{\n    loop {{}}\n}}\n"
    )
}

fn joined(prefix: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(prefix);
    argument.push(path);
    argument
}

fn rustc() -> OsString {
    std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())
}

/// Core is not proven to be without std. Only build outputs changed; repair and run it again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FenceError {
    /// Core does not build without features; the compiler's output says why.
    #[error("{CORE} does not build without features: {status}")]
    Build {
        /// How cargo ended.
        status: ExitStatus,
    },
    /// The probe does not compile; a second `panic_impl` in the output means that std is linked.
    #[error("{CORE} or something below it links std:\n{said}")]
    LinksStd {
        /// What the compiler wrote to its error output.
        said: String,
    },
    /// Cargo built core and named no library.
    #[error("cargo names no library of {CORE}")]
    NoLibrary,
    /// The probe cannot be written.
    #[error("the probe cannot be written: {0}")]
    Probe(#[source] io::Error),
    /// Cargo or rustc could not be started.
    #[error("the compiler cannot be started: {0}")]
    Spawn(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_in_the_messages_of_cargo() {
        let check = |message: &str, expect: Option<&str>| {
            assert_eq!(library(message), expect.map(PathBuf::from), "{message}");
        };
        check(
            r#"{"target":{"name":"clusterkit_core"},"filenames":["t/libclusterkit_core.rlib","t/deps/a.rmeta"]}"#,
            Some("t/libclusterkit_core.rlib"),
        );
        check(r#"{"target":{"name":"serde"},"filenames":["t/libserde.rlib"]}"#, None);
        check(r#"{"target":{"name":"clusterkit_core"},"filenames":["t/deps/a.rmeta"]}"#, None);
        check(r#"{"reason":"build-finished","success":true}"#, None);
        check("no json", None);
    }

    #[test]
    fn a_library_with_std_does_not_pass() {
        let check = |text: &str, passes: bool| {
            let folder = tempfile::tempdir().expect("a folder");
            let source = folder.path().join("probed.rs");
            fs::write(&source, text).expect("a file");
            let built = Command::new(rustc())
                .args(["--edition=2024", "--crate-type=rlib", "--out-dir"])
                .args([folder.path(), &source])
                .status()
                .expect("rustc runs");
            assert!(built.success());
            let library = folder.path().join("libprobed.rlib");
            let result = probe("probed", &library, &folder.path().join("fence"));
            assert_eq!(result.is_ok(), passes, "{text}: {result:?}");
        };
        check("#![no_std]\npub fn a() {}\n", true);
        check(
            "#![no_std]\nextern crate alloc;\npub fn a() -> alloc::vec::Vec<u8> { alloc::vec::Vec::new() }\n",
            true,
        );
        check("pub fn a() {}\n", false);
        check("#![no_std]\nextern crate std;\npub fn a() {}\n", false);
    }
}
