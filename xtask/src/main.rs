//! `cargo xtask`: runs what CI runs, checks the rules of the house, and keeps the listings of the
//! public interfaces.

use std::error::Error;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, ExitCode};

use xtask::checkout::{Checkout, repository_root};
use xtask::fence;
use xtask::metadata::{Metadata, cargo};
use xtask::servers;
use xtask::steps::{self, Step, StepError};
use xtask::tidy;
use xtask::tidy::public_api::{self, Interface};

const USAGE: &str = "\
The house of ClusterKit.

Usage: cargo xtask <COMMAND>

Commands:
  test                  Run everything that CI checks, in order, until something fails
  tidy                  Check the rules of the house alone
  model --steps N       Walk N steps at random through the model of the replication protocol
  model --mutations     Take each rule of the protocol out in turn, and find what breaks
  model --exhaustive    Try every order of a few events of the model
                        (more options: cargo xtask model --help)
  sim --seeds N         Run the production replicas of N clusters in virtual time
  sim --mutants         Make each planted mistake in turn, and find the seed that notices
                        (more options: cargo xtask sim --help)
  public-api            Show how the public interfaces differ from their listings in docs/api
  public-api --bless    Accept the public interfaces as they are
  help                  Show this text
";

/// What the tests of the examples want beside Rust.
const SERVERS: &str = "install the servers that the example of fencing guards, where that can be done";

/// What a command answers: whether everything is well.
type Outcome = Result<bool, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = repository_root();
    let outcome = match arguments.as_slice() {
        ["test"] => test(root),
        ["tidy"] => check_rules(root),
        ["model", options @ ..] => optimised(root, "model", options),
        ["sim", options @ ..] => optimised(root, "sim", options),
        ["public-api"] => compare_interfaces(root),
        ["public-api", "--bless"] => bless_interfaces(root),
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(true)
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    exit_code(outcome)
}

fn exit_code(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn test(root: &Path) -> Outcome {
    let metadata = Metadata::of_members(root)?;
    let summary = steps::run(test_steps(root, &metadata), &mut io::stdout())?;
    Ok(summary.failed == 0)
}

fn test_steps<'a>(root: &'a Path, metadata: &'a Metadata) -> Vec<Step<'a>> {
    let cargo_step = |name, line: &str| Step::command(name, cargo_command(root, line));
    let mut doc = cargo_command(root, "doc --workspace --no-deps --all-features");
    doc.env("RUSTDOCFLAGS", "-D warnings");
    let mut clippy = cargo_command(root, "clippy --workspace --all-targets --all-features --");
    clippy.args(["-D", "warnings"]);
    let mut steps = vec![
        cargo_step("format", "fmt --all --check"),
        Step::command("lints", clippy),
        Step::new("servers", SERVERS, move || servers::install(root).map_err(StepError::Spawn)),
        // Tests run the examples as programs, and a test's own build of an example is none.
        cargo_step("examples", "build --workspace --all-features --examples"),
        cargo_step("tests", "test --workspace --all-features --tests --examples"),
        cargo_step("doc tests", "test --workspace --all-features --doc"),
        Step::command("documentation", doc),
    ];
    if metadata.packages.iter().any(|package| package.name == fence::CORE) {
        let shown = format!("build {} without features and prove that std is not below it", fence::CORE);
        steps.push(Step::new("core's fence", shown, || Ok(fence::check(root, &metadata.target_directory)?)));
    }
    steps
}

fn cargo_command(root: &Path, line: &str) -> Command {
    let mut command = Command::new(cargo());
    command.args(line.split(' ')).current_dir(root);
    command
}

fn check_rules(root: &Path) -> Outcome {
    let checkout = Checkout::open(root)?;
    let mut is_well = true;
    for (name, check) in tidy::RULES {
        let violations = check(&checkout)?;
        println!("{}: {name}", if violations.is_empty() { "ok" } else { "BROKEN" });
        violations.iter().for_each(|violation| println!("    {violation}"));
        is_well &= violations.is_empty();
    }
    Ok(is_well)
}

/// Runs a proof with optimisation: it takes millions of steps.
fn optimised(root: &Path, proof: &str, options: &[&str]) -> Outcome {
    let mut command = cargo_command(root, "run --release --quiet --package clusterkit-sim --bin");
    Ok(command.args([proof, "--"]).args(options).status()?.success())
}

fn compare_interfaces(root: &Path) -> Outcome {
    let violations = public_api::check(&Checkout::open(root)?);
    violations.iter().for_each(|violation| println!("{violation}"));
    Ok(violations.is_empty())
}

fn bless_interfaces(root: &Path) -> Outcome {
    let checkout = Checkout::open(root)?;
    fs::create_dir_all(root.join("docs/api"))?;
    let mut is_well = true;
    for (package, library) in public_api::libraries(&checkout) {
        let said = match public_api::interface(root, &package.name, &library) {
            Ok(interface) => bless(&interface)?,
            Err(error) => {
                is_well = false;
                format!("cannot be read: {error}")
            }
        };
        println!("{}: {said}", package.name);
    }
    Ok(is_well)
}

fn bless(interface: &Interface) -> io::Result<String> {
    if fs::read_to_string(&interface.file).is_ok_and(|decided| decided == interface.listing) {
        return Ok("unchanged".to_owned());
    }
    fs::write(&interface.file, &interface.listing)?;
    Ok("written".to_owned())
}
