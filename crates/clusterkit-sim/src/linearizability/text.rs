//! Histories as text: one line for each operation, to be kept beside a test or handed from one process to another.

use std::fmt;
use std::str::FromStr;

use super::history::{History, HistoryError, Key, Moment, Operation, Outcome, Process};
use super::specification::Specification;

/// What parts an input from its outcome.
const ARROW: &str = " -> ";

const FAILED: &str = "failed";
const UNKNOWN: &str = "unknown";

/// Why a text is no history of the specification. Nothing was read; the text has to be mended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The operations cannot have been recorded that way.
    #[error("the operations are no history")]
    History(#[from] HistoryError),
    /// A line is no operation of the specification.
    #[error("line {line} is no operation")]
    Line {
        /// The line, counted from one.
        line: usize,
    },
    /// The first line does not name the specification: the history is of another one.
    #[error("the first line is not `history {expected}`")]
    Specification {
        /// The name it has to have.
        expected: &'static str,
    },
}

impl<I, O> History<I, O>
where
    I: fmt::Display + FromStr,
    O: fmt::Display + FromStr,
{
    /// The history as text, which [`read`](Self::read) with the same specification reads again.
    ///
    /// ```text
    /// history register
    /// p0 k7 10..25 write 1 -> done
    /// p1 k7 12..30 read -> none
    /// p2 k7 20.. cas 1 2 -> unknown
    /// p0 k7 30..31 delete -> failed
    /// ```
    pub fn text<S: Specification<Input = I, Output = O>>(&self) -> String {
        let mut text = format!("history {}\n", S::NAME);
        self.operations().iter().for_each(|operation| text.push_str(&format!("{operation}\n")));
        text
    }

    /// Reads a history that [`text`](Self::text) has written. Empty lines and lines that begin with `#` say nothing.
    ///
    /// # Errors
    ///
    /// [`TextError`] if `text` is no history of this specification.
    pub fn read<S: Specification<Input = I, Output = O>>(text: &str) -> Result<Self, TextError> {
        let mut lines = text.lines().zip(1..).filter(|(line, _)| says_something(line));
        let expected = S::NAME;
        let name = lines.next().and_then(|(line, _)| line.trim().strip_prefix("history "));
        if name.is_none_or(|name| name.trim() != expected) {
            return Err(TextError::Specification { expected });
        }
        let operations = lines.map(|(text, line)| operation(text.trim()).ok_or(TextError::Line { line }));
        Ok(Self::new(operations.collect::<Result<_, _>>()?)?)
    }
}

/// The name of the specification that a text is a history of, for those who have to choose one.
#[must_use]
pub fn specification_name(text: &str) -> Option<&str> {
    text.lines().find(|line| says_something(line))?.trim().strip_prefix("history ").map(str::trim)
}

fn says_something(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty() && !line.starts_with('#')
}

impl<I: fmt::Display, O: fmt::Display> fmt::Display for Operation<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { process, key, invoked, input, outcome } = self;
        write!(f, "{process} {key} {}..", invoked.0)?;
        match outcome {
            Outcome::Failed { returned } => write!(f, "{} {input}{ARROW}{FAILED}", returned.0),
            Outcome::Known { returned, output } => write!(f, "{} {input}{ARROW}{output}", returned.0),
            Outcome::Unknown => write!(f, " {input}{ARROW}{UNKNOWN}"),
        }
    }
}

fn operation<I: FromStr, O: FromStr>(line: &str) -> Option<Operation<I, O>> {
    let (process, rest) = line.split_once(' ')?;
    let (key, rest) = rest.split_once(' ')?;
    let (times, rest) = rest.split_once(' ')?;
    let (invoked, returned) = times.split_once("..")?;
    let (input, outcome) = rest.rsplit_once(ARROW)?;
    Some(Operation {
        process: Process(process.strip_prefix('p')?.parse().ok()?),
        key: Key(key.strip_prefix('k')?.parse().ok()?),
        invoked: Moment(invoked.parse().ok()?),
        input: input.parse().ok()?,
        outcome: read_outcome(returned, outcome)?,
    })
}

fn read_outcome<O: FromStr>(returned: &str, outcome: &str) -> Option<Outcome<O>> {
    if outcome == UNKNOWN {
        return returned.is_empty().then_some(Outcome::Unknown);
    }
    let returned = Moment(returned.parse().ok()?);
    match outcome {
        FAILED => Some(Outcome::Failed { returned }),
        output => Some(Outcome::Known { returned, output: output.parse().ok()? }),
    }
}
