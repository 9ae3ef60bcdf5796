//! The failure detector among many nodes, in virtual time: nodes and detector pause, messages get
//! lost, some nodes are killed. Nobody is declared dead who lives, and every death is found in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clusterkit_core::id::{Incarnation, NodeId};
use clusterkit_core::member::{Action, Config, Detector, Member};
use clusterkit_core::time::Instant;
use clusterkit_core::topology::Liveness;

const NODES: usize = 200;
const KILLS: usize = 5;
const END: Duration = Duration::from_secs(100);
const KILLS_BEGIN: Duration = Duration::from_secs(40);
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// A small seeded generator (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pause(&mut self, max: Duration) -> Duration {
        let millis = u64::try_from(max.as_millis()).expect("a short pause");
        Duration::from_millis(100 + self.below(millis - 99))
    }
}

/// The order among events of one instant is the order in which they were made.
#[derive(Debug, Clone, Copy)]
enum Event {
    Beat(usize),
    Heartbeat(usize),
    Kill(usize),
    PauseDetector,
    PauseNode(usize),
    Resume,
    Timeout(u64),
}

struct World {
    chance: Chance,
    now: Instant,
    events: BTreeMap<(Instant, u64), Event>,
    event_count: u64,
    detector: Detector,
    /// Until when the detector sleeps, and what arrives meanwhile.
    detector_paused_until: Instant,
    inbox: Vec<usize>,
    timer: u64,
    node_paused_until: Vec<Instant>,
    killed_at: BTreeMap<usize, Instant>,
    found_at: BTreeMap<usize, Instant>,
    dead_by_mistake: BTreeSet<usize>,
    own_pause_max: Duration,
    /// Whether a wake after a pause judges before it reads what arrived.
    judges_first: bool,
}

fn name(index: usize) -> NodeId {
    NodeId::new(&format!("node-{index}")).expect("a valid name")
}

fn index(node: &NodeId) -> usize {
    node.as_str()["node-".len()..].parse().expect("named above")
}

impl World {
    fn new(seed: u64, own_pause_max: Duration) -> Self {
        let now = Instant::at(Duration::from_secs(1));
        let mut detector = Detector::new(Config::default(), now);
        let members = (0..NODES).map(|i| Member {
            node: name(i),
            incarnation: Incarnation(1),
            recorded: Liveness::Alive,
        });
        detector.handle_members(now, members);
        let mut world = Self {
            chance: Chance(seed),
            now,
            events: BTreeMap::new(),
            event_count: 0,
            detector,
            detector_paused_until: now,
            inbox: Vec::new(),
            timer: 0,
            node_paused_until: vec![now; NODES],
            killed_at: BTreeMap::new(),
            found_at: BTreeMap::new(),
            dead_by_mistake: BTreeSet::new(),
            own_pause_max,
            judges_first: seed.is_multiple_of(2),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for i in 0..NODES {
            let (beat, pause) = (self.chance.below(200), self.chance.below(60_000));
            self.after(Duration::from_millis(beat), Event::Beat(i));
            self.after(Duration::from_millis(pause), Event::PauseNode(i));
        }
        for _ in 0..KILLS {
            let (node, delay) = (self.chance.below(NODES as u64), self.chance.below(40_000));
            self.after(KILLS_BEGIN + Duration::from_millis(delay), Event::Kill(node as usize));
        }
        self.after(Duration::from_secs(5), Event::PauseDetector);
        self.carry_out();
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.event_count += 1;
        self.events.insert((self.now + delay, self.event_count), event);
    }

    fn run(&mut self) {
        while let Some(((at, _), event)) = self.events.pop_first() {
            if at.elapsed() > END {
                break;
            }
            self.now = at;
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        match event {
            Event::Beat(node) => self.beat(node),
            Event::Heartbeat(node) => self.deliver(node),
            Event::Kill(node) => {
                self.killed_at.entry(node).or_insert(self.now);
            }
            Event::PauseDetector => self.pause_detector(),
            Event::PauseNode(node) => self.pause_node(node),
            Event::Resume => self.resume(),
            Event::Timeout(timer) => self.timeout(timer),
        }
    }

    fn beat(&mut self, node: usize) {
        if self.killed_at.contains_key(&node) {
            return;
        }
        let resume = self.node_paused_until[node];
        if resume > self.now {
            // A sleeping timer fires when its process wakes.
            return self.after(resume.since(self.now), Event::Beat(node));
        }
        if self.chance.below(100) != 0 {
            let latency = Duration::from_micros(200 + self.chance.below(800));
            self.after(latency, Event::Heartbeat(node));
        }
        self.after(Config::default().heartbeat, Event::Beat(node));
    }

    fn deliver(&mut self, node: usize) {
        if self.detector_paused_until > self.now {
            return self.inbox.push(node);
        }
        self.detector.handle_heartbeat(self.now, &name(node), Incarnation(1));
        self.carry_out();
    }

    fn timeout(&mut self, timer: u64) {
        if timer == self.timer && self.detector_paused_until <= self.now {
            self.detector.handle_timeout(self.now);
            self.carry_out();
        }
    }

    fn pause_node(&mut self, node: usize) {
        let pause = self.chance.pause(PAUSE_MAX);
        self.node_paused_until[node] = self.now + pause;
        let next = self.chance.below(120_000);
        self.after(pause + Duration::from_millis(next), Event::PauseNode(node));
    }

    fn pause_detector(&mut self) {
        let pause = self.chance.pause(self.own_pause_max);
        self.detector_paused_until = self.now + pause;
        self.after(pause, Event::Resume);
        // Far more often than a node, since this is what the test is about.
        let next = 1_000 + self.chance.below(4_000);
        self.after(pause + Duration::from_millis(next), Event::PauseDetector);
    }

    fn resume(&mut self) {
        if self.judges_first {
            self.wake();
        }
        for node in core::mem::take(&mut self.inbox) {
            self.detector.handle_heartbeat(self.now, &name(node), Incarnation(1));
        }
        self.wake();
    }

    fn wake(&mut self) {
        if self.detector.poll_timeout().is_some_and(|due| due <= self.now) {
            self.detector.handle_timeout(self.now);
        }
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(action) = self.detector.poll_action() {
            if let Action::Report { node, liveness: Liveness::Dead, .. } = action {
                self.find(index(&node));
            }
        }
        if let Some(due) = self.detector.poll_timeout() {
            self.timer += 1;
            self.after(due.since(self.now), Event::Timeout(self.timer));
        }
    }

    fn find(&mut self, node: usize) {
        if self.killed_at.contains_key(&node) {
            self.found_at.entry(node).or_insert(self.now);
        } else {
            self.dead_by_mistake.insert(node);
        }
    }
}

fn check(seed: u64, own_pause_max: Duration) {
    let mut world = World::new(seed, own_pause_max);
    world.run();
    assert_eq!(world.dead_by_mistake, BTreeSet::new(), "seed {seed}");
    assert!(!world.killed_at.is_empty(), "seed {seed}");
    let bound = Config::default().dead_after + own_pause_max + Duration::from_millis(10);
    for (node, killed_at) in &world.killed_at {
        let took = world.found_at.get(node).map(|at| at.since(*killed_at));
        assert!(took.is_some_and(|took| took <= bound), "seed {seed}, node {node}: {took:?}");
    }
}

#[test]
fn pauses_and_loss_kill_nobody_and_kills_are_found_in_time() {
    (0..6).for_each(|seed| check(seed, PAUSE_MAX));
}

#[test]
fn long_pauses_of_the_detector_kill_nobody() {
    (6..8).for_each(|seed| check(seed, Duration::from_secs(3)));
}
