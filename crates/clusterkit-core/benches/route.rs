//! How long it takes to find the leader for a key.

#![allow(missing_docs, reason = "the macros of criterion write functions without documentation")]

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

use clusterkit_core::hash::KeyHash;
use clusterkit_core::id::{ClusterId, Epoch, NodeId, PartitionId, PartitionVersion, ReplicaUid};
use clusterkit_core::topology::{Cluster, ClusterConfig, Origin, Partition, Replica, Topology};
use criterion::{Bencher, Criterion, criterion_group, criterion_main};

const KEYS: usize = 1_024;

fn topology(key_hash: KeyHash, partition_count: u32) -> Topology {
    let config = ClusterConfig { partition_count, key_hash, ..ClusterConfig::default() };
    let cluster = Cluster { id: ClusterId(1), name: "bench".to_owned(), config };
    let partitions = (0..partition_count).map(|number| Arc::new(partition(number))).collect();
    Topology { cluster: Some(Arc::new(cluster)), partitions, ..Topology::default() }
}

fn partition(number: u32) -> Partition {
    let node = |replica| {
        NodeId::new(&format!("node-{}", (number + replica) % 9)).expect("the name has letters and digits")
    };
    let nodes = [node(0), node(1), node(2)];
    let replica =
        |(uid, node): (u64, &NodeId)| Replica { node: node.clone(), uid: ReplicaUid(uid), lapses: 0 };
    Partition {
        id: PartitionId(number),
        version: PartitionVersion(1),
        epoch: Epoch(1),
        origin: Origin::First,
        leader: Some(nodes[0].clone()),
        replicas: (0..).zip(&nodes).map(replica).collect(),
        in_sync: nodes.iter().cloned().collect(),
        tainted: BTreeSet::new(),
        min_in_sync: 2,
        yielded_by: None,
        transfer: None,
        movement: None,
        unclean: None,
        overrun: None,
        history: Vec::new(),
    }
}

fn keys() -> Vec<[u8; 16]> {
    let key = |number: usize| format!("user:{number:011}").into_bytes();
    (0..KEYS).map(|number| key(number).try_into().expect("five and eleven characters")).collect()
}

/// Another key of 16 bytes each time, so that neither the key nor its row is already at hand.
fn route_keys(bencher: &mut Bencher<'_>, topology: &Topology) {
    let keys = keys();
    let mut at = 0;
    bencher.iter(|| {
        at = (at + 1) % KEYS;
        topology.route(black_box(&keys[at])).and_then(|route| route.leader)
    });
}

fn routes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route_16_byte_key");
    for partition_count in [64, 4_096] {
        let topology = topology(KeyHash::Crc16Slots, partition_count);
        group.bench_function(format!("{partition_count}_partitions"), |bencher| {
            route_keys(bencher, &topology);
        });
    }
    for key_hash in KeyHash::ALL {
        let topology = topology(key_hash, 64);
        group.bench_function(key_hash.as_str(), |bencher| route_keys(bencher, &topology));
    }
    group.finish();
}

criterion_group!(benches, routes);
criterion_main!(benches);
