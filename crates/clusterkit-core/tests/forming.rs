//! Forming under faults, in virtual time: thousands of small random worlds in which nodes start in
//! any order, crash and come back with what they had made durable, and messages are delayed, lost,
//! doubled and reordered.
//!
//! Checked in every world: two clusters that formed never share a node, and one node never forms
//! two. Once the faults end, every node belongs to the one cluster within a bounded time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clusterkit_core::forming::{Action, Candidate, Config, Forming, Greeting, Unreachable, Vote};
use clusterkit_core::id::{ClusterId, NodeId, StoreId};
use clusterkit_core::time::Instant;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// When everybody was started once.
const STARTED_WITHIN: Duration = Duration::from_secs(3);
/// How long a crashed node is away.
const DOWN_MAX: Duration = Duration::from_secs(4);
/// How long after the last fault everybody has to belong to the cluster.
const HEALED_WITHIN: Duration = Duration::from_secs(8);
const NAME: &str = "test";

/// A small seeded generator (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn up_to(&mut self, max: Duration) -> Duration {
        max / 1_000 * u32::try_from(self.below(1_001)).expect("small")
    }
}

/// Who knows whom at the start.
#[derive(Debug, Clone, Copy)]
enum Seeds {
    Chain,
    Everybody,
    First,
    Random,
}

/// What one world is made of.
#[derive(Debug, Clone)]
struct Plan {
    seed: u64,
    expect: usize,
    /// Nodes that expect as many as the others and are too many.
    extra: usize,
    /// Nodes that only join.
    joiners: usize,
    seeds: Seeds,
    faults_for: Duration,
    loss_percent: usize,
    delay_max: Duration,
    /// Whether disks may be emptied, after which nobody promises that a cluster forms.
    wipes: bool,
}

impl Plan {
    fn random(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let expect = 1 + chance.below(7);
        Self {
            seed,
            expect,
            extra: if chance.percent(50) { chance.below(expect) } else { 0 },
            joiners: if chance.percent(30) { chance.below(3) } else { 0 },
            seeds: [Seeds::Chain, Seeds::Everybody, Seeds::First, Seeds::Random][chance.below(4)],
            faults_for: chance.up_to(SECOND * 6),
            loss_percent: if chance.percent(50) { chance.below(40) } else { 0 },
            delay_max: [MILLISECOND * 5, MILLISECOND * 50, MILLISECOND * 1_500][chance.below(3)],
            wipes: false,
        }
    }

    fn nodes(&self) -> usize {
        self.expect + self.extra + self.joiners
    }
}

#[derive(Debug)]
enum Event {
    Answer { to: usize, run: u32, from_addr: String, greeting: Greeting },
    Crash(usize),
    Durable { node: usize, run: u32, vote: Vote },
    Heal,
    Joined { node: usize, run: u32, cluster: ClusterId },
    Request { to: usize, from: usize, run: u32, greeting: Greeting },
    Start(usize),
    Timeout { node: usize, run: u32, timer: u64 },
    Unreachable { to: usize, run: u32, addr: String, why: Unreachable },
}

/// One node: what survives a crash, and its running machine.
struct Node {
    config: Config,
    disk: Option<Vote>,
    run: u32,
    timer: u64,
    due: Option<Instant>,
    machine: Option<Forming>,
    /// The cluster it belongs to by joining; that survives as well.
    joined: Option<ClusterId>,
    formed: Option<ClusterId>,
}

struct World {
    plan: Plan,
    chance: Chance,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    event_count: u64,
    nodes: Vec<Node>,
    has_faults: bool,
    stores: u64,
    formed: BTreeMap<ClusterId, Vec<Candidate>>,
}

fn addr(index: usize) -> String {
    format!("host-{index}:7000")
}

fn index(addr: &str) -> Option<usize> {
    addr.strip_prefix("host-")?.strip_suffix(":7000")?.parse().ok()
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut world = Self {
            chance: Chance(!plan.seed),
            now: Instant::ORIGIN,
            events: BTreeMap::new(),
            event_count: 0,
            nodes: Vec::new(),
            has_faults: true,
            stores: 100,
            formed: BTreeMap::new(),
            plan,
        };
        for i in 0..world.plan.nodes() {
            let node = world.make_node(i);
            world.nodes.push(node);
            let start = world.chance.up_to(STARTED_WITHIN);
            world.after(start, Event::Start(i));
        }
        for _ in 0..world.chance.below(world.plan.nodes() * 3) {
            let (node, at) =
                (world.chance.below(world.plan.nodes()), world.chance.up_to(world.plan.faults_for));
            world.after(at, Event::Crash(node));
        }
        world.after(world.plan.faults_for, Event::Heal);
        world
    }

    fn make_node(&mut self, i: usize) -> Node {
        // Names are given so that the order of names is not the order of indexes.
        let name = format!("node-{}", (i * 5 + 3) % 67);
        let me = Candidate {
            node: NodeId::new(&name).expect("a valid name"),
            store: StoreId(i as u64),
            node_addr: addr(i),
        };
        let mut config = Config::new(me, NAME.to_string());
        let only_joins = i >= self.plan.expect + self.plan.extra;
        config.expect = (!only_joins).then_some(u32::try_from(self.plan.expect).expect("small"));
        config.seeds = self.seeds_of(i);
        Node { config, disk: None, run: 0, timer: 0, due: None, machine: None, joined: None, formed: None }
    }

    fn seeds_of(&mut self, i: usize) -> Vec<String> {
        let nodes = self.plan.nodes();
        // Members of a cluster greet nobody any more, so that a node which the cluster did without
        // has to find one of them by its own seeds, or by those of its seeds.
        if i == 0 && self.plan.extra > 0 {
            return (0..nodes).map(addr).collect();
        }
        match self.plan.seeds {
            Seeds::Chain => i.checked_sub(1).map(addr).into_iter().collect(),
            Seeds::Everybody => (0..nodes).map(addr).collect(),
            Seeds::First => vec![addr(0)],
            // A random earlier node connects everybody, some more do no harm, and one is nobody.
            Seeds::Random => {
                let earlier = if i == 0 { 0 } else { self.chance.below(i) };
                vec![addr(earlier), addr(self.chance.below(nodes)), addr(99)]
            }
        }
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.event_count += 1;
        self.events.insert((self.now + delay, self.event_count), event);
    }

    /// Runs until everybody belongs to a cluster in a world without faults, or time is up.
    fn run(&mut self) {
        let end = Instant::ORIGIN + STARTED_WITHIN + DOWN_MAX + self.plan.faults_for + HEALED_WITHIN;
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at > end || (!self.has_faults && self.is_settled()) {
                return;
            }
            self.now = at;
            self.step(event);
        }
    }

    fn is_settled(&self) -> bool {
        self.nodes.iter().all(|node| node.joined.or(node.formed).is_some())
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Answer { to, run, from_addr, greeting } => {
                self.tell(to, run, |machine, now| machine.handle_greeting(now, &from_addr, greeting));
            }
            Event::Crash(node) => self.crash(node),
            Event::Durable { node, run, vote } => self.make_durable(node, run, vote),
            Event::Heal => self.has_faults = false,
            Event::Joined { node, run, cluster } => self.join(node, run, cluster),
            Event::Request { to, from, run, greeting } => self.answer(to, from, run, greeting),
            Event::Start(node) => self.start(node),
            Event::Timeout { node, run, timer } => {
                if self.nodes[node].timer == timer {
                    self.tell(node, run, Forming::handle_timeout);
                }
            }
            Event::Unreachable { to, run, addr, why } => {
                self.tell(to, run, |machine, now| machine.handle_unreachable(now, &addr, why));
            }
        }
    }

    fn start(&mut self, i: usize) {
        let (seed, now) = (self.chance.next(), self.now);
        let node = &mut self.nodes[i];
        if node.machine.is_none() {
            (node.run, node.due) = (node.run + 1, None);
            node.machine = Some(Forming::new(node.config.clone(), node.disk.clone(), seed, now));
            self.carry_out(i);
        }
    }

    fn crash(&mut self, i: usize) {
        self.nodes[i].machine = None;
        if self.plan.wipes && self.chance.percent(30) {
            self.stores += 1;
            let node = &mut self.nodes[i];
            node.config.me.store = StoreId(self.stores);
            (node.disk, node.joined, node.formed) = (None, None, None);
        }
        let down = self.chance.up_to(DOWN_MAX);
        self.after(down, Event::Start(i));
    }

    fn make_durable(&mut self, i: usize, run: u32, vote: Vote) {
        let node = &mut self.nodes[i];
        // A crash may come before or after the write, and before the machine learns of it.
        if node.run == run && node.machine.is_some() {
            let round = vote.round;
            assert!(node.disk.as_ref().is_none_or(|before| before.round < round), "{:?}", self.plan);
            node.disk = Some(vote);
            if self.has_faults && self.chance.percent(5) {
                return self.crash(i);
            }
            self.tell(i, run, |machine, now| machine.handle_vote_durable(now, round));
        }
    }

    fn join(&mut self, i: usize, run: u32, cluster: ClusterId) {
        let node = &mut self.nodes[i];
        if node.run == run && node.machine.is_some() && node.formed.is_none() {
            node.joined = Some(cluster);
        }
    }

    fn answer(&mut self, to: usize, from: usize, run: u32, greeting: Greeting) {
        if self.nodes[to].machine.is_none() {
            let why = Unreachable::Refused;
            self.send(Event::Unreachable { to: from, run, addr: addr(to), why });
            return;
        }
        let to_run = self.nodes[to].run;
        self.tell(to, to_run, |machine, now| machine.handle_greeting(now, "client:1", greeting));
        let greeting = self.greeting(to);
        self.send(Event::Answer { to: from, run, from_addr: addr(to), greeting });
    }

    /// What a node says: one that joined speaks for its cluster.
    fn greeting(&self, i: usize) -> Greeting {
        let node = &self.nodes[i];
        let greeting = node.machine.as_ref().expect("it runs").greeting();
        Greeting { formed: node.joined.or(greeting.formed), ..greeting }
    }

    fn tell(&mut self, i: usize, run: u32, fact: impl FnOnce(&mut Forming, Instant)) {
        let now = self.now;
        let node = &mut self.nodes[i];
        if node.run == run
            && node.joined.is_none()
            && let Some(machine) = &mut node.machine
        {
            fact(machine, now);
            self.carry_out(i);
        }
    }

    fn carry_out(&mut self, i: usize) {
        while let Some(action) = self.nodes[i].machine.as_mut().and_then(Forming::poll_action) {
            self.act(i, action);
        }
        let (now, node) = (self.now, &mut self.nodes[i]);
        let due = node.machine.as_ref().and_then(Forming::poll_timeout);
        if let Some(due) = due.filter(|_| due != node.due) {
            node.due = Some(due);
            node.timer += 1;
            let (run, timer) = (node.run, node.timer);
            self.after(due.since(now), Event::Timeout { node: i, run, timer });
        }
    }

    fn act(&mut self, i: usize, action: Action) {
        let run = self.nodes[i].run;
        match action {
            Action::Formed { cluster, members } => self.form(i, cluster, &members),
            Action::Greet { addr } => self.greet(i, run, addr),
            Action::Join { addr, cluster } => self.ask_to_join(i, run, &addr, cluster),
            Action::PersistVote(vote) => {
                let takes =
                    self.chance.up_to(if self.has_faults { MILLISECOND * 300 } else { MILLISECOND * 20 });
                self.after(takes, Event::Durable { node: i, run, vote });
            }
            Action::Report(_) => {}
        }
    }

    fn greet(&mut self, i: usize, run: u32, addr: String) {
        let greeting = self.greeting(i);
        match index(&addr) {
            Some(to) if to < self.nodes.len() => {
                if !self.send(Event::Request { to, from: i, run, greeting }) && self.chance.percent(50) {
                    let why = Unreachable::TimedOut;
                    self.after(SECOND, Event::Unreachable { to: i, run, addr, why });
                }
            }
            _ => {
                let why = Unreachable::Refused;
                self.after(MILLISECOND, Event::Unreachable { to: i, run, addr, why });
            }
        }
    }

    /// Sends, or loses: whether it was sent. Faults also double, delay and reorder.
    fn send(&mut self, event: Event) -> bool {
        if !self.has_faults {
            self.after(MILLISECOND * 2, event);
            return true;
        }
        if self.chance.percent(self.plan.loss_percent) {
            return false;
        }
        if self.chance.percent(5) {
            let delay = self.chance.up_to(self.plan.delay_max);
            self.after(delay, event.doubled());
        }
        let delay = self.chance.up_to(self.plan.delay_max);
        self.after(delay, event);
        true
    }

    fn ask_to_join(&mut self, i: usize, run: u32, addr: &str, cluster: ClusterId) {
        let teller = &self.nodes[index(addr).expect("an address of this world")];
        let belongs = teller.joined.or(teller.formed) == Some(cluster);
        if belongs && !(self.has_faults && self.chance.percent(50)) {
            self.after(MILLISECOND * 10, Event::Joined { node: i, run, cluster });
        }
    }

    fn form(&mut self, i: usize, cluster: ClusterId, members: &[Candidate]) {
        let plan = &self.plan;
        let me = &self.nodes[i].config.me;
        assert!(members.contains(me), "a node forms no cluster without itself: {plan:?}");
        assert_eq!(members.len(), plan.expect, "{plan:?}");
        for (other, theirs) in &self.formed {
            let shared = theirs.iter().any(|theirs| members.iter().any(|ours| ours.is_same_node(theirs)));
            assert!(*other == cluster || !shared, "two clusters share a node: {plan:?}");
        }
        let before = self.formed.entry(cluster).or_insert_with(|| members.to_vec());
        assert_eq!(before, members, "one cluster has one list of members: {plan:?}");
        self.nodes[i].formed = Some(cluster);
    }

    fn check_healed(&self) {
        let plan = &self.plan;
        let clusters: BTreeSet<_> = self.nodes.iter().map(|node| node.joined.or(node.formed)).collect();
        assert_eq!(clusters.len(), 1, "everybody belongs to one cluster: {plan:?}\n{clusters:?}");
        assert!(!clusters.contains(&None), "{plan:?}");
        let founders = self.nodes.iter().filter(|node| node.joined.is_none()).count();
        assert!(founders <= plan.expect, "{plan:?}");
    }
}

impl Event {
    fn doubled(&self) -> Self {
        match self {
            Self::Answer { to, run, from_addr, greeting } => {
                Self::Answer { to: *to, run: *run, from_addr: from_addr.clone(), greeting: greeting.clone() }
            }
            Self::Request { to, from, run, greeting } => {
                Self::Request { to: *to, from: *from, run: *run, greeting: greeting.clone() }
            }
            Self::Unreachable { to, run, addr, why } => {
                Self::Unreachable { to: *to, run: *run, addr: addr.clone(), why: why.clone() }
            }
            other => unreachable!("only messages are doubled, not {other:?}"),
        }
    }
}

fn check(plan: Plan) -> World {
    let is_sure_to_heal = !plan.wipes && plan.extra < plan.expect;
    let mut world = World::new(plan);
    world.run();
    if is_sure_to_heal {
        world.check_healed();
    }
    world
}

#[test]
fn random_worlds_form_exactly_one_cluster() {
    (0..1_000).for_each(|seed| drop(check(Plan::random(seed))));
}

#[test]
fn slow_lossy_worlds_with_too_many_nodes_form_exactly_one_cluster() {
    for seed in 1_000..1_500 {
        let plan = Plan::random(seed);
        let (expect, extra) = (2 + plan.expect / 3, 1 + plan.extra % 3);
        let delay_max = MILLISECOND * 1_500;
        check(Plan { expect, extra: extra.min(expect - 1), delay_max, loss_percent: 20, ..plan });
    }
}

#[test]
fn emptied_disks_and_twice_the_nodes_never_give_two_clusters_that_share_a_node() {
    let formed: usize = (2_000..2_350)
        .map(|seed| {
            let plan = Plan::random(seed);
            let (expect, extra) = (2 + plan.expect / 3, plan.extra + plan.expect / 2);
            check(Plan { expect, extra, wipes: seed % 2 == 0, ..plan }).formed.len()
        })
        .sum();
    assert!(formed > 250, "most worlds form a cluster all the same: {formed}");
}

#[test]
fn sixty_four_nodes_that_know_one_form_one_cluster_in_seconds() {
    let quiet = Plan {
        seed: 1,
        expect: 64,
        extra: 0,
        joiners: 0,
        seeds: Seeds::First,
        faults_for: Duration::ZERO,
        loss_percent: 0,
        delay_max: MILLISECOND,
        wipes: false,
    };
    let world = check(quiet);
    let took = world.now.since(Instant::ORIGIN + STARTED_WITHIN);
    assert!(took <= SECOND * 3, "{took:?}");
}
