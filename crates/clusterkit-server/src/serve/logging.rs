//! The log of a node. It goes to standard output, so that standard error holds nothing but the one
//! line that says why the process ended.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;

use crate::config::LogFormat;
use crate::failure::Failure;
use crate::terminal;

/// From now on log lines are written.
pub(super) fn start(level: &str, format: LogFormat) -> Result<(), Failure> {
    let builder = fmt().with_env_filter(filter(level)?).with_writer(io::stdout);
    match format {
        LogFormat::Text => builder.with_ansi(terminal::has_colours()).init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init(),
    }
    Ok(())
}

/// The format that was asked for, or the one that fits where the log goes.
pub(super) fn format(wanted: Option<LogFormat>) -> LogFormat {
    wanted.unwrap_or(if terminal::is_terminal() { LogFormat::Text } else { LogFormat::Json })
}

fn filter(level: &str) -> Result<EnvFilter, Failure> {
    let fault = |reason: String| Failure::LogLevel { text: level.to_owned(), reason };
    // The filter takes a mistyped level for the name of a module, and then logs next to nothing.
    let mut bare = level.split(',').map(str::trim).filter(|part| !part.contains('='));
    if bare.any(|part| part.is_empty() || part.parse::<LevelFilter>().is_err()) {
        return Err(fault("it is error, warn, info, debug, trace or off, or module=level".to_owned()));
    }
    EnvFilter::try_new(level).map_err(|error| fault(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_level_is_checked() {
        let check = |level: &str, expect: bool| assert_eq!(filter(level).is_ok(), expect, "{level}");
        check("info", true);
        check("WARN", true);
        check("off", true);
        check("info,clusterkit::node=debug", true);
        check("clusterkit=trace", true);
        check("infoo", false);
        check("clusterkit::node", false);
        check("clusterkit=loud", false);
        check("", false);
    }
}
