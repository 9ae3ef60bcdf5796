//! Damage to what was synced is reported with the streams that it hits, and a wrong record is never served.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clusterkit_storage::disk::{
    Disk, DiskError, DiskFile, DiskLock, LockError, OpenMode, Operation, SimDisk,
};
use clusterkit_storage::limits::PAGE_BYTES;
use clusterkit_storage::shared_log::{
    AppendError, ChangeError, Log, OpenError, ReadError, Recovery, SharedLog, StreamId,
};

use crate::support::{Chance, bytes, length};
use crate::twin::{DIR, Streams, contents, open, options, reopen};

const HEADER: u64 = 48;

/// A disk with a log, and what the log may hold if it was not harmed.
struct Sample {
    disk: SimDisk,
    possible: Vec<Streams>,
}

fn payload(stream: u64, offset: u64) -> Bytes {
    Bytes::from(format!("record {offset} of stream {stream};").repeat(30))
}

fn append(log: &mut SharedLog, stream: u64, count: u64) {
    let start = log.stream(StreamId(stream)).unwrap().records.end;
    let payloads: Vec<Bytes> = (start..start + count).map(|offset| payload(stream, offset)).collect();
    log.append(StreamId(stream), start, &payloads).unwrap();
}

/// A log with everything in it: notes, streams that are gone, freed segments, moved and released records.
fn build(disk: &SimDisk) -> SharedLog {
    let mut log = reopen(disk);
    (0..6).for_each(|stream| log.create(StreamId(stream), 0).unwrap());
    for round in 0..40 {
        append(&mut log, round % 6, 3 + round % 4);
        if round % 5 == 4 {
            let records = log.stream(StreamId(round % 6)).unwrap().records;
            log.release(StreamId(round % 6), records.end - 3).unwrap();
            log.note(StreamId(3), Bytes::from(format!("note {round}"))).unwrap();
        }
        if round % 7 == 6 {
            let records = log.stream(StreamId(2)).unwrap().records;
            log.truncate(StreamId(2), records.end - records.end.min(2).min(records.end - records.start))
                .unwrap();
        }
        log.sync().unwrap();
    }
    log.remove(StreamId(5)).unwrap();
    log.compact(9_000).unwrap();
    log.sync().unwrap();
    log.prepare_next().unwrap();
    log
}

fn samples() -> [Sample; 3] {
    let sample = |end: fn(&SimDisk, SharedLog), unproved: bool| {
        let disk = SimDisk::new();
        let mut log = build(&disk);
        let before = contents(&log);
        append(&mut log, 1, 1);
        let middle = contents(&log);
        append(&mut log, 4, 1);
        log.sync().unwrap();
        let after = contents(&log);
        end(&disk, log);
        Sample { disk, possible: if unproved { vec![before, middle, after] } else { vec![after] } }
    };
    let close = |disk: &SimDisk, log: SharedLog| {
        log.close().unwrap();
        disk.crash_clean();
    };
    [sample(close, false), sample(|disk, _| disk.kill(), false), sample(|disk, _| disk.crash_clean(), true)]
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(Path::new(DIR)).unwrap().iter().map(|name| Path::new(DIR).join(name)).collect()
}

/// What became of a log that was harmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Nothing,
    Streams,
    Refused,
}

impl Sample {
    /// Opens the log after damage: it is refused, or each stream is reported or whole.
    fn check(&self, context: &str, streams_max: usize, harm: impl FnOnce(&SimDisk)) -> Seen {
        let disk = self.disk.fork();
        harm(&disk);
        let operations = disk.operation_count();
        match open(&disk) {
            Ok((log, recovery)) => {
                self.check_streams(context, &log, &recovery);
                let hit = recovery.damage.as_ref().map_or(0, |damage| damage.streams.len());
                assert!(hit <= streams_max, "{context}: {hit} streams are reported");
                check_heals(&disk, log, context);
                if recovery.damage.is_some_and(|damage| !damage.streams.is_empty()) {
                    Seen::Streams
                } else {
                    Seen::Nothing
                }
            }
            Err(OpenError::Disk(error)) => panic!("{context}: {error}"),
            Err(_) => {
                // The directory, and the mark if it is gone, are created each time, and that is all.
                assert!(disk.operation_count() <= operations + 2, "{context}: a refusal changes nothing");
                Seen::Refused
            }
        }
    }

    fn check_streams(&self, context: &str, log: &SharedLog, recovery: &Recovery) {
        let damaged: Vec<u64> =
            log.streams().iter().filter(|status| status.damaged).map(|status| status.stream.0).collect();
        let reported = recovery.damage.clone().unwrap_or_default().streams;
        assert_eq!(reported.iter().map(|stream| stream.0).collect::<Vec<_>>(), damaged, "{context}");
        let found = contents(log);
        let fits = |possible: &&Streams| {
            let mut expected = (*possible).clone();
            damaged.iter().for_each(|stream| assert!(expected.remove(stream).is_some() || *stream == 5));
            found == expected
        };
        assert!(self.possible.iter().any(|possible| fits(&possible)), "{context}: {damaged:?} {found:?}");
    }
}

/// Once damaged streams are removed the log is as any other, and says so again when it is opened again.
fn check_heals(disk: &SimDisk, mut log: SharedLog, context: &str) {
    for status in log.streams().into_iter().filter(|status| status.damaged) {
        let refused = log.append(status.stream, status.records.end, &[]);
        assert!(matches!(refused, Err(AppendError::Damaged { .. })), "{context}: {refused:?}");
        let refused = log.read(status.stream, status.records, 9);
        assert!(matches!(refused, Err(ReadError::Damaged { .. })), "{context}: {refused:?}");
        log.remove(status.stream).unwrap();
    }
    log.create(StreamId(99), 7).unwrap();
    append(&mut log, 99, 60);
    log.compact(u64::MAX).unwrap();
    log.sync().unwrap();
    log.prepare_next().unwrap();
    let expected = contents(&log);
    drop(log);
    disk.crash_clean();
    let (log, recovery) = open(disk).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    assert_eq!(contents(&log), expected, "{context}");
    assert_eq!(recovery.damage.unwrap_or_default().streams, [], "{context}");
}

#[test]
fn harm_at_random_places_is_reported_or_harmless() {
    let mut chance = Chance(77);
    let mut seen = std::collections::BTreeMap::<Seen, u32>::new();
    for (ending, sample) in samples().iter().enumerate() {
        let files = files(&sample.disk);
        for round in 0..200 {
            let path = &files[chance.below(files.len() as u64) as usize];
            let length = length(&sample.disk, path);
            let (byte, kind) = (chance.below(length), round % 4);
            let context = format!("ending {ending}, {}, byte {byte}, kind {kind}", path.display());
            // One bit hits one entry, and that is of one stream.
            let streams_max = if kind < 2 { 1 } else { usize::MAX };
            let outcome = sample.check(&context, streams_max, |disk| match kind {
                0 | 1 => disk.flip_bit(path, byte, byte as u32).unwrap(),
                2 => disk.lose_page(path, byte / PAGE_BYTES as u64).unwrap(),
                _ => disk.open(path, OpenMode::Write).unwrap().set_length(byte).unwrap(),
            });
            *seen.entry(outcome).or_default() += 1;
        }
    }
    assert!(seen.len() == 3 && seen.values().all(|count| *count > 20), "{seen:?}");
}

#[test]
fn many_flips_at_once_are_reported_or_harmless() {
    let mut chance = Chance(78);
    for (ending, sample) in samples().iter().enumerate() {
        let files = files(&sample.disk);
        for round in 0..40 {
            let context = format!("ending {ending}, round {round}");
            // The mark stays whole: with it and the end of the log gone, nothing proves that it was longer.
            let segments: Vec<&PathBuf> = files.iter().filter(|path| path.extension().is_some()).collect();
            let mut place = || {
                let path = segments[chance.below(segments.len() as u64) as usize].clone();
                let byte = chance.below(length(&sample.disk, &path));
                (path, byte)
            };
            let harmed: Vec<(PathBuf, u64)> = (0..2 + round % 9).map(|_| place()).collect();
            sample.check(&context, usize::MAX, |disk| {
                harmed.iter().for_each(|(path, byte)| disk.flip_bit(path, *byte, *byte as u32).unwrap());
            });
        }
    }
}

#[test]
fn a_missing_file_is_reported() {
    for sample in samples() {
        let mut seen = Vec::new();
        for path in files(&sample.disk) {
            let context = format!("{} is missing", path.display());
            seen.push((sample.check(&context, usize::MAX, |disk| disk.remove(&path).unwrap()), path));
        }
        let unseen = seen.iter().filter(|(seen, _)| *seen == Seen::Nothing).map(|(_, path)| path);
        // A mark proves something only if the log is harmed as well; freed and prepared segments hold nothing.
        let reported = seen.len() - unseen.count();
        assert!(reported > 4, "{seen:?}");
    }
}

/// A closed log of six streams in which each record is found by its bytes.
fn closed() -> (SimDisk, Streams) {
    let [sample, _, _] = samples();
    (sample.disk, sample.possible[0].clone())
}

/// Where the entry of a record lies: the last place that has its bytes.
fn place(disk: &SimDisk, record: &Bytes) -> (PathBuf, u64) {
    let find = |path: PathBuf| {
        let bytes = bytes(disk, &path);
        let at = bytes.windows(record.len()).rposition(|window| window == record)?;
        Some((path, at as u64 - HEADER))
    };
    files(disk).into_iter().rev().find_map(find).expect("the record is on the disk")
}

fn active(disk: &SimDisk) -> PathBuf {
    let written = |path: &PathBuf| {
        path.extension().is_some_and(|suffix| suffix == "seg") && bytes(disk, path)[0..48] != [0; 48]
    };
    files(disk).into_iter().rfind(written).expect("there is a segment")
}

#[test]
fn a_damaged_payload_hits_its_stream_alone() {
    let (disk, streams) = closed();
    for (id, stream) in &streams {
        for record in &stream.records {
            let disk = disk.fork();
            let (segment, position) = place(&disk, record);
            disk.flip_bit(&segment, position + HEADER + 3, 1).unwrap();
            let (log, recovery) = open(&disk).unwrap();
            let damage = recovery.damage.expect("damage is reported");
            assert_eq!(damage.streams, [StreamId(*id)]);
            assert_eq!((&damage.places[0].segment, damage.places[0].position), (&segment, position));
            let mut expected = streams.clone();
            expected.remove(id);
            assert_eq!(contents(&log), expected);
        }
    }
}

#[test]
fn a_damaged_header_in_a_sealed_segment_hits_its_stream_alone() {
    let (disk, streams) = closed();
    let active = active(&disk);
    let mut count = 0;
    for (id, stream) in &streams {
        for record in &stream.records {
            let disk = disk.fork();
            let (segment, position) = place(&disk, record);
            if segment == active {
                continue;
            }
            count += 1;
            disk.flip_bit(&segment, position + 40, 1).unwrap();
            let (log, recovery) = open(&disk).unwrap();
            assert_eq!(recovery.damage.expect("damage is reported").streams, [StreamId(*id)]);
            let mut expected = streams.clone();
            expected.remove(id);
            assert_eq!(contents(&log), expected);
        }
    }
    assert!(count > 10, "{count}");
}

#[test]
fn a_damaged_header_of_which_nothing_tells_the_stream_refuses_the_log() {
    let (disk, streams) = closed();
    let (segment, position) = place(&disk, streams[&1].records.last().unwrap());
    assert_eq!(segment, active(&disk));
    disk.flip_bit(&segment, position + 40, 1).unwrap();
    match open(&disk) {
        Err(OpenError::Damaged { segment: found, position: at, .. }) => {
            assert_eq!((found, at), (segment, position));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_header_is_told_by_the_next_entry_of_its_stream() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    for stream in [1, 2] {
        log.create(StreamId(stream), 0).unwrap();
    }
    for stream in [1, 2, 1, 2] {
        append(&mut log, stream, 1);
    }
    log.close().unwrap();
    let (segment, position) = place(&disk, &payload(2, 0));
    disk.flip_bit(&segment, position + 30, 1).unwrap();
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage.expect("damage is reported").streams, [StreamId(2)]);
    assert_eq!(contents(&log)[&1].records, [payload(1, 0), payload(1, 1)]);
}

/// Fills segments with records of stream 9 until so many hold entries.
fn fill_segments(log: &mut SharedLog, count: usize) {
    while log.segment_count() < count {
        append(log, 9, 1);
    }
}

#[test]
fn a_lost_truncation_is_told_even_if_the_offsets_fit() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(StreamId(1), 0).unwrap();
    log.create(StreamId(9), 0).unwrap();
    append(&mut log, 1, 2);
    log.truncate(StreamId(1), 1).unwrap();
    log.append(StreamId(1), 1, &[Bytes::from("another record")]).unwrap();
    append(&mut log, 1, 1);
    fill_segments(&mut log, 2);
    log.close().unwrap();
    let (segment, replaced) = place(&disk, &Bytes::from("another record"));
    // The truncation lies right before it.
    for header in [replaced - HEADER, replaced] {
        disk.flip_bit(&segment, header + 24, 0).unwrap();
    }
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage.expect("damage is reported").streams, [StreamId(1)]);
    assert!(!log.stream(StreamId(9)).unwrap().damaged);
}

#[test]
fn a_damaged_table_keeps_the_segments_before_it() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(StreamId(1), 0).unwrap();
    log.create(StreamId(9), 0).unwrap();
    append(&mut log, 1, 1);
    fill_segments(&mut log, 2);
    append(&mut log, 1, 1);
    log.sync().unwrap();
    let second = active(&disk);
    fill_segments(&mut log, 4);
    log.close().unwrap();
    disk.flip_bit(&second, HEADER + 9, 0).unwrap();

    let (mut log, recovery) = open(&disk).unwrap();
    let damage = recovery.damage.expect("the place is reported");
    assert_eq!((damage.streams.len(), &damage.places[0].segment, damage.places[0].position), (0, &second, 0));
    log.release(StreamId(1), 1).unwrap();
    let end = log.stream(StreamId(9)).unwrap().records.end;
    log.release(StreamId(9), end).unwrap();
    for _ in 0..3 {
        log.sync().unwrap();
        log.prepare_next().unwrap();
    }
    assert_eq!(log.segment_count(), 3, "the third is freed, the first is needed");
    drop(log);
    let (mut log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage.expect("the place is reported").streams, []);
    assert_eq!(contents(&log)[&1].records, [payload(1, 1)]);
    // Compaction empties the damaged one first, and then both can go.
    log.compact(u64::MAX).unwrap();
    for _ in 0..4 {
        log.sync().unwrap();
        log.prepare_next().unwrap();
    }
    assert_eq!(log.segment_count(), 1);
    drop(log);
    assert_eq!(contents(&reopen(&disk))[&1].records, [payload(1, 1)]);
}

#[test]
fn damage_to_a_released_record_hits_no_stream() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(StreamId(1), 0).unwrap();
    append(&mut log, 1, 4);
    log.release(StreamId(1), 2).unwrap();
    log.close().unwrap();
    let (segment, position) = place(&disk, &payload(1, 1));
    disk.flip_bit(&segment, position + HEADER, 1).unwrap();
    let (log, recovery) = open(&disk).unwrap();
    let damage = recovery.damage.expect("the place is reported");
    assert_eq!((damage.streams.len(), damage.places[0].position), (0, position));
    assert_eq!(contents(&log)[&1].records, [payload(1, 2), payload(1, 3)]);
}

#[test]
fn a_damaged_stream_takes_no_change_that_would_pass_it_for_whole() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(StreamId(1), 0).unwrap();
    log.note(StreamId(1), payload(1, 7)).unwrap();
    append(&mut log, 1, 1);
    log.close().unwrap();
    let (segment, position) = place(&disk, &payload(1, 7));
    disk.flip_bit(&segment, position + HEADER, 1).unwrap();
    let (mut log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage.expect("damage is reported").streams, [StreamId(1)]);
    let refused = [
        log.note(StreamId(1), Bytes::from("new")),
        log.truncate(StreamId(1), 0),
        log.release(StreamId(1), 1),
    ];
    assert!(refused.iter().all(|refused| matches!(refused, Err(ChangeError::Damaged { .. }))), "{refused:?}");
    assert!(log.stream(StreamId(1)).unwrap().damaged);
    log.remove(StreamId(1)).unwrap();
    log.create(StreamId(1), 3).unwrap();
    log.close().unwrap();
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage.unwrap_or_default().streams, []);
    assert_eq!(log.stream(StreamId(1)).unwrap().records, 3..3);
}

#[test]
fn damage_after_opening_is_seen_by_a_read() {
    let (disk, streams) = closed();
    let log = reopen(&disk);
    let stream = &streams[&4];
    let (segment, position) = place(&disk, &stream.records[0]);
    for byte in position..position + HEADER + stream.records[0].len() as u64 {
        disk.flip_bit(&segment, byte, 5).unwrap();
        match log.read(StreamId(4), stream.start..stream.end(), u64::MAX) {
            Err(ReadError::Torn { offset, position: at, .. }) => {
                assert_eq!((offset, at), (stream.start, position));
            }
            other => panic!("byte {byte}: {other:?}"),
        }
        disk.flip_bit(&segment, byte, 5).unwrap();
    }
    assert_eq!(contents(&log), streams);
}

#[test]
fn records_that_changed_places_are_not_served() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    for stream in [1, 2] {
        log.create(StreamId(stream), 0).unwrap();
        append(&mut log, stream, 2);
    }
    log.sync().unwrap();
    let (segment, first) = place(&disk, &payload(1, 0));
    let (_, second) = place(&disk, &payload(2, 0));
    let file = disk.open(&segment, OpenMode::Write).unwrap();
    let mut entries = [vec![0; 48 + payload(1, 0).len()], vec![0; 48 + payload(1, 0).len()]];
    file.read_at(first, &mut entries[0]).unwrap();
    file.read_at(second, &mut entries[1]).unwrap();
    file.write_at(first, &entries[1]).unwrap();
    file.write_at(second, &entries[0]).unwrap();
    for stream in [1, 2] {
        let refused = log.read(StreamId(stream), 0..1, 9);
        assert!(matches!(refused, Err(ReadError::Torn { offset: 0, .. })), "{refused:?}");
    }
    drop(log);
    match open(&disk) {
        Ok((log, _)) => assert!(log.streams().iter().all(|status| status.damaged)),
        Err(error) => assert!(matches!(error, OpenError::Damaged { .. }), "{error:?}"),
    }
}

#[test]
fn a_torn_tail_is_cut_and_nothing_behind_it_comes_back() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(StreamId(1), 0).unwrap();
    append(&mut log, 1, 2);
    log.sync().unwrap();
    let lost: Vec<Bytes> = ["old one", "old two", "old three"].map(Bytes::from).to_vec();
    log.append(StreamId(1), 2, &lost).unwrap();
    // Handed to the operating system and not synced.
    drop(log.begin_sync().unwrap());
    drop(log);
    disk.kill();
    let (segment, position) = place(&disk, &lost[1]);
    disk.flip_bit(&segment, position, 0).unwrap();
    let (mut log, recovery) = open(&disk).unwrap();
    let torn = recovery.torn.expect("the tail is torn");
    assert_eq!((torn.segment, torn.position, torn.bytes), (segment, position, 2 * HEADER + 7 + 9));
    assert_eq!(recovery.damage, None);
    assert_eq!(log.read(StreamId(1), 2..3, 9).unwrap(), [(2, lost[0].clone())]);
    log.append(StreamId(1), 3, &[Bytes::from("new two")]).unwrap();
    log.sync().unwrap();
    drop(log);
    disk.kill();
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!((recovery.torn, recovery.damage), (None, None));
    assert_eq!(log.stream(StreamId(1)).unwrap().records, 0..4);
    assert_eq!(log.read(StreamId(1), 3..4, 9).unwrap(), [(3, Bytes::from("new two"))]);
}

#[test]
fn a_log_without_its_format_is_not_a_new_log() {
    let (disk, _) = closed();
    disk.remove(&Path::new(DIR).join("format")).unwrap();
    assert!(matches!(open(&disk), Err(OpenError::FormatMissing { .. })));
    let (disk, _) = closed();
    for path in files(&disk).iter().filter(|path| path.extension().is_some()) {
        disk.remove(path).unwrap();
    }
    assert!(matches!(open(&disk), Err(OpenError::SegmentsMissing { .. })));
}

/// A log of streams 1 to 3, one record each, in which the headers of these two records are damaged, and a later
/// record of stream 2 explains its own.
fn with_two_holes(first: u64, last: bool) -> Result<(SharedLog, Recovery), OpenError> {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    (1..4).for_each(|stream| log.create(StreamId(stream), 0).unwrap());
    for stream in [first, 3, 2, 3] {
        append(&mut log, stream, 1);
    }
    append(&mut log, 2, 1);
    if last {
        append(&mut log, first, 1);
    }
    log.close().unwrap();
    for stream in [first, 2] {
        let (segment, position) = place(&disk, &payload(stream, 0));
        disk.flip_bit(&segment, position + 40, 1).unwrap();
    }
    open(&disk)
}

#[test]
fn a_hole_that_is_explained_does_not_explain_another() {
    let opened = with_two_holes(1, false);
    assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{opened:?}");
}

#[test]
fn each_hole_that_is_explained_is_told() {
    let (log, recovery) = with_two_holes(1, true).unwrap();
    assert_eq!(recovery.damage.expect("damage is reported").streams, [StreamId(1), StreamId(2)]);
    assert_eq!(contents(&log)[&3].records.len(), 2);
}

#[test]
fn a_lost_table_header_hits_no_stream() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(StreamId(9), 0).unwrap();
    fill_segments(&mut log, 3);
    append(&mut log, 9, 2);
    log.close().unwrap();
    let active = active(&disk);
    disk.flip_bit(&active, 40, 1).unwrap();
    let expected = contents(&log_of(&disk.fork(), &active));
    let (log, recovery) = open(&disk).unwrap();
    let damage = recovery.damage.expect("the place is reported");
    assert_eq!((damage.streams.len(), &damage.places[0].segment), (0, &active));
    assert_eq!(contents(&log), expected);
}

/// The log with the table's header whole again.
fn log_of(disk: &SimDisk, active: &Path) -> SharedLog {
    disk.flip_bit(active, 40, 1).unwrap();
    reopen(disk)
}

/// Frees what can be freed.
fn settle(log: &mut SharedLog) {
    for _ in 0..4 {
        log.sync().unwrap();
        log.prepare_next().unwrap();
    }
}

/// A log in which stream 1 has old records in the first segment that were truncated, and newer ones in the
/// second, of which the first is damaged.
fn with_old_versions() -> (SimDisk, SharedLog) {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    log.create(StreamId(1), 0).unwrap();
    log.create(StreamId(9), 0).unwrap();
    append(&mut log, 1, 15);
    fill_segments(&mut log, 2);
    log.truncate(StreamId(1), 12).unwrap();
    let newer: Vec<Bytes> =
        (12..15).map(|offset| Bytes::from(format!("newer {offset}").repeat(20))).collect();
    log.append(StreamId(1), 12, &newer).unwrap();
    fill_segments(&mut log, 3);
    let end = log.stream(StreamId(9)).unwrap().records.end;
    log.release(StreamId(9), end).unwrap();
    log.close().unwrap();
    let (segment, position) = place(&disk, &newer[0]);
    disk.flip_bit(&segment, position + HEADER, 1).unwrap();
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage.expect("damage is reported").streams, [StreamId(1)]);
    (disk, log)
}

#[test]
fn damage_is_not_forgotten_when_its_segment_is_freed() {
    let (disk, mut log) = with_old_versions();
    let before = log.segment_count();
    log.compact(u64::MAX).unwrap();
    settle(&mut log);
    assert!(log.segment_count() < before, "the damaged segment is freed");
    drop(log);
    // The entry that tells the damage is read first, and then, after more segments, a table.
    for count in [0, 4, 8] {
        let (mut log, recovery) = open(&disk).unwrap();
        assert_eq!(recovery.damage.expect("damage is reported still").streams, [StreamId(1)], "{count}");
        let refused = log.read(StreamId(1), 12..13, 9);
        assert!(matches!(refused, Err(ReadError::Damaged { .. })), "{refused:?}");
        fill_segments(&mut log, count);
        let end = log.stream(StreamId(9)).unwrap().records.end;
        log.release(StreamId(9), end).unwrap();
        settle(&mut log);
    }
}

#[test]
fn a_reset_makes_a_stream_whole_that_lost_records() {
    let (disk, mut log) = with_old_versions();
    settle(&mut log);
    log.reset(StreamId(1), 50).unwrap();
    append(&mut log, 1, 1);
    let expected = contents(&log);
    assert_eq!(expected[&1].records, [payload(1, 50)]);
    log.close().unwrap();
    let (log, recovery) = open(&disk).unwrap();
    assert_eq!(recovery.damage.unwrap_or_default().streams, []);
    assert_eq!(contents(&log), expected);
}

#[test]
fn a_record_that_rots_stops_no_compaction() {
    let disk = SimDisk::new();
    let mut log = reopen(&disk);
    (1..3).chain([9]).for_each(|stream| log.create(StreamId(stream), 0).unwrap());
    append(&mut log, 1, 1);
    append(&mut log, 2, 1);
    fill_segments(&mut log, 3);
    let end = log.stream(StreamId(9)).unwrap().records.end;
    log.release(StreamId(9), end).unwrap();
    log.sync().unwrap();
    let (segment, position) = place(&disk, &payload(1, 0));
    disk.flip_bit(&segment, position + HEADER, 1).unwrap();
    let progress = log.compact(u64::MAX).unwrap();
    assert!(progress.done && progress.moved_bytes > 0, "{progress:?}");
    settle(&mut log);
    assert_eq!(log.segment_count(), 1, "all but the last are freed");
    for log in [log, open(&disk).unwrap().0] {
        assert!(log.stream(StreamId(1)).unwrap().damaged);
        assert_eq!(contents(&log)[&2].records, [payload(2, 0)]);
    }
}

#[test]
fn a_page_that_cannot_be_read_hits_its_streams_or_refuses_the_log() {
    let (disk, streams) = closed();
    let segments = files(&disk).into_iter().filter(|path| path.extension().is_some_and(|name| name == "seg"));
    let (mut told, mut refused) = (0, 0);
    for segment in segments {
        for page in 0..length(&disk, &segment) / PAGE_BYTES as u64 {
            let bad = BadPage { disk: disk.clone(), path: segment.clone(), page: page * PAGE_BYTES as u64 };
            let context = format!("{} page {page}", segment.display());
            match SharedLog::open(Arc::new(bad), Path::new(DIR), &options()) {
                Ok((log, recovery)) => {
                    told += 1;
                    let damage = recovery.damage.unwrap_or_else(|| panic!("{context}: damage is reported"));
                    let mut expected = streams.clone();
                    damage.streams.iter().for_each(|stream| drop(expected.remove(&stream.0)));
                    expected.keys().for_each(|id| assert!(!log.stream(StreamId(*id)).unwrap().damaged));
                }
                Err(OpenError::Unreadable(_) | OpenError::Damaged { .. }) => refused += 1,
                Err(error) => panic!("{context}: {error:?}"),
            }
        }
    }
    assert!(told > 3 && refused > 3, "{told} told, {refused} refused");
}

/// A disk with a page that fails whenever it is read.
#[derive(Clone, Debug)]
struct BadPage {
    disk: SimDisk,
    path: PathBuf,
    page: u64,
}

#[derive(Debug)]
struct BadFile {
    file: Box<dyn DiskFile>,
    bad: BadPage,
}

impl Disk for BadPage {
    fn create_dir_all(&self, dir: &Path) -> Result<(), DiskError> {
        self.disk.create_dir_all(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.disk.open(path, mode)?;
        Ok(if path == self.path { Box::new(BadFile { file, bad: self.clone() }) } else { file })
    }

    fn list(&self, dir: &Path) -> Result<Vec<OsString>, DiskError> {
        self.disk.list(dir)
    }

    fn remove(&self, path: &Path) -> Result<(), DiskError> {
        Err(DiskError::new(Operation::Remove, path, std::io::ErrorKind::Unsupported.into()))
    }

    fn rename(&self, source: &Path, target: &Path) -> Result<(), DiskError> {
        self.disk.rename(source, target)
    }

    fn exists(&self, _: &Path) -> Result<bool, DiskError> {
        // Nothing is removed, so that the next round finds the same.
        Ok(false)
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), DiskError> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> Result<DiskLock, LockError> {
        self.disk.lock(path)
    }

    fn free_bytes(&self, dir: &Path) -> Result<u64, DiskError> {
        self.disk.free_bytes(dir)
    }
}

impl DiskFile for BadFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        let BadPage { path, page, .. } = &self.bad;
        if offset < page + PAGE_BYTES as u64 && offset + buffer.len() as u64 > *page {
            return Err(DiskError::new(Operation::Read, path, std::io::ErrorKind::Other.into()));
        }
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_at(offset, bytes)
    }

    fn length(&self) -> Result<u64, DiskError> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> Result<(), DiskError> {
        self.file.set_length(length)
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<(), DiskError> {
        self.file.sync_all()
    }
}
