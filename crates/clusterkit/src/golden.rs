//! Bytes that stay as they are: what one release writes, another one reads.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// Set to accept the bytes as they are now.
const BLESS: &str = "BLESS";

/// Compares `records`, each with its name, with those in `file`, a path below `src`. A new record
/// goes last, and a changed one is a new version.
pub(crate) fn check(file: &str, records: &[(&str, Vec<u8>)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file);
    let lines: String = records.iter().map(|(name, bytes)| format!("{name} {}\n", hex(bytes))).collect();
    if std::env::var_os(BLESS).is_some() {
        fs::write(&path, &lines).expect("the file can be written");
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<_> = lines.lines().filter(|line| !golden.lines().any(|known| known == *line)).collect();
    let hint = "other bytes than before; if that is decided, run this test with BLESS=1";
    assert!(golden == lines, "{file}: {hint}: {changed:#?}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text grows");
        text
    })
}
