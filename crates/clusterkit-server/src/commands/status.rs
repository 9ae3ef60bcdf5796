//! `clusterkit status`: one sentence, and the tables behind it.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Outcome, client, print_json, read, table};
use crate::cli::{self, Output, WaitFor};
use crate::client::{Client, ClientError};
use crate::failure::{EXIT_UNREACHABLE, Failure};
use crate::terminal::{self, Colour, counted};
use crate::view::{PartitionCounts, State, Status};

const PATH: &str = "/v1/status";
/// Between two looks of `--wait`.
const WAIT_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// Moves and late hooks that are shown: what is left fits into the terminal.
const ROWS_MAX: usize = 10;
/// Empties the terminal.
const CLEAR: &str = "\x1b[2J\x1b[H";

pub(super) fn run(options: &cli::Status) -> Outcome {
    let client = client(&options.remote)?;
    if options.watch {
        return watch(options, &client);
    }
    let (status, answer) = match options.wait {
        Some(wanted) => wait(options, &client, wanted)?,
        None => look(options, &client)?,
    };
    show(options, &status, &answer)?;
    Ok(ExitCode::from(exit_code(status.health.state)))
}

fn look(options: &cli::Status, client: &Client) -> Result<(Status, Value), ClientError> {
    let answer: Value = client.get(PATH)?;
    Ok((read(&options.remote, answer.clone())?, answer))
}

fn show(options: &cli::Status, status: &Status, answer: &Value) -> std::io::Result<()> {
    match options.remote.format.output {
        Output::Json => print_json(answer),
        Output::Table => terminal::say(&text(status, terminal::has_colours())),
    }
}

fn exit_code(state: State) -> u8 {
    match state {
        State::Healthy => 0,
        State::Degraded => 1,
        State::Unavailable => 2,
    }
}

/// Looks until the cluster stands as wanted. A node that does not answer may be about to start.
fn wait(options: &cli::Status, client: &Client, wanted: WaitFor) -> Result<(Status, Value), Failure> {
    let deadline = Instant::now() + options.timeout.0;
    loop {
        let (last, exit) = match look(options, client) {
            Ok(seen) if is_met(wanted, seen.0.health.state) => return Ok(seen),
            Ok((status, _)) => (status.health.sentence, exit_code(status.health.state)),
            Err(error) if error.is_unreachable() => (error.to_string(), EXIT_UNREACHABLE),
            Err(error) => return Err(error.into()),
        };
        if Instant::now() >= deadline {
            let waited = options.timeout.to_string();
            return Err(Failure::WaitedInVain { wanted: word(wanted), waited, last, exit });
        }
        thread::sleep(WAIT_PAUSE);
    }
}

fn is_met(wanted: WaitFor, state: State) -> bool {
    match wanted {
        WaitFor::Healthy => state == State::Healthy,
        WaitFor::Available => state <= State::Degraded,
    }
}

fn word(wanted: WaitFor) -> &'static str {
    match wanted {
        WaitFor::Healthy => "healthy",
        WaitFor::Available => "available",
    }
}

/// Goes on until Ctrl-C, also while no node answers.
fn watch(options: &cli::Status, client: &Client) -> Outcome {
    loop {
        let seen = look(options, client);
        if terminal::is_terminal() {
            terminal::say(CLEAR)?;
        }
        match seen {
            Ok((status, answer)) => show(options, &status, &answer)?,
            Err(error) if error.is_unreachable() => terminal::say(&error.to_string())?,
            Err(error) => return Err(error.into()),
        }
        thread::sleep(WATCH_PAUSE);
    }
}

fn text(status: &Status, colours: bool) -> String {
    let (moves, late) = (moves(status), late_hooks(status));
    format!("{}\n\n{}\n{}{moves}{late}", sentence(status, colours), summary(status), nodes(status))
}

/// The moves under way, where there are any.
fn moves(status: &Status) -> String {
    let rows = status.movements.iter().map(|movement| {
        let awaits = match &movement.way.awaits {
            Some(hook) => format!("{} on {}", hook.stage, hook.node),
            None => "a leader".to_owned(),
        };
        [movement.partition.to_string(), movement.way.to_string(), awaits]
    });
    let all = usize::try_from(status.moves).unwrap_or(usize::MAX);
    listed(["PARTITION", "MOVES", "WAITS FOR"], rows, all)
}

/// The hooks that are past their deadline, where there are any.
fn late_hooks(status: &Status) -> String {
    let rows = status.overruns.iter().map(|overrun| {
        [overrun.partition.to_string(), overrun.hook.stage.clone(), overrun.hook.node.clone()]
    });
    listed(["PARTITION", "LATE HOOK", "NODE"], rows, status.overruns.len())
}

/// A table of the first rows, and how many more there are of `all`; nothing where there is none.
fn listed(head: [&str; 3], rows: impl Iterator<Item = [String; 3]>, all: usize) -> String {
    let shown: Vec<_> = rows.take(ROWS_MAX).collect();
    if shown.is_empty() {
        return String::new();
    }
    let more = match all.saturating_sub(shown.len()) {
        0 => String::new(),
        more => format!("... and {more} more\n"),
    };
    format!("\n{}{more}", table::columns(head, shown))
}

fn sentence(status: &Status, colours: bool) -> String {
    let sentence = match status.health.state {
        State::Healthy => {
            let partitions = usize::try_from(status.partitions.total).unwrap_or(usize::MAX);
            let (nodes, partitions) = (counted(status.nodes.len(), "node"), counted(partitions, "partition"));
            format!("healthy: {nodes}, {partitions}, all led and in sync")
        }
        State::Degraded | State::Unavailable => status.health.sentence.clone(),
    };
    let colour = match status.health.state {
        State::Healthy => Colour::Green,
        State::Degraded => Colour::Yellow,
        State::Unavailable => Colour::Red,
    };
    match sentence.split_once(':') {
        Some((word, rest)) => format!("{}:{rest}", terminal::coloured(word, colour, colours)),
        None => terminal::coloured(&sentence, colour, colours),
    }
}

fn summary(status: &Status) -> String {
    let cluster = status.cluster.as_ref();
    table::properties([
        (
            "cluster",
            cluster.map_or_else(|| "-".to_owned(), |cluster| format!("{} ({:?})", cluster.id, cluster.name)),
        ),
        ("controller", table::or_dash(status.control_plane.controller.as_deref())),
        ("partitions", counts(status.partitions)),
        ("moves", status.moves.to_string()),
        ("seen by", format!("{} at topology {}", status.node, status.version)),
    ])
}

fn counts(counts: PartitionCounts) -> String {
    let kinds = [
        (counts.ok, "ok"),
        (counts.under_replicated, "under-replicated"),
        (counts.below_min_in_sync, "not writable"),
        (counts.leaderless, "leaderless"),
    ];
    let present = kinds.iter().filter(|(count, _)| *count > 0);
    let listed: Vec<_> = present.map(|(count, kind)| format!("{count} {kind}")).collect();
    if listed.is_empty() {
        counts.total.to_string()
    } else {
        format!("{}: {}", counts.total, listed.join(", "))
    }
}

pub(super) fn nodes(status: &Status) -> String {
    let rows = status.nodes.iter().map(|node| {
        let raft = if node.is_controller { "controller" } else { &node.raft };
        [
            node.id.clone(),
            node.status.clone(),
            raft.to_owned(),
            node.leaders.to_string(),
            node.replicas.to_string(),
            node.public_addr.clone(),
            node.node_addr.clone(),
            table::or_dash(node.zone.as_deref()),
            node.software.clone(),
        ]
    });
    table::columns(
        ["NODE", "STATUS", "CONTROL", "LEADS", "HOLDS", "CLIENTS", "NODES", "ZONE", "VERSION"],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(state: &str, sentence: &str, counts: [u32; 5]) -> Status {
        let node = |id: &str, status: &str, is_controller: bool| {
            json!({
                "id": id, "status": status, "public_addr": "127.0.0.1:8080", "node_addr": "127.0.0.1:7000",
                "zone": null, "is_controller": is_controller, "raft": "voter", "replicas": 64, "leaders": 22,
                "software": "0.1.0",
            })
        };
        let [total, ok, under_replicated, below_min_in_sync, leaderless] = counts;
        let status = json!({
            "node": "node-1", "cluster": {"id": "00ff", "name": "dev"}, "version": 7, "moves": 0,
            "health": {"state": state, "sentence": sentence},
            "control_plane": {"controller": "node-1"},
            "partitions": {
                "total": total, "ok": ok, "under_replicated": under_replicated,
                "below_min_in_sync": below_min_in_sync, "leaderless": leaderless,
            },
            "nodes": [node("node-1", "alive", true), node("node-2", "dead", false)],
        });
        serde_json::from_value(status).expect("a status")
    }

    #[test]
    fn the_first_line_is_a_sentence() {
        let healthy = status("healthy", "healthy", [64, 64, 0, 0, 0]);
        assert_eq!(sentence(&healthy, false), "healthy: 2 nodes, 64 partitions, all led and in sync");
        let degraded = status("degraded", "degraded: node-2 is dead", [64, 0, 64, 0, 0]);
        assert_eq!(sentence(&degraded, false), "degraded: node-2 is dead");
        assert_eq!(sentence(&degraded, true), "\x1b[33mdegraded\x1b[0m: node-2 is dead");
    }

    #[test]
    fn the_tables_show_who_and_how_many() {
        let text = text(&status("degraded", "degraded: node-2 is dead", [64, 21, 43, 0, 0]), false);
        let expect = "\
degraded: node-2 is dead

cluster     00ff (\"dev\")
controller  node-1
partitions  64: 21 ok, 43 under-replicated
moves       0
seen by     node-1 at topology 7

NODE    STATUS  CONTROL     LEADS  HOLDS  CLIENTS         NODES           ZONE  VERSION
node-1  alive   controller  22     64     127.0.0.1:8080  127.0.0.1:7000  -     0.1.0
node-2  dead    voter       22     64     127.0.0.1:8080  127.0.0.1:7000  -     0.1.0
";
        assert_eq!(text, expect);
    }

    #[test]
    fn moves_and_late_hooks_are_listed_with_what_they_wait_for() {
        let hook = json!({"stage": "catch_up", "node": "node-3"});
        let movement = |partition: u32, source: Value, awaits: &Value| json!({"partition": partition, "source": source, "target": "node-3", "awaits": awaits});
        let mut moving = status("degraded", "degraded", [64, 64, 0, 0, 0]);
        let movements = json!([movement(5, json!("node-2"), &hook), movement(7, json!(null), &json!(null))]);
        moving.movements = serde_json::from_value(movements).expect("moves");
        moving.moves = 14;
        let overrun = json!([{"partition": 5, "stage": "catch_up", "node": "node-3"}]);
        moving.overruns = serde_json::from_value(overrun).expect("late hooks");
        let expect = "
PARTITION  MOVES             WAITS FOR
5          node-2 to node-3  catch_up on node-3
7          to node-3         a leader
... and 12 more

PARTITION  LATE HOOK  NODE
5          catch_up   node-3
";
        let text = text(&moving, false);
        assert!(text.ends_with(expect), "{text}");
    }

    #[test]
    fn the_exit_code_says_how_bad_it_is() {
        assert_eq!([State::Healthy, State::Degraded, State::Unavailable].map(exit_code), [0, 1, 2]);
    }

    #[test]
    fn waiting_is_over_when_the_cluster_stands_well_enough() {
        let check = |wanted, expect: [bool; 3]| {
            let states = [State::Healthy, State::Degraded, State::Unavailable];
            assert_eq!(states.map(|state| is_met(wanted, state)), expect, "{wanted:?}");
        };
        check(WaitFor::Healthy, [true, false, false]);
        check(WaitFor::Available, [true, true, false]);
    }
}
