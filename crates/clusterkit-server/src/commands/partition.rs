//! `clusterkit partition ...`

use std::process::ExitCode;

use serde_json::Value;

use super::{Outcome, client, print, print_json, read, table};
use crate::cli::{Key, Output, PartitionName, Remote};
use crate::client::escaped;
use crate::terminal::{self, counted};
use crate::view::{Attempt, Epoch, Partition, Route, Stage};

pub(super) fn list(remote: &Remote) -> Outcome {
    let items: Vec<Value> = client(remote)?.list("/v1/partitions")?;
    match remote.format.output {
        Output::Json => print_json(&Value::Array(items))?,
        Output::Table => terminal::say(&rows(&read::<Vec<Partition>>(remote, Value::Array(items))?))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(partitions: &[Partition]) -> String {
    let rows = partitions.iter().map(|partition| {
        [
            partition.id.to_string(),
            table::or_dash(partition.leader.as_deref()),
            partition.epoch.to_string(),
            holders(partition),
            partition.in_sync.len().to_string(),
            partition.health.replace('_', "-"),
        ]
    });
    table::columns(["PARTITION", "LEADER", "EPOCH", "REPLICAS", "IN SYNC", "HEALTH"], rows)
}

/// All copies, the leader's first.
fn holders(partition: &Partition) -> String {
    let leads = |node: &&str| partition.leader.as_deref() == Some(*node);
    let nodes: Vec<&str> = partition.replicas.iter().map(|replica| replica.node.as_str()).collect();
    let (leader, followers): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| leads(node));
    let all: Vec<&str> = leader.into_iter().chain(followers).collect();
    table::or_dash(Some(&all.join(" ")))
}

pub(super) fn explain(name: &PartitionName) -> Outcome {
    let answer = client(&name.remote)?.get(&format!("/v1/partitions/{}", escaped(&name.partition)))?;
    print(&name.remote, answer, explanation)?;
    Ok(ExitCode::SUCCESS)
}

fn explanation(partition: &Partition) -> String {
    let mut text = table::properties(properties(partition));
    if partition.reasons.is_empty() {
        text.push_str("\nIt is as it should be.\n");
    } else {
        text.push_str(&format!("\n{}\n", partition.reasons.join("\n")));
    }
    if !partition.stages.is_empty() {
        text.push_str(&format!("\n{}", hooks(&partition.stages)));
        text.extend(partition.stages.iter().filter_map(|stage| who_knows(partition, stage)));
    }
    if !partition.history.is_empty() {
        text.push_str(&format!("\n{}", epochs(&partition.history)));
    }
    text
}

fn properties(partition: &Partition) -> Vec<(&'static str, String)> {
    let epoch = match partition.origin.as_str() {
        "" => partition.epoch.to_string(),
        origin => format!("{} ({origin})", partition.epoch),
    };
    let mut rows = vec![
        ("partition", partition.name.clone()),
        ("health", partition.health.replace('_', "-")),
        ("leader", table::or_dash(partition.leader.as_deref())),
        ("epoch", epoch),
        ("replicas", holders(partition)),
        ("in sync", format!("{} (writes need {})", partition.in_sync.join(" "), partition.min_in_sync)),
    ];
    rows.extend(partition.movement.as_ref().map(|way| ("move", way.to_string())));
    rows.extend(partition.blocked_by.as_ref().map(|what| ("waits for", what.clone())));
    rows
}

fn hooks(stages: &[Stage]) -> String {
    let rows = stages.iter().map(|stage| {
        let attempt = stage.attempt.as_ref();
        let known = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
        [
            stage.stage.clone(),
            stage.node.clone(),
            if stage.late { "late" } else { "in time" }.to_owned(),
            known(attempt.map(doing)),
            known(attempt.map(|attempt| attempt.since.clone())),
            known(attempt.map(|attempt| attempt.calls.to_string())),
            known(attempt.and_then(copied)),
            known(attempt.and_then(|attempt| attempt.reason.clone())),
        ]
    });
    table::columns(["HOOK", "NODE", "DEADLINE", "STATE", "SINCE", "CALLS", "COPIED", "LAST ANSWER"], rows)
}

fn doing(attempt: &Attempt) -> String {
    match (attempt.running, attempt.permits) {
        (true, _) => "running".to_owned(),
        (false, 0) => "waiting".to_owned(),
        (false, writes) => format!("waiting for {}", counted(writes, "write")),
    }
}

/// How far a copy is, where it says so.
fn copied(attempt: &Attempt) -> Option<String> {
    let bytes = attempt.bytes?;
    Some(match attempt.bytes_total {
        Some(total) => format!("{bytes} of {total} bytes"),
        None => format!("{bytes} bytes"),
    })
}

/// Where to ask for more, when another node runs the hook than the one that answered.
fn who_knows(partition: &Partition, stage: &Stage) -> Option<String> {
    let addr = stage.public_addr.as_ref().filter(|_| stage.attempt.is_none())?;
    let (Stage { node, stage, .. }, id) = (stage, partition.id);
    Some(format!("how {stage} on {node} goes: clusterkit partition explain {id} --url http://{addr}\n"))
}

fn epochs(history: &[Epoch]) -> String {
    let rows = history.iter().rev().map(|epoch| {
        let at = table::or_dash(epoch.at.as_deref());
        [epoch.epoch.to_string(), epoch.leader.clone(), epoch.origin.clone(), at]
    });
    table::columns(["EPOCH", "LEADER", "ORIGIN", "LEARNED"], rows)
}

pub(super) fn who(key: &Key) -> Outcome {
    let answer = client(&key.remote)?.get(&format!("/v1/route?key={}", escaped(&key.key)))?;
    print(&key.remote, answer, |route| belongs(&key.key, route))?;
    Ok(ExitCode::SUCCESS)
}

fn belongs(key: &str, route: &Route) -> String {
    let slot = route.slot.map(|slot| format!(", slot {slot}")).unwrap_or_default();
    let sentence = match &route.leader {
        Some(leader) => {
            let Route { name, epoch, .. } = route;
            format!(
                "{key:?} is in {name}{slot}, led by {} at {} under epoch {epoch}",
                leader.id, leader.public_addr
            )
        }
        None => format!("{key:?} is in {}{slot}, which nobody leads just now", route.name),
    };
    let rows =
        route.replicas.iter().map(|node| [node.id.clone(), node.status.clone(), node.public_addr.clone()]);
    format!("{sentence}\n\n{}", table::columns(["REPLICA", "STATUS", "CLIENTS"], rows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn partition(leader: Option<&str>, health: &str, reasons: &[&str]) -> Partition {
        let partition = json!({
            "id": 5, "name": "partition-5", "epoch": 3, "leader": leader, "health": health, "min_in_sync": 2,
            "replicas": [{"node": "node-1"}, {"node": "node-2"}], "in_sync": ["node-1", "node-2"], "reasons": reasons,
        });
        serde_json::from_value(partition).expect("a partition")
    }

    #[test]
    fn the_leader_is_listed_first() {
        let text = rows(&[partition(Some("node-2"), "ok", &[]), partition(None, "leaderless", &[])]);
        let expect = "\
PARTITION  LEADER  EPOCH  REPLICAS       IN SYNC  HEALTH
5          node-2  3      node-2 node-1  2        ok
5          -       3      node-1 node-2  2        leaderless
";
        assert_eq!(text, expect);
    }

    #[test]
    fn an_explanation_ends_with_the_reasons() {
        let text = explanation(&partition(
            Some("node-1"),
            "under_replicated",
            &["2 of 3 copies are in sync and alive"],
        ));
        assert!(text.starts_with("partition  partition-5\nhealth     under-replicated\n"), "{text}");
        assert!(
            text.ends_with(
                "in sync    node-1 node-2 (writes need 2)\n\n2 of 3 copies are in sync and alive\n"
            ),
            "{text}"
        );
        assert!(explanation(&partition(Some("node-1"), "ok", &[])).ends_with("\nIt is as it should be.\n"));
    }

    #[test]
    fn an_explanation_shows_the_hooks_and_the_epochs() {
        let attempt = json!({
            "since": "2025-01-02T03:04:05.678Z", "late_since": null, "running": true, "calls": 2,
            "reason": "disk full", "bytes": 10, "bytes_total": 40, "permits": 0, "permits_since": null,
        });
        let stage = |node: &str, late: bool, attempt: Value| json!({"node": node, "public_addr": "127.0.0.1:2", "stage": "catch_up", "late": late, "attempt": attempt});
        let epoch = |epoch: u64, at: Value| json!({"epoch": epoch, "leader": "node-1", "origin": "handover", "at": at});
        let partition = json!({
            "id": 5, "name": "partition-5", "epoch": 3, "origin": "handover", "leader": "node-1",
            "health": "ok", "min_in_sync": 1, "replicas": [{"node": "node-1"}], "in_sync": ["node-1"],
            "movement": {"source": "node-1", "target": "node-3", "awaits": null},
            "blocked_by": "the move waits", "reasons": ["it moves"],
            "stages": [stage("node-2", true, attempt), stage("node-3", false, json!(null))],
            "history": [epoch(2, json!(null)), epoch(3, json!("2025-01-02T03:04:05.678Z"))],
        });
        let expect = "\
partition  partition-5
health     ok
leader     node-1
epoch      3 (handover)
replicas   node-1
in sync    node-1 (writes need 1)
move       node-1 to node-3
waits for  the move waits

it moves

HOOK      NODE    DEADLINE  STATE    SINCE                     CALLS  COPIED          LAST ANSWER
catch_up  node-2  late      running  2025-01-02T03:04:05.678Z  2      10 of 40 bytes  disk full
catch_up  node-3  in time   -        -                         -      -               -
how catch_up on node-3 goes: clusterkit partition explain 5 --url http://127.0.0.1:2

EPOCH  LEADER  ORIGIN    LEARNED
3      node-1  handover  2025-01-02T03:04:05.678Z
2      node-1  handover  -
";
        assert_eq!(explanation(&serde_json::from_value(partition).expect("a partition")), expect);
    }

    #[test]
    fn a_seal_that_waits_for_writes_says_for_how_many() {
        let state = |running: bool, permits: usize| {
            let attempt = json!({"since": "", "running": running, "calls": 0, "permits": permits});
            doing(&serde_json::from_value(attempt).expect("an attempt"))
        };
        assert_eq!(state(true, 0), "running");
        assert_eq!(state(false, 0), "waiting");
        assert_eq!(state(false, 1), "waiting for 1 write");
        assert_eq!(state(false, 3), "waiting for 3 writes");
    }

    #[test]
    fn a_key_is_shown_with_its_partition_and_who_leads_it() {
        let node = |id: &str| json!({"id": id, "public_addr": "127.0.0.1:1", "status": "alive"});
        let route = |leader| {
            let route = json!({"slot": 77, "name": "partition-5", "epoch": 3, "leader": leader, "replicas": [node("node-1")]});
            serde_json::from_value::<Route>(route).expect("a route")
        };
        let expect = "\
\"user:1\" is in partition-5, slot 77, led by node-1 at 127.0.0.1:1 under epoch 3

REPLICA  STATUS  CLIENTS
node-1   alive   127.0.0.1:1
";
        assert_eq!(belongs("user:1", &route(node("node-1"))), expect);
        assert!(
            belongs("k", &route(json!(null)))
                .starts_with("\"k\" is in partition-5, slot 77, which nobody leads just now\n")
        );
    }
}
