//! The state of a world: control plane, nodes, replicas, leaders, messages, and what only the checks know.

use super::limits::{NODES_MAX, PARTITIONS, RATE, TOPOLOGIES_KEPT, TOPOLOGY_MAX};
use super::message::{Bag, Message};
use super::record::{ROOT, Records};
use super::rules::{Invariant, Rule, Without};
use super::set::Set;

/// No node: of a partition without leader or target.
pub(crate) const NONE: u8 = u8::MAX;

/// How an epoch began, which decides whom a new leader owes a wait (L3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) enum Cause {
    #[default]
    Election,
    Handoff,
    /// By the Stop of this node.
    Stop(u8),
}

/// The control plane's record of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Configuration {
    pub(crate) version: u8,
    pub(crate) epoch: u8,
    pub(crate) leader: u8,
    /// Who led last; only a model without [`Rule::WaitForAllPromises`] looks at it.
    pub(crate) predecessor: u8,
    pub(crate) cause: Cause,
    pub(crate) replicas: Set,
    pub(crate) in_sync: Set,
    pub(crate) tainted: Set,
    pub(crate) target: u8,
    pub(crate) uid: [u8; NODES_MAX],
}

impl Configuration {
    pub(crate) fn electable(&self) -> Set {
        self.in_sync.minus(self.tainted)
    }

    pub(crate) fn is_led_by(&self, node: usize) -> bool {
        usize::from(self.leader) == node
    }
}

/// One version of the control plane's state, as nodes adopt it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Topology {
    pub(crate) partitions: [Configuration; PARTITIONS],
    pub(crate) inc: [u8; NODES_MAX],
    pub(crate) live: Set,
}

/// A node: what it holds in memory, and whether it runs at all.
#[derive(Debug, Clone, Copy, Hash)]
pub(crate) struct Node {
    pub(crate) is_up: bool,
    pub(crate) is_paused: bool,
    /// This run's incarnation, 0 until it is registered.
    pub(crate) inc: u8,
    /// Whether it may have lost acknowledged records since it registered last.
    pub(crate) has_lost: bool,
    /// Its wall clock, which may jump.
    pub(crate) wall: u8,
    /// What it counts in a unit of true time.
    pub(crate) rate: u8,
    /// The version of `topology`, except where a model without [`Rule::AdoptAtOnce`] mixes two.
    pub(crate) adopted: u8,
    pub(crate) topology: Topology,
    /// Until when, by its own clock, it promised to support each node.
    pub(crate) promised: [u32; NODES_MAX],
    /// The run of that node to which it promised.
    pub(crate) promised_inc: [u8; NODES_MAX],
    /// Until when, by its own clock, each node supports it.
    pub(crate) support: [u32; NODES_MAX],
}

/// A copy of a partition on a node's disk, with what its run remembers of it.
#[derive(Debug, Clone, Copy, Default, Hash)]
pub(crate) struct Replica {
    /// Whose copy it is, 0 if there is none.
    pub(crate) uid: u8,
    pub(crate) tip: u16,
    pub(crate) commit: u8,
    /// How far the node takes its log for durable.
    pub(crate) durable: u8,
    /// How far a power cut leaves it.
    pub(crate) on_disk: u8,
    /// The commit that it noted on disk.
    pub(crate) mark: u8,
    pub(crate) log_start: u8,
    /// From where on its table of the clients' writes knows them; 0 but in broken models.
    pub(crate) sessions_from: u8,
    /// Whether it accepted records in this epoch and run.
    pub(crate) is_streaming: bool,
    pub(crate) is_damaged: bool,
}

/// A proposal that was sent; `version` 0 stands for none.
#[derive(Debug, Clone, Copy, Default, Hash)]
pub(crate) struct Proposal {
    pub(crate) version: u8,
    pub(crate) in_sync: Set,
    pub(crate) message: Message,
}

/// Why a leader keeps still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) enum Silence {
    #[default]
    None,
    Handoff,
    Stop,
}

/// What a leader knows as long as it leads.
#[derive(Debug, Clone, Copy, Default, Hash)]
pub(crate) struct Leader {
    pub(crate) epoch_start: u8,
    pub(crate) attached: Set,
    pub(crate) matched: [u8; NODES_MAX],
    /// How far each follower was sent records; more may be under way than is acknowledged.
    pub(crate) sent: [u8; NODES_MAX],
    pub(crate) matched_inc: [u8; NODES_MAX],
    pub(crate) proposal: Proposal,
    pub(crate) silence: Silence,
    /// The Handoff or Stop that was sent.
    pub(crate) farewell: Message,
    /// Until when, by its own clock, it owes a wait.
    pub(crate) wait: u32,
    pub(crate) barrier: Barrier,
}

/// A barrier read under way.
#[derive(Debug, Clone, Copy, Default, Hash)]
pub(crate) struct Barrier {
    pub(crate) round: u8,
    pub(crate) is_open: bool,
    pub(crate) index: u8,
    pub(crate) missing: Set,
    /// What was committed when it started; only the checks know.
    pub(crate) floor: u8,
}

/// What replicas said of their logs before an unclean election; lost with the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) struct Status {
    pub(crate) epoch: u8,
    pub(crate) inc: u8,
    pub(crate) last_epoch: u8,
    pub(crate) log_end: u8,
    /// The log itself; only the checks know.
    pub(crate) tip: u16,
}

/// What only the checks know of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ghost {
    /// All that any leader ever committed.
    pub(crate) committed: u16,
    /// Who led each epoch.
    pub(crate) led_by: [u8; 256],
    /// How far each epoch has got, since offsets of an epoch are made once.
    pub(crate) made: [u8; 256],
    /// Whose disks lost data and were not made complete again.
    pub(crate) lost: Set,
    /// What clients were told is safe before it was committed.
    pub(crate) answered: [u16; 4],
    /// The last sequence number of each client.
    pub(crate) seq: [u8; 4],
}

/// What holds for a whole run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) nodes: usize,
    pub(crate) copies: usize,
    pub(crate) minimum: usize,
    /// Whether it starts with every follower attached and the leader's no-op committed.
    pub(crate) is_warm: bool,
    /// Whether a record is acknowledged after the sync, or before it.
    pub(crate) is_synced: bool,
    pub(crate) without: Without,
    /// Each node's clock rate, as an offset from the true one.
    pub(crate) rates: [i8; NODES_MAX],
}

/// How a run is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// A bound of the model is reached, or data were lost as they may be: nothing more is to be learned.
    Over,
    Broken(Invariant),
}

/// A whole world.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) now: u32,
    pub(crate) verdict: Verdict,
    pub(crate) version: u8,
    pub(crate) control: Topology,
    pub(crate) history: [Topology; TOPOLOGIES_KEPT],
    pub(crate) next_uid: u8,
    pub(crate) status: [[Status; NODES_MAX]; PARTITIONS],
    pub(crate) nodes: [Node; NODES_MAX],
    pub(crate) replicas: [[Replica; NODES_MAX]; PARTITIONS],
    pub(crate) leaders: [[Leader; NODES_MAX]; PARTITIONS],
    /// Which nodes take themselves for leaders.
    pub(crate) leading: [Set; PARTITIONS],
    pub(crate) records: [Records; PARTITIONS],
    pub(crate) bag: Bag,
    pub(crate) ghosts: [Ghost; PARTITIONS],
    /// Which partitions the step has touched, and which replicas in them.
    pub(crate) touched: [Set; PARTITIONS],
    pub(crate) is_touched: bool,
}

impl World {
    /// The start: every node is registered, and the first nodes of each partition hold it, in sync and empty.
    pub(crate) fn new(setting: Setting) -> Self {
        let control = first_topology(&setting);
        let node = first_node(&control);
        let ghost = Ghost {
            committed: ROOT,
            led_by: [NONE; 256],
            made: [0; 256],
            lost: Set::EMPTY,
            answered: [ROOT; 4],
            seq: [0; 4],
        };
        let mut world = Self {
            setting,
            now: 0,
            verdict: Verdict::Fine,
            version: 1,
            control,
            history: [control; TOPOLOGIES_KEPT],
            next_uid: 2,
            status: Default::default(),
            nodes: [node; NODES_MAX],
            replicas: Default::default(),
            leaders: Default::default(),
            leading: [Set::EMPTY; PARTITIONS],
            records: [Records::new(), Records::new()],
            bag: Bag::new(),
            ghosts: [ghost; PARTITIONS],
            touched: [Set::EMPTY; PARTITIONS],
            is_touched: false,
        };
        world.furnish();
        world
    }

    /// Begins anew in the same memory.
    pub(crate) fn restart(&mut self, setting: Setting) {
        let control = first_topology(&setting);
        let node = first_node(&control);
        self.setting = setting;
        self.now = 0;
        self.verdict = Verdict::Fine;
        self.version = 1;
        self.control = control;
        self.history[1] = control;
        self.next_uid = 2;
        self.status = Default::default();
        self.nodes = [node; NODES_MAX];
        self.replicas = Default::default();
        self.leaders = Default::default();
        self.leading = [Set::EMPTY; PARTITIONS];
        self.bag.clear();
        for partition in 0..PARTITIONS {
            self.records[partition].clear();
            let ghost = &mut self.ghosts[partition];
            ghost.committed = ROOT;
            ghost.led_by.fill(NONE);
            ghost.made.fill(0);
            ghost.lost = Set::EMPTY;
            ghost.answered = [ROOT; 4];
            ghost.seq = [0; 4];
        }
        self.furnish();
    }

    fn furnish(&mut self) {
        for node in 0..self.setting.nodes {
            self.nodes[node].rate = (RATE as i8 + self.setting.rates[node]) as u8;
            for partition in 0..PARTITIONS {
                self.replicas[partition][node].uid = self.control.partitions[partition].uid[node];
            }
        }
        for partition in 0..PARTITIONS {
            self.lead(usize::from(self.control.partitions[partition].leader), partition);
            if self.setting.is_warm {
                self.warm(partition);
            }
        }
    }

    /// Brings every follower to where it would be a while after the start.
    fn warm(&mut self, partition: usize) {
        let configuration = self.control.partitions[partition];
        let node = usize::from(configuration.leader);
        let tip = self.replicas[partition][node].tip;
        let len = self.records[partition].len(tip);
        for member in configuration.replicas {
            let replica = &mut self.replicas[partition][member];
            replica.tip = tip;
            (replica.durable, replica.on_disk, replica.commit) = (len, len, len);
            replica.is_streaming = member != node;
        }
        let leader = &mut self.leaders[partition][node];
        leader.attached = configuration.replicas.without(node);
        leader.matched = [len; NODES_MAX];
        leader.matched_inc = [1; NODES_MAX];
        self.ghosts[partition].committed = tip;
    }

    /// Whether `rule` is in force.
    pub(crate) fn holds(&self, rule: Rule) -> bool {
        !self.setting.without.has(rule)
    }

    pub(crate) fn all(&self) -> Set {
        Set::first(self.setting.nodes)
    }

    /// What the clock of `node` shows. It counts on while the node is paused or down.
    pub(crate) fn clock(&self, node: usize) -> u32 {
        self.now * u32::from(self.nodes[node].rate)
    }

    /// Whether `node` can take steps as a member.
    pub(crate) fn acts(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        node.is_up && !node.is_paused && node.inc != 0
    }

    /// The configuration of `partition` as `node` knows it.
    pub(crate) fn view(&self, node: usize, partition: usize) -> &Configuration {
        &self.nodes[node].topology.partitions[partition]
    }

    pub(crate) fn log_end(&self, node: usize, partition: usize) -> u8 {
        self.records[partition].len(self.replicas[partition][node].tip)
    }

    /// Whether the copy on `node` is the one that it takes the configuration to name.
    pub(crate) fn is_replica(&self, node: usize, partition: usize) -> bool {
        let replica = &self.replicas[partition][node];
        replica.uid != 0 && replica.uid == self.view(node, partition).uid[node] && !replica.is_damaged
    }

    pub(crate) fn is_leading(&self, node: usize, partition: usize) -> bool {
        self.leading[partition].has(node) && self.acts(node)
    }

    pub(crate) fn is_waiting(&self, node: usize, partition: usize) -> bool {
        self.clock(node) < self.leaders[partition][node].wait
    }

    pub(crate) fn is_active(&self, node: usize, partition: usize) -> bool {
        self.replicas[partition][node].commit > self.leaders[partition][node].epoch_start
    }

    /// The in-sync set and the proposed one, as far as `node` as the leader knows.
    pub(crate) fn maximal(&self, node: usize, partition: usize) -> Set {
        let proposal = &self.leaders[partition][node].proposal;
        let in_sync = self.view(node, partition).in_sync;
        if proposal.version == 0 { in_sync } else { in_sync.or(proposal.in_sync) }
    }

    pub(crate) fn fail(&mut self, invariant: Invariant) {
        if self.verdict == Verdict::Fine {
            self.verdict = Verdict::Broken(invariant);
        }
    }

    /// Nothing more is to be learned from this run.
    pub(crate) fn end(&mut self) {
        if self.verdict == Verdict::Fine {
            self.verdict = Verdict::Over;
        }
    }

    /// Notes that the replica of `partition` on `node`, or its leader, has to be checked.
    pub(crate) fn touch(&mut self, node: usize, partition: usize) {
        self.touched[partition] = self.touched[partition].with(node);
        self.is_touched = true;
    }

    /// Commits a version of the control plane's state. Whoever changed a partition has raised its version.
    pub(crate) fn commit_topology(&mut self) {
        self.version += 1;
        self.history[usize::from(self.version) % TOPOLOGIES_KEPT] = self.control;
        self.touched = [self.all(); PARTITIONS];
        self.is_touched = true;
        if self.version == TOPOLOGY_MAX {
            self.end();
        }
    }

    /// The control plane's state at `version`, or at the oldest one kept.
    pub(crate) fn topology_at(&self, version: u8) -> (u8, &Topology) {
        let oldest = self.version.saturating_sub(TOPOLOGIES_KEPT as u8 - 1).max(1);
        let version = version.max(oldest);
        (version, &self.history[usize::from(version) % TOPOLOGIES_KEPT])
    }
}

fn first_topology(setting: &Setting) -> Topology {
    let mut topology = Topology {
        partitions: [Configuration {
            version: 1,
            epoch: 1,
            leader: NONE,
            predecessor: NONE,
            cause: Cause::Election,
            replicas: Set::EMPTY,
            in_sync: Set::EMPTY,
            tainted: Set::EMPTY,
            target: NONE,
            uid: [0; NODES_MAX],
        }; PARTITIONS],
        inc: [0; NODES_MAX],
        live: Set::first(setting.nodes),
    };
    for (number, partition) in topology.partitions.iter_mut().enumerate() {
        for copy in 0..setting.copies {
            let node = (number + copy) % setting.nodes;
            partition.replicas = partition.replicas.with(node);
            partition.uid[node] = 1;
        }
        partition.in_sync = partition.replicas;
        partition.leader = number as u8;
    }
    for node in 0..setting.nodes {
        topology.inc[node] = 1;
    }
    topology
}

fn first_node(topology: &Topology) -> Node {
    Node {
        is_up: true,
        is_paused: false,
        inc: 1,
        has_lost: false,
        wall: 0,
        rate: RATE as u8,
        adopted: 1,
        topology: *topology,
        promised: [0; NODES_MAX],
        promised_inc: [0; NODES_MAX],
        support: [0; NODES_MAX],
    }
}
