use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::replica::LogTime;

use super::lab::{Lab, put_until, version};
use crate::kv::limits::*;
use crate::kv::{
    Answer, Change, Command, Condition, Deadline, EventKind, EventValue, Expiry, Limit, Outcome, Refusal,
    Refused, Write,
};

fn refused(refusal: Refusal) -> Answer {
    Answer::Refused(Refused { position: 0, refusal })
}

/// What a write comes to where `n` is 7 since version 1, `s` is `x` until 100 since version 2, and it is 50.
fn check(write: Write, expect: &Answer, after: Option<(&str, u64, Option<u64>)>) {
    let mut lab = Lab { now: 50, ..Lab::default() };
    lab.write(Write::put("n", "7"));
    lab.write(put_until("s", "x", 100));
    let key = if write.key == "n" { "n" } else { "s" };
    assert_eq!(&lab.write(write), expect);
    let after = after.map(|(text, version, at)| (text.to_owned(), version, at));
    assert_eq!(lab.read(key), after);
}

#[test]
fn a_put_replaces_value_and_expiry_unless_it_keeps_it() {
    let put = |expiry| Write::new("s", Change::Put { value: "y".into(), expiry });
    let done = Answer::Written(Outcome::Put { replaced: true, version: version(3) });
    check(put(Expiry::Never), &done, Some(("y", 3, None)));
    check(put(Expiry::Keep), &done, Some(("y", 3, Some(100))));
    let after = Expiry::Set(Deadline::After(Duration::from_millis(7)));
    check(put(after), &done, Some(("y", 3, Some(57))));
    check(put(Expiry::Set(Deadline::At(LogTime(50)))), &done, None);
}

#[test]
fn a_delete_says_whether_something_was_there() {
    let mut lab = Lab::default();
    lab.write(Write::put("a", "1"));
    assert_eq!(lab.write(Write::delete("a")), Answer::Written(Outcome::Deleted { existed: true }));
    assert_eq!(lab.write(Write::delete("a")), Answer::Written(Outcome::Deleted { existed: false }));
    assert_eq!(lab.told(), ["a Put 1", "a Deleted 2"]);
}

#[test]
fn numbers_are_added_to_and_keep_their_expiry() {
    let number = |value| Answer::Written(Outcome::Number { value, version: version(3) });
    let add = |by| Write::new("n", Change::Increment { by });
    check(add(5), &number(12), Some(("12", 3, None)));
    check(Write::new("n", Change::Decrement { by: 8 }), &number(-1), Some(("-1", 3, None)));
    check(add(i64::MAX), &refused(Refusal::NumberOverflow), Some(("7", 1, None)));
    let text = Write::new("s", Change::Increment { by: 1 });
    check(text, &refused(Refusal::NotANumber), Some(("x", 2, Some(100))));
    let mut lab = Lab::default();
    let first = lab.write(Write::new("new", Change::Decrement { by: 3 }));
    assert_eq!(first, Answer::Written(Outcome::Number { value: -3, version: version(1) }));
}

#[test]
fn what_is_appended_keeps_the_expiry() {
    let done = Answer::Written(Outcome::Appended { value_bytes: 3, version: version(3) });
    check(Write::new("s", Change::Append { suffix: "yz".into() }), &done, Some(("xyz", 3, Some(100))));
}

#[test]
fn expiry_is_set_and_taken_away() {
    let expires = Answer::Written(Outcome::Expires { expires_at: LogTime(90), version: version(3) });
    let deadline = Deadline::After(Duration::from_millis(40));
    check(Write::new("s", Change::Expire { deadline }), &expires, Some(("x", 3, Some(90))));
    check(Write::new("n", Change::Expire { deadline }), &expires, Some(("7", 3, Some(90))));
    check(
        Write::new("t", Change::Expire { deadline }),
        &refused(Refusal::NotFound),
        Some(("x", 2, Some(100))),
    );
    let persisted = |changed, at| Answer::Written(Outcome::Persisted { changed, version: version(at) });
    check(Write::new("s", Change::Persist), &persisted(true, 3), Some(("x", 3, None)));
    check(Write::new("n", Change::Persist), &persisted(false, 1), Some(("7", 1, None)));
    check(Write::new("t", Change::Persist), &refused(Refusal::NotFound), Some(("x", 2, Some(100))));
}

#[test]
fn a_write_is_done_only_if_its_condition_holds() {
    let only_if = |key: &'static str, condition| Write::new(key, Change::Check).only_if(condition);
    let held = Answer::Written(Outcome::Checked);
    let (n, s) = (Some(("7", 1, None)), Some(("x", 2, Some(100))));
    check(only_if("n", Condition::MustExist), &held, n);
    check(only_if("t", Condition::MustExist), &refused(Refusal::NotFound), s);
    check(only_if("n", Condition::MustNotExist), &refused(Refusal::Exists { version: version(1) }), n);
    check(only_if("t", Condition::MustNotExist), &held, s);
    check(only_if("n", Condition::VersionIs(version(1))), &held, n);
    let mismatch = |current| refused(Refusal::VersionMismatch { current });
    check(only_if("n", Condition::VersionIs(version(2))), &mismatch(Some(version(1))), n);
    check(only_if("t", Condition::VersionIs(version(2))), &mismatch(None), s);
}

#[test]
fn an_entry_that_expired_is_missing_for_commands_and_ends_before_the_next() {
    let mut lab = Lab::default();
    lab.write(put_until("a", "1", 10));
    lab.now = 9;
    assert_eq!(lab.read("a"), Some(("1".into(), 1, Some(10))));
    lab.now = 10;
    assert_eq!(lab.read("a"), None);
    assert_eq!(lab.write(Write::delete("a")), Answer::Written(Outcome::Deleted { existed: false }));
    let put = Write::put("a", "2").only_if(Condition::MustNotExist);
    assert_eq!(lab.write(put), Answer::Written(Outcome::Put { replaced: false, version: version(3) }));
    assert_eq!(lab.told(), ["a Put 1", "a Expired 3", "a Put 3"]);
}

#[test]
fn a_batch_is_done_as_a_whole_or_not_at_all() {
    let mut lab = Lab::default();
    lab.write(Write::put("a", "1"));
    let digest = lab.digest();
    let add = |key: &'static str| Write::new(key, Change::Increment { by: 1 });
    let writes = vec![add("a"), Write::put("t", "text"), add("t")];
    let answer = lab.run(&Command::Batch { writes });
    assert_eq!(answer, Answer::Refused(Refused { position: 2, refusal: Refusal::NotANumber }));
    assert_eq!((lab.digest().sum, lab.digest().entries), (digest.sum, digest.entries));
    let writes = vec![add("a"), add("a"), Write::put("b", "2"), Write::delete("b"), add("c")];
    let number = |value| Outcome::Number { value, version: version(3) };
    let outcomes = vec![
        number(2),
        number(3),
        Outcome::Put { replaced: false, version: version(3) },
        Outcome::Deleted { existed: true },
        number(1),
    ];
    assert_eq!(lab.run(&Command::Batch { writes }), Answer::BatchWritten { outcomes });
    assert_eq!(lab.told(), ["a Put 1", "a Put 3", "c Put 3"]);
}

#[test]
fn conditions_of_a_batch_are_on_the_state_before_it() {
    let mut lab = Lab::default();
    let fresh = |value: &'static str| Write::put("a", value).only_if(Condition::MustNotExist);
    let answer = lab.run(&Command::Batch { writes: vec![fresh("1"), fresh("2")] });
    assert!(matches!(answer, Answer::BatchWritten { .. }), "{answer:?}");
    let answer = lab.run(&Command::Batch { writes: vec![Write::put("b", "1"), fresh("3")] });
    let refusal = Refusal::Exists { version: version(1) };
    assert_eq!(answer, Answer::Refused(Refused { position: 1, refusal }));
    assert_eq!(lab.read("b"), None);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sent_and_after() {
    let check = |command: &Command, expect: Option<(u32, Refusal)>| {
        let expect = expect.map(|(position, refusal)| Refused { position, refusal });
        assert_eq!(command.check().err(), expect);
        let answer = Lab::default().run(command);
        assert_eq!(matches!(answer, Answer::Refused(_)), expect.is_some(), "{answer:?}");
    };
    let too_large =
        |what, size: usize, limit: usize| Refusal::TooLarge { what, size: size as u64, limit: limit as u64 };
    let zeros = |count: usize| Bytes::from(vec![0; count]);
    let put = |key: usize, value: usize| Write::put(zeros(key), zeros(value));
    check(&Command::Write(put(KEY_BYTES_MAX, VALUE_BYTES_MAX)), None);
    check(&Command::Write(put(0, 1)), Some((0, Refusal::KeyEmpty)));
    let (key, value) = (KEY_BYTES_MAX + 1, VALUE_BYTES_MAX + 1);
    check(&Command::Write(put(key, 1)), Some((0, too_large(Limit::KeyBytes, key, KEY_BYTES_MAX))));
    check(&Command::Write(put(1, value)), Some((0, too_large(Limit::ValueBytes, value, VALUE_BYTES_MAX))));
    check(&Command::Batch { writes: vec![put(1, 1); BATCH_WRITES_MAX] }, None);
    check(&Command::Batch { writes: vec![put(1, 1), put(0, 1)] }, Some((1, Refusal::KeyEmpty)));
    let size = 3 * (VALUE_BYTES_MAX - 1) + 3;
    let large = Command::Batch { writes: vec![put(1, VALUE_BYTES_MAX - 1); 3] };
    check(&large, Some((0, too_large(Limit::BatchBytes, size, BATCH_BYTES_MAX))));
    let expire = |deadline| Command::Write(Write::new("a", Change::Expire { deadline }));
    check(&expire(Deadline::After(Duration::ZERO)), Some((0, Refusal::DeadlineInvalid)));
    check(&expire(Deadline::At(LogTime(u64::MAX))), Some((0, Refusal::DeadlineInvalid)));
}

#[test]
fn a_batch_with_too_many_writes_is_not_even_read() {
    let command = Command::Batch { writes: vec![Write::delete("a"); BATCH_WRITES_MAX + 1] };
    let size = (BATCH_WRITES_MAX + 1) as u64;
    let refusal = Refusal::TooLarge { what: Limit::BatchWrites, size, limit: BATCH_WRITES_MAX as u64 };
    assert_eq!(command.check(), Err(Refused { position: 0, refusal }));
    let bytes = command.encode(&crate::Namespace::default());
    assert_eq!(Command::decode(&bytes), Err(crate::RequestError::Malformed));
}

#[test]
fn a_value_cannot_outgrow_its_limit_and_a_batch_not_what_it_may_write() {
    let mut lab = Lab::default();
    lab.write(Write::put("a", vec![0; VALUE_BYTES_MAX - 1]));
    let append = || Write::new("a", Change::Append { suffix: "x".into() });
    let both = lab.run(&Command::Batch { writes: vec![append(), append()] });
    let too_large = |what, size: usize, limit: usize| {
        let refusal = Refusal::TooLarge { what, size: size as u64, limit: limit as u64 };
        Answer::Refused(Refused { position: 1, refusal })
    };
    assert_eq!(both, too_large(Limit::ValueBytes, VALUE_BYTES_MAX + 1, VALUE_BYTES_MAX));
    let expire = || Write::new("a", Change::Expire { deadline: Deadline::At(LogTime(9)) });
    let answer = lab.run(&Command::Batch { writes: vec![expire(); 5] });
    let Answer::Refused(Refused { position: 4, refusal: Refusal::TooLarge { what, .. } }) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(what, Limit::BatchWrittenBytes);
}

#[test]
fn an_event_has_the_value_unless_it_is_large() {
    let check = |value_bytes: usize, expect: EventValue| {
        let mut lab = Lab::default();
        lab.write(Write::put("a", vec![0; value_bytes]));
        let (_, event) = lab.events.remove(0);
        assert_eq!(event.kind, EventKind::Put { value: expect, expires_at: None });
    };
    check(EVENT_VALUE_BYTES_MAX, EventValue::Whole(vec![0; EVENT_VALUE_BYTES_MAX].into()));
    let value_bytes = u32::try_from(EVENT_VALUE_BYTES_MAX + 1).expect("it is small");
    check(EVENT_VALUE_BYTES_MAX + 1, EventValue::Omitted { value_bytes });
}
