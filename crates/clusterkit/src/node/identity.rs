//! Who this node is: what its data directory says, and the lock that keeps a second process out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clusterkit_core::forming::{Candidate, Vote};
use clusterkit_core::id::{ClusterId, NodeId, StoreId};
use clusterkit_storage::checked::{read_checked, write_checked};
use clusterkit_storage::disk::{Disk, DiskLock};
use clusterkit_wire::versioned;
use serde::{Deserialize, Serialize};

use crate::coordinator::raft::RaftFiles;
use crate::error::DataDirError;

/// The version that the identity file is written under.
const IDENTITY_VERSION: u8 = 1;
const IDENTITY_FILE: &str = "identity";
const LOCK_FILE: &str = "lock";
/// The control plane's log, vote and snapshot lie in here.
const RAFT_DIR: &str = "raft";

/// What the data directory knows of its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The node it was made for.
    pub(crate) node: NodeId,
    /// Drawn when the directory was made.
    pub(crate) store: StoreId,
    /// The vote for a cluster to be formed.
    pub(crate) vote: Option<Vote>,
    /// The cluster it belongs to.
    pub(crate) membership: Option<Membership>,
}

/// The cluster that a node belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Membership {
    pub(crate) cluster: ClusterId,
    pub(crate) cluster_name: String,
    /// Its control-plane log was written: one that is missing from now on is a loss, and whoever lost
    /// it must not vote again under the same store.
    pub(crate) log_written: bool,
    /// Who formed it, when this node was one of them: its first voters.
    pub(crate) founders: Vec<Candidate>,
}

/// An opened, locked data directory.
#[derive(Debug)]
pub(crate) struct DataDir {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    identity: Identity,
    _lock: DiskLock,
}

impl DataDir {
    /// Opens `dir` for `node`, or makes it with `store` as its id when it is new.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        node: &NodeId,
        store: StoreId,
    ) -> Result<Self, DataDirError> {
        let failed = |source| DataDirError::Disk { dir: dir.to_owned(), source };
        disk.create_dir_all(dir).map_err(failed)?;
        let lock = disk.lock(&dir.join(LOCK_FILE)).map_err(|error| DataDirError::of_lock(dir, error))?;
        let file = dir.join(IDENTITY_FILE);
        let known =
            read_checked(disk.as_ref(), &file).map_err(|error| DataDirError::of_read(dir, &file, error))?;
        let identity = match known {
            Some(bytes) => decode(&file, &bytes)?,
            None => Identity { node: node.clone(), store, vote: None, membership: None },
        };
        if identity.node != *node {
            return Err(DataDirError::OtherNode {
                dir: dir.to_owned(),
                found: identity.node,
                wanted: node.clone(),
            });
        }
        let opened = Self { disk, dir: dir.to_owned(), identity, _lock: lock };
        opened.save()?;
        Ok(opened)
    }

    /// What it says.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Opens the control plane's files.
    pub(crate) fn open_raft(&self) -> Result<RaftFiles, DataDirError> {
        RaftFiles::open(Arc::clone(&self.disk), &self.raft_dir())
    }

    /// Writes a vote down; it may be shown when this returns.
    pub(crate) fn set_vote(&mut self, vote: Vote) -> Result<(), DataDirError> {
        self.identity.vote = Some(vote);
        self.save()
    }

    /// Writes down which cluster this node belongs to.
    pub(crate) fn set_membership(&mut self, membership: Membership) -> Result<(), DataDirError> {
        self.identity.membership = Some(membership);
        self.save()
    }

    /// Writes down that the control-plane log holds something.
    pub(crate) fn set_log_written(&mut self) -> Result<(), DataDirError> {
        match &mut self.identity.membership {
            Some(membership) if !membership.log_written => membership.log_written = true,
            _ => return Ok(()),
        }
        self.save()
    }

    /// What to say when the log turns out to be missing.
    pub(crate) fn log_missing(&self) -> DataDirError {
        DataDirError::LogMissing { dir: self.raft_dir() }
    }

    fn raft_dir(&self) -> PathBuf {
        self.dir.join(RAFT_DIR)
    }

    fn save(&self) -> Result<(), DataDirError> {
        let bytes = versioned::encode(IDENTITY_VERSION, &self.identity);
        let file = self.dir.join(IDENTITY_FILE);
        write_checked(self.disk.as_ref(), &file, &bytes)
            .map_err(|source| DataDirError::Write { file, source })
    }
}

fn decode(file: &Path, bytes: &[u8]) -> Result<Identity, DataDirError> {
    versioned::decode(bytes, IDENTITY_VERSION..=IDENTITY_VERSION)
        .map_err(|error| DataDirError::of_decode(file, error))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use clusterkit_storage::disk::{Operation, SimDisk};

    use super::*;

    const DIR: &str = "/data";

    fn open(disk: &SimDisk) -> Result<DataDir, DataDirError> {
        let node = NodeId::new("node-1").unwrap();
        DataDir::open(Arc::new(disk.clone()), Path::new(DIR), &node, StoreId(7))
    }

    fn check_refused(disk: &SimDisk, text: &str) {
        let error = open(disk).unwrap_err();
        assert_eq!(error.to_string(), text);
        let has_source = error.source().is_some();
        assert_eq!(
            has_source,
            !matches!(error, DataDirError::InUse { .. } | DataDirError::NewerRelease { .. })
        );
    }

    fn write_identity(disk: &SimDisk, record: &[u8]) {
        write_checked(disk, &Path::new(DIR).join(IDENTITY_FILE), record).unwrap();
    }

    #[test]
    fn a_damaged_identity_is_told_from_a_disk_that_refuses_and_from_a_newer_release() {
        let disk = SimDisk::new();
        drop(open(&disk).unwrap());
        let file = Path::new(DIR).join(IDENTITY_FILE);

        disk.fail(Operation::Read, 0);
        check_refused(
            &disk,
            "cannot use the data directory /data: cannot read /data/identity: simulated input/output error",
        );
        drop(open(&disk).expect("the disk is well again, and so is the file"));

        disk.flip_bit(&file, 30, 0).unwrap();
        check_refused(
            &disk,
            "/data/identity is damaged: its checksum does not match; start with an empty --data-dir: the node then comes back as a new replica",
        );

        write_identity(&disk, &versioned::encode(IDENTITY_VERSION + 1, "what comes later"));
        check_refused(
            &disk,
            "/data/identity was written by a newer release, in version 2 of its format; start that release",
        );

        write_identity(&disk, &[IDENTITY_VERSION]);
        let error = open(&disk).unwrap_err();
        assert!(matches!(error, DataDirError::Unreadable { .. }), "{error}");
        assert!(error.to_string().starts_with("/data/identity cannot be read: the record is malformed"));
    }

    #[test]
    fn a_lock_that_is_held_is_told_from_a_lock_that_cannot_be_had() {
        let disk = SimDisk::new();
        let first = open(&disk).unwrap();
        check_refused(
            &disk,
            "the data directory /data is in use by another process; stop it or choose another --data-dir",
        );
        drop(first);
        disk.fail(Operation::Lock, 0);
        check_refused(
            &disk,
            "cannot use the data directory /data: cannot lock /data/lock: simulated input/output error",
        );
    }
}
