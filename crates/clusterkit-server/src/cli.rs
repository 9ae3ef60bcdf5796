//! The command line.

mod kv;

use std::path::PathBuf;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::kv::*;

use crate::config::{Layer, Span, URL_VARIABLE};
use crate::demo::Scenario;
use crate::dev::NODES_MAX;

/// The node that is asked where none is named.
pub(crate) const URL_DEFAULT: &str = "http://127.0.0.1:8080";

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Who is alive, who owns which partition, under which epoch.
#[derive(Debug, Parser)]
#[command(name = "clusterkit", version, styles = STYLES, max_term_width = 100, disable_help_subcommand = true, after_help = "\
Examples:
  clusterkit dev --nodes 3          three nodes on this machine, to play with
  clusterkit serve --node-id node-1 --bootstrap
  clusterkit status")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a node
    #[command(after_help = SERVE_HELP)]
    Serve(Box<Serve>),
    /// Run a cluster of several processes on this machine, to try things out
    #[command(after_help = "\
Examples:
  clusterkit dev                    three nodes, their data removed at the end
  clusterkit dev --nodes 5 --data ./play   kept, and taken up again by the same command

Ctrl-C stops all nodes.")]
    Dev(Dev),
    /// Break a cluster of several processes under load, and look for every acknowledged write
    #[command(after_help = "\
Exit code: 0 no acknowledged write was lost or took effect twice, 1 one was.

Examples:
  clusterkit demo --scenario kill-leader --trials 20
  clusterkit demo --scenario rolling-restart --rate 2000 --json")]
    Demo(Demo),
    /// Say in one sentence how the cluster stands, and in tables why
    #[command(after_help = "\
Exit code: 0 healthy, 1 degraded, 2 unavailable, 3 no node can be reached.

Examples:
  clusterkit status
  clusterkit status --wait healthy --timeout 60s && ./deploy-next
  clusterkit status --watch
  clusterkit status -o json --url http://10.0.0.2:8080")]
    Status(Status),
    /// Look at nodes, and take them out of the cluster
    #[command(subcommand)]
    Node(Node),
    /// Look at partitions
    #[command(subcommand)]
    Partition(Partition),
    /// Read and write keys and values
    #[command(subcommand)]
    Kv(Kv),
    /// Show what happened in the cluster
    #[command(after_help = "\
Examples:
  clusterkit events
  clusterkit events --follow
  clusterkit events --follow -o json | jq .kind")]
    Events(Events),
    /// Show the version of this program
    #[command(after_help = "Example:\n  clusterkit version -o json")]
    Version(Format),
}

const SERVE_HELP: &str = "\
Settings are taken from the defaults, a --config file, the environment and the options, the later ones
first. Each option --some-name is CK_SOME_NAME in the environment and some_name in the file. NODE_ID,
NODE_NAME, HTTP_ADDR, RAFT_ADDR, BOOTSTRAP, JOIN_ADDR and DATA_DIR are read as well.

Exit code: 0 stopped in order, 1 could not start or has failed, 2 the settings cannot be meant.

Examples:
  clusterkit serve --node-id node-1 --bootstrap
  clusterkit serve --node-id node-2 --http-addr 127.0.0.1:8081 --listen 127.0.0.1:7001 \\
      --data-dir ./data-2 --seeds 127.0.0.1:8080
  clusterkit serve --node-id node-1 --expect 3 --seeds 10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000 \\
      --listen 10.0.0.1:7000 --http-addr 10.0.0.1:8080 --insecure
  CK_NODE_ID=node-1 clusterkit serve --config node.yaml";

#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// A file with settings, YAML or TOML by the end of its name
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Layer,
    /// Stop when standard input ends, as it does when the parent process is gone
    #[arg(long, hide = true)]
    pub(crate) parent_pipe: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// How many nodes, 1 to 9 [default: 3, or as many as --data holds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    pub(crate) nodes: Option<u32>,
    /// Keep the data here, and take up what it holds [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Partitions of a new cluster [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) partitions: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How many nodes, 1 to 9
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=i64::from(NODES_MAX)))]
    pub(crate) nodes: u32,
    /// What happens to them
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) scenario: Scenario,
    /// How often it is done, each time to a new cluster
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) trials: u32,
    /// Writes a second
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// How long the load goes on after the fault
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u64).range(0..=3600))]
    pub(crate) seconds: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// How a command prints what it found.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Format {
    /// For people or for programs
    #[arg(short, long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// Whom a command asks, and how it prints the answer.
#[derive(Debug, Clone, Args)]
pub(crate) struct Remote {
    /// The public address of any node
    #[arg(long, env = URL_VARIABLE, default_value = URL_DEFAULT, value_name = "URL")]
    pub(crate) url: String,
    #[command(flatten)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Wait until the cluster stands this well
    #[arg(long, value_enum, value_name = "STATE", conflicts_with = "watch")]
    pub(crate) wait: Option<WaitFor>,
    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", requires = "wait")]
    pub(crate) timeout: Span,
    /// Show it again every second
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WaitFor {
    /// Everything is as it should be
    Healthy,
    /// Everything works, if with fewer copies or nodes
    Available,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List all nodes
    #[command(after_help = "Example:\n  clusterkit node list")]
    List(Remote),
    /// Show one node
    #[command(after_help = "Example:\n  clusterkit node show node-2")]
    Show(NodeName),
    /// Have a node give everything it holds to others and leave; waits until it has left
    #[command(after_help = "\
Ctrl-C ends the waiting, not the draining.

Exit code: 0 it has left, 1 it stays or refuses, 130 interrupted and still leaving.

Examples:
  clusterkit node drain node-2 --dry-run
  clusterkit node drain node-2
  clusterkit node drain node-2 --no-wait
  clusterkit node cancel-drain node-2")]
    Drain(Drain),
    /// Have a draining node stay
    #[command(after_help = "Example:\n  clusterkit node cancel-drain node-2")]
    CancelDrain(NodeName),
    /// Delete the record of a node that has left, or with --force of one that is lost
    #[command(after_help = "\
Examples:
  clusterkit node remove node-2
  clusterkit node remove node-2 --force --yes   it is lost for good, whatever it held")]
    Remove(Remove),
    /// May this node be stopped now?
    #[command(after_help = "\
Exit code: 0 yes, 1 no.

Example:
  clusterkit node stop-check node-2 && ssh node-2 reboot")]
    StopCheck(NodeName),
}

#[derive(Debug, Args)]
pub(crate) struct NodeName {
    /// The id of the node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// The id of the node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Return as soon as the cluster has taken the order
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Change nothing, and say what would go where
    #[arg(long, conflicts_with = "no_wait")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The id of the node
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Even while it holds copies; refused if a partition would lose its last good one
    #[arg(long, requires = "yes")]
    pub(crate) force: bool,
    /// I mean it
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Partition {
    /// List all partitions with the nodes that hold them
    #[command(after_help = "Example:\n  clusterkit partition list")]
    List(Remote),
    /// Show one partition: who holds it, who leads it, and what is wrong with it
    #[command(after_help = "Example:\n  clusterkit partition explain 17")]
    Explain(PartitionName),
    /// Show which partition a key belongs to, and where its requests go
    #[command(after_help = "Example:\n  clusterkit partition who user:42")]
    Who(Key),
}

#[derive(Debug, Args)]
pub(crate) struct PartitionName {
    /// The number of the partition, as 17 or partition-17
    #[arg(value_name = "PARTITION")]
    pub(crate) partition: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Go on as things happen, until Ctrl-C
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// Why the command line could not be understood, in one line.
pub(crate) fn usage_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut paragraphs = text.split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let what = first.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    let tips = paragraphs.flat_map(str::lines).filter_map(|line| line.trim().strip_prefix("tip: "));
    let line = std::iter::once(what.as_str()).chain(tips).collect::<Vec<_>>().join("; ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let has_example =
                command.get_after_help().is_some_and(|help| help.to_string().contains("Example"));
            assert!(has_example || command.has_subcommands(), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        let check = |args: &[&str], expect: &str| {
            let line = ["clusterkit"].iter().chain(args);
            let error = Cli::try_parse_from(line).expect_err("refused");
            assert_eq!(usage_line(&error), expect);
        };
        check(
            &["serve", "--nod-id", "a"],
            "unexpected argument '--nod-id' found; a similar argument exists: '--node-id'",
        );
        check(&["stauts"], "unrecognized subcommand 'stauts'; a similar subcommand exists: 'status'");
        check(&["node", "show"], "the following required arguments were not provided: <NODE>");
        check(
            &["serve", "--expect", "x"],
            "invalid value 'x' for '--expect <N>': invalid digit found in string",
        );
        check(&["dev", "--nodes", "10"], "invalid value '10' for '--nodes <N>': 10 is not in 1..=9");
        check(
            &["node", "remove", "a", "--force"],
            "the following required arguments were not provided: --yes",
        );
        check(
            &["serve", "--key-hash", "x"],
            "invalid value 'x' for '--key-hash <NAME>': the key hash is one of crc16-slots, fnv1a32, md5-be32, sha256-be32 and xxh3-64",
        );
        check(
            &["status", "-o", "yaml"],
            "invalid value 'yaml' for '--output <FORMAT>' [possible values: table, json]",
        );
    }

    #[test]
    fn switches_may_be_taken_back() {
        let bootstrap = |args: &[&str]| {
            let cli = Cli::try_parse_from(["clusterkit", "serve"].iter().chain(args)).expect("valid");
            match cli.command {
                Command::Serve(serve) => serve.settings.bootstrap,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(bootstrap(&[]), None);
        assert_eq!(bootstrap(&["--bootstrap"]), Some(true));
        assert_eq!(bootstrap(&["--bootstrap=false"]), Some(false));
    }
}
