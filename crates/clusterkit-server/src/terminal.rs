//! What a terminal shows better than a file does.

use std::io::{self, IsTerminal, Write};

/// How a word stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    Green,
    Red,
    Yellow,
}

/// Whether standard output shows colours: it is a terminal, and nobody said no (<https://no-color.org>).
pub(crate) fn has_colours() -> bool {
    is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// `text` in `colour`, where colours are shown.
pub(crate) fn coloured(text: &str, colour: Colour, shown: bool) -> String {
    let code = match colour {
        Colour::Green => 32,
        Colour::Red => 31,
        Colour::Yellow => 33,
    };
    if shown { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// A number and what it counts, as in `1 node` and `3 nodes`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Writes `text` and a line break, at once.
pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    out.flush()
}

/// One line that is written over: how far something is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    shown: String,
}

impl Progress {
    /// On a terminal the line is replaced; elsewhere a line is added when it says something new.
    pub(crate) fn show(&mut self, line: &str) -> io::Result<()> {
        if line == self.shown {
            return Ok(());
        }
        line.clone_into(&mut self.shown);
        if is_terminal() {
            let mut out = io::stdout().lock();
            write!(out, "\r\x1b[2K{line}")?;
            return out.flush();
        }
        say(line)
    }

    /// What comes next begins a line of its own.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        if is_terminal() && !self.shown.is_empty() {
            say("")?;
        }
        self.shown.clear();
        Ok(())
    }
}
