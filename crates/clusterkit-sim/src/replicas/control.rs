//! The control plane: one log of commands, applied in order by the production state, and the topologies that come
//! of it, on their way to the nodes.

use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::{Applied, Command, ControlState, InSyncProposal};
use clusterkit_core::id::{ClusterId, Incarnation, PartitionId};
use clusterkit_core::replica::Wish;
use clusterkit_core::topology::{Cluster, ClusterConfig, Topology};

use super::coverage::Step;
use super::faults::Kind;
use super::network::CONTROL;
use super::node::index;
use super::store::Store;
use super::world::{Event, World};

/// How often topologies that got lost are sent again.
const PUBLISH_PAUSE: Duration = Duration::from_millis(500);
/// How often a node that is not registered asks again.
const REGISTER_PAUSE: Duration = Duration::from_millis(400);

/// The log of the control plane, applied.
#[derive(Debug, Default)]
pub(super) struct Control {
    pub(super) state: ControlState,
    pub(super) topology: Arc<Topology>,
}

impl World {
    pub(super) fn form(&mut self) {
        let config = ClusterConfig {
            partition_count: self.settings.partitions,
            replication_factor: self.settings.copies,
            ..ClusterConfig::default()
        };
        let cluster = Cluster { id: ClusterId(1), name: "simulated".to_owned(), config };
        let members = self.nodes.iter().enumerate().map(|(index, node)| node.registration(index)).collect();
        let command = Command::form_cluster(cluster, members).expect("the settings are within the limits");
        self.write_commands(&[command]);
    }

    /// Commands are in the log: each takes effect or is refused.
    pub(super) fn write_commands(&mut self, commands: &[Command]) {
        for command in commands {
            self.write_command(command);
        }
    }

    /// The only place where the state changes.
    fn write_command(&mut self, command: &Command) -> Option<Applied> {
        let before = Arc::clone(&self.control.topology);
        let outcome = self.control.state.apply(command);
        if self.trace.is_kept() {
            self.tell(partition_of(command), || format!("control {command:?}: {outcome:?}"));
        }
        if self.control.state.topology.version != before.version {
            self.control.topology = Arc::new(self.control.state.topology.clone());
            self.check_command(&before, command);
            self.publish();
        }
        self.cover_command(command, outcome.is_ok());
        outcome.ok()
    }

    fn cover_command(&mut self, command: &Command, accepted: bool) {
        let step = match command {
            _ if !accepted => Step::Refused,
            Command::Elect { .. } => Step::Elect,
            Command::ElectUnclean { .. } => Step::ElectUnclean,
            Command::SetInSync(_) => Step::SetInSync,
            Command::StartMove { .. } | Command::FinishMove { .. } | Command::AbortMove { .. } => Step::Move,
            Command::BeginTransfer { .. } | Command::CancelTransfer { .. } => Step::Transfer,
            Command::Handoff { .. } => Step::Handoff,
            Command::RenewReplica { .. } | Command::Taint { .. } => Step::Renew,
            Command::Resign { .. } => Step::Resign,
            Command::Revoke { .. } => Step::Revoke,
            Command::DropReplica { .. } => Step::Drop,
            Command::SetLiveness { .. } => Step::Liveness,
            _ => return,
        };
        self.cover(step);
    }

    /// Commands are on their way to the log.
    pub(super) fn propose_commands(&mut self, commands: Vec<Command>) {
        if self.quiet {
            return self.after(Duration::from_millis(5), Event::Command(commands));
        }
        if self.chance.permille(self.settings.control_loss) {
            match self.chance.below(3) {
                0 => return,
                1 => {
                    let delay = self.chance.millis(100, 3_000);
                    self.after(delay, Event::Command(commands.clone()));
                }
                _ => {
                    let delay = self.chance.millis(100, 3_000);
                    return self.after(delay, Event::Command(commands));
                }
            }
        }
        let delay = self.chance.millis(1, 20);
        self.after(delay, Event::Command(commands));
    }

    /// A node registers.
    pub(super) fn register(&mut self, node: usize, run: u64) {
        if !self.nodes[node].runs(run) || self.nodes[node].replicas().is_some() {
            return;
        }
        self.after(REGISTER_PAUSE, Event::Register { node, run });
        if !self.is_reachable(node) || !self.controller.is_seated() {
            return;
        }
        let registration = self.nodes[node].registration(node);
        let outcome = self.write_command(&Command::RegisterNode { registration, replace: true });
        if let Some(Applied::Registered { incarnation }) = outcome {
            self.note_registered(node);
            self.send_registered(node, run, incarnation);
        }
    }

    fn send_registered(&mut self, node: usize, run: u64, incarnation: Incarnation) {
        for delay in self.network.arrivals(&mut self.chance, self.now, (CONTROL, node)).into_iter().flatten()
        {
            self.after(delay, Event::Registered { node, run, incarnation });
        }
    }

    fn is_reachable(&self, node: usize) -> bool {
        self.network.is_open(self.now, node, CONTROL) && self.network.is_open(self.now, CONTROL, node)
    }
}

// Topologies.
impl World {
    /// Every node learns of the newest version, each after a while of its own, or not.
    pub(super) fn publish(&mut self) {
        for node in 0..self.nodes.len() {
            if self.quiet || !self.chance.permille(self.settings.control_loss) {
                self.show_topology(node);
            }
        }
    }

    pub(super) fn publish_again(&mut self) {
        self.after(PUBLISH_PAUSE, Event::Publish);
        for node in 0..self.nodes.len() {
            let known = self.nodes[node].replicas().map(|replicas| replicas.topology().version);
            if known.is_some_and(|known| known < self.control.topology.version) {
                self.show_topology(node);
            }
            self.find_damage(node);
        }
    }

    /// Damage that was not found at the start is found now, and what is found is said until the record shows it.
    fn find_damage(&mut self, node: usize) {
        let broken = |store: &Store| store.damaged;
        let keys: Vec<_> =
            self.nodes[node].disk.stores().filter(|(_, store)| broken(store)).map(|(key, _)| *key).collect();
        for key in keys {
            let is_known = self.status(node, key.partition).is_some_and(|status| status.damaged);
            if !is_known && (self.quiet || self.chance.permille(300)) {
                self.act(node, Some(key.partition), |replicas, now, wall_ms| {
                    replicas.handle_damage(now, wall_ms, key);
                });
            }
        }
        for partition in (0..self.settings.partitions).map(PartitionId) {
            if self.status(node, partition).is_some_and(|status| status.damaged) && self.is_reachable(node) {
                self.renew_damaged(node, partition);
            }
        }
    }

    fn renew_damaged(&mut self, node: usize, partition: PartitionId) {
        let Some(process) = self.nodes[node].process.as_ref() else { return };
        let (incarnation, node) = (process.incarnation, self.nodes[node].name.clone());
        let Some(version) = self.control.topology.partition(partition).map(|record| record.version) else {
            return;
        };
        self.propose_commands(vec![Command::RenewReplica { partition, version, node, incarnation }]);
    }

    pub(super) fn show_topology(&mut self, node: usize) {
        if self.nodes[node].replicas().is_none() {
            return;
        }
        let lag_max = if self.chance_of_lag() { 400 } else { 8 };
        let lag = self.chance.millis(0, lag_max);
        for delay in self.network.arrivals(&mut self.chance, self.now, (CONTROL, node)).into_iter().flatten()
        {
            let topology = Arc::clone(&self.control.topology);
            self.after(delay + lag, Event::Topology { node, topology });
        }
    }

    fn chance_of_lag(&mut self) -> bool {
        let permille = self.settings.control_loss;
        !self.quiet && self.chance.permille(permille * 2)
    }
}

// Wishes.
impl World {
    pub(super) fn send_wish(&mut self, from: usize, wish: &Wish) {
        if self.trace.is_kept() {
            self.tell(Some(partition_wished(wish)), || format!("n{from} wishes {wish:?}"));
        }
        self.cover(Step::Wish);
        for delay in self.network.arrivals(&mut self.chance, self.now, (from, CONTROL)).into_iter().flatten()
        {
            self.after(delay, Event::Wish { from, wish: wish.clone() });
        }
    }

    pub(super) fn hear_wish(&mut self, from: usize, wish: &Wish) {
        if !self.controller.is_seated() {
            return;
        }
        let node = self.nodes[from].name.clone();
        let command = match wish.clone() {
            Wish::Handoff { partition, version, epoch, log_end } => {
                self.deafen(from);
                Command::Handoff { partition, version, epoch, from: node, log_end }
            }
            Wish::Resign { partition, version, epoch } => Command::Resign { partition, version, epoch, node },
            Wish::SetInSync(proposal) => {
                self.usurp_proposer(from, &proposal);
                Command::SetInSync(proposal)
            }
            Wish::Stalled { partition, version, epoch } => {
                return self.hear_stalled(from, partition, (version, epoch));
            }
        };
        self.propose_commands(vec![command]);
    }
}

impl World {
    /// A leader that proposed a member is replaced before it knows what came of that, and before the member has
    /// promised it anything.
    fn usurp_proposer(&mut self, node: usize, proposal: &InSyncProposal) {
        let is_on = !self.quiet && self.settings.faults.contains(&Kind::Usurp);
        if !is_on || proposal.added.is_empty() || !self.chance.permille(150) {
            return;
        }
        let until = self.now + self.chance.millis(200, 1_500);
        self.network.block(CONTROL, node, until);
        proposal.added.keys().for_each(|member| self.network.block(node, index(member), until));
        self.declare_dead(node);
    }

    /// A leader that hands over hears nothing of what comes of it for a while, and may be slow to be heard.
    fn deafen(&mut self, node: usize) {
        if !self.quiet && self.settings.faults.contains(&Kind::Transfer) && self.chance.permille(200) {
            let lasts = self.chance.millis(50, 1_500);
            self.network.block(CONTROL, node, self.now + lasts);
        }
    }
}

fn partition_wished(wish: &Wish) -> PartitionId {
    match wish {
        Wish::Handoff { partition, .. }
        | Wish::Resign { partition, .. }
        | Wish::Stalled { partition, .. } => *partition,
        Wish::SetInSync(proposal) => proposal.partition,
    }
}

/// What partition a command is about, if it is about one.
pub(super) fn partition_of(command: &Command) -> Option<PartitionId> {
    match command {
        Command::Elect { partition, .. }
        | Command::ElectUnclean { partition, .. }
        | Command::StartMove { partition, .. }
        | Command::FinishMove { partition, .. }
        | Command::AbortMove { partition, .. }
        | Command::BeginTransfer { partition, .. }
        | Command::CancelTransfer { partition, .. }
        | Command::Handoff { partition, .. }
        | Command::DropReplica { partition, .. }
        | Command::RenewReplica { partition, .. }
        | Command::Resign { partition, .. }
        | Command::Revoke { partition, .. }
        | Command::Taint { partition, .. }
        | Command::NameOverrun { partition, .. } => Some(*partition),
        Command::SetInSync(proposal) => Some(proposal.partition),
        _ => None,
    }
}
