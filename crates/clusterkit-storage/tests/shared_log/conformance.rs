//! Both logs pass the one suite.

use std::path::Path;
use std::sync::Arc;

use clusterkit_storage::conformance;
use clusterkit_storage::disk::{RealDisk, SimDisk};
use clusterkit_storage::shared_log::{MemoryLog, Options, SharedLog};

use crate::twin::options;

#[test]
fn the_log_in_memory_conforms() {
    conformance::log(MemoryLog::new);
}

#[test]
fn the_shared_log_conforms() {
    conformance::log(|| SharedLog::open(Arc::new(SimDisk::new()), Path::new("/log"), &options()).unwrap().0);
}

#[test]
fn the_shared_log_conforms_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut count = 0;
    conformance::log(|| {
        count += 1;
        let options = Options { segment_bytes: 1 << 20, ..Options::new(0) };
        SharedLog::open(Arc::new(RealDisk), &dir.path().join(count.to_string()), &options).unwrap().0
    });
}
