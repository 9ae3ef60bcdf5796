//! What every state store has to do.

use std::ops::Bound;

use bytes::Bytes;

use crate::limits::{STATE_CHANGES_MAX, STATE_KEY_BYTES_MAX};
use crate::state_store::{
    ApplyError, Change, Digest, InstallError, Order, Query, ReplicaKey, Snapshot, StateStore,
};

/// Checks a kind of state store, of which `make` gives an empty one each time.
///
/// # Panics
///
/// Where the store does not do what [`StateStore`] promises.
pub fn state_store<S: StateStore>(mut make: impl FnMut() -> S) {
    let checks: [Check; 16] = [
        a_batch_is_carried_out_in_order,
        a_checkpoint_says_what_was_applied,
        a_digest_says_what_a_replica_holds,
        a_dropped_replica_is_gone_and_may_come_back,
        a_drop_is_reclaimed_in_steps,
        a_large_batch_is_refused_as_a_whole,
        a_range_is_bounded_and_ordered,
        a_replica_is_installed_as_a_whole,
        a_scrub_finds_nothing_wrong,
        a_snapshot_stays_as_it_is,
        an_index_is_applied_once,
        an_installation_ends_only_in_the_replica_that_it_began_with,
        an_installation_never_goes_back,
        an_installation_that_is_given_up_leaves_no_trace,
        nothing_is_missing_without_an_error,
        replicas_are_kept_apart,
    ];
    for check in checks {
        check(&make());
    }
}

type Check = fn(&dyn StateStore);

const ONE: ReplicaKey = ReplicaKey(1);
const TWO: ReplicaKey = ReplicaKey(2);

fn a_batch_is_carried_out_in_order(store: &dyn StateStore) {
    apply(
        store,
        ONE,
        3,
        &[put("a", "1"), put("b", "2"), put("a", "3"), delete("b"), delete("c"), put("", "")],
    );
    assert_eq!(all(store, ONE), entries(&[("", ""), ("a", "3")]));
    apply(store, ONE, 9, &[]);
    assert_eq!(applied(store, ONE), Some(9), "an index is noted without changes too");
    assert_eq!(value(store, ONE, "a").as_deref(), Some(&b"3"[..]));
    assert_eq!(value(store, ONE, "b"), None);
    assert_eq!(value(store, ONE, "").as_deref(), Some(&b""[..]), "an empty key and value are fine");
}

fn a_checkpoint_says_what_was_applied(store: &dyn StateStore) {
    apply(store, ONE, 3, &[put("a", "1")]);
    apply(store, TWO, 5, &[]);
    for _ in 0..2 {
        let durable = store.checkpoint().expect("a checkpoint succeeds");
        assert_eq!(durable.indexes.into_iter().collect::<Vec<_>>(), [(ONE, 3), (TWO, 5)]);
    }
    apply(store, ONE, 4, &[put("a", "2")]);
    store.drop_replica(TWO).expect("a replica is dropped");
    let durable = store.checkpoint().expect("a checkpoint succeeds");
    assert_eq!(durable.indexes.into_iter().collect::<Vec<_>>(), [(ONE, 4)]);
}

fn a_digest_says_what_a_replica_holds(store: &dyn StateStore) {
    assert_eq!(digest(store, ONE), None);
    apply(store, ONE, 1, &[put("a", "1"), put("b", "2")]);
    apply(store, TWO, 1, &[put("b", "3"), put("c", "x"), put("a", "1"), put("b", "2"), delete("c")]);
    assert_eq!(digest(store, ONE), digest(store, TWO), "the way does not matter");
    assert_eq!(digest(store, ONE).map(|digest| digest.entries), Some(2));
    apply(store, TWO, 2, &[put("a", "2"), put("b", "1")]);
    assert_ne!(sum(store, ONE), sum(store, TWO), "values that changed places are seen");
    apply(store, TWO, 3, &[delete("a"), delete("b")]);
    assert_eq!(digest(store, TWO), Some(Digest::empty(3)));
}

fn a_dropped_replica_is_gone_and_may_come_back(store: &dyn StateStore) {
    apply(store, ONE, 7, &[put("a", "old")]);
    store.drop_replica(ONE).expect("a replica is dropped");
    store.drop_replica(ONE).expect("a missing replica may be dropped");
    assert_eq!((applied(store, ONE), value(store, ONE, "a")), (None, None));
    apply(store, ONE, 2, &[put("b", "new")]);
    assert_eq!(all(store, ONE), entries(&[("b", "new")]), "nothing old comes back");
    while !store.reclaim(1).expect("a step of reclaiming succeeds").is_complete {}
    assert_eq!(all(store, ONE), entries(&[("b", "new")]), "nothing new is reclaimed");
}

fn a_drop_is_reclaimed_in_steps(store: &dyn StateStore) {
    let changes: Vec<Change> = (0..100).map(|number| put(&format!("{number:03}"), "x")).collect();
    apply(store, ONE, 1, &changes);
    apply(store, TWO, 1, &changes);
    store.drop_replica(ONE).expect("a replica is dropped");
    for _ in 0..1_000 {
        let reclaimed = store.reclaim(7).expect("a step of reclaiming succeeds");
        assert!(reclaimed.entries <= 7, "a step keeps to its budget");
        if reclaimed.is_complete {
            assert_eq!(all(store, TWO).len(), 100);
            return;
        }
    }
    panic!("reclaiming never ends");
}

fn a_large_batch_is_refused_as_a_whole(store: &dyn StateStore) {
    let large = Bytes::from(vec![0; STATE_KEY_BYTES_MAX + 1]);
    let changes = [put("a", "1"), Change::Put { key: large.clone(), value: Bytes::new() }];
    let refused = store.apply(ONE, &changes, 1);
    assert!(matches!(refused, Err(ApplyError::TooLarge { position: 1 })), "{refused:?}");
    let many = vec![put("a", "1"); STATE_CHANGES_MAX + 1];
    let refused = store.apply(ONE, &many, 1);
    assert!(matches!(refused, Err(ApplyError::TooMany { .. })), "{refused:?}");
    assert_eq!(applied(store, ONE), None, "nothing of it happened");
    let mut install = store.install(ONE).expect("an installation begins");
    let refused = install.push(&[(large, Bytes::new())]);
    assert!(matches!(refused, Err(InstallError::TooLarge { position: 0 })), "{refused:?}");
}

fn a_range_is_bounded_and_ordered(store: &dyn StateStore) {
    let changes: Vec<Change> = ["a", "ab", "b", "c", "d"].iter().map(|key| put(key, key)).collect();
    apply(store, ONE, 1, &changes);
    let keys = |start: Bound<&'static str>, end: Bound<&'static str>, order: Order, most: usize| {
        let query = Query {
            start: start.map(str::as_bytes),
            end: end.map(str::as_bytes),
            order,
            entries_max: most,
            ..Query::default()
        };
        let found = store.range(ONE, &query).expect("a range is read");
        let text = |(key, _): &(Bytes, Bytes)| String::from_utf8_lossy(key).into_owned();
        (found.entries.iter().map(text).collect::<Vec<_>>().join(" "), found.is_complete)
    };
    use Bound::{Excluded, Included, Unbounded};
    use Order::{Ascending, Descending};
    let cases = [
        (Unbounded, Unbounded, Ascending, 9, "a ab b c d", true),
        (Unbounded, Unbounded, Descending, 9, "d c b ab a", true),
        (Included("ab"), Excluded("c"), Ascending, 9, "ab b", true),
        (Excluded("ab"), Included("c"), Descending, 9, "c b", true),
        (Excluded("a"), Unbounded, Ascending, 2, "ab b", false),
        (Unbounded, Excluded("c"), Descending, 2, "b ab", false),
        (Excluded("b"), Unbounded, Ascending, 2, "c d", true),
        (Included("b"), Included("b"), Ascending, 9, "b", true),
        (Included("b"), Excluded("b"), Ascending, 9, "", true),
        (Excluded("b"), Excluded("b"), Descending, 9, "", true),
        (Included("d"), Included("a"), Ascending, 9, "", true),
        (Included("e"), Unbounded, Ascending, 9, "", true),
        (Unbounded, Unbounded, Ascending, 0, "", false),
    ];
    for (start, end, order, most, expected, is_complete) in cases {
        let found = keys(start, end, order, most);
        assert_eq!(found, (expected.to_owned(), is_complete), "{start:?} {end:?} {order:?} {most}");
    }
    let few = store.range(ONE, &Query { bytes_max: 3, ..Query::default() }).expect("a range is read");
    assert_eq!((few.entries.len(), few.is_complete), (1, false), "bytes are bounded");
    let one = store.range(ONE, &Query { bytes_max: 0, ..Query::default() }).expect("a range is read");
    assert_eq!((one.entries.len(), one.is_complete), (1, false), "one entry is read at least");
}

fn a_replica_is_installed_as_a_whole(store: &dyn StateStore) {
    apply(store, ONE, 5, &[put("a", "1"), put("b", "2"), put("c", "3")]);
    apply(store, TWO, 2, &[put("old", "x"), put("a", "old")]);
    let mut snapshot = store.snapshot(ONE).expect("a snapshot is taken").expect("the replica is there");
    let mut install = store.install(TWO).expect("an installation begins");
    while let Some(chunk) = snapshot.next_chunk(1).expect("a chunk is read") {
        assert_eq!(chunk.len(), 1);
        install.push(&chunk).expect("a chunk is pushed");
        install.push(&chunk).expect("a chunk may come twice");
        assert_eq!(all(store, TWO).len(), 2, "nothing is visible yet");
    }
    apply(store, TWO, 3, &[put("late", "x")]);
    install.finish(snapshot.digest()).expect("an installation ends");
    assert_eq!(all(store, TWO), all(store, ONE));
    assert_eq!(digest(store, TWO), digest(store, ONE));
    apply(store, TWO, 6, &[delete("b")]);
    assert_eq!(all(store, TWO), entries(&[("a", "1"), ("c", "3")]));
    while !store.reclaim(2).expect("a step of reclaiming succeeds").is_complete {}
    assert_eq!(all(store, TWO), entries(&[("a", "1"), ("c", "3")]), "only what was replaced is reclaimed");
}

fn a_scrub_finds_nothing_wrong(store: &dyn StateStore) {
    let changes: Vec<Change> = (0..50).map(|number| put(&format!("{number}"), "x")).collect();
    for replica in 0..5 {
        apply(store, ReplicaKey(replica), 1, &changes);
    }
    store.checkpoint().expect("a checkpoint succeeds");
    for index in 2..5 {
        apply(store, ONE, 1_000 * index, &[put("1", "y")]);
        assert!(scrubbed(store, 1_000 * index) >= 200, "every entry is looked at");
    }
}

/// Goes through everything once, with writes in between. Says how many entries were looked at.
fn scrubbed(store: &dyn StateStore, index: u64) -> u64 {
    let mut entries = 0;
    for step in 1..100_000 {
        let scrubbed = store.scrub(9).expect("a step of a scrub succeeds");
        assert!(scrubbed.damages.is_empty(), "{:?}", scrubbed.damages);
        entries += scrubbed.entries;
        if scrubbed.is_complete {
            return entries;
        }
        if step < 900 {
            apply(store, ONE, index + step, &[put("1", "y")]);
        }
    }
    panic!("a scrub never ends");
}

fn a_snapshot_stays_as_it_is(store: &dyn StateStore) {
    let changes: Vec<Change> = (0..40).map(|number| put(&format!("{number:02}"), "x")).collect();
    apply(store, ONE, 4, &changes);
    let before = all(store, ONE);
    let mut snapshot = store.snapshot(ONE).expect("a snapshot is taken").expect("the replica is there");
    let mut read = snapshot.next_chunk(20).expect("a chunk is read").expect("it is not the end");
    apply(store, ONE, 5, &[put("00", "y"), delete("39"), put("99", "z")]);
    store.checkpoint().expect("a checkpoint succeeds");
    store.drop_replica(ONE).expect("a replica is dropped");
    while !store.reclaim(3).expect("a step of reclaiming succeeds").is_complete {}
    read.extend(rest(&mut *snapshot));
    assert_eq!(read, before);
    assert_eq!(snapshot.digest().applied_index, 4);
    assert_eq!(snapshot.digest().entries, 40);
    assert!(store.snapshot(ONE).expect("a snapshot is asked for").is_none());
    apply(store, TWO, 1, &[]);
    let mut empty = store.snapshot(TWO).expect("a snapshot is taken").expect("the replica is there");
    assert_eq!((rest(&mut *empty), empty.digest()), (Vec::new(), Digest::empty(1)));
}

fn an_index_is_applied_once(store: &dyn StateStore) {
    apply(store, ONE, 0, &[put("a", "1")]);
    apply(store, ONE, 5, &[]);
    for index in [0, 4, 5] {
        let refused = store.apply(ONE, &[put("a", "2")], index);
        assert!(matches!(refused, Err(ApplyError::NotNewer { applied: 5, .. })), "{refused:?}");
    }
    assert_eq!(all(store, ONE), entries(&[("a", "1")]));
}

fn an_installation_ends_only_in_the_replica_that_it_began_with(store: &dyn StateStore) {
    apply(store, ONE, 1, &[put("a", "1")]);
    let of_dropped = store.install(ONE).expect("an installation begins");
    let of_missing = store.install(TWO).expect("an installation begins");
    let first = store.install(ReplicaKey(3)).expect("an installation begins");
    let second = store.install(ReplicaKey(3)).expect("a second one may begin");
    store.drop_replica(ONE).expect("a replica is dropped");
    apply(store, TWO, 1, &[put("b", "2")]);
    first.finish(Digest::empty(9)).expect("an installation ends");
    for install in [of_dropped, of_missing, second] {
        let refused = install.finish(Digest::empty(10));
        assert!(matches!(refused, Err(InstallError::Replaced)), "{refused:?}");
    }
    let left = [ONE, TWO, ReplicaKey(3)].map(|replica| applied(store, replica));
    assert_eq!(left, [None, Some(1), Some(9)], "what was refused changed nothing");
    let of_dropped = store.install(TWO).expect("an installation begins");
    store.drop_replica(TWO).expect("a replica is dropped");
    apply(store, TWO, 1, &[]);
    let refused = of_dropped.finish(Digest::empty(10));
    assert!(matches!(refused, Err(InstallError::Replaced)), "one that came back is another: {refused:?}");
    while !store.reclaim(9).expect("a step of reclaiming succeeds").is_complete {}
    assert_eq!(applied(store, TWO), Some(1));
}

fn an_installation_never_goes_back(store: &dyn StateStore) {
    apply(store, ONE, 90, &[put("a", "1")]);
    let older = store.install(ONE).expect("an installation begins");
    let mut equal = store.install(ONE).expect("a second one may begin");
    apply(store, ONE, 150, &[put("a", "2")]);
    store.checkpoint().expect("a checkpoint succeeds");
    let refused = older.finish(Digest::empty(100));
    assert!(matches!(refused, Err(InstallError::Outdated { index: 100, applied: 150 })), "{refused:?}");
    assert_eq!((applied(store, ONE), all(store, ONE)), (Some(150), entries(&[("a", "2")])));
    equal.push(&all(store, ONE)).expect("entries are pushed");
    let expected = digest(store, ONE).expect("the replica is there");
    equal.finish(expected).expect("the same index goes back nowhere, and heals what is damaged");
    assert_eq!((digest(store, ONE), all(store, ONE)), (Some(expected), entries(&[("a", "2")])));
}

fn an_installation_that_is_given_up_leaves_no_trace(store: &dyn StateStore) {
    apply(store, ONE, 2, &[put("a", "1")]);
    let before = digest(store, ONE).expect("the replica is there");
    let mut given_up = store.install(ONE).expect("an installation begins");
    given_up.push(&entries(&[("b", "2")])).expect("entries are pushed");
    let mut wrong = store.install(ONE).expect("a second one may begin");
    wrong.push(&entries(&[("c", "3")])).expect("entries are pushed");
    drop(given_up);
    let refused = wrong.finish(before);
    assert!(matches!(refused, Err(InstallError::Different { pushed: 1, expected: 1 })), "{refused:?}");
    store.install(TWO).expect("an installation of a missing replica begins");
    while !store.reclaim(1).expect("a step of reclaiming succeeds").is_complete {}
    assert_eq!((digest(store, ONE), applied(store, TWO)), (Some(before), None));
    assert_eq!(all(store, ONE), entries(&[("a", "1")]));
}

fn nothing_is_missing_without_an_error(store: &dyn StateStore) {
    assert_eq!((applied(store, ONE), value(store, ONE, "a"), digest(store, ONE)), (None, None, None));
    assert!(all(store, ONE).is_empty());
    assert!(store.replicas().expect("replicas are listed").indexes.is_empty());
    assert!(store.snapshot(ONE).expect("a snapshot is asked for").is_none());
    assert!(store.checkpoint().expect("a checkpoint succeeds").indexes.is_empty());
    assert!(store.reclaim(10).expect("a step of reclaiming succeeds").is_complete);
}

fn replicas_are_kept_apart(store: &dyn StateStore) {
    for replica in 0..40 {
        apply(store, ReplicaKey(replica), replica, &[put("a", &format!("{replica}")), put("b", "x")]);
    }
    apply(store, ReplicaKey(7), 100, &[delete("a"), put("c", "x")]);
    for replica in (0..40).filter(|replica| *replica != 7) {
        let expected = [("a", &format!("{replica}")[..]), ("b", "x")];
        assert_eq!(all(store, ReplicaKey(replica)), entries(&expected));
    }
    assert_eq!(all(store, ReplicaKey(7)), entries(&[("b", "x"), ("c", "x")]));
    let replicas = store.replicas().expect("replicas are listed").indexes;
    assert_eq!((replicas.len(), replicas[&ReplicaKey(7)], replicas[&ReplicaKey(8)]), (40, 100, 8));
}

fn apply(store: &dyn StateStore, replica: ReplicaKey, index: u64, changes: &[Change]) {
    store.apply(replica, changes, index).expect("a batch is applied");
}

fn applied(store: &dyn StateStore, replica: ReplicaKey) -> Option<u64> {
    store.applied_index(replica).expect("an index is read")
}

fn digest(store: &dyn StateStore, replica: ReplicaKey) -> Option<Digest> {
    store.digest(replica).expect("a digest is read")
}

fn sum(store: &dyn StateStore, replica: ReplicaKey) -> Option<u128> {
    digest(store, replica).map(|digest| digest.sum)
}

fn value(store: &dyn StateStore, replica: ReplicaKey, key: &str) -> Option<Bytes> {
    store.get(replica, key.as_bytes()).expect("a value is read")
}

fn all(store: &dyn StateStore, replica: ReplicaKey) -> Vec<(Bytes, Bytes)> {
    let found = store.range(replica, &Query::default()).expect("a range is read");
    assert!(found.is_complete);
    found.entries
}

fn rest(snapshot: &mut dyn Snapshot) -> Vec<(Bytes, Bytes)> {
    let mut read = Vec::new();
    while let Some(chunk) = snapshot.next_chunk(20).expect("a chunk is read") {
        assert!(!chunk.is_empty() && chunk.len() <= 20);
        read.extend(chunk);
    }
    assert_eq!(snapshot.next_chunk(20).expect("the end is read"), None, "the end stays the end");
    read
}

fn put(key: &str, value: &str) -> Change {
    let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Change::Put { key: copy(key), value: copy(value) }
}

fn delete(key: &str) -> Change {
    Change::Delete { key: Bytes::copy_from_slice(key.as_bytes()) }
}

fn entries(pairs: &[(&str, &str)]) -> Vec<(Bytes, Bytes)> {
    let copy = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    pairs.iter().map(|(key, value)| (copy(key), copy(value))).collect()
}
