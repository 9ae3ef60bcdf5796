//! I15: when faults stop, then within thirty seconds every partition has an active leader, all its replicas are in
//! sync and equal, and it takes a fresh write and serves a fresh read.
//!
//! Source: the liveness phase of every simulator that found a livelock. Checked by healing, in `heal`.
