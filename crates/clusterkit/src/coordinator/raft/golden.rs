//! The Raft messages and the snapshot, by their bytes: they are openraft's own types, so a release of
//! it could change them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_core::control::{Command, ControlState, Registration};
use clusterkit_core::id::{BootId, ClusterId, NodeId, StoreId};
use clusterkit_core::topology::{Cluster, ClusterConfig};
use clusterkit_storage::disk::SimDisk;
use clusterkit_wire::versioned;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};
use openraft::storage::RaftStateMachine as _;
use openraft::{EntryPayload, Membership, RaftSnapshotBuilder as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::files::RaftFiles;
use super::group::View;
use super::log_worker::{IoMode, LogWorker, LogWorkerHandle};
use super::state_machine::StateMachine;
use super::types::{CommandBatch, Entry, LogId, RaftNode, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use crate::events::EventLog;
use crate::golden;
use crate::net::{TokioClock, WallTime};
use crate::node::message;

fn log_id(index: u64) -> LogId {
    LogId::new_term_index(3, index)
}

/// A change of voters, half done.
fn membership() -> Membership<u64, RaftNode> {
    let node = |name: &str| RaftNode { node: name.to_owned(), addr: format!("{name}:7000") };
    let nodes = BTreeMap::from([(1, node("node-1")), (2, node("node-2")), (3, node("node-3"))]);
    Membership::new(vec![BTreeSet::from([1]), BTreeSet::from([1, 2])], nodes).expect("the voters are nodes")
}

fn stored() -> StoredMembership {
    StoredMembership::new(Some(log_id(5)), membership())
}

fn forming() -> Command {
    let config = ClusterConfig { partition_count: 2, ..ClusterConfig::default() };
    let cluster = Cluster { id: ClusterId(0xabcd), name: "prod".to_owned(), config };
    let registration = Registration {
        reports_position: true,
        software: "0.1.0".to_owned(),
        ..Registration::new(
            NodeId::new("node-1").expect("a valid id"),
            StoreId(1),
            BootId(7),
            ["node-1:7000", "node-1:8080"].map(str::to_owned),
        )
    };
    Command::form_cluster(cluster, vec![registration]).expect("it is within the limits")
}

/// What is sent, and that it is read as what it was.
fn body<T: Serialize + DeserializeOwned>(body: &T) -> Vec<u8> {
    let bytes = message::encode(body);
    let read: T = message::decode(&bytes).expect("it is read");
    assert_eq!(message::encode(&read), bytes);
    bytes.to_vec()
}

#[test]
fn the_bytes_of_every_raft_message_stay_as_they_are() {
    let (store, vote) = (StoreId(2), Vote::new_committed(3, 1));
    let drain = Command::Drain { node: NodeId::new("node-1").expect("a valid id") };
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(CommandBatch::new(&[drain]).expect("one is no more than fits")),
        EntryPayload::Membership(membership()),
    ];
    let entries = (4..).zip(payloads).map(|(index, payload)| Entry { log_id: log_id(index), payload });
    let append = AppendEntriesRequest::<TypeConfig> {
        vote,
        prev_log_id: Some(log_id(3)),
        entries: entries.collect(),
        leader_commit: Some(log_id(2)),
    };
    let higher = Vote::new(4, 2);
    let ask =
        VoteRequest::<TypeConfig> { vote: higher, last_log_id: Some(log_id(6)), leadership_transfer: true };
    let answer = VoteResponse::<TypeConfig> { vote: higher, vote_granted: true, last_log_id: None };
    let meta = SnapshotMeta { last_log_id: Some(log_id(6)), last_membership: stored() };
    let transfer = TransferLeaderRequest::<TypeConfig>::new(vote, 2, Some(log_id(6)));
    type AppendAnswer = AppendEntriesResponse<TypeConfig>;
    let records = [
        ("append", body(&(store, append))),
        ("append-answer", body(&AppendAnswer::Success)),
        ("append-answer", body(&AppendAnswer::PartialSuccess(Some(log_id(5))))),
        ("append-answer", body(&AppendAnswer::Conflict)),
        ("append-answer", body(&AppendAnswer::HigherVote(higher))),
        ("vote", body(&(store, ask))),
        ("vote-answer", body(&answer)),
        ("snapshot", body(&(store, (vote, meta, b"snapshot".to_vec())))),
        ("snapshot-answer", body(&SnapshotResponse::<TypeConfig>::new(vote))),
        ("transfer", body(&(store, transfer))),
    ];
    golden::check("coordinator/raft/messages.hex", &records);
}

/// Snapshots outlive releases as the log does.
#[tokio::test(start_paused = true)]
async fn the_bytes_of_a_snapshot_stay_as_they_are() {
    let disk = Arc::new(SimDisk::new());
    let files = RaftFiles::open_or_create(disk, Path::new("/raft"), StoreId(1)).expect("it opens");
    let worker = LogWorker::new(files.disk, files.dir, files.log);
    let worker = LogWorkerHandle::start(worker, IoMode::task()).expect("it starts");
    let mut state = ControlState::default();
    state.apply(&forming()).expect("it forms");
    let written = versioned::encode(1, &(Some(log_id(6)), stored(), &state));
    let (views, seen) = watch::channel(Arc::new(View::default()));
    let clock = Arc::new(TokioClock::new(WallTime(0)));
    let events = Arc::new(EventLog::new(clock));
    let mut machine = StateMachine::open(worker, Some(&written), views, events).expect("it is read");
    assert_eq!(seen.borrow().state, state);
    let snapshot = machine.get_snapshot_builder().await.build_snapshot().await.expect("it is written");
    assert_eq!(snapshot.snapshot, Bytes::from(written.clone()));
    golden::check("coordinator/raft/snapshot.hex", &[("snapshot", written)]);
}
