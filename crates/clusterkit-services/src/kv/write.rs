//! Writes: all conditions first, then each write on what those before it left, then the rows.

use std::collections::BTreeMap;

use bytes::Bytes;
use clusterkit_core::replica::LogTime;
use clusterkit_data::Transaction;
use clusterkit_storage::state_store::StateError;

use super::answer::{Answer, Limit, Outcome, Refusal, Refused};
use super::change::Changes;
use super::command::{Change, Condition, Expiry, Write};
use super::event::EventKind;
use super::limits::{BATCH_WRITTEN_BYTES_MAX, KEPT_BYTES_MAX, VALUE_BYTES_MAX};
use super::question::Description;
use super::{Stop, Version, bounded_size, row};
use crate::namespace::Namespace;

pub(super) fn single(
    namespace: &Namespace,
    write: &Write,
    changes: &mut Changes<'_, '_>,
) -> Result<Answer, Stop> {
    let outcomes = write_all(namespace, std::slice::from_ref(write), changes)?;
    Ok(Answer::Written(outcomes[0]))
}

pub(super) fn batch(
    namespace: &Namespace,
    writes: &[Write],
    changes: &mut Changes<'_, '_>,
) -> Result<Answer, Stop> {
    Ok(Answer::BatchWritten { outcomes: write_all(namespace, writes, changes)? })
}

fn write_all(
    namespace: &Namespace,
    writes: &[Write],
    changes: &mut Changes<'_, '_>,
) -> Result<Vec<Outcome>, Stop> {
    let mut draft = Draft {
        namespace,
        state: changes.state,
        now: changes.now,
        version: changes.version,
        slots: BTreeMap::new(),
        written_bytes: 0,
    };
    for (position, write) in writes.iter().enumerate() {
        draft.load(&write.key)?;
        draft.check(write).map_err(|refusal| Refused::at(position, refusal))?;
    }
    let mut outcomes = Vec::with_capacity(writes.len());
    for (position, write) in writes.iter().enumerate() {
        outcomes.push(draft.carry_out(write).map_err(|stop| stop.at(position))?);
    }
    for (key, slot) in draft.slots {
        slot.settle((namespace, key), changes);
    }
    Ok(outcomes)
}

impl Stop {
    fn at(self, position: usize) -> Self {
        match self {
            Self::Refused(Refused { refusal, .. }) => Self::Refused(Refused::at(position, refusal)),
            Self::State(error) => Self::State(error),
        }
    }
}

/// What writes come to, before anything of it is done.
struct Draft<'a, 'b, 's> {
    namespace: &'a Namespace,
    state: &'b Transaction<'s>,
    now: LogTime,
    version: Version,
    slots: BTreeMap<&'a Bytes, Slot>,
    written_bytes: usize,
}

/// An entry before and after.
struct Slot {
    /// As it is in the state, if it has not expired.
    live: Option<Description>,
    /// As it is in the state, if it has expired.
    expired: Option<Description>,
    /// Its value, if it is small.
    kept: Option<Bytes>,
    after: After,
}

/// What comes of an entry.
enum After {
    Put { value: Bytes, expires_at: Option<LogTime> },
    Removed,
    Same,
}

impl<'a> Draft<'a, '_, '_> {
    fn load(&mut self, key: &'a Bytes) -> Result<(), StateError> {
        if !self.slots.contains_key(key) {
            let row = self.state.get(&row::entry_key(self.namespace, key))?;
            self.slots.insert(key, Slot::new(row.map(row::read_entry), self.now));
        }
        Ok(())
    }

    /// Conditions are on the entry as it is in the state.
    fn check(&self, write: &Write) -> Result<(), Refusal> {
        let current = self.slot(&write.key).live.map(|entry| entry.version);
        match (write.condition, current) {
            (Condition::MustExist, None) => Err(Refusal::NotFound),
            (Condition::MustNotExist, Some(version)) => Err(Refusal::Exists { version }),
            (Condition::VersionIs(version), current) if current != Some(version) => {
                Err(Refusal::VersionMismatch { current })
            }
            _ => Ok(()),
        }
    }

    fn carry_out(&mut self, write: &'a Write) -> Result<Outcome, Stop> {
        let key = &write.key;
        match &write.change {
            Change::Append { suffix } => self.append(key, suffix),
            Change::Check => Ok(Outcome::Checked),
            Change::Decrement { by } => self.count(key, |number| number.checked_sub(*by)),
            Change::Delete => Ok(self.delete(key)),
            Change::Expire { deadline } => self.expire(key, deadline.time(self.now)),
            Change::Increment { by } => self.count(key, |number| number.checked_add(*by)),
            Change::Persist => self.persist(key),
            Change::Put { value, expiry } => self.put(key, value, *expiry),
        }
    }

    fn append(&mut self, key: &'a Bytes, suffix: &Bytes) -> Result<Outcome, Stop> {
        let value = self.value(key)?.unwrap_or_default();
        bounded_size(Limit::ValueBytes, value.len() + suffix.len(), VALUE_BYTES_MAX)?;
        let value: Bytes = [&value[..], suffix].concat().into();
        let value_bytes = row::count(&value);
        self.set(key, value, self.expires_at(key))?;
        Ok(Outcome::Appended { value_bytes, version: self.version })
    }

    fn count(&mut self, key: &'a Bytes, step: impl Fn(i64) -> Option<i64>) -> Result<Outcome, Stop> {
        let number = self.value(key)?.map_or(Some(0), |value| read_number(&value));
        let value = step(number.ok_or(Refusal::NotANumber)?).ok_or(Refusal::NumberOverflow)?;
        self.set(key, value.to_string().into(), self.expires_at(key))?;
        Ok(Outcome::Number { value, version: self.version })
    }

    fn delete(&mut self, key: &'a Bytes) -> Outcome {
        let existed = self.exists(key);
        self.slot_mut(key).after = After::Removed;
        Outcome::Deleted { existed }
    }

    fn expire(&mut self, key: &'a Bytes, expires_at: LogTime) -> Result<Outcome, Stop> {
        let value = self.value(key)?.ok_or(Refusal::NotFound)?;
        self.set(key, value, Some(expires_at))?;
        Ok(Outcome::Expires { expires_at, version: self.version })
    }

    fn persist(&mut self, key: &'a Bytes) -> Result<Outcome, Stop> {
        if self.exists(key) && self.expires_at(key).is_none() {
            let version = self.slot(key).version(self.version).ok_or(Refusal::NotFound)?;
            return Ok(Outcome::Persisted { changed: false, version });
        }
        let value = self.value(key)?.ok_or(Refusal::NotFound)?;
        self.set(key, value, None)?;
        Ok(Outcome::Persisted { changed: true, version: self.version })
    }

    fn put(&mut self, key: &'a Bytes, value: &Bytes, expiry: Expiry) -> Result<Outcome, Stop> {
        let replaced = self.exists(key);
        let expires_at = match expiry {
            Expiry::Keep => self.expires_at(key),
            Expiry::Never => None,
            Expiry::Set(deadline) => Some(deadline.time(self.now)),
        };
        self.set(key, value.clone(), expires_at)?;
        Ok(Outcome::Put { replaced, version: self.version })
    }

    fn set(&mut self, key: &'a Bytes, value: Bytes, expires_at: Option<LogTime>) -> Result<(), Refusal> {
        self.written_bytes += key.len() + value.len();
        bounded_size(Limit::BatchWrittenBytes, self.written_bytes, BATCH_WRITTEN_BYTES_MAX)?;
        self.slot_mut(key).after = After::Put { value, expires_at };
        Ok(())
    }

    /// The value as the writes so far left it.
    fn value(&self, key: &Bytes) -> Result<Option<Bytes>, StateError> {
        let slot = self.slot(key);
        match &slot.after {
            After::Put { expires_at, .. } if row::has_expired(*expires_at, self.now) => Ok(None),
            After::Put { value, .. } => Ok(Some(value.clone())),
            After::Same if slot.live.is_some() && slot.kept.is_none() => {
                let row = self.state.get(&row::entry_key(self.namespace, key))?;
                Ok(row.map(|row| row::read_entry(row).1))
            }
            After::Same => Ok(slot.kept.clone()),
            After::Removed => Ok(None),
        }
    }

    fn exists(&self, key: &Bytes) -> bool {
        match &self.slot(key).after {
            After::Put { expires_at, .. } => !row::has_expired(*expires_at, self.now),
            After::Removed => false,
            After::Same => self.slot(key).live.is_some(),
        }
    }

    /// When the entry expires as the writes so far left it. A deadline that has passed is none of a later entry.
    fn expires_at(&self, key: &Bytes) -> Option<LogTime> {
        let expires_at = match &self.slot(key).after {
            After::Put { expires_at, .. } => *expires_at,
            After::Removed => None,
            After::Same => self.slot(key).live.and_then(|entry| entry.expires_at),
        };
        expires_at.filter(|at| *at > self.now)
    }

    fn slot(&self, key: &Bytes) -> &Slot {
        self.slots.get(key).expect("all keys were loaded")
    }

    fn slot_mut(&mut self, key: &'a Bytes) -> &mut Slot {
        self.slots.get_mut(key).expect("all keys were loaded")
    }
}

impl Slot {
    fn new(stored: Option<(Description, Bytes)>, now: LogTime) -> Self {
        let mut slot = Self { live: None, expired: None, kept: None, after: After::Same };
        match stored {
            Some((entry, _)) if row::has_expired(entry.expires_at, now) => slot.expired = Some(entry),
            Some((entry, value)) => {
                slot.live = Some(entry);
                slot.kept = (value.len() <= KEPT_BYTES_MAX).then_some(value);
            }
            None => {}
        }
        slot
    }

    /// The version that the entry will have; `own` is that of the command.
    fn version(&self, own: Version) -> Option<Version> {
        match self.after {
            After::Put { .. } => Some(own),
            After::Removed => None,
            After::Same => self.live.map(|entry| entry.version),
        }
    }

    /// Writes what came of the entry. One that expired ends before another takes its place.
    fn settle(self, at: (&Namespace, &Bytes), changes: &mut Changes<'_, '_>) {
        match self.after {
            After::Put { value, expires_at } => {
                if let Some(expired) = &self.expired {
                    changes.remove(at, expired, EventKind::Expired);
                }
                changes.put(at, self.live.as_ref(), (&value, expires_at));
            }
            After::Removed => {
                if let Some(live) = &self.live {
                    changes.remove(at, live, EventKind::Deleted);
                }
            }
            After::Same => {}
        }
    }
}

/// The number that a value is: only the text that writing the number would give.
fn read_number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_text_of_a_number_is_one() {
        let check =
            |text: &str, expect: Option<i64>| assert_eq!(read_number(text.as_bytes()), expect, "{text}");
        check("0", Some(0));
        check("-12", Some(-12));
        check("9223372036854775807", Some(i64::MAX));
        check("-9223372036854775808", Some(i64::MIN));
        for text in ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "9223372036854775808", "\u{661}"] {
            check(text, None);
        }
    }
}
