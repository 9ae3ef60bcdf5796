//! What a node is told: defaults, below a file, below the environment, below the command line.

mod environment;
mod exposure;
mod file;
mod layer;
mod nearest;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clusterkit::core::member;
use clusterkit::{ControllerConfig, KeyHash, Strategy};

pub(crate) use self::environment::{CONFIG as CONFIG_VARIABLE, URL as URL_VARIABLE, names as variables};
pub(crate) use self::exposure::is_exposed;
pub(crate) use self::layer::Layer;
pub(crate) use self::value::{Address, LogFormat, Role, Span};

/// The public address where none is given: this machine only.
pub(crate) const HTTP_ADDR_DEFAULT: &str = "127.0.0.1:8080";
/// How long an orderly stop may take where nothing is said.
pub(crate) const GRACE_DEFAULT: Duration = Duration::from_secs(30);
/// What is logged where nothing is said.
pub(crate) const LOG_LEVEL_DEFAULT: &str = "info";

/// A complete configuration, checked as far as it can be without touching anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) node_id: String,
    pub(crate) http_addr: String,
    pub(crate) grpc_addr: Option<String>,
    pub(crate) listen: String,
    pub(crate) advertise: Option<String>,
    pub(crate) advertise_http: Option<String>,
    pub(crate) data_dir: PathBuf,
    pub(crate) cluster_name: String,
    pub(crate) seeds: Vec<String>,
    pub(crate) expect: Option<u32>,
    pub(crate) partitions: Option<u32>,
    pub(crate) replication_factor: Option<u32>,
    pub(crate) key_hash: Option<KeyHash>,
    pub(crate) strategy: Option<Strategy>,
    pub(crate) zone: Option<String>,
    pub(crate) weight: u32,
    pub(crate) role: Role,
    pub(crate) holds_data: bool,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) controller: ControllerConfig,
    pub(crate) join_timeout: Duration,
    pub(crate) grace: Duration,
    pub(crate) log_level: String,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) sources: Sources,
}

/// Where settings came from, lowest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sources {
    pub(crate) file: Option<PathBuf>,
    pub(crate) variables: Vec<&'static str>,
    pub(crate) options: bool,
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("defaults")?;
        if let Some(file) = &self.file {
            write!(f, " < {}", file.display())?;
        }
        if !self.variables.is_empty() {
            write!(f, " < environment ({})", self.variables.join(", "))?;
        }
        if self.options {
            f.write_str(" < options")?;
        }
        Ok(())
    }
}

/// Puts the sources on top of each other: `options` from the command line, what `lookup` finds in
/// the environment, and the file that either names.
pub(crate) fn resolve(
    options: Layer,
    file: Option<&Path>,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<Config, ConfigError> {
    let file = file.map(Path::to_owned).or_else(|| {
        let named = lookup(CONFIG_VARIABLE).filter(|name| !name.is_empty());
        named.map(PathBuf::from)
    });
    let from_file = file.as_deref().map(file::read).transpose()?.unwrap_or_default();
    let (from_environment, variables) = environment::read(lookup)?;
    let sources = Sources { file, variables, options: options != Layer::default() };
    Config::of(options.over(from_environment).over(from_file), sources)
}

impl Config {
    fn of(layer: Layer, sources: Sources) -> Result<Self, ConfigError> {
        let controller = controller(&layer)?;
        let config = Self {
            node_id: layer.node_id.ok_or(ConfigError::NoNodeId)?,
            http_addr: layer.http_addr.unwrap_or_else(|| HTTP_ADDR_DEFAULT.to_owned()),
            grpc_addr: layer.grpc_addr,
            listen: layer.listen.unwrap_or_else(|| clusterkit::LISTEN_DEFAULT.to_owned()),
            advertise: layer.advertise,
            advertise_http: layer.advertise_http,
            data_dir: layer.data_dir.unwrap_or_else(|| clusterkit::DATA_DIR_DEFAULT.into()),
            cluster_name: layer.cluster_name.unwrap_or_else(|| clusterkit::CLUSTER_NAME_DEFAULT.to_owned()),
            seeds: layer.seeds,
            expect: expectation(layer.expect, layer.bootstrap)?,
            partitions: layer.partitions,
            replication_factor: layer.replication_factor,
            key_hash: layer.key_hash,
            strategy: layer.strategy,
            zone: layer.zone,
            weight: layer.weight.unwrap_or(1),
            role: layer.role.unwrap_or(Role::Voter),
            holds_data: !layer.no_data.unwrap_or(false),
            metadata: layer.metadata.into_iter().collect(),
            controller,
            join_timeout: layer.join_timeout.map_or(clusterkit::JOIN_TIMEOUT_DEFAULT, |Span(span)| span),
            grace: layer.grace.map_or(GRACE_DEFAULT, |Span(span)| span),
            log_level: layer.log_level.unwrap_or_else(|| LOG_LEVEL_DEFAULT.to_owned()),
            log_format: layer.log_format,
            sources,
        };
        config.check_addresses(layer.insecure.unwrap_or(false))?;
        Ok(config)
    }

    fn check_addresses(&self, insecure: bool) -> Result<(), ConfigError> {
        let told = [("--advertise", &self.advertise), ("--advertise-http", &self.advertise_http)];
        let told = told.into_iter().filter_map(|(option, addr)| Some((option, addr.as_ref()?)));
        for (option, addr) in told.chain(self.seeds.iter().map(|seed| ("--seeds", seed))) {
            check_address(option, addr)?;
        }
        let grpc = self.grpc_addr.iter().map(|addr| ("--grpc-addr", addr));
        for (option, addr) in grpc.chain([("--http-addr", &self.http_addr), ("--listen", &self.listen)]) {
            let address = check_address(option, addr)?;
            if !insecure && is_exposed(&address) {
                return Err(ConfigError::Exposed { option, addr: addr.clone() });
            }
        }
        Ok(())
    }
}

fn check_address<'a>(option: &'static str, addr: &'a str) -> Result<Address<'a>, ConfigError> {
    Address::parse(addr).ok_or_else(|| ConfigError::Address { option, addr: addr.to_owned() })
}

fn expectation(expect: Option<u32>, bootstrap: Option<bool>) -> Result<Option<u32>, ConfigError> {
    match (expect, bootstrap) {
        (Some(expect), Some(true)) if expect != 1 => Err(ConfigError::BootstrapOfSeveral { expect }),
        (None, Some(true)) => Ok(Some(1)),
        _ => Ok(expect),
    }
}

/// The controller's times, those that cannot be set moving with those that can.
fn controller(layer: &Layer) -> Result<ControllerConfig, ConfigError> {
    let default = member::Config::default();
    let span = |given: Option<Span>, default: Duration| given.map_or(default, |Span(span)| span);
    let heartbeat = span(layer.heartbeat, default.heartbeat);
    let dead_after = span(layer.dead_after, default.dead_after);
    let detector = member::Config {
        heartbeat,
        dead_after,
        gone_after: span(layer.gone_after, default.gone_after),
        suspect_after: suspect_after(heartbeat, dead_after),
        probe_timeout: default.probe_timeout.min(dead_after / 2),
        ..default
    };
    detector.check()?;
    let default = ControllerConfig::default();
    Ok(ControllerConfig {
        detector,
        rebalance_delay: span(layer.rebalance_delay, default.rebalance_delay),
        ..default
    })
}

/// Three heartbeats, or two where three are as long as death.
fn suspect_after(heartbeat: Duration, dead_after: Duration) -> Duration {
    let three = heartbeat.saturating_mul(3);
    if three < dead_after { three } else { heartbeat.saturating_mul(2) }
}

/// The configuration cannot be meant. Nothing was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ConfigError {
    /// An address is not `host:port`.
    #[error("{option} must be host:port, as in 127.0.0.1:7000, not {addr:?}")]
    Address { option: &'static str, addr: String },
    /// A cluster of one was asked for, and of several.
    #[error("--bootstrap forms a cluster of one and --expect {expect} one of several; give one of the two")]
    BootstrapOfSeveral { expect: u32 },
    /// The nested form says that there shall be no cluster.
    #[error("{}: cluster.enabled: false has no meaning here; a node that stays alone has bootstrap: true and no seeds", file.display())]
    ClusterDisabled { file: PathBuf },
    /// A listener would be reachable from other machines.
    #[error(
        "{option} {addr} can be reached from other machines, and nothing is encrypted or authenticated yet; bind a loopback address, or accept that with --insecure"
    )]
    Exposed { option: &'static str, addr: String },
    /// The file is neither YAML nor TOML by its name.
    #[error("{}: a configuration file ends in .yaml, .yml or .toml", file.display())]
    FileKind { file: PathBuf },
    /// The file is no YAML or TOML, or a value has the wrong form.
    #[error("{}:{line}: {message}, in {shown:?}", file.display())]
    Malformed { file: PathBuf, line: u64, shown: String, message: String },
    /// Nobody said who this node is.
    #[error("a node needs an id: give --node-id, CK_NODE_ID, or node_id in a --config file")]
    NoNodeId,
    /// The times of the failure detector do not fit each other.
    #[error("--heartbeat and --dead-after do not fit each other: {0}")]
    Times(#[from] member::InvalidConfig),
    /// The file has a key that means nothing.
    #[error("{}:{line}: unknown key {key:?}; {}", file.display(), hint(nearest.as_deref()))]
    UnknownKey { file: PathBuf, line: u64, key: String, nearest: Option<String> },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
    /// A variable has a value that cannot be meant.
    #[error("{name}={text}: {reason}")]
    Variable { name: &'static str, text: String, reason: String },
}

fn hint(nearest: Option<&str>) -> String {
    match nearest {
        Some(name) => format!("did you mean {name:?}?"),
        None => "docs/configuration.md lists all".to_owned(),
    }
}

#[cfg(test)]
mod tests;
