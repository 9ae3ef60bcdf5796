//! Nodes as child processes on this machine: real sockets, real signals, a temporary directory.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::http::{Ask, Http, HttpError};
use crate::limits::{LOOK_PAUSE, READY_TIMEOUT, REQUEST_TIMEOUT, STARTS_MAX, STOP_TIMEOUT};
use crate::view::View;

/// What a node's process is started with, besides what every node is told.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// The arguments that make it a node.
    pub args: Vec<String>,
}

impl Program {
    /// This executable, which takes the subcommand `node`.
    ///
    /// # Errors
    ///
    /// When it cannot be found.
    pub fn this(args: impl IntoIterator<Item = &'static str>) -> io::Result<Self> {
        let args = args.into_iter().map(ToOwned::to_owned).collect();
        Ok(Self { path: std::env::current_exe()?, args })
    }
}

/// A cluster of child processes. They end with it, whatever happens: each is killed when its handle is
/// dropped, and ends by itself when its standard input does.
#[derive(Debug)]
pub struct Processes {
    program: Program,
    /// Those that run.
    nodes: Vec<NodeProcess>,
    started: usize,
    http: Http,
    // Dropped last: nobody writes there any more.
    dir: TempDir,
}

/// One child.
#[derive(Debug)]
pub struct NodeProcess {
    /// Its name in the cluster.
    pub id: String,
    /// Where clients reach it.
    pub public_addr: String,
    node_addr: String,
    log: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
}

impl Processes {
    /// Starts `count` nodes that form a cluster, and waits until it is whole.
    ///
    /// # Errors
    ///
    /// See [`ProcessError`]. No child is left running.
    pub async fn start(program: Program, count: usize) -> Result<Self, ProcessError> {
        let mut starts = 1;
        loop {
            let outcome = Self::attempt(program.clone(), count).await;
            match outcome {
                // Somebody took a port between its choice and its use.
                Err(ProcessError::Ended { .. }) if starts < STARTS_MAX => starts += 1,
                outcome => return outcome,
            }
        }
    }

    async fn attempt(program: Program, count: usize) -> Result<Self, ProcessError> {
        let dir = tempfile::Builder::new().prefix("clusterkit-example-").tempdir()?;
        let mut cluster = Self { program, nodes: Vec::new(), started: 0, http: Http::new(), dir };
        let ports = free_addrs(2 * count)?;
        let (public, internal) = ports.split_at(count);
        let expect = ["--expect".to_owned(), count.to_string()];
        for (public_addr, node_addr) in public.iter().zip(internal) {
            cluster.spawn(public_addr, node_addr, internal, &expect)?;
        }
        cluster.wait_until_whole(READY_TIMEOUT).await?;
        Ok(cluster)
    }

    /// Starts one more node, which joins the others.
    ///
    /// # Errors
    ///
    /// See [`ProcessError`].
    pub fn add(&mut self) -> Result<&NodeProcess, ProcessError> {
        let ports = free_addrs(2)?;
        let seeds: Vec<_> = self.nodes.iter().map(|node| node.node_addr.clone()).collect();
        self.spawn(&ports[0], &ports[1], &seeds, &[])
    }

    fn spawn(
        &mut self,
        public_addr: &str,
        node_addr: &str,
        seeds: &[String],
        more: &[String],
    ) -> Result<&NodeProcess, ProcessError> {
        self.started += 1;
        let id = format!("node-{}", self.started);
        let (data_dir, log) = (self.dir.path().join(&id), self.dir.path().join(format!("{id}.log")));
        let output = File::create(&log)?;
        let mut command = Command::new(&self.program.path);
        command.args(&self.program.args);
        command.args(["--id", &id, "--http", public_addr, "--listen", node_addr]);
        command.args(["--seeds", &seeds.join(",")]).arg("--data-dir").arg(data_dir).args(more);
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        // Ctrl-C reaches this process alone, which then ends the children.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let input = child.stdin.take();
        let (public_addr, node_addr) = (public_addr.to_owned(), node_addr.to_owned());
        self.nodes.push(NodeProcess { id, public_addr, node_addr, log, child, input });
        Ok(self.nodes.last().expect("it was just added"))
    }

    /// The nodes that run.
    #[must_use]
    pub fn nodes(&self) -> &[NodeProcess] {
        &self.nodes
    }

    /// Where clients reach the nodes that run.
    #[must_use]
    pub fn addrs(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.public_addr.clone()).collect()
    }

    /// Kills a node, as `kill -9` does, and says which it was.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Io`].
    pub async fn kill(&mut self, at: usize) -> Result<String, ProcessError> {
        let mut node = self.nodes.remove(at);
        node.child.kill().await?;
        Ok(node.id)
    }

    /// Has a node give everything to others and leave.
    ///
    /// # Errors
    ///
    /// See [`ProcessError`].
    pub async fn drain(&self, node: &str) -> Result<(), ProcessError> {
        self.order(&format!("/v1/nodes/{node}/drain"), &serde_json::json!({})).await
    }

    /// Tells the cluster that a dead node does not come back, so that its copies are made anew at once.
    ///
    /// # Errors
    ///
    /// See [`ProcessError`].
    pub async fn remove(&self, node: &str) -> Result<(), ProcessError> {
        self.order(&format!("/v1/nodes/{node}/remove"), &serde_json::json!({"force": true})).await
    }

    /// Has an order carried out by any node, in spite of an election that may be under way.
    async fn order(&self, path: &str, body: &serde_json::Value) -> Result<(), ProcessError> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let mut nodes = self.nodes.iter().cycle();
        loop {
            let addr = &nodes.next().expect("some node runs").public_addr;
            let ask = Ask::post(addr, path, body)?;
            match self.http.send(&ask, REQUEST_TIMEOUT).await {
                Ok(reply) if reply.status.is_success() => return Ok(()),
                // It was carried out before, and the answer was lost.
                Ok(reply) if reply.status == hyper::StatusCode::NOT_FOUND => return Ok(()),
                outcome if Instant::now() > deadline => {
                    let status = |reply: crate::http::Reply| HttpError::Status { status: reply.status };
                    return Err(outcome.map_or_else(|error| error, status).into());
                }
                _ => sleep(LOOK_PAUSE).await,
            }
        }
    }

    /// The newest topology that some node gives.
    pub async fn view(&self) -> Option<View> {
        let asked = self.nodes.iter().map(|node| View::fetch(&self.http, &node.public_addr));
        let views = futures_util::future::join_all(asked).await.into_iter().flatten();
        views.max_by_key(|view| view.version)
    }

    /// Waits until all nodes that run take part, every partition has all its copies, and nothing moves.
    ///
    /// # Errors
    ///
    /// See [`ProcessError`].
    pub async fn wait_until_whole(&mut self, patience: std::time::Duration) -> Result<View, ProcessError> {
        let count = self.nodes.len();
        self.wait_for(patience, |view| view.nodes.len() == count && view.is_whole()).await
    }

    /// Waits until the topology is as wanted.
    ///
    /// # Errors
    ///
    /// See [`ProcessError`].
    pub async fn wait_for(
        &mut self,
        patience: std::time::Duration,
        wanted: impl Fn(&View) -> bool,
    ) -> Result<View, ProcessError> {
        let deadline = Instant::now() + patience;
        loop {
            let view = self.view().await;
            if let Some(view) = view.filter(|view| wanted(view)) {
                return Ok(view);
            }
            self.check_alive()?;
            if Instant::now() > deadline {
                return Err(ProcessError::NotInTime { seconds: patience.as_secs() });
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Fails with the last words of a node that does not run and should.
    fn check_alive(&mut self) -> Result<(), ProcessError> {
        for node in &mut self.nodes {
            if let Some(status) = node.child.try_wait()? {
                let words = last_words(&node.log).unwrap_or_else(|| status.to_string());
                return Err(ProcessError::Ended { node: node.id.clone(), words });
            }
        }
        Ok(())
    }

    /// Waits until a node has ended by itself, and forgets it.
    ///
    /// # Errors
    ///
    /// See [`ProcessError`].
    pub async fn ended(&mut self, node: &str) -> Result<(), ProcessError> {
        let Some(at) = self.nodes.iter().position(|known| known.id == node) else { return Ok(()) };
        let ended = timeout(READY_TIMEOUT, self.nodes[at].child.wait()).await;
        ended.map_err(|_| ProcessError::NotInTime { seconds: READY_TIMEOUT.as_secs() })??;
        self.nodes.remove(at);
        Ok(())
    }

    /// Ends all nodes: in order where they do so in time, and else by force.
    ///
    /// # Errors
    ///
    /// [`ProcessError::Io`].
    pub async fn stop(mut self) -> Result<(), ProcessError> {
        self.nodes.iter_mut().for_each(|node| node.input = None);
        for mut node in self.nodes {
            if timeout(STOP_TIMEOUT, node.child.wait()).await.is_err() {
                node.child.kill().await?;
            }
        }
        Ok(())
    }
}

/// Addresses with ports that nobody uses. All are held until all are chosen.
fn free_addrs(count: usize) -> io::Result<Vec<String>> {
    let held: io::Result<Vec<_>> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    held?.iter().map(|listener| Ok(listener.local_addr()?.to_string())).collect()
}

fn last_words(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    text.lines().last().map(ToOwned::to_owned)
}

/// The processes are not as they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProcessError {
    /// A node ended that should run.
    #[error("{node} has ended: {words}")]
    Ended {
        /// Which node.
        node: String,
        /// What it said at last.
        words: String,
    },
    /// A node does not answer as it should.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A process, a file or a port cannot be had.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The cluster did not become what it should in time.
    #[error("the cluster is not as it should be after {seconds} s")]
    NotInTime {
        /// How long was waited.
        seconds: u64,
    },
}
