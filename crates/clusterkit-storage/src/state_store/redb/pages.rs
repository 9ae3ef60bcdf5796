//! A file of pages, each with a checksum, for an engine that checks none when it reads.
//!
//! # Layout
//!
//! Two header slots of two pages each, then groups: one page of checksums, and the 512 pages that they are of.
//! A checksum entry is 8 bytes, the CRC-32C of (store, file, page, epoch, contents) and the epoch, so that no
//! entry crosses a sector. The epoch is the number of the sync that the page was written before. The engine's
//! page 0, which it overwrites in place, lies in the header slots instead, beside the length that the engine
//! asked for and the number of the sync: slots are written in turns, so that one is always whole.
//!
//! Syncs are counted in 32 bits. A checkpoint takes two, so one a second goes on for 68 years; then the file refuses.
//!
//! # Why a crash is not taken for damage, and damage not for a crash
//!
//! A sync writes checksum pages and a header slot, and then everything becomes durable at once or is in doubt. So
//! after a crash the newest whole slot is of the last sync that returned, n, or of the one that was under way.
//! The engine commits in two phases: a sync makes all pages of a commit durable before the next one makes its page
//! 0 point at them, and it writes no page anew that the commit of its durable page 0 uses. Hence:
//!
//! 1. A page that the engine reads after a crash was written before sync n and not since. Its contents are
//!    durable, and so is its entry: a checksum page that is written again holds the same bytes for it, in whatever
//!    sectors of it survive. It must match, and if it does not, that is damage.
//! 2. A page that was being written when the power went may be anything, and so may its entry. The engine does
//!    not read it before it writes it again. Nothing is reported, because nothing looks at it: reading checks, and
//!    the scrub believes no entry that was not proved since the file was opened, by a reading or a writing.
//! 3. If the newest slot is damaged, the older one is taken, and pages that were written since belong to another
//!    tree. They have an epoch above that slot's: such entries are void, and reading one is damage. If the slot is
//!    older than the last checkpoint, the manifest of the store says so before anything is read.
//! 4. If the newest slot is of a sync that was under way, the file may be shorter than the slot says. Pages behind
//!    its end are not read, by 1, and to read one is damage.
//!
//! An entry of all zeros is of a page that was never written. The engine does not read such pages, so to read one
//! is damage: a lost checksum page is never taken for pages of zeros.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::header::{self, HEADERS_BYTES, Header};
use super::{Health, lock};
use crate::disk::{Disk, DiskError, DiskFile, OpenMode, Operation};
use crate::limits::PAGE_BYTES;
use crate::state_store::{Damage, DamageKind, OpenError, StateError};

const GROUP_PAGES: u64 = 512;
const GROUP_BYTES: u64 = (GROUP_PAGES + 1) * PAGE_BYTES as u64;
const ENTRY_BYTES: usize = 8;

const _: () = assert!(GROUP_PAGES as usize * ENTRY_BYTES == PAGE_BYTES);

/// Which file of which store: part of every checksum, so that no page passes for one of another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) store: u128,
    pub(super) file: u16,
}

/// One file.
///
/// Invariants:
/// - `entries` has one entry for each page below `length`, and `proved` a bit for each.
/// - An entry that is not on the disk yet is in a group of `changed`.
/// - Pages written now get `epoch`, which is above the `synced` one.
pub(super) struct Pages {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    identity: Identity,
    health: Arc<Health>,
    fault: Mutex<Option<Fault>>,
    /// Whether any damage was told, be the file out of service or not.
    damaged: AtomicBool,
    /// Held by whoever changes the file, so that a sync covers what was written before it.
    writing: Mutex<()>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    length: u64,
    physical_length: u64,
    synced: u32,
    epoch: u32,
    first_page: Box<[u8; PAGE_BYTES]>,
    entries: Vec<Entry>,
    proved: Vec<AtomicU64>,
    changed: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    crc: u32,
    epoch: u32,
}

/// Why the file is out of service.
#[derive(Debug)]
enum Fault {
    Damaged(Damage),
    /// The first to ask is given the error, and the others that there was one.
    Disk(Option<DiskError>),
}

/// What the scrub saw of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageCheck {
    Damaged,
    /// Nobody looked at it: what is there may be what a crash left.
    Unproved,
    Whole,
}

impl fmt::Debug for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pages").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Pages {
    /// Makes an empty file, in the place of whatever has that name.
    pub(super) fn create(
        disk: &dyn Disk,
        path: &Path,
        identity: Identity,
        health: Arc<Health>,
    ) -> Result<Self, DiskError> {
        let file = disk.open(path, OpenMode::Create)?;
        file.set_length(0)?;
        file.set_length(HEADERS_BYTES)?;
        Ok(Self::new((file, path), identity, health, State::empty()))
    }

    /// Opens a file that was synced before.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        identity: Identity,
        health: Arc<Health>,
    ) -> Result<Self, OpenError> {
        let file = match disk.open(path, OpenMode::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Damage::in_file(DamageKind::Length, path).into());
            }
            other => other?,
        };
        let header = header::read_newest(&*file, path, identity)?;
        let mut state = State::of(header, file.length()?);
        state.load_entries(&*file)?;
        Ok(Self::new((file, path), identity, health, state))
    }

    fn new(
        (file, path): (Box<dyn DiskFile>, &Path),
        identity: Identity,
        health: Arc<Health>,
        state: State,
    ) -> Self {
        let path = path.to_path_buf();
        Pages {
            file,
            path,
            identity,
            health,
            fault: Mutex::new(None),
            damaged: AtomicBool::new(false),
            writing: Mutex::new(()),
            state: RwLock::new(state),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the last sync.
    pub(super) fn synced(&self) -> u32 {
        self.read_state().synced
    }

    #[cfg(test)]
    pub(super) fn is_written(&self, page: u64) -> bool {
        self.read_state().entry(page) != Entry::default()
    }

    pub(super) fn page_count(&self) -> u64 {
        self.read_state().entries.len() as u64
    }

    /// Refuses a file that is out of service, and any if the store is.
    pub(super) fn check(&self) -> Result<(), StateError> {
        match self.take_fault() {
            Some(error) => Err(error),
            None if self.health.is_poisoned() => Err(StateError::Poisoned),
            None => Ok(()),
        }
    }

    /// Why the file is out of service, if it is.
    pub(super) fn take_fault(&self) -> Option<StateError> {
        match &mut *lock(&self.fault) {
            None => None,
            Some(Fault::Damaged(damage)) => Some(damage.clone().into()),
            Some(Fault::Disk(error)) => Some(match error.take() {
                Some(error) => StateError::Disk(error),
                None if self.health.is_poisoned() => StateError::Poisoned,
                None => self.noted(Damage::new(DamageKind::Unreadable)).into(),
            }),
        }
    }

    /// Names the file in a damage that is about to be told, and remembers that there is some.
    pub(super) fn noted(&self, damage: Damage) -> Damage {
        self.damaged.store(true, Ordering::Release);
        Damage { path: Some(self.path.clone()), ..damage }
    }

    /// Whether any damage was told.
    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Acquire)
    }

    /// Whether the engine found that its pages contradict each other.
    pub(super) fn is_contradictory(&self) -> bool {
        let is_structure =
            |fault: &Fault| matches!(fault, Fault::Damaged(damage) if damage.kind == DamageKind::Structure);
        lock(&self.fault).as_ref().is_some_and(is_structure)
    }

    /// Takes the file out of service for damage, unless it is already.
    pub(super) fn condemn(&self, kind: DamageKind) -> StateError {
        let damage = self.noted(Damage::new(kind));
        lock(&self.fault).get_or_insert_with(|| Fault::Damaged(damage.clone()));
        self.take_fault().unwrap_or_else(|| damage.into())
    }

    /// Compares a page on the disk with its checksum. The scrub believes only what was proved before: see the
    /// module documentation.
    pub(super) fn check_page(&self, page: u64) -> Result<PageCheck, StateError> {
        if page == 0 {
            return self.check_header();
        }
        let state = self.read_state();
        let mut contents = [0; PAGE_BYTES];
        if !state.is_proved(page) {
            return Ok(PageCheck::Unproved);
        }
        let filled = self.file.read_at(physical(page), &mut contents)?;
        let is_whole = filled == PAGE_BYTES && state.matches(self.identity, page, &contents);
        Ok(if is_whole { PageCheck::Whole } else { PageCheck::Damaged })
    }

    fn check_header(&self) -> Result<PageCheck, StateError> {
        let _writing = lock(&self.writing);
        let synced = self.read_state().synced;
        if synced == 0 {
            return Ok(PageCheck::Whole);
        }
        let is_whole = header::is_whole(&*self.file, self.identity, synced)?;
        Ok(if is_whole { PageCheck::Whole } else { PageCheck::Damaged })
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_writing(&self) -> io::Result<MutexGuard<'_, ()>> {
        self.check_usable()?;
        Ok(lock(&self.writing))
    }

    fn check_usable(&self) -> io::Result<()> {
        let is_usable = lock(&self.fault).is_none() && !self.health.is_poisoned();
        if is_usable { Ok(()) } else { Err(io::Error::other("the file is out of service")) }
    }

    fn fill(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check_usable()?;
        let state = self.read_state();
        if offset + out.len() as u64 > state.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for piece in pieces(offset, out.len()) {
            let out = &mut out[piece.at..piece.at + piece.bytes];
            if piece.page == 0 {
                out.copy_from_slice(&state.first_page[piece.within..piece.within + piece.bytes]);
            } else if piece.is_whole() {
                self.fill_pages(&state, piece.page, out)?;
            } else {
                let mut page = [0; PAGE_BYTES];
                self.fill_pages(&state, piece.page, &mut page)?;
                out.copy_from_slice(&page[piece.within..piece.within + piece.bytes]);
            }
        }
        Ok(())
    }

    /// Reads whole pages of one group, and checks each.
    fn fill_pages(&self, state: &State, first: u64, out: &mut [u8]) -> io::Result<()> {
        let filled = self.file.read_at(physical(first), out).map_err(|error| self.unreadable(error))?;
        for (page, contents) in (first..).zip(out.chunks_exact(PAGE_BYTES)) {
            let is_read = (page - first + 1) * PAGE_BYTES as u64 <= filled as u64;
            if !is_read || !state.matches(self.identity, page, contents) {
                self.condemn(DamageKind::Page { page });
                return Err(io::ErrorKind::InvalidData.into());
            }
            state.set_proved(page);
        }
        Ok(())
    }

    fn put(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let _writing = self.begin_writing()?;
        let mut state = self.write_state();
        for piece in pieces(offset, bytes.len()) {
            let bytes = &bytes[piece.at..piece.at + piece.bytes];
            if piece.page == 0 {
                state.first_page[piece.within..piece.within + piece.bytes].copy_from_slice(bytes);
            } else if piece.is_whole() {
                self.put_pages(&mut state, piece.page, bytes)?;
            } else {
                let mut page = [0; PAGE_BYTES];
                if state.entry(piece.page) != Entry::default() {
                    self.fill_pages(&state, piece.page, &mut page)?;
                }
                page[piece.within..piece.within + piece.bytes].copy_from_slice(bytes);
                self.put_pages(&mut state, piece.page, &page)?;
            }
        }
        Ok(())
    }

    /// Writes whole pages of one group.
    fn put_pages(&self, state: &mut State, first: u64, bytes: &[u8]) -> io::Result<()> {
        let end = (first + (bytes.len() / PAGE_BYTES) as u64) * PAGE_BYTES as u64;
        if end > state.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.write_at(physical(first), bytes).map_err(|error| self.poison(error))?;
        for (page, contents) in (first..).zip(bytes.chunks_exact(PAGE_BYTES)) {
            let entry =
                Entry { crc: checksum(self.identity, page, state.epoch, contents), epoch: state.epoch };
            state.entries[page as usize] = entry;
            state.set_proved(page);
        }
        state.changed.insert(first / GROUP_PAGES);
        Ok(())
    }

    /// A file that shrinks is cut only when the shorter length is durable.
    fn resize(&self, length: u64) -> io::Result<()> {
        let _writing = self.begin_writing()?;
        let mut state = self.write_state();
        let physical_length = physical_end(length);
        if physical_length > state.physical_length {
            self.file.set_length(physical_length).map_err(|error| self.poison(error))?;
            state.physical_length = physical_length;
        }
        state.set_length(length);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let _writing = self.begin_writing()?;
        let (synced, length) = self.sync_all().map_err(|error| self.poison(error))?;
        let mut state = self.write_state();
        state.synced = synced;
        if physical_end(length) < state.physical_length && length == state.length {
            self.file.set_length(physical_end(length)).map_err(|error| self.poison(error))?;
            state.physical_length = physical_end(length);
        }
        Ok(())
    }

    /// Readers go on while the disk syncs.
    fn sync_all(&self) -> Result<(u32, u64), DiskError> {
        let (header, blocks) = self.write_state().begin_sync();
        let too_many = || DiskError::new(Operation::Sync, &self.path, io::ErrorKind::QuotaExceeded.into());
        let synced = header.synced;
        if synced == u32::MAX {
            return Err(too_many());
        }
        for (group, block) in blocks {
            self.file.write_at(HEADERS_BYTES + group * GROUP_BYTES, &block)?;
        }
        self.file.write_at(header::slot_offset(synced), &header.encode(self.identity))?;
        self.file.sync_data()?;
        Ok((synced, header.length))
    }

    fn poison(&self, error: DiskError) -> io::Error {
        self.health.poison();
        self.unreadable(error)
    }

    fn unreadable(&self, error: DiskError) -> io::Error {
        let kind = error.kind();
        self.damaged.store(true, Ordering::Release);
        lock(&self.fault).get_or_insert(Fault::Disk(Some(error)));
        kind.into()
    }
}

impl State {
    fn empty() -> Self {
        let header = Header { synced: 0, length: 0, first_page: Box::new([0; PAGE_BYTES]) };
        State::of(header, HEADERS_BYTES)
    }

    fn of(header: Header, physical_length: u64) -> Self {
        let mut state = State {
            length: 0,
            physical_length,
            synced: header.synced,
            epoch: header.synced + 1,
            first_page: header.first_page,
            entries: Vec::new(),
            proved: Vec::new(),
            changed: BTreeSet::new(),
        };
        state.set_length(header.length);
        state.changed.clear();
        state
    }

    /// Entries above the last sync are void: see the module documentation.
    fn load_entries(&mut self, file: &dyn DiskFile) -> Result<(), DiskError> {
        for (group, entries) in (0_u64..).zip(self.entries.chunks_mut(GROUP_PAGES as usize)) {
            // What a short file lacks stays zeros: entries of pages that were never written.
            let mut block = [0; PAGE_BYTES];
            file.read_at(HEADERS_BYTES + group * GROUP_BYTES, &mut block)?;
            for (entry, bytes) in entries.iter_mut().zip(block.chunks_exact(ENTRY_BYTES)) {
                let found = Entry::decode(bytes);
                *entry = if found.epoch <= self.synced { found } else { Entry::default() };
            }
        }
        Ok(())
    }

    fn set_length(&mut self, length: u64) {
        let pages = length.div_ceil(PAGE_BYTES as u64) as usize;
        if pages < self.entries.len() {
            self.changed.insert(pages as u64 / GROUP_PAGES);
        }
        for page in pages..self.entries.len() {
            self.clear_proved(page as u64);
        }
        self.entries.resize(pages, Entry::default());
        self.proved.resize_with(pages.div_ceil(64), AtomicU64::default);
        let groups = (pages as u64).div_ceil(GROUP_PAGES);
        self.changed.retain(|group| *group < groups);
        self.length = length;
    }

    /// What a sync has to write. Pages that are written from now on are of the next epoch.
    fn begin_sync(&mut self) -> (Header, Vec<(u64, [u8; PAGE_BYTES])>) {
        let header = Header { synced: self.epoch, length: self.length, first_page: self.first_page.clone() };
        let changed = mem::take(&mut self.changed);
        let blocks = changed.into_iter().map(|group| (group, self.block(group))).collect();
        self.epoch = self.epoch.saturating_add(1);
        (header, blocks)
    }

    fn block(&self, group: u64) -> [u8; PAGE_BYTES] {
        let mut block = [0; PAGE_BYTES];
        let entries = self.entries.iter().skip((group * GROUP_PAGES) as usize);
        for (bytes, entry) in block.chunks_exact_mut(ENTRY_BYTES).zip(entries) {
            entry.encode(bytes);
        }
        block
    }

    fn entry(&self, page: u64) -> Entry {
        self.entries.get(page as usize).copied().unwrap_or_default()
    }

    fn matches(&self, identity: Identity, page: u64, contents: &[u8]) -> bool {
        let Entry { crc, epoch } = self.entry(page);
        epoch != 0 && crc == checksum(identity, page, epoch, contents)
    }

    fn is_proved(&self, page: u64) -> bool {
        let word = self.proved.get((page / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (page % 64)) != 0)
    }

    fn set_proved(&self, page: u64) {
        self.proved[(page / 64) as usize].fetch_or(1 << (page % 64), Ordering::Relaxed);
    }

    fn clear_proved(&self, page: u64) {
        self.proved[(page / 64) as usize].fetch_and(!(1 << (page % 64)), Ordering::Relaxed);
    }
}

impl Entry {
    fn decode(bytes: &[u8]) -> Self {
        let word = u64::from_le_bytes(bytes.try_into().expect("a chunk has the bytes of an entry"));
        Entry { crc: word as u32, epoch: (word >> 32) as u32 }
    }

    fn encode(self, bytes: &mut [u8]) {
        let word = u64::from(self.epoch) << 32 | u64::from(self.crc);
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

fn checksum(identity: Identity, page: u64, epoch: u32, contents: &[u8]) -> u32 {
    let mut place = [0; 30];
    place[..16].copy_from_slice(&identity.store.to_le_bytes());
    place[16..18].copy_from_slice(&identity.file.to_le_bytes());
    place[18..26].copy_from_slice(&page.to_le_bytes());
    place[26..].copy_from_slice(&epoch.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place), contents)
}

fn physical(page: u64) -> u64 {
    HEADERS_BYTES + page / GROUP_PAGES * GROUP_BYTES + (page % GROUP_PAGES + 1) * PAGE_BYTES as u64
}

/// Where a file with so many bytes of the engine's ends.
fn physical_end(length: u64) -> u64 {
    match length.div_ceil(PAGE_BYTES as u64) {
        0 => HEADERS_BYTES,
        pages => physical(pages - 1) + PAGE_BYTES as u64,
    }
}

/// A part of a range of bytes: within one page, or whole pages of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    page: u64,
    within: usize,
    at: usize,
    bytes: usize,
}

impl Piece {
    fn is_whole(self) -> bool {
        self.within == 0 && self.bytes.is_multiple_of(PAGE_BYTES)
    }
}

fn pieces(offset: u64, bytes: usize) -> impl Iterator<Item = Piece> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let left = bytes - at;
        let position = offset + at as u64;
        let (page, within) = (position / PAGE_BYTES as u64, (position % PAGE_BYTES as u64) as usize);
        let whole = (left / PAGE_BYTES).min((GROUP_PAGES - page % GROUP_PAGES) as usize);
        let bytes = match (page, within, whole) {
            (1.., 0, 1..) => whole * PAGE_BYTES,
            _ => left.min(PAGE_BYTES - within),
        };
        let piece = Piece { page, within, at, bytes };
        at += bytes;
        (left > 0).then_some(piece)
    })
}

/// What the engine is given: the same file, and nothing to lock, since the owner of the store locks its
/// directory.
#[derive(Debug)]
pub(super) struct Backend(pub(super) Arc<Pages>);

impl ::redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read_state().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.fill(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.resize(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.put(offset, bytes)
    }
}
