//! Settings from environment variables: `CK_` and the setting's name in capitals, and a few older
//! names that mean the same.

use std::fmt;
use std::str::FromStr;

use super::ConfigError;
use super::layer::Layer;
use super::value::{self, LogFormat, Role};

/// Names the configuration file, as `--config` does.
pub(crate) const CONFIG: &str = "CK_CONFIG";
/// Names a node's URL for the commands that talk to one, as `--url` does.
pub(crate) const URL: &str = "CK_URL";

/// One setting: its variables, the first that is set counts, and where its value goes.
struct Variable {
    names: &'static [&'static str],
    set: fn(&mut Layer, &str) -> Result<(), String>,
}

const VARIABLES: &[Variable] = &[
    Variable { names: &["CK_NODE_ID", "NODE_ID"], set: |layer, text| put(&mut layer.node_id, text) },
    Variable { names: &["CK_HTTP_ADDR", "HTTP_ADDR"], set: |layer, text| put(&mut layer.http_addr, text) },
    Variable { names: &["CK_GRPC_ADDR"], set: |layer, text| put(&mut layer.grpc_addr, text) },
    Variable { names: &["CK_LISTEN", "RAFT_ADDR"], set: |layer, text| put(&mut layer.listen, text) },
    Variable { names: &["CK_ADVERTISE"], set: |layer, text| put(&mut layer.advertise, text) },
    Variable { names: &["CK_ADVERTISE_HTTP"], set: |layer, text| put(&mut layer.advertise_http, text) },
    Variable { names: &["CK_DATA_DIR", "DATA_DIR"], set: |layer, text| put(&mut layer.data_dir, text) },
    Variable { names: &["CK_CLUSTER_NAME"], set: |layer, text| put(&mut layer.cluster_name, text) },
    Variable { names: &["CK_SEEDS", "JOIN_ADDR"], set: |layer, text| seeds(layer, text) },
    Variable { names: &["CK_EXPECT"], set: |layer, text| put(&mut layer.expect, text) },
    Variable { names: &["CK_BOOTSTRAP", "BOOTSTRAP"], set: |layer, text| switch(&mut layer.bootstrap, text) },
    Variable { names: &["CK_PARTITIONS"], set: |layer, text| put(&mut layer.partitions, text) },
    Variable {
        names: &["CK_REPLICATION_FACTOR"],
        set: |layer, text| put(&mut layer.replication_factor, text),
    },
    Variable { names: &["CK_KEY_HASH"], set: |layer, text| put(&mut layer.key_hash, text) },
    Variable { names: &["CK_STRATEGY"], set: |layer, text| put(&mut layer.strategy, text) },
    Variable { names: &["CK_ZONE"], set: |layer, text| put(&mut layer.zone, text) },
    Variable { names: &["CK_WEIGHT"], set: |layer, text| put(&mut layer.weight, text) },
    Variable { names: &["CK_ROLE"], set: |layer, text| role(layer, text) },
    Variable { names: &["CK_NO_DATA"], set: |layer, text| switch(&mut layer.no_data, text) },
    Variable { names: &["CK_METADATA"], set: |layer, text| metadata(layer, text) },
    Variable { names: &["CK_HEARTBEAT"], set: |layer, text| put(&mut layer.heartbeat, text) },
    Variable { names: &["CK_DEAD_AFTER"], set: |layer, text| put(&mut layer.dead_after, text) },
    Variable { names: &["CK_GONE_AFTER"], set: |layer, text| put(&mut layer.gone_after, text) },
    Variable { names: &["CK_REBALANCE_DELAY"], set: |layer, text| put(&mut layer.rebalance_delay, text) },
    Variable { names: &["CK_JOIN_TIMEOUT"], set: |layer, text| put(&mut layer.join_timeout, text) },
    Variable { names: &["CK_GRACE"], set: |layer, text| put(&mut layer.grace, text) },
    Variable { names: &["CK_LOG_LEVEL"], set: |layer, text| put(&mut layer.log_level, text) },
    Variable { names: &["CK_LOG_FORMAT"], set: |layer, text| log_format(layer, text) },
    Variable { names: &["CK_INSECURE"], set: |layer, text| switch(&mut layer.insecure, text) },
    Variable { names: &["NODE_NAME"], set: |layer, text| display_name(layer, text) },
];

/// What the environment says, and which variables said it. An empty variable says nothing.
pub(super) fn read(
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<(Layer, Vec<&'static str>), ConfigError> {
    let (mut layer, mut used) = (Layer::default(), Vec::new());
    for variable in VARIABLES {
        let given = |name: &&'static str| Some((*name, lookup(name).filter(|text| !text.is_empty())?));
        if let Some((name, text)) = variable.names.iter().find_map(given) {
            (variable.set)(&mut layer, &text).map_err(|reason| ConfigError::Variable {
                name,
                text,
                reason,
            })?;
            used.push(name);
        }
    }
    Ok((layer, used))
}

/// Every variable that a node reads: a supervisor takes them away from its children.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    VARIABLES.iter().flat_map(|variable| variable.names.iter().copied()).chain([CONFIG])
}

fn put<T: FromStr<Err: fmt::Display>>(slot: &mut Option<T>, text: &str) -> Result<(), String> {
    *slot = Some(text.parse().map_err(|error: T::Err| error.to_string())?);
    Ok(())
}

fn switch(slot: &mut Option<bool>, text: &str) -> Result<(), String> {
    *slot = Some(match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => true,
        "false" | "0" | "no" | "off" => false,
        _ => return Err("it is true or false".to_owned()),
    });
    Ok(())
}

fn seeds(layer: &mut Layer, text: &str) -> Result<(), String> {
    let parts = text.split(',').map(str::trim).filter(|seed| !seed.is_empty());
    layer.seeds = parts.map(str::to_owned).collect();
    Ok(())
}

fn role(layer: &mut Layer, text: &str) -> Result<(), String> {
    let role = <Role as clap::ValueEnum>::from_str(text, true);
    layer.role = Some(role.map_err(|_| "it is voter or learner".to_owned())?);
    Ok(())
}

fn log_format(layer: &mut Layer, text: &str) -> Result<(), String> {
    let format = <LogFormat as clap::ValueEnum>::from_str(text, true);
    layer.log_format = Some(format.map_err(|_| "it is text or json".to_owned())?);
    Ok(())
}

fn metadata(layer: &mut Layer, text: &str) -> Result<(), String> {
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        layer.metadata.push(value::pair(part).map_err(|error| error.to_string())?);
    }
    Ok(())
}

/// A name for people, beside the id.
fn display_name(layer: &mut Layer, text: &str) -> Result<(), String> {
    layer.metadata.push(("name".to_owned(), text.to_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    fn read_from(vars: &[(&str, &str)]) -> Result<(Layer, Vec<&'static str>), String> {
        let lookup = |name: &str| {
            let found = vars.iter().find(|(known, _)| *known == name)?;
            Some(found.1.to_owned())
        };
        read(lookup).map_err(|error| error.to_string())
    }

    #[test]
    fn every_option_has_a_variable() {
        let command = Layer::augment_args(clap::Command::new("serve"));
        for option in command.get_arguments().filter_map(clap::Arg::get_long) {
            let name = format!("CK_{}", option.replace('-', "_").to_uppercase());
            assert!(names().any(|known| known == name), "{name} is missing");
        }
    }

    #[test]
    fn older_names_mean_the_same_and_give_way() {
        let (layer, used) = read_from(&[
            ("NODE_ID", "node-1"),
            ("NODE_NAME", "Server-1"),
            ("HTTP_ADDR", ":8080"),
            ("RAFT_ADDR", "127.0.0.1:9001"),
            ("BOOTSTRAP", "true"),
            ("JOIN_ADDR", "localhost:8080"),
            ("DATA_DIR", "./data/node1"),
            ("CK_LISTEN", "127.0.0.1:9002"),
        ])
        .expect("valid");
        let expect = Layer {
            node_id: Some("node-1".to_owned()),
            http_addr: Some(":8080".to_owned()),
            listen: Some("127.0.0.1:9002".to_owned()),
            bootstrap: Some(true),
            seeds: vec!["localhost:8080".to_owned()],
            data_dir: Some("./data/node1".into()),
            metadata: vec![("name".to_owned(), "Server-1".to_owned())],
            ..Layer::default()
        };
        assert_eq!(layer, expect);
        let sources =
            ["NODE_ID", "HTTP_ADDR", "CK_LISTEN", "DATA_DIR", "JOIN_ADDR", "BOOTSTRAP", "NODE_NAME"];
        assert_eq!(used, sources);
    }

    #[test]
    fn an_empty_variable_says_nothing() {
        assert_eq!(read_from(&[("CK_ZONE", ""), ("CK_EXPECT", "")]), Ok((Layer::default(), vec![])));
    }

    #[test]
    fn lists_are_separated_by_commas() {
        let (layer, _) =
            read_from(&[("CK_SEEDS", "a:1, b:2,"), ("CK_METADATA", "rack=1,row=2")]).expect("valid");
        assert_eq!(layer.seeds, ["a:1", "b:2"]);
        assert_eq!(layer.metadata.len(), 2);
    }

    #[test]
    fn a_bad_value_is_refused_by_name() {
        let check = |name: &str, text: &str, expect: &str| {
            assert_eq!(read_from(&[(name, text)]), Err(format!("{name}={text}: {expect}")));
        };
        check("CK_EXPECT", "three", "invalid digit found in string");
        check("CK_BOOTSTRAP", "maybe", "it is true or false");
        check("CK_ROLE", "witness", "it is voter or learner");
        check("CK_LOG_FORMAT", "xml", "it is text or json");
        check("CK_HEARTBEAT", "200", "a length of time is a number and a unit, as in 200ms, 30s, 5m or 2h");
        check("CK_METADATA", "rack", "metadata is written key=value, as in rack=r12");
    }
}
