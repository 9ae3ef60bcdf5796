//! Child processes under test: started, asked, killed, and never left behind.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);
/// Below the ports that systems give to connections, so that none of those is in the way.
const PORT_FIRST: u16 = 20_000;
const PORT_COUNT: u16 = 12_000;
/// How far apart two runs of these tests begin that are started one after the other, so that neither is given a port
/// that the other has chosen and does not listen on yet.
const PORTS_PER_PROCESS: u32 = 200;

/// Waits until `found` finds something.
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", DEADLINE.as_secs());
        thread::sleep(PAUSE); // tidy: polling a child process
    }
}

/// An address of this machine that nobody listens on: a node must be told its seeds before they run.
pub(crate) fn free_addr() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let apart = std::process::id().wrapping_mul(PORTS_PER_PROCESS);
    let start = u16::try_from(apart % u32::from(PORT_COUNT)).expect("below the count");
    eventually("a free port", || {
        let offset =
            (u32::from(start) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(PORT_COUNT);
        let addr = format!("127.0.0.1:{}", PORT_FIRST + u16::try_from(offset).expect("below the count"));
        TcpListener::bind(&addr).is_ok().then_some(addr)
    })
}

/// The binary under test, without settings from this process's environment.
pub(crate) fn clusterkit(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterkit"));
    let inherited = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CK_"));
    for (name, _) in inherited {
        command.env_remove(name);
    }
    command.args(args).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) fn run(args: &[&str]) -> Finished {
    finish(clusterkit(args))
}

/// Runs `command` to its end, which must come within the deadline.
pub(crate) fn finish(command: Command) -> Finished {
    finish_within(DEADLINE, command)
}

/// As [`finish`], with another deadline.
pub(crate) fn finish_within(patience: Duration, mut command: Command) -> Finished {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let pid = child.id();
    let reader = thread::spawn(move || child.wait_with_output());
    let deadline = Instant::now() + patience;
    while !reader.is_finished() {
        if Instant::now() > deadline {
            signal(pid, Signal::KILL);
        }
        thread::sleep(PAUSE / 5); // tidy: polling a child process
    }
    let output = reader.join().expect("no panic").expect("output");
    Finished::of(&output)
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it printed, as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// That it failed with `code` and one line that holds `part`.
    pub(crate) fn assert_refused(&self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert!(self.stderr.contains(part), "{part:?} in {self:?}");
    }
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    // It may have ended meanwhile.
    kill_process(pid_of(pid), signal).ok();
}

pub(crate) fn is_running(pid: u32) -> bool {
    test_kill_process(pid_of(pid)).is_ok()
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not zero")
}

/// A process that runs until it is told otherwise, and dies with its handle.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Its output goes to files named after `name`.
    pub(crate) fn start(mut command: Command, dir: &Path, name: &str) -> Self {
        let (out, err) = (dir.join(format!("{name}.out")), dir.join(format!("{name}.err")));
        command.stdout(File::create(&out).expect("made")).stderr(File::create(&err).expect("made"));
        Self { child: command.spawn().expect("started"), out, err }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Waits until it printed `part`.
    pub(crate) fn wait_for(&mut self, part: &str) -> String {
        eventually(part, || {
            let text = self.stdout();
            if text.contains(part) {
                return Some(text);
            }
            let ended = self.child.try_wait().expect("asked");
            assert!(ended.is_none(), "ended before {part:?}: {}{}", self.stdout(), self.stderr());
            None
        })
    }

    /// Waits until it has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().expect("asked"))
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Ends it in order.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        signal(self.pid(), Signal::TERM);
        self.wait()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// One node: where it lives, and what it is told.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) id: String,
    pub(crate) http: String,
    pub(crate) node: String,
    pub(crate) dir: PathBuf,
    pub(crate) more: Vec<String>,
}

impl Plan {
    pub(crate) fn new(home: &Path, id: &str, more: &[&str]) -> Self {
        Self {
            id: id.to_owned(),
            http: free_addr(),
            node: free_addr(),
            dir: home.join(id),
            more: more.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    /// What `serve` is told.
    pub(crate) fn args(&self) -> Vec<String> {
        let dir = self.dir.display().to_string();
        let own = [
            "serve",
            "--node-id",
            &self.id,
            "--http-addr",
            &self.http,
            "--listen",
            &self.node,
            "--data-dir",
            &dir,
        ];
        own.iter().map(|option| (*option).to_owned()).chain(self.more.clone()).collect()
    }

    pub(crate) fn command(&self) -> Command {
        let args = self.args();
        clusterkit(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(crate) fn start(&self) -> Running {
        let home = self.dir.parent().expect("inside its home");
        Running::start(self.command(), home, &self.id)
    }

    /// Runs a command against this node.
    pub(crate) fn ask(&self, args: &[&str]) -> Finished {
        let args: Vec<&str> = args.iter().copied().chain(["--url", &self.http]).collect();
        run(&args)
    }

    /// Waits until the cluster stands as well as this, seen by this node.
    pub(crate) fn wait_until(&self, wanted: &str) -> Value {
        let status = self.ask(&["status", "-o", "json", "--wait", wanted, "--timeout", "60s"]);
        assert!(status.stderr.is_empty(), "{status:?}");
        status.json()
    }
}

/// `count` nodes that form one cluster, not started yet.
pub(crate) fn plans(home: &TempDir, count: usize, more: &[&str]) -> Vec<Plan> {
    let mut plans: Vec<_> =
        (1..=count).map(|number| Plan::new(home.path(), &format!("node-{number}"), more)).collect();
    let seeds: Vec<_> = plans.iter().map(|plan| plan.node.clone()).collect();
    for plan in &mut plans {
        plan.more.extend(["--expect".to_owned(), count.to_string(), "--seeds".to_owned(), seeds.join(",")]);
    }
    plans
}
