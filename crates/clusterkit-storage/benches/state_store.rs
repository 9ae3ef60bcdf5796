//! What a state store costs: batches, reads and checkpoints, on disk and in memory.

#![allow(missing_docs, reason = "the macros of criterion write functions without documentation")]

use std::cell::RefCell;
use std::hint::black_box;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_storage::disk::RealDisk;
use clusterkit_storage::state_store::{
    Change, MemoryStore, Options, Query, RedbStore, ReplicaKey, StateStore,
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;

const BATCH: u64 = 1_000;
const KEYS: u64 = 100_000;
const REPLICA: ReplicaKey = ReplicaKey(1);

/// Keys of 16 bytes in an order without order, and values of 100 bytes.
fn batch(number: u64) -> Vec<Change> {
    let key = |at: u64| (number * BATCH + at) % KEYS;
    (0..BATCH).map(|at| Change::Put { key: key_of(key(at)), value: vec![at as u8; 100].into() }).collect()
}

fn key_of(number: u64) -> Bytes {
    Bytes::from(format!("{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// A store with all keys, that the bench goes on to write.
struct Filled {
    store: Box<dyn StateStore>,
    batches: u64,
}

impl Filled {
    fn new(store: Box<dyn StateStore>) -> Self {
        let mut filled = Filled { store, batches: 0 };
        (0..KEYS / BATCH).for_each(|_| filled.apply(REPLICA));
        filled.store.checkpoint().expect("the disk works");
        filled
    }

    fn next_batch(&mut self) -> (u64, Vec<Change>) {
        self.batches += 1;
        (self.batches, batch(self.batches))
    }

    fn apply(&mut self, replica: ReplicaKey) {
        let (index, changes) = self.next_batch();
        self.store.apply(replica, &changes, index).expect("the disk works");
    }
}

fn on_disk() -> (TempDir, Box<dyn StateStore>) {
    let dir = tempfile::tempdir().expect("a folder is made");
    let store = RedbStore::open(Arc::new(RealDisk), dir.path(), &Options::default()).expect("a store opens");
    (dir, Box::new(store))
}

fn bench_store(criterion: &mut Criterion, name: &str, store: Box<dyn StateStore>) {
    let mut filled = Filled::new(store);
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20);
    group.throughput(Throughput::Elements(BATCH));
    group.bench_function("apply 1,000 puts of 16 + 100 bytes", |bencher| {
        let filled = RefCell::new(&mut filled);
        let next = || filled.borrow_mut().next_batch();
        let apply = |(index, changes): (u64, Vec<Change>)| {
            filled.borrow().store.apply(REPLICA, &changes, index).expect("the disk works");
        };
        bencher.iter_batched(next, apply, BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(1));
    let mut number = 0;
    group.bench_function("get", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % KEYS;
            black_box(filled.store.get(REPLICA, &key_of(number)).expect("the disk works"))
        });
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("range of 100", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % KEYS;
            let start = key_of(number);
            let query = Query { start: Bound::Included(&start), entries_max: 100, ..Query::default() };
            black_box(filled.store.range(REPLICA, &query).expect("the disk works"))
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("apply 1 put", |bencher| {
        bencher.iter(|| {
            filled.batches += 1;
            let change = [Change::Put { key: key_of(filled.batches % KEYS), value: vec![1; 100].into() }];
            filled.store.apply(REPLICA, &change, filled.batches).expect("the disk works");
        });
    });
    for files in [1, 16] {
        group.bench_function(format!("checkpoint of 1,000 puts to each of {files} replicas"), |bencher| {
            let filled = RefCell::new(&mut filled);
            let write = || (0..files).for_each(|at| filled.borrow_mut().apply(ReplicaKey(1 + at)));
            let checkpoint = |()| filled.borrow().store.checkpoint().expect("the disk works");
            bencher.iter_batched(write, checkpoint, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn stores(criterion: &mut Criterion) {
    bench_store(criterion, "memory", Box::new(MemoryStore::new()));
    let (_dir, store) = on_disk();
    bench_store(criterion, "redb", store);
}

criterion_group!(benches, stores);
criterion_main!(benches);
