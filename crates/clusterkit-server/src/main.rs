//! The `clusterkit` binary: a node of a cluster, a cluster to play with, and the commands that
//! operate one.
//!
//! Standard output carries what was asked for; standard error one line, `error: ...`, when it could
//! not be had. The exit code says the same to scripts.

mod cli;
mod client;
mod commands;
mod config;
mod demo;
mod dev;
mod failure;
mod fleet;
mod kv;
mod serve;
mod terminal;
mod view;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use self::cli::{Cli, Command};
use self::failure::{EXIT_USAGE, Failure};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return not_a_command(&error),
    };
    run(cli.command).unwrap_or_else(|failure| {
        if !failure.is_silent() {
            complain(&failure.to_string());
        }
        ExitCode::from(failure.exit_code())
    })
}

fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(options) => serve::run(*options).map(|()| ExitCode::SUCCESS),
        Command::Dev(options) => dev::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Demo(options) => demo::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Status(options) => commands::status(&options),
        Command::Node(command) => commands::node(command),
        Command::Partition(command) => commands::partition(command),
        Command::Kv(command) => commands::kv(command),
        Command::Events(options) => commands::events(&options),
        Command::Version(format) => commands::version(format),
    }
}

/// Help was asked for, or something that does not exist.
fn not_a_command(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Nobody reads the help if it cannot be written.
            drop(error.print());
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(error.print());
            ExitCode::from(EXIT_USAGE)
        }
        _ => {
            complain(&format!("{}; --help shows what there is", cli::usage_line(error)));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

/// One line, whatever the text is made of.
fn complain(text: &str) {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    eprintln!("error: {}", lines.join(" "));
}
