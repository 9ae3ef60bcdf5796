//! A checker of linearizability.
//!
//! A history is what clients of some objects asked for and were told, and when. It is linearizable if every object
//! has an order of its operations that explains all outputs, in which every operation that returned comes before
//! those that were invoked later (Herlihy and Wing 1990). [`check`] finds such orders, or proves that there are none
//! and shows the shortest contradiction.
//!
//! ```
//! use clusterkit_sim::linearizability::{History, Limits, Register, check};
//!
//! let text = "history register
//!     p0 k1 0..10 write 1 -> done
//!     p0 k1 20..30 write 2 -> done
//!     p1 k1 40..50 read -> 1";
//! let history = History::read::<Register>(text).expect("a history");
//! let report = check(&Register::default(), &history, Limits::default());
//! assert!(!report.is_linearizable());
//! println!("{report}");
//! ```
//!
//! # Outcomes
//!
//! An operation whose process was told an output took effect once, between invocation and return. One that was refused
//! never did. Of all others nothing is known ([`Outcome::Unknown`]): they may take effect at any time after their
//! invocation, also when their process has gone on, or never. A time-out is unknown, not failed.
//!
//! # The search
//!
//! It is that of Wing and Gong (1993): put an operation first that no other one has to come before, see whether the
//! [`Specification`] allows its output, go on from the state after it, and go back where that leads nowhere. Since
//! orders that have let the same operations take effect and have come to the same state have the same future, each such
//! configuration is looked at once (Lowe 2017). What makes it fast here:
//!
//! - Each object is checked by itself: a history is linearizable if and only if it is for each object (Herlihy and Wing
//!   1990), and one operation names one object. This is the partitioning by key that Horn and Kroening (2015) state in
//!   general, and that the checker Porcupine has made common.
//! - Operations take effect just in time (Lowe 2017): returns are gone through in their order, and before a return only
//!   that operation has to take effect, after as few of the others as it needs. A configuration is therefore a
//!   state and what of the operations under way has taken effect, not a set over the whole history.
//! - An observer ([`Specification::is_observer`]), as a read, takes effect as soon as it fits the state. It may stand
//!   there in any order in which it comes later: nothing between depends on it.
//! - Unknown operations need not be used up. A configuration that has spent fewer of them than another can do all
//!   that the other can, so only those that have spent the least are kept. Of unknown operations with the same
//!   input the first is taken first. None is tried once no output to come may be owed to it
//!   ([`Specification::last_use`]); a write of a value that was never found is left out from the beginning.
//!   And none is tried that only a blind operation ([`Specification::is_blind`]) can follow, as a write.
//! - A specification sees all outputs beforehand ([`Specification::foreseeing`]). It may refuse what one of them rules
//!   out, as a list that grows differently from a list that was read, and take as one what none of them tells apart,
//!   as all values that no read has found. A configuration in which an operation under way can no longer have its
//!   output ([`Specification::is_missed`]) is given up at once.
//!
//! The problem is NP-complete (Gibbons and Korach 1997), so the search counts its steps and gives up at a limit. Then
//! the operations close to where it was are searched with all others loosened, as below, which may still find a
//! contradiction; if not, the verdict is [`Verdict::Undecided`], which is no pass.
//!
//! # Counterexamples
//!
//! The search ends at the first return that no configuration gets past, and what came later is cut off. Then operations
//! are loosened: taken as unknown, and left out if they cannot matter then. First all but the last few, and then in runs
//! that get shorter, as in delta debugging (Zeller and Hildebrandt 2002). Each step keeps the proof: what has no order with an operation loose has none
//! with its outcome. What is left contradicts itself, and has an order as soon as one more is loosened.
//!
//! # Figures
//!
//! Measured on one core of a small virtual machine, with optimisation; ten processes, a quarter of the operations failed
//! or unknown, unknown ones taking effect up to ten operations later or never. A check takes at most 90 MiB here.
//!
//! | history | register | counter | list |
//! | --- | --- | --- | --- |
//! | 10,000 operations on 100 keys | 5 ms | 5 ms | 12 ms |
//! | 100,000 operations on 1,000 keys | 0.15 s | 0.13 s | 0.26 s |
//! | 1,000 operations on 1 key | 1 ms | 50 ms | 3 ms |
//! | 3,000 operations on 1 key | 20 ms | 0.2 s | 40 ms |
//! | 10,000 operations on 1 key | 0.2 s | undecided after 3 s | 0.3 s |
//!
//! An anomaly in the middle of 10,000 operations on 100 keys is shown after 1 ms, of 1,000 on one key after 0.1 s, of
//! 3,000 on one key after 1 s; of 10,000 on one key, half of those tried are undecided after 1 s. So a workload that is to
//! be checked spreads over keys, a few hundred operations on each.
//!
//! # Sources
//!
//! - M. Herlihy, J. Wing: Linearizability: a correctness condition for concurrent objects. TOPLAS 12(3), 1990.
//! - J. Wing, C. Gong: Testing and verifying concurrent objects. JPDC 17(1-2), 1993.
//! - P. Gibbons, E. Korach: Testing shared memories. SIAM J. Comput. 26(4), 1997.
//! - A. Zeller, R. Hildebrandt: Simplifying and isolating failure-inducing input. TSE 28(2), 2002.
//! - A. Horn, D. Kroening: Faster linearizability checking via P-compositionality. FORTE 2015.
//! - G. Lowe: Testing for linearizability. Concurrency and Computation 29(4), 2017.
//! - A. Athalye: Porcupine, a fast linearizability checker in Go, 2017.

mod bits;
mod check;
mod counter;
mod counterexample;
mod history;
mod limits;
mod list;
mod register;
mod schedule;
mod search;
mod shorten;
mod specification;
#[cfg(test)]
mod tests;
mod text;

pub use check::{Limits, OperationCounts, Report, Verdict, check};
pub use counter::{Counter, CounterInput, CounterOutput};
pub use counterexample::Counterexample;
pub use history::{
    History, HistoryError, Invocation, Key, Moment, Operation, OperationId, Outcome, Process, Recorder,
};
pub use limits::{OPERATIONS_MAX, STEPS_MAX, STEPS_PER_KEY, STEPS_SHORTENING};
pub use list::{Chain, List, ListInput, ListOutput};
pub use register::{Register, RegisterInput, RegisterOutput, Value};
pub use specification::{NotationError, Specification};
pub use text::{TextError, specification_name};
