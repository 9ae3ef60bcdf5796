//! Where the nodes of a development cluster live: directories and ports.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{DevError, NODES_DEFAULT, NODES_MAX};

/// The public address of the first node, if nobody else has it.
const FIRST_PUBLIC: &str = "127.0.0.1:8080";
/// Any free port of this machine.
const ANY_PORT: &str = "127.0.0.1:0";
/// What a node's directory is called before its number.
const NODE_PREFIX: &str = "node-";

/// The directory of the whole cluster.
#[derive(Debug)]
pub(crate) enum Home {
    /// It stays, and may hold the data of an earlier run.
    Kept(PathBuf),
    /// It is removed at the end.
    Temporary(TempDir),
}

impl Home {
    pub(crate) fn open(kept: Option<&Path>) -> Result<Self, DevError> {
        let home = match kept {
            Some(path) => {
                let fault = |source| DevError::Directory { path: path.to_owned(), source };
                fs::create_dir_all(path).map_err(fault)?;
                Self::Kept(path.canonicalize().map_err(fault)?)
            }
            None => {
                let dir = tempfile::Builder::new().prefix("clusterkit-dev-").tempdir();
                Self::Temporary(
                    dir.map_err(|source| DevError::Directory { path: std::env::temp_dir(), source })?,
                )
            }
        };
        Ok(home)
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }

    /// How many nodes the cluster shall have: as many as are here already, or as many as wanted.
    pub(crate) fn node_count(&self, wanted: Option<u32>) -> Result<u32, DevError> {
        let path = || self.path().to_owned();
        let entries =
            fs::read_dir(self.path()).map_err(|source| DevError::Directory { path: path(), source })?;
        let names: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
        let names = names.map_err(|source| DevError::Directory { path: path(), source })?;
        let is_node = |number: &u32| names.iter().any(|name| name.to_str() == Some(&node_id(*number)));
        let present = (1..=NODES_MAX).filter(is_node).count();
        match (u32::try_from(present).unwrap_or(NODES_MAX), wanted) {
            (0, _) if !names.is_empty() => Err(DevError::ForeignDirectory { path: path() }),
            (0, wanted) => Ok(wanted.unwrap_or(NODES_DEFAULT)),
            (present, Some(wanted)) if wanted != present => {
                Err(DevError::OtherCount { path: path(), present, wanted })
            }
            (present, _) => Ok(present),
        }
    }
}

fn node_id(number: u32) -> String {
    format!("{NODE_PREFIX}{number}")
}

/// One node: what `serve` is told.
#[derive(Debug, Clone)]
pub(crate) struct NodePlan {
    pub(crate) id: String,
    pub(crate) public_addr: String,
    pub(crate) node_addr: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) log: PathBuf,
}

impl NodePlan {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.public_addr)
    }
}

/// The public port of the first node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstPort {
    /// The one that clients try first, if nobody else has it.
    Known,
    /// Any: somebody else is after the known one.
    Any,
}

/// Chooses free ports for `count` nodes. All of them are held until all are chosen, and then let
/// go: who takes one in between makes its node fail, and the cluster is begun again.
pub(crate) fn plan(home: &Path, count: u32, first: FirstPort) -> Result<Vec<NodePlan>, DevError> {
    let mut held = Vec::new();
    let mut bind = |addr: &str| {
        let listener = TcpListener::bind(addr)?;
        let local = listener.local_addr()?.to_string();
        held.push(listener);
        Ok::<_, io::Error>(local)
    };
    let mut nodes = Vec::new();
    for number in 1..=count {
        let public = if number == 1 && first == FirstPort::Known { FIRST_PUBLIC } else { ANY_PORT };
        let public_addr = bind(public).or_else(|_| bind(ANY_PORT)).map_err(DevError::NoPort)?;
        let node_addr = bind(ANY_PORT).map_err(DevError::NoPort)?;
        let id = node_id(number);
        nodes.push(NodePlan {
            public_addr,
            node_addr,
            data_dir: home.join(&id),
            log: home.join(format!("{id}.log")),
            id,
        });
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn holding(names: &[&str]) -> (TempDir, Home) {
        let dir = tempfile::tempdir().expect("a directory");
        for name in names {
            fs::create_dir(dir.path().join(name)).expect("made");
        }
        let home = Home::open(Some(dir.path())).expect("usable");
        (dir, home)
    }

    #[test]
    fn a_directory_says_how_many_nodes_it_holds() {
        let check = |names: &[&str], wanted: Option<u32>, expect: Option<u32>| {
            let (_dir, home) = holding(names);
            assert_eq!(home.node_count(wanted).ok(), expect, "{names:?} {wanted:?}");
        };
        check(&[], None, Some(3));
        check(&[], Some(5), Some(5));
        check(&["node-1", "node-2", "node-1.log"], None, Some(2));
        check(&["node-1", "node-2"], Some(2), Some(2));
        check(&["node-1", "node-2"], Some(3), None);
        check(&["photos"], None, None);
    }

    #[test]
    fn no_port_is_given_twice() {
        let nodes = plan(Path::new("home"), NODES_MAX, FirstPort::Known).expect("ports");
        let addrs: BTreeSet<_> = nodes.iter().flat_map(|node| [&node.public_addr, &node.node_addr]).collect();
        assert_eq!(addrs.len(), 2 * NODES_MAX as usize);
    }

    #[test]
    fn a_port_that_was_lost_is_not_tried_again() {
        let nodes = plan(Path::new("home"), 1, FirstPort::Any).expect("ports");
        assert_ne!(nodes[0].public_addr, FIRST_PUBLIC);
    }
}
