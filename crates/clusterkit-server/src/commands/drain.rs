//! `clusterkit node drain`: the one command that takes long.

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::signal;

use super::node::{changed, path};
use super::{Outcome, client, print, print_json, read};
use crate::cli::{Drain, Output};
use crate::client::{Client, ClientError};
use crate::failure::{EXIT_FAILED, Failure};
use crate::terminal::{self, Progress, counted};
use crate::view::{DrainPlan, NodeStatus, Status};

/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(300);
/// How long those that are asked may be silent before the waiting ends.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Nodes that are asked beside the first one when it is silent.
const WITNESSES_MAX: usize = 4;
/// How long the order may take to show in the status of the node that is asked.
const ORDER_TIMEOUT: Duration = Duration::from_secs(5);
/// What shells say of a command that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

pub(super) fn run(drain: &Drain) -> Outcome {
    let client = client(&drain.remote)?;
    if drain.dry_run {
        let answer = client.post(&path(&drain.node, "/drain?dry_run=true"), &json!({}))?;
        print(&drain.remote, answer, |found| plan(&drain.node, found))?;
        return Ok(ExitCode::SUCCESS);
    }
    let answer: Value = client.post(&path(&drain.node, "/drain"), &json!({}))?;
    if drain.no_wait {
        let before = format!("{} was leaving already", drain.node);
        return changed(&drain.remote, &answer, &format!("{} is leaving", drain.node), &before);
    }
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(wait(drain, &client));
    runtime.shutdown_background();
    outcome
}

fn plan(node: &str, plan: &DrainPlan) -> String {
    let (moves, leads, drops) = (plan.moves.len(), plan.leads.len(), plan.drops.len());
    let (copies, leads) = (copies(moves), counted(leads, "partition"));
    let mut text = format!("{node} would give away {copies} and the lead of {leads}\n");
    let rows = plan.moves.iter().map(|planned| [planned.partition.to_string(), planned.target.clone()]);
    if moves > 0 {
        text.push_str(&format!("\n{}", super::table::columns(["PARTITION", "COPY GOES TO"], rows)));
    }
    if drops > 0 {
        let drops = counted(drops, "partition");
        text.push_str(&format!(
            "\n{drops} would have one copy less, since there are fewer nodes than copies\n"
        ));
    }
    if !plan.leaves {
        text.push_str("\nIt could not leave then: there is no place for the rest.\n");
    }
    text
}

fn copies(count: usize) -> String {
    if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") }
}

/// Waits for the end, or for Ctrl-C, which ends nothing but the waiting.
async fn wait(drain: &Drain, client: &Client) -> Outcome {
    let mut progress = Progress::default();
    let ended = tokio::select! {
        ended = until_left(drain, client, &mut progress) => ended,
        _ = signal::ctrl_c() => {
            progress.finish()?;
            let node = &drain.node;
            terminal::say(&format!(
                "{node} goes on leaving; `clusterkit node list` shows how far it is, `clusterkit node cancel-drain {node}` makes it stay"
            ))?;
            return Ok(ExitCode::from(EXIT_INTERRUPTED));
        }
    };
    progress.finish()?;
    let has_left = ended?;
    let ending =
        if has_left { "has left: its process ends by itself" } else { "stays: its drain was cancelled" };
    match drain.remote.format.output {
        Output::Json => print_json(&json!({ "node": drain.node, "left": has_left }))?,
        Output::Table => terminal::say(&format!("{} {ending}", drain.node))?,
    }
    Ok(if has_left { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

/// Whether the node has left in the end, or stays because somebody cancelled.
async fn until_left(drain: &Drain, client: &Client, progress: &mut Progress) -> Result<bool, Failure> {
    let mut departure = Departure::begin(client.clone());
    loop {
        if let Some(status) = departure.look(drain).await? {
            match departure.judge(Standing::of(&status, &drain.node)) {
                Judgement::Over { has_left } => return Ok(has_left),
                Judgement::UnderWay { copies, all, leads } if drain.remote.format.output == Output::Table => {
                    progress.show(&line(&drain.node, copies, all, leads))?;
                }
                Judgement::UnderWay { .. } | Judgement::NotSeenYet => {}
            }
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// A drain that is watched.
struct Departure {
    /// Who is asked: the first of these, and the next one when that is silent. The node that leaves
    /// ends when it has left, so that another one must say that it has.
    witnesses: VecDeque<Client>,
    ordered: Instant,
    /// When one of them answered last.
    heard: Instant,
    /// The copies that the leaving node had when it was first seen to leave.
    copies_first: Option<u32>,
}

/// What to make of a standing.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    NotSeenYet,
    Over { has_left: bool },
    UnderWay { copies: u32, all: u32, leads: u32 },
}

impl Departure {
    fn begin(client: Client) -> Self {
        let now = Instant::now();
        Self { witnesses: VecDeque::from([client]), ordered: now, heard: now, copies_first: None }
    }

    /// The status, or nothing while another node is to be asked or the same one may come back.
    async fn look(&mut self, drain: &Drain) -> Result<Option<Status>, Failure> {
        match look(&self.witnesses[0]).await {
            Ok(answer) => {
                let status: Status = read(&drain.remote, answer)?;
                self.heard = Instant::now();
                self.note_witnesses(&status, &drain.node);
                Ok(Some(status))
            }
            Err(error) if error.is_unreachable() && self.heard.elapsed() < SILENCE_MAX => {
                self.witnesses.rotate_left(1);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whoever is alive, and is neither asked already nor leaves, can be asked next.
    fn note_witnesses(&mut self, status: &Status, leaving: &str) {
        let able = |row: &&NodeStatus| row.status == "alive" && row.id != leaving && row.id != status.node;
        let clients = status.nodes.iter().filter(able).filter_map(|row| Client::new(&row.public_addr).ok());
        self.witnesses.truncate(1);
        self.witnesses.extend(clients.take(WITNESSES_MAX));
    }

    fn judge(&mut self, standing: Standing) -> Judgement {
        match standing {
            Standing::Leaving { copies, leads } => {
                let all = (*self.copies_first.get_or_insert(copies)).max(copies);
                Judgement::UnderWay { copies, all, leads }
            }
            Standing::Left => Judgement::Over { has_left: true },
            // The node that is asked learns of the order a moment after the controller took it.
            Standing::Stays if self.copies_first.is_none() && self.ordered.elapsed() < ORDER_TIMEOUT => {
                Judgement::NotSeenYet
            }
            Standing::Stays => Judgement::Over { has_left: false },
        }
    }
}

async fn look(client: &Client) -> Result<Value, ClientError> {
    let asking = client.clone();
    let answer = tokio::task::spawn_blocking(move || asking.get("/v1/status")).await;
    let gone = || ClientError::Unreachable { url: client.url().to_owned(), reason: "interrupted".to_owned() };
    answer.unwrap_or_else(|_| Err(gone()))
}

fn line(node: &str, copies: u32, all: u32, leads: u32) -> String {
    format!("{node} is leaving: {} of {all} copies handed over, {leads} partitions still led", all - copies)
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Leaving { copies: u32, leads: u32 },
    Left,
    Stays,
}

impl Standing {
    fn of(status: &Status, node: &str) -> Self {
        match status.nodes.iter().find(|row| row.id == node) {
            None => Self::Left,
            Some(NodeStatus { status, .. }) if status == "left" => Self::Left,
            // A node that dies while it drains goes on draining, as far as others can do it.
            Some(NodeStatus { status, .. }) if status == "alive" || status == "suspect" => Self::Stays,
            Some(row) => Self::Leaving { copies: row.replicas, leads: row.leaders },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_counts_what_is_handed_over() {
        assert_eq!(
            line("a", 64, 64, 20),
            "a is leaving: 0 of 64 copies handed over, 20 partitions still led"
        );
        assert_eq!(line("a", 4, 64, 0), "a is leaving: 60 of 64 copies handed over, 0 partitions still led");
    }

    #[test]
    fn a_node_stays_only_after_it_was_seen_to_leave() {
        let mut departure = Departure::begin(Client::new("127.0.0.1:1").expect("a URL"));
        assert_eq!(departure.judge(Standing::Stays), Judgement::NotSeenYet);
        let leaving = |copies| Standing::Leaving { copies, leads: 1 };
        assert_eq!(departure.judge(leaving(9)), Judgement::UnderWay { copies: 9, all: 9, leads: 1 });
        assert_eq!(departure.judge(leaving(4)), Judgement::UnderWay { copies: 4, all: 9, leads: 1 });
        assert_eq!(departure.judge(Standing::Stays), Judgement::Over { has_left: false });
        assert_eq!(departure.judge(Standing::Left), Judgement::Over { has_left: true });
    }

    #[test]
    fn a_plan_says_what_goes_where_and_what_is_lost() {
        let text = |leaves: bool, drops: &[u32]| {
            let found = json!({
                "moves": [{"partition": 3, "target": "b"}], "leads": [], "drops": drops, "leaves": leaves,
            });
            plan("a", &serde_json::from_value(found).expect("a plan"))
        };
        assert_eq!(
            text(true, &[]),
            "a would give away 1 copy and the lead of 0 partitions\n\nPARTITION  COPY GOES TO\n3          b\n"
        );
        assert!(
            text(true, &[4])
                .ends_with("1 partition would have one copy less, since there are fewer nodes than copies\n")
        );
        assert!(text(false, &[]).ends_with("It could not leave then: there is no place for the rest.\n"));
    }
}
