//! Keys and values: bytes, with a version, and a time at which they expire if they are to.
//!
//! - A [`Command`] changes entries and is answered by an [`Answer`]; a [`Question`] reads them, by what is [`Found`];
//!   an [`Event`] tells whoever watches what changed.
//! - The version of an entry grows with each change, and is unique in its partition: a write on condition of a
//!   version is a compare-and-set.
//! - Time is that of the log. An entry that expires at or before it is gone for every command and question. Its space
//!   comes back by [`Command::Sweep`], which the leader of a partition is to propose when
//!   [`Question::ExpiryDue`] says so.
//! - Whatever is refused changes nothing, and says why by a [`Refusal`]. Every bound is named in [`limits`].
//!
//! # Rows
//!
//! A row of the state begins with the service (1), then what kind of row it is. `namespace` is a length in a byte,
//! and the name; numbers are big-endian.
//!
//! | row | key | value |
//! | --- | --- | --- |
//! | entry | `e` namespace key | version (8), when it expires (8, the last time for never), the value |
//! | expiry | `x` when (8) namespace key | bytes of the value (4) |
//! | stats | `s` namespace | keys (8), bytes of values (8) |

mod answer;
mod change;
mod command;
mod event;
pub mod limits;
mod question;
mod read;
mod remove;
mod row;
mod store;
mod write;

#[cfg(test)]
mod tests;

use clusterkit_data::{Entry, Transaction};
use clusterkit_storage::state_store::StateError;
use serde::{Deserialize, Serialize};

pub use answer::{Answer, Limit, Outcome, Refusal, Refused};
pub use command::{Change, Command, Condition, Deadline, Expiry, Write};
pub use event::{Event, EventKind, EventValue};
pub use question::{Description, Found, PageEntry, Question, Scan, Stats, Value};

pub use store::{Cursor, Done, KvError, KvStore, Page, Place, Seen};

pub(crate) use read::query;

use crate::namespace::Namespace;
use change::Changes;

/// Which command wrote an entry: its offset in the log, plus one. It is above that of every earlier change of the
/// partition; entries that one command wrote have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version(pub u64);

/// Why a command ends early.
enum Stop {
    Refused(Refused),
    State(StateError),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.into())
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        Self::State(error)
    }
}

/// Carries out a command.
pub(crate) fn apply(
    namespace: &Namespace,
    command: &Command,
    entry: &Entry<'_>,
    state: &mut Transaction<'_>,
) -> Result<Answer, StateError> {
    let mut changes = Changes::new(state, entry);
    match carry_out(namespace, command, &mut changes) {
        Ok(answer) => {
            changes.finish()?;
            Ok(answer)
        }
        Err(Stop::Refused(refused)) => Ok(refused.into()),
        Err(Stop::State(error)) => Err(error),
    }
}

fn carry_out(
    namespace: &Namespace,
    command: &Command,
    changes: &mut Changes<'_, '_>,
) -> Result<Answer, Stop> {
    command.check()?;
    match command {
        Command::Batch { writes } => write::batch(namespace, writes, changes),
        Command::DeletePrefix { prefix, entries_max } => {
            remove::delete_prefix(namespace, prefix, *entries_max, changes)
        }
        Command::Sweep { entries_max } => remove::sweep(*entries_max, changes),
        Command::Write(write) => write::single(namespace, write, changes),
    }
}

fn bounded_size(what: Limit, size: usize, limit: usize) -> Result<(), Refusal> {
    if size <= limit {
        Ok(())
    } else {
        Err(Refusal::TooLarge { what, size: size as u64, limit: limit as u64 })
    }
}
