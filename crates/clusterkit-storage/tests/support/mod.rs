//! What the tests of logs and stores do to a simulated disk: cut its power in every operation, let every operation
//! fail, and look at its files.
//!
//! A script is a function that runs on a disk. If it ran through, it gives a fork of the disk as it was before the log or
//! store was dropped, and otherwise what may be found on the disk from then on.

#![allow(dead_code, reason = "each of the test programs takes what it needs")]

use std::fmt::Debug;
use std::path::Path;

use clusterkit_storage::disk::{Disk, OpenMode, Operation, SimDisk};

/// How a process ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// Power cut, with a seed for what survives.
    Crash(u64),
    /// Power cut, nothing unsynced survives.
    CrashClean,
    /// The process ends, the machine goes on.
    Kill,
}

impl Ending {
    fn happen(self, disk: &SimDisk) {
        match self {
            Ending::Crash(seed) => disk.crash(seed),
            Ending::CrashClean => disk.crash_clean(),
            Ending::Kill => disk.kill(),
        }
    }
}

/// How many operations a script takes.
pub(crate) fn operations<T: Debug>(run: impl Fn(&SimDisk) -> Result<SimDisk, T>) -> u64 {
    run(&SimDisk::new()).expect("the script runs through").operation_count()
}

/// Runs a script up to one operation, and lets the power go in it.
pub(crate) fn cut_at<T>(count: u64, run: impl Fn(&SimDisk) -> Result<SimDisk, T>) -> (SimDisk, T) {
    let disk = SimDisk::new();
    disk.stop_after(count);
    let outcome = run(&disk).expect_err("the power goes");
    (disk, outcome)
}

/// Cuts a script off in every operation, and in each of these ways.
pub(crate) fn cut_at_every_operation<T: Debug>(
    endings: &[Ending],
    run: impl Fn(&SimDisk) -> Result<SimDisk, T>,
    check: impl Fn(&SimDisk, &T, &str),
) {
    for count in 0..operations(&run) {
        let (cut, outcome) = cut_at(count, &run);
        for ending in endings {
            let disk = cut.fork();
            ending.happen(&disk);
            check(&disk, &outcome, &format!("operation {count}, {ending:?}"));
        }
    }
}

/// Crashes a script in every `stride`-th operation, and then what opens after it in every operation.
pub(crate) fn cut_every_recovery<T: Debug, S, E>(
    stride: usize,
    run: impl Fn(&SimDisk) -> Result<SimDisk, T>,
    open: impl Fn(&SimDisk) -> Result<S, E>,
    check: impl Fn(&SimDisk, &T, &str),
) {
    for count in (0..operations(&run)).step_by(stride) {
        let (cut, outcome) = cut_at(count, &run);
        cut.crash(count);
        for recovery_count in 0.. {
            let disk = cut.fork();
            disk.stop_after(recovery_count);
            if open(&disk).is_ok() {
                break;
            }
            disk.crash(recovery_count);
            check(&disk, &outcome, &format!("operation {count}, operation {recovery_count} of the recovery"));
        }
    }
}

/// Lets every operation of these kinds fail, one in each run of the script. Tells the check how many went before.
pub(crate) fn fail_every_operation<T>(
    operations: &[Operation],
    run: impl Fn(&SimDisk) -> Result<SimDisk, T>,
    check: impl Fn(&SimDisk, T, (Operation, u64)),
) {
    for operation in operations {
        for before in 0.. {
            let disk = SimDisk::new();
            disk.set_fault_seed(before);
            disk.fail(*operation, before);
            match run(&disk) {
                Ok(end) if is_fault_left(&end) => break,
                Ok(_) => panic!("{operation:?} {before}: a failure was passed over"),
                Err(outcome) => check(&disk, outcome, (*operation, before)),
            }
        }
    }
}

/// Whether a failure that was ordered is still to come: the next operation of its kind fails then.
fn is_fault_left(disk: &SimDisk) -> bool {
    let (path, renamed) = (Path::new("/one"), Path::new("/other"));
    let every_kind = || {
        let file = disk.open(path, OpenMode::Create)?;
        file.write_at(0, b"bytes")?;
        file.set_length(1)?;
        file.sync_all()?;
        disk.rename(path, renamed)?;
        disk.remove(renamed)?;
        disk.sync_dir(Path::new("/"))
    };
    every_kind().is_err()
}

pub(crate) fn length(disk: &SimDisk, path: &Path) -> u64 {
    disk.open(path, OpenMode::Read).unwrap().length().unwrap()
}

pub(crate) fn bytes(disk: &SimDisk, path: &Path) -> Vec<u8> {
    let mut bytes = vec![0; length(disk, path) as usize];
    disk.open(path, OpenMode::Read).unwrap().read_at(0, &mut bytes).unwrap();
    bytes
}

/// Numbers that repeat for their seed.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % bound
    }
}
