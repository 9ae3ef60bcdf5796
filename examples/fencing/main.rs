//! `cargo run --release --example fencing`

use std::process::ExitCode;

fn main() -> ExitCode {
    clusterkit_example_fencing::main()
}
