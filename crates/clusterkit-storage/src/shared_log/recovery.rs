//! Opening a log: go through all entries, prove what was synced, tell which streams a hole hits.
//!
//! Nothing on the disk is changed before all of it was read and believed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, BufMut};

use super::entry::Kind;
use super::error::OpenError;
use super::index::Index;
use super::replay::{Milestone, Replay};
use super::segment::{Home, Segment, SegmentId, id_in_name, is_unfinished, write_zeros};
use super::sync::{MARK_BYTES, mark_in};
use super::table::Table;
use super::upkeep::Lease;
use super::walk::{End, Gap, Source, Step, Walk};
use super::{Options, SharedLog, StreamId};
use crate::checked::{
    Damage as FileDamage, ReadFileError, WriteFileError, read_checked, temporary, write_checked,
};
use crate::disk::{Disk, DiskError, DiskFile, OpenMode};
use crate::limits::{READ_BYTES_MAX, SEGMENT_BYTES_MAX, SHARED_SEGMENT_BYTES_MIN};

const FORMAT_NAME: &str = "format";
const MARK_NAME: &str = "mark";
const VERSION: u16 = 1;

/// What opening a log found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Something of some streams that was durable is lost. The others are whole.
    pub damage: Option<Damage>,
    /// The torn end that was cut off, if there was one. None of it had been proved to be synced.
    pub torn: Option<TornTail>,
    /// How many files of an unfinished change were removed.
    pub leftover_count: usize,
}

/// What was lost of entries that were durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// Where something is not whole.
    pub places: Vec<Place>,
    /// The streams that lost something that they need. No other did. May be empty, if only what was not needed
    /// any more is lost.
    pub streams: Vec<StreamId>,
}

/// Where something is not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Place {
    /// The file.
    pub segment: PathBuf,
    /// Where in the file the first entry lies that is not whole.
    pub position: u64,
}

/// What a crash left of entries that were being written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TornTail {
    /// The file.
    pub segment: PathBuf,
    /// Where in the file the first entry lies that is not whole.
    pub position: u64,
    /// How many bytes were cut.
    pub bytes: u64,
}

pub(super) fn open(
    disk: Arc<dyn Disk>,
    dir: &Path,
    options: &Options,
) -> Result<(SharedLog, Recovery), OpenError> {
    let segment_bytes = options.segment_bytes;
    if !(SHARED_SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes) {
        return Err(OpenError::SegmentBytes { segment_bytes });
    }
    disk.create_dir_all(dir)?;
    let files = Files::list(&*disk, dir)?;
    let format = Format::read(&*disk, dir)?;
    let salt = format.as_ref().map_or(options.salt, |format| format.salt);
    let home = Home { disk, dir: Arc::from(dir), salt, free_bytes_min: options.free_bytes_min };
    match format {
        None if !files.segments.is_empty() => Err(OpenError::FormatMissing { dir: dir.to_path_buf() }),
        None | Some(Format { created: false, .. }) => create(home, segment_bytes, &files),
        Some(Format { created: true, .. }) => recover(&home, segment_bytes, &files),
    }
}

/// The names in a log's directory.
struct Files {
    segments: BTreeSet<SegmentId>,
    unfinished: Vec<PathBuf>,
}

impl Files {
    fn list(disk: &dyn Disk, dir: &Path) -> Result<Self, DiskError> {
        let names = disk.list(dir)?;
        let names: Vec<&str> = names.iter().filter_map(|name| name.to_str()).collect();
        let unfinished = names.iter().filter(|name| is_unfinished(name)).map(|name| dir.join(name));
        let segments = names.iter().filter_map(|name| id_in_name(name)).collect();
        Ok(Files { segments, unfinished: unfinished.collect() })
    }
}

/// What the file `format` says: version (2 bytes), 1 if the log's creation was finished (1), salt (8).
struct Format {
    created: bool,
    salt: u64,
}

impl Format {
    fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, OpenError> {
        let path = dir.join(FORMAT_NAME);
        let Some(mut body) = read_checked(disk, &path).map_err(OpenError::Format)? else {
            return Ok(None);
        };
        let version = body.try_get_u16_le().unwrap_or(VERSION);
        if version != VERSION {
            return Err(OpenError::Format(ReadFileError::Unsupported { path, version }));
        }
        let damaged = |_| {
            OpenError::Format(ReadFileError::Damaged { path: path.clone(), damage: FileDamage::Contents })
        };
        let created = body.try_get_u8().map_err(damaged)? == 1;
        let salt = body.try_get_u64_le().map_err(damaged)?;
        Ok(Some(Format { created, salt }))
    }

    fn write(&self, home: &Home) -> Result<(), DiskError> {
        let mut body = Vec::new();
        body.put_u16_le(VERSION);
        body.put_u8(u8::from(self.created));
        body.put_u64_le(self.salt);
        match write_checked(&*home.disk, &home.dir.join(FORMAT_NAME), &body) {
            Ok(()) => Ok(()),
            Err(WriteFileError::NotReplaced { source } | WriteFileError::OutcomeUnknown { source }) => {
                Err(source)
            }
            Err(WriteFileError::TooLarge { .. }) => unreachable!("the body is a few bytes"),
        }
    }
}

/// Creates a log, or does so again where an earlier process did not come to the end of it.
fn create(home: Home, segment_bytes: u64, files: &Files) -> Result<(SharedLog, Recovery), OpenError> {
    let salt = home.salt;
    Format { created: false, salt }.write(&home)?;
    let stale: Vec<PathBuf> = files.segments.iter().map(|id| home.path(*id)).collect();
    let leftover_count = remove(&home, stale.into_iter().chain(files.unfinished.clone()))?;
    let mark: Arc<dyn DiskFile> = Arc::from(home.disk.open(&home.dir.join(MARK_NAME), OpenMode::Create)?);
    let active = home.prepare(SegmentId(1), segment_bytes)?;
    let mut log = Parts { home, segment_bytes, mark, sealed: BTreeMap::new(), active }.into_log();
    log.push_table();
    log.flush()?;
    log.active.file.sync_data()?;
    log.synced_end = log.number_next;
    log.index.count_from(log.number_next);
    log.write_mark()?;
    log.mark.sync_all()?;
    log.home.disk.sync_dir(&log.home.dir)?;
    Format { created: true, salt }.write(&log.home)?;
    Ok((log, Recovery { leftover_count, ..Recovery::default() }))
}

fn recover(home: &Home, segment_bytes: u64, files: &Files) -> Result<(SharedLog, Recovery), OpenError> {
    let mark: Arc<dyn DiskFile> = Arc::from(home.disk.open(&home.dir.join(MARK_NAME), OpenMode::Create)?);
    let mut bytes = [0; MARK_BYTES];
    let filled = mark.read_at(0, &mut bytes)?;
    let noted = mark_in(&bytes[..filled]).unwrap_or(0);
    let segments = files.segments.iter().map(|id| home.open(*id)).collect::<Result<Vec<_>, _>>()?;
    let mut base_max = SegmentId(u32::MAX);
    // A crash may keep the table of a segment and not all of the one before it. What is cut off there may say
    // what is kept of the older ones, so then an older table tells it. Each round takes an older one.
    loop {
        let plan = Plan::new(home, &segments, base_max)?;
        let outcome = plan.replay(noted)?;
        let cut_in = plan.sources[outcome.at].id;
        if cut_in >= plan.base {
            let sources = plan.sources;
            return finish((home.clone(), segment_bytes, mark), files, &sources, outcome);
        }
        base_max = cut_in;
    }
}

/// The segments that there should be, by the newest table that can be read.
struct Plan<'a> {
    home: &'a Home,
    base: SegmentId,
    sources: Vec<Source>,
}

/// What a log is, up to where it can be believed.
struct Outcome {
    at: usize,
    position: u64,
    number: u64,
    replay: Replay,
    /// Where the entries of each segment end.
    ends: BTreeMap<usize, u64>,
    /// Where the last byte that is not zero ends, as far as it was looked for.
    written: BTreeMap<usize, u64>,
}

impl<'a> Plan<'a> {
    fn new(home: &'a Home, segments: &[Segment], base_max: SegmentId) -> Result<Self, OpenError> {
        let source = |segment: &Segment| Source { id: segment.id, segment: Some(segment.clone()) };
        let all: Vec<Source> = segments.iter().map(source).collect();
        let missing = || OpenError::SegmentsMissing { dir: home.dir.to_path_buf() };
        let (base_at, table) = newest_table(&all, base_max)?.ok_or_else(missing)?;
        let base = all[base_at].id;
        let listed: BTreeSet<SegmentId> = table.segments.into_iter().collect();
        let found: BTreeSet<SegmentId> = all.iter().map(|source| source.id).collect();
        let mut gone: BTreeSet<SegmentId> = listed.difference(&found).copied().collect();
        if !gone.is_empty() {
            forget_freed(&all, base_at, &mut gone)?;
        }
        let kept = all.into_iter().filter(|source| listed.contains(&source.id) || source.id > base);
        let lost = gone.into_iter().map(|id| Source { id, segment: None });
        let mut sources: Vec<Source> = kept.chain(lost).collect();
        sources.sort_by_key(|source| source.id);
        Ok(Plan { home, base, sources })
    }

    /// Goes through all entries, up to the end of what can be believed.
    fn replay(&self, noted: u64) -> Result<Outcome, OpenError> {
        let mut walk = Walk::new(&self.sources, 0);
        let mut replay = Replay { mark: noted, ..Replay::default() };
        let mut ends = BTreeMap::new();
        let mut proof = None;
        loop {
            let gap = match walk.step()? {
                Step::Entry(found) => {
                    ends.insert(found.at, found.position + found.header.bytes());
                    replay.entry(&self.sources[found.at], &found);
                    continue;
                }
                Step::Gap(gap) => gap,
                Step::End(end) => {
                    check_readable(&walk, (end.at, end.position))?;
                    return self.end(end, replay, ends);
                }
            };
            let synced = match proof {
                Some(proof) => proof,
                None => *proof.insert(replay.mark.max(walk.mark_behind()?)),
            };
            replay.mark = synced;
            if synced <= gap.lost.start {
                check_readable(&walk, (gap.at, gap.position))?;
                return self.torn(&gap, replay, ends);
            }
            replay.hole(&self.sources[gap.at], &gap);
        }
    }

    fn torn(&self, gap: &Gap, replay: Replay, ends: BTreeMap<usize, u64>) -> Result<Outcome, OpenError> {
        let (at, position, number) = (gap.at, gap.position, gap.lost.start);
        if !replay.untold.is_empty() || self.sources[at].segment.is_none() {
            return Err(self.damaged((at, position), number, &replay));
        }
        Ok(Outcome { at, position, number, replay, ends, written: BTreeMap::new() })
    }

    fn end(&self, end: End, replay: Replay, ends: BTreeMap<usize, u64>) -> Result<Outcome, OpenError> {
        let End { at, position, number, missing, written } = end;
        if missing || replay.mark > number || !replay.untold.is_empty() {
            return Err(self.damaged((at, position), number, &replay));
        }
        Ok(Outcome { at, position, number, replay, ends, written })
    }

    /// The log is not whole at this place, unless there is a hole before it that is not told yet.
    fn damaged(&self, here: (usize, u64), number: u64, replay: &Replay) -> OpenError {
        let hole = replay.holes.last().filter(|_| !replay.untold.is_empty());
        let (at, position) = hole.copied().unwrap_or(here);
        OpenError::Damaged { segment: self.path(at), position, number, synced: replay.mark }
    }

    fn path(&self, at: usize) -> PathBuf {
        self.home.path(self.sources[at].id)
    }
}

/// Whether all could be read where the log may end. What cannot be read is no torn tail.
fn check_readable(walk: &Walk<'_>, (at, position): (usize, u64)) -> Result<(), OpenError> {
    match walk.unreadable_from(at, position) {
        None => Ok(()),
        Some(error) => {
            let source = io::Error::new(error.kind(), error.clone());
            Err(OpenError::Unreadable(DiskError::new(error.operation, &error.path, source)))
        }
    }
}

/// The newest segment up to one that begins with a table, and that table.
fn newest_table(all: &[Source], base_max: SegmentId) -> Result<Option<(usize, Table)>, DiskError> {
    for at in (0..all.len()).rev().filter(|at| all[*at].id <= base_max) {
        let payload = Walk::new(all, at).table(at)?;
        if let Some(table) = payload.and_then(Table::decode) {
            return Ok(Some((at, table)));
        }
    }
    Ok(None)
}

/// A segment whose file is gone was freed if any entry says so: that entry was durable before the file went.
fn forget_freed(all: &[Source], base: usize, gone: &mut BTreeSet<SegmentId>) -> Result<(), DiskError> {
    let mut walk = Walk::new(all, base);
    loop {
        match walk.step()? {
            Step::End(_) => return Ok(()),
            Step::Entry(found) if found.header.kind == Kind::Free => {
                gone.retain(|id| u64::from(id.0) != found.header.offset);
            }
            Step::Entry(_) | Step::Gap(_) => {}
        }
    }
}

/// Lets the disk hold what was found, and nothing else.
fn finish(
    (home, segment_bytes, mark): (Home, u64, Arc<dyn DiskFile>),
    files: &Files,
    sources: &[Source],
    outcome: Outcome,
) -> Result<(SharedLog, Recovery), OpenError> {
    // An earlier process may have ended before it synced the names that were just read, and from here on the
    // log builds on them.
    home.disk.sync_dir(&home.dir)?;
    let sorted = Sorted::new(sources, &outcome)?;
    let held: BTreeSet<SegmentId> = sorted.ids().collect();
    let stale = files.segments.iter().filter(|id| !held.contains(id)).map(|id| home.path(*id));
    let unfinished = files.unfinished.iter().cloned().chain([temporary(&home.dir.join(FORMAT_NAME))]);
    let leftover_count = remove(&home, stale.chain(unfinished))?;
    let torn = cut(sources, &outcome)?;
    write_anew(sources, &outcome)?;

    let Sorted { sealed, active, prepared } = sorted;
    let Outcome { position, number, mut replay, .. } = outcome;
    replay.index.break_outside(|id| held.contains(&id));
    let damage = damage(&home, sources, &replay);
    let mut log = Parts { home, segment_bytes, mark, sealed, active }.into_log();
    log.crippled = replay.crippled.into_iter().filter(|id| held.contains(id)).collect();
    log.id_next = files.segments.last().map_or(log.id_next, |id| id.next());
    log.index = replay.index;
    log.position = position;
    log.prepared = prepared;
    log.number_next = number;
    log.synced_end = number;
    log.index.count_from(number);
    if position == 0 {
        log.push_table();
    }
    log.write_mark()?;
    Ok((log, Recovery { damage, torn, leftover_count }))
}

/// What becomes of the segments that were found.
struct Sorted {
    sealed: BTreeMap<SegmentId, Segment>,
    active: Segment,
    prepared: VecDeque<Segment>,
}

impl Sorted {
    fn new(sources: &[Source], outcome: &Outcome) -> Result<Self, DiskError> {
        let replay = &outcome.replay;
        let active_id = sources[outcome.at].id;
        // Freed segments stay as long as one is there that lost its table and needs them to be understood.
        let crippled =
            replay.crippled.iter().filter(|id| replay.kept.contains(id) || **id == active_id).max();
        let kept = |segment: &&Segment| replay.kept.contains(&segment.id) || Some(&segment.id) < crippled;
        let sealed = sources[..outcome.at].iter().filter_map(|source| source.segment.as_ref()).filter(kept);
        let sealed = sealed.map(|segment| (segment.id, segment.clone())).collect();
        let active = sources[outcome.at].segment.clone().expect("an outcome is in a segment that is there");
        let mut prepared = VecDeque::new();
        for at in outcome.at + 1..sources.len() {
            let segment = sources[at].segment.as_ref();
            let blank = written_end(sources, outcome, (at, 0))? == 0;
            if let Some(segment) = segment.filter(|_| blank)
                && segment.capacity >= SHARED_SEGMENT_BYTES_MIN
            {
                prepared.push_back(segment.clone());
            }
        }
        Ok(Sorted { sealed, active, prepared })
    }

    fn ids(&self) -> impl Iterator<Item = SegmentId> {
        let prepared = self.prepared.iter().map(|segment| segment.id);
        self.sealed.keys().copied().chain([self.active.id]).chain(prepared)
    }
}

/// What a log consists of that holds nothing yet.
struct Parts {
    home: Home,
    segment_bytes: u64,
    mark: Arc<dyn DiskFile>,
    sealed: BTreeMap<SegmentId, Segment>,
    active: Segment,
}

impl Parts {
    fn into_log(self) -> SharedLog {
        let Parts { home, segment_bytes, mark, sealed, active } = self;
        SharedLog {
            home,
            segment_bytes,
            index: Index::default(),
            sealed,
            id_next: active.id.next(),
            active,
            position: 0,
            staged: Vec::new(),
            number_next: 1,
            synced_end: 1,
            unsynced: Vec::new(),
            prepared: VecDeque::new(),
            doomed: Vec::new(),
            mark,
            crippled: BTreeSet::new(),
            cursor: None,
            poisoned: false,
            turn: Arc::default(),
            lease: Lease::default(),
        }
    }
}

/// Where the last byte that is not zero ends, from a place on.
fn written_end(sources: &[Source], outcome: &Outcome, (at, from): (usize, u64)) -> Result<u64, DiskError> {
    match outcome.written.get(&at) {
        Some(written_end) => Ok(*written_end),
        None => Walk::new(sources, at).written_end(at, from),
    }
}

/// Overwrites what is torn with zeros, so that what lies in it never passes for anything.
fn cut(sources: &[Source], outcome: &Outcome) -> Result<Option<TornTail>, DiskError> {
    let (at, position) = (outcome.at, outcome.position);
    let written_end = written_end(sources, outcome, (at, position))?;
    if written_end <= position {
        return Ok(None);
    }
    let segment = sources[at].segment.as_ref().expect("an outcome is in a segment that is there");
    write_zeros(&*segment.file, position, written_end)?;
    segment.file.sync_data()?;
    Ok(Some(TornTail { segment: segment.path.to_path_buf(), position, bytes: written_end - position }))
}

/// Entries that are not proved to be synced may be in the operating system's cache alone, even after a failed
/// sync: so they are written once more.
fn write_anew(sources: &[Source], outcome: &Outcome) -> Result<(), DiskError> {
    let first = outcome.replay.trail.front().copied();
    let Some(Milestone { at: first, position, .. }) = first.filter(|_| outcome.replay.mark < outcome.number)
    else {
        return Ok(());
    };
    for (at, source) in sources.iter().enumerate().take(outcome.at + 1).skip(first) {
        let start = if at == first { position } else { 0 };
        let end = if at == outcome.at { Some(outcome.position) } else { outcome.ends.get(&at).copied() };
        if let (Some(segment), Some(end)) = (&source.segment, end) {
            write_back(&*segment.file, start, end)?;
        }
    }
    Ok(())
}

fn write_back(file: &dyn DiskFile, start: u64, end: u64) -> Result<(), DiskError> {
    let mut buffer = vec![0; end.saturating_sub(start).min(READ_BYTES_MAX as u64) as usize];
    let mut at = start;
    while at < end {
        let count = (end - at).min(buffer.len() as u64) as usize;
        let filled = file.read_at(at, &mut buffer[..count])?;
        file.write_at(at, &buffer[..filled])?;
        at += count as u64;
    }
    file.sync_data()
}

fn damage(home: &Home, sources: &[Source], replay: &Replay) -> Option<Damage> {
    let place =
        |(at, position): &(usize, u64)| Place { segment: home.path(sources[*at].id), position: *position };
    let places: Vec<Place> = replay.holes.iter().map(place).collect();
    let damaged = replay.index.streams().filter(|(_, stream)| stream.is_damaged());
    let streams: Vec<StreamId> = damaged.map(|(id, _)| id).collect();
    let damage = Damage { places, streams };
    (damage != Damage::default()).then_some(damage)
}

/// Removes those of these files that are there, durably: an id may be used again for another file.
fn remove(home: &Home, paths: impl IntoIterator<Item = PathBuf>) -> Result<usize, DiskError> {
    let mut count = 0;
    for path in paths {
        if home.disk.exists(&path)? {
            home.disk.remove(&path)?;
            count += 1;
        }
    }
    if count > 0 {
        home.disk.sync_dir(&home.dir)?;
    }
    Ok(count)
}
