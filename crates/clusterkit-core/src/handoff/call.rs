//! What goes in and out: which hook is called with what, what it answered, what the controller is
//! told.

use alloc::string::String;
use core::fmt;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid};
use crate::time::Instant;
use crate::topology::Origin;

/// The stages of a replica's life, each of them a hook of the user's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The replica's place is made, or opened again after a restart.
    Prepare,
    /// It takes over everything that the other copies have.
    CatchUp,
    /// The leader stops taking writes.
    Seal,
    /// A replica begins to take writes, under its epoch.
    Activate,
    /// The replica's place is given up.
    Release,
}

impl Stage {
    /// The word shown to people and put in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::CatchUp => "catch_up",
            Self::Seal => "seal",
            Self::Activate => "activate",
            Self::Release => "release",
        }
    }

    /// Whether clients wait for it, so that nothing may hold it back.
    pub(super) fn is_urgent(self) -> bool {
        matches!(self, Self::Seal | Self::Activate)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One hook to be called, with its arguments. A call that is repeated, after a refusal or a restart,
/// has the same arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Make room for the replica, or open what is there.
    Prepare {
        /// Which partition.
        partition: PartitionId,
        /// Which placement of it.
        uid: ReplicaUid,
    },
    /// Take over everything that the other copies have.
    CatchUp {
        /// Which partition.
        partition: PartitionId,
        /// Which placement of it.
        uid: ReplicaUid,
        /// The leader's epoch.
        epoch: Epoch,
        /// The leader.
        leader: NodeId,
        /// How often the replica fell out of the in-sync set before.
        lapses: u64,
        /// The record that names this replica: whoever has adopted it sends new writes here too.
        version: PartitionVersion,
    },
    /// Take no more writes under `epoch`: no lease for it is left.
    Seal {
        /// Which partition.
        partition: PartitionId,
        /// The epoch that ends.
        epoch: Epoch,
        /// Why it ends.
        cause: SealCause,
    },
    /// Take writes under `epoch` from now on.
    Activate {
        /// Which partition.
        partition: PartitionId,
        /// The epoch that begins: the fencing token.
        epoch: Epoch,
        /// How it came.
        cause: ActivateCause,
    },
    /// Give up what is held of the partition under `uid`.
    Release {
        /// Which partition.
        partition: PartitionId,
        /// Which placement of it.
        uid: ReplicaUid,
    },
}

impl Call {
    /// Which hook.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::Prepare { .. } => Stage::Prepare,
            Self::CatchUp { .. } => Stage::CatchUp,
            Self::Seal { .. } => Stage::Seal,
            Self::Activate { .. } => Stage::Activate,
            Self::Release { .. } => Stage::Release,
        }
    }

    /// Which partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        match self {
            Self::Prepare { partition, .. }
            | Self::CatchUp { partition, .. }
            | Self::Seal { partition, .. }
            | Self::Activate { partition, .. }
            | Self::Release { partition, .. } => *partition,
        }
    }

    /// Whether it is the same stage of the same replica under the same leader. The record's version
    /// may differ: it moves for reasons that do not concern the call.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::CatchUp { partition, uid, epoch, leader: _, lapses, version: _ },
                Self::CatchUp {
                    partition: of,
                    uid: as_uid,
                    epoch: under,
                    leader: _,
                    lapses: after,
                    version: _,
                },
            ) => (partition, uid, epoch, lapses) == (of, as_uid, under, after),
            _ => self == other,
        }
    }
}

/// Why a leader stops taking writes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SealCause {
    /// Leadership goes to this node, which has everything.
    Handover(NodeId),
    /// Another epoch began already, or the replica was taken away: nothing written since counts.
    Deposed,
    /// This node stops.
    Stopping,
}

/// How an epoch came to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActivateCause {
    /// It was given.
    Elected(Origin),
    /// A handover was called off after `seal` was called: the same epoch goes on.
    Resumed,
}

/// Which call an outcome belongs to. A late outcome carries an old one and changes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a hook answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The stage is done.
    Done,
    /// Not yet: call again after this time.
    Deferred(Duration),
    /// It cannot be done, for this reason.
    Refused(String),
    /// It was ended by force.
    Aborted,
}

/// What the shell shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// End a call by force; answer with [`Outcome::Aborted`] once it has ended, or with what it
    /// answered just before.
    Abort {
        /// Which call.
        token: Token,
    },
    /// New writes of the partition go by the record as it is now.
    Adopt {
        /// Which partition.
        partition: PartitionId,
    },
    /// Ask a call to end. Its outcome is still awaited.
    Cancel {
        /// Which call.
        token: Token,
    },
    /// Issue no more permits, and answer by [`handle_drained`](super::Stages::handle_drained) once the
    /// last one is gone. [`OpenLease`](Self::OpenLease) under the same epoch calls it off.
    CloseLease {
        /// To be given back.
        token: Token,
        /// Which partition.
        partition: PartitionId,
        /// Under which epoch it is held.
        epoch: Epoch,
    },
    /// The epoch is over: its lease ends for good, drained or not.
    EndLease {
        /// Which partition.
        partition: PartitionId,
        /// Which epoch.
        epoch: Epoch,
    },
    /// The lease of this epoch begins, or goes on.
    OpenLease {
        /// Which partition.
        partition: PartitionId,
        /// Under which epoch.
        epoch: Epoch,
    },
    /// A stage has just become late: tell those who watch this node.
    Overran {
        /// Which partition.
        partition: PartitionId,
        /// Which stage.
        stage: Stage,
    },
    /// Call a hook; answer by [`handle_outcome`](super::Stages::handle_outcome).
    Run {
        /// To be given back.
        token: Token,
        /// Which hook, with what.
        call: Call,
    },
    /// Write down, durably, which replicas this node may hold something of; answer by
    /// [`handle_saved`](super::Stages::handle_saved).
    Save {
        /// To be given back.
        token: Token,
        /// All of them, in order.
        replicas: alloc::vec::Vec<(PartitionId, ReplicaUid)>,
    },
}

/// A fact for the controller. It is true until the record shows that it was heard, and repeated until
/// then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who says so.
    pub node: NodeId,
    /// In which run.
    pub incarnation: Incarnation,
    /// Of which partition.
    pub partition: PartitionId,
    /// What.
    pub fact: Fact,
}

/// What a [`Report`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// The leader takes writes under this epoch.
    Activated {
        /// Its epoch.
        epoch: Epoch,
    },
    /// The replica has everything that its leader has.
    CaughtUp {
        /// Which placement.
        uid: ReplicaUid,
        /// Under which leader.
        epoch: Epoch,
        /// After how many lapses.
        lapses: u64,
    },
    /// The stage cannot be done here, or not in time: roll back.
    Declined {
        /// Which stage.
        stage: Stage,
        /// Which placement.
        uid: ReplicaUid,
        /// The leader's epoch.
        epoch: Epoch,
        /// The record it is about.
        version: PartitionVersion,
        /// What the hook said.
        reason: String,
    },
    /// What the replica holds is damaged, and set aside: it is to begin anew (rule D2).
    Damaged {
        /// Which placement.
        uid: ReplicaUid,
    },
    /// The stage is past its deadline and goes on.
    Overran {
        /// Which stage.
        stage: Stage,
    },
    /// No stage of this replica is past its deadline any more.
    OnTime,
    /// The leader takes no more writes, and the target of its handover has everything (rule M3).
    Sealed {
        /// Its epoch.
        epoch: Epoch,
        /// The record that asks for the handover.
        version: PartitionVersion,
    },
    /// The leader has writes that it cannot commit, and none of them got on for a while, or a majority of
    /// the in-sync set cannot reach it: another is to lead, if one can (rule F6). It leads until then, and
    /// counts for a second: say it again while it is so.
    Stalled {
        /// Its epoch.
        epoch: Epoch,
    },
}

/// A stage under way, for whoever looks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageStatus {
    /// Which partition.
    pub partition: PartitionId,
    /// Which stage.
    pub stage: Stage,
    /// Since when it is tried.
    pub since: Instant,
    /// Since when it is late, if it is.
    pub overdue_since: Option<Instant>,
    /// Whether the hook runs just now.
    pub running: bool,
    /// How often it was called.
    pub calls: u32,
    /// What it said when it last refused or deferred.
    pub reason: Option<String>,
    /// What it reported of its progress.
    pub progress: Option<Progress>,
}

/// How much a replica has, as its keeper says at an election.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch of the last write that it has.
    pub last_epoch: Epoch,
    /// How far its log reaches, or whatever grows with each write.
    pub log_end: u64,
    /// It found that something is missing or wrong: it does not lead, and is no longer taken for whole,
    /// until it has caught up once more. Where every in-sync replica says so, the one with the most leads
    /// all the same, under an epoch that is marked as unclean.
    pub damaged: bool,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes copied.
    pub bytes: u64,
    /// Bytes in all, where that is known.
    pub bytes_total: Option<u64>,
}
