//! The story of a run: a hash of all of it, and its lines where somebody reads them.

use clusterkit_core::id::PartitionId;
use clusterkit_core::time::Instant;

use super::chance::roll;

/// Lines that are shown of the partition where a rule was broken.
const LINES_SHOWN: usize = 80;

/// What happened, in order.
#[derive(Debug, Default)]
pub(super) struct Trace {
    hash: u64,
    lines: Option<Vec<(Option<PartitionId>, String)>>,
}

impl Trace {
    pub(super) fn new(keeps_lines: bool) -> Self {
        Self { hash: 0, lines: keeps_lines.then(Vec::new) }
    }

    /// Takes a step into the hash.
    pub(super) fn note(&mut self, value: u64) {
        self.hash = roll(self.hash, value);
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    pub(super) fn is_kept(&self) -> bool {
        self.lines.is_some()
    }

    /// Keeps a line of the story when somebody wants to read it.
    pub(super) fn tell(
        &mut self,
        now: Instant,
        partition: Option<PartitionId>,
        line: impl FnOnce() -> String,
    ) {
        if let Some(lines) = &mut self.lines {
            let seconds = now.elapsed().as_secs_f64();
            lines.push((partition, format!("{seconds:>12.6} {}", line())));
        }
    }

    /// The last lines about `partition`, or about the cluster.
    pub(super) fn tail(&self, partition: Option<PartitionId>) -> Vec<String> {
        let concerns =
            |about: &Option<PartitionId>| about.is_none() || partition.is_none() || *about == partition;
        let lines = self.lines.iter().flatten().filter(|(about, _)| concerns(about));
        let mut tail: Vec<_> = lines.rev().take(LINES_SHOWN).map(|(_, line)| line.clone()).collect();
        tail.reverse();
        tail
    }

    /// All lines.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().flatten().map(|(_, line)| line.as_str())
    }
}
