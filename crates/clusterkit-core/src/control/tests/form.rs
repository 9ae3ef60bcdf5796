//! The first entry: what it may say, and that apply takes it at its word.

use super::*;
use crate::limits::{CLUSTER_NAME_BYTES_MAX, EXPECT_MAX, PARTITIONS_MAX, REPLICATION_FACTOR_MAX};
use crate::placement::Strategy;

fn members(count: u64) -> Vec<Registration> {
    (1..=count).map(|number| registration(number, number)).collect()
}

fn table(rows: &[&[u16]]) -> FirstTable {
    let row = |row: &&[u16]| row.iter().copied().map(MemberIndex).collect();
    FirstTable(rows.iter().map(row).collect())
}

/// Three members, the third of them a witness, and two partitions of at most two copies.
fn formed_with(rows: &[&[u16]]) -> Result<ControlState, Rejected> {
    let mut members = members(3);
    members[2].holds_data = false;
    let mut state = ControlState::default();
    let outcome = state.apply(&Command::FormCluster { cluster: cluster(2, 2), members, table: table(rows) });
    assert!(outcome.is_ok() || state == ControlState::default(), "a refused table changes nothing");
    outcome.map(|_| state)
}

#[test]
fn the_table_of_the_command_is_the_table_of_the_cluster() {
    let state = formed_with(&[&[1], &[1, 0]]).unwrap();
    let partitions = &state.topology.partitions;
    assert_eq!(partitions[0].holders().collect::<Vec<_>>(), [&node(2)]);
    assert_eq!(partitions[1].holders().collect::<Vec<_>>(), [&node(2), &node(1)]);
    let uids: Vec<_> = partitions.iter().flat_map(|record| &record.replicas).map(|r| r.uid.0).collect();
    assert_eq!(uids, [1, 2, 3]);
}

#[test]
fn a_table_that_does_not_fit_its_cluster_is_refused() {
    let refused = Err(Rejected::Invalid { reason: InvalidReason::FirstTable });
    let check = |rows: &[&[u16]], why: &str| assert_eq!(formed_with(rows), refused, "{why}");
    check(&[&[0, 1]], "a row is missing");
    check(&[&[0, 1], &[0, 1], &[0, 1]], "a row too many");
    check(&[&[0, 1], &[0, 3]], "no such member");
    check(&[&[0, 1], &[0, 0]], "a member twice");
    check(&[&[0, 1], &[0, 2]], "a member without data");
    check(&[&[0, 1], &[0, 1, 1]], "more copies than there shall be");
}

#[test]
fn what_is_beyond_the_limits_is_refused_before_a_table_is_laid_out() {
    let check = |cluster: Cluster, members: Vec<Registration>, expect: InvalidReason| {
        assert_eq!(Command::form_cluster(cluster.clone(), members.clone()), Err(expect));
        let table = FirstTable::default();
        let outcome = ControlState::default().apply(&Command::FormCluster { cluster, members, table });
        assert_eq!(outcome, Err(Rejected::Invalid { reason: expect }));
    };
    let named = |name: &str| Cluster { name: name.to_string(), ..cluster(8, 3) };
    check(cluster(0, 3), members(3), InvalidReason::PartitionCount);
    check(cluster(PARTITIONS_MAX + 1, 3), members(3), InvalidReason::PartitionCount);
    check(cluster(u32::MAX, 3), members(3), InvalidReason::PartitionCount);
    check(cluster(8, 0), members(3), InvalidReason::ReplicationFactor);
    check(cluster(8, REPLICATION_FACTOR_MAX + 1), members(3), InvalidReason::ReplicationFactor);
    check(named(""), members(3), InvalidReason::ClusterName);
    check(named(&"x".repeat(CLUSTER_NAME_BYTES_MAX + 1)), members(3), InvalidReason::ClusterName);
    check(cluster(8, 3), members(0), InvalidReason::Members);
    check(cluster(8, 3), members(u64::from(EXPECT_MAX) + 1), InvalidReason::Members);
    check(cluster(8, 3), vec![registration(1, 1), registration(1, 2)], InvalidReason::Members);
    check(cluster(8, 3), vec![registration(1, 1), registration(2, 1)], InvalidReason::Members);
    check(cluster(8, 3), vec![Registration { weight: 0, ..registration(1, 1) }], InvalidReason::Weight);
}

#[test]
fn the_table_does_not_depend_on_the_order_of_the_members() {
    let formed = |members: Vec<Registration>| {
        let mut state = ControlState::default();
        state.apply(&Command::form_cluster(cluster(64, 3), members).unwrap()).unwrap();
        state
    };
    let reversed = members(5).into_iter().rev().collect();
    assert_eq!(formed(reversed), formed(members(5)));
}

#[test]
fn a_cluster_of_witnesses_has_partitions_that_nobody_holds() {
    let witness = || Registration { holds_data: false, ..registration(1, 1) };
    for strategy in Strategy::ALL {
        let mut cluster = cluster(8, 3);
        cluster.config.strategy = strategy;
        let mut state = ControlState::default();
        let formed = Command::form_cluster(cluster, vec![witness()]).unwrap();
        assert_eq!(state.apply(&formed), Ok(Applied::Changed), "{strategy}");
        assert!(state.topology.partitions.iter().all(|record| record.replicas.is_empty()), "{strategy}");
    }
}
