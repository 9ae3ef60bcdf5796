//! What each command does. One method a command; every one either changes the state and says so,
//! or refuses and leaves it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::command::{Applied, InSyncProposal, InvalidReason, LivenessChange, Registration, Rejected};
use super::form::check_replication_factor;
use super::state::ControlState;
use crate::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion};
use crate::limits::NODES_MAX;
use crate::topology::{Liveness, Move, Node, Origin, Overrun, Partition, Replica, Stage};

// Registering.
impl ControlState {
    pub(super) fn register_node(
        &mut self,
        registration: &Registration,
        replace: bool,
    ) -> Result<Applied, Rejected> {
        if self.topology.cluster.is_none() {
            return Err(Rejected::NotFormed);
        }
        registration.check().map_err(Rejected::invalid)?;
        let known = self.topology.nodes.get(&registration.node).cloned();
        if known.is_none() && self.topology.nodes.len() >= NODES_MAX {
            return Err(Rejected::Invalid { reason: InvalidReason::TooManyNodes });
        }
        let Some(known) = known else {
            return Ok(self.insert_node(registration, self.incarnation_removed.next()));
        };
        let same_store = known.store == registration.store;
        if same_store && known.boot == registration.boot && known.stage != Stage::Left {
            return Ok(Applied::Registered { incarnation: known.incarnation });
        }
        let taken = known.liveness != Liveness::Dead && known.stage != Stage::Left;
        if !same_store && taken && !replace {
            let node_addr = known.node_addr.clone();
            return Err(Rejected::NodeIdInUse { node: known.id.clone(), node_addr });
        }
        self.forget_leadership(&known.id);
        self.change_partitions_of(&known.id, lapse_outside);
        if !same_store {
            self.renew_replicas(&known.id);
        } else if registration.damaged {
            self.distrust_replicas(&known.id);
        }
        self.renew_damaged(&known.id, &registration.replicas_damaged);
        Ok(self.insert_node(registration, known.incarnation.next()))
    }

    fn insert_node(&mut self, registration: &Registration, incarnation: Incarnation) -> Applied {
        let mut node = node_of(registration, incarnation, Liveness::Joining);
        // A drain outlives a restart of the node; a node that had left comes back as a member.
        if let Some(known) = self.topology.node(&registration.node) {
            node.stage = if known.stage == Stage::Leaving { Stage::Leaving } else { Stage::Member };
        }
        self.topology.nodes.insert(registration.node.clone(), Arc::new(node));
        Applied::Registered { incarnation }
    }

    /// Rule R2: a leader never continues its epoch after a restart.
    fn forget_leadership(&mut self, node: &NodeId) {
        self.change_partitions_of(node, |record, node| {
            let leads = record.leader.as_ref() == Some(node);
            let follows_next = record.transfer.as_ref() == Some(node);
            if leads {
                record.end_epoch(None);
            }
            record.transfer = record.transfer.take().filter(|_| !follows_next);
            leads || follows_next
        });
    }
}

// Life and death, elections.
impl ControlState {
    pub(super) fn set_liveness(&mut self, changes: &[LivenessChange]) -> Result<Applied, Rejected> {
        let mut outcome = Applied::Unchanged;
        for change in changes {
            if self.set_liveness_of(change) {
                outcome = Applied::Changed;
            }
        }
        Ok(outcome)
    }

    fn set_liveness_of(&mut self, change: &LivenessChange) -> bool {
        let Ok(node) = self.node_mut(&change.node) else { return false };
        if node.incarnation != change.incarnation || node.liveness == change.liveness {
            return false;
        }
        node.liveness = change.liveness;
        if change.liveness == Liveness::Dead {
            self.fence(&change.node);
        }
        true
    }

    /// Rule F1: the dead lead nothing, and count in no in-sync set that can do without them.
    fn fence(&mut self, node: &NodeId) {
        self.change_partitions_of(node, |record, node| {
            let mut changed = false;
            if record.leader.as_ref() == Some(node) {
                record.end_epoch(None);
                changed = true;
            }
            if record.transfer.as_ref() == Some(node) {
                record.transfer = None;
                changed = true;
            }
            changed | lapse_outside(record, node) | (spares(record, node) && shrink(record, node))
        });
    }

    pub(super) fn elect(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        leader: &NodeId,
        by_position: bool,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        if record.leader.is_some() {
            return Err(Rejected::OtherState { partition });
        }
        if !self.can_lead(record, leader) {
            return Err(Rejected::NotElectable { partition, node: leader.clone() });
        }
        let origin = if by_position { Origin::Position } else { Origin::Membership };
        install_leader(self.partition_mut(partition), leader, origin);
        Ok(Applied::Changed)
    }
}

// The in-sync set and handovers.
impl ControlState {
    /// Rule S5.
    pub(super) fn set_in_sync(&mut self, proposal: &InSyncProposal) -> Result<Applied, Rejected> {
        let partition = proposal.partition;
        let record = self.partition_at(partition, proposal.version)?;
        if let Err(refusal) = self.check_in_sync(record, proposal) {
            // A refused proposal must not win later, when the state allows it again and a delayed
            // copy arrives (rule S4): the version moves on.
            let record = self.partition_mut(partition);
            record.version = record.version.next();
            return Err(refusal);
        }
        // The source of a move is a copy too many: a minimum that counted it could not be kept without it.
        let sources = record.movement.iter().filter(|movement| movement.source.is_some()).count();
        let min_in_sync = self.min_in_sync_for(record.replicas.len() - sources);
        let record = self.partition_mut(partition);
        let dropped: Vec<_> = record.in_sync.difference(&proposal.in_sync).cloned().collect();
        dropped.iter().for_each(|node| lapse(record, node));
        record.in_sync.clone_from(&proposal.in_sync);
        record.tainted.retain(|node| proposal.in_sync.contains(node) && !proposal.added.contains_key(node));
        if record.in_sync.len() >= min_in_sync as usize {
            record.min_in_sync = record.min_in_sync.max(min_in_sync);
        }
        record.version = record.version.next();
        Ok(Applied::Changed)
    }

    fn check_in_sync(&self, record: &Partition, proposal: &InSyncProposal) -> Result<(), Rejected> {
        let partition = proposal.partition;
        let refused = Err(Rejected::ProposalRefused { partition });
        if record.leader.as_ref() != Some(&proposal.leader) || record.epoch != proposal.epoch {
            return refused;
        }
        self.check_incarnation(&proposal.leader, proposal.leader_incarnation)?;
        if !proposal.in_sync.contains(&proposal.leader)
            || !proposal.in_sync.iter().all(|node| record.holds(node))
        {
            return refused;
        }
        if proposal.in_sync.len() < record.min_in_sync as usize {
            return Err(Rejected::BelowMinInSync { partition, min_in_sync: record.min_in_sync });
        }
        let newcomers = proposal.in_sync.difference(&record.in_sync);
        if !newcomers.into_iter().all(|node| proposal.added.contains_key(node)) {
            return refused;
        }
        for (node, incarnation) in &proposal.added {
            self.check_incarnation(node, *incarnation)?;
            if !proposal.in_sync.contains(node) || !self.topology.is_live(node) {
                return refused;
            }
        }
        Ok(())
    }

    pub(super) fn check_incarnation(&self, node: &NodeId, incarnation: Incarnation) -> Result<(), Rejected> {
        match self.topology.node(node) {
            None => Err(Rejected::UnknownNode { node: node.clone() }),
            Some(record) if record.incarnation != incarnation => {
                Err(Rejected::StaleIncarnation { node: node.clone(), current: record.incarnation })
            }
            Some(_) => Ok(()),
        }
    }

    pub(super) fn begin_transfer(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        target: &NodeId,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        if record.leader.is_none() || record.leader.as_ref() == Some(target) || record.transfer.is_some() {
            return Err(Rejected::OtherState { partition });
        }
        if !self.can_lead(record, target) {
            return Err(Rejected::NotElectable { partition, node: target.clone() });
        }
        let record = self.partition_mut(partition);
        record.transfer = Some(target.clone());
        record.version = record.version.next();
        Ok(Applied::Changed)
    }

    pub(super) fn cancel_transfer(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        if record.transfer.is_none() {
            return Err(Rejected::OtherState { partition });
        }
        let record = self.partition_mut(partition);
        record.transfer = None;
        record.version = record.version.next();
        Ok(Applied::Changed)
    }

    /// Rule M4.
    pub(super) fn handoff(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        epoch: Epoch,
        from: &NodeId,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        let Some(target) = record.transfer.clone() else {
            return Err(Rejected::OtherState { partition });
        };
        if record.leader.as_ref() != Some(from) || record.epoch != epoch {
            return Err(Rejected::OtherState { partition });
        }
        if !self.can_lead(record, &target) {
            // The sender stopped, and waits for a newer record (rule M4).
            let record = self.partition_mut(partition);
            record.transfer = None;
            record.version = record.version.next();
            return Err(Rejected::NotElectable { partition, node: target });
        }
        let record = self.partition_mut(partition);
        record.end_epoch(None);
        install_leader(record, &target, Origin::Handover);
        Ok(Applied::Changed)
    }
}

// What hooks bring about.
impl ControlState {
    /// Rule F6b: the leader said itself that it stopped.
    pub(super) fn resign(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        epoch: Epoch,
        node: &NodeId,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        if record.leader.as_ref() != Some(node) || record.epoch != epoch {
            return Err(Rejected::OtherState { partition });
        }
        let is_followed = record.in_sync.iter().any(|other| other != node && self.can_lead(record, other));
        let record = self.partition_mut(partition);
        record.version = record.version.next();
        if !is_followed {
            // The sender stopped, and waits for a newer record.
            return Err(Rejected::NoSuccessor { partition });
        }
        record.end_epoch(Some(node.clone()));
        Ok(Applied::Changed)
    }

    /// Rule F6.
    pub(super) fn revoke(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        epoch: Epoch,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        if record.leader.is_none() || record.epoch != epoch {
            return Err(Rejected::OtherState { partition });
        }
        let record = self.partition_mut(partition);
        record.end_epoch(None);
        record.version = record.version.next();
        Ok(Applied::Changed)
    }

    pub(super) fn name_overrun(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        overrun: Option<&Overrun>,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        if record.overrun.as_ref() == overrun {
            return Ok(Applied::Unchanged);
        }
        let record = self.partition_mut(partition);
        record.overrun = overrun.cloned();
        record.version = record.version.next();
        Ok(Applied::Changed)
    }
}

// Moves.
impl ControlState {
    pub(super) fn start_move(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        movement: &Move,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        let source_holds = movement.source.as_ref().is_none_or(|source| record.holds(source));
        if record.movement.is_some() || record.holds(&movement.target) || !source_holds {
            return Err(Rejected::OtherState { partition });
        }
        let Some(target) = self.topology.node(&movement.target) else {
            return Err(Rejected::UnknownNode { node: movement.target.clone() });
        };
        if !target.is_placement_target() {
            return Err(Rejected::OtherState { partition });
        }
        // The first copy of a partition that never had one has nothing to catch up with.
        let first = record.replicas.is_empty();
        let uid = self.next_uid();
        let record = self.partition_mut(partition);
        record.replicas.push(Replica { node: movement.target.clone(), uid, lapses: 0 });
        if first {
            record.in_sync.insert(movement.target.clone());
        } else {
            record.movement = Some(movement.clone());
        }
        record.version = record.version.next();
        Ok(Applied::Changed)
    }

    /// Rule M5: the source goes only when enough in-sync replicas remain, and never while it leads.
    pub(super) fn finish_move(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        let Some(movement) = record.movement.clone() else {
            return Err(Rejected::OtherState { partition });
        };
        if !record.in_sync.contains(&movement.target) {
            return Err(Rejected::OtherState { partition });
        }
        if let Some(source) = movement.source.as_ref().filter(|source| record.holds(source)) {
            self.check_droppable(record, source)?;
            self.take_replica(partition, source);
        }
        let record = self.partition_mut(partition);
        record.movement = None;
        record.version = record.version.next();
        Ok(Applied::Changed)
    }

    pub(super) fn abort_move(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        let Some(movement) = record.movement.clone() else {
            return Err(Rejected::OtherState { partition });
        };
        if record.holds(&movement.target) && !record.in_sync.contains(&movement.target) {
            self.take_replica(partition, &movement.target);
        }
        let record = self.partition_mut(partition);
        record.movement = None;
        record.transfer = None;
        record.version = record.version.next();
        Ok(Applied::Changed)
    }

    pub(super) fn drop_replica(
        &mut self,
        partition: PartitionId,
        version: PartitionVersion,
        node: &NodeId,
    ) -> Result<Applied, Rejected> {
        let record = self.partition_at(partition, version)?;
        if record.movement.is_some() || !record.holds(node) {
            return Err(Rejected::OtherState { partition });
        }
        self.check_droppable(record, node)?;
        self.take_replica(partition, node);
        let record = self.partition_mut(partition);
        record.version = record.version.next();
        Ok(Applied::Changed)
    }

    fn check_droppable(&self, record: &Partition, node: &NodeId) -> Result<(), Rejected> {
        if record.leader.as_ref() == Some(node) || record.transfer.as_ref() == Some(node) {
            return Err(Rejected::OtherState { partition: record.id });
        }
        let left = record.in_sync.iter().filter(|member| *member != node).count();
        let needed = record.min_in_sync.min(self.min_in_sync_wanted());
        let survivor = record.in_sync.iter().any(|member| member != node && self.can_lead(record, member));
        if left < needed as usize || !survivor {
            return Err(Rejected::BelowMinInSync { partition: record.id, min_in_sync: needed });
        }
        Ok(())
    }

    /// Removes the copy on `node`, and with it lowers the minimum where fewer copies are wanted than it is
    /// of: never since there are fewer.
    fn take_replica(&mut self, partition: PartitionId, node: &NodeId) {
        let min_in_sync = self.min_in_sync_wanted();
        let record = self.partition_mut(partition);
        record.replicas.retain(|replica| replica.node != *node);
        record.in_sync.remove(node);
        record.tainted.remove(node);
        record.min_in_sync = record.min_in_sync.min(min_in_sync);
    }
}

// Leaving and configuration.
impl ControlState {
    pub(super) fn drain(&mut self, node: &NodeId) -> Result<Applied, Rejected> {
        let record = self.node_mut(node)?;
        match record.stage {
            Stage::Leaving | Stage::Left => Ok(Applied::Unchanged),
            Stage::Member => {
                record.stage = Stage::Leaving;
                Ok(Applied::Changed)
            }
        }
    }

    pub(super) fn cancel_drain(&mut self, node: &NodeId) -> Result<Applied, Rejected> {
        let record = self.node_mut(node)?;
        match record.stage {
            Stage::Member => Ok(Applied::Unchanged),
            Stage::Left => Err(Rejected::Invalid { reason: InvalidReason::Stage }),
            Stage::Leaving => {
                record.stage = Stage::Member;
                Ok(Applied::Changed)
            }
        }
    }

    pub(super) fn leave(&mut self, node: &NodeId) -> Result<Applied, Rejected> {
        let replicas = self.partitions_of(node).len();
        let record = self.node_mut(node)?;
        if record.stage == Stage::Left {
            return Ok(Applied::Unchanged);
        }
        if record.stage == Stage::Member {
            return Err(Rejected::Invalid { reason: InvalidReason::Stage });
        }
        if replicas > 0 {
            let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
            return Err(Rejected::HoldsReplicas { node: node.clone(), replicas });
        }
        record.stage = Stage::Left;
        Ok(Applied::Changed)
    }

    pub(super) fn remove_node(&mut self, node: &NodeId, force: bool) -> Result<Applied, Rejected> {
        if self.topology.node(node).is_none() {
            return Err(Rejected::UnknownNode { node: node.clone() });
        }
        let held = self.partitions_of(node);
        if !held.is_empty() {
            if !force {
                let replicas = u32::try_from(held.len()).unwrap_or(u32::MAX);
                return Err(Rejected::HoldsReplicas { node: node.clone(), replicas });
            }
            self.check_no_loss(node, &held)?;
        }
        let removed = self.topology.nodes.remove(node).map(|record| record.incarnation);
        self.incarnation_removed = self.incarnation_removed.max(removed.unwrap_or(Incarnation(0)));
        for partition in held {
            self.evict_replica(partition, node);
        }
        Ok(Applied::Changed)
    }

    /// The safety gate of every forced removal: a living replica that has everything must remain.
    fn check_no_loss(&self, node: &NodeId, held: &[PartitionId]) -> Result<(), Rejected> {
        let survives = |record: &Partition| {
            record.in_sync.iter().any(|member| member != node && self.can_lead(record, member))
        };
        let lost = |partition: &&PartitionId| {
            self.topology.partition(**partition).is_some_and(|record| !survives(record))
        };
        let partitions: Vec<_> = held.iter().filter(lost).copied().collect();
        if partitions.is_empty() { Ok(()) } else { Err(Rejected::WouldLoseData { partitions }) }
    }

    fn evict_replica(&mut self, partition: PartitionId, node: &NodeId) {
        self.take_replica(partition, node);
        let record = self.partition_mut(partition);
        // A forced removal may leave fewer in-sync replicas than a majority of the copies: what is
        // left holds everything, so the minimum follows it down.
        let in_sync = u32::try_from(record.in_sync.len()).unwrap_or(u32::MAX);
        record.min_in_sync = record.min_in_sync.min(in_sync).max(1);
        if record.leader.as_ref() == Some(node) {
            record.end_epoch(None);
        }
        record.transfer = record.transfer.take().filter(|target| target != node);
        let touches = |movement: &Move| movement.target == *node || movement.source.as_ref() == Some(node);
        record.movement = record.movement.take().filter(|movement| !touches(movement));
        record.version = record.version.next();
    }

    pub(super) fn set_replication_factor(&mut self, replication_factor: u32) -> Result<Applied, Rejected> {
        let Some(cluster) = &self.topology.cluster else { return Err(Rejected::NotFormed) };
        check_replication_factor(replication_factor).map_err(Rejected::invalid)?;
        if cluster.config.replication_factor == replication_factor {
            return Ok(Applied::Unchanged);
        }
        let mut cluster = cluster.as_ref().clone();
        cluster.config.replication_factor = replication_factor;
        self.topology.cluster = Some(Arc::new(cluster));
        Ok(Applied::Changed)
    }
}

// What several of them need.
impl ControlState {
    /// Rule R4: only who is in sync, untainted and living leads.
    fn can_lead(&self, record: &Partition, node: &NodeId) -> bool {
        record.is_electable(node) && self.topology.is_live(node)
    }

    pub(super) fn partitions_of(&self, node: &NodeId) -> Vec<PartitionId> {
        let held = self.topology.partitions.iter().filter(|record| record.holds(node));
        held.map(|record| record.id).collect()
    }

    /// Runs `change` on each partition that `node` holds; a record moves on when `change` says that
    /// it changed it.
    pub(super) fn change_partitions_of(
        &mut self,
        node: &NodeId,
        change: impl Fn(&mut Partition, &NodeId) -> bool,
    ) {
        for partition in self.partitions_of(node) {
            let mut record = self.topology.partitions[partition.index()].as_ref().clone();
            if change(&mut record, node) {
                record.version = record.version.next();
                self.topology.partitions[partition.index()] = Arc::new(record);
            }
        }
    }
}

/// Whether others than `node` can lead, or it could not itself: the last member that surely has everything stays,
/// even dead. Without it the partition would be led by one that may have lost acknowledged writes.
fn spares(record: &Partition, node: &NodeId) -> bool {
    let others = record.in_sync.iter().filter(|member| *member != node);
    !record.is_electable(node) || others.into_iter().any(|member| record.is_electable(member))
}

/// Takes `node` out of the in-sync set when the set can do without it.
fn shrink(record: &mut Partition, node: &NodeId) -> bool {
    let spare = record.in_sync.len() > record.min_in_sync as usize;
    let removed = spare && record.in_sync.remove(node);
    if removed {
        record.tainted.remove(node);
        lapse(record, node);
    }
    removed
}

/// A node that dies or restarts outside of the in-sync set may miss writes from then on, though it said
/// that it caught up, or is about to: its leader need not wait for it.
fn lapse_outside(record: &mut Partition, node: &NodeId) -> bool {
    let outside = !record.in_sync.contains(node);
    if outside {
        lapse(record, node);
    }
    outside
}

/// What `node` caught up with counts for nothing: from now on it may miss writes.
pub(super) fn lapse(record: &mut Partition, node: &NodeId) {
    if let Some(replica) = record.replicas.iter_mut().find(|replica| replica.node == *node) {
        replica.lapses += 1;
    }
}

/// Takes `node` out of the in-sync set, or marks it as unfit to lead where the set needs it.
pub(super) fn distrust(record: &mut Partition, node: &NodeId) {
    if record.in_sync.contains(node) && !shrink(record, node) {
        record.tainted.insert(node.clone());
    }
}

pub(super) fn install_leader(record: &mut Partition, leader: &NodeId, origin: Origin) {
    // The first leader that a partition ever has begins with nothing.
    record.origin = if record.epoch == Epoch(0) { Origin::First } else { origin };
    record.leader = Some(leader.clone());
    record.epoch = record.epoch.next();
    record.note_epoch();
    record.transfer = None;
    record.version = record.version.next();
}

pub(super) fn node_of(registration: &Registration, incarnation: Incarnation, liveness: Liveness) -> Node {
    Node {
        id: registration.node.clone(),
        store: registration.store,
        boot: registration.boot,
        incarnation,
        node_addr: registration.node_addr.clone(),
        public_addr: registration.public_addr.clone(),
        zone: registration.zone.clone(),
        weight: registration.weight,
        role: registration.role,
        holds_data: registration.holds_data,
        reports_position: registration.reports_position,
        liveness,
        stage: Stage::Member,
        software: registration.software.clone(),
        metadata: registration.metadata.clone(),
    }
}
