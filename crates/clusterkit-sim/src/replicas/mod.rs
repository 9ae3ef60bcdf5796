//! The production state machines of a whole cluster in one thread and in virtual time.
//!
//! One seed is one run: chance decides what breaks and when, everything that is decided is decided by the production
//! code, and after every step it is checked that no invariant of the protocol is broken. Then faults stop, and the
//! cluster must heal and serve.
//!
//! | module | is |
//! | --- | --- |
//! | `world` | the queue of what happens, in order of time |
//! | `node`, `shell`, `requests` | a node around its replicas: start, facts, actions, clients' requests |
//! | `disk`, `store`, `machine` | what a node keeps, and how it is lost |
//! | `network`, `clock` | how late, how often, how fast |
//! | `control`, `controller` | the control plane, and who decides |
//! | `clients` | writes, repeats, reads |
//! | `faults`, `heal`, `coverage` | what breaks, how it ends, what it met |
//! | `checkers` | the invariants, one a file |

mod chance;
mod checkers;
mod clients;
mod clock;
mod control;
mod controller;
mod coverage;
mod disk;
mod faults;
mod heal;
mod machine;
mod network;
mod node;
mod requests;
mod run;
mod settings;
mod shell;
mod store;
mod trace;
mod world;

pub use self::coverage::Coverage;
pub use self::run::{Breach, Finding, Report, hunt, run, story};
pub use self::settings::Options;
