use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::replica::LogTime;

use super::lab::{Lab, put_until};
use crate::kv::limits::*;
use crate::kv::{Command, Found, Limit, Question, Refusal, Scan, Stats, Write};
use crate::namespace::Namespace;

fn lab() -> Lab {
    let mut lab = Lab::default();
    for key in ["a", "b/1", "b/2", "b/3", "c"] {
        lab.write(Write::put(key, "value"));
    }
    lab.write(put_until("b/0", "old", 10));
    lab.write(put_until("b/20", "old", 10));
    lab.now = 10;
    lab
}

fn page(lab: &Lab, scan: Scan) -> (Vec<String>, Option<Bytes>) {
    let Found::Page { entries, cursor } = lab.ask(&Question::Scan(scan)) else { panic!("a page") };
    (entries.iter().map(|entry| String::from_utf8_lossy(&entry.key).into_owned()).collect(), cursor)
}

#[test]
fn a_scan_gives_what_has_the_prefix_and_has_not_expired() {
    let check = |prefix: &'static str, expect: &[&str]| {
        let (keys, cursor) = page(&lab(), Scan::new(prefix));
        assert_eq!((keys.iter().map(String::as_str).collect::<Vec<_>>(), cursor), (expect.to_vec(), None));
    };
    check("", &["a", "b/1", "b/2", "b/3", "c"]);
    check("b/", &["b/1", "b/2", "b/3"]);
    check("b/2", &["b/2"]);
    check("d", &[]);
}

#[test]
fn a_scan_goes_on_behind_its_cursor_and_gives_every_entry_once() {
    for (entries_max, bytes_max) in [(1, u32::MAX), (2, u32::MAX), (9, 1), (9, 6), (2, 16)] {
        for with_values in [false, true] {
            let (lab, mut all, mut cursor) = (lab(), Vec::new(), None);
            loop {
                let scan = Scan { cursor, entries_max, bytes_max, with_values, ..Scan::new("b/") };
                let (keys, next) = page(&lab, scan);
                assert!(keys.len() <= 2, "{keys:?}");
                all.extend(keys);
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(all, ["b/1", "b/2", "b/3"]);
        }
    }
}

#[test]
fn a_scan_through_what_expired_is_bounded_and_says_where_to_go_on() {
    let mut lab = Lab::default();
    let expired = |at: usize| Write { key: format!("k{at:05}").into(), ..put_until("", "v", 1) };
    for start in (0..EXAMINED_ENTRIES_MAX + 1_024).step_by(1_024) {
        lab.run(&Command::Batch { writes: (start..start + 1_024).map(expired).collect() });
    }
    lab.write(Write::put("z", "v"));
    lab.now = 1;
    let (keys, cursor) = page(&lab, Scan { entries_max: 1, ..Scan::new("") });
    assert_eq!((keys.len(), &cursor), (0, &Some("k04095".into())));
    assert_eq!(page(&lab, Scan { cursor, ..Scan::new("") }), (vec!["z".to_owned()], None));
}

#[test]
fn a_cursor_of_another_scan_is_refused() {
    let scan = Scan { cursor: Some("a".into()), ..Scan::new("b") };
    assert_eq!(lab().ask(&Question::Scan(scan)), Found::Refused(Refusal::CursorInvalid));
}

#[test]
fn several_entries_are_read_in_the_order_asked_for() {
    let keys = vec!["c".into(), "none".into(), "b/0".into(), "a".into()];
    let Found::ReadMany { entries } = lab().ask(&Question::ReadMany { keys: keys.clone() }) else {
        panic!("entries")
    };
    let versions: Vec<_> = entries.iter().map(|entry| entry.as_ref().map(|entry| entry.version.0)).collect();
    assert_eq!(versions, [Some(5), None, None, Some(1)]);
    let mut lab = lab();
    lab.now = 4;
    let Found::Described { entries, now } = lab.ask(&Question::Describe { keys }) else { panic!("entries") };
    let old = entries[2].expect("it is there");
    assert_eq!((old.value_bytes, old.expires_at, now), (3, Some(LogTime(10)), LogTime(4)));
    assert_eq!(old.ttl(now), Some(Duration::from_millis(6)));
    assert_eq!(entries[0].expect("it is there").ttl(now), None);
}

#[test]
fn what_is_too_much_for_one_answer_is_cut() {
    let mut lab = Lab::default();
    for key in ["a", "b", "c"] {
        lab.write(Write::put(key, vec![0; VALUE_BYTES_MAX]));
    }
    let keys = vec!["a".into(), "b".into(), "c".into()];
    let Found::ReadMany { entries } = lab.ask(&Question::ReadMany { keys }) else { panic!("entries") };
    assert_eq!(entries.len(), 2);
    assert_eq!(page(&lab, Scan::new("")), (vec!["a".to_owned()], Some("a".into())));
    assert_eq!(page(&lab, Scan { with_values: false, ..Scan::new("") }).0, ["a", "b", "c"]);
}

#[test]
fn a_question_that_is_too_large_is_refused() {
    let check = |question: Question, expect: Refusal| {
        assert_eq!(question.check(), Err(expect));
        assert_eq!(lab().ask(&question), Found::Refused(expect));
    };
    check(Question::Read { key: Bytes::new() }, Refusal::KeyEmpty);
    let (size, limit) = (KEY_BYTES_MAX as u64 + 1, KEY_BYTES_MAX as u64);
    let key = Bytes::from(vec![0; KEY_BYTES_MAX + 1]);
    check(Question::Read { key }, Refusal::TooLarge { what: Limit::KeyBytes, size, limit });
}

#[test]
fn namespaces_do_not_see_each_other_and_count_apart() {
    let mut lab = lab();
    let other = Namespace::new("other").expect("a name");
    let command = Command::Write(Write::put("a", "12")).encode(&other);
    lab.batch(&[(10, command)]);
    let stats = |keys, value_bytes| Found::Stats(Stats { keys, value_bytes });
    assert_eq!(lab.ask(&Question::Stats), stats(7, 5 * 5 + 2 * 3));
    assert_eq!(lab.ask_in(&other, &Question::Stats), stats(1, 2));
    let Found::Page { entries, .. } = lab.ask_in(&other, &Question::Scan(Scan::new(""))) else {
        panic!("a page")
    };
    assert_eq!(entries.len(), 1);
    lab.batch(&[(10, Command::Write(Write::delete("a")).encode(&other))]);
    assert_eq!(lab.ask_in(&other, &Question::Stats), stats(0, 0));
    assert_eq!(lab.events.last().map(|(namespace, _)| namespace), Some(&other));
}
