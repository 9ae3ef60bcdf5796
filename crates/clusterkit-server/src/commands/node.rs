//! `clusterkit node ...`, but for the long one.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{Outcome, client, print, print_json, read, status, table};
use crate::cli::{NodeName, Output, Remote, Remove};
use crate::client::escaped;
use crate::failure::EXIT_FAILED;
use crate::terminal;
use crate::view::{Node, Status, StopCheck};

pub(super) fn list(remote: &Remote) -> Outcome {
    let answer: Value = client(remote)?.get("/v1/status")?;
    match remote.format.output {
        Output::Json => print_json(&answer["nodes"])?,
        Output::Table => terminal::say(&status::nodes(&read::<Status>(remote, answer)?))?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(name: &NodeName) -> Outcome {
    let answer = client(&name.remote)?.get(&path(&name.node, ""))?;
    print(&name.remote, answer, details)?;
    Ok(ExitCode::SUCCESS)
}

fn details(node: &Node) -> String {
    let metadata: Vec<_> = node.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    table::properties([
        ("node", node.id.clone()),
        ("status", node.status.clone()),
        ("clients", node.public_addr.clone()),
        ("nodes", node.node_addr.clone()),
        ("zone", table::or_dash(node.zone.as_deref())),
        ("weight", node.weight.to_string()),
        ("role", node.role.clone()),
        ("holds data", if node.holds_data { "yes" } else { "no" }.to_owned()),
        ("incarnation", node.incarnation.to_string()),
        ("store", node.store.clone()),
        ("version", node.software.clone()),
        ("metadata", table::or_dash(Some(&metadata.join(", ")))),
    ])
}

pub(super) fn cancel_drain(name: &NodeName) -> Outcome {
    let answer = client(&name.remote)?.post(&path(&name.node, "/cancel-drain"), &json!({}))?;
    changed(&name.remote, &answer, &format!("{} stays", name.node), &format!("{} was not leaving", name.node))
}

pub(super) fn remove(remove: &Remove) -> Outcome {
    let answer =
        client(&remove.remote)?.post(&path(&remove.node, "/remove"), &json!({ "force": remove.force }))?;
    changed(
        &remove.remote,
        &answer,
        &format!("{} is removed", remove.node),
        &format!("{} was removed before", remove.node),
    )
}

/// Says what came of a change.
pub(super) fn changed(remote: &Remote, answer: &Value, now: &str, before: &str) -> Outcome {
    match remote.format.output {
        Output::Json => print_json(answer)?,
        Output::Table => terminal::say(if answer["changed"] == json!(false) { before } else { now })?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn stop_check(name: &NodeName) -> Outcome {
    let answer: Value = client(&name.remote)?.get(&path(&name.node, "/stop-check"))?;
    let check: StopCheck = read(&name.remote, answer.clone())?;
    print(&name.remote, answer, |check| verdict(&name.node, check))?;
    Ok(if check.safe { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn verdict(node: &str, check: &StopCheck) -> String {
    if check.safe {
        return format!("yes: {node} may be stopped now");
    }
    let reasons: Vec<_> = check.reasons.iter().map(|reason| format!("  {}\n", reason.message)).collect();
    format!("no: {node} should not be stopped now\n{}", reasons.concat())
}

pub(super) fn path(node: &str, rest: &str) -> String {
    format!("/v1/nodes/{}{rest}", escaped(node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_with_everything_it_said_of_itself() {
        let node = json!({
            "id": "node-1", "status": "alive", "node_addr": "127.0.0.1:7000", "public_addr": "127.0.0.1:8080",
            "zone": "a", "weight": 2, "role": "voter", "holds_data": false, "incarnation": 3, "store": "0a",
            "software": "0.1.0", "metadata": {"rack": "r1", "row": "2"},
        });
        let text = details(&serde_json::from_value(node).expect("a node"));
        for line in [
            "node         node-1\n",
            "holds data   no\n",
            "metadata     rack=r1, row=2\n",
            "zone         a\n",
        ] {
            assert!(text.contains(line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn a_stop_check_says_yes_or_no_and_why() {
        let check = |safe: bool, reasons: &[&str]| {
            let reasons: Vec<_> = reasons.iter().map(|message| json!({ "message": message })).collect();
            let check = serde_json::from_value(json!({ "safe": safe, "reasons": reasons })).expect("a check");
            verdict("node-1", &check)
        };
        assert_eq!(check(true, &[]), "yes: node-1 may be stopped now");
        assert_eq!(
            check(false, &["12 partitions would have no leader"]),
            "no: node-1 should not be stopped now\n  12 partitions would have no leader\n"
        );
    }
}
