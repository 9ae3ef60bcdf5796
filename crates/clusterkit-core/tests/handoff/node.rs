//! A node: its disk, and the process that runs on it with the production `Stages` in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clusterkit_core::handoff::{Action, Fact, Outcome, Progress, Report, Stage, Stages, Token};
use clusterkit_core::id::{Incarnation, PartitionId, ReplicaUid, StoreId, TopologyVersion};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::{Partition, Topology};

use crate::control::Letter;
use crate::faults::Fault;
use crate::hooks::{Hook, HookEvent};
use crate::planted::Mistake;
use crate::store::{Gate, Permit, Place, StoreEvent};
use crate::world::{Event, World, name};

const HEARTBEAT: Duration = Duration::from_millis(200);
const REGISTER_AGAIN: Duration = Duration::from_secs(1);

pub(crate) struct Node {
    pub(crate) store: StoreId,
    /// It lost some of what it held, and knows it.
    pub(crate) damaged: bool,
    /// It holds no data.
    pub(crate) observes: bool,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    pub(crate) boots: u64,
    /// The process stands still until then.
    pub(crate) paused_until: Instant,
    /// The control plane is out of reach until then.
    pub(crate) cut_until: Instant,
    /// And so are the other nodes.
    pub(crate) alone: bool,
    /// By how much it may learn later than others.
    pub(crate) lag: Duration,
}

/// What outlives the process.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) notes: Vec<(PartitionId, ReplicaUid)>,
    pub(crate) places: BTreeMap<PartitionId, Place>,
}

pub(crate) struct Process {
    pub(crate) boot: u64,
    /// How often it asked to be registered: an answer to an earlier question is not waited for.
    asked: u64,
    pub(crate) member: Option<Member>,
    pub(crate) hooks: BTreeMap<Token, Hook>,
    pub(crate) gates: BTreeMap<PartitionId, Gate>,
    pub(crate) permits: BTreeMap<u64, Permit>,
    /// The places that were opened in this run.
    pub(crate) prepared: BTreeSet<(PartitionId, ReplicaUid)>,
    /// Copies that were made in this run: for a planted mistake.
    pub(crate) copied: BTreeSet<(PartitionId, ReplicaUid)>,
    /// Ends once everything is sealed, or at this time.
    pub(crate) stops_at: Option<Instant>,
}

/// What a process has once it is registered.
pub(crate) struct Member {
    pub(crate) incarnation: Incarnation,
    pub(crate) stages: Stages,
    /// The newest version that it has seen.
    pub(crate) topology: Topology,
    /// Older ones do not know this run.
    version_min: TopologyVersion,
    armed: Option<Instant>,
    timer: u64,
    said: Vec<Report>,
}

pub(crate) enum ProcessEvent {
    Beat,
    Drained(PartitionId, Token),
    Hook(Token, HookEvent),
    /// The log knows this run.
    Joined(u64, Incarnation, TopologyVersion),
    Register,
    Saved(Token, Vec<(PartitionId, ReplicaUid)>),
    See(Topology),
    Store(StoreEvent),
    Timeout(u64),
}

impl Node {
    pub(crate) fn new(index: usize, observes: bool) -> Self {
        Self {
            store: StoreId(index as u64 + 1),
            damaged: false,
            observes,
            disk: Disk::default(),
            process: None,
            boots: 0,
            paused_until: Instant::ORIGIN,
            cut_until: Instant::ORIGIN,
            alone: false,
            lag: Duration::ZERO,
        }
    }

    pub(crate) fn member(&self) -> Option<&Member> {
        self.process.as_ref().and_then(|process| process.member.as_ref())
    }
}

impl Process {
    fn new(boot: u64) -> Self {
        Self {
            boot,
            asked: 0,
            member: None,
            hooks: BTreeMap::new(),
            gates: BTreeMap::new(),
            permits: BTreeMap::new(),
            prepared: BTreeSet::new(),
            copied: BTreeSet::new(),
            stops_at: None,
        }
    }

    pub(crate) fn incarnation(&self) -> Option<Incarnation> {
        self.member.as_ref().map(|member| member.incarnation)
    }
}

// A process begins and ends.
impl World {
    pub(crate) fn start(&mut self, node: usize) {
        self.nodes[node].boots += 1;
        let boot = self.nodes[node].boots;
        self.trace(|| format!("n{node}    starts, run {boot}"));
        self.nodes[node].process = Some(Process::new(boot));
        let delay = self.latency(5, 50);
        self.tell_process(delay, node, ProcessEvent::Register);
    }

    pub(crate) fn crash(&mut self, node: usize) {
        if self.nodes[node].process.take().is_none() {
            return;
        }
        self.trace(|| format!("n{node}    crashes"));
        self.nodes[node].paused_until = self.now;
        if self.seat.as_ref().is_some_and(|seat| seat.node == node) {
            self.unseat();
        }
        if self.chance.percent(60) {
            let delay = self.latency(1, 50);
            self.after(delay, Event::Letter(Letter::ConnectionLost(name(node))));
        }
    }

    pub(crate) fn runs(&self, node: usize, boot: u64) -> bool {
        self.nodes[node].process.as_ref().is_some_and(|process| process.boot == boot)
    }

    /// Whether its process runs, is registered and does not stand still.
    pub(crate) fn is_awake(&self, node: usize) -> bool {
        self.nodes[node].member().is_some() && self.nodes[node].paused_until <= self.now
    }

    pub(crate) fn tell_process(&mut self, delay: Duration, node: usize, event: ProcessEvent) {
        if let Some(process) = &self.nodes[node].process {
            let boot = process.boot;
            self.after(delay, Event::Process { node, boot, event });
        }
    }

    /// What becomes of a message or proposal: 0, 1 and 2 are three kinds of misfortune.
    pub(crate) fn fate(&mut self) -> u64 {
        let unlucky = !self.quiet && self.chance.percent(self.settings.mischief.network);
        if unlucky { self.chance.below(3) } else { 3 }
    }

    /// How long a message takes.
    pub(crate) fn latency(&mut self, least: u64, most: u64) -> Duration {
        let slow = !self.quiet && self.chance.percent(self.settings.mischief.network / 4);
        if slow { self.chance.millis(100, 700) } else { self.chance.millis(least, most) }
    }
}

// What happens to a process.
impl World {
    pub(crate) fn process_step(&mut self, node: usize, boot: u64, event: ProcessEvent) {
        if !self.runs(node, boot) {
            return;
        }
        let paused_until = self.nodes[node].paused_until;
        if paused_until > self.now {
            return self.at(paused_until, Event::Process { node, boot, event });
        }
        match event {
            ProcessEvent::Beat => self.beat(node),
            ProcessEvent::Drained(partition, token) => {
                self.with_stages(node, |stages, now| stages.handle_drained(now, partition, token));
            }
            ProcessEvent::Hook(token, event) => self.hook_step(node, token, event),
            ProcessEvent::Joined(asked, incarnation, version) => {
                if self.process_mut(node).asked == asked {
                    self.join(node, incarnation, version);
                }
            }
            ProcessEvent::Register => self.ask_for_registration(node),
            ProcessEvent::Saved(token, notes) => self.saved(node, token, notes),
            ProcessEvent::See(topology) => self.see(node, &topology),
            ProcessEvent::Store(event) => self.store_step(node, event),
            ProcessEvent::Timeout(timer) => self.timeout(node, timer),
        }
        self.drive(node);
    }

    pub(crate) fn with_stages(&mut self, node: usize, change: impl FnOnce(&mut Stages, Instant)) {
        let now = self.now;
        if let Some(member) = self.member_mut(node) {
            change(&mut member.stages, now);
        }
    }

    pub(crate) fn process_mut(&mut self, node: usize) -> &mut Process {
        self.nodes[node].process.as_mut().expect("its event was checked to be of this run")
    }

    fn member_mut(&mut self, node: usize) -> Option<&mut Member> {
        self.nodes[node].process.as_mut().and_then(|process| process.member.as_mut())
    }

    fn ask_for_registration(&mut self, node: usize) {
        if self.nodes[node].member().is_some() {
            return;
        }
        let process = self.process_mut(node);
        process.asked += 1;
        let (boot, asked) = (process.boot, process.asked);
        if self.nodes[node].cut_until <= self.now {
            let delay = self.latency(1, 20);
            self.after(delay, Event::Register { node, boot, asked });
        }
        self.tell_process(REGISTER_AGAIN, node, ProcessEvent::Register);
    }

    fn join(&mut self, node: usize, incarnation: Incarnation, version: TopologyVersion) {
        if self.nodes[node].member().is_some() {
            return;
        }
        let notes = self.nodes[node].disk.notes.clone();
        let notes = if self.makes(Mistake::NotesForgotten) { Vec::new() } else { notes };
        let mut config = self.settings.stages.clone();
        config.copies_max += usize::from(self.makes(Mistake::OneCopyMore));
        let incarnation = if self.makes(Mistake::RunContinued) && incarnation > Incarnation(1) {
            Incarnation(incarnation.0 - 1)
        } else {
            incarnation
        };
        let stages = Stages::new(config, name(node), incarnation, notes);
        let version_min = if self.makes(Mistake::RunContinued) { TopologyVersion(0) } else { version };
        self.process_mut(node).member = Some(Member {
            incarnation,
            stages,
            topology: Topology::default(),
            version_min,
            armed: None,
            timer: 0,
            said: Vec::new(),
        });
        self.show(node);
        self.tell_process(Duration::ZERO, node, ProcessEvent::Beat);
    }

    fn beat(&mut self, node: usize) {
        self.tell_process(HEARTBEAT, node, ProcessEvent::Beat);
        let Some(incarnation) = self.nodes[node].member().map(|member| member.incarnation) else { return };
        self.send(node, Letter::Heartbeat(name(node), incarnation));
        self.report(node, true);
        self.end_stop(node);
    }

    /// A letter to the controller may be late, lost, or come twice.
    fn send(&mut self, node: usize, letter: Letter) {
        if self.nodes[node].cut_until > self.now {
            return;
        }
        let fate = self.fate();
        if fate == 0 {
            return;
        }
        if let (1, Letter::Reports(reports)) = (fate, &letter) {
            let delay = self.chance.millis(1, 2_000);
            self.after(delay, Event::Letter(Letter::Reports(reports.clone())));
        }
        let delay = self.latency(1, 10);
        self.after(delay, Event::Letter(letter));
    }

    /// Says what is true, when it changed or at a beat.
    fn report(&mut self, node: usize, beat: bool) {
        let Some(member) = self.member_mut(node) else { return };
        let mut reports: Vec<_> = member.stages.reports().collect();
        if self.makes(Mistake::ActivatedAtOnce) {
            self.claim_activated(node, &mut reports, |record, _| record.movement.is_some());
        }
        if self.makes(Mistake::ActivatedForSurplus) {
            self.claim_activated(node, &mut reports, |record, copies| record.replicas.len() > copies);
        }
        if self.makes(Mistake::CaughtUpAtOnce) {
            self.claim_caught_up(node, &mut reports);
        }
        if self.makes(Mistake::ActivatedAfterAll) {
            self.claim_declined(node, &mut reports);
        }
        if self.makes(Mistake::SilentOfCopies) {
            reports.retain(|report| !matches!(report.fact, Fact::CaughtUp { .. }));
        }
        self.note_given_up(node, &reports);
        let Some(member) = self.member_mut(node) else { return };
        let changed = member.said != reports;
        member.said.clone_from(&reports);
        if !reports.is_empty() && (changed || beat) {
            if changed {
                self.trace(|| {
                    format!(
                        "n{node}    says {:?}",
                        reports.iter().map(|r| (r.partition, &r.fact)).collect::<Vec<_>>()
                    )
                });
            }
            self.send(node, Letter::Reports(reports));
        }
    }

    fn claim_activated(
        &self,
        node: usize,
        reports: &mut Vec<Report>,
        awaited: impl Fn(&Partition, usize) -> bool,
    ) {
        let Some(member) = self.nodes[node].member() else { return };
        let copies = member.topology.replication_factor_effective() as usize;
        let records = member.topology.partitions.iter();
        let led =
            records.filter(|record| record.leader.as_ref() == Some(&name(node)) && awaited(record, copies));
        let said = led.map(|record| self.said(node, record.id, Fact::Activated { epoch: record.epoch }));
        reports.extend(said);
    }

    fn claim_declined(&self, node: usize, reports: &mut Vec<Report>) {
        let Some(member) = self.nodes[node].member() else { return };
        let begins =
            member.stages.statuses().filter(|status| status.stage == Stage::Activate && status.running);
        let records = begins.filter_map(|status| member.topology.partition(status.partition));
        let said = records.filter_map(|record| {
            let uid = record.replica(&name(node))?.uid;
            let (stage, reason) = (Stage::Activate, "simulated".to_string());
            let (epoch, version) = (record.epoch, record.version);
            Some(self.said(node, record.id, Fact::Declined { stage, uid, epoch, version, reason }))
        });
        reports.extend(said);
    }

    fn claim_caught_up(&self, node: usize, reports: &mut Vec<Report>) {
        let Some(member) = self.nodes[node].member() else { return };
        let records = member.topology.partitions.iter().filter(|record| !record.is_electable(&name(node)));
        let said = records.filter_map(|record| {
            let replica = record.replica(&name(node))?;
            let (uid, lapses) = (replica.uid, replica.lapses);
            Some(self.said(node, record.id, Fact::CaughtUp { uid, epoch: record.epoch, lapses }))
        });
        reports.extend(said);
    }

    fn said(&self, node: usize, partition: PartitionId, fact: Fact) -> Report {
        let incarnation = self.nodes[node].member().map_or(Incarnation(0), |member| member.incarnation);
        Report { node: name(node), incarnation, partition, fact }
    }

    fn see(&mut self, node: usize, topology: &Topology) {
        let Some(member) = self.member_mut(node) else { return };
        if topology.version < member.version_min || topology.version <= member.topology.version {
            return;
        }
        member.topology = topology.clone();
        self.trace(|| format!("n{node}    sees v{}", topology.version));
        self.with_stages(node, |stages, now| stages.handle_topology(now, topology));
        self.detach(node);
    }

    fn saved(&mut self, node: usize, token: Token, notes: Vec<(PartitionId, ReplicaUid)>) {
        self.nodes[node].disk.notes = notes;
        self.with_stages(node, |stages, now| stages.handle_saved(now, token));
    }

    fn timeout(&mut self, node: usize, timer: u64) {
        let Some(member) = self.member_mut(node) else { return };
        if member.timer == timer {
            member.armed = None;
            self.with_stages(node, Stages::handle_timeout);
        }
    }

    /// An orderly stop ends when everything is sealed, or when patience does.
    fn end_stop(&mut self, node: usize) {
        let Some(stops_at) = self.process_mut(node).stops_at else { return };
        let Some(member) = self.nodes[node].member() else { return };
        if member.stages.is_sealed() || stops_at <= self.now {
            let incarnation = member.incarnation;
            self.send(node, Letter::Stopped(name(node), incarnation));
            self.crash(node);
            let back = self.chance.millis(500, 8_000);
            self.after(back, Event::Fault(Fault::Start(node)));
        }
    }
}

// What the stages want.
impl World {
    /// Carries out what the stages of `node` want, and looks at what came of it.
    pub(crate) fn drive(&mut self, node: usize) {
        while let Some(action) = self.member_mut(node).and_then(|member| member.stages.poll_action()) {
            self.trace(|| format!("n{node}    {action:?}"));
            self.carry_out(node, action);
        }
        if self.nodes[node].member().is_none() {
            return;
        }
        self.arm(node);
        self.report(node, false);
        self.check_gates(node);
    }

    fn carry_out(&mut self, node: usize, action: Action) {
        match action {
            Action::Abort { token } => self.hook_aborted(node, token),
            Action::Adopt { partition } => self.adopt(node, partition),
            Action::Cancel { token } => self.hook_cancelled(node, token),
            Action::CloseLease { token, partition, epoch } => self.close(node, token, partition, epoch),
            Action::EndLease { partition, epoch } => self.end(node, partition, epoch),
            Action::OpenLease { partition, epoch } => self.open(node, partition, epoch),
            Action::Overran { partition, stage } => self.note_overrun(node, partition, stage),
            Action::Run { token, call } => self.hook_begins(node, token, &call),
            Action::Save { token, replicas } => self.save(node, token, replicas),
        }
    }

    fn save(&mut self, node: usize, token: Token, notes: Vec<(PartitionId, ReplicaUid)>) {
        if self.makes(Mistake::SavedAtOnce) {
            self.with_stages(node, |stages, now| stages.handle_saved(now, token));
        }
        let delay = if self.quiet { self.chance.millis(1, 10) } else { self.chance.millis(1, 120) };
        self.tell_process(delay, node, ProcessEvent::Saved(token, notes));
    }

    fn arm(&mut self, node: usize) {
        let now = self.now;
        let Some(member) = self.member_mut(node) else { return };
        let due = member.stages.poll_timeout().map(|due| due.max(now));
        if due == member.armed {
            return;
        }
        member.armed = due;
        member.timer += 1;
        let timer = member.timer;
        if let Some(due) = due {
            self.tell_process(due.since(now), node, ProcessEvent::Timeout(timer));
        }
    }

    pub(crate) fn answer(&mut self, node: usize, token: Token, outcome: Outcome) {
        self.with_stages(node, |stages, now| stages.handle_outcome(now, token, outcome));
    }

    pub(crate) fn progress(&mut self, node: usize, token: Token) {
        let progress = Progress { bytes: 1, bytes_total: None };
        self.with_stages(node, |stages, now| stages.handle_progress(now, token, progress));
    }

    pub(crate) fn makes(&self, mistake: Mistake) -> bool {
        self.settings.mistake == Some(mistake)
    }
}
