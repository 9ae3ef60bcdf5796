//! The processes that the example starts, and ends whatever happens.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::limits::{DEADLINE, END_TIMEOUT, LAST_WORDS_LINES_MAX, LOOK_PAUSE};

/// All of them. Each is also killed when its handle is dropped.
#[derive(Debug, Default)]
pub(crate) struct Processes(Vec<Process>);

#[derive(Debug)]
struct Process {
    child: Child,
    end: Signal,
}

impl Processes {
    /// Starts `command`, which ends by the signal `end`, with all that it says in `log`.
    pub(crate) fn start(&mut self, command: Command, log: &Path, end: Signal) -> io::Result<&mut Child> {
        let log = File::create(log)?;
        self.spawn(command, [Stdio::null(), log.try_clone()?.into(), log.into()], end)
    }

    /// Starts `command`, which ends by the signal `end`, to be talked with; what it says to people is in
    /// `log`.
    pub(crate) fn start_piped(
        &mut self,
        command: Command,
        log: &Path,
        end: Signal,
    ) -> io::Result<&mut Child> {
        self.spawn(command, [Stdio::piped(), Stdio::piped(), File::create(log)?.into()], end)
    }

    fn spawn(&mut self, mut command: Command, streams: [Stdio; 3], end: Signal) -> io::Result<&mut Child> {
        let [input, output, error] = streams;
        // Ctrl-C reaches the story alone, which then ends the others one after the other.
        command.stdin(input).stdout(output).stderr(error).process_group(0).kill_on_drop(true);
        self.0.push(Process { child: command.spawn()?, end });
        Ok(&mut self.0.last_mut().expect("it was just added").child)
    }

    /// Ends all, the last one first, and kills what does not end in time.
    pub(crate) async fn end(&mut self) {
        while let Some(mut process) = self.0.pop() {
            // One that was waited for has no id any more.
            let Some(pid) = pid(&process.child) else { continue };
            // A stopped process hears the first signal only after the second.
            for signal in [process.end, Signal::CONT] {
                kill_process(pid, signal).ok();
            }
            if timeout(END_TIMEOUT, process.child.wait()).await.is_err() {
                // Nothing more can be done about one that cannot even be killed.
                drop(process.child.kill().await);
            }
        }
    }
}

/// The id of a child that was not waited for, so that no other process has it.
pub(crate) fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?))
}

/// Stops a child process, and waits until it stands still.
pub(crate) async fn stop(pid: Pid) -> io::Result<()> {
    kill_process(pid, Signal::STOP)?;
    let deadline = Instant::now() + DEADLINE;
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG;
    while waitid(WaitId::Pid(pid), options)?.is_none() {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(LOOK_PAUSE).await;
    }
    Ok(())
}

/// Lets a stopped process go on.
pub(crate) fn go_on(pid: Pid) -> io::Result<()> {
    Ok(kill_process(pid, Signal::CONT)?)
}

/// What a process said before it ended.
#[derive(Debug)]
pub(crate) struct LastWords(pub(crate) PathBuf);

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        f.write_str(&lines[lines.len().saturating_sub(LAST_WORDS_LINES_MAX)..].join("; "))
    }
}
