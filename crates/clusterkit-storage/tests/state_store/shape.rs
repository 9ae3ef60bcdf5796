//! Whatever is done to them, both stores hold what a naive one does.

use clusterkit_storage::disk::SimDisk;
use clusterkit_storage::state_store::{MemoryStore, StateStore};
use proptest::prelude::*;

use crate::twin::{Step, Twin, contents, run, steps, take};

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn a_store_on_disk_holds_what_a_naive_one_does(script in steps(25)) {
        prop_assert!(run(&SimDisk::new(), &script).is_ok());
    }

    #[test]
    fn a_store_in_memory_holds_what_a_naive_one_does(script in steps(40)) {
        let (store, mut twin) = (MemoryStore::new(), Twin::default());
        for step in script.iter().filter(|step| !matches!(step, Step::Reopen)) {
            prop_assert!(take(&store, &twin, step));
            twin.apply(step);
            prop_assert_eq!(contents(&store), twin.held.clone());
            for replica in twin.held.keys() {
                let mut snapshot = store.snapshot(*replica).unwrap().unwrap();
                let mut read = Vec::new();
                while let Some(chunk) = snapshot.next_chunk(100).unwrap() {
                    read.extend(chunk);
                }
                prop_assert!(read.into_iter().eq(twin.held[replica].entries.clone()));
            }
        }
    }
}
