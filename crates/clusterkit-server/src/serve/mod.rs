//! `clusterkit serve`: one node.

mod logging;
mod stop;
mod summary;

use std::time::{Duration, Instant};

use clusterkit::{Builder, ClusterKit};
use clusterkit_data::{Data, Options};
use clusterkit_services::Services;
use clusterkit_services::kv::KvStore;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::stop::StopWishes;
use self::summary::Started;
use crate::cli::Serve;
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::kv::{self, KvApi};

/// How long open requests may take before the node stops under them: as long as a change may take.
/// Streams of gRPC end only with the node.
const REQUESTS_TIMEOUT: Duration = Duration::from_secs(3);
/// Where in the data directory the replicated partitions are.
const PARTITIONS_DIR: &str = "partitions";

/// Runs a node until it is told to stop, has left its cluster, or fails.
pub(crate) fn run(options: Serve) -> Result<(), Failure> {
    let lookup = |name: &str| std::env::var(name).ok();
    let config = config::resolve(options.settings, options.config.as_deref(), lookup)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Runtime)?;
    let outcome = runtime.block_on(serve(&config, options.parent_pipe));
    // Whatever still runs has had its time.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: &Config, parent_pipe: bool) -> Result<(), Failure> {
    let begun = Instant::now();
    let format = logging::format(config.log_format);
    logging::start(&config.log_level, format)?;
    let mut wishes = StopWishes::listen(parent_pipe).map_err(Failure::Runtime)?;
    let (listener, http_local) = listen("--http-addr", &config.http_addr).await?;
    let mut listeners = vec![listener];
    if let Some(addr) = &config.grpc_addr {
        listeners.push(listen("--grpc-addr", addr).await?.0);
    }
    let data = Data::new(Options::new(PARTITIONS_DIR), Services::new());
    let node = data.attach(builder(config, &public_addr(config, &http_local))).launch().await?;
    data.run(&node);
    let started = Started { config, node: &node, http_local: &http_local, format };
    started.announce()?;
    let mut ports = PublicPorts::open(&node, &data, listeners);
    let reason = tokio::select! {
        outcome = take_part(&started, &data, begun) => return depart(outcome, &started, ports).await,
        reason = wishes.first() => reason,
        () = ports.one_ended() => return Err(Failure::PublicPortEnded),
        () = kv::sweep(data.clone()) => unreachable!("sweeping goes on until it is dropped"),
    };
    let in_order = async {
        ports.drain().await;
        node.stop().await;
        data.stopped().await.map_err(Failure::Storage)
    };
    stop(in_order, reason, config.grace, &mut wishes).await
}

/// Becomes part of the cluster, and stays until the node breaks, or has left.
async fn take_part(started: &Started<'_>, data: &Data, begun: Instant) -> Result<(), Failure> {
    started.node.ready().await?;
    started.ready(begun.elapsed())?;
    started.node.stopped().await.map_err(Failure::NodeFailed)?;
    data.stopped().await.map_err(Failure::Storage)
}

/// The node ended by itself: it broke, or it was drained and has left. Then whoever watched that sees
/// the end of it.
async fn depart(
    outcome: Result<(), Failure>,
    started: &Started<'_>,
    mut ports: PublicPorts,
) -> Result<(), Failure> {
    outcome?;
    ports.drain().await;
    Ok(started.left()?)
}

async fn listen(option: &'static str, addr: &str) -> Result<(TcpListener, String), Failure> {
    let any_host = if addr.starts_with(':') { format!("0.0.0.0{addr}") } else { addr.to_owned() };
    let bound = async {
        let listener = TcpListener::bind(&any_host).await?;
        let local = listener.local_addr()?.to_string();
        Ok((listener, local))
    };
    bound.await.map_err(|source| Failure::Listen { option, addr: addr.to_owned(), source })
}

/// What clients are told: what was asked for, with the port that was chosen where any would do.
fn public_addr(config: &Config, http_local: &str) -> String {
    let told = config.advertise_http.as_deref().unwrap_or(&config.http_addr);
    match (told.rsplit_once(':'), http_local.rsplit_once(':')) {
        (Some((host, "0")), Some((_, port))) => format!("{host}:{port}"),
        _ => told.to_owned(),
    }
}

fn builder(config: &Config, public_addr: &str) -> Builder {
    let mut builder = ClusterKit::builder(&config.node_id, public_addr)
        .listen(&config.listen)
        .data_dir(&config.data_dir)
        .cluster_name(&config.cluster_name)
        .seeds(&config.seeds)
        .weight(config.weight)
        .role(config.role.into())
        .holds_data(config.holds_data)
        .controller(config.controller.clone())
        .join_timeout(config.join_timeout);
    for (key, value) in &config.metadata {
        builder = builder.metadata(key, value);
    }
    builder = option(builder, config.advertise.as_deref(), Builder::advertise);
    builder = option(builder, config.zone.as_deref(), Builder::zone);
    builder = option(builder, config.expect, Builder::expect);
    builder = option(builder, config.partitions, Builder::partitions);
    builder = option(builder, config.replication_factor, Builder::replication_factor);
    builder = option(builder, config.key_hash, Builder::key_hash);
    option(builder, config.strategy, Builder::strategy)
}

fn option<T>(builder: Builder, value: Option<T>, set: fn(Builder, T) -> Builder) -> Builder {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

/// The ports that serve HTTP and gRPC.
struct PublicPorts {
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl PublicPorts {
    fn open(node: &ClusterKit, data: &Data, listeners: Vec<TcpListener>) -> Self {
        let api = KvApi::new(KvStore::new(data.clone()), node.clone());
        let app =
            clusterkit::http::router_with(node, kv::endpoints, api).merge(clusterkit::grpc::routes(node));
        let (mut tasks, stop) = (JoinSet::new(), CancellationToken::new());
        for listener in listeners {
            let (node, app, stop) = (node.clone(), app.clone(), stop.clone());
            tasks.spawn(async move { clusterkit::http::serve(&node, listener, app, stop).await });
        }
        Self { tasks, stop }
    }

    /// Waits until a port is served no more, whyever.
    async fn one_ended(&mut self) {
        // A panic in the task ends it too.
        drop(self.tasks.join_next().await);
    }

    /// Takes no new requests, and waits for the open ones. Whether all were answered in time or not,
    /// the node goes on to stop.
    async fn drain(&mut self) {
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(REQUESTS_TIMEOUT, all).await);
    }
}

/// Stops in order: no new requests, the open ones answered, the control plane handed over. A second
/// signal, or the end of `grace`, ends it at once.
async fn stop(
    in_order: impl Future<Output = Result<(), Failure>>,
    reason: &'static str,
    grace: Duration,
    wishes: &mut StopWishes,
) -> Result<(), Failure> {
    tracing::info!(reason, "stopping: open requests are answered, then the node stops");
    tokio::select! {
        stopped = in_order => {
            stopped?;
            tracing::info!("stopped");
            Ok(())
        }
        _ = wishes.signal() => Err(Failure::StoppedAtOnce { reason: "by a second signal" }),
        () = tokio::time::sleep(grace) => Err(Failure::StoppedAtOnce { reason: "since --grace is over" }),
    }
}
