//! A damaged file gives way to an empty one.
//!
//! First the damaged file gets another name, and then the manifest says that the file was never part of a checkpoint,
//! so that whoever opens the store makes it anew. A crash in between leaves a store that is refused because the file
//! is gone, which [`RedbStore::set_aside`] mends: the damaged file is kept, whenever the power goes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use super::file::StateFile;
use super::manifest::Manifest;
use super::pages::{Identity, Pages};
use super::{Inner, Options, RedbStore, lock, manifest_of, path_of};
use crate::checked::WriteFileError;
use crate::disk::{Disk, DiskError};
use crate::state_store::{Damage, OpenError, StateError};

impl RedbStore {
    /// Sets a file aside for whose damage the store could not be opened, so that the next opening makes it anew.
    /// Its replicas are missing then: have them sent by other nodes. The damaged file is kept under another name,
    /// as [`StateStore::renew`](crate::state_store::StateStore::renew) does. The store must not be open. Nothing
    /// happens if the damage is of no file of this store. A retry does no harm.
    pub fn set_aside(
        disk: &dyn Disk,
        dir: &Path,
        options: &Options,
        damage: &Damage,
    ) -> Result<(), OpenError> {
        let mut manifest = manifest_of(disk, dir, options)?;
        let is_meant = |number: &u16| damage.path.as_deref() == Some(&path_of(dir, *number));
        let Some(number) = (0..options.file_count).find(is_meant) else { return Ok(()) };
        keep_aside(disk, dir, number, &mut manifest)?;
        manifest.write(disk, dir).map_err(|error| match error {
            WriteFileError::NotReplaced { source } | WriteFileError::OutcomeUnknown { source } => {
                source.into()
            }
            other => OpenError::State(StateError::Engine(Box::new(other))),
        })
    }
}

impl Inner {
    /// Whoever still holds the damaged file is refused from the moment on that it is condemned.
    pub(super) fn renew(&self, damage: &Damage) -> Result<(), StateError> {
        self.health.check()?;
        let mut manifest = lock(&self.manifest);
        let is_meant = |file: &Arc<StateFile>| damage.path.as_deref() == Some(file.path());
        let Some((number, old)) = (0..).zip(self.files()).find(|(_, file)| is_meant(file)) else {
            return Ok(());
        };
        if !old.pages().is_damaged() {
            return Ok(());
        }
        old.pages().condemn(damage.kind);
        keep_aside(&*self.disk, &self.dir, number, &mut manifest).map_err(|error| self.fail(error))?;
        self.write_manifest(&manifest)?;
        let file = self.make_anew(Identity { store: manifest.store, file: number })?;
        manifest.synced[usize::from(number)] = file.pages().synced();
        self.write_manifest(&manifest)?;
        let mut place = self.files[usize::from(number)].write().unwrap_or_else(PoisonError::into_inner);
        *place = Arc::new(file);
        Ok(())
    }

    fn make_anew(&self, identity: Identity) -> Result<StateFile, StateError> {
        let path = path_of(&self.dir, identity.file);
        let pages = Pages::create(&*self.disk, &path, identity, Arc::clone(&self.health));
        let file = StateFile::open(pages.map_err(|error| self.fail(error))?, self.file_cache_bytes)?;
        self.sync_dir()?;
        file.checkpoint()?;
        Ok(file)
    }
}

/// Gives a file another name, unless it is new, and takes it out of the manifest in memory.
fn keep_aside(disk: &dyn Disk, dir: &Path, number: u16, manifest: &mut Manifest) -> Result<(), DiskError> {
    let synced = &mut manifest.synced[usize::from(number)];
    if *synced == 0 {
        return Ok(());
    }
    match disk.rename(&path_of(dir, number), &aside_of(dir, number)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    disk.sync_dir(dir)?;
    *synced = 0;
    Ok(())
}

fn aside_of(dir: &Path, number: u16) -> PathBuf {
    dir.join(format!("{number:03}.damaged"))
}
