//! What a run is made of: the cluster, its settings, which faults are on and how strong.

use std::time::Duration;

use clusterkit_core::replica::{Config, Mistake, Mistakes, SessionConfig};

use super::chance::Chance;
use super::faults::Kind;

/// What is asked of a run from outside.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Simulated time.
    pub time: Duration,
    /// A rule that is left out.
    pub mistake: Option<Mistake>,
    /// Whether the story is kept, to be read.
    pub traces: bool,
    /// Whether nothing breaks.
    pub calm: bool,
    /// As many nodes, partitions and copies, if not drawn.
    pub shape: Option<(usize, u32, u32)>,
}

/// What a seed draws before it begins.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) nodes: usize,
    pub(super) partitions: u32,
    pub(super) copies: u32,
    pub(super) config: Config,
    pub(super) sessions: SessionConfig,
    pub(super) clients: usize,
    /// Between two operations of a client.
    pub(super) pause: Duration,
    /// How many of a hundred operations read.
    pub(super) reads_percent: u64,
    /// The most bytes that a payload has beside its number.
    pub(super) padding_max: u64,
    /// Records that are applied before the state is written down.
    pub(super) checkpoint_every: u64,
    /// Records that stay in the log below a checkpoint.
    pub(super) log_kept: u64,
    pub(super) latency: Duration,
    pub(super) jitter: Duration,
    /// Faults that are on.
    pub(super) faults: Vec<Kind>,
    /// Between two faults, about.
    pub(super) fault_pause: Duration,
    /// How many of a thousand messages get lost, are repeated, come late.
    pub(super) loss: u64,
    pub(super) repeats: u64,
    pub(super) late: u64,
    /// How many of a thousand commands and wishes get lost, are repeated, come late.
    pub(super) control_loss: u64,
    /// How many of a thousand evaluations and applications take long.
    pub(super) slow_work: u64,
    /// Between two looks of the controller; after which silence a node counts as dead, and as gone.
    pub(super) look_pause: Duration,
    pub(super) dead_after: Duration,
    pub(super) gone_after: Duration,
    /// Whether a change counts as durable when the operating system has it: a power cut loses what was
    /// acknowledged, and the node says so when it registers.
    pub(super) lazy: bool,
    /// Whether nodes' clocks run at other rates.
    pub(super) rates: bool,
}

impl Settings {
    pub(super) fn draw(chance: &mut Chance, options: &Options) -> Self {
        let nodes = chance.between(3, 7) as usize;
        let copies = if nodes >= 5 && chance.permille(250) { 5 } else { chance.between(2, 3) as u32 };
        let drawn = (nodes, chance.between(1, 6) as u32, copies);
        let (nodes, partitions, copies) = options.shape.unwrap_or(drawn);
        let mut strength = |most: u64| if chance.permille(500) { 0 } else { chance.between(1, most) };
        let (loss, repeats, late) = (strength(60), strength(60), strength(200));
        let (control_loss, slow_work) = (strength(150), strength(200));
        let mut settings = Self {
            nodes,
            partitions,
            copies,
            config: config(chance),
            sessions: SessionConfig { answers_max: 8, ..SessionConfig::default() },
            clients: chance.between(2, 4) as usize,
            pause: if chance.permille(300) { chance.millis(20, 100) } else { chance.millis(100, 900) },
            reads_percent: chance.between(20, 60),
            padding_max: chance.pick(&[16, 16, 400]).unwrap_or(16),
            checkpoint_every: chance.between(8, 80),
            log_kept: chance.between(0, 40),
            latency: chance.micros(100, 2_000),
            jitter: chance.micros(200, 4_000),
            faults: Kind::draw(chance),
            fault_pause: chance.millis(300, 4_000),
            loss,
            repeats,
            late,
            control_loss,
            slow_work,
            look_pause: chance.millis(30, 120),
            dead_after: chance.millis(300, 1_200),
            gone_after: chance.millis(2_000, 12_000),
            lazy: chance.permille(250),
            rates: chance.permille(700),
        };
        settings.make(options);
        settings
    }

    fn make(&mut self, options: &Options) {
        if options.calm {
            self.faults.clear();
            (self.loss, self.repeats, self.late, self.control_loss, self.slow_work) = (0, 0, 0, 0, 0);
        }
        if let Some(mistake) = options.mistake {
            self.config.mistakes = Mistakes::only(mistake);
            self.sessions.mistakes = Mistakes::only(mistake);
        }
    }
}

fn config(chance: &mut Chance) -> Config {
    let small = chance.permille(600);
    let bytes = |normal: usize, small_bytes: usize| if small { small_bytes } else { normal };
    Config {
        support: Duration::from_millis(chance.pick(&[150, 150, 300, 500]).unwrap_or(150)),
        window_bytes: bytes(4 << 20, 2_000),
        batch_bytes: bytes(256 << 10, 600),
        tail_bytes_max: bytes(4 << 20, 1_500),
        uncommitted_bytes_max: bytes(16 << 20, 20_000),
        // What is left out has to come back within the time that healing may take.
        expand_after_max: Duration::from_secs(5),
        stall_pause_max: Duration::from_secs(5),
        removal_grace: Duration::from_secs(chance.between(2, 20)),
        ..Config::default()
    }
}
