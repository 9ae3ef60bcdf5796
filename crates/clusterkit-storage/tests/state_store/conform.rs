//! Both stores pass the one suite.

use std::path::Path;
use std::sync::Arc;

use clusterkit_storage::conformance;
use clusterkit_storage::disk::{RealDisk, SimDisk};
use clusterkit_storage::state_store::{MemoryStore, Options, RedbStore};

fn options() -> Options {
    Options { file_count: 3, cache_bytes: 3 << 20, ..Options::default() }
}

#[test]
fn the_store_in_memory_conforms() {
    conformance::state_store(MemoryStore::new);
}

#[test]
fn the_store_on_a_simulated_disk_conforms() {
    conformance::state_store(|| {
        RedbStore::open(Arc::new(SimDisk::new()), Path::new("/state"), &options()).unwrap()
    });
}

#[test]
fn the_store_on_a_real_disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = 0;
    conformance::state_store(|| {
        stores += 1;
        RedbStore::open(Arc::new(RealDisk), &dir.path().join(stores.to_string()), &options()).unwrap()
    });
}
