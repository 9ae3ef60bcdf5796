//! Settings from a file, YAML or TOML by the end of its name.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::ConfigError;
use super::layer::Layer;
use super::nearest::nearest;

/// The longest file that is read: far more than every setting needs.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// How much of a line is shown with what is wrong in it.
const SHOWN_CHARS_MAX: usize = 60;

/// What the file at `path` says.
pub(super) fn read(path: &Path) -> Result<Layer, ConfigError> {
    let parse = match path.extension().and_then(|extension| extension.to_str()) {
        Some("yaml" | "yml") => parse_yaml,
        Some("toml") => parse_toml,
        _ => return Err(ConfigError::FileKind { file: path.to_owned() }),
    };
    let text = text(path).map_err(|source| ConfigError::Unreadable { file: path.to_owned(), source })?;
    let layer = parse(&text).map_err(|problem| problem.of(path, &text))?;
    if layer.cluster.as_ref().is_some_and(|cluster| cluster.enabled == Some(false)) {
        return Err(ConfigError::ClusterDisabled { file: path.to_owned() });
    }
    Ok(layer.unfolded())
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let length = fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if length as u64 > FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(text)
}

/// What the parser says, and in which line.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    line: u64,
    message: String,
}

fn parse_yaml(text: &str) -> Result<Layer, Problem> {
    // A file of comments alone gives no setting; to the parser it is a null.
    let parsed = serde_saphyr::from_str::<Option<Layer>>(text);
    parsed.map(Option::unwrap_or_default).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        // After the message comes the place, which is shown before it, or advice for programmers.
        let message = error.without_snippet().to_string();
        let end =
            [" at line ", ", set DuplicateKeyPolicy"].iter().filter_map(|tail| message.find(tail)).min();
        Problem { line, message: one_line(&message[..end.unwrap_or(message.len())]) }
    })
}

fn parse_toml(text: &str) -> Result<Layer, Problem> {
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() as u64 + 1;
        Problem { line, message: one_line(error.message()) }
    })
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

impl Problem {
    fn of(self, path: &Path, text: &str) -> ConfigError {
        let (file, line) = (path.to_owned(), self.line);
        let index = usize::try_from(line.saturating_sub(1)).unwrap_or(usize::MAX);
        let shown: String =
            text.lines().nth(index).unwrap_or_default().trim().chars().take(SHOWN_CHARS_MAX).collect();
        match unknown_key(&self.message) {
            Some((key, nearest)) => ConfigError::UnknownKey { file, line, key, nearest },
            None => ConfigError::Malformed { file, line, shown, message: self.message },
        }
    }
}

/// The key of serde's "unknown field" message, and the nearest of those that it would have taken.
fn unknown_key(message: &str) -> Option<(String, Option<String>)> {
    let (key, rest) = message.strip_prefix("unknown field `")?.split_once('`')?;
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let known =
        rest.split(|c| !is_name(c)).filter(|word| !matches!(*word, "" | "expected" | "one" | "of" | "or"));
    Some((key.to_owned(), nearest(key, known).map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(extension: &str, text: &str) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(format!("node.{extension}"));
        fs::write(&path, text).expect("written");
        let error = read(&path).expect_err("refused").to_string();
        error.replace(&*dir.path().to_string_lossy(), "")
    }

    fn layer(extension: &str, text: &str) -> Layer {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(format!("node.{extension}"));
        fs::write(&path, text).expect("written");
        read(&path).expect("valid")
    }

    #[test]
    fn yaml_and_toml_say_the_same() {
        let yaml = layer(
            "yaml",
            "node_id: node-1\nseeds: [\"a:1\", \"b:2\"]\nexpect: 3\nheartbeat: 100ms\nkey_hash: xxh3-64\nstrategy: round-robin\nrole: learner\nno_data: true\nmetadata: {rack: r1}\n",
        );
        let toml = layer(
            "toml",
            "node_id = 'node-1'\nseeds = ['a:1', 'b:2']\nexpect = 3\nheartbeat = '100ms'\nkey_hash = 'xxh3-64'\nstrategy = 'round-robin'\nrole = 'learner'\nno_data = true\nmetadata = {rack = 'r1'}\n",
        );
        assert_eq!(yaml, toml);
        assert_eq!(yaml.expect, Some(3));
        assert_eq!(yaml.metadata, [("rack".to_owned(), "r1".to_owned())]);
    }

    #[test]
    fn an_empty_file_says_nothing() {
        assert_eq!(layer("yaml", ""), Layer::default());
        assert_eq!(layer("yaml", "# nothing\n"), Layer::default());
        assert_eq!(layer("toml", ""), Layer::default());
    }

    #[test]
    fn the_nested_form_means_the_same() {
        let nested = layer(
            "yaml",
            "cluster:\n  enabled: true\n  node_id: node2\n  raft_addr: \":7001\"\n  bootstrap: false\n  seed_nodes:\n    - \"localhost:8080\"\n  replication: 3\nserver:\n  http_addr: \":8081\"\n  grpc_addr: \":9091\"\nstorage:\n  data_dir: ./data-node2\n",
        );
        let flat = layer(
            "yaml",
            "node_id: node2\nlisten: \":7001\"\nseeds: [\"localhost:8080\"]\nreplication_factor: 3\nhttp_addr: \":8081\"\ngrpc_addr: \":9091\"\ndata_dir: ./data-node2\n",
        );
        assert_eq!(nested, flat);
        assert_eq!(layer("yaml", "cluster:\n  bootstrap: true\n").bootstrap, Some(true));
        assert_eq!(
            layer("yaml", "zone: a\nnode_id: flat\ncluster: {node_id: nested}\n").node_id.as_deref(),
            Some("flat")
        );
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest() {
        let check = |extension: &str, text: &str, expect: &str| assert_eq!(error(extension, text), expect);
        check(
            "yaml",
            "zone: a\nnode-id: b\n",
            "/node.yaml:2: unknown key \"node-id\"; did you mean \"node_id\"?",
        );
        check(
            "yaml",
            "zone: a\nseed: [\"a:1\"]\n",
            "/node.yaml:2: unknown key \"seed\"; did you mean \"seeds\"?",
        );
        check(
            "yaml",
            "cluster:\n  seed_node: []\n",
            "/node.yaml:2: unknown key \"seed_node\"; did you mean \"seed_nodes\"?",
        );
        check(
            "yaml",
            "server:\n  httpaddr: \"a:1\"\n",
            "/node.yaml:2: unknown key \"httpaddr\"; did you mean \"http_addr\"?",
        );
        check(
            "toml",
            "zone = 'a'\nseed = ['a:1']\n",
            "/node.toml:2: unknown key \"seed\"; did you mean \"seeds\"?",
        );
        check(
            "toml",
            "[storage]\ndir = 'a'\n",
            "/node.toml:2: unknown key \"dir\"; docs/configuration.md lists all",
        );
        check("yaml", "zebra: 1\n", "/node.yaml:1: unknown key \"zebra\"; docs/configuration.md lists all");
    }

    #[test]
    fn what_cannot_be_read_is_said_in_one_line() {
        let check = |extension: &str, text: &str, place: &str| {
            let error = error(extension, text);
            assert!(error.starts_with(place), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        };
        check("yaml", "node_id: a\nexpect: three\n", "/node.yaml:2: ");
        check("yaml", "node_id: [a\n", "/node.yaml:");
        check("yaml", "zone: a\nzone: b\n", "/node.yaml:2: ");
        check("yaml", "heartbeat: 200\n", "/node.yaml:1: ");
        check("yaml", "key_hash: sha1\n", "/node.yaml:1: ");
        check("toml", "zone = 'a'\nexpect = 'three'\n", "/node.toml:2: ");
        check("toml", "zone = \n", "/node.toml:1: ");
        check("toml", "heartbeat = 200\n", "/node.toml:1: ");
        check("ini", "zone = a", "/node.ini: ");
        check("yaml", "cluster:\n  enabled: false\n", "/node.yaml: ");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("no-such-file.yaml")).expect_err("missing").to_string();
        assert!(error.starts_with("cannot read no-such-file.yaml: "), "{error}");
    }
}
