//! Who this node is: what its data directory says, and the lock that keeps a second process out.
//!
//! # Why a lost file is seen, and a crash is none
//!
//! Whoever votes twice in a term, or forgets what it acknowledged, can split the control plane. So the
//! identity and the control plane's files in `raft/` vouch for each other, by the order of four writes
//! of which each is durable before the next one begins:
//!
//! 1. the identity, with a store id that was drawn for this directory;
//! 2. the identity, with the cluster that the node belongs to;
//! 3. `raft/vote` with that store id, then an empty `raft/log`: nobody was promised anything yet;
//! 4. the identity, noting that 3 is done. Only now the Raft group opens, votes and acknowledges.
//!
//! A crash after 1 or 2 leaves no `raft/`, one within 3 a part of it that promised nothing and is
//! completed at the next start, and one after 4 all of it. What no crash leaves is refused, and
//! nothing is written:
//!
//! - `raft/` has files, and the identity is gone or knows no cluster: `raft/` comes after 2;
//! - 4 is noted, and the vote or the log is gone: they were durable before;
//! - there is a log and no vote: the vote comes first in 3;
//! - the vote names another store: one of the two was put there by somebody.
//!
//! A file that is read may have a name that an earlier process did not live to sync. So the identity
//! is written again and the names in `raft/` are synced at each start, before anything builds on them.

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
    /// The control plane's files were made: what is missing of them from now on is a loss, and whoever
    /// lost it must not vote again under the same store.
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
    lock: Arc<DiskLock>,
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
        let is_new = known.is_none();
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
        let opened = Self { disk, dir: dir.to_owned(), identity, lock: Arc::new(lock) };
        opened.check_raft_belongs(is_new)?;
        // Even when nothing is new: its name may not be durable yet.
        opened.save()?;
        Ok(opened)
    }

    /// What it says.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What keeps others out of the directory. Whoever writes in it holds on to this for as long: a write
    /// that hangs may come to its end after the node has stopped, and must not meet those of the next
    /// run.
    pub(crate) fn lock(&self) -> Arc<DiskLock> {
        Arc::clone(&self.lock)
    }

    /// Opens the control plane's files, and makes them at the first start as a member. From when this
    /// returns their loss will be noticed, so the group may answer others.
    pub(crate) fn open_raft(&mut self) -> Result<RaftFiles, DataDirError> {
        let (disk, dir, store) = (Arc::clone(&self.disk), self.raft_dir(), self.identity.store);
        match &mut self.identity.membership {
            Some(membership) if !membership.log_written => {
                let files = RaftFiles::open_or_create(disk, &dir, store)?;
                membership.log_written = true;
                self.save()?;
                Ok(files)
            }
            _ => RaftFiles::open(disk, &dir, store),
        }
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

    /// A node that belongs to no cluster has no log. One that lies there has lost its identity, and a
    /// new one must not be put in its place.
    fn check_raft_belongs(&self, is_new: bool) -> Result<(), DataDirError> {
        let (file, dir) = (self.dir.join(IDENTITY_FILE), self.raft_dir());
        if self.identity.membership.is_some() || !RaftFiles::exist(self.disk.as_ref(), &dir)? {
            return Ok(());
        }
        Err(DataDirError::of_lost(file, dir, !is_new))
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

    /// A first start, up to where the Raft group may open.
    fn begin(disk: &SimDisk) -> Result<(), DataDirError> {
        let mut dir = open(disk)?;
        if dir.identity().membership.is_none() {
            dir.set_membership(Membership {
                cluster: ClusterId(1),
                cluster_name: "test".to_owned(),
                log_written: false,
                founders: Vec::new(),
            })?;
        }
        dir.open_raft().map(drop)
    }

    /// Lets a first start end at every write, and the next one at every write again.
    #[test]
    fn a_first_start_that_ends_at_any_write_twice_is_completed_by_the_third() {
        for count in 0.. {
            let disk = SimDisk::new();
            disk.stop_after(count);
            let is_done = begin(&disk).is_ok();
            disk.kill();
            for count_again in 0.. {
                let disk = disk.fork();
                disk.stop_after(count_again);
                let is_done_again = begin(&disk).is_ok();
                if count_again % 2 == 0 {
                    disk.crash_clean();
                } else {
                    disk.crash(count);
                }
                begin(&disk).unwrap_or_else(|error| panic!("write {count}, then {count_again}: {error}"));
                if is_done_again {
                    break;
                }
            }
            if is_done {
                break;
            }
        }
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
