//! What can be written into the control-plane log, and what came of it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::form::FirstTable;
use crate::handoff::Position;
use crate::id::{
    BootId, ClusterId, Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid, StoreId,
};
use crate::limits::{DAMAGED_REPLICAS_MAX, METADATA_ENTRIES_MAX, TEXT_BYTES_MAX, WEIGHT_MAX};
use crate::topology::{Cluster, Liveness, Move, Node, Overrun, RaftRole};

/// A wish to change the control state. Apply decides, by the state alone, whether it comes true.
///
/// A command that names a `version` is a compare-and-set: it is refused when the partition's
/// record has moved on, so that a late or repeated copy does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first leader of the control plane makes the cluster out of the nodes that voted for it.
    FormCluster {
        /// Identity, name and configuration.
        cluster: Cluster,
        /// The voters, each with what it said of itself.
        members: Vec<Registration>,
        /// Who holds which partition at first.
        table: FirstTable,
    },
    /// A node enters, returns after a restart, or returns with an empty disk.
    RegisterNode {
        /// What it says of itself.
        registration: Registration,
        /// The controller made sure that the store registered before does not answer any more.
        replace: bool,
    },
    /// The failure detector changed its mind.
    SetLiveness {
        /// Its verdicts.
        changes: Vec<LivenessChange>,
    },
    /// A leaderless partition gets a leader.
    Elect {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// An in-sync, untainted, living replica.
        leader: NodeId,
        /// The candidates said how much they have, and this one has the most.
        by_position: bool,
    },
    /// A partition whose in-sync replicas may all have lost writes gets a leader all the same (rule F5).
    /// Accepted only when every one of them is back and said what it has, so that waiting could bring
    /// nothing more.
    ElectUnclean {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// The in-sync replica with the most data.
        leader: NodeId,
        /// What each in-sync replica said, since the epoch ended.
        statuses: BTreeMap<NodeId, MemberStatus>,
    },
    /// The leader changes its in-sync set (protocol rule S5).
    SetInSync(InSyncProposal),
    /// A replica begins to move, or a copy is added.
    StartMove {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// From where to where.
        movement: Move,
    },
    /// The target is in sync and leads where the source led: the source is dropped.
    FinishMove {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
    },
    /// The target cannot take the replica: it is dropped again, the source stays.
    AbortMove {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
    },
    /// The leader shall hand over to another in-sync replica.
    BeginTransfer {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// Who shall lead.
        target: NodeId,
    },
    /// The handover is called off; the old leader goes on.
    CancelTransfer {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
    },
    /// The leader stopped, its target holds everything: leadership passes at once (rule M4).
    Handoff {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// The leader's epoch.
        epoch: Epoch,
        /// The leader that hands over.
        from: NodeId,
        /// How far the leader's log reached.
        log_end: u64,
    },
    /// A copy above the wanted number goes.
    DropReplica {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// Whose copy.
        node: NodeId,
    },
    /// A node shall give everything away and leave. Nothing changes when it does so, or did, already.
    Drain {
        /// Which node.
        node: NodeId,
    },
    /// A draining node shall stay after all.
    CancelDrain {
        /// Which node.
        node: NodeId,
    },
    /// A drained node is gone.
    Leave {
        /// Which node.
        node: NodeId,
    },
    /// A node's record is deleted.
    RemoveNode {
        /// Which node.
        node: NodeId,
        /// Even when it still holds replicas, unless that would lose a partition's last good copy.
        force: bool,
    },
    /// The number of copies changes.
    SetReplicationFactor {
        /// Copies, leader included.
        replication_factor: u32,
    },
    /// The leader stopped by itself and gives its leadership up: another replica is to be elected (rule
    /// F6b). Refused when no other one can lead: then it goes on by the record's next version.
    Resign {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// The leader's epoch.
        epoch: Epoch,
        /// The leader.
        node: NodeId,
    },
    /// The controller takes the leadership from a leader that cannot get on (rule F6), or that said that
    /// it cannot begin. Whoever is deposed may not know it yet.
    Revoke {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// The epoch that ends.
        epoch: Epoch,
    },
    /// A member said at an election that something of it is missing or wrong (rule F2): it leaves the
    /// in-sync set, or cannot lead where the set needs it.
    Taint {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// Whose copy.
        node: NodeId,
        /// The run that said so.
        incarnation: Incarnation,
    },
    /// A running node found that what it holds of a partition is damaged (rule D2): the replica begins
    /// anew under another uid, outside of the in-sync set or unable to lead. It leads no longer, if it
    /// did.
    RenewReplica {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// Whose copy.
        node: NodeId,
        /// The run that found it.
        incarnation: Incarnation,
    },
    /// A stage is past its deadline, or none is any more.
    NameOverrun {
        /// Which partition.
        partition: PartitionId,
        /// Its record's version.
        version: PartitionVersion,
        /// Where and in which stage.
        overrun: Option<Overrun>,
    },
}

/// A change of the in-sync set, as the leader proposes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InSyncProposal {
    /// Which partition.
    pub partition: PartitionId,
    /// Its record's version.
    pub version: PartitionVersion,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The leader.
    pub leader: NodeId,
    /// The leader's incarnation; a leader never continues after a restart.
    pub leader_incarnation: Incarnation,
    /// The set it wants.
    pub in_sync: BTreeSet<NodeId>,
    /// The members that caught up, each under the incarnation that did.
    pub added: BTreeMap<NodeId, Incarnation>,
}

/// What a member of an in-sync set said of itself at an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// The run that said it.
    pub incarnation: Incarnation,
    /// How much it has; `None` where it has nothing, or cannot know.
    pub position: Option<Position>,
}

/// What a node says of itself when it registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its name.
    pub node: NodeId,
    /// Its data directory.
    pub store: StoreId,
    /// This run of its process: registering twice in one run changes nothing.
    pub boot: BootId,
    /// It may have lost acknowledged writes since it last ran: an unclean stop without fsync, or a
    /// damaged file.
    pub damaged: bool,
    /// The replicas that it found damaged, at most [`DAMAGED_REPLICAS_MAX`]: they begin anew. A node with
    /// more of them says that all of it is `damaged`, and reports the others once it runs.
    pub replicas_damaged: BTreeMap<PartitionId, ReplicaUid>,
    /// Where other nodes reach it.
    pub node_addr: String,
    /// Where clients reach it.
    pub public_addr: String,
    /// Its failure domain.
    pub zone: Option<String>,
    /// Its share relative to the others, 1 to 1,000.
    pub weight: u32,
    /// Whether it may vote.
    pub role: RaftRole,
    /// Whether partitions are placed on it.
    pub holds_data: bool,
    /// Whether it can say, at an election, how much its replicas have.
    pub reports_position: bool,
    /// Its release.
    pub software: String,
    /// Free text of its operator.
    pub metadata: BTreeMap<String, String>,
}

impl Registration {
    /// A voter of weight 1 that holds data. Of `addrs` the first is for nodes, the second for clients. It found no
    /// damage, cannot say how much it has, and names neither a zone nor a release nor anything else.
    #[must_use]
    pub fn new(node: NodeId, store: StoreId, boot: BootId, addrs: [String; 2]) -> Self {
        let [node_addr, public_addr] = addrs;
        Self {
            node,
            store,
            boot,
            damaged: false,
            replicas_damaged: BTreeMap::new(),
            node_addr,
            public_addr,
            zone: None,
            weight: 1,
            role: RaftRole::Voter,
            holds_data: true,
            reports_position: false,
            software: String::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// Whether it is within the limits. A node checks its own before it says it to anyone, the
    /// controller before it is written, and apply once more.
    pub fn check(&self) -> Result<(), InvalidReason> {
        if self.replicas_damaged.len() > DAMAGED_REPLICAS_MAX {
            return Err(InvalidReason::TooManyDamaged);
        }
        let profile = Profile {
            addrs: [&self.node_addr, &self.public_addr],
            zone: self.zone.as_deref(),
            weight: self.weight,
            software: &self.software,
            metadata: &self.metadata,
        };
        profile.check()
    }
}

/// What a node says of itself and its record repeats, as far as it has limits.
pub(super) struct Profile<'a> {
    addrs: [&'a str; 2],
    zone: Option<&'a str>,
    weight: u32,
    software: &'a str,
    metadata: &'a BTreeMap<String, String>,
}

impl<'a> Profile<'a> {
    pub(super) fn of_node(node: &'a Node) -> Self {
        Self {
            addrs: [&node.node_addr, &node.public_addr],
            zone: node.zone.as_deref(),
            weight: node.weight,
            software: &node.software,
            metadata: &node.metadata,
        }
    }

    pub(super) fn check(&self) -> Result<(), InvalidReason> {
        let fits = |text: &str| text.len() <= TEXT_BYTES_MAX;
        if !self.addrs.iter().all(|addr| !addr.is_empty() && fits(addr)) {
            return Err(InvalidReason::Address);
        }
        if !(1..=WEIGHT_MAX).contains(&self.weight) {
            return Err(InvalidReason::Weight);
        }
        let zone_fits = self.zone.is_none_or(fits);
        let metadata_fits = self.metadata.len() <= METADATA_ENTRIES_MAX
            && self.metadata.iter().all(|(key, value)| fits(key) && fits(value));
        if !zone_fits || !metadata_fits || !fits(self.software) {
            return Err(InvalidReason::Metadata);
        }
        Ok(())
    }
}

/// One verdict of the failure detector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivenessChange {
    /// Which node.
    pub node: NodeId,
    /// Of which incarnation; a verdict on an earlier one is void.
    pub incarnation: Incarnation,
    /// The verdict.
    pub liveness: Liveness,
}

/// A command came true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// The state changed.
    Changed,
    /// The state was so already.
    Unchanged,
    /// The node is registered.
    Registered {
        /// The incarnation it runs under from now on.
        incarnation: Incarnation,
    },
}

/// A command was refused. Nothing changed but what the variant says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Rejected {
    /// The cluster exists under another identity.
    #[error("cluster {cluster} exists already")]
    AlreadyFormed {
        /// Its identity.
        cluster: ClusterId,
    },
    /// The in-sync set would fall below its minimum. The record's version moved, so that a repeated
    /// copy cannot win later.
    #[error("{partition} needs at least {min_in_sync} in-sync replicas")]
    BelowMinInSync {
        /// Which partition.
        partition: PartitionId,
        /// The minimum.
        min_in_sync: u32,
    },
    /// The node still holds replicas. Drain it first, or force.
    #[error("{node} still holds {replicas} replicas; drain it first")]
    HoldsReplicas {
        /// Which node.
        node: NodeId,
        /// How many.
        replicas: u32,
    },
    /// The input breaks a limit or a rule of the configuration.
    #[error("invalid: {reason}")]
    Invalid {
        /// What is wrong.
        reason: InvalidReason,
    },
    /// Another store lives under that name.
    #[error("node id {node} is in use by {node_addr} (alive)")]
    NodeIdInUse {
        /// The name.
        node: NodeId,
        /// Where the other one listens.
        node_addr: String,
    },
    /// The replica cannot lead: not in sync, tainted, or not alive. Where it was the target of a handoff,
    /// the handover is called off, so that the leader that stopped for it goes on.
    #[error("{node} cannot lead {partition}: it must be in sync, untainted and alive")]
    NotElectable {
        /// Which partition.
        partition: PartitionId,
        /// Which node.
        node: NodeId,
    },
    /// No cluster has formed yet. Retry later.
    #[error("the cluster has not formed yet")]
    NotFormed,
    /// Nobody but the leader can lead. The record's version moved, so that a leader that stopped goes on
    /// by it.
    #[error("no other in-sync, untainted and living replica of {partition} could lead it")]
    NoSuccessor {
        /// Which partition.
        partition: PartitionId,
    },
    /// The record is not in the state the command is for (a move in progress, or none).
    #[error("{partition} is not in the state for that command")]
    OtherState {
        /// Which partition.
        partition: PartitionId,
    },
    /// The proposal breaks a rule of in-sync changes. The record's version moved, so that a
    /// repeated copy cannot win later.
    #[error("the in-sync set proposed for {partition} is not allowed")]
    ProposalRefused {
        /// Which partition.
        partition: PartitionId,
    },
    /// The incarnation named is not the current one.
    #[error("{node} registered again since, as incarnation {current}")]
    StaleIncarnation {
        /// Which node.
        node: NodeId,
        /// Its incarnation.
        current: Incarnation,
    },
    /// The record moved on. Look at the topology and decide anew.
    #[error("{partition} moved on to version {current}")]
    StaleVersion {
        /// Which partition.
        partition: PartitionId,
        /// Its version.
        current: PartitionVersion,
    },
    /// No node has that name.
    #[error("no node is called {node}")]
    UnknownNode {
        /// The name.
        node: NodeId,
    },
    /// No partition has that number.
    #[error("there is no {partition}")]
    UnknownPartition {
        /// The number.
        partition: PartitionId,
    },
    /// The last good copy of some partitions would go.
    #[error("{} partition(s) would lose their last good copy", partitions.len())]
    WouldLoseData {
        /// Which ones, never empty.
        partitions: Vec<PartitionId>,
    },
}

impl Rejected {
    pub(super) fn invalid(reason: InvalidReason) -> Self {
        Self::Invalid { reason }
    }
}

/// Why an input is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidReason {
    /// An address is empty or too long.
    #[error("an address must be host:port, of at most 256 bytes")]
    Address,
    /// No cluster name, or one that is too long.
    #[error("a cluster name has 1 to 64 bytes")]
    ClusterName,
    /// The first table does not fit the cluster that it is for.
    #[error(
        "the first table must have a row for each partition, of distinct members that hold data and no more of them than copies"
    )]
    FirstTable,
    /// No member, too many, or the same node or store twice.
    #[error("the members of a new cluster must be distinct, and 1 to 64")]
    Members,
    /// Too much metadata.
    #[error(
        "zone, release and metadata have at most 256 bytes each, and there are at most 64 metadata entries"
    )]
    Metadata,
    /// Partition count out of range.
    #[error("the partition count must be between 1 and 16384")]
    PartitionCount,
    /// Replication factor out of range.
    #[error("the replication factor must be between 1 and 15")]
    ReplicationFactor,
    /// A node cannot leave, or stay, from where it stands.
    #[error("the node is not in the state for that command")]
    Stage,
    /// A registration names more damaged replicas than it can.
    #[error("a registration names at most {DAMAGED_REPLICAS_MAX} damaged replicas")]
    TooManyDamaged,
    /// The cluster is full.
    #[error("the cluster has the most nodes it can have, 1024")]
    TooManyNodes,
    /// Weight out of range.
    #[error("a weight must be between 1 and 1000")]
    Weight,
}
