//! What the last checkpoint made durable, so that a file that fell behind is seen.

use std::path::{Path, PathBuf};

use bytes::Buf;

use crate::checked::{Damage as FileDamage, ReadFileError, WriteFileError, read_checked, write_checked};
use crate::disk::Disk;

const VERSION: u16 = 1;
const FIXED_BYTES: usize = 20;

/// The files of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub(super) store: u128,
    /// For each file the number of its sync at the last checkpoint. A file of which it is 0 was never part of a
    /// checkpoint, and is made anew.
    pub(super) synced: Vec<u32>,
}

impl Manifest {
    /// The manifest of a directory, if it has one.
    pub(super) fn read(disk: &dyn Disk, dir: &Path) -> Result<Option<Self>, ReadFileError> {
        let path = path(dir);
        let Some(mut body) = read_checked(disk, &path)? else { return Ok(None) };
        let damaged = || ReadFileError::Damaged { path: path.clone(), damage: FileDamage::Contents };
        if body.len() < FIXED_BYTES {
            return Err(damaged());
        }
        let version = body.get_u16_le();
        if version != VERSION {
            return Err(ReadFileError::Unsupported { path: path.clone(), version });
        }
        let files = usize::from(body.get_u16_le());
        let store = body.get_u128_le();
        if body.len() != files * 4 {
            return Err(damaged());
        }
        Ok(Some(Manifest { store, synced: (0..files).map(|_| body.get_u32_le()).collect() }))
    }

    pub(super) fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), WriteFileError> {
        let mut body = Vec::with_capacity(FIXED_BYTES + 4 * self.synced.len());
        body.extend_from_slice(&VERSION.to_le_bytes());
        body.extend_from_slice(&(self.synced.len() as u16).to_le_bytes());
        body.extend_from_slice(&self.store.to_le_bytes());
        self.synced.iter().for_each(|synced| body.extend_from_slice(&synced.to_le_bytes()));
        write_checked(disk, &path(dir), &body)
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("manifest")
}
