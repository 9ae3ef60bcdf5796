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
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        }
    }
    Ok(())
}

/// The format that was asked for, or the one that fits where the log goes.
pub(super) fn format(wanted: Option<LogFormat>) -> LogFormat {
    wanted.unwrap_or(if terminal::is_terminal() { LogFormat::Text } else { LogFormat::Json })
}

fn filter(level: &str) -> Result<EnvFilter, Failure> {
    let fault = |reason: String| Failure::LogLevel { text: level.to_owned(), reason };
    let directives: Option<Vec<String>> = level.split(',').map(str::trim).map(directive).collect();
    let unknown = || fault("it is error, warn, info, debug, trace or off, or module=level".to_owned());
    let directives = directives.ok_or_else(unknown)?.join(",");
    EnvFilter::try_new(directives).map_err(|error| fault(error.to_string()))
}

/// What one part of the level means to the filter. A bare level is about our own modules: the
/// libraries below tell far more, and are asked for by name. `None` for a mistyped level, which the
/// filter would take for the name of a module, and then log next to nothing.
fn directive(part: &str) -> Option<String> {
    if part.contains('=') {
        return Some(part.to_owned());
    }
    let own: LevelFilter = if part.is_empty() { None } else { part.parse().ok() }?;
    let others = own.min(LevelFilter::WARN);
    Some(format!("{others},clusterkit={own}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_about_our_own_modules() {
        let check =
            |part: &str, expect: Option<&str>| assert_eq!(directive(part).as_deref(), expect, "{part}");
        check("info", Some("warn,clusterkit=info"));
        check("DEBUG", Some("warn,clusterkit=debug"));
        check("error", Some("error,clusterkit=error"));
        check("off", Some("off,clusterkit=off"));
        check("openraft=debug", Some("openraft=debug"));
        check("loud", None);
        check("", None);
    }

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
