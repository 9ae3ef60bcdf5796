//! The example from beginning to end, with real processes, signals and servers.
//!
//! Cargo builds the example together with this test unless it is told to build the test alone: then what
//! was built last is run.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

/// Far more than it needs: only a hang is meant to meet it.
const TIMEOUT: Duration = Duration::from_secs(240);
const WRITES: u64 = 500;

/// Where cargo puts examples: beside the folder of this test.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("this test runs");
    let profile = test.ancestors().nth(2).expect("it lies in a folder of its profile");
    profile.join("examples").join("fencing")
}

async fn run(args: &[&str]) -> Output {
    let mut command = Command::new(built());
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    timeout(TIMEOUT, command.output()).await.expect("it ends in time").expect("it was built with this test")
}

/// A store that ran has refused everything stale and holds what was written last. One that did not run has
/// said why, and counts for nothing.
fn check_store(store: &Value) {
    match store["skipped"].as_str() {
        Some(reason) => {
            assert!(!reason.is_empty(), "{store}");
            assert_eq!(store.get("stale"), None, "{store}");
        }
        None => {
            assert_eq!(store["stale"], json!({ "tried": WRITES, "accepted": 0 }), "{store}");
            assert_eq!(store["holds_newest"], true, "{store}");
        }
    }
}

#[tokio::test]
async fn an_owner_that_was_stopped_writes_nothing_with_its_old_lease() {
    let output = run(&["--stop-for", "3s", "--writes", &WRITES.to_string(), "--json"]).await;
    let words = String::from_utf8_lossy(&output.stderr);
    let outcome: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {words}"));
    assert!(output.status.success(), "{outcome} {words}");
    assert_eq!(outcome["ok"], true, "{outcome}");
    for look in ["confirm", "begin"] {
        assert_eq!(outcome["local"][look], json!({ "tried": WRITES, "accepted": 0 }), "{outcome}");
    }
    assert_eq!(outcome["local"]["in_flight"]["accepted"], 0, "{outcome}");
    assert!(outcome["good_writes"]["before"].as_u64() > Some(0), "{outcome}");
    assert!(outcome["good_writes"]["after"].as_u64() > Some(0), "{outcome}");
    assert!(outcome["epoch_new"].as_u64() > outcome["epoch_old"].as_u64(), "{outcome}");
    assert!(outcome["stopped_s"].as_f64() >= Some(3.0), "{outcome}");

    let stores = outcome["stores"].as_array().expect("a list");
    stores.iter().for_each(check_store);
    let mut names: Vec<_> = stores.iter().filter_map(|store| store["store"].as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["file", "postgres", "redis"], "{outcome}");
    let ran: Vec<_> = stores.iter().filter(|store| store.get("skipped").is_none()).collect();
    assert!(ran.iter().any(|store| store["store"] == "file"), "a file needs no server: {outcome}");
}
