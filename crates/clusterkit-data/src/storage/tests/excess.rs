//! A command that comes to more than the state takes is refused, on every replica alike.

use super::*;
use crate::error::Excess;
use crate::limits::{
    ANSWER_BYTES_MAX, COMMAND_BYTES_MAX, COMMAND_CHANGES_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX,
};

/// A command is four numbers: how many entries it puts, how long their keys and values are, and its answer.
#[derive(Debug)]
struct Swells;

impl StateMachine for Swells {
    fn apply(&self, entry: &Command<'_>, state: &mut Transaction<'_>) -> Result<Bytes, StateError> {
        let text = std::str::from_utf8(entry.command).expect("text");
        let numbers: Vec<usize> = text.split(' ').map(|number| number.parse().expect("a number")).collect();
        let [count, key_bytes, value_bytes, answer_bytes] = numbers[..] else { panic!("four numbers") };
        let value = Bytes::from(vec![b'v'; value_bytes]);
        for number in 0..count {
            let mut key = format!("{number:06}").into_bytes();
            key.resize(key_bytes, b'k');
            state.put(key, value.clone());
        }
        state.emit(entry.command.clone());
        Ok(vec![b'a'; answer_bytes].into())
    }

    fn query(&self, question: &Question<'_>, state: &View<'_>) -> Result<Bytes, StateError> {
        let value = state.get(question.question)?;
        Ok(value.map_or_else(|| "none".to_owned(), |value| value.len().to_string()).into())
    }
}

fn command(count: usize, key_bytes: usize, value_bytes: usize, answer_bytes: usize) -> Entry {
    set(format!("{count} {key_bytes} {value_bytes} {answer_bytes}"))
}

fn applied(bytes: usize) -> Answer {
    Answer::Applied(vec![b'a'; bytes].into())
}

/// What is asked, and what must come of it.
fn story() -> Vec<(Entry, Answer)> {
    let refused = |excess: fn(u64) -> Excess, size: usize| Answer::TooLarge(excess(size as u64));
    let eighth = COMMAND_BYTES_MAX / 8;
    vec![
        (Entry::OpenSession, Answer::SessionOpened),
        (command(2, 6, 10, 1), applied(1)),
        (command(1, 6, VALUE_BYTES_MAX + 1, 0), refused(Excess::Value, VALUE_BYTES_MAX + 1)),
        (command(1, 6, VALUE_BYTES_MAX, 0), applied(0)),
        (command(1, KEY_BYTES_MAX + 1, 1, 0), refused(Excess::Key, KEY_BYTES_MAX + 1)),
        (command(1, KEY_BYTES_MAX, 1, 0), applied(0)),
        (command(COMMAND_CHANGES_MAX + 1, 6, 0, 0), refused(Excess::Changes, COMMAND_CHANGES_MAX + 1)),
        (command(COMMAND_CHANGES_MAX, 6, 0, 2), applied(2)),
        (command(8, 6, eighth, 0), refused(Excess::Bytes, 8 * (eighth + 7))),
        (command(8, 6, eighth - 7, 0), applied(0)),
        (request(0, 1, "3 6 16777217 0"), refused(Excess::Value, VALUE_BYTES_MAX + 1)),
        (request(0, 1, "3 6 16777217 0"), refused(Excess::Value, VALUE_BYTES_MAX + 1)),
        (command(1, 6, 2, ANSWER_BYTES_MAX + 1), refused(Excess::Answer, ANSWER_BYTES_MAX + 1)),
        (request(0, 2, "1 6 3 16777215"), applied(ANSWER_BYTES_MAX)),
    ]
}

/// The answers, and the offsets of the commands that told of themselves.
fn heard(node: &Node) -> (Vec<Answer>, Vec<u64>) {
    let (mut answers, mut told) = (Vec::new(), Vec::new());
    for event in node.events() {
        let StorageEvent::Applied { answers: given, events, .. } = event else { panic!("{event:?}") };
        answers.extend(given.into_iter().map(|(_, answer)| answer));
        told.extend(events.into_iter().map(|(offset, _)| offset));
    }
    (answers, told)
}

#[test]
fn replicas_refuse_the_same_commands_whatever_their_batches_were() {
    let (entries, expect): (Vec<_>, Vec<_>) = story().into_iter().unzip();
    let records: Vec<_> = entries.into_iter().map(|entry| record(1, 1, entry)).collect();
    let took_effect = |answer: &Answer| matches!(answer, Answer::Applied(_));
    let tellers: Vec<u64> =
        (0..).zip(&expect).filter(|(_, answer)| took_effect(answer)).map(|(at, _)| at).collect();
    let options = Options { state: StateOptions::Memory, ..options() };
    let mut node = Node::with(open_with(&SimDisk::new(), &options).unwrap().storage, Swells);
    let mut digests = Vec::new();
    for size in [1, 2, 3, 5, records.len()] {
        let replica = key(size as u64);
        node.create(replica);
        node.events();
        for (first, batch) in (0..).step_by(size).zip(records.chunks(size)) {
            node.apply(replica, first, batch);
        }
        let (answers, told) = heard(&node);
        assert!(answers == expect, "batches of {size}");
        assert_eq!(told, tellers, "batches of {size}");
        digests.push(node.digest(replica));
    }
    assert!(digests[0].is_some() && digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let last = key(records.len() as u64);
    assert_eq!(node.evaluate(last, "000000", 1).unwrap(), "3");
    assert_eq!(node.evaluate(last, "000009", 1).unwrap(), "0");
    assert_eq!(node.evaluate(last, "032768", 1).unwrap(), "none");
}

#[test]
fn what_is_refused_damages_no_state_on_a_disk() {
    let disk = SimDisk::new();
    let mut node = Node::with(open(&disk).unwrap().storage, Swells);
    node.create(key(1));
    let records =
        [command(1, 6, VALUE_BYTES_MAX + 1, 0), command(1, 6, 4, 0)].map(|entry| record(1, 1, entry));
    node.append(key(1), 0, &records);
    node.events();
    node.apply(key(1), 0, &records);
    let excess = Answer::TooLarge(Excess::Value(VALUE_BYTES_MAX as u64 + 1));
    assert_eq!(heard(&node), (vec![excess, applied(0)], vec![1]));
    assert_eq!(node.evaluate(key(1), "000000", 1).unwrap(), "4");
}
