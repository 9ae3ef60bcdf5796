//! The service written down naively: a map that is copied for each batch.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::codec::millis;
use crate::kv::{
    Answer, Change, Command, Condition, Deadline, Event, EventKind, EventValue, Expiry, Outcome, Refusal,
    Refused, Version, Write,
};
use crate::namespace::Namespace;

/// A value, its version, and when it expires.
pub(super) type Held = (Bytes, u64, Option<u64>);
/// Entries by namespace and key, those that expired and were not swept too.
pub(super) type Entries = BTreeMap<(String, Bytes), Held>;

#[derive(Debug, Default)]
pub(super) struct Twin {
    pub(super) entries: Entries,
}

impl Twin {
    pub(super) fn apply(
        &mut self,
        namespace: &Namespace,
        command: &Command,
        (offset, now): (u64, u64),
    ) -> Answer {
        let name = namespace.as_str();
        match command {
            Command::Batch { writes } => match self.write_all(name, writes, (offset + 1, now)) {
                Ok(outcomes) => Answer::BatchWritten { outcomes },
                Err(refused) => Answer::Refused(refused),
            },
            Command::Write(write) => {
                match self.write_all(name, std::slice::from_ref(write), (offset + 1, now)) {
                    Ok(outcomes) => Answer::Written(outcomes[0]),
                    Err(refused) => Answer::Refused(refused),
                }
            }
            Command::DeletePrefix { prefix, entries_max } => {
                let has_prefix = |(space, key): &&(String, Bytes)| space == name && key.starts_with(prefix);
                let keys: Vec<_> = self.entries.keys().filter(has_prefix).cloned().collect();
                let count = (*entries_max as usize).max(1);
                let mut deleted = 0;
                for key in keys.iter().take(count) {
                    let (_, _, at) = self.entries.remove(key).expect("it was found");
                    deleted += u32::from(at.is_none_or(|at| at > now));
                }
                Answer::PrefixDeleted { deleted, more: keys.len() > count }
            }
            Command::Sweep { entries_max } => {
                let mut due: Vec<_> =
                    self.entries.iter().filter_map(|(key, held)| Some((held.2?, key.clone()))).collect();
                due.retain(|(at, _)| *at <= now);
                due.sort_by_key(|(at, (name, key))| (*at, name.len(), name.clone(), key.clone()));
                let count = (*entries_max as usize).max(1);
                let expired =
                    due.iter().take(count).filter(|(_, key)| self.entries.remove(key).is_some()).count();
                Answer::Swept { expired: u32::try_from(expired).expect("few"), more: due.len() > count }
            }
        }
    }

    fn write_all(
        &mut self,
        name: &str,
        writes: &[Write],
        (version, now): (u64, u64),
    ) -> Result<Vec<Outcome>, Refused> {
        let at =
            |position: usize, refusal| Refused { position: u32::try_from(position).expect("few"), refusal };
        for (position, write) in writes.iter().enumerate() {
            let current = self.live(name, &write.key, now).map(|held| Version(held.1));
            check(write.condition, current).map_err(|refusal| at(position, refusal))?;
        }
        let before = self.entries.clone();
        let mut outcomes = Vec::new();
        for (position, write) in writes.iter().enumerate() {
            match self.write(name, write, (version, now)) {
                Ok(outcome) => outcomes.push(outcome),
                Err(refusal) => {
                    self.entries = before;
                    return Err(at(position, refusal));
                }
            }
        }
        // An entry that expired and was deleted stays until it is swept.
        for write in writes {
            let key = (name.to_owned(), write.key.clone());
            if let Some(held) = before.get(&key).filter(|held| held.2.is_some_and(|at| at <= now)) {
                self.entries.entry(key).or_insert_with(|| held.clone());
            }
        }
        Ok(outcomes)
    }

    pub(super) fn live(&self, name: &str, key: &Bytes, now: u64) -> Option<&Held> {
        let held = self.entries.get(&(name.to_owned(), key.clone()))?;
        held.2.is_none_or(|at| at > now).then_some(held)
    }

    fn write(&mut self, name: &str, write: &Write, (version, now): (u64, u64)) -> Result<Outcome, Refusal> {
        let current = self.live(name, &write.key, now).cloned();
        let version = Version(version);
        let expires_at = current.as_ref().and_then(|held| held.2);
        let value = || current.as_ref().map(|held| held.0.clone());
        let (after, outcome) = match &write.change {
            Change::Append { suffix } => {
                let value = [&value().unwrap_or_default()[..], suffix].concat();
                let value_bytes = u32::try_from(value.len()).expect("small");
                (Some((value.into(), expires_at)), Outcome::Appended { value_bytes, version })
            }
            Change::Check => return Ok(Outcome::Checked),
            Change::Decrement { by } => number(value(), i128::from(-by), expires_at, version)?,
            Change::Increment { by } => number(value(), i128::from(*by), expires_at, version)?,
            Change::Delete => (None, Outcome::Deleted { existed: current.is_some() }),
            Change::Expire { deadline } => {
                let at = time(*deadline, now);
                let expires_at = clusterkit_core::replica::LogTime(at);
                (
                    Some((value().ok_or(Refusal::NotFound)?, Some(at))),
                    Outcome::Expires { expires_at, version },
                )
            }
            Change::Persist => {
                let held = current.as_ref().ok_or(Refusal::NotFound)?;
                if held.2.is_none() {
                    return Ok(Outcome::Persisted { changed: false, version: Version(held.1) });
                }
                (Some((held.0.clone(), None)), Outcome::Persisted { changed: true, version })
            }
            Change::Put { value, expiry } => {
                let at = match expiry {
                    Expiry::Keep => expires_at,
                    Expiry::Never => None,
                    Expiry::Set(deadline) => Some(time(*deadline, now)),
                };
                (Some((value.clone(), at)), Outcome::Put { replaced: current.is_some(), version })
            }
        };
        let key = (name.to_owned(), write.key.clone());
        match after {
            Some((value, at)) => drop(self.entries.insert(key, (value, version.0, at))),
            None => drop(self.entries.remove(&key)),
        }
        Ok(outcome)
    }
}

type Written = (Option<(Bytes, Option<u64>)>, Outcome);

fn number(value: Option<Bytes>, by: i128, at: Option<u64>, version: Version) -> Result<Written, Refusal> {
    let text = value.map_or("0".to_owned(), |value| String::from_utf8_lossy(&value).into_owned());
    let number: i64 = text.parse().map_err(|_| Refusal::NotANumber)?;
    let value = i64::try_from(i128::from(number) + by).map_err(|_| Refusal::NumberOverflow)?;
    Ok((Some((value.to_string().into(), at)), Outcome::Number { value, version }))
}

fn check(condition: Condition, current: Option<Version>) -> Result<(), Refusal> {
    match (condition, current) {
        (Condition::Any, _) | (Condition::MustExist, Some(_)) | (Condition::MustNotExist, None) => Ok(()),
        (Condition::MustExist, None) => Err(Refusal::NotFound),
        (Condition::MustNotExist, Some(version)) => Err(Refusal::Exists { version }),
        (Condition::VersionIs(version), _) if current == Some(version) => Ok(()),
        (Condition::VersionIs(_), current) => Err(Refusal::VersionMismatch { current }),
    }
}

fn time(deadline: Deadline, now: u64) -> u64 {
    match deadline {
        Deadline::After(ttl) => now + millis::of(ttl),
        Deadline::At(time) => time.0,
    }
}

/// What somebody knows who watched from the beginning.
#[derive(Debug, Default)]
pub(super) struct Watcher {
    pub(super) entries: Entries,
    version: u64,
}

impl Watcher {
    pub(super) fn see(&mut self, namespace: &Namespace, event: &Event) {
        assert!(event.version.0 >= self.version, "events are in order");
        self.version = event.version.0;
        let key = (namespace.as_str().to_owned(), event.key.clone());
        match &event.kind {
            EventKind::Put { value: EventValue::Whole(value), expires_at } => {
                let held = (value.clone(), self.version, expires_at.map(|at| at.0));
                if let Some(before) = self.entries.insert(key, held) {
                    assert!(before.1 < self.version, "a key has one event of a command");
                }
            }
            EventKind::Put { .. } => panic!("values are small here"),
            EventKind::Deleted | EventKind::Expired => {
                assert!(self.entries.remove(&key).is_some(), "only what was there ends");
            }
        }
    }
}
