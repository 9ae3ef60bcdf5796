//! Random commands, against the naive twin and in batches of different sizes.

use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::replica::LogTime;

use super::lab::Lab;
use super::twin::{Twin, Watcher};
use crate::kv::{
    Answer, Change, Command, Condition, Deadline, Expiry, Found, Question, Scan, Stats, Version, Write,
};
use crate::namespace::Namespace;

const SEEDS: u64 = 60;
const COMMANDS: usize = 250;
const KEYS: [&str; 8] = ["a", "b", "ba", "bb", "b\u{ff}", "c", "ca", "cab"];
const NAMESPACES: [&str; 3] = ["default", "a", "zz"];

/// A small generator of numbers (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).expect("small")]
    }

    fn deadline(&mut self, now: u64) -> Deadline {
        match self.below(3) {
            0 => Deadline::At(LogTime(now.saturating_sub(2) + self.below(10))),
            _ => Deadline::After(Duration::from_millis(1 + self.below(20))),
        }
    }

    fn value(&mut self) -> Bytes {
        if self.below(3) == 0 { Bytes::from_static(b"text") } else { self.below(100).to_string().into() }
    }

    fn change(&mut self, now: u64) -> Change {
        let by = i64::try_from(self.below(20)).expect("small") - 10;
        match self.below(12) {
            0 => Change::Append { suffix: self.value() },
            1 => Change::Check,
            2 => Change::Decrement { by },
            3 | 4 => Change::Delete,
            5 => Change::Expire { deadline: self.deadline(now) },
            6 => Change::Increment { by: if self.below(9) == 0 { i64::MAX } else { by } },
            7 => Change::Persist,
            8 => Change::Put { value: self.value(), expiry: Expiry::Keep },
            9 => Change::Put { value: self.value(), expiry: Expiry::Never },
            _ => Change::Put { value: self.value(), expiry: Expiry::Set(self.deadline(now)) },
        }
    }

    fn write(&mut self, (offset, now): (u64, u64)) -> Write {
        let condition = match self.below(12) {
            0 => Condition::MustExist,
            1 => Condition::MustNotExist,
            2 => Condition::VersionIs(Version(offset.saturating_sub(self.below(4)))),
            _ => Condition::Any,
        };
        Write { key: self.one_of(&KEYS).into(), condition, change: self.change(now) }
    }

    fn command(&mut self, at: (u64, u64)) -> Command {
        let entries_max = u32::try_from(self.below(4)).expect("small");
        match self.below(10) {
            0 => Command::DeletePrefix { prefix: self.one_of(&["", "b", "ca", "d"]).into(), entries_max },
            1 => Command::Sweep { entries_max },
            2..5 => Command::Batch { writes: (0..self.below(5)).map(|_| self.write(at)).collect() },
            _ => Command::Write(self.write(at)),
        }
    }

    fn story(seed: u64) -> Vec<(Namespace, u64, Command)> {
        let (mut chance, mut now) = (Self(seed), 0);
        let command = |offset| {
            now += chance.below(4);
            let namespace = Namespace::new(chance.one_of(&NAMESPACES)).expect("a name");
            (namespace, now, chance.command((offset, now)))
        };
        (0..COMMANDS as u64).map(command).collect()
    }
}

fn compare(lab: &Lab, twin: &Twin) {
    for name in NAMESPACES {
        let namespace = Namespace::new(name).expect("a name");
        let own = || twin.entries.iter().filter(|((space, _), _)| space == name);
        let live = own().filter(|(_, held)| held.2.is_none_or(|at| at > lab.now));
        let Found::Page { entries, cursor: None } = lab.ask_in(&namespace, &Question::Scan(Scan::new("")))
        else {
            panic!("a page")
        };
        let found = entries.into_iter().map(|entry| {
            let description = entry.description;
            let at = description.expires_at.map(|at| at.0);
            (entry.key, (entry.value.expect("asked for"), description.version.0, at))
        });
        let expect: Vec<_> = live.map(|((_, key), held)| (key.clone(), held.clone())).collect();
        assert_eq!(found.collect::<Vec<_>>(), expect);
        let value_bytes = own().map(|(_, held)| held.0.len() as u64).sum();
        let stats = Stats { keys: own().count() as u64, value_bytes };
        assert_eq!(lab.ask_in(&namespace, &Question::Stats), Found::Stats(stats));
    }
    let at = twin.entries.values().filter_map(|held| held.2).min().map(LogTime);
    assert_eq!(lab.ask(&Question::ExpiryDue), Found::ExpiryDue { at });
}

#[test]
fn random_commands_do_what_the_twin_does() {
    for seed in 0..SEEDS {
        let (mut lab, mut twin, mut watcher) = (Lab::default(), Twin::default(), Watcher::default());
        for (offset, (namespace, now, command)) in (0..).zip(Chance::story(seed)) {
            let answer = lab.batch(&[(now, command.encode(&namespace))]).remove(0);
            let expect = twin.apply(&namespace, &command, (offset, now));
            assert_eq!(Answer::decode(&answer), Ok(expect), "seed {seed}, offset {offset}: {command:?}");
            lab.events.drain(..).for_each(|(namespace, event)| watcher.see(&namespace, &event));
            assert_eq!(watcher.entries, twin.entries, "seed {seed}, offset {offset}: {command:?}");
            compare(&lab, &twin);
        }
    }
}

#[test]
fn batches_of_any_size_come_to_the_same_state_answers_and_events() {
    for seed in 0..SEEDS {
        let story: Vec<_> = Chance::story(seed)
            .into_iter()
            .map(|(namespace, now, command)| (now, command.encode(&namespace)))
            .collect();
        let run = |size: usize| {
            let mut lab = Lab::default();
            let answers: Vec<_> = story.chunks(size).flat_map(|batch| lab.batch(batch)).collect();
            (lab.digest(), answers, lab.events)
        };
        let expect = run(1);
        for size in [2, 7, 64, COMMANDS] {
            assert_eq!(run(size), expect, "seed {seed}, batches of {size}");
        }
    }
}
