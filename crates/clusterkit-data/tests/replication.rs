//! Nodes in one process, on real sockets and disks: what they are told survives them.
#![allow(clippy::unwrap_used, reason = "steps of a test that cannot go on without the value")]

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use clusterkit::{ClusterKit, PartitionId};
use clusterkit_data::{
    Ack, Data, Entry, Options, Question, Read, ReadOptions, SessionRequest, StateMachine, Transaction, View,
    WriteError, WriteOptions,
};
use clusterkit_storage::state_store::StateError;
use tempfile::TempDir;

/// Longer than anything here takes: a test that hangs fails instead.
const PATIENCE: Duration = Duration::from_secs(120);
const PARTITIONS: u32 = 4;

/// Appends each command to a list under one key, and answers with its place in it.
struct Lists;

impl StateMachine for Lists {
    fn apply(&self, entry: &Entry<'_>, state: &mut Transaction<'_>) -> Result<Bytes, StateError> {
        let count = state.get(b"count")?.map_or(0, |count| number(&count));
        state.put(count.to_be_bytes().to_vec(), entry.command.clone());
        state.put("count", (count + 1).to_be_bytes().to_vec());
        state.emit(entry.command.clone());
        Ok(count.to_be_bytes().to_vec().into())
    }

    fn query(&self, question: &Question<'_>, state: &View<'_>) -> Result<Bytes, StateError> {
        if question.question == "count" {
            let count = state.get(b"count")?.map_or(0, |count| number(&count));
            return Ok(count.to_be_bytes().to_vec().into());
        }
        Ok(state.get(question.question)?.unwrap_or_default())
    }
}

fn number(bytes: &Bytes) -> u64 {
    u64::from_be_bytes(bytes.as_ref().try_into().unwrap())
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("it takes far less")
}

struct Node {
    kit: ClusterKit,
    data: Data,
}

async fn start(dir: &Path, number: u32, seeds: &[String]) -> Node {
    let home = dir.join(number.to_string());
    let data = Data::new(Options::new("partitions"), Lists);
    let builder = ClusterKit::builder(&format!("node-{number}"), &format!("127.0.0.1:{number}"))
        .listen("127.0.0.1:0")
        .data_dir(&home)
        .partitions(PARTITIONS)
        .seeds(seeds);
    let kit = data.attach(builder).launch().await.unwrap();
    data.run(&kit);
    within(kit.ready()).await.unwrap();
    Node { kit, data }
}

async fn stop(node: Node) {
    within(node.kit.stop()).await;
    within(node.data.stopped()).await.unwrap();
}

/// Nodes of one cluster, with all of their copies in sync.
async fn cluster(dir: &Path, count: u32) -> Vec<Node> {
    let mut nodes = vec![start(dir, 1, &[]).await];
    for number in 2..=count {
        let seeds = [nodes[0].kit.node_addr()];
        nodes.push(start(dir, number, &seeds).await);
    }
    in_sync(&nodes[0].kit, count as usize).await;
    nodes
}

async fn in_sync(kit: &ClusterKit, count: usize) {
    let mut topology = kit.watch();
    let all = topology.wait_for(|topology| {
        let partitions = &topology.partitions;
        !partitions.is_empty()
            && partitions.iter().all(|record| record.leader.is_some() && record.in_sync.len() == count)
    });
    within(all).await.unwrap();
}

fn write_options() -> WriteOptions {
    WriteOptions { deadline: Duration::from_secs(60), ..WriteOptions::default() }
}

fn read_options(read: Read) -> ReadOptions {
    ReadOptions { read, deadline: Duration::from_secs(60), ..ReadOptions::default() }
}

async fn count(data: &Data, partition: PartitionId, read: Read) -> u64 {
    number(&within(data.query(partition, "count", &read_options(read))).await.unwrap().answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_writes_and_reads_any_partition() {
    let dir = TempDir::new().unwrap();
    let nodes = cluster(dir.path(), 3).await;
    for partition in (0..PARTITIONS).map(PartitionId) {
        for (place, writer) in nodes.iter().enumerate() {
            let command = format!("{partition} {place}");
            let written = within(writer.data.write(partition, command, &write_options())).await.unwrap();
            assert_eq!(number(&written.answer.unwrap()), place as u64);
        }
        for reader in &nodes {
            assert_eq!(count(&reader.data, partition, Read::Linearizable).await, 3);
            let (question, options) = (1_u64.to_be_bytes().to_vec(), read_options(Read::Leader));
            let second = within(reader.data.query(partition, question, &options)).await.unwrap();
            assert_eq!(second.answer, format!("{partition} 1"));
        }
    }
    for node in nodes {
        stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_answers_whoever_names_what_it_has_seen() {
    let dir = TempDir::new().unwrap();
    let nodes = cluster(dir.path(), 3).await;
    let partition = PartitionId(2);
    let written = within(nodes[0].data.write(partition, "a", &write_options())).await.unwrap();
    let read = Read::Session { min_end: written.offset + 1 };
    for reader in &nodes {
        assert_eq!(count(&reader.data, partition, read).await, 1);
    }
    for node in nodes {
        stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_a_session_takes_effect_once() {
    let dir = TempDir::new().unwrap();
    let nodes = cluster(dir.path(), 1).await;
    let (data, partition) = (&nodes[0].data, PartitionId(0));
    let session = within(data.open_session(partition, &write_options())).await.unwrap();
    let request = Some(SessionRequest { session, sequence: 1 });
    let options = WriteOptions { request, ..write_options() };
    let first = within(data.write(partition, "a", &options)).await.unwrap();
    let second = within(data.write(partition, "a", &options)).await.unwrap();
    assert_eq!((first.replayed, second.replayed), (false, true));
    assert_eq!((first.answer, count(data, partition, Read::Linearizable).await), (second.answer, 1));
    let lost = clusterkit_data::SessionId { offset: session.offset + 1_000, ..session };
    let options =
        WriteOptions { request: Some(SessionRequest { session: lost, sequence: 1 }), ..write_options() };
    assert_eq!(within(data.write(partition, "a", &options)).await, Err(WriteError::SessionExpired));
    for node in nodes {
        stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_all_nodes_were_down() {
    let dir = TempDir::new().unwrap();
    let nodes = cluster(dir.path(), 3).await;
    for place in 0..100_u32 {
        let partition = PartitionId(place % PARTITIONS);
        within(nodes[0].data.write(partition, format!("{place}"), &write_options())).await.unwrap();
    }
    let seeds: Vec<_> = nodes.iter().map(|node| node.kit.node_addr()).collect();
    for node in nodes {
        stop(node).await;
    }
    let mut again = Vec::new();
    for number in 1..=3 {
        let dir = dir.path().to_owned();
        let seeds = seeds.clone();
        again.push(tokio::spawn(async move { restart(&dir, number, &seeds).await }));
    }
    let mut nodes = Vec::new();
    for node in again {
        nodes.push(within(node).await.unwrap());
    }
    let mut sum = 0;
    for partition in (0..PARTITIONS).map(PartitionId) {
        sum += count(&nodes[1].data, partition, Read::Linearizable).await;
    }
    assert_eq!(sum, 100);
    for node in nodes {
        stop(node).await;
    }
}

/// The same node again, where it was.
async fn restart(dir: &Path, number: u32, addrs: &[String]) -> Node {
    let home = dir.join(number.to_string());
    let data = Data::new(Options::new("partitions"), Lists);
    let builder = ClusterKit::builder(&format!("node-{number}"), &format!("127.0.0.1:{number}"))
        .listen(&addrs[number as usize - 1])
        .data_dir(&home)
        .partitions(PARTITIONS)
        .seeds(addrs);
    let kit = data.attach(builder).launch().await.unwrap();
    data.run(&kit);
    within(kit.ready()).await.unwrap();
    Node { kit, data }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_in_order_costs_no_write() {
    let dir = TempDir::new().unwrap();
    let mut nodes = cluster(dir.path(), 3).await;
    let leaves = nodes.pop().unwrap();
    let (writer, partition_count) = (nodes[0].data.clone(), PARTITIONS);
    let load = tokio::spawn(async move {
        for place in 0..400_u32 {
            let partition = PartitionId(place % partition_count);
            writer.write(partition, format!("{place}"), &write_options()).await.unwrap();
        }
    });
    stop(leaves).await;
    within(load).await.unwrap();
    let mut sum = 0;
    for partition in (0..PARTITIONS).map(PartitionId) {
        sum += count(&nodes[1].data, partition, Read::Linearizable).await;
    }
    assert_eq!(sum, 400);
    for node in nodes {
        stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_hears_of_each_command_once_and_in_order() {
    let dir = TempDir::new().unwrap();
    let nodes = cluster(dir.path(), 1).await;
    let (data, partition) = (&nodes[0].data, PartitionId(3));
    let first = within(data.write(partition, "0", &write_options())).await.unwrap();
    let mut watch = data.watch(partition, first.offset);
    for place in 1..50 {
        within(data.write(partition, place.to_string(), &write_options())).await.unwrap();
    }
    let mut heard = Vec::new();
    while heard.len() < 50 {
        heard.extend(within(watch.next()).await.unwrap().unwrap());
    }
    let texts: Vec<_> = heard.iter().map(|(_, event)| String::from_utf8(event.to_vec()).unwrap()).collect();
    assert_eq!(texts, (0..50).map(|place| place.to_string()).collect::<Vec<_>>());
    assert!(heard.is_sorted_by(|one, other| one.0 < other.0));
    for node in nodes {
        stop(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_missed_nothing_of_a_partition_that_was_quiet_goes_on_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let node = start(dir.path(), 1, &[]).await;
    let partition = PartitionId(3);
    let written = within(node.data.write(partition, "a", &write_options())).await.unwrap();
    stop(node).await;
    let node = start(dir.path(), 1, &[]).await;
    let mut watch = node.data.watch(partition, written.offset + 1);
    let write = async { node.data.write(partition, "b", &write_options()).await.unwrap() };
    let (written, told) = within(async { tokio::join!(write, watch.next()) }).await;
    assert_eq!(told, Some(Ok(vec![(written.offset, Bytes::from("b"))])));
    stop(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_done_is_refused_with_its_reason() {
    let dir = TempDir::new().unwrap();
    let nodes = cluster(dir.path(), 1).await;
    let data = &nodes[0].data;
    let unknown = within(data.write(PartitionId(PARTITIONS), "a", &write_options())).await;
    assert_eq!(unknown, Err(WriteError::NoPartition));
    let large = vec![0; 9 << 20];
    let large = within(data.write(PartitionId(0), large, &write_options())).await;
    assert!(matches!(large, Err(WriteError::TooLarge { .. })), "{large:?}");
    let leader = WriteOptions { ack: Ack::Leader, ..write_options() };
    let written = within(data.write(PartitionId(0), "a", &leader)).await.unwrap();
    assert_eq!(written.answer, None);
    for node in nodes {
        stop(node).await;
    }
}
