//! Which fault met which step of the protocol, and how often.

use std::fmt;

use super::faults::Kind;
use super::world::World;

macro_rules! steps {
    ($($name:ident),* $(,)?) => {
        /// A step of the protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Step { $($name),* }

        impl Step {
            pub(super) const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

steps! {
    Ack, Alarm, Append, Attach, Barrier, Damaged, Diverge, Drop, Elect, ElectUnclean, Fenced, Fetch, FetchNothing,
    Handoff, Heal, Install, Liveness, Move, NotEnough, Read, Refused, Register, Remove, Renew, Reply, Resign, Revoke, SetInSync,
    Snapshot, SnapshotRefused, Stalled, Support, Transfer, Truncate, Wish,
}

/// Counts of steps, by the faults that were there shortly before.
#[derive(Debug, Clone)]
pub struct Coverage {
    /// By kind of fault and step; the first row is without any.
    counts: Vec<[u64; Step::ALL.len()]>,
    faults: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { counts: vec![[0; Step::ALL.len()]; Kind::ALL.len() + 1], faults: vec![0; Kind::ALL.len()] }
    }
}

impl Coverage {
    pub(super) fn note_fault(&mut self, kind: Kind) {
        self.faults[kind as usize] += 1;
    }

    /// Adds what another run has covered.
    pub fn add(&mut self, other: &Self) {
        for (row, others) in self.counts.iter_mut().zip(&other.counts) {
            row.iter_mut().zip(others).for_each(|(count, other)| *count += other);
        }
        self.faults.iter_mut().zip(&other.faults).for_each(|(count, other)| *count += other);
    }

    /// Pairs of a fault and a step that never met, named.
    #[must_use]
    pub fn gaps(&self) -> Vec<String> {
        let cells = Kind::ALL.iter().flat_map(|kind| Step::ALL.iter().map(move |step| (*kind, *step)));
        let empty = cells.filter(|(kind, step)| self.counts[*kind as usize + 1][*step as usize] == 0);
        empty.map(|(kind, step)| format!("{kind:?} x {step:?}")).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>16} {:>9}", "", "(faults)")?;
        Kind::ALL.iter().try_for_each(|kind| write!(f, " {:>7.7}", format!("{kind:?}")))?;
        write!(f, "\n{:>16} {:>9}", "(times)", "")?;
        self.faults.iter().try_for_each(|count| write!(f, " {:>7}", short(*count)))?;
        writeln!(f)?;
        for step in Step::ALL {
            write!(f, "{:>16} {:>9}", format!("{step:?}"), short(self.counts[0][*step as usize]))?;
            let row = self.counts[1..].iter().map(|counts| counts[*step as usize]);
            row.into_iter().try_for_each(|count| write!(f, " {:>7}", short(count)))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

fn short(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..10_000_000 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

impl World {
    /// Counts a step under every fault that is there, or was shortly before.
    pub(super) fn cover(&mut self, step: Step) {
        let mut recent = self.mischief.recent(self.now);
        self.coverage.counts[0][step as usize] += 1;
        while recent != 0 {
            let kind = recent.trailing_zeros() as usize;
            self.coverage.counts[kind + 1][step as usize] += 1;
            recent &= recent - 1;
        }
    }
}
