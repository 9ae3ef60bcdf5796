//! The bytes of commands and answers, which are in logs.

use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::replica::LogTime;
use proptest::prelude::{ProptestConfig, any, prop, proptest};

use super::lab::{Lab, version};
use crate::kv::{
    Answer, Change, Command, Condition, Deadline, Description, Event, EventKind, EventValue, Expiry, Found,
    Limit, Outcome, PageEntry, Question, Refusal, Refused, Scan, Stats, Value, Write,
};
use crate::namespace::Namespace;
use crate::{AnswerError, RequestError};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The header of requests in the namespace `n`.
const HEADER: &str = "0101016e";

fn n() -> Namespace {
    Namespace::new("n").expect("a name")
}

#[test]
fn commands_keep_their_bytes() {
    let check = |command: Command, expect: &str| {
        let bytes = command.encode(&n());
        assert_eq!(hex(&bytes), format!("{HEADER}{expect}"), "{command:?}");
        assert_eq!(Command::decode(&bytes), Ok((n(), command)));
    };
    let write = |change| Command::Write(Write::new("k", change));
    let ttl = Deadline::After(Duration::from_millis(300));
    check(Command::Batch { writes: vec![Write::delete("k")] }, "0001016b0003");
    check(Command::DeletePrefix { prefix: "p".into(), entries_max: 300 }, "010170ac02");
    check(Command::Sweep { entries_max: 9 }, "0209");
    check(write(Change::Append { suffix: "s".into() }), "03016b00000173");
    check(write(Change::Check), "03016b0001");
    check(write(Change::Decrement { by: -1 }), "03016b000201");
    check(write(Change::Delete), "03016b0003");
    check(write(Change::Expire { deadline: ttl }), "03016b000400ac02");
    check(write(Change::Increment { by: 1 }), "03016b000502");
    check(write(Change::Persist), "03016b0006");
    let put = |expiry| write(Change::Put { value: "v".into(), expiry });
    check(put(Expiry::Keep), "03016b0007017600");
    check(put(Expiry::Never), "03016b0007017601");
    check(put(Expiry::Set(ttl)), "03016b000701760200ac02");
    check(put(Expiry::Set(Deadline::At(LogTime(5)))), "03016b00070176020105");
    let only_if = |condition| Command::Write(Write::delete("k").only_if(condition));
    check(only_if(Condition::MustExist), "03016b0103");
    check(only_if(Condition::MustNotExist), "03016b0203");
    check(only_if(Condition::VersionIs(version(300))), "03016b03ac0203");
}

#[test]
fn answers_keep_their_bytes() {
    let check = |answer: Answer, expect: &str| {
        assert_eq!(hex(&answer.encode()), format!("0101{expect}"), "{answer:?}");
        assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
    };
    check(Answer::BatchWritten { outcomes: vec![Outcome::Checked] }, "000101");
    check(Answer::PrefixDeleted { deleted: 3, more: true }, "010301");
    check(Answer::Swept { expired: 3, more: false }, "030300");
    check(Answer::Written(Outcome::Appended { value_bytes: 4, version: version(300) }), "040004ac02");
    check(Answer::Written(Outcome::Checked), "0401");
    check(Answer::Written(Outcome::Deleted { existed: true }), "040201");
    check(Answer::Written(Outcome::Expires { expires_at: LogTime(5), version: version(1) }), "04030501");
    check(Answer::Written(Outcome::Persisted { changed: true, version: version(1) }), "04040101");
    check(Answer::Written(Outcome::Number { value: -1, version: version(1) }), "04050101");
    check(Answer::Written(Outcome::Put { replaced: true, version: version(1) }), "04060101");
    let refused = |refusal| Answer::Refused(Refused { position: 2, refusal });
    check(refused(Refusal::CursorInvalid), "020200");
    check(refused(Refusal::DeadlineInvalid), "020201");
    check(refused(Refusal::Exists { version: version(1) }), "02020201");
    check(refused(Refusal::KeyEmpty), "020203");
    check(refused(Refusal::NotANumber), "020204");
    check(refused(Refusal::NotFound), "020205");
    check(refused(Refusal::NumberOverflow), "020206");
    check(refused(Refusal::VersionMismatch { current: Some(version(1)) }), "0202080101");
    let too_large = |what| refused(Refusal::TooLarge { what, size: 300, limit: 5 });
    check(too_large(Limit::BatchBytes), "02020700ac0205");
    check(too_large(Limit::BatchWrites), "02020701ac0205");
    check(too_large(Limit::BatchWrittenBytes), "02020702ac0205");
    check(too_large(Limit::KeyBytes), "02020703ac0205");
    check(too_large(Limit::Keys), "02020704ac0205");
    check(too_large(Limit::ValueBytes), "02020705ac0205");
}

#[test]
fn questions_keep_their_bytes() {
    let check = |question: Question, expect: &str| {
        let bytes = question.encode(&n());
        assert_eq!(hex(&bytes), format!("{HEADER}{expect}"), "{question:?}");
        assert_eq!(Question::decode(&bytes), Ok((n(), question)));
    };
    check(Question::Describe { keys: vec!["k".into()] }, "0001016b");
    check(Question::ExpiryDue, "01");
    check(Question::Read { key: "k".into() }, "02016b");
    check(Question::ReadMany { keys: vec!["k".into()] }, "0301016b");
    let cursor = Some(Bytes::from_static(b"pc"));
    check(
        Question::Scan(Scan { cursor, entries_max: 3, bytes_max: 4, ..Scan::new("p") }),
        "04017001027063030401",
    );
    check(Question::Stats, "05");
}

#[test]
fn what_is_found_keeps_its_bytes() {
    let check = |found: Found, expect: &str| {
        assert_eq!(hex(&found.encode()), format!("0101{expect}"), "{found:?}");
        assert_eq!(Found::decode(&found.encode()), Ok(found));
    };
    let description = Description { version: version(7), expires_at: Some(LogTime(5)), value_bytes: 1 };
    let entry = Value { bytes: "v".into(), version: version(7), expires_at: None };
    check(Found::Described { entries: vec![Some(description), None], now: LogTime(3) }, "000201070105010003");
    check(Found::ExpiryDue { at: Some(LogTime(5)) }, "010105");
    let page = PageEntry { key: "k".into(), description, value: Some("v".into()) };
    check(Found::Page { entries: vec![page], cursor: Some("k".into()) }, "0201016b0701050101017601016b");
    check(Found::Read { entry: Some(entry.clone()) }, "030101760700");
    check(Found::ReadMany { entries: vec![Some(entry), None] }, "0402010176070000");
    check(Found::Refused(Refusal::KeyEmpty), "0503");
    check(Found::Stats(Stats { keys: 2, value_bytes: 300 }), "0602ac02");
}

#[test]
fn events_keep_their_bytes() {
    let check = |kind: EventKind, expect: &str| {
        let event = Event { key: "k".into(), version: version(7), kind };
        let bytes = event.encode(&n());
        assert_eq!(hex(&bytes), format!("{HEADER}{expect}"), "{event:?}");
        assert_eq!(Event::decode(&bytes), Ok((n(), event)));
    };
    check(EventKind::Deleted, "016b0700");
    check(EventKind::Expired, "016b0701");
    let put = |value| EventKind::Put { value, expires_at: Some(LogTime(5)) };
    check(put(EventValue::Omitted { value_bytes: 300 }), "016b070200ac020105");
    check(put(EventValue::Whole("v".into())), "016b07020101760105");
}

#[test]
fn what_no_service_can_take_changes_nothing_and_is_answered() {
    let check = |bytes: &'static [u8], expect: RequestError, answer: &str| {
        let bytes = Bytes::from_static(bytes);
        let mut lab = Lab::default();
        let answers = [lab.batch(&[(1, bytes.clone())]).remove(0), lab.ask_bytes(&bytes)];
        assert_eq!(answers.map(|answer| hex(&answer)), [answer, answer]);
        assert_eq!(Answer::decode(&lab.ask_bytes(&bytes)), Err(AnswerError::Request(expect)));
        assert_eq!((lab.digest().entries, lab.events.len()), (0, 0));
    };
    check(b"", RequestError::Malformed, "010000");
    check(b"\x01", RequestError::Malformed, "010000");
    check(b"\x01\x01", RequestError::Malformed, "010000");
    check(b"\x01\x01\x02n", RequestError::Malformed, "010000");
    check(b"\x01\x01\x01n\x09", RequestError::Malformed, "010000");
    check(b"\x01\x01\x01n\x05\x00", RequestError::Malformed, "010000");
    check(b"\x01\x01\x01 \x02\x01", RequestError::NamespaceInvalid, "010001");
    check(b"\x01\x07", RequestError::ServiceUnknown { service: 7 }, "01000207");
    check(b"\x02\x01", RequestError::VersionUnknown { version: 2 }, "01000302");
}

#[test]
fn no_name_is_the_default_namespace() {
    let (namespace, _) = Command::decode(b"\x01\x01\x00\x02\x01").expect("a command");
    assert_eq!(namespace, Namespace::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_answered(body in prop::collection::vec(any::<u8>(), 0..64), has_header in any::<bool>()) {
        let header: &[u8] = if has_header { &[1, 1, 1, b'n'] } else { &[] };
        let bytes = Bytes::from([header, &body].concat());
        let mut lab = Lab::default();
        let answer = lab.batch(&[(1, bytes.clone())]).remove(0);
        assert_ne!(Answer::decode(&answer), Err(AnswerError::Malformed));
        assert_ne!(Found::decode(&lab.ask_bytes(&bytes)), Err(AnswerError::Malformed));
        drop((Answer::decode(&bytes), Found::decode(&bytes), Event::decode(&bytes)));
    }
}
