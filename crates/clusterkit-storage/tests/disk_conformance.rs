//! Both disks pass the one suite.

use std::path::Path;

use clusterkit_storage::conformance;
use clusterkit_storage::disk::{RealDisk, SimDisk};

#[test]
fn the_real_disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance::disk(&RealDisk, &dir.path().join("one/two"));
}

#[test]
fn the_simulated_disk_conforms() {
    conformance::disk(&SimDisk::new(), Path::new("/one/two"));
}
