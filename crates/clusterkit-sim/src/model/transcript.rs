//! Traces as text: what a walk prints can be kept in a file and replayed.

use std::fmt;

use super::heal::Healing;
use super::limits::NODES_MAX;
use super::message::{Kind, Message};
use super::rules::{Invariant, Rule, Without};
use super::state::{NONE, Setting, Verdict, World};
use super::step::{Action, Step};

/// Why a trace cannot be read. Nothing was replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[error("line {line} of the trace cannot be read")]
pub struct TraceError {
    /// The line, counted from one.
    pub line: usize,
}

/// Replays a trace as [`Trace`](super::Trace) prints it, with the rules of `without` taken out: what breaks, if
/// anything does. Steps that cannot be taken are left out, as where a rule that was missing is back.
///
/// # Errors
///
/// [`TraceError`] if `text` is not such a trace.
pub fn replay(text: &str, without: &[Rule]) -> Result<Option<Invariant>, TraceError> {
    let mut script = Script::default();
    for (at, line) in text.lines().enumerate().skip(1) {
        let mut words = Words { rest: line.trim() };
        script.line(&mut words).ok_or(TraceError { line: at + 1 })?;
    }
    let mut setting = script.setting.ok_or(TraceError { line: 2 })?;
    setting.without = Without::of(without);
    let mut world = World::new(setting);
    for step in &script.steps {
        if world.verdict == Verdict::Fine {
            world.take_step(step);
        }
    }
    if let Some(healing) = script.healing.filter(|_| world.verdict == Verdict::Fine)
        && !healing.run(&mut world)
    {
        world.fail(Invariant::I15);
    }
    Ok(match world.verdict {
        Verdict::Broken(invariant) => Some(invariant),
        Verdict::Fine | Verdict::Over => None,
    })
}

#[derive(Default)]
struct Script {
    setting: Option<Setting>,
    steps: Vec<Step>,
    healing: Option<Healing>,
}

impl Script {
    fn line(&mut self, words: &mut Words<'_>) -> Option<()> {
        match words.next() {
            None => {}
            Some("world") => self.setting = Some(read_setting(words)?),
            Some("heal") => {
                let dead = words.next().is_some();
                let dead = if dead { Some(words.number()?) } else { None };
                self.healing = Some(Healing { dead });
            }
            Some(_) => self.steps.push(read_step(words)?),
        }
        Some(())
    }
}

struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (word, rest) = self.rest.split_once(' ').unwrap_or((self.rest, ""));
        self.rest = rest.trim_start();
        Some(word).filter(|word| !word.is_empty())
    }

    fn number<T: std::str::FromStr>(&mut self) -> Option<T> {
        self.next()?.parse().ok()
    }

    /// A number with its name before it.
    fn named<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        (self.next()? == name).then(|| self.number())?
    }

    fn place(&mut self) -> Option<u8> {
        let word = self.next()?;
        if word == "control" { Some(NONE) } else { word.strip_prefix('n')?.parse().ok() }
    }
}

pub(crate) fn write_setting(setting: &Setting, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Setting { nodes, copies, minimum, is_warm, is_synced, rates, .. } = setting;
    let (warm, synced) = (u8::from(*is_warm), u8::from(*is_synced));
    write!(f, "world nodes {nodes} copies {copies} minimum {minimum} warm {warm} synced {synced} clocks")?;
    rates.iter().try_for_each(|rate| write!(f, " {rate}"))?;
    writeln!(f)
}

fn read_setting(words: &mut Words<'_>) -> Option<Setting> {
    let (nodes, copies) = (words.named("nodes")?, words.named("copies")?);
    let minimum = words.named("minimum")?;
    let (warm, synced): (u8, u8) = (words.named("warm")?, words.named("synced")?);
    let mut rates = [0; NODES_MAX];
    words.next().filter(|word| *word == "clocks")?;
    for rate in &mut rates {
        *rate = words.number()?;
    }
    Some(Setting {
        nodes,
        copies,
        minimum,
        is_warm: warm == 1,
        is_synced: synced == 1,
        without: Without::default(),
        rates,
    })
}

pub(crate) fn write_healing(healing: Healing, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match healing.dead {
        Some(dead) => writeln!(f, "heal without {dead}"),
        None => writeln!(f, "heal"),
    }
}

fn read_step(words: &mut Words<'_>) -> Option<Step> {
    let name = words.next()?;
    let action = *Action::ALL.iter().find(|action| format!("{action:?}") == name)?;
    let mut step = Step { action, partition: 0, node: 0, other: 0, choice: 0, message: Message::default() };
    if action.carries_message() {
        step.choice = words.named("choice")?;
        step.message = read_message(words)?;
    } else {
        step.partition = words.named("p")?;
        (step.node, step.other) = (words.named("n")?, words.named("other")?);
        step.choice = words.named("choice")?;
    }
    Some(step)
}

fn read_message(words: &mut Words<'_>) -> Option<Message> {
    let name = words.next()?;
    let kind = *Kind::ALL.iter().find(|kind| format!("{kind:?}") == name)?;
    let partition = words.named("p")?;
    let from = words.place()?;
    words.next().filter(|word| *word == "->")?;
    Some(Message {
        kind,
        partition,
        from,
        to: words.place()?,
        epoch: words.named("epoch")?,
        uid: words.named("uid")?,
        inc: words.named("inc")?,
        x: words.named("x")?,
        y: words.named("y")?,
        z: words.named("z")?,
        w: words.named("w")?,
        record: words.named("record")?,
        at: words.named("at")?,
    })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, partition, node, other, choice, message } = self;
        if action.carries_message() {
            write!(f, "{action:?} choice {choice} {message}")
        } else {
            write!(f, "{action:?} p {partition} n {node} other {other} choice {choice}")
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |node: u8| if node == NONE { "control".to_owned() } else { format!("n{node}") };
        write!(f, "{:?} p {} {} -> {}", self.kind, self.partition, place(self.from), place(self.to))?;
        write!(f, " epoch {} uid {} inc {}", self.epoch, self.uid, self.inc)?;
        write!(f, " x {} y {} z {} w {}", self.x, self.y, self.z, self.w)?;
        write!(f, " record {} at {}", self.record, self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_are_written() {
        let message = Message { kind: Kind::Elect, from: NONE, to: NONE, x: 3, y: 1, ..Message::default() };
        let step = |action| Step { action, partition: 1, node: 2, other: 3, choice: 4, message };
        let check = |written: Step| {
            let text = written.to_string();
            let read = read_step(&mut Words { rest: &text }).expect("a step");
            assert_eq!(read.to_string(), text);
        };
        Action::ALL.iter().for_each(|action| check(step(*action)));
    }
}
