//! Everything that a simulated disk knows: names, files, faults to come.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::SimFault;
use super::chance::Chance;
use super::inode::Inode;
use crate::disk::{OpenMode, Operation, parent};

pub(super) type InodeId = u64;

/// Invariants:
/// - `names` is `names_durable` after all of `changes`.
/// - Every inode that a name leads to exists.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) boot: u64,
    pub(super) capacity_bytes: Option<u64>,
    pub(super) chance: Chance,
    pub(super) inodes: BTreeMap<InodeId, Inode>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) operations: u64,
    pub(super) stop_at: Option<u64>,
    pub(super) faults: BTreeMap<Operation, u64>,
    stopped: bool,
    inode_next: InodeId,
    dirs: BTreeSet<PathBuf>,
    names: BTreeMap<PathBuf, InodeId>,
    names_durable: BTreeMap<PathBuf, InodeId>,
    changes: Vec<Change>,
}

/// A change of one directory that is not synced yet. It survives a crash as a whole or not at all.
#[derive(Clone, Debug)]
struct Change {
    dir: PathBuf,
    names: Vec<(PathBuf, Option<InodeId>)>,
}

/// What becomes of an operation that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is done.
    Done,
    /// It is answered with an error, and may have been done in part.
    Fails,
    /// The power goes while it runs: what it did is as unsure as all that is not synced.
    PowerGoes,
}

impl Fate {
    pub(super) fn answer(self) -> io::Result<()> {
        match self {
            Fate::Done => Ok(()),
            Fate::Fails => Err(SimFault::Injected.into()),
            Fate::PowerGoes => Err(SimFault::PowerOff.into()),
        }
    }
}

impl State {
    pub(super) fn new() -> Self {
        State {
            boot: 0,
            capacity_bytes: None,
            chance: Chance::new(0),
            inodes: BTreeMap::new(),
            locks: BTreeSet::new(),
            operations: 0,
            stop_at: None,
            faults: BTreeMap::new(),
            stopped: false,
            inode_next: 0,
            dirs: ["/", "."].map(PathBuf::from).into(),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            changes: Vec::new(),
        }
    }

    /// Lets an operation in that changes nothing.
    pub(super) fn observe(&mut self, operation: Operation) -> io::Result<()> {
        self.powered()?;
        if self.fault_is_due(operation) { Fate::Fails.answer() } else { Ok(()) }
    }

    /// Lets an operation in that changes something, and says what becomes of it.
    pub(super) fn change(&mut self, operation: Operation) -> io::Result<Fate> {
        self.powered()?;
        if self.stop_at == Some(self.operations) {
            self.stopped = true;
            return Ok(Fate::PowerGoes);
        }
        self.operations += 1;
        Ok(if self.fault_is_due(operation) { Fate::Fails } else { Fate::Done })
    }

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<InodeId> {
        match (self.names.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => {
                let inode = *inode;
                self.observe(Operation::Open).map(|()| inode)
            }
            (None, OpenMode::Read | OpenMode::Write) => {
                self.observe(Operation::Open)?;
                Err(io::ErrorKind::NotFound.into())
            }
            (None, OpenMode::Create | OpenMode::CreateNew) => self.create(path),
        }
    }

    fn create(&mut self, path: &Path) -> io::Result<InodeId> {
        let fate = self.change(Operation::Create)?;
        if self.dirs.contains(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.check_dir(parent(path))?;
        let inode = self.inode_next;
        if fate != Fate::Fails {
            self.inode_next += 1;
            self.inodes.insert(inode, Inode::new());
            self.rename_all(parent(path), vec![(path.to_path_buf(), Some(inode))]);
        }
        fate.answer().map(|()| inode)
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let fate = self.change(Operation::Remove)?;
        self.inode_of(path)?;
        if fate != Fate::Fails {
            self.rename_all(parent(path), vec![(path.to_path_buf(), None)]);
        }
        fate.answer()
    }

    pub(super) fn rename(&mut self, source: &Path, target: &Path) -> io::Result<()> {
        let fate = self.change(Operation::Rename)?;
        let inode = self.inode_of(source)?;
        if parent(source) != parent(target) {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        if fate != Fate::Fails {
            let names = vec![(source.to_path_buf(), None), (target.to_path_buf(), Some(inode))];
            self.rename_all(parent(source), names);
        }
        fate.answer()
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        let fate = self.change(Operation::SyncDir)?;
        self.check_dir(dir)?;
        if fate == Fate::Done {
            let (synced, left) = self.changes.drain(..).partition(|change| change.dir == dir);
            self.changes = left;
            let synced: Vec<Change> = synced;
            synced.iter().for_each(|change| change.apply(&mut self.names_durable));
        }
        fate.answer()
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        let fate = self.change(Operation::CreateDir)?;
        if dir.ancestors().any(|above| self.names.contains_key(above)) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if fate == Fate::Done {
            self.dirs.extend(dir.ancestors().map(Path::to_path_buf));
        }
        fate.answer()
    }

    pub(super) fn list(&mut self, dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
        self.observe(Operation::List)?;
        self.check_dir(dir)?;
        let paths = self.names.keys().chain(&self.dirs);
        Ok(paths.filter(|path| parent(path) == dir && path.file_name().is_some()).cloned().collect())
    }

    pub(super) fn exists(&mut self, path: &Path) -> io::Result<bool> {
        self.observe(Operation::Exists)?;
        Ok(self.names.contains_key(path) || self.dirs.contains(path))
    }

    pub(super) fn inode_of(&self, path: &Path) -> io::Result<InodeId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn check_dir(&self, dir: &Path) -> io::Result<()> {
        if self.dirs.contains(dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Bytes that can still be written.
    pub(super) fn free_bytes(&self) -> u64 {
        let used: usize = self.names.values().map(|inode| self.inodes[inode].length()).sum();
        self.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(used as u64))
    }

    pub(super) fn inode(&mut self, inode: InodeId) -> &mut Inode {
        self.inodes.get_mut(&inode).expect("an open file keeps its inode until the next boot")
    }

    /// The power goes, and each change that is not synced is kept or lost by the seed.
    pub(super) fn crash(&mut self, seed: u64) {
        let mut chance = Chance::new(seed);
        for change in std::mem::take(&mut self.changes) {
            if chance.one_in(2) {
                change.apply(&mut self.names_durable);
            }
        }
        self.inodes.values_mut().for_each(|inode| inode.crash(&mut chance));
        self.forget_names();
    }

    pub(super) fn crash_clean(&mut self) {
        self.inodes.values_mut().for_each(Inode::crash_clean);
        self.forget_names();
    }

    /// Ends all holders of files and locks, and turns the power on.
    pub(super) fn boot(&mut self) {
        self.boot += 1;
        self.locks.clear();
        self.faults.clear();
        self.stopped = false;
        self.stop_at = None;
        let linked: BTreeSet<InodeId> =
            self.names.values().chain(self.names_durable.values()).copied().collect();
        let pending = self.changes.iter().flat_map(|change| &change.names).filter_map(|(_, inode)| *inode);
        let linked: BTreeSet<InodeId> = linked.into_iter().chain(pending).collect();
        self.inodes.retain(|inode, _| linked.contains(inode));
    }

    fn forget_names(&mut self) {
        self.changes.clear();
        self.names = self.names_durable.clone();
    }

    fn rename_all(&mut self, dir: &Path, names: Vec<(PathBuf, Option<InodeId>)>) {
        let change = Change { dir: dir.to_path_buf(), names };
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn powered(&self) -> io::Result<()> {
        if self.stopped { Err(SimFault::PowerOff.into()) } else { Ok(()) }
    }

    fn fault_is_due(&mut self, operation: Operation) -> bool {
        match self.faults.get_mut(&operation) {
            None => false,
            Some(0) => self.faults.remove(&operation).is_some(),
            Some(before) => {
                *before -= 1;
                false
            }
        }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, InodeId>) {
        for (path, inode) in &self.names {
            match inode {
                Some(inode) => names.insert(path.clone(), *inode),
                None => names.remove(path),
            };
        }
    }
}
