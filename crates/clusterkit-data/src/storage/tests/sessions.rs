//! Sessions are part of the state.

use super::*;

fn history() -> Vec<Record> {
    let entries = [
        Entry::OpenSession,
        request(0, 1, "a=1"),
        set("b=1"),
        Entry::OpenSession,
        request(3, 1, "a=2"),
        request(0, 2, "a=3"),
        request(0, 1, "a=1"),
        request(0, 3, "c=1"),
        Entry::OpenSession,
        Entry::OpenSession,
        request(9, 1, "b=2"),
        request(3, 1, "never"),
    ];
    let time = |at: u64| if at < 8 { at } else { at + 100 };
    (0..).zip(entries).map(|(at, entry)| record(1 + at / 5, time(at), entry)).map(with_epoch_one).collect()
}

/// The session that is opened later is asked for under its own epoch.
fn with_epoch_one(record: Record) -> Record {
    Record { epoch: Epoch(1), ..record }
}

fn answers(node: &Node) -> Vec<Answer> {
    let answers = node.events().into_iter().filter_map(|event| match event {
        StorageEvent::Applied { answers, .. } => Some(answers),
        _ => None,
    });
    answers.flatten().map(|(_, answer)| answer).collect()
}

#[test]
fn states_are_the_same_whatever_the_batches_were() {
    let history = history();
    let all = twin_of(key(1), &history);
    let expect = answers(&all);
    let mut node = Node::new();
    node.create(key(1));
    for size in 1..5 {
        let of = key(size as u64 + 1);
        for (first, records) in (0..).step_by(size).zip(history.chunks(size)) {
            node.apply(of, first, records);
        }
        assert_eq!(node.digest(of), all.digest(key(1)), "batches of {size}");
        assert_eq!(answers(&node), expect, "batches of {size}");
    }
    assert!(expect.contains(&Answer::Repeated(Bytes::new())) && expect.contains(&Answer::SessionExpired));
}

#[test]
fn sessions_outlive_a_restart() {
    let history = history();
    let (disk, expect) = (SimDisk::new(), answers(&twin_of(key(1), &history)));
    let (mut node, _) = Node::open(&disk);
    node.create(key(1));
    node.append(key(1), 0, &history);
    let mut found = Vec::new();
    for (first, one) in (0..).zip(&history) {
        node.apply(key(1), first, std::slice::from_ref(one));
        found.extend(answers(&node));
        node.maintain();
        drop(node);
        disk.crash_clean();
        let recovered;
        (node, recovered) = Node::open(&disk);
        assert_eq!(recovered[&key(1)].applied, first + 1);
    }
    assert_eq!(found, expect);
}

#[test]
fn sessions_travel_in_a_snapshot() {
    let history = history();
    let expect = answers(&twin_of(key(1), &history));
    for end in 2..history.len() {
        let mut node = Node::new();
        node.create(key(2));
        node.append(key(2), 0, &history[..1]);
        node.apply(key(2), 0, &history[..1]);
        assert_eq!(node.receive(key(2), (&twin_of(key(1), &history[..end]), key(1))), end as u64);
        node.change_now(key(2), LogChange::Install(header(key(2), &history[..end])));
        node.events();
        node.apply(key(2), end as u64, &history[end..]);
        assert_eq!(answers(&node), expect[end..], "a snapshot of {end} records");
        assert_eq!(node.digest(key(2)), twin_of(key(1), &history).digest(key(1)));
    }
}

#[test]
fn a_batch_that_is_large_goes_to_the_store_in_parts() {
    let large = |byte: u8| set([b"a=", &vec![byte; 7 << 20][..]].concat());
    let records: Vec<_> = (0..12).map(|byte| record(1, 1, large(byte))).collect();
    let many: Vec<_> = (0..12).map(|number| record(1, 1, set(format!("{number}=1")))).collect();
    let mut node = twin_of(key(1), &[&records[..], &many].concat());
    assert!(matches!(node.events()[..], [.., StorageEvent::Applied { end: 24, .. }]));
    assert_eq!(node.evaluate(key(1), "11", 0).unwrap(), "1 at 1 by 24");
}
