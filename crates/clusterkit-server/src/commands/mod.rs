//! The commands that ask a node, and print its answer.

mod drain;
mod events;
mod kv;
mod node;
mod partition;
mod status;
mod table;

use std::process::ExitCode;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::cli::{Events, Format, Kv, Node, Output, Partition, Remote, Status, URL_DEFAULT};
use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::terminal;

/// How a command ended well: most say 0, those that answer a question say the answer.
type Outcome = Result<ExitCode, Failure>;

pub(crate) fn status(options: &Status) -> Outcome {
    status::run(options)
}

pub(crate) fn node(command: Node) -> Outcome {
    match command {
        Node::List(remote) => node::list(&remote),
        Node::Show(name) => node::show(&name),
        Node::Drain(drain) => drain::run(&drain),
        Node::CancelDrain(name) => node::cancel_drain(&name),
        Node::Remove(remove) => node::remove(&remove),
        Node::StopCheck(name) => node::stop_check(&name),
    }
}

pub(crate) fn partition(command: Partition) -> Outcome {
    match command {
        Partition::List(remote) => partition::list(&remote),
        Partition::Explain(name) => partition::explain(&name),
        Partition::Who(key) => partition::who(&key),
    }
}

pub(crate) fn kv(command: Kv) -> Outcome {
    match command {
        Kv::Get(options) => kv::get(&options),
        Kv::Put(options) => kv::put(&options),
        Kv::Del(options) => kv::delete(&options),
        Kv::Scan(options) => kv::scan(&options),
        Kv::Incr(options) => kv::increment(&options),
        Kv::Ttl(options) => kv::ttl(&options),
        Kv::Watch(options) => kv::watch(&options),
        Kv::Export(options) => kv::export(&options),
        Kv::Import(options) => kv::import(&options),
    }
}

pub(crate) fn events(options: &Events) -> Outcome {
    events::run(options)
}

pub(crate) fn version(format: Format) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    match format.output {
        Output::Table => terminal::say(&format!("clusterkit {version}"))?,
        Output::Json => print_json(&serde_json::json!({ "version": version }))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints `answer` as it came, or as `table` shows it.
fn print<T: DeserializeOwned>(
    remote: &Remote,
    answer: Value,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    match remote.format.output {
        Output::Json => Ok(print_json(&answer)?),
        Output::Table => Ok(terminal::say(&table(&read(remote, answer)?))?),
    }
}

fn read<T: DeserializeOwned>(remote: &Remote, answer: Value) -> Result<T, ClientError> {
    serde_json::from_value(answer).map_err(|_| ClientError::NotClusterKit { url: remote.url.clone() })
}

fn print_json(answer: &Value) -> std::io::Result<()> {
    terminal::say(&format!("{answer:#}"))
}

fn client(remote: &Remote) -> Result<Client, ClientError> {
    // An empty variable says nothing.
    Client::new(if remote.url.is_empty() { URL_DEFAULT } else { &remote.url })
}
