//! Ownership among nodes that fail, hooks that misbehave and a control plane that changes hands, in
//! virtual time: what the hooks promise holds in every step, and a user's own store built on them
//! loses nothing that it acknowledged.
//!
//! - `seeds`: clusters that chance breaks for a while and that must heal; 60 seeds in every test run;
//! - `directed`: one move, or one hook, and what happens at a chosen moment of it;
//! - `planted`: mistakes made on purpose, each of which a check must see.
//!
//! A run is repeated by its seed, and more seeds are run by their range:
//!
//! ```text
//! HANDOFF_SEEDS=17 HANDOFF_TRACE=1 cargo test -p clusterkit-core --test handoff chance_breaks
//! HANDOFF_SEEDS=60..5000 cargo test --release -p clusterkit-core --test handoff chance_breaks -- --nocapture
//! ```
//!
//! With `HANDOFF_TRACE=1` a run that fails tells its story.

mod chance;
mod checks;
mod control;
mod directed;
mod faults;
mod hooks;
mod node;
mod planted;
mod seeds;
mod settled;
mod store;
mod world;
