//! Damage is laid to the replica that it hits.

use super::*;

fn damaged(events: &[StorageEvent]) -> Vec<ReplicaKey> {
    let keys = events.iter().filter_map(|event| match event {
        StorageEvent::Damaged { key } => Some(*key),
        _ => None,
    });
    keys.collect()
}

/// A node with four replicas, two in each file of states, which are larger than what is kept in memory of them.
fn node(disk: &SimDisk) -> Node {
    let (mut node, _) = Node::open(disk);
    for uid in 0..4 {
        let records: Vec<_> = (0..100).map(|number| record(1, number, large(number))).collect();
        node.create(key(uid));
        node.append(key(uid), 0, &records);
        node.apply(key(uid), 0, &records);
    }
    node.maintain();
    node.events();
    node
}

fn large(number: u64) -> Entry {
    set([format!("{number}=").as_bytes(), &[b'x'; 3_000]].concat())
}

/// Damages all pages of a file of states but the first few.
fn harm(disk: &SimDisk, file: &str) {
    let path = Path::new(DIR).join("state").join(file);
    let length = disk.open(&path, clusterkit_storage::disk::OpenMode::Read).unwrap().length().unwrap();
    (5..length / 4_096).for_each(|page| disk.flip_bit(&path, page * 4_096 + page % 4_000, 1).unwrap());
}

#[test]
fn a_file_of_states_takes_its_replicas_out_of_service_and_no_other() {
    let disk = SimDisk::new();
    drop(node(&disk));
    let (mut node, recovered) = Node::open(&disk);
    assert!(recovered.values().all(|recovered| !recovered.is_damaged()));
    harm(&disk, "001.pages");
    let mut found = Vec::new();
    for _ in 0..3 {
        node.maintain();
        found.extend(damaged(&node.events()));
    }
    assert_eq!(found, [key(1), key(3)], "each once");
    assert_eq!(node.evaluate(key(1), "", 0), None);
    assert!(node.evaluate(key(0), "", 0).is_some());
    // The file is usable again, by others.
    node.create(key(5));
    node.append(key(5), 0, &[record(1, 1, set("a=1"))]);
    node.apply(key(5), 0, &[record(1, 1, set("a=1"))]);
    assert_eq!(node.evaluate(key(5), "a", 0).unwrap(), "1 at 1 by 1");
    drop(node);
    let (_, recovered) = Node::open(&disk);
    let still: Vec<_> =
        recovered.iter().filter(|(_, recovered)| recovered.is_damaged()).map(|(key, _)| *key).collect();
    assert_eq!(still, [key(1), key(3)], "also after a restart");
}

#[test]
fn a_file_that_is_damaged_at_the_start_is_set_aside() {
    let disk = SimDisk::new();
    drop(node(&disk));
    disk.remove(&Path::new(DIR).join("state").join("000.pages")).unwrap();
    let (mut node, recovered) = Node::open(&disk);
    let hit: Vec<_> =
        recovered.iter().filter(|(_, recovered)| recovered.is_damaged()).map(|(key, _)| *key).collect();
    assert_eq!(hit, [key(0), key(2)]);
    assert_eq!(node.evaluate(key(0), "", 0), None);
    assert!(node.evaluate(key(1), "", 0).is_some());
}

#[test]
fn a_record_that_is_damaged_is_not_served() {
    let disk = SimDisk::new();
    let mut node = node(&disk);
    let segment = Path::new(DIR).join("log");
    let names = disk.list(&segment).unwrap();
    let segments = names.iter().filter(|name| !["format", "mark"].contains(&name.to_str().unwrap()));
    for name in segments {
        (0..16 << 10).step_by(64).for_each(|byte| disk.flip_bit(&segment.join(name), byte, 0).unwrap());
    }
    node.log(vec![LogInput::Fetch {
        key: key(2),
        token: FetchToken::Apply,
        range: 98..100,
        bytes_max: 9_999,
    }]);
    let events = node.events();
    assert!(
        matches!(&events[..], [StorageEvent::Damaged { .. }, StorageEvent::Fetched { records, .. }]
        if records.is_empty()),
        "{events:?}"
    );
    assert_eq!(damaged(&events), [key(2)]);
    assert_eq!(node.evaluate(key(2), "", 0), None);
}

#[test]
fn a_snapshot_that_is_not_what_it_should_be_leaves_the_replica_damaged() {
    let mut node = Node::new();
    node.create(key(2));
    let history: Vec<_> = (0..3).map(|time| record(1, time, set("a=1"))).collect();
    let twin = twin_of(key(1), &history);
    let (_, mut reader) = twin.workers.snapshots.open_snapshot(key(1)).unwrap().unwrap();
    let mut receiver = node.workers.snapshots.begin_install(key(2)).unwrap();
    receiver.push(&reader.next_chunk(1).unwrap().unwrap()).unwrap();
    assert!(receiver.ready(reader.digest()));
    node.events();
    node.change_now(key(2), LogChange::Install(header(key(2), &history)));
    let events = node.events();
    assert!(matches!(events[..], [StorageEvent::Damaged { .. }]), "{events:?}");
}

#[test]
fn one_that_comes_again_under_its_old_name_is_damaged() {
    let mut node = Node::new();
    node.create(key(1));
    node.events();
    node.create(key(1));
    let events = node.events();
    assert!(matches!(events[..], [StorageEvent::Damaged { .. }]), "{events:?}");
}
