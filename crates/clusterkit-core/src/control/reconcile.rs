//! From what is to what should be: which commands bring the cluster closer.
//!
//! Pure: the same state and facts give the same commands. Each step works on the state as the steps
//! before it will have left it, so that one round can fence a dead node and elect in its place.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::command::{Command, InSyncProposal, LivenessChange, MemberStatus};
use super::election::{electors, furthest, is_lost, rank};
use super::state::ControlState;
use crate::handoff;
use crate::id::{Epoch, Incarnation, NodeId, PartitionId, PartitionVersion, ReplicaUid};
use crate::limits::COMMANDS_PER_ROUND_MAX;
use crate::placement::{Budget, MoveReason, PlacementNode, PlacementRow, PlannedMove, Standing, repair};
use crate::topology::{Liveness, Move, Node, Overrun, Partition, Stage};

/// What the controller knows beyond the replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Verdicts of the failure detector that are not recorded yet.
    pub liveness: Vec<LivenessChange>,
    /// Nodes dead for so long that their replicas are to be rebuilt elsewhere.
    pub gone: BTreeSet<NodeId>,
    /// Replicas that have everything their leader has, as they said themselves.
    pub caught_up: BTreeMap<PartitionId, BTreeSet<ReplicaUid>>,
    /// Whether membership has been quiet for long enough to move replicas for balance alone.
    pub settled: bool,
    /// Partitions whose leader takes writes, each with the epoch.
    pub activated: BTreeMap<PartitionId, Epoch>,
    /// Partitions whose leader takes no more writes, since it is to hand over, each with its epoch and
    /// the record that it saw.
    pub sealed: BTreeMap<PartitionId, (Epoch, PartitionVersion)>,
    /// Stages that cannot be done where they are to be done.
    pub declined: Vec<Declined>,
    /// Replicas that declined lately to come where they were to come.
    pub targets_avoided: BTreeSet<(PartitionId, NodeId)>,
    /// Replicas that declined lately to lead.
    pub leaders_avoided: BTreeSet<(PartitionId, NodeId)>,
    /// Partitions whose leader declined lately to hand over.
    pub handovers_avoided: BTreeSet<PartitionId>,
    /// Replicas that their nodes found damaged, each with the run that did.
    pub damaged: BTreeMap<(PartitionId, NodeId), Incarnation>,
    /// Partitions whose leader cannot get on, each with its epoch, and none of which was relieved lately.
    pub stalled: BTreeMap<PartitionId, Epoch>,
    /// Who gave up, or was relieved of, the leadership of a partition lately: it leads again only where
    /// nobody else can.
    pub relieved: BTreeMap<PartitionId, NodeId>,
    /// Moves that wait for a dead target, or for a leader, for too long.
    pub stranded: BTreeSet<PartitionId>,
    /// What the candidates of leaderless partitions said of themselves.
    pub ballots: BTreeMap<PartitionId, Ballot>,
    /// Stages that are late, and `None` where none is any more.
    pub overruns: BTreeMap<PartitionId, Option<Overrun>>,
}

/// What the candidates of a leaderless partition said of themselves, each at most once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ballot {
    /// The epoch that ended, and in which they were asked.
    pub epoch: Epoch,
    /// What those said that answered in time.
    pub statuses: BTreeMap<NodeId, MemberStatus>,
}

impl Ballot {
    fn is_damaged(&self, node: &NodeId) -> bool {
        let position = self.statuses.get(node).and_then(|status| status.position);
        position.is_some_and(|position| position.damaged)
    }
}

impl Facts {
    /// What is known of a cluster in which every hook of every living node is done at once: for
    /// rehearsals.
    #[must_use]
    pub fn all_done(state: &ControlState) -> Self {
        let topology = &state.topology;
        let records = || topology.partitions.iter();
        let ready = |record: &Partition| -> BTreeSet<_> {
            let live = record.replicas.iter().filter(|replica| topology.is_live(&replica.node));
            live.map(|replica| replica.uid).collect()
        };
        let led = || records().filter(|record| record.leader.is_some());
        let handing_over = led().filter(|record| record.transfer.is_some());
        Self {
            caught_up: led().map(|record| (record.id, ready(record))).collect(),
            activated: led().map(|record| (record.id, record.epoch)).collect(),
            sealed: handing_over.map(|record| (record.id, (record.epoch, record.version))).collect(),
            ..Self::default()
        }
    }
}

/// A stage that a node cannot do, or not in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// Which partition.
    pub partition: PartitionId,
    /// Which node.
    pub node: NodeId,
    /// Which stage.
    pub stage: handoff::Stage,
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The record it is about.
    pub version: PartitionVersion,
}

/// How much may go on at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Replica moves under way in the whole cluster, default 64.
    pub moves_max: u32,
    /// Leadership transfers under way in the whole cluster, default 64.
    pub transfers_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { moves_max: 64, transfers_max: 64 }
    }
}

/// The commands that the controller wants next, in order, at most [`COMMANDS_PER_ROUND_MAX`]. Empty
/// when the cluster is as it should be or can only be waited for.
#[must_use]
pub fn reconcile(state: &ControlState, facts: &Facts, limits: Limits) -> Vec<Command> {
    if state.topology.cluster.is_none() {
        return Vec::new();
    }
    let relieved = facts.relieved.clone();
    let mut round = Round { state: state.clone(), commands: Vec::new(), relieved, facts, limits };
    round.record_liveness();
    round.roll_back();
    round.renew_damaged();
    round.relieve_stalled();
    round.taint_damaged();
    round.elect_leaders();
    round.extend_in_sync();
    round.hand_over();
    round.advance_moves();
    round.cancel_dead_transfers();
    round.plan_moves();
    round.let_drained_leave();
    round.name_overruns();
    round.commands
}

/// One round: the state as it will be, and the commands that make it so.
struct Round<'a> {
    state: ControlState,
    commands: Vec<Command>,
    /// With those who are relieved in this round.
    relieved: BTreeMap<PartitionId, NodeId>,
    facts: &'a Facts,
    limits: Limits,
}

impl Round<'_> {
    /// Takes `command` up when the state as it will be accepts it, or changes by refusing it: a handoff that
    /// nobody can follow lets its sender go on.
    fn want(&mut self, command: Command) {
        if self.commands.len() == COMMANDS_PER_ROUND_MAX {
            return;
        }
        let before = self.state.topology.version;
        if self.state.apply(&command).is_ok() || self.state.topology.version != before {
            self.commands.push(command);
        }
    }

    fn record_liveness(&mut self) {
        if !self.facts.liveness.is_empty() {
            self.want(Command::SetLiveness { changes: self.facts.liveness.clone() });
        }
    }

    fn elect_leaders(&mut self) {
        let mut led = self.leader_counts();
        for partition in self.partitions(|record| record.leader.is_none() && !record.replicas.is_empty()) {
            let record = self.record(partition);
            let version = record.version;
            match self.choose(&record, &led) {
                Choice::Elect { leader, by_position } => {
                    *led.entry(leader.clone()).or_default() += 1;
                    self.want(Command::Elect { partition, version, leader, by_position });
                }
                Choice::LastResort { leader, statuses } => {
                    self.want(Command::ElectUnclean { partition, version, leader, statuses });
                }
                Choice::Wait => {}
            }
        }
    }

    /// Who is to lead a partition that has no leader: whoever was relieved of it lately only where nobody
    /// else can.
    fn choose(&self, record: &Partition, led: &BTreeMap<NodeId, u32>) -> Choice {
        let topology = &self.state.topology;
        let ballot = self.facts.ballots.get(&record.id).filter(|ballot| ballot.epoch == record.epoch);
        if ballot.is_none() && !electors(topology, record).is_empty() {
            return Choice::Wait;
        }
        let none = Ballot::default();
        let ballot = ballot.unwrap_or(&none);
        if is_lost(topology, record) {
            return self.last_resort(record, ballot).unwrap_or(Choice::Wait);
        }
        let can_lead = |node: &&NodeId| self.can_lead(record, node) && !ballot.is_damaged(node);
        let candidates: BTreeSet<_> = record.in_sync.iter().filter(can_lead).collect();
        let relieved = self.relieved.get(&record.id);
        let others = candidates.iter().copied().filter(|node| Some(*node) != relieved).collect();
        let choice = self.elect_of(record, ballot, &others, led);
        choice.or_else(|| self.elect_of(record, ballot, &candidates, led)).unwrap_or(Choice::Wait)
    }

    /// Rule F2: the candidate that said that it has the most, or else one that said nothing.
    fn elect_of(
        &self,
        record: &Partition,
        ballot: &Ballot,
        candidates: &BTreeSet<&NodeId>,
        led: &BTreeMap<NodeId, u32>,
    ) -> Option<Choice> {
        let has_said = |(node, status): &(&NodeId, &MemberStatus)| {
            candidates.contains(*node) && status.position.is_some()
        };
        let said = ballot.statuses.iter().filter(has_said);
        let said = said.map(|(node, status)| (node.clone(), *status)).collect();
        if let Some(leader) = furthest(&said).cloned() {
            return Some(Choice::Elect { leader, by_position: true });
        }
        let leader = self.best_candidate(record, candidates, led)?;
        Some(Choice::Elect { leader, by_position: false })
    }

    /// The candidate on the node that leads least; one that stays before one that drains.
    fn best_candidate(
        &self,
        record: &Partition,
        candidates: &BTreeSet<&NodeId>,
        led: &BTreeMap<NodeId, u32>,
    ) -> Option<NodeId> {
        let nodes = &self.state.topology;
        let cost = |node: &&NodeId| {
            let leaving = nodes.node(node).is_some_and(|node| node.stage == Stage::Leaving);
            (
                leaving,
                led.get(*node).copied().unwrap_or(0),
                record.replicas.iter().position(|r| r.node == **node),
            )
        };
        candidates.iter().copied().min_by_key(cost).cloned()
    }

    /// Rule F5: whoever has the most, once every member that can has said what it has.
    fn last_resort(&self, record: &Partition, ballot: &Ballot) -> Option<Choice> {
        let status = |node: &NodeId| {
            let known = self.state.topology.node(node)?;
            let said = ballot.statuses.get(node).filter(|said| said.incarnation == known.incarnation);
            let cannot_say = MemberStatus { incarnation: known.incarnation, position: None };
            said.copied().or((!known.reports_position).then_some(cannot_say))
        };
        let statuses = record.in_sync.iter().map(|node| Some((node.clone(), status(node)?)));
        let statuses: BTreeMap<_, _> = statuses.collect::<Option<_>>()?;
        let leader = furthest(&statuses)?.clone();
        Some(Choice::LastResort { leader, statuses })
    }

    /// Rule F2: members that say that they are damaged are no candidates. Those that have the least leave
    /// first, so that the ones that the set needs are those that have the most.
    fn taint_damaged(&mut self) {
        for (&partition, ballot) in &self.facts.ballots {
            let Some(record) = self.state.topology.partition(partition) else { continue };
            if record.leader.is_some() || record.epoch != ballot.epoch {
                continue;
            }
            let is_damaged =
                |(node, _): &(&NodeId, &MemberStatus)| record.is_electable(node) && ballot.is_damaged(node);
            let mut damaged: Vec<_> = ballot.statuses.iter().filter(is_damaged).collect();
            damaged.sort_by_key(|(_, status)| status.position.map(rank));
            for (node, status) in damaged {
                let version = self.record(partition).version;
                let (node, incarnation) = (node.clone(), status.incarnation);
                self.want(Command::Taint { partition, version, node, incarnation });
            }
        }
    }

    /// Rule D2.
    fn renew_damaged(&mut self) {
        for ((partition, node), &incarnation) in &self.facts.damaged {
            let Some(record) = self.state.topology.partition(*partition) else { continue };
            let (partition, version, node) = (*partition, record.version, node.clone());
            self.want(Command::RenewReplica { partition, version, node, incarnation });
        }
    }

    /// Rules S2 and S3: replicas that caught up are added, and in the same step dead members that
    /// the set could not do without go.
    fn extend_in_sync(&mut self) {
        let candidates: Vec<_> = self.facts.caught_up.keys().copied().collect();
        for partition in candidates {
            if let Some(proposal) = self.in_sync_proposal(partition) {
                self.want(Command::SetInSync(proposal));
            }
        }
    }

    fn in_sync_proposal(&self, partition: PartitionId) -> Option<InSyncProposal> {
        let record = self.state.topology.partition(partition)?;
        let leader = self.state.topology.node(record.leader.as_ref()?)?;
        let ready = self.facts.caught_up.get(&partition)?;
        let fits = |node: &NodeId| {
            (!record.in_sync.contains(node) || record.tainted.contains(node))
                && self.state.topology.is_live(node)
        };
        let ready_nodes =
            record.replicas.iter().filter(|replica| ready.contains(&replica.uid) && fits(&replica.node));
        let added: BTreeMap<_, _> = ready_nodes
            .filter_map(|replica| self.state.topology.node(&replica.node))
            .map(|node| (node.id.clone(), node.incarnation))
            .collect();
        if added.is_empty() {
            return None;
        }
        let mut in_sync: BTreeSet<_> = record.in_sync.iter().chain(added.keys()).cloned().collect();
        let dead: Vec<_> =
            in_sync.iter().filter(|node| !self.state.topology.is_live(node)).cloned().collect();
        for node in dead.iter().take(in_sync.len().saturating_sub(record.min_in_sync as usize)) {
            in_sync.remove(node);
        }
        Some(InSyncProposal {
            partition,
            version: record.version,
            epoch: record.epoch,
            leader: leader.id.clone(),
            leader_incarnation: leader.incarnation,
            in_sync,
            added,
        })
    }

    /// Rule M4: the leader stopped, and its target has everything.
    fn hand_over(&mut self) {
        for (partition, (epoch, version)) in &self.facts.sealed {
            let Some(from) =
                self.state.topology.partition(*partition).and_then(|record| record.leader.clone())
            else {
                continue;
            };
            let (partition, epoch, version) = (*partition, *epoch, *version);
            self.want(Command::Handoff { partition, version, epoch, from, log_end: 0 });
        }
    }

    /// What cannot be done where it is to be done is undone: the replica does not come, the leader
    /// goes on, or gives up.
    fn roll_back(&mut self) {
        for declined in &self.facts.declined {
            let Some(record) = self.state.topology.partition(declined.partition) else { continue };
            let (partition, version) = (declined.partition, record.version);
            match declined.stage {
                handoff::Stage::Prepare | handoff::Stage::CatchUp => {
                    self.want(Command::AbortMove { partition, version });
                }
                handoff::Stage::Seal if version == declined.version => {
                    self.want(Command::CancelTransfer { partition, version });
                }
                handoff::Stage::Activate => {
                    self.want(Command::Revoke { partition, version, epoch: declined.epoch });
                }
                handoff::Stage::Seal | handoff::Stage::Release => {}
            }
        }
    }

    /// Rule F6: a leader that cannot get on goes, where another can lead.
    fn relieve_stalled(&mut self) {
        for (&partition, &epoch) in &self.facts.stalled {
            let Some(record) = self.state.topology.partition(partition) else { continue };
            let Some(leader) = &record.leader else { continue };
            let version = record.version;
            if record.in_sync.iter().any(|node| node != leader && self.can_lead(record, node)) {
                self.relieved.insert(partition, leader.clone());
                self.want(Command::Revoke { partition, version, epoch });
            }
        }
    }

    /// What is late is named in the record, so that every node can show it; a node that is not there
    /// any more is late with nothing.
    fn name_overruns(&mut self) {
        let named = |record: &Partition| {
            record.overrun.as_ref().is_some_and(|overrun| !self.state.topology.is_live(&overrun.node))
        };
        let orphaned: Vec<_> =
            self.partitions(named).into_iter().map(|partition| (partition, None)).collect();
        for (partition, overrun) in orphaned.into_iter().chain(self.facts.overruns.clone()) {
            let Some(record) = self.state.topology.partition(partition) else { continue };
            let version = record.version;
            if record.overrun != overrun {
                self.want(Command::NameOverrun { partition, version, overrun });
            }
        }
    }

    fn advance_moves(&mut self) {
        for partition in self.partitions(|record| record.movement.is_some()) {
            let record = self.record(partition);
            if let Some(command) = self.next_of_move(&record) {
                self.want(command);
            }
        }
    }

    fn next_of_move(&self, record: &Partition) -> Option<Command> {
        let movement = record.movement.as_ref()?;
        let (partition, version) = (record.id, record.version);
        if !record.in_sync.contains(&movement.target) {
            let hopeless = self.facts.stranded.contains(&partition) || self.is_hopeless(&movement.target);
            return hopeless.then_some(Command::AbortMove { partition, version });
        }
        record.leader.as_ref()?;
        if record.leader != movement.source {
            return self.is_served(record).then_some(Command::FinishMove { partition, version });
        }
        let target = self.successor(record, &movement.target)?;
        let idle = record.transfer.is_none() && !self.facts.handovers_avoided.contains(&partition);
        idle.then_some(Command::BeginTransfer { partition, version, target })
    }

    /// Whether whoever leads has said that it serves. A copy stays until then: nothing is dropped before it
    /// is replaced, nor while somebody else may have to lead.
    fn is_served(&self, record: &Partition) -> bool {
        record.leader.is_some() && self.facts.activated.get(&record.id) == Some(&record.epoch)
    }

    /// Who takes over from the leader that a move drops: the move's target, or another follower
    /// when the target cannot.
    fn successor(&self, record: &Partition, target: &NodeId) -> Option<NodeId> {
        if self.can_lead(record, target) {
            return Some(target.clone());
        }
        self.other_follower(record)
    }

    /// Whether `node` holds everything, lives, and did not lately refuse to lead.
    fn can_lead(&self, record: &Partition, node: &NodeId) -> bool {
        let avoided = self.facts.leaders_avoided.contains(&(record.id, node.clone()));
        record.is_electable(node) && self.state.topology.is_live(node) && !avoided
    }

    /// Whether a move to `target` has nothing to wait for.
    fn is_hopeless(&self, target: &NodeId) -> bool {
        self.facts.gone.contains(target)
            || self.state.topology.node(target).is_none_or(|node| !node.is_placement_target())
    }

    /// A leader that is asked to hand over to a replica that fell out goes on leading.
    fn cancel_dead_transfers(&mut self) {
        let lost =
            |record: &Partition| record.transfer.as_ref().is_some_and(|target| !record.is_electable(target));
        for partition in self.partitions(lost) {
            let version = self.record(partition).version;
            self.want(Command::CancelTransfer { partition, version });
        }
    }

    fn plan_moves(&mut self) {
        let moving = self.count(|record| record.movement.is_some());
        let transferring = self.count(|record| record.transfer.is_some());
        let budget = Budget {
            moves_max: self.limits.moves_max.saturating_sub(moving),
            leader_moves_max: self.limits.transfers_max.saturating_sub(transferring),
        };
        let nodes = placement_nodes(&self.state, &self.facts.gone);
        let copies_wanted = self.state.topology.replication_factor_effective();
        let mut avoided = Avoided::new();
        for (partition, node) in &self.facts.targets_avoided {
            avoided.entry(*partition).or_default().insert(node.clone());
        }
        let records = self.state.topology.partitions.iter();
        let rows: Vec<_> = records.map(|record| self.row(record, copies_wanted, &avoided)).collect();
        let plan = repair(&rows, &nodes, copies_wanted, budget);
        for planned in plan.moves {
            self.plan_move(&planned);
        }
        for planned in plan.leader_moves {
            let leaving =
                self.state.topology.node(&planned.from).is_some_and(|node| node.stage != Stage::Member);
            if self.facts.settled || leaving {
                self.transfer(planned.partition, planned.to);
            }
        }
    }

    fn plan_move(&mut self, planned: &PlannedMove) {
        if planned.reason == MoveReason::Balance && !self.facts.settled {
            return;
        }
        let partition = planned.partition;
        let record = self.record(partition);
        let version = record.version;
        match (&planned.source, &planned.target) {
            (source, Some(target)) => {
                let movement = Move { source: source.clone(), target: target.clone() };
                self.want(Command::StartMove { partition, version, movement });
            }
            (Some(source), None) if record.leader.as_ref() == Some(source) => {
                if let Some(target) = self.successor(&record, source).filter(|node| node != source) {
                    self.transfer(partition, target);
                } else if let Some(other) = self.other_follower(&record) {
                    self.transfer(partition, other);
                }
            }
            (Some(source), None) if self.is_served(&record) => {
                self.want(Command::DropReplica { partition, version, node: source.clone() });
            }
            (_, None) => {}
        }
    }

    fn other_follower(&self, record: &Partition) -> Option<NodeId> {
        record.followers().find(|node| self.can_lead(record, node)).cloned()
    }

    fn transfer(&mut self, partition: PartitionId, target: NodeId) {
        let record = self.record(partition);
        if self.facts.handovers_avoided.contains(&partition) || !self.can_lead(&record, &target) {
            return;
        }
        let version = record.version;
        self.want(Command::BeginTransfer { partition, version, target });
    }

    fn let_drained_leave(&mut self) {
        let leaving = self.state.topology.nodes.values().filter(|node| node.stage == Stage::Leaving);
        let leaving: Vec<_> = leaving.map(|node| node.id.clone()).collect();
        for node in leaving {
            let holds = self.state.topology.partitions.iter().any(|record| record.holds(&node));
            if !holds {
                self.want(Command::Leave { node });
            }
        }
    }

    /// What refused lately is no choice, so that nothing is planned, and counted, that is not begun.
    fn row(&self, record: &Partition, copies_wanted: u32, avoided: &Avoided) -> PlacementRow {
        PlacementRow {
            replicas: record.replicas.iter().map(|replica| replica.node.clone()).collect(),
            leader: record.leader.clone(),
            electable: self.heirs(record),
            busy: record.movement.as_ref().map(|movement| (movement.source.clone(), movement.target.clone())),
            avoided: avoided.get(&record.id).cloned().unwrap_or_default(),
            pinned: record.replicas.len() > copies_wanted as usize && !self.is_served(record),
        }
    }

    /// The replicas to which the lead may go.
    fn heirs(&self, record: &Partition) -> BTreeSet<NodeId> {
        if self.facts.handovers_avoided.contains(&record.id) {
            return BTreeSet::new();
        }
        record.in_sync.iter().filter(|node| self.can_lead(record, node)).cloned().collect()
    }

    fn record(&self, partition: PartitionId) -> Partition {
        self.state.topology.partitions[partition.index()].as_ref().clone()
    }

    fn partitions(&self, wanted: impl Fn(&Partition) -> bool) -> Vec<PartitionId> {
        self.state
            .topology
            .partitions
            .iter()
            .filter(|record| wanted(record))
            .map(|record| record.id)
            .collect()
    }

    fn count(&self, wanted: impl Fn(&Partition) -> bool) -> u32 {
        u32::try_from(self.partitions(wanted).len()).unwrap_or(u32::MAX)
    }

    fn leader_counts(&self) -> BTreeMap<NodeId, u32> {
        let mut led = BTreeMap::new();
        for leader in self.state.topology.partitions.iter().filter_map(|record| record.leader.as_ref()) {
            *led.entry(leader.clone()).or_default() += 1;
        }
        led
    }
}

/// The nodes that get no copy of a partition for now.
type Avoided = BTreeMap<PartitionId, BTreeSet<NodeId>>;

/// Who is to lead.
enum Choice {
    Elect { leader: NodeId, by_position: bool },
    LastResort { leader: NodeId, statuses: BTreeMap<NodeId, MemberStatus> },
    Wait,
}

/// The nodes as placement sees them: who takes, who keeps, who gives away.
pub(super) fn placement_nodes(state: &ControlState, gone: &BTreeSet<NodeId>) -> Vec<PlacementNode> {
    let data_nodes =
        state.topology.nodes.values().filter(|node| node.holds_data && node.stage != Stage::Left);
    data_nodes
        .map(|node| PlacementNode {
            id: node.id.clone(),
            weight: node.weight,
            zone: node.zone.clone(),
            capacity: None,
            standing: standing(node, gone),
        })
        .collect()
}

fn standing(node: &Node, gone: &BTreeSet<NodeId>) -> Standing {
    if node.stage == Stage::Leaving || gone.contains(&node.id) {
        return Standing::Leave;
    }
    match node.liveness {
        Liveness::Alive => Standing::Target,
        Liveness::Joining | Liveness::Suspect | Liveness::Dead => Standing::Keep,
    }
}
