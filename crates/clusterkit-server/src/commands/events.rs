//! `clusterkit events`

use std::io::BufRead;
use std::process::ExitCode;

use clusterkit::EventId;
use serde::Deserialize;
use serde_json::Value;

use super::{Outcome, client, read};
use crate::cli::{self, Output, Remote};
use crate::client::ClientError;
use crate::failure::Failure;
use crate::terminal;
use crate::view::Event;

/// What a node remembers.
#[derive(Debug, Deserialize)]
struct Kept {
    items: Vec<Value>,
}

pub(super) fn run(options: &cli::Events) -> Outcome {
    let (remote, client) = (&options.remote, client(&options.remote)?);
    // Opened before the list is asked for, so that nothing falls between the two.
    let stream = options.follow.then(|| client.stream("/v1/events")).transpose()?;
    let kept: Kept = client.get("/v1/events?follow=false")?;
    let mut last = None;
    for item in kept.items {
        last = id(&item);
        show(remote, item)?;
    }
    let Some(stream) = stream else { return Ok(ExitCode::SUCCESS) };
    follow(remote, stream, last)?;
    let reason = "the stream of events has ended".to_owned();
    Err(ClientError::Unreachable { url: client.url().to_owned(), reason }.into())
}

/// Shows events after `last` as they come, until the stream ends.
fn follow(remote: &Remote, stream: impl BufRead, last: Option<EventId>) -> Result<(), Failure> {
    for line in stream.lines() {
        // A stream that breaks has ended, whatever broke it.
        let Ok(line) = line else { return Ok(()) };
        let Some(data) = line.strip_prefix("data:") else { continue };
        let strange = |_| ClientError::NotClusterKit { url: remote.url.clone() };
        let event: Value = serde_json::from_str(data.trim_start()).map_err(strange)?;
        if id(&event).is_none_or(|id| Some(id) > last) {
            show(remote, event)?;
        }
    }
    Ok(())
}

/// The place of an event; a note that some were lost has none.
fn id(event: &Value) -> Option<EventId> {
    event["id"].as_str()?.parse().ok()
}

fn show(remote: &Remote, event: Value) -> Result<(), Failure> {
    let line = match remote.format.output {
        Output::Json => event.to_string(),
        Output::Table => line(&read(remote, event)?),
    };
    Ok(terminal::say(&line)?)
}

fn line(event: &Event) -> String {
    let about: Vec<String> = about(event).into_iter().flatten().collect();
    format!("{:<24}  {:<18}  {}", event.at, event.kind, about.join(" ")).trim_end().to_owned()
}

/// The fields that an event has, in the order of a sentence.
fn about(event: &Event) -> [Option<String>; 12] {
    let named = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("{name} {value}"));
    [
        event.partition.map(|partition| format!("partition-{partition}")),
        event.node.clone(),
        named("leader", &event.leader),
        event.epoch.map(|epoch| format!("epoch {epoch}")),
        named("origin", &event.origin),
        named("before", &event.previous),
        event.in_sync.as_ref().map(|nodes| format!("in sync: {}", nodes.join(" "))),
        named("from", &event.source),
        named("to", &event.target),
        event.stage.clone(),
        event.arrived.map(|arrived| if arrived { "arrived" } else { "given up" }.to_owned()),
        event.count.map(|count| format!("{count} events")),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_shown_once() {
        let id = |text: &str| id(&json!({ "id": text }));
        assert!(id("7.10") > id("7.9"), "ids are numbers, not texts");
        assert!(id("10.0") > id("9.9"));
        assert_eq!(id("x"), None);
    }

    #[test]
    fn an_event_is_a_line() {
        let check = |event: Value, expect: &str| {
            assert_eq!(line(&serde_json::from_value(event).expect("an event")), expect);
        };
        let at = "2025-01-02T03:04:05.678Z";
        check(
            json!({"id": "7.0", "at": at, "kind": "leader_elected", "partition": 5, "leader": "node-2", "epoch": 4, "origin": "handover", "previous": "node-1"}),
            "2025-01-02T03:04:05.678Z  leader_elected      partition-5 leader node-2 epoch 4 origin handover before node-1",
        );
        check(
            json!({"id": "7.1", "at": at, "kind": "move_finished", "partition": 5, "source": "a", "target": "b", "arrived": true}),
            "2025-01-02T03:04:05.678Z  move_finished       partition-5 from a to b arrived",
        );
        check(
            json!({"id": "7.2", "at": at, "kind": "hook_overran", "partition": 5, "node": "b", "stage": "catch_up"}),
            "2025-01-02T03:04:05.678Z  hook_overran        partition-5 b catch_up",
        );
        check(
            json!({"id": "7.3", "at": at, "kind": "move_advanced", "partition": 5, "source": "a", "target": "b", "stage": "seal"}),
            "2025-01-02T03:04:05.678Z  move_advanced       partition-5 from a to b seal",
        );
        check(
            json!({"id": "1.0", "at": at, "kind": "cluster_formed"}),
            "2025-01-02T03:04:05.678Z  cluster_formed",
        );
        check(
            json!({"kind": "lost", "count": 12}),
            "                          lost                12 events",
        );
    }
}
