//! Each example keeps its promises from beginning to end, with real processes.
//!
//! Cargo builds the examples together with this test unless it is told to build the test alone: then
//! what was built last is run.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long one example may take. Far more than it needs: only a hang is meant to meet it.
const EXAMPLE_TIMEOUT: Duration = Duration::from_secs(240);

/// Nodes that run at once: they are processes that live by heartbeats, and the machine may be small.
const NODES_MAX: usize = 10;
/// Places for them.
static PLACES: Semaphore = Semaphore::const_new(NODES_MAX);

async fn run(example: &str, nodes: u32, args: &[&str]) -> Output {
    let _places = PLACES.acquire_many(nodes).await.expect("nobody closes it");
    let mut command = Command::new(built(example));
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(EXAMPLE_TIMEOUT, command.output()).await;
    let output = ended.expect("it ends in time").expect("it was built with this test");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{example} {args:?}: {}\n{words}", output.status);
    output
}

/// Where cargo puts examples: beside the folder of this test.
fn built(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test runs");
    let profile = test.ancestors().nth(2).expect("it lies in a folder of its profile");
    profile.join("examples").join(example)
}

async fn compare(mode: &str) -> Value {
    let args = [mode, "--nodes", "6", "--ops", "200", "--kill", "1", "--add", "1", "--json"];
    let output = run("strategies", 7, &args).await;
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(report["mode"], mode);
    assert_eq!((&report["nodes"], &report["ops"]), (&6.into(), &200.into()));
    assert_eq!(number(&report, "success") + number(&report, "failed"), 200, "{report}");
    assert!(number(&report, "success") > 0, "{report}");
    for rate in ["duration_s", "writes_per_s", "reads_per_s"] {
        assert!(report[rate].as_f64() > Some(0.0), "{report}");
    }
    report
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().expect("a count")
}

#[tokio::test]
async fn strategies_sync_loses_no_write_that_a_majority_took() {
    let report = compare("sync").await;
    assert_eq!(number(&report, "lost"), 0, "{report}");
}

#[tokio::test]
async fn strategies_async_counts_what_the_killed_leader_had_not_passed_on() {
    let report = compare("async").await;
    assert!(number(&report, "lost") <= number(&report, "success"), "{report}");
}

#[tokio::test]
async fn strategies_server_side_loses_no_write_that_all_in_sync_copies_took() {
    let report = compare("server-side").await;
    assert_eq!(number(&report, "lost"), 0, "{report}");
}

#[tokio::test]
async fn kv_store_keeps_its_promises() {
    run("kv-store", 3, &[]).await;
}

#[tokio::test]
async fn queue_keeps_its_promises() {
    run("queue", 3, &[]).await;
}

#[tokio::test]
async fn cache_keeps_its_promises() {
    run("cache", 3, &[]).await;
}
