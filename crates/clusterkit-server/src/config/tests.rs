use std::fs;

use super::*;

fn options(node_id: &str) -> Layer {
    Layer { node_id: Some(node_id.to_owned()), ..Layer::default() }
}

fn nothing(_: &str) -> Option<String> {
    None
}

fn error(options: Layer) -> String {
    resolve(options, None, nothing).expect_err("refused").to_string()
}

#[test]
fn defaults_are_for_this_machine() {
    let config = resolve(options("a"), None, nothing).expect("valid");
    assert_eq!(config.http_addr, "127.0.0.1:8080");
    assert_eq!(config.listen, "127.0.0.1:7000");
    assert_eq!(config.data_dir, PathBuf::from("./clusterkit-data"));
    assert_eq!(config.expect, None);
    assert_eq!(config.controller, ControllerConfig::default());
    assert_eq!(config.grace, Duration::from_secs(30));
    assert!(config.holds_data);
    assert_eq!(config.sources.to_string(), "defaults < options");
}

#[test]
fn options_beat_the_environment_and_that_beats_the_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("node.toml");
    fs::write(&file, "node_id = 'file'\nzone = 'file'\nweight = 7\ncluster_name = 'file'\n")
        .expect("written");
    let lookup = |name: &str| match name {
        "CK_NODE_ID" => Some("environment".to_owned()),
        "CK_ZONE" => Some("environment".to_owned()),
        _ => None,
    };
    let config = resolve(options("options"), Some(&file), lookup).expect("valid");
    assert_eq!(config.node_id, "options");
    assert_eq!(config.zone.as_deref(), Some("environment"));
    assert_eq!(config.weight, 7);
    assert_eq!(config.listen, "127.0.0.1:7000");
    let sources = format!("defaults < {} < environment (CK_NODE_ID, CK_ZONE) < options", file.display());
    assert_eq!(config.sources.to_string(), sources);
}

#[test]
fn the_environment_may_name_the_file_and_an_option_names_another() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str| {
        let path = dir.path().join(format!("{name}.yaml"));
        fs::write(&path, format!("node_id: {name}\n")).expect("written");
        path
    };
    let (from_environment, from_option) = (write("environment"), write("option"));
    let lookup = |name: &str| (name == "CK_CONFIG").then(|| from_environment.display().to_string());
    let id = |file| resolve(Layer::default(), file, lookup).expect("valid").node_id;
    assert_eq!(id(None), "environment");
    assert_eq!(id(Some(&*from_option)), "option");
}

#[test]
fn a_node_needs_an_id() {
    assert_eq!(
        error(Layer::default()),
        "a node needs an id: give --node-id, CK_NODE_ID, or node_id in a --config file"
    );
}

#[test]
fn addresses_need_a_port() {
    let check = |layer: Layer, option: &str| {
        assert_eq!(error(layer), format!("{option} must be host:port, as in 127.0.0.1:7000, not \"bad\""));
    };
    let bad = || Some("bad".to_owned());
    check(Layer { http_addr: bad(), ..options("a") }, "--http-addr");
    check(Layer { grpc_addr: bad(), ..options("a") }, "--grpc-addr");
    check(Layer { listen: bad(), ..options("a") }, "--listen");
    check(Layer { advertise: bad(), ..options("a") }, "--advertise");
    check(Layer { advertise_http: bad(), ..options("a") }, "--advertise-http");
    check(Layer { seeds: vec!["127.0.0.1:1".to_owned(), "bad".to_owned()], ..options("a") }, "--seeds");
}

#[test]
fn a_listener_beyond_this_machine_needs_consent() {
    let exposed = |http_addr: &str, listen: &str, insecure: Option<bool>| {
        let (http_addr, listen) = (Some(http_addr.to_owned()), Some(listen.to_owned()));
        let layer = Layer { http_addr, listen, insecure, ..options("a") };
        matches!(resolve(layer, None, nothing), Err(ConfigError::Exposed { .. }))
    };
    let here = "127.0.0.1:1";
    assert!(!exposed(here, here, None));
    assert!(exposed("0.0.0.0:1", here, None));
    assert!(exposed(":1", here, None));
    assert!(exposed(here, "10.0.0.1:1", None));
    assert!(exposed(here, "node-1:1", Some(false)));
    assert!(!exposed("0.0.0.0:1", "10.0.0.1:1", Some(true)));
    assert!(
        error(Layer { grpc_addr: Some(":9090".to_owned()), ..options("a") })
            .starts_with("--grpc-addr :9090 can be")
    );
}

#[test]
fn what_is_told_to_others_may_lie_anywhere() {
    let layer = Layer {
        advertise: Some("10.0.0.1:7000".to_owned()),
        advertise_http: Some("node-1.example:80".to_owned()),
        seeds: vec!["10.0.0.2:7000".to_owned()],
        ..options("a")
    };
    assert!(resolve(layer, None, nothing).is_ok());
}

#[test]
fn bootstrap_is_an_expectation_of_one() {
    let check = |expect: Option<u32>, bootstrap: Option<bool>, wanted: Result<Option<u32>, ()>| {
        let layer = Layer { expect, bootstrap, ..options("a") };
        let found = resolve(layer, None, nothing).map(|config| config.expect).map_err(drop);
        assert_eq!(found, wanted, "{expect:?} {bootstrap:?}");
    };
    check(None, None, Ok(None));
    check(None, Some(true), Ok(Some(1)));
    check(None, Some(false), Ok(None));
    check(Some(1), Some(true), Ok(Some(1)));
    check(Some(3), Some(false), Ok(Some(3)));
    check(Some(3), Some(true), Err(()));
}

#[test]
fn the_detector_moves_with_what_is_set() {
    let detector = |heartbeat: &str, dead_after: &str| {
        let span = |text: &str| Some(text.parse::<Span>().expect("valid"));
        controller(&Layer { heartbeat: span(heartbeat), dead_after: span(dead_after), ..Layer::default() })
            .map(|config| config.detector)
    };
    let default = member::Config::default();
    assert_eq!(detector("200ms", "1s").ok().as_ref(), Some(&default));
    let slow = detector("1s", "10s").expect("valid");
    assert_eq!((slow.suspect_after, slow.probe_timeout), (Duration::from_secs(3), default.probe_timeout));
    let fast = detector("50ms", "150ms").expect("valid");
    assert_eq!(
        (fast.suspect_after, fast.probe_timeout),
        (Duration::from_millis(100), Duration::from_millis(75))
    );
    assert!(detector("1s", "1s").is_err());
    assert!(detector("0s", "1s").is_err());
}

#[test]
fn the_documentation_lists_every_setting() {
    use clap::Args;
    let page = include_str!("../../../../docs/configuration.md");
    let command = Layer::augment_args(clap::Command::new("serve"));
    for option in command.get_arguments().filter_map(clap::Arg::get_long) {
        let row = format!("| `{}` | ", option.replace('-', "_"));
        assert!(page.contains(&row), "docs/configuration.md lacks {row:?}");
    }
}
