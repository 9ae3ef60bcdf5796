//! `clusterkit kv watch`

use std::io::BufRead;

use serde::Deserialize;
use serde_json::Value;

use super::super::{Outcome, read};
use super::{Target, name, shown};
use crate::cli::{KvWatch, Output, Remote};
use crate::client::ClientError;
use crate::failure::Failure;
use crate::terminal;

/// A change of a key, or that some were missed.
#[derive(Debug, Deserialize)]
struct Change {
    kind: String,
    partition: u32,
    key: Option<String>,
    key_base64: Option<String>,
    version: Option<u64>,
    value_base64: Option<String>,
    value_bytes: Option<u32>,
}

pub(in crate::commands) fn watch(options: &KvWatch) -> Outcome {
    let target = Target::new(&options.to)?;
    let parameters =
        [("key", options.key.clone()), ("prefix", options.prefix.clone()), ("after", options.after.clone())];
    let stream = target.client.stream(&target.path("/v1/kv/watch", &parameters))?;
    follow(&options.to.remote, stream)?;
    let reason = "the stream of changes has ended".to_owned();
    Err(ClientError::Unreachable { url: target.client.url().to_owned(), reason }.into())
}

fn follow(remote: &Remote, stream: impl BufRead) -> Result<(), Failure> {
    for line in stream.lines() {
        // A stream that breaks has ended, whatever broke it.
        let Ok(line) = line else { return Ok(()) };
        let Some(data) = line.strip_prefix("data:") else { continue };
        let strange = |_| ClientError::NotClusterKit { url: remote.url.clone() };
        let change: Value = serde_json::from_str(data.trim_start()).map_err(strange)?;
        let text = match remote.format.output {
            Output::Json => change.to_string(),
            Output::Table => sentence(&read(remote, change)?),
        };
        terminal::say(&text)?;
    }
    Ok(())
}

fn sentence(change: &Change) -> String {
    if change.kind == "lost" {
        return format!("lost     changes of partition-{}: read it anew", change.partition);
    }
    let key = name(change.key.as_deref(), change.key_base64.as_deref());
    let value = match (&change.value_base64, change.value_bytes) {
        (Some(value), _) => format!("  {}", shown(value)),
        (None, Some(bytes)) => format!("  {bytes} bytes"),
        (None, None) => String::new(),
    };
    format!("{:<7}  {key}  version {}{value}", change.kind, change.version.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_a_line() {
        let check = |json: &str, expect: &str| {
            assert_eq!(sentence(&serde_json::from_str(json).expect("a change")), expect);
        };
        check(
            r#"{"kind":"put","partition":1,"key":"a","version":3,"value_base64":"aGk=","value_bytes":2}"#,
            "put      a  version 3  hi",
        );
        check(
            r#"{"kind":"put","partition":1,"key":"a","version":3,"value_bytes":70000}"#,
            "put      a  version 3  70000 bytes",
        );
        check(
            r#"{"kind":"deleted","partition":1,"key_base64":"/w==","version":4}"#,
            "deleted  base64:/w==  version 4",
        );
        check(r#"{"kind":"lost","partition":5}"#, "lost     changes of partition-5: read it anew");
    }
}
