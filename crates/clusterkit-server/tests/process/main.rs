//! The built binary, as processes with real sockets and real disks.

mod cluster;
mod demo;
mod dev;
mod formation;
mod harness;
mod kv;
mod refusals;
mod serve;
