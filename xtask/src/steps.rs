//! Steps run in order until one fails.

use std::fmt;
use std::io::{self, Write};
use std::process::{Command, ExitStatus};
use std::time::Instant;

use crate::fence::FenceError;

/// One step: a name, what it does in one line, and the work.
pub struct Step<'a> {
    name: &'static str,
    shown: String,
    work: Box<dyn FnOnce() -> Result<(), StepError> + 'a>,
}

impl<'a> Step<'a> {
    /// A step that does `work`; `shown` tells whoever waits what that is.
    pub fn new(
        name: &'static str,
        shown: impl Into<String>,
        work: impl FnOnce() -> Result<(), StepError> + 'a,
    ) -> Self {
        Self { name, shown: shown.into(), work: Box::new(work) }
    }

    /// A step that runs `command`, whose output goes where ours goes.
    pub fn command(name: &'static str, mut command: Command) -> Self {
        let shown = shown(&command);
        Self::new(name, shown, move || {
            let status = command.status().map_err(StepError::Spawn)?;
            if status.success() { Ok(()) } else { Err(StepError::Exit { status }) }
        })
    }
}

impl fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("name", &self.name).field("shown", &self.shown).finish_non_exhaustive()
    }
}

/// Why a step failed. Steps change nothing but build outputs: repair the cause and run them again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// The command ran and failed; its output says why.
    #[error("{status}")]
    Exit {
        /// How it ended.
        status: ExitStatus,
    },
    /// Core is not behind its fence.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// The command could not be started.
    #[error("the command cannot be started: {0}")]
    Spawn(#[source] io::Error),
}

/// How many steps passed and failed. At most one fails, since none runs after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Steps that passed.
    pub passed: usize,
    /// Steps that failed.
    pub failed: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Runs `steps` in order until one fails. Writes to `out` each step's name before it runs, its time
/// after, the names of those that did not run, and the summary alone on the last line.
pub fn run(steps: Vec<Step<'_>>, out: &mut dyn Write) -> io::Result<Summary> {
    let mut summary = Summary::default();
    let mut waiting = steps.into_iter();
    while summary.failed == 0 {
        let Some(step) = waiting.next() else { break };
        run_one(step, &mut summary, out)?;
    }
    let left: Vec<&str> = waiting.map(|step| step.name).collect();
    if !left.is_empty() {
        writeln!(out, "==> not run: {}", left.join(", "))?;
    }
    writeln!(out, "\n{summary}")?;
    Ok(summary)
}

fn run_one(step: Step<'_>, summary: &mut Summary, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "==> {}: {}", step.name, step.shown)?;
    // What the step writes by itself must come after its name.
    out.flush()?;
    let start = Instant::now();
    let result = (step.work)();
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(()) => {
            summary.passed += 1;
            writeln!(out, "==> {}: passed in {seconds:.1} s", step.name)
        }
        Err(error) => {
            summary.failed += 1;
            writeln!(out, "==> {}: FAILED after {seconds:.1} s: {error}", step.name)
        }
    }
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}={:?} ", name.to_string_lossy(), value?.to_string_lossy()))
    });
    let program = std::path::Path::new(command.get_program()).file_stem().unwrap_or_default();
    let arguments = command.get_args().map(|argument| format!(" {}", argument.to_string_lossy()));
    let variables: String = variables.collect();
    format!("{variables}{}{}", program.to_string_lossy(), arguments.collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Runs steps that pass or fail as told. Returns what ran, what was written with the times cut
    /// out, and the summary.
    fn transcript(outcomes: &[(&'static str, bool)]) -> (Vec<&'static str>, String, Summary) {
        let ran = RefCell::new(Vec::new());
        let steps = outcomes.iter().map(|&(name, passes)| {
            let ran = &ran;
            Step::new(name, "by hand", move || {
                ran.borrow_mut().push(name);
                if passes { Ok(()) } else { Err(StepError::Spawn(io::ErrorKind::NotFound.into())) }
            })
        });
        let mut out = Vec::new();
        let summary = run(steps.collect(), &mut out).expect("writing to memory");
        let text = String::from_utf8(out).expect("text");
        (ran.into_inner(), text.replace("0.0 s", "T"), summary)
    }

    #[test]
    fn steps_run_in_order_and_the_summary_is_the_last_line() {
        let (ran, text, summary) = transcript(&[("a", true), ("b", true)]);
        assert_eq!(ran, ["a", "b"]);
        assert_eq!(summary, Summary { passed: 2, failed: 0 });
        assert_eq!(
            text,
            "==> a: by hand\n==> a: passed in T\n==> b: by hand\n==> b: passed in T\n\n2 passed, 0 failed\n"
        );
    }

    #[test]
    fn nothing_runs_after_the_first_failure() {
        let (ran, text, summary) = transcript(&[("a", true), ("b", false), ("c", true), ("d", true)]);
        assert_eq!(ran, ["a", "b"]);
        assert_eq!(summary, Summary { passed: 1, failed: 1 });
        assert_eq!(
            text,
            "==> a: by hand\n==> a: passed in T\n==> b: by hand\n\
             ==> b: FAILED after T: the command cannot be started: entity not found\n\
             ==> not run: c, d\n\n1 passed, 1 failed\n"
        );
    }

    #[test]
    fn a_command_passes_if_it_exits_with_zero() {
        let check = |argument: &str, expect: Summary| {
            let mut command = Command::new(crate::metadata::cargo());
            command.arg(argument).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
            let steps = vec![Step::command("cargo", command)];
            assert_eq!(run(steps, &mut io::sink()).expect("writing to nowhere"), expect, "{argument}");
        };
        check("--version", Summary { passed: 1, failed: 0 });
        check("--no-such-option", Summary { passed: 0, failed: 1 });
    }

    #[test]
    fn a_command_is_shown_as_one_would_type_it() {
        let mut command = Command::new("bin/cargo");
        command.args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(shown(&command), "RUSTDOCFLAGS=\"-D warnings\" cargo doc --no-deps");
    }
}
