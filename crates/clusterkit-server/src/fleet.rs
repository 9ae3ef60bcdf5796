//! A cluster of child processes whose nodes can be killed, frozen and started again one by one.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::Child;

use crate::client::{Client, ClientError};
use crate::dev::DevError;
use crate::dev::child::{NodeProcess, Shape};
use crate::dev::layout::{FirstPort, Home, NodePlan, plan};
use crate::failure::Failure;
use crate::view::{Status, Topology};

/// How often a cluster is begun because somebody else took one of its ports.
const STARTS_MAX: u32 = 3;
/// How long a cluster may take to come to where it is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at it.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How long a node may take to stop in order.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// See the [module](self). Dropping it kills all nodes.
pub(crate) struct Fleet {
    plans: Vec<NodePlan>,
    shape: Shape,
    nodes: Vec<Option<Running>>,
    // Dropped last: the directory goes when nobody writes there any more.
    home: Home,
}

struct Running {
    process: NodeProcess,
    child: Child,
}

impl Fleet {
    /// Starts `count` nodes, of a cluster with so many partitions, and waits until all copies are in sync.
    pub(crate) async fn start(count: u32, partitions: u32) -> Result<Self, Failure> {
        let mut starts = 1;
        loop {
            match Self::attempt(count, partitions).await {
                Err(Failure::Dev(error)) if error.is_port_conflict() && starts < STARTS_MAX => starts += 1,
                outcome => return outcome,
            }
        }
    }

    async fn attempt(count: u32, partitions: u32) -> Result<Self, Failure> {
        let home = Home::open(None)?;
        let plans = plan(home.path(), count, FirstPort::Any)?;
        let seeds = plans.iter().map(|plan| plan.node_addr.clone()).collect();
        let shape = Shape { seeds, count, partitions: Some(partitions) };
        let mut fleet = Self { nodes: plans.iter().map(|_| None).collect(), plans, shape, home };
        for index in 0..fleet.plans.len() {
            fleet.begin(index)?;
        }
        fleet.until_whole().await?;
        Ok(fleet)
    }

    /// Starts a node, for the first time or again.
    pub(crate) fn begin(&mut self, index: usize) -> Result<(), Failure> {
        let started = NodeProcess::start(&self.plans[index], &self.shape);
        let (process, child) = started.map_err(DevError::Spawn)?;
        self.nodes[index] = Some(Running { process, child });
        Ok(())
    }

    /// Adds a node, and starts it.
    pub(crate) fn add(&mut self) -> Result<usize, Failure> {
        let index = self.plans.len();
        let number = u32::try_from(index).unwrap_or(u32::MAX) + 1;
        let plans = plan(self.home.path(), number, FirstPort::Any)?;
        let newest = plans.into_iter().next_back();
        self.plans.extend(newest);
        self.nodes.push(None);
        self.begin(index)?;
        Ok(index)
    }

    /// Kills a node at once.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<(), Failure> {
        self.signal(index, Signal::KILL)?;
        if let Some(mut running) = self.nodes[index].take() {
            running.child.wait().await.map_err(Failure::Runtime)?;
        }
        Ok(())
    }

    /// Stops a node in order.
    pub(crate) async fn stop(&mut self, index: usize) -> Result<(), Failure> {
        let Some(mut running) = self.nodes[index].take() else { return Ok(()) };
        running.process.input = None;
        match tokio::time::timeout(STOP_TIMEOUT, running.child.wait()).await {
            Ok(ended) => drop(ended.map_err(Failure::Runtime)?),
            Err(_) => running.child.kill().await.map_err(Failure::Runtime)?,
        }
        Ok(())
    }

    /// Stops a node's process as if its machine hung.
    pub(crate) fn freeze(&self, index: usize) -> Result<(), Failure> {
        self.signal(index, Signal::STOP)
    }

    /// Lets a frozen process go on.
    pub(crate) fn thaw(&self, index: usize) -> Result<(), Failure> {
        self.signal(index, Signal::CONT)
    }

    fn signal(&self, index: usize, signal: Signal) -> Result<(), Failure> {
        let pid = self.nodes[index].as_ref().and_then(|running| running.process.pid);
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let Some(pid) = pid else { return Ok(()) };
        kill_process(pid, signal).map_err(|error| Failure::Runtime(error.into()))
    }

    /// Waits until a node's process has ended by itself.
    pub(crate) async fn ended(&mut self, index: usize) -> Result<(), Failure> {
        if let Some(mut running) = self.nodes[index].take() {
            let ended = tokio::time::timeout(PATIENCE, running.child.wait()).await;
            ended.map_err(|_| waited("a node to end"))?.map_err(Failure::Runtime)?;
        }
        Ok(())
    }

    /// The names of all nodes, by their numbers.
    pub(crate) fn name(&self, index: usize) -> &str {
        &self.plans[index].id
    }

    /// The number of a node.
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.plans.iter().position(|plan| plan.id == name)
    }

    /// The public addresses of all nodes.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.plans.iter().map(NodePlan::url).collect()
    }

    /// The numbers of the nodes that run.
    pub(crate) fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|index| self.nodes[*index].is_some()).collect()
    }

    /// What a node says of the cluster.
    pub(crate) async fn topology(&self) -> Result<Topology, Failure> {
        Ok(self.ask(|client| client.get("/v1/topology")).await?)
    }

    /// The node that decides.
    pub(crate) async fn controller(&self) -> Result<Option<usize>, Failure> {
        let status: Status = self.ask(|client| client.get("/v1/status")).await?;
        Ok(status.control_plane.controller.and_then(|name| self.index_of(&name)))
    }

    /// Orders a node to give away what it holds and to leave.
    pub(crate) async fn drain(&self, index: usize) -> Result<(), Failure> {
        let path = format!("/v1/nodes/{}/drain", self.name(index));
        let answer: serde_json::Value = self.ask(move |client| client.post(&path, &json!({}))).await?;
        drop(answer);
        Ok(())
    }

    /// Asks the first node that answers.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl Fn(&Client) -> Result<T, ClientError> + Clone + Send + 'static,
    ) -> Result<T, ClientError> {
        let mut last = ClientError::Unreachable { url: String::new(), reason: "no node runs".to_owned() };
        for index in self.running() {
            let client = Client::new(&self.plans[index].url())?;
            let (url, question) = (client.url().to_owned(), question.clone());
            match tokio::task::spawn_blocking(move || question(&client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => last = ClientError::Unreachable { url, reason: "interrupted".to_owned() },
            }
        }
        Err(last)
    }

    /// Waits until every partition is led, and has all copies that it can have, in sync.
    pub(crate) async fn until_whole(&mut self) -> Result<(), Failure> {
        let alive = self.running().len();
        self.until("every partition to have all its copies", move |topology| {
            let copies =
                topology.replication_factor.unwrap_or(1).min(u32::try_from(alive).unwrap_or(u32::MAX));
            let has_all = |in_sync: usize| u32::try_from(in_sync).is_ok_and(|count| count >= copies);
            topology.count_alive() >= alive
                && topology.is_whole()
                && topology.partitions.iter().all(|partition| has_all(partition.in_sync.len()))
        })
        .await
    }

    /// Waits until the topology is as wanted.
    pub(crate) async fn until(
        &mut self,
        wanted: &'static str,
        is_so: impl Fn(&Topology) -> bool,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            if self.topology().await.is_ok_and(|topology| is_so(&topology)) {
                return Ok(());
            }
            for index in self.running() {
                self.check_alive(index)?;
            }
            if begun.elapsed() > PATIENCE {
                return Err(waited(wanted));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    fn check_alive(&mut self, index: usize) -> Result<(), Failure> {
        let Some(running) = &mut self.nodes[index] else { return Ok(()) };
        match running.child.try_wait() {
            Ok(None) => Ok(()),
            ended => {
                let ended = ended.and_then(|status| status.ok_or_else(|| std::io::ErrorKind::Other.into()));
                Err(DevError::Stillborn { obituary: running.process.obituary(&ended) }.into())
            }
        }
    }
}

fn waited(wanted: &'static str) -> Failure {
    let waited = format!("{} s", PATIENCE.as_secs());
    Failure::WaitedInVain {
        wanted,
        waited,
        last: "it is not so yet".to_owned(),
        exit: crate::failure::EXIT_FAILED,
    }
}
