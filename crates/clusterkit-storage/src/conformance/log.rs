//! What every implementation of [`Log`] has to do.

use bytes::Bytes;

use crate::limits::{NOTE_BYTES_MAX, OFFSET_MAX, RECORD_BYTES_MAX};
use crate::shared_log::{AppendError, ChangeError, Log, ReadError, StreamId, StreamStatus};

const RED: StreamId = StreamId(7);
const BLUE: StreamId = StreamId(u64::MAX);
/// Bytes of a record besides its payload.
const HEADER_BYTES: u64 = 48;

/// Checks logs, each of which `new` gives empty. What a crash leaves cannot be asked through the trait.
///
/// # Panics
///
/// Where a log does not do what [`Log`] promises.
pub fn log<L: Log>(mut new: impl FnMut() -> L) {
    let checks: [fn(&mut L); 8] = [
        records_are_read_as_appended,
        streams_know_nothing_of_each_other,
        an_append_goes_to_the_end,
        a_truncation_removes_the_end,
        a_release_removes_the_beginning,
        a_reset_goes_on_anywhere,
        a_removed_stream_is_gone,
        the_last_note_stays,
    ];
    for check in checks {
        let mut log = new();
        assert!(log.streams().is_empty(), "a new log has no streams");
        check(&mut log);
        log.sync().expect("what was done can be made durable");
        log.sync().expect("there may be nothing to sync");
    }
}

fn records_are_read_as_appended<L: Log>(log: &mut L) {
    let log = red(log);
    log.append(RED, 0, &[]).expect("no records are appended");
    append(log, RED, 0, &["a", "bb", "", "dddd"]);
    assert_eq!(read(log, RED, 0..4), ["a", "bb", "", "dddd"], "before the sync");
    log.sync().expect("records are synced");
    assert_eq!(read(log, RED, 1..3), ["bb", ""], "after the sync");
    assert!(log.read(RED, 2..2, 9).expect("nothing is read").is_empty());
    let counts = [(0, 1), (HEADER_BYTES + 1, 1), (2 * HEADER_BYTES + 2, 1), (2 * HEADER_BYTES + 3, 2)];
    for (bytes_max, count) in counts {
        let records = log.read(RED, 0..4, bytes_max).expect("records are read");
        assert_eq!(records.len(), count, "in {bytes_max} bytes");
    }
    for range in [0..5, 4..5, 7..9] {
        let refused = log.read(RED, range, 9);
        assert!(matches!(refused, Err(ReadError::OutOfRange { start: 0, end: 4, .. })), "{refused:?}");
    }
}

fn streams_know_nothing_of_each_other<L: Log>(log: &mut L) {
    let log = red(log);
    log.create(BLUE, 100).expect("a second stream is created");
    append(log, BLUE, 100, &["x"]);
    append(log, RED, 0, &["a"]);
    append(log, BLUE, 101, &["y"]);
    log.truncate(RED, 0).expect("a stream is truncated");
    log.note(RED, Bytes::from("note")).expect("a note is taken");
    assert_eq!(read(log, BLUE, 100..102), ["x", "y"]);
    let note = Some(Bytes::from("note"));
    let expected = [StreamStatus::new(RED, 0..0, note), StreamStatus::new(BLUE, 100..102, None)];
    assert_eq!(log.streams(), expected);
    assert_eq!(log.stream(BLUE), Some(expected[1].clone()));
}

fn an_append_goes_to_the_end<L: Log>(log: &mut L) {
    let refused = log.append(RED, 0, &[Bytes::new()]);
    assert!(matches!(refused, Err(AppendError::Unknown { stream: RED })), "{refused:?}");
    let log = red(log);
    append(log, RED, 0, &["a"]);
    for start in [0, 2] {
        let refused = log.append(RED, start, &[Bytes::from("b")]);
        assert!(matches!(refused, Err(AppendError::NotAtEnd { end: 1, .. })), "{refused:?}");
    }
    let large = [Bytes::from("fits"), Bytes::from(vec![0; RECORD_BYTES_MAX + 1])];
    let refused = log.append(RED, 1, &large);
    assert!(matches!(refused, Err(AppendError::TooLarge { position: 1, .. })), "{refused:?}");
    assert_eq!(range(log, RED), 0..1, "a refused append changes nothing");
}

fn a_truncation_removes_the_end<L: Log>(log: &mut L) {
    let log = red(log);
    append(log, RED, 0, &["a", "b", "c"]);
    log.truncate(RED, 3).expect("nothing is removed");
    log.truncate(RED, 1).expect("two are removed");
    append(log, RED, 1, &["B"]);
    assert_eq!(read(log, RED, 0..2), ["a", "B"]);
    log.release(RED, 1).expect("one is released");
    for end in [0, 3] {
        let refused = log.truncate(RED, end);
        assert!(matches!(refused, Err(ChangeError::OutOfRange { start: 1, end: 2, .. })), "{refused:?}");
    }
    log.truncate(RED, 1).expect("the last one is removed");
    assert_eq!(range(log, RED), 1..1);
}

fn a_release_removes_the_beginning<L: Log>(log: &mut L) {
    let log = red(log);
    append(log, RED, 0, &["a", "b", "c"]);
    log.release(RED, 2).expect("two are released");
    log.release(RED, 1).expect("what is released already changes nothing");
    assert_eq!((range(log, RED), read(log, RED, 2..3)), (2..3, vec![Bytes::from("c")]));
    assert!(matches!(log.read(RED, 1..3, 9), Err(ReadError::OutOfRange { start: 2, end: 3, .. })));
    assert!(matches!(log.release(RED, 4), Err(ChangeError::OutOfRange { end: 3, .. })));
    log.release(RED, 3).expect("all are released");
    append(log, RED, 3, &["d"]);
    assert_eq!(read(log, RED, 3..4), ["d"]);
}

fn a_reset_goes_on_anywhere<L: Log>(log: &mut L) {
    let log = red(log);
    append(log, RED, 0, &["a", "b", "c"]);
    log.note(RED, Bytes::from("note")).expect("a note is taken");
    for start in [50, 1, OFFSET_MAX] {
        log.reset(RED, start).expect("a stream is reset");
        assert_eq!(range(log, RED), start..start);
        append(log, RED, start, &["new"]);
        assert_eq!(read(log, RED, start..start + 1), ["new"]);
    }
    for start in [OFFSET_MAX + 1, u64::MAX] {
        let refused = log.reset(RED, start);
        assert!(matches!(refused, Err(ChangeError::OffsetTooLarge { .. })), "{refused:?}");
        let refused = log.create(BLUE, start);
        assert!(matches!(refused, Err(ChangeError::OffsetTooLarge { .. })), "{refused:?}");
    }
    let status = log.stream(RED).expect("the stream is there");
    assert_eq!(status.note.as_deref(), Some(&b"note"[..]), "the note stays");
}

fn a_removed_stream_is_gone<L: Log>(log: &mut L) {
    let log = red(log);
    assert!(matches!(log.create(RED, 0), Err(ChangeError::Exists { stream: RED })));
    append(log, RED, 0, &["a"]);
    log.note(RED, Bytes::from("note")).expect("a note is taken");
    log.remove(RED).expect("a stream is removed");
    assert!(matches!(log.remove(RED), Err(ChangeError::Unknown { stream: RED })));
    assert!(matches!(log.truncate(RED, 0), Err(ChangeError::Unknown { .. })));
    assert!(matches!(log.release(RED, 0), Err(ChangeError::Unknown { .. })));
    assert!(matches!(log.reset(RED, 0), Err(ChangeError::Unknown { .. })));
    assert!(matches!(log.note(RED, Bytes::new()), Err(ChangeError::Unknown { .. })));
    assert!(matches!(log.read(RED, 0..1, 9), Err(ReadError::Unknown { stream: RED })));
    assert_eq!(log.stream(RED), None);
    log.create(RED, 5).expect("the name is free again");
    assert_eq!(log.streams(), [StreamStatus::new(RED, 5..5, None)], "and nothing of the old one is there");
}

fn the_last_note_stays<L: Log>(log: &mut L) {
    let log = red(log);
    for note in ["one", "", "three"] {
        log.note(RED, Bytes::from(note)).expect("a note is taken");
        let status = log.stream(RED).expect("the stream is there");
        assert_eq!(status.note.as_deref(), Some(note.as_bytes()));
    }
    let large = log.note(RED, Bytes::from(vec![0; NOTE_BYTES_MAX + 1]));
    assert!(matches!(large, Err(ChangeError::TooLarge { .. })), "{large:?}");
    let status = log.stream(RED).expect("the stream is there");
    assert_eq!((status.records, status.damaged), (0..0, false));
    assert_eq!(status.note.as_deref(), Some(&b"three"[..]));
}

fn red<L: Log>(log: &mut L) -> &mut L {
    log.create(RED, 0).expect("a stream is created");
    log
}

fn append(log: &mut impl Log, stream: StreamId, start: u64, payloads: &[&'static str]) {
    let payloads: Vec<Bytes> =
        payloads.iter().map(|payload| Bytes::from_static(payload.as_bytes())).collect();
    log.append(stream, start, &payloads).expect("records are appended at the end");
}

fn read(log: &impl Log, stream: StreamId, range: std::ops::Range<u64>) -> Vec<Bytes> {
    let records = log.read(stream, range.clone(), u64::MAX).expect("records that are held are read");
    let offsets: Vec<u64> = records.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, range.collect::<Vec<_>>(), "each record is read once");
    records.into_iter().map(|(_, payload)| payload).collect()
}

fn range(log: &impl Log, stream: StreamId) -> std::ops::Range<u64> {
    log.stream(stream).expect("the stream is there").records
}
