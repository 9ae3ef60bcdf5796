//! What a development cluster says once it runs: where it is, and what to do next.

use std::fmt;
use std::time::Duration;

use super::layout::{Home, NodePlan};
use crate::cli::URL_DEFAULT;
use crate::terminal::counted;

/// A cluster that has formed.
#[derive(Debug)]
pub(super) struct Formed<'a> {
    pub(super) home: &'a Home,
    pub(super) nodes: Vec<(&'a NodePlan, Option<u32>)>,
    pub(super) joined: Duration,
    pub(super) led: Duration,
    pub(super) partitions: usize,
    /// Partitions that the nodes lead, the fewest and the most.
    pub(super) leaders: (u32, u32),
    pub(super) copies: u32,
}

impl fmt::Display for Formed<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, _)) = self.nodes.first() else { return Ok(()) };
        let (url, authority) = (first.url(), &first.public_addr);
        let nodes = counted(self.nodes.len(), "node");
        let led = counted(self.partitions, "partition");
        writeln!(out, " ✓ {:<22}{}", format!("{nodes} joined"), seconds(self.joined))?;
        writeln!(out, " ✓ {:<22}{}   ({})", format!("{led} led"), seconds(self.led), self.shares())?;
        writeln!(out)?;
        writeln!(out, "   HTTP      {url}    curl '{url}/v1/route?key=hello'")?;
        writeln!(out, "   gRPC      {authority}           (same port)")?;
        writeln!(out, "   Metrics   {url}/metrics")?;
        writeln!(out, "   Data      {}  ({})", self.home.path().display(), fate(self.home))?;
        writeln!(out)?;
        self.write_nodes(out)?;
        writeln!(out, "\n Next, in another terminal:")?;
        if url != URL_DEFAULT {
            writeln!(out, "   export CK_URL={url}")?;
        }
        writeln!(out, "   clusterkit status")?;
        writeln!(out, "   clusterkit node list")?;
        writeln!(out, "   clusterkit events --follow")?;
        writeln!(out, "   curl '{url}/v1/route?key=hello'")?;
        if let [_, .., (last, Some(pid))] = self.nodes.as_slice() {
            writeln!(out, "   kill -9 {pid}    ({}: see who leads its partitions then)", last.id)?;
        }
        writeln!(out, "\n Ctrl-C stops {}.", if self.nodes.len() == 1 { "it" } else { "all nodes" })
    }
}

impl Formed<'_> {
    fn write_nodes(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (node, pid) in &self.nodes {
            let pid = pid.map(|pid| pid.to_string()).unwrap_or_default();
            writeln!(
                out,
                "   {:<9} {:<24}  nodes at {:<16}  pid {pid}",
                node.id,
                node.url(),
                node.node_addr
            )?;
        }
        Ok(())
    }

    fn shares(&self) -> String {
        let each = match self.leaders {
            (fewest, most) if fewest == most => fewest.to_string(),
            (fewest, most) => format!("{fewest}-{most}"),
        };
        let copies = counted(self.copies as usize, "replica");
        if self.nodes.len() == 1 { copies } else { format!("{each} each, {copies}") }
    }
}

fn fate(home: &Home) -> &'static str {
    match home {
        Home::Kept(_) => "kept",
        Home::Temporary(_) => "removed at exit; keep it with --data DIR",
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn node(number: u32, port: u16) -> NodePlan {
        NodePlan {
            id: format!("node-{number}"),
            public_addr: format!("127.0.0.1:{port}"),
            node_addr: format!("127.0.0.1:{}", port + 1),
            data_dir: PathBuf::new(),
            log: PathBuf::new(),
        }
    }

    fn banner(nodes: &[NodePlan]) -> String {
        let home = Home::Kept(PathBuf::from("data"));
        let formed = Formed {
            home: &home,
            nodes: nodes.iter().map(|node| (node, Some(42))).collect(),
            joined: Duration::from_millis(640),
            led: Duration::from_millis(90),
            partitions: 64,
            leaders: (21, 22),
            copies: 3,
        };
        formed.to_string()
    }

    #[test]
    fn the_banner_names_the_next_steps() {
        let text = banner(&[node(1, 8080), node(2, 9000), node(3, 9002)]);
        for part in [
            " ✓ 3 nodes joined        0.6 s\n",
            " ✓ 64 partitions led     0.1 s   (21-22 each, 3 replicas)\n",
            "   HTTP      http://127.0.0.1:8080 ",
            "   kill -9 42    (node-3: ",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert!(!text.contains("CK_URL"), "the default needs no export");
    }

    #[test]
    fn another_port_needs_an_export() {
        assert!(banner(&[node(1, 9000)]).contains("   export CK_URL=http://127.0.0.1:9000\n"));
    }

    #[test]
    fn the_only_node_is_not_to_be_killed() {
        assert!(!banner(&[node(1, 8080)]).contains("kill"));
    }
}
