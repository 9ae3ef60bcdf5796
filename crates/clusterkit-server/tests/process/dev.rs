//! `clusterkit dev`: a cluster of children that one signal ends.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::harness::{Running, clusterkit, eventually, is_running, run, signal};

const LAST_LINE: &str = "Ctrl-C stops";

/// What the banner says.
#[derive(Debug)]
struct Banner {
    text: String,
    url: String,
    pids: Vec<u32>,
    data: PathBuf,
}

fn started(home: &Path, args: &[&str]) -> (Running, Banner) {
    let args: Vec<&str> = ["dev"].iter().chain(args).copied().collect();
    let mut command = clusterkit(&args);
    command.env("TMPDIR", home);
    let mut dev = Running::start(command, home, "dev");
    let text = dev.wait_for(LAST_LINE);
    let word_after = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name)).expect(name);
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    let pids = text.lines().filter_map(|line| line.split_once("  pid ")?.1.parse().ok()).collect();
    let (url, data) = (word_after("HTTP"), word_after("Data").into());
    (dev, Banner { url, data, pids, text })
}

fn cluster_id(banner: &Banner) -> String {
    let status = run(&["status", "-o", "json", "--wait", "healthy", "--url", &banner.url]);
    status.json()["cluster"]["id"].as_str().expect("an id").to_owned()
}

fn wait_until_gone(pids: &[u32]) {
    eventually("the end of all children", || pids.iter().all(|pid| !is_running(*pid)).then_some(()));
}

#[test]
fn three_nodes_run_until_one_signal_ends_them() {
    let home = tempfile::tempdir().expect("a directory");
    let (mut dev, banner) = started(home.path(), &["--nodes", "3"]);
    assert_eq!(banner.pids.len(), 3, "{}", banner.text);
    for part in
        ["3 nodes joined", "64 partitions led", "gRPC ", "/metrics", "clusterkit events --follow", "kill -9 "]
    {
        assert!(banner.text.contains(part), "{part:?} in\n{}", banner.text);
    }
    let status = run(&["status", "--url", &banner.url]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(
        status.stdout.starts_with("healthy: 3 nodes, 64 partitions, all led and in sync\n"),
        "{status:?}"
    );

    signal(banner.pids[2], Signal::KILL);
    dev.wait_for("node-3 has ended: signal: 9");
    eventually("a degraded cluster", || {
        (run(&["status", "--url", &banner.url]).code == Some(1)).then_some(())
    });

    signal(dev.pid(), Signal::INT);
    assert_eq!(dev.wait().code(), Some(0), "{}", dev.stderr());
    wait_until_gone(&banner.pids);
    assert!(!banner.data.exists(), "{} stayed", banner.data.display());
    assert_eq!(dev.stderr(), "");
}

#[test]
fn an_interrupted_start_leaves_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let (temporary, mut command) = (home.path().join("tmp"), clusterkit(&["dev", "--nodes", "3"]));
    std::fs::create_dir(&temporary).expect("made");
    command.env("TMPDIR", &temporary);
    let mut dev = Running::start(command, home.path(), "dev");
    let entries = || std::fs::read_dir(&temporary).expect("listed").count();
    eventually("the directory of the cluster", || (entries() == 1).then_some(()));
    signal(dev.pid(), Signal::INT);
    assert_eq!(dev.wait().code(), Some(0), "{}", dev.stderr());
    assert_eq!((entries(), dev.stderr().as_str()), (0, ""));
}

#[test]
fn children_end_with_a_parent_that_is_killed() {
    let home = tempfile::tempdir().expect("a directory");
    let (mut dev, banner) = started(home.path(), &["--nodes", "2"]);
    dev.kill();
    wait_until_gone(&banner.pids);
}

#[test]
fn kept_data_is_taken_up_again() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("kept");
    let args = ["--data", &data.display().to_string()];
    let (mut dev, banner) = started(home.path(), &[args[0], args[1], "--nodes", "2", "--partitions", "16"]);
    let before = cluster_id(&banner);
    signal(dev.pid(), Signal::TERM);
    assert_eq!(dev.wait().code(), Some(0));

    let (_again, banner) = started(home.path(), &args);
    assert_eq!(banner.pids.len(), 2);
    assert_eq!(cluster_id(&banner), before);
    assert!(banner.text.contains("16 partitions led"), "{}", banner.text);
    run(&["dev", args[0], args[1], "--nodes", "3"]).assert_refused(1, "holds 2 nodes, not 3");
}

/// All are after the same first port, and all but one lose it, some between its choice and its use.
#[test]
fn clusters_that_begin_at_once_share_the_ports() {
    let home = tempfile::tempdir().expect("a directory");
    let begun = ["a", "b", "c", "d"].map(|name| {
        let data = home.path().join(name);
        let command = clusterkit(&["dev", "--nodes", "1", "--data", &data.display().to_string()]);
        Running::start(command, home.path(), &format!("dev-{name}"))
    });
    for mut dev in begun {
        dev.wait_for(LAST_LINE);
    }
}

#[test]
fn a_directory_of_something_else_is_left_alone() {
    let home = tempfile::tempdir().expect("a directory");
    std::fs::write(home.path().join("letter.txt"), "dear").expect("written");
    let data = home.path().display().to_string();
    run(&["dev", "--data", &data]).assert_refused(1, "holds something else than a development cluster");
    assert_eq!(std::fs::read_dir(home.path()).expect("listed").count(), 1);
}
