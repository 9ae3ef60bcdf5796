//! `clusterkit kv export` and `clusterkit kv import`: a line of JSON for each key.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::Outcome;
use super::{Target, name, some};
use crate::cli::{KvExport, KvImport};
use crate::client::ClientError;
use crate::failure::Failure;
use crate::terminal::counted;

/// Keys of one page of an export.
const EXPORT_PAGE: u32 = 500;
/// Keys of one batch of an import.
const IMPORT_KEYS_MAX: usize = 256;
/// Bytes of the lines of one batch of an import, one line aside.
const IMPORT_BYTES_MAX: usize = 2 << 20;

/// A line: a key, its value, and when it expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    value_base64: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
}

/// A page of lines.
#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<Line>,
    next_cursor: Option<String>,
}

/// How far it is, on standard error where that is a terminal.
struct Progress {
    verb: &'static str,
    count: usize,
    is_shown: bool,
}

impl Progress {
    fn new(verb: &'static str) -> Self {
        Self { verb, count: 0, is_shown: io::stderr().is_terminal() }
    }

    fn add(&mut self, count: usize) {
        self.count += count;
        if self.is_shown {
            eprint!("\r\x1b[2K{} {}", counted(self.count, "key"), self.verb);
        }
    }

    fn finish(&self) {
        if self.is_shown {
            eprintln!();
        }
    }
}

pub(in crate::commands) fn export(options: &KvExport) -> Outcome {
    let target = Target::new(&options.to)?;
    let mut progress = Progress::new("exported");
    let outcome = pages(&target, options, &mut progress);
    progress.finish();
    outcome.map(|()| ExitCode::SUCCESS)
}

fn pages(target: &Target, options: &KvExport, progress: &mut Progress) -> Result<(), Failure> {
    let mut cursor = options.cursor.clone();
    loop {
        let parameters = [
            ("prefix", some(&options.prefix)),
            ("limit", some(&EXPORT_PAGE)),
            ("values", some(&true)),
            ("cursor", cursor.clone()),
        ];
        let page = target.client.get::<Page>(&target.path("/v1/kv", &parameters));
        let page = page.map_err(|source| broken_off(source, cursor.as_deref()))?;
        write_lines(&page.items)?;
        progress.add(page.items.len());
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn broken_off(source: ClientError, cursor: Option<&str>) -> Failure {
    match cursor {
        Some(cursor) => Failure::BrokenOff { resume: format!("--cursor {cursor}"), source },
        None => source.into(),
    }
}

fn write_lines(lines: &[Line]) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in lines {
        serde_json::to_writer(&mut out, line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

pub(in crate::commands) fn import(options: &KvImport) -> Outcome {
    let target = Target::new(&options.to)?;
    let mut progress = Progress::new("imported");
    let outcome = open(&options.file).and_then(|lines| batches(&target, lines, options.skip, &mut progress));
    progress.finish();
    outcome.map(|()| ExitCode::SUCCESS)
}

fn open(file: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let wrong = |source| Failure::Input { what: file.display().to_string(), source };
    Ok(Box::new(BufReader::new(File::open(file).map_err(wrong)?)))
}

/// Lines on their way into one batch.
#[derive(Default)]
struct Batch {
    lines: Vec<Line>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.lines.len() >= IMPORT_KEYS_MAX || self.bytes >= IMPORT_BYTES_MAX
    }
}

fn batches(
    target: &Target,
    lines: Box<dyn BufRead>,
    skip: u64,
    progress: &mut Progress,
) -> Result<(), Failure> {
    let (mut batch, mut done) = (Batch::default(), skip);
    let mut read = skip;
    for line in lines.lines().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
        let line = line.map_err(|source| Failure::Input { what: "the lines".to_owned(), source })?;
        read += 1;
        if !line.trim().is_empty() {
            batch.bytes += line.len();
            let parsed = serde_json::from_str(&line);
            batch.lines.push(parsed.map_err(|source| Failure::ImportLine { line: read, source })?);
        }
        if batch.is_full() {
            send(target, &batch, done..read, progress)?;
            batch = Batch::default();
            done = read;
        }
    }
    send(target, &batch, done..read, progress)
}

/// What came of a batch.
#[derive(Debug, Deserialize)]
struct Results {
    results: Vec<OneResult>,
}

#[derive(Debug, Deserialize)]
struct OneResult {
    error: Option<ResultError>,
}

#[derive(Debug, Deserialize)]
struct ResultError {
    detail: String,
}

/// Sets the keys of the lines in `range`.
fn send(
    target: &Target,
    batch: &Batch,
    range: std::ops::Range<u64>,
    progress: &mut Progress,
) -> Result<(), Failure> {
    if batch.lines.is_empty() {
        return Ok(());
    }
    let body =
        json!({ "atomic": false, "operations": batch.lines.iter().map(operation).collect::<Vec<_>>() });
    let skip = range.start;
    let answer = target.client.post::<Results>(&target.path("/v1/kv/batch", &[]), &body);
    let broken = |source| Failure::BrokenOff { resume: format!("--skip {skip}"), source };
    let results = answer.map_err(broken)?.results;
    let mut failed = batch.lines.iter().zip(results).filter_map(|(line, result)| Some((line, result.error?)));
    let Some((line, error)) = failed.next() else {
        progress.add(batch.lines.len());
        return Ok(());
    };
    let key = name(line.key.as_deref(), line.key_base64.as_deref());
    let count = 1 + failed.count();
    Err(Failure::ImportRefused { line: range.end, skip, count, key, detail: error.detail })
}

fn operation(line: &Line) -> serde_json::Value {
    let mut operation = json!({ "op": "put", "value_base64": line.value_base64 });
    let fields = [
        ("key", line.key.clone().map(Into::into)),
        ("key_base64", line.key_base64.clone().map(Into::into)),
        ("expires_at_ms", line.expires_at_ms.map(Into::into)),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            operation[name] = value;
        }
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_an_export_is_an_operation_of_an_import() {
        let check = |text: &str, expect: serde_json::Value| {
            let line: Line = serde_json::from_str(text).expect("a line");
            assert_eq!(operation(&line), expect);
            assert_eq!(serde_json::to_string(&line).expect("JSON"), text);
        };
        check(
            r#"{"key":"a","value_base64":"aGk="}"#,
            json!({"op": "put", "key": "a", "value_base64": "aGk="}),
        );
        check(
            r#"{"key_base64":"/w==","value_base64":"","expires_at_ms":5}"#,
            json!({"op": "put", "key_base64": "/w==", "value_base64": "", "expires_at_ms": 5}),
        );
    }

    #[test]
    fn batches_are_bounded_by_keys_and_by_bytes() {
        let line = || serde_json::from_str::<Line>(r#"{"key":"a","value_base64":""}"#).expect("a line");
        let lines = |count| std::iter::repeat_with(line).take(count).collect();
        assert!(!Batch { lines: lines(IMPORT_KEYS_MAX - 1), bytes: 0 }.is_full());
        assert!(Batch { lines: lines(IMPORT_KEYS_MAX), bytes: 0 }.is_full());
        assert!(Batch { lines: lines(1), bytes: IMPORT_BYTES_MAX }.is_full());
    }
}
