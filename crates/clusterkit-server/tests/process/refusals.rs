//! What a node refuses: in one line, with an exit code, and with nothing changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use crate::harness::{Plan, clusterkit, finish, free_addr, run};

/// Where the replicated partitions are in a data directory.
const PARTITIONS: &str = "/partitions/";

/// Every file below `dir` with its bytes; for those of the partitions, which are large, with when they were changed.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.display().to_string();
        if path.is_dir() {
            found.extend(files(&path));
        } else if name.contains(PARTITIONS) {
            let changed = entry.metadata().and_then(|metadata| metadata.modified()).expect("asked");
            found.insert(name, format!("{changed:?}").into_bytes());
        } else {
            found.insert(name, fs::read(&path).expect("read"));
        }
    }
    found
}

/// That every file is as it was; only those that are not are named, since all of them are long.
fn assert_same(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed: Vec<_> = names.into_iter().filter(|name| before.get(*name) != after.get(*name)).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_touched() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let unknown = file("unknown.yaml", "zone: a\nseed: [\"127.0.0.1:1\"]\n");
    let malformed = file("malformed.yaml", "seeds: [\"127.0.0.1:1\"\n");
    let value = file("value.toml", "expect = 'three'\n");
    let check = |args: &[&str], part: &str| {
        let dir = data.display().to_string();
        let given = ["serve", "--node-id", "node-1", "--data-dir", &dir, "--http-addr", "127.0.0.1:0"];
        let args: Vec<&str> = given.iter().chain(args).copied().collect();
        run(&args).assert_refused(2, part);
        assert!(!data.exists(), "{args:?} made the data directory");
    };
    check(
        &["--seed", "127.0.0.1:1"],
        "unexpected argument '--seed' found; a similar argument exists: '--seeds'",
    );
    check(&["--expect", "three"], "invalid value 'three' for '--expect <N>'");
    check(&["--expect", "0"], "expect must be between 1 and 64, not 0");
    check(&["--expect", "3"], "expecting several nodes needs seeds");
    check(&["--expect", "3", "--bootstrap"], "give one of the two");
    check(&["--config", &unknown], "unknown.yaml:2: unknown key \"seed\"; did you mean \"seeds\"?");
    check(&["--config", &malformed], "malformed.yaml:");
    check(
        &["--config", &value],
        "value.toml:1: invalid type: string \"three\", expected u32, in \"expect = 'three'\"",
    );
    check(&["--config", "no-such-file.yaml"], "cannot read no-such-file.yaml: ");
    check(&["--listen", "127.0.0.1"], "--listen must be host:port, as in 127.0.0.1:7000, not \"127.0.0.1\"");
    check(&["--seeds", "10.0.0.1"], "--seeds must be host:port");
    check(&["--listen", "0.0.0.0:0"], "accept that with --insecure");
    check(&["--listen", ":0"], "--listen :0 can be reached from other machines");
    check(&["--cluster-name", ""], "a cluster name has 1 to 64 bytes");
    check(&["--partitions", "0"], "partitions must be between 1 and 16384, not 0");
    check(&["--heartbeat", "2s"], "--heartbeat and --dead-after do not fit each other");
    check(&["--log-level", "loud"], "--log-level \"loud\": it is error, warn, info");
    run(&["serve"]).assert_refused(2, "a node needs an id: give --node-id, CK_NODE_ID");
    run(&["serve", "--node-id", "-x"]).assert_refused(2, "'-x'");
    run(&["serve", "--node-id", "a b", "--http-addr", "127.0.0.1:0"]).assert_refused(2, "node id \"a b\"");
    let mut command = clusterkit(&["serve", "--node-id", "node-1"]);
    command.env("CK_EXPECT", "many");
    finish(command).assert_refused(2, "CK_EXPECT=many: ");
}

#[test]
fn an_address_in_use_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let held = TcpListener::bind("127.0.0.1:0").expect("bound");
    let taken = held.local_addr().expect("an address").to_string();
    let mut plan = Plan::new(home.path(), "node-1", &["--bootstrap"]);
    plan.http.clone_from(&taken);
    finish(plan.command()).assert_refused(1, &format!("cannot listen for clients on {taken}: "));
    assert!(!plan.dir.exists());
    plan.http = free_addr();
    plan.node.clone_from(&taken);
    finish(plan.command()).assert_refused(1, &format!("cannot listen for other nodes on {taken}: "));
}

#[test]
fn a_data_directory_belongs_to_one_node_of_one_process() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(home.path(), "node-1", &["--bootstrap", "--replication-factor", "1"]);
    let mut node = plan.start();
    plan.wait_until("healthy");
    let mut again = Plan::new(home.path(), "node-1", &["--bootstrap"]);
    finish(again.command()).assert_refused(1, "is in use by another process");
    node.terminate();
    let before = files(&plan.dir);
    again.id = "node-9".to_owned();
    finish(again.command())
        .assert_refused(1, "belongs to node node-1, not node-9; choose another --data-dir");
    assert_same(&before, &files(&plan.dir));
}

#[test]
fn a_data_directory_that_cannot_be_used_is_named_with_its_cause() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(home.path(), "node-1", &["--bootstrap"]);
    let check = |part: &str| {
        let before = files(home.path());
        let part = part.replace("DIR", &plan.dir.display().to_string());
        finish(plan.command()).assert_refused(1, &part);
        assert_same(&before, &files(home.path()));
    };
    fs::write(&plan.dir, "a file").expect("written");
    check("cannot use the data directory DIR: cannot create the directory DIR: File exists");
    fs::remove_file(&plan.dir).expect("removed");
    fs::create_dir_all(plan.dir.join("identity")).expect("made");
    fs::write(plan.dir.join("lock"), "").expect("written");
    check("cannot use the data directory DIR: cannot read DIR/identity: Is a directory");
    fs::remove_dir(plan.dir.join("identity")).expect("removed");
    fs::write(plan.dir.join("identity"), "what an editor left").expect("written");
    check("DIR/identity is damaged: ");
}

#[test]
fn a_node_that_lost_a_part_of_its_data_directory_says_which() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(home.path(), "node-1", &["--bootstrap", "--replication-factor", "1"]);
    let mut node = plan.start();
    plan.wait_until("healthy");
    assert_eq!(node.terminate().code(), Some(0));
    let (raft, aside) = (plan.dir.join("raft"), home.path().join("aside"));
    let check = |part: &str| {
        // The partitions are opened before the control plane is.
        let kept = || -> BTreeMap<_, _> {
            files(&plan.dir).into_iter().filter(|(name, _)| !name.contains(PARTITIONS)).collect()
        };
        let before = kept();
        let part = part.replace("DIR", &plan.dir.display().to_string());
        finish(plan.command()).assert_refused(1, &part);
        assert_same(&before, &kept());
    };
    fs::rename(&raft, &aside).expect("moved");
    check("the control-plane log in DIR/raft is gone; start with an empty --data-dir");
    fs::rename(&aside, &raft).expect("moved");
    fs::rename(raft.join("vote"), &aside).expect("moved");
    check("DIR/raft/vote is gone, and the control-plane log in DIR/raft cannot be used without it");
    fs::rename(&aside, raft.join("vote")).expect("moved");
    fs::rename(plan.dir.join("identity"), &aside).expect("moved");
    check("DIR/identity is gone, and the control-plane log in DIR/raft cannot be used without it");
    fs::rename(&aside, plan.dir.join("identity")).expect("moved");
    let _node = plan.start();
    plan.wait_until("healthy");
}

/// Answers every request with a page.
fn web_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let addr = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0; 1024];
            // Whoever asks may hang up before it is answered.
            drop(stream.read(&mut request));
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"));
        }
    });
    addr
}

#[test]
fn a_seed_that_is_no_node_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let stranger = web_server();
    let plan = Plan::new(home.path(), "node-1", &["--seeds", &stranger, "--join-timeout", "2s"]);
    let part = format!("found no cluster within 2 s: {stranger}: what answers there is no ClusterKit node");
    finish(plan.command()).assert_refused(1, &part);
    let part = format!("what answers at http://{stranger} is no ClusterKit node");
    run(&["status", "--url", &stranger]).assert_refused(3, &part);
}

#[test]
fn a_seed_that_nobody_listens_on_is_named() {
    let home = tempfile::tempdir().expect("a directory");
    let nobody = free_addr();
    let plan = Plan::new(home.path(), "node-1", &["--seeds", &nobody, "--join-timeout", "1s"]);
    let part = format!("found no cluster within 1 s: {nobody}: nothing listens there");
    finish(plan.command()).assert_refused(1, &part);
}

#[test]
fn a_second_node_of_the_same_name_is_refused_and_the_first_goes_on() {
    let home = tempfile::tempdir().expect("a directory");
    let plan = Plan::new(home.path(), "node-1", &["--bootstrap", "--replication-factor", "1"]);
    let _node = plan.start();
    let before = plan.wait_until("healthy");
    let other = tempfile::tempdir().expect("a directory");
    let twin = Plan::new(other.path(), "node-1", &["--seeds", &plan.node]);
    finish(twin.command()).assert_refused(1, "cannot join the cluster: ");
    let stranger = Plan::new(other.path(), "node-2", &["--seeds", &plan.node, "--partitions", "7"]);
    finish(stranger.command()).assert_refused(1, "this cluster has 64 partitions and that never changes");
    let after = plan.wait_until("healthy");
    assert_eq!(after["nodes"], before["nodes"]);
}
