use clusterkit_core::replica::LogTime;

use super::lab::{Lab, put_until};
use crate::kv::{Answer, Command, Found, Question, Stats, Write};
use crate::namespace::Namespace;

fn lab() -> Lab {
    let mut lab = Lab::default();
    for (key, at) in [("a", 30), ("b", 10), ("c", 20)] {
        lab.write(put_until(key, "1", at));
    }
    let other = Command::Write(put_until("o", "1", 15)).encode(&Namespace::new("other").expect("a name"));
    lab.batch(&[(0, other)]);
    lab.told();
    lab
}

#[test]
fn a_sweep_removes_what_expired_in_that_order_and_says_whether_more_is_due() {
    let mut lab = lab();
    lab.now = 20;
    let sweep = Command::Sweep { entries_max: 2 };
    assert_eq!(lab.ask(&Question::ExpiryDue), Found::ExpiryDue { at: Some(LogTime(10)) });
    assert_eq!(lab.run(&sweep), Answer::Swept { expired: 2, more: true });
    assert_eq!(lab.told(), ["b Expired 5", "o Expired 5"]);
    assert_eq!(lab.run(&sweep), Answer::Swept { expired: 1, more: false });
    assert_eq!(lab.told(), ["c Expired 6"]);
    assert_eq!(lab.run(&sweep), Answer::Swept { expired: 0, more: false });
    assert_eq!(lab.ask(&Question::ExpiryDue), Found::ExpiryDue { at: Some(LogTime(30)) });
    assert_eq!(lab.ask(&Question::Stats), Found::Stats(Stats { keys: 1, value_bytes: 1 }));
}

#[test]
fn an_entry_that_no_longer_expires_is_not_swept() {
    let mut lab = lab();
    lab.write(Write::put("b", "2"));
    lab.write(put_until("a", "2", 40));
    lab.now = 35;
    assert_eq!(lab.run(&Command::Sweep { entries_max: 9 }), Answer::Swept { expired: 2, more: false });
    assert_eq!(lab.read("b"), Some(("2".into(), 5, None)));
    assert_eq!(lab.read("a"), Some(("2".into(), 6, Some(40))));
}

#[test]
fn a_prefix_is_deleted_piece_by_piece() {
    let mut lab = Lab::default();
    for key in ["a", "b/1", "b/2", "b/3", "c"] {
        lab.write(Write::put(key, "1"));
    }
    lab.write(put_until("b/0", "1", 10));
    (lab.now, lab.events) = (10, Vec::new());
    let delete = Command::DeletePrefix { prefix: "b/".into(), entries_max: 2 };
    assert_eq!(lab.run(&delete), Answer::PrefixDeleted { deleted: 1, more: true });
    assert_eq!(lab.told(), ["b/0 Expired 7", "b/1 Deleted 7"]);
    assert_eq!(lab.run(&delete), Answer::PrefixDeleted { deleted: 2, more: false });
    assert_eq!(lab.run(&delete), Answer::PrefixDeleted { deleted: 0, more: false });
    assert_eq!(lab.ask(&Question::Stats), Found::Stats(Stats { keys: 2, value_bytes: 2 }));
    assert_eq!(lab.ask(&Question::ExpiryDue), Found::ExpiryDue { at: None });
}

#[test]
fn what_is_removed_does_not_depend_on_what_the_batch_did_before() {
    let prefix = Command::DeletePrefix { prefix: "".into(), entries_max: 3 };
    let mut commands: Vec<Command> =
        ["a", "c", "e", "g", "i"].map(|key| Command::Write(Write::put(key, "1"))).to_vec();
    commands.push(Command::Write(Write::delete("c")));
    commands.push(Command::Write(Write::delete("e")));
    commands.push(prefix);
    let run = |pieces: &[usize]| {
        let (mut lab, mut rest) = (Lab::default(), &commands[..]);
        for piece in pieces {
            let (now, later) = rest.split_at(*piece);
            let now: Vec<_> = now.iter().map(|command| (0, command.encode(&Namespace::default()))).collect();
            lab.batch(&now);
            rest = later;
        }
        lab.digest()
    };
    let expect = run(&[1; 8]);
    for first in 1..8 {
        assert_eq!(run(&[first, 8 - first]), expect, "{first} commands first");
    }
}
