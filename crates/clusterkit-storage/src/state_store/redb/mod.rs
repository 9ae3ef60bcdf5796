//! A state store on disk, over redb.
//!
//! A fixed number of files, each an engine of its own with the replicas of many partitions: a file for each
//! partition would cost a descriptor, a cache and syncs for each. Entries of all replicas of a file lie in one
//! tree, in front of each key the generation of its replica. An installation writes a generation that no row
//! names yet, and takes effect by changing one row; what a row no longer names is garbage, and is removed step by
//! step.
//!
//! redb makes a commit visible without a sync and without writing pages that fit into its buffer; a checkpoint is
//! one durable commit for each file that changed, in two phases, and a manifest that says so. redb does not look at
//! its checksums when it reads, so the pages that it is given have their own ([`pages`]), and so has each value,
//! with its replica and key ([`record`]). What passes both and still makes the engine stumble is caught in one
//! place ([`file`]).

mod file;
mod header;
mod install;
mod manifest;
mod pages;
mod record;
mod renew;
mod space;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use bytes::Bytes;

use self::file::{ScanCursor, StateFile};
use self::install::{FileInstall, FileSnapshot};
use self::manifest::Manifest;
use self::pages::{Identity, PageCheck, Pages};
use self::space::{MissingRoom, Unwritten, cost_bytes};
use super::{
    ApplyError, Change, Damage, DamageKind, Digest, Found, Install, InstallError, OpenError, Query,
    Reclaimed, ReplicaKey, Replicas, Scrubbed, Snapshot, StateError, StateStore, check_changes,
};
use crate::checked::WriteFileError;
use crate::disk::{Disk, DiskError};
use crate::limits::{
    STATE_CACHE_BYTES_DEFAULT, STATE_FILE_CACHE_BYTES_MIN, STATE_FILES_DEFAULT, STATE_FILES_MAX,
    STATE_HEADROOM_BYTES_DEFAULT, STATE_RECLAIM_ENTRIES_MAX, STATE_SCRUB_UNITS_MAX,
};

/// A state store in one directory, over redb. See the [module](super) for what it guarantees.
///
/// Only one may have a directory open; the caller holds a [lock](crate::disk::Disk::lock) for that. A write waits
/// for other writes of the same file. A read waits for no write as a whole, but may wait while pages of its file are
/// being written, and while the file grows, which takes a sync. Beside the caches it keeps 8 bytes of memory for
/// each page of 4 KiB that its files have. Dropping it makes durable what was applied, if the disk still lets it.
///
/// ```
/// use std::{path::Path, sync::Arc};
/// use bytes::Bytes;
/// use clusterkit_storage::disk::SimDisk;
/// use clusterkit_storage::state_store::{Change, Options, RedbStore, ReplicaKey, StateStore};
///
/// let disk = SimDisk::new();
/// let open = || RedbStore::open(Arc::new(disk.clone()), Path::new("/state"), &Options::default());
/// let store = open()?;
/// let put = |value: &'static str| [Change::Put { key: "k".into(), value: value.into() }];
/// store.apply(ReplicaKey(1), &put("old"), 7)?;
/// store.checkpoint()?;
/// store.apply(ReplicaKey(1), &put("new"), 8)?;
///
/// disk.crash_clean();
/// let store = open()?;
/// assert_eq!(store.applied_index(ReplicaKey(1))?, Some(7));
/// assert_eq!(store.get(ReplicaKey(1), b"k")?, Some(Bytes::from("old")));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RedbStore {
    inner: Arc<Inner>,
}

/// How to open a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of cache of all files together, each of which gets an equal part and at least
    /// [`STATE_FILE_CACHE_BYTES_MIN`]. Default [`STATE_CACHE_BYTES_DEFAULT`]. Half of it may hold what was
    /// applied since the last checkpoint; with less, more is written twice. May change from one opening to the next.
    pub cache_bytes: usize,
    /// How many files, up to [`STATE_FILES_MAX`]. Default [`STATE_FILES_DEFAULT`]. Writes of different files do
    /// not wait for each other, and a checkpoint costs two syncs for each that changed. Cannot change.
    pub file_count: u16,
    /// Free bytes of the disk, beside what the next checkpoint may write, below which nothing more is applied, so
    /// that checkpoints and drops still can be. Others that write to the same disk must leave as much, and the part
    /// of the cache that holds writes: a checkpoint for which they left no room ends the store. Default
    /// [`STATE_HEADROOM_BYTES_DEFAULT`].
    pub headroom_bytes: u64,
    /// Whose store it is: a number that belongs to the data directory alone. Files of another store are refused.
    /// Default 0.
    pub store: u128,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache_bytes: STATE_CACHE_BYTES_DEFAULT,
            file_count: STATE_FILES_DEFAULT,
            headroom_bytes: STATE_HEADROOM_BYTES_DEFAULT,
            store: 0,
        }
    }
}

/// Invariants:
/// - The manifest on the disk is `manifest`, unless the store is poisoned.
/// - A replica is in the file that its key chooses, and in no other.
#[derive(Debug)]
struct Inner {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    headroom_bytes: u64,
    file_cache_bytes: usize,
    /// One takes the place of another only while the manifest is held.
    files: Vec<RwLock<Arc<StateFile>>>,
    health: Arc<Health>,
    unwritten: Unwritten,
    manifest: Mutex<Manifest>,
    scrub: Mutex<ScrubCursor>,
}

/// Whether a write of any file failed: then none is trusted any more.
#[derive(Debug, Default)]
struct Health {
    poisoned: AtomicBool,
}

/// Where the scrub goes on.
#[derive(Debug, Default)]
struct ScrubCursor {
    file: usize,
    page: u64,
    scan: ScanCursor,
}

impl RedbStore {
    /// Opens the store of a directory, or makes one. After a crash it takes two reads of each file's header and
    /// one of each of its checksum pages, whatever the files hold.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, options: &Options) -> Result<Self, OpenError> {
        disk.create_dir_all(dir)?;
        let manifest = manifest_of(&*disk, dir, options)?;
        let health = Arc::new(Health::default());
        let cache_bytes = options.cache_bytes / usize::from(options.file_count);
        let cache_bytes = cache_bytes.max(STATE_FILE_CACHE_BYTES_MIN);
        let open = |(file, synced): (u16, &u32)| {
            let pages = open_pages(&*disk, dir, Identity { store: options.store, file }, *synced, &health)?;
            Ok(RwLock::new(Arc::new(StateFile::open(pages, cache_bytes)?)))
        };
        let files = (0_u16..).zip(&manifest.synced).map(open).collect::<Result<_, OpenError>>()?;
        let is_new = manifest.synced.contains(&0);
        let inner = Inner {
            disk,
            dir: dir.to_path_buf(),
            headroom_bytes: options.headroom_bytes,
            file_cache_bytes: cache_bytes,
            files,
            health,
            unwritten: Unwritten::default(),
            manifest: Mutex::new(manifest),
            scrub: Mutex::default(),
        };
        if is_new {
            inner.sync_dir()?;
            inner.checkpoint()?;
        }
        Ok(RedbStore { inner: Arc::new(inner) })
    }

    /// Makes everything durable and closes the files. Views and installations that are still held keep theirs
    /// open until they are dropped. Says what [`StateStore::checkpoint`] says.
    pub fn close(self) -> Result<Replicas, StateError> {
        self.inner.checkpoint()
    }
}

impl StateStore for RedbStore {
    fn is_durable(&self) -> bool {
        true
    }

    fn apply(&self, replica: ReplicaKey, changes: &[Change], index: u64) -> Result<(), ApplyError> {
        let bytes = check_changes(changes)?;
        let _admitted = match self.inner.admit(cost_bytes(changes.len(), bytes))? {
            Ok(admitted) => admitted,
            Err(MissingRoom { free_bytes, needed_bytes }) => {
                return Err(ApplyError::Full { free_bytes, needed_bytes });
            }
        };
        self.inner.file_of(replica).apply(replica, changes, index)
    }

    fn get(&self, replica: ReplicaKey, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        self.inner.file_of(replica).get(replica, key)
    }

    fn range(&self, replica: ReplicaKey, query: &Query<'_>) -> Result<Found, StateError> {
        self.inner.file_of(replica).range(replica, query)
    }

    fn applied_index(&self, replica: ReplicaKey) -> Result<Option<u64>, StateError> {
        Ok(self.digest(replica)?.map(|digest| digest.applied_index))
    }

    fn digest(&self, replica: ReplicaKey) -> Result<Option<Digest>, StateError> {
        self.inner.file_of(replica).digest(replica)
    }

    fn replicas(&self) -> Result<Replicas, StateError> {
        let mut replicas = Replicas::default();
        for file in self.inner.files() {
            match file.replicas() {
                Ok(found) => replicas.append(found),
                Err(error) => replicas.damages.push(self.inner.damage_of(&file, error)?),
            }
        }
        Ok(replicas)
    }

    fn snapshot(&self, replica: ReplicaKey) -> Result<Option<Box<dyn Snapshot>>, StateError> {
        let file = self.inner.file_of(replica);
        let Some((view, row)) = file.view(replica)? else { return Ok(None) };
        Ok(Some(Box::new(FileSnapshot::new(file, replica, view, row))))
    }

    fn install(&self, replica: ReplicaKey) -> Result<Box<dyn Install>, InstallError> {
        Ok(Box::new(FileInstall::begin(Arc::clone(&self.inner), replica)?))
    }

    fn drop_replica(&self, replica: ReplicaKey) -> Result<(), StateError> {
        let _admitted = self.inner.unwritten.admit(cost_bytes(0, 0));
        self.inner.file_of(replica).drop_replica(replica)
    }

    fn reclaim(&self, entries_max: usize) -> Result<Reclaimed, StateError> {
        let mut left = entries_max.clamp(1, STATE_RECLAIM_ENTRIES_MAX);
        let mut reclaimed = Reclaimed::default();
        for file in self.inner.files() {
            let before = reclaimed.entries;
            let outcome = reclaim_file(&file, &mut left, &mut reclaimed);
            drop(self.inner.unwritten.admit(cost_bytes(reclaimed.entries - before, 0)));
            if let Err(error) = outcome {
                reclaimed.damages.push(self.inner.damage_of(&file, error)?);
            }
        }
        reclaimed.is_complete = left > 0;
        Ok(reclaimed)
    }

    fn checkpoint(&self) -> Result<Replicas, StateError> {
        self.inner.checkpoint()
    }

    fn renew(&self, damage: &Damage) -> Result<(), StateError> {
        self.inner.renew(damage)
    }

    fn scrub(&self, units_max: usize) -> Result<Scrubbed, StateError> {
        self.inner.health.check()?;
        let mut cursor = lock(&self.inner.scrub);
        let mut left = units_max.clamp(1, STATE_SCRUB_UNITS_MAX);
        let mut scrubbed = Scrubbed::default();
        while left > 0 {
            let Some(file) = self.inner.files().nth(cursor.file) else {
                *cursor = ScrubCursor::default();
                scrubbed.is_complete = true;
                break;
            };
            left -= cursor.step(&file, left, &mut scrubbed)?.min(left);
        }
        Ok(scrubbed)
    }
}

fn reclaim_file(file: &StateFile, left: &mut usize, reclaimed: &mut Reclaimed) -> Result<(), StateError> {
    while *left > 0 {
        let Some(removed) = file.reclaim(*left)? else { break };
        reclaimed.entries += removed;
        // A generation without entries is work as well.
        *left -= removed.max(1);
    }
    Ok(())
}

impl Inner {
    fn file_of(&self, replica: ReplicaKey) -> Arc<StateFile> {
        current(&self.files[(replica.0 % self.files.len() as u64) as usize])
    }

    fn files(&self) -> impl Iterator<Item = Arc<StateFile>> {
        self.files.iter().map(current)
    }

    /// What is wrong with one file, if an error says no more than that.
    fn damage_of(&self, file: &StateFile, error: StateError) -> Result<Damage, StateError> {
        match error {
            StateError::Damaged(damage) => Ok(damage),
            StateError::Disk(_) if !self.health.is_poisoned() => {
                Ok(Damage::in_file(DamageKind::Unreadable, file.path()))
            }
            other => Err(other),
        }
    }

    fn sync_dir(&self) -> Result<(), StateError> {
        self.disk.sync_dir(&self.dir).map_err(|error| self.fail(error))
    }

    /// The manifest is held all the while, so that checkpoints come one after the other. It goes on to say of a
    /// damaged file what it said before.
    fn checkpoint(&self) -> Result<Replicas, StateError> {
        self.health.check()?;
        let mut manifest = lock(&self.manifest);
        let covered = self.unwritten.begin_checkpoint();
        let mut is_changed = false;
        let mut durable = Replicas::default();
        for (number, file) in self.files().enumerate() {
            match file.checkpoint() {
                Ok(is_synced) => {
                    is_changed |= is_synced;
                    manifest.synced[number] = file.pages().synced();
                    durable.append(file.durable());
                }
                Err(error) => durable.damages.push(self.damage_of(&file, error)?),
            }
        }
        if is_changed {
            self.write_manifest(&manifest)?;
        }
        self.unwritten.end_checkpoint(covered);
        Ok(durable)
    }

    fn write_manifest(&self, manifest: &Manifest) -> Result<(), StateError> {
        manifest.write(&*self.disk, &self.dir).map_err(|error| self.fail_manifest(error))
    }

    fn fail(&self, error: DiskError) -> StateError {
        self.health.poison();
        error.into()
    }

    fn fail_manifest(&self, error: WriteFileError) -> StateError {
        match error {
            WriteFileError::NotReplaced { source } | WriteFileError::OutcomeUnknown { source } => {
                self.fail(source)
            }
            other => StateError::Engine(Box::new(other)),
        }
    }
}

impl Health {
    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn poison(&self) {
        self.poisoned.store(true, Ordering::Release);
    }
}

impl ScrubCursor {
    /// Looks at a page or at entries of one file. Says how many units that was.
    fn step(&mut self, file: &StateFile, left: usize, scrubbed: &mut Scrubbed) -> Result<usize, StateError> {
        if self.page < file.pages().page_count() {
            return self.step_page(file, scrubbed);
        }
        match file.scan(&mut self.scan, left) {
            Ok(scanned) => {
                scrubbed.entries += scanned.entries as u64;
                scrubbed.damages.extend(scanned.damages);
                if scanned.is_complete {
                    self.next_file();
                }
                Ok(scanned.entries.max(1))
            }
            Err(StateError::Damaged(damage)) => {
                let damage = match self.scan.place() {
                    Some((replica, key)) => damage.at(replica, key),
                    None => damage,
                };
                scrubbed.damages.push(damage);
                self.next_file();
                Ok(1)
            }
            Err(error) => Err(error),
        }
    }

    fn step_page(&mut self, file: &StateFile, scrubbed: &mut Scrubbed) -> Result<usize, StateError> {
        let page = self.page;
        self.page += 1;
        let check = file.pages().check_page(page)?;
        scrubbed.pages += u64::from(check != PageCheck::Unproved);
        if check == PageCheck::Damaged {
            scrubbed.damages.push(file.pages().noted(Damage::new(DamageKind::Page { page })));
        }
        Ok(1)
    }

    fn next_file(&mut self) {
        *self = ScrubCursor { file: self.file + 1, ..ScrubCursor::default() };
    }
}

/// The manifest of a directory, or that of a new store, which is on the disk before any file is.
fn manifest_of(disk: &dyn Disk, dir: &Path, options: &Options) -> Result<Manifest, OpenError> {
    let asked = options.file_count;
    let found = Manifest::read(disk, dir).map_err(OpenError::Manifest)?;
    let stored = found.as_ref().map_or(0, |manifest| manifest.synced.len() as u16);
    if asked == 0 || asked > STATE_FILES_MAX || (stored != 0 && stored != asked) {
        return Err(OpenError::FileCount { asked, stored });
    }
    match found {
        Some(manifest) if manifest.store == options.store => Ok(manifest),
        Some(manifest) => Err(OpenError::Foreign { dir: dir.to_path_buf(), found: manifest.store }),
        None => new_manifest(disk, dir, options),
    }
}

fn new_manifest(disk: &dyn Disk, dir: &Path, options: &Options) -> Result<Manifest, OpenError> {
    let names = disk.list(dir)?;
    if names.iter().any(|name| Path::new(name).extension().is_some_and(|extension| extension == EXTENSION)) {
        return Err(OpenError::ManifestMissing { dir: dir.to_path_buf() });
    }
    let manifest = Manifest { store: options.store, synced: vec![0; usize::from(options.file_count)] };
    manifest.write(disk, dir).map_err(|error| match error {
        WriteFileError::NotReplaced { source } | WriteFileError::OutcomeUnknown { source } => source.into(),
        other => OpenError::State(StateError::Engine(Box::new(other))),
    })?;
    Ok(manifest)
}

const EXTENSION: &str = "pages";

/// A file that was never part of a checkpoint holds nothing that is needed.
fn open_pages(
    disk: &dyn Disk,
    dir: &Path,
    identity: Identity,
    synced: u32,
    health: &Arc<Health>,
) -> Result<Pages, OpenError> {
    let path = path_of(dir, identity.file);
    if synced == 0 {
        return Ok(Pages::create(disk, &path, identity, Arc::clone(health))?);
    }
    let pages = Pages::open(disk, &path, identity, Arc::clone(health))?;
    if pages.synced() < synced {
        return Err(Damage::in_file(DamageKind::RolledBack, &path).into());
    }
    Ok(pages)
}

fn path_of(dir: &Path, file: u16) -> PathBuf {
    dir.join(format!("{file:03}.{EXTENSION}"))
}

fn current(file: &RwLock<Arc<StateFile>>) -> Arc<StateFile> {
    Arc::clone(&file.read().unwrap_or_else(PoisonError::into_inner))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
