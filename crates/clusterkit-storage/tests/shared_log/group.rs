//! Many threads and split syncs: whoever was told that something is durable finds it after a crash.

use std::sync::Barrier;
use std::thread;

use bytes::Bytes;
use clusterkit_storage::disk::{Operation, SimDisk};
use clusterkit_storage::shared_log::{
    AppendError, ChangeError, CommitError, GroupCommit, Log, LogError, PendingSync, StreamId, UpkeepError,
};

use crate::twin::{contents, reopen};

const THREADS: u64 = 16;
const RECORDS: u64 = 25;

fn payload(stream: u64, offset: u64) -> Bytes {
    Bytes::from(format!("record {offset} of stream {stream};").repeat(3))
}

fn shared(disk: &SimDisk) -> GroupCommit {
    let mut log = reopen(disk);
    (0..THREADS).for_each(|stream| log.create(StreamId(stream), 0).unwrap());
    log.sync().unwrap();
    GroupCommit::new(log)
}

/// What a crash at this moment leaves of a stream.
fn after_crash(disk: &SimDisk, seed: u64, stream: u64) -> Vec<Bytes> {
    let disk = disk.fork();
    disk.crash(seed);
    contents(&reopen(&disk)).remove(&stream).expect("the stream is there").records
}

#[test]
fn what_a_thread_was_told_is_durable() {
    let disk = SimDisk::new();
    let group = shared(&disk);
    let start = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for stream in 0..THREADS {
            let (disk, group, start) = (&disk, &group, &start);
            scope.spawn(move || {
                start.wait();
                for offset in 0..RECORDS {
                    group.append(StreamId(stream), offset, &[payload(stream, offset)]).unwrap();
                    if offset % 8 == stream % 8 {
                        let found = after_crash(disk, offset, stream);
                        let expected: Vec<Bytes> =
                            (0..=offset).map(|offset| payload(stream, offset)).collect();
                        assert_eq!(found, expected);
                    }
                    let record = group.read(StreamId(stream), offset..offset + 1, 9).unwrap();
                    assert_eq!(record, [(offset, payload(stream, offset))]);
                }
            });
        }
        for _ in 0..20 {
            group.upkeep().unwrap();
            thread::yield_now();
        }
    });
    disk.crash_clean();
    for (stream, found) in contents(&reopen(&disk)) {
        assert_eq!(found.records, (0..RECORDS).map(|offset| payload(stream, offset)).collect::<Vec<_>>());
    }
}

#[test]
fn a_commit_of_several_changes_is_durable_as_a_whole() {
    let disk = SimDisk::new();
    let group = shared(&disk);
    let end = group
        .commit(|log| {
            log.append(StreamId(3), 0, &[payload(3, 0), payload(3, 1)])?;
            log.append(StreamId(4), 0, &[payload(4, 0)])?;
            Ok::<u64, AppendError>(log.end())
        })
        .unwrap();
    assert!(end > THREADS);
    disk.crash_clean();
    let found = contents(&reopen(&disk));
    assert_eq!((found[&3].records.len(), found[&4].records.len()), (2, 1));
}

#[test]
fn a_refused_change_is_told_from_one_of_unknown_outcome() {
    let disk = SimDisk::new();
    let group = shared(&disk);
    let refused = group.append(StreamId(3), 5, &[]);
    assert!(matches!(refused, Err(CommitError::Change(AppendError::NotAtEnd { .. }))), "{refused:?}");
    group.upkeep().unwrap();
    disk.fail(Operation::Sync, 0);
    let unknown = group.append(StreamId(3), 0, &[payload(3, 0)]);
    assert!(matches!(unknown, Err(CommitError::OutcomeUnknown(_))), "{unknown:?}");
    let refused = group.change(|log| log.release(StreamId(3), 0));
    assert!(matches!(refused, Err(ChangeError::Log(LogError::Poisoned))), "{refused:?}");
}

#[test]
fn a_failed_sync_is_told_to_all_who_wait() {
    let disk = SimDisk::new();
    let group = shared(&disk);
    disk.fail(Operation::Sync, 5);
    let told: u64 = thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|stream| {
                let group = &group;
                scope.spawn(move || {
                    let append = |offset| group.append(StreamId(stream), offset, &[payload(stream, offset)]);
                    (0..RECORDS).take_while(|offset| append(*offset).is_ok()).count() as u64
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().expect("a writer ends")).sum()
    });
    assert!(told < THREADS * RECORDS, "the disk failed before all was written");
    disk.kill();
    let kept: usize = contents(&reopen(&disk)).values().map(|stream| stream.records.len()).sum();
    assert!(kept as u64 >= told, "{told} were told to be durable, {kept} are there");
}

#[test]
fn appends_go_on_while_a_sync_runs_and_are_not_part_of_it() {
    let disk = SimDisk::new();
    let mut log = shared(&disk).into_log();
    log.append(StreamId(1), 0, &[payload(1, 0)]).unwrap();
    let first: PendingSync = log.begin_sync().unwrap().expect("there is something to sync");
    log.append(StreamId(1), 1, &[payload(1, 1)]).unwrap();
    log.append(StreamId(2), 0, &[payload(2, 0)]).unwrap();
    let finished = thread::scope(|scope| scope.spawn(|| first.run()).join().expect("a sync ends"));
    let synced = log.finish_sync(finished).unwrap();
    assert_eq!(synced, log.end() - 2);
    assert_eq!(after_crash(&disk, 1, 1)[0], payload(1, 0));
    assert_eq!(log.read(StreamId(1), 0..2, u64::MAX).unwrap().len(), 2, "what waits can be read");

    // A sync that overtakes another covers it.
    let second = log.begin_sync().unwrap().expect("there is something to sync");
    log.append(StreamId(2), 1, &[payload(2, 1)]).unwrap();
    log.sync().unwrap();
    let end = log.synced_end();
    assert_eq!((end, log.finish_sync(second.run()).unwrap()), (log.end(), end));
    disk.crash_clean();
    let found = contents(&reopen(&disk));
    assert_eq!((found[&1].records.len(), found[&2].records.len()), (2, 2));
}

#[test]
fn a_sync_that_is_dropped_is_made_up_for_by_the_next() {
    let disk = SimDisk::new();
    let mut log = shared(&disk).into_log();
    for offset in 0..60 {
        log.append(StreamId(1), offset, &[Bytes::from(vec![1; 900])]).unwrap();
        drop(log.begin_sync().unwrap());
    }
    assert!(log.segment_count() > 2);
    log.sync().unwrap();
    disk.crash_clean();
    assert_eq!(contents(&reopen(&disk))[&1].records.len(), 60);
}

#[test]
fn upkeep_that_runs_beside_the_log_is_taken_over() {
    let disk = SimDisk::new();
    let mut log = shared(&disk).into_log();
    let pending = log.begin_upkeep().expect("segments are to be prepared");
    let late = log.begin_upkeep().expect("they are still to be prepared");
    let finished = thread::scope(|scope| scope.spawn(|| pending.run()).join().expect("upkeep ends"));
    log.append(StreamId(1), 0, &[Bytes::from(vec![1; 30_000])]).unwrap();
    log.finish_upkeep(finished).unwrap();
    log.finish_upkeep(late.run()).unwrap();
    (1..80).for_each(|offset| log.append(StreamId(1), offset, &[Bytes::from(vec![1; 900])]).unwrap());
    log.sync().unwrap();
    disk.crash_clean();
    assert_eq!(contents(&reopen(&disk))[&1].records.len(), 80);
}

#[test]
fn the_durable_end_of_a_stream_is_what_a_crash_leaves_of_it() {
    let disk = SimDisk::new();
    let mut log = shared(&disk).into_log();
    let (red, blue, new) = (StreamId(1), StreamId(2), StreamId(99));
    assert_eq!((log.durable_end(red), log.durable_end(new)), (Some(0), None));
    log.append(red, 0, &[payload(1, 0), payload(1, 1)]).unwrap();
    log.append(blue, 0, &[payload(2, 0)]).unwrap();
    log.append(red, 2, &[payload(1, 2)]).unwrap();
    assert_eq!((log.durable_end(red), log.durable_end(blue)), (Some(0), Some(0)));
    let pending = log.begin_sync().unwrap().expect("there is something to sync");
    log.append(red, 3, &[payload(1, 3), payload(1, 4)]).unwrap();
    log.truncate(red, 4).unwrap();
    log.finish_sync(pending.run()).unwrap();
    assert_eq!((log.durable_end(red), log.durable_end(blue)), (Some(3), Some(1)));
    // A truncation takes back what was durable, and what replaces it is not.
    log.truncate(red, 1).unwrap();
    log.append(red, 1, &[payload(1, 7), payload(1, 8)]).unwrap();
    assert_eq!(log.durable_end(red), Some(1));
    // As long as it is not durable where a stream begins, nothing of it is.
    log.reset(blue, 50).unwrap();
    log.create(new, 7).unwrap();
    assert_eq!((log.durable_end(blue), log.durable_end(new)), (None, None));
    log.sync().unwrap();
    assert_eq!([red, blue, new].map(|stream| log.durable_end(stream)), [Some(3), Some(50), Some(7)]);
    log.append(blue, 50, &[payload(2, 50)]).unwrap();
    drop(log);
    disk.crash_clean();
    let log = reopen(&disk);
    assert_eq!([red, blue, new].map(|stream| log.durable_end(stream)), [Some(3), Some(50), Some(7)]);
}

#[test]
fn a_group_syncs_compacts_and_tells_a_poisoned_log() {
    let disk = SimDisk::new();
    let group = shared(&disk);
    group.change(|log| log.release(StreamId(1), 0)).unwrap();
    group.change(|log| log.reset(StreamId(2), 9)).unwrap();
    group.sync().unwrap();
    assert!(group.compact(9_000).unwrap().done);
    disk.crash_clean();
    assert_eq!(contents(&reopen(&disk))[&2].start, 9);
    let disk = SimDisk::new();
    let group = shared(&disk);
    disk.fail(Operation::Sync, 0);
    group.change(|log| log.reset(StreamId(2), 9)).unwrap();
    assert!(group.sync().is_err());
    assert!(matches!(group.upkeep(), Err(UpkeepError::Log(LogError::Poisoned))));
}

#[test]
fn upkeep_that_outlives_its_log_leaves_the_next_one_alone() {
    let disk = SimDisk::new();
    let mut log = shared(&disk).into_log();
    let pending = log.begin_upkeep().expect("segments are to be prepared");
    log.close().unwrap();
    let mut log = reopen(&disk);
    for offset in 0..60 {
        log.append(StreamId(1), offset, &[Bytes::from(vec![1; 900])]).unwrap();
    }
    log.sync().unwrap();
    let before = contents(&log);
    let finished = pending.run();
    drop((finished, log));
    disk.kill();
    assert_eq!(contents(&reopen(&disk)), before);
}
