//! The command line of `kv`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueEnum};

use super::Remote;
use crate::config::Span;

#[derive(Debug, Subcommand)]
pub(crate) enum Kv {
    /// Write the value of a key to standard output, byte by byte
    #[command(after_help = "\
Exit code: 0 it is there, 1 it is not.

Examples:
  clusterkit kv get user:1
  clusterkit kv get picture > picture.png
  clusterkit kv get user:1 --read any -o json")]
    Get(KvGet),
    /// Set the value of a key, from the command line or from standard input
    #[command(after_help = "\
Examples:
  clusterkit kv put user:1 Ada
  clusterkit kv put picture < picture.png
  clusterkit kv put session:1 x --ttl 30m
  clusterkit kv put lock me --if-absent")]
    Put(KvPut),
    /// Remove a key, or all keys with a prefix
    #[command(after_help = "\
Examples:
  clusterkit kv del user:1
  clusterkit kv del --prefix session:")]
    Del(KvDel),
    /// List the keys with a prefix
    #[command(after_help = "\
Examples:
  clusterkit kv scan
  clusterkit kv scan user: --limit 20 --values")]
    Scan(KvScan),
    /// Add to a number
    #[command(after_help = "Examples:\n  clusterkit kv incr visits\n  clusterkit kv incr stock --by -3")]
    Incr(KvIncr),
    /// Show how long a key lives
    #[command(after_help = "Example:\n  clusterkit kv ttl session:1")]
    Ttl(KvKey),
    /// Show the changes of a key, or of all with a prefix, until Ctrl-C
    #[command(after_help = "\
Only the partitions that the asked node holds are followed.

Examples:
  clusterkit kv watch --key user:1
  clusterkit kv watch --prefix user: -o json | jq .key")]
    Watch(KvWatch),
    /// Write all keys with a prefix to standard output, a line of JSON each
    #[command(after_help = "\
What is written is no picture of one moment: keys that change meanwhile may be there as they were or as they are. If it
breaks off, the error says how to go on.

Examples:
  clusterkit kv export > all.ndjson
  clusterkit kv export user: | gzip > users.ndjson.gz")]
    Export(KvExport),
    /// Set the keys that an export wrote
    #[command(after_help = "\
Keys that are there are replaced; others stay. If it breaks off, the error says how to go on.

Examples:
  clusterkit kv import all.ndjson
  gunzip -c users.ndjson.gz | clusterkit kv import -")]
    Import(KvImport),
}

/// Whom to ask, and about which namespace.
#[derive(Debug, Clone, Args)]
pub(crate) struct KvRemote {
    /// The namespace [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) ns: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReadMode {
    /// Whatever any replica has
    Any,
    /// What the leader has
    Leader,
    /// Everything that was acknowledged
    Linearizable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AckMode {
    /// The leader has it
    Leader,
    /// It cannot be lost while a replica in sync is left
    Quorum,
    /// Every replica has it
    All,
}

#[derive(Debug, Args)]
pub(crate) struct KvKey {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) to: KvRemote,
}

#[derive(Debug, Args)]
pub(crate) struct KvGet {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// How new the answer must be
    #[arg(long, value_enum, default_value = "linearizable", value_name = "MODE")]
    pub(crate) read: ReadMode,
    #[command(flatten)]
    pub(crate) to: KvRemote,
}

#[derive(Debug, Args)]
pub(crate) struct KvPut {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// The value; standard input if it is left out
    #[arg(value_name = "VALUE")]
    pub(crate) value: Option<String>,
    /// How long it lives
    #[arg(long, value_name = "TIME", conflicts_with = "keep_ttl")]
    pub(crate) ttl: Option<Span>,
    /// Expires when the value that it replaces would have
    #[arg(long)]
    pub(crate) keep_ttl: bool,
    /// Only if the key has this version
    #[arg(long, value_name = "VERSION", conflicts_with = "if_absent")]
    pub(crate) if_version: Option<u64>,
    /// Only if the key is not there
    #[arg(long)]
    pub(crate) if_absent: bool,
    /// When it counts as written
    #[arg(long, value_enum, default_value = "quorum", value_name = "MODE")]
    pub(crate) ack: AckMode,
    #[command(flatten)]
    pub(crate) to: KvRemote,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(crate) struct KvDel {
    /// The key
    #[arg(value_name = "KEY", group = "what")]
    pub(crate) key: Option<String>,
    /// All keys that begin with this
    #[arg(long, value_name = "PREFIX", group = "what")]
    pub(crate) prefix: Option<String>,
    /// Only if the key has this version
    #[arg(long, value_name = "VERSION", conflicts_with = "prefix")]
    pub(crate) if_version: Option<u64>,
    #[command(flatten)]
    pub(crate) to: KvRemote,
}

#[derive(Debug, Args)]
pub(crate) struct KvScan {
    /// What the keys begin with
    #[arg(value_name = "PREFIX", default_value = "")]
    pub(crate) prefix: String,
    /// The most keys
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) limit: u32,
    /// Where an earlier page ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
    /// Show values as well
    #[arg(long)]
    pub(crate) values: bool,
    #[command(flatten)]
    pub(crate) to: KvRemote,
}

#[derive(Debug, Args)]
pub(crate) struct KvIncr {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// How much
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) by: i64,
    #[command(flatten)]
    pub(crate) to: KvRemote,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub(crate) struct KvWatch {
    /// This key
    #[arg(long, value_name = "KEY", group = "what")]
    pub(crate) key: Option<String>,
    /// All keys that begin with this
    #[arg(long, value_name = "PREFIX", group = "what")]
    pub(crate) prefix: Option<String>,
    /// Go on after the event with this id
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<String>,
    #[command(flatten)]
    pub(crate) to: KvRemote,
}

#[derive(Debug, Args)]
pub(crate) struct KvExport {
    /// What the keys begin with
    #[arg(value_name = "PREFIX", default_value = "")]
    pub(crate) prefix: String,
    /// Go on where an export broke off
    #[arg(long, value_name = "CURSOR")]
    pub(crate) cursor: Option<String>,
    #[command(flatten)]
    pub(crate) to: KvRemote,
}

#[derive(Debug, Args)]
pub(crate) struct KvImport {
    /// The file; `-` is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Leave out so many lines: those that an import set before it broke off
    #[arg(long, value_name = "LINES", default_value_t = 0)]
    pub(crate) skip: u64,
    #[command(flatten)]
    pub(crate) to: KvRemote,
}
