//! `clusterkit partition ...`

use std::process::ExitCode;

use serde_json::Value;

use super::{Outcome, client, print, print_json, read, table};
use crate::cli::{Key, Output, PartitionName, Remote};
use crate::client::escaped;
use crate::terminal;
use crate::view::{Partition, Route};

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
    let mut text = table::properties([
        ("partition", partition.name.clone()),
        ("health", partition.health.replace('_', "-")),
        ("leader", table::or_dash(partition.leader.as_deref())),
        ("epoch", partition.epoch.to_string()),
        ("replicas", holders(partition)),
        ("in sync", format!("{} (writes need {})", partition.in_sync.join(" "), partition.min_in_sync)),
    ]);
    if partition.reasons.is_empty() {
        text.push_str("\nIt is as it should be.\n");
    } else {
        text.push_str(&format!("\n{}\n", partition.reasons.join("\n")));
    }
    text
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
