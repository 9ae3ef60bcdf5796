//! The timeouts of the Raft group, chosen beside those of the failure detector.
//!
//! | timeout | value | why |
//! | --- | --- | --- |
//! | heartbeat | 100 ms | three fit into the shortest election timeout |
//! | election | 300 to 600 ms | a killed controller is replaced before its own partitions could be declared dead at 1 s; pre-vote keeps a node that cannot win from disturbing |
//! | append | 1 s | a follower answers when it has synced: one whose disk is slow must be waited for, or what it did is asked for again and again, each time with more behind it |
//! | vote | 300 ms | the shortest election: openraft counts no answer after that, and a vote takes two syncs |
//! | failure detector | 200 ms beats, suspect 600 ms, dead 1 s | see `clusterkit_core::member::Config` |

use std::time::Duration;

use clusterkit_core::limits::ENTRY_BYTES_MAX;
use clusterkit_storage::limits::RECORD_BYTES_MAX;
use clusterkit_wire::limits::{FRAME_BYTES_MAX_CONTROL, FRAME_HEADER_BYTES};
use openraft::{Config, SnapshotPolicy};

/// How often the leader of the group sends when it has nothing to say.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);
/// The shortest silence after which a follower stands for election.
pub(crate) const ELECTION_TIMEOUT_MIN: Duration = Duration::from_millis(300);
/// The longest such silence, and how long a follower refuses to vote against a leader it heard.
pub(crate) const ELECTION_TIMEOUT_MAX: Duration = Duration::from_millis(600);

/// How long a follower may take to store entries and say so. What a lost one costs is this long a wait
/// for entries alone: heartbeats go on beside it, and a broken connection ends it at once.
pub(super) const APPEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Entries between two snapshots: the control plane's state is small, its log must not grow.
const SNAPSHOT_ENTRIES: u64 = 2_000;
/// Entries kept behind a snapshot, for followers that are just a little late.
const ENTRIES_KEPT: u64 = 500;
/// Entries of one append message.
const ENTRIES_PER_MESSAGE: u64 = 64;
/// Bytes of the entries of one append message. Its first entry goes whatever its size, which is at
/// most [`ENTRY_BYTES_MAX`] and a few numbers.
pub(super) const APPEND_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an append message beside the commands of its first entry, when it has no other.
const APPEND_OVERHEAD_BYTES: usize = 1024;
/// The slowest network that append messages are given the time for, 32 Mbit/s. On a slower one the
/// largest entries are sent again and again.
const APPEND_BYTES_PER_SECOND: u64 = 4 * 1024 * 1024;
/// How long the transfer of one snapshot may take.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(HEARTBEAT.as_millis() * 3 <= ELECTION_TIMEOUT_MIN.as_millis());
const _: () = assert!(ELECTION_TIMEOUT_MIN.as_millis() < ELECTION_TIMEOUT_MAX.as_millis());
// A follower that syncs twice, for what came while it was at the first, is not cut off before another
// one would stand.
const _: () = assert!(APPEND_TIMEOUT.as_millis() > ELECTION_TIMEOUT_MAX.as_millis());
const _: () = assert!(APPEND_TIMEOUT.as_millis() < SNAPSHOT_TIMEOUT.as_millis());
const _: () = assert!(ENTRIES_KEPT < SNAPSHOT_ENTRIES);
const _: () = assert!(APPEND_BYTES_MAX <= ENTRY_BYTES_MAX);
// What is proposed can be sent, and written.
const _: () =
    assert!(FRAME_HEADER_BYTES + APPEND_OVERHEAD_BYTES + ENTRY_BYTES_MAX <= FRAME_BYTES_MAX_CONTROL);
const _: () = assert!(APPEND_OVERHEAD_BYTES + ENTRY_BYTES_MAX <= RECORD_BYTES_MAX);

/// How long an append message of so many bytes may take, when one without entries may take `ttl`:
/// what is large needs time on its way, and is not lost yet.
pub(super) fn append_timeout(ttl: Duration, bytes: usize) -> Duration {
    let millis = (bytes as u64).saturating_mul(1_000) / APPEND_BYTES_PER_SECOND;
    ttl + Duration::from_millis(millis)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn raft_config(cluster_name: &str) -> Config {
    Config {
        cluster_name: cluster_name.to_owned(),
        heartbeat_interval: millis(HEARTBEAT),
        election_timeout_min: millis(ELECTION_TIMEOUT_MIN),
        election_timeout_max: millis(ELECTION_TIMEOUT_MAX),
        enable_pre_vote: Some(true),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        max_payload_entries: ENTRIES_PER_MESSAGE,
        install_snapshot_timeout: millis(SNAPSHOT_TIMEOUT),
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_append_may_take_longer() {
        let ttl = Duration::from_millis(75);
        let check = |bytes, expect| assert_eq!(append_timeout(ttl, bytes), Duration::from_millis(expect));
        check(100, 75);
        check(APPEND_BYTES_MAX, 75 + 250);
        check(ENTRY_BYTES_MAX, 75 + 1_000);
    }
}
