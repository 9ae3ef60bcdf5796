//! What the examples share: a store of their own, and everything that keeps its copies in step while
//! ClusterKit moves them.
//!
//! ClusterKit says who holds and who leads which partition. Everything else is here, in the program:
//!
//! | module | holds | read it to see |
//! | --- | --- | --- |
//! | [`store`] | values with versions, partition by partition, in memory | how a store refuses a deposed leader |
//! | [`copies`] | the hooks | what happens before a copy counts, before a node leads, after a copy is taken away |
//! | [`leader`] | writes under a lease | who must have a write before it is acknowledged |
//! | [`quorum`] | how many copies are enough where clients write them | why a majority stays one while copies move |
//! | [`replica`] | the requests between the programs | how a copy is served so that nothing is missed |
//! | [`serve`] | one node: ClusterKit, the store and a port | how the pieces are put together |
//! | [`view`] | the topology as clients get it | routing without embedding |
//! | [`http`] | an HTTP client, and one that is patient | how a client rides through a planned change |
//! | [`process`] | child processes | - |
//! | [`demo`] | what an example does when it is started by hand | - |
//!
//! The store is memory alone, so a node that was killed lost everything it had. It must never come back
//! as the replica that it was: every start takes a new data directory, which makes its replicas new
//! ones, and they are copied before they count.

pub mod copies;
pub mod demo;
pub mod http;
pub mod leader;
pub mod limits;
pub mod process;
pub mod quorum;
pub mod replica;
pub mod serve;
pub mod store;
pub mod view;
