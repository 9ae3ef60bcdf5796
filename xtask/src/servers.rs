//! The servers that an example guards: packages of the distribution. A test that finds one missing skips
//! it and says so, so nothing here fails for want of one.

use std::io;
use std::path::Path;
use std::process::Command;

const SCRIPT: &str = "examples/fencing/install-servers.sh";

/// Runs the script that installs them, as root; otherwise says what stays untried.
///
/// # Errors
///
/// A command could not be started. Installing again does no harm.
pub fn install(root: &Path) -> io::Result<()> {
    let identity = Command::new("id").arg("-u").output()?;
    if identity.stdout.trim_ascii() != b"0" {
        println!("not root: servers that are missing are skipped by their tests; {SCRIPT} installs them");
        return Ok(());
    }
    let status = Command::new("sh").arg(SCRIPT).current_dir(root).status()?;
    if !status.success() {
        println!("{SCRIPT}: {status}: servers that are missing are skipped by their tests");
    }
    Ok(())
}
