//! Whole nodes on a network, disks and time that the test commands.

mod harness;

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use clusterkit::core::control::Rejected;
use clusterkit::core::forming::{Problem, Unreachable};
use clusterkit::testing::{Cluster, SimDisk};
use clusterkit::{
    ChangeError, Event, FormingProblem, HealthReason, JoinRefusal, NodeStatus, Route, StartError, Topology,
};

use crate::harness::{agree, healthy, healthy_with, id, leaders, led_without, replicas, status};

#[tokio::test(start_paused = true)]
async fn one_node_alone_is_a_cluster() {
    let cluster = Cluster::start(1).await;
    let node = cluster.node(1);
    assert_eq!(node.events_recent(usize::MAX)[0].event, Event::ClusterFormed);
    assert_eq!(node.topology().partitions.len(), 64);
    let partition = node.partition(b"key").unwrap();
    assert!(node.is_leader(partition));
    let route = node.route_settled(partition, Duration::from_secs(30)).await;
    assert!(matches!(route, Route::Local(_)), "{route:?}");
    assert!(matches!(node.route(b"key"), Route::Local(_)));
    assert_eq!(node.replicas(partition).len(), 1);
    assert_eq!(node.nodes_for_key(b"key", 3).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nodes_form_one_cluster_in_any_order() {
    for (run, order) in [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 1, 5, 2, 4]].into_iter().enumerate() {
        let mut cluster = Cluster::new();
        for number in order {
            cluster.launch([number], |builder| builder.expect(5)).await;
            // Late ones come while the early ones wait.
            tokio::time::advance(Duration::from_millis(700 * run as u64)).await;
        }
        let mut ids = BTreeSet::new();
        for number in order {
            cluster.ready(number).await.unwrap();
            let topology = cluster.until(number, "five healthy nodes", healthy_with(5)).await;
            ids.insert(topology.cluster.as_ref().unwrap().id);
        }
        assert_eq!(ids.len(), 1);
        agree(&cluster).await;
    }
}

#[tokio::test(start_paused = true)]
async fn founders_that_cannot_vote_join_as_learners() {
    let cluster = Cluster::start(7).await;
    for number in 1..=7 {
        cluster.until(number, "seven healthy nodes", healthy_with(7)).await;
    }
    assert_eq!(cluster.node(7).status().control_plane.voters.len(), 5);
    agree(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_cluster_moves_to_other_addresses() {
    let mut cluster = Cluster::start(3).await;
    let before = cluster.until(1, "healthy", healthy).await;
    for number in 1..=3 {
        cluster.stop(number).await;
    }
    let mut moved = Vec::new();
    for number in 1..=3 {
        let host = format!("new-{number}");
        let net = Arc::new(cluster.net().host(&host));
        let (clock, disk) = (cluster.clock(), Arc::new(cluster.disk(number).clone()));
        let builder = cluster.builder(number).environment(clock, net, disk);
        let builder =
            builder.listen(&format!("{host}:7000")).seeds(["new-1:7000", "new-2:7000", "new-3:7000"]);
        moved.push(builder.launch().await.unwrap());
    }
    for node in &moved {
        node.ready().await.unwrap();
        let moved =
            |topology: &Topology| topology.nodes.values().all(|node| node.node_addr.starts_with("new-"));
        let mut watch = node.watch();
        let settled = watch.wait_for(|topology| healthy(topology) && moved(topology));
        let settled = tokio::time::timeout(Duration::from_secs(60), settled).await;
        let topology = settled.unwrap_or_else(|_| panic!("{:#?}", node.topology().nodes)).unwrap();
        assert_eq!(topology.cluster, before.cluster);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_forms_a_cluster_before_all_expected_nodes_are_there() {
    let mut cluster = Cluster::new();
    cluster.launch([1, 2], |builder| builder.expect(3)).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!cluster.node(1).is_ready() && !cluster.node(2).is_ready());
    assert_eq!(cluster.node(1).health().reasons, [HealthReason::NotFormed]);
    cluster.launch([3], |builder| builder.expect(3)).await;
    for number in 1..=3 {
        cluster.ready(number).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn killing_any_one_of_three_leaves_every_partition_led_by_the_living() {
    let mut cluster = Cluster::start(3).await;
    for victim in [3, 2, 1, 2, 3] {
        let witness = if victim == 1 { 2 } else { 1 };
        cluster.kill(victim).await;
        let topology = cluster.until(witness, "the living lead", led_without(victim)).await;
        assert!(status(victim, NodeStatus::Dead)(&topology));
        for record in &topology.partitions {
            assert_eq!(record.in_sync.len(), 2);
        }
        cluster.launch([victim], |builder| builder.expect(3)).await;
        cluster.ready(victim).await.unwrap();
        cluster.until(victim, "healed", healthy).await;
        cluster.until(witness, "healed", healthy).await;
        agree(&cluster).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_node_is_found_dead_well_before_its_silence_says_so() {
    let mut cluster = Cluster::start(3).await;
    let controller = cluster.node(1).status().control_plane.controller.unwrap();
    let victim = (1..=3).find(|number| id(*number) != controller).unwrap();
    let witness = (1..=3).find(|number| *number != victim).unwrap();
    let start = tokio::time::Instant::now();
    cluster.kill(victim).await;
    cluster.until(witness, "the living lead", led_without(victim)).await;
    assert!(start.elapsed() < Duration::from_millis(200), "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_killed_controller_is_replaced_without_waiting_for_its_silence() {
    for _ in 0..5 {
        let mut cluster = Cluster::start(5).await;
        cluster.until(1, "healthy", healthy).await;
        let controller = cluster.node(1).status().control_plane.controller.unwrap();
        let victim = (1..=5).find(|number| id(*number) == controller).unwrap();
        let witness = (1..=5).find(|number| *number != victim).unwrap();
        let start = tokio::time::Instant::now();
        cluster.kill(victim).await;
        cluster.until(witness, "the living lead", led_without(victim)).await;
        assert!(start.elapsed() < Duration::from_millis(300), "it took {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_node_keeps_its_identity() {
    let mut cluster = Cluster::start(3).await;
    let before = (cluster.node(2).store_id(), cluster.node(2).incarnation());
    let cluster_id = cluster.node(2).topology().cluster.as_ref().unwrap().id;
    cluster.stop(2).await;
    cluster.launch([2], |builder| builder).await;
    cluster.ready(2).await.unwrap();
    assert_eq!(cluster.node(2).store_id(), before.0);
    assert!(cluster.node(2).incarnation() > before.1);
    assert_eq!(cluster.node(2).topology().cluster.as_ref().unwrap().id, cluster_id);
}

#[tokio::test(start_paused = true)]
async fn a_wiped_node_comes_back_as_new_replicas() {
    let mut cluster = Cluster::start(3).await;
    let before = cluster.until(1, "healthy", healthy).await;
    let store = cluster.node(3).store_id();
    cluster.kill(3).await;
    cluster.wipe(3);
    cluster.launch([3], |builder| builder.expect(3)).await;
    cluster.ready(3).await.unwrap();
    assert_ne!(cluster.node(3).store_id(), store);
    let after = cluster.until(1, "healed", healthy_with(3)).await;
    assert_eq!(after.cluster, before.cluster, "the wiped node formed no cluster of its own");
    for (old, new) in before.partitions.iter().zip(&after.partitions) {
        assert!(new.replica(&id(3)).unwrap().uid > old.replica(&id(3)).unwrap().uid);
    }
    let voters = |cluster: &Cluster| cluster.node(1).status().control_plane.voters;
    let mut watch = cluster.node(1).watch();
    while voters(&cluster).len() != 3 {
        tokio::select! {
            _ = watch.changed() => {}
            () = tokio::time::sleep(Duration::from_millis(100)) => {} // tidy: the clock is paused
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_whole_cluster_survives_a_power_cut() {
    for seed in 0..5 {
        let mut cluster = Cluster::start(3).await;
        let before = cluster.until(1, "healthy", healthy).await;
        for number in 1..=3 {
            cluster.crash(number, seed * 10 + u64::from(number)).await;
        }
        cluster.launch([3, 1, 2], |builder| builder).await;
        for number in 1..=3 {
            cluster.ready(number).await.unwrap();
            let after = cluster.until(number, "healed", healthy_with(3)).await;
            assert_eq!(after.cluster, before.cluster);
            for (old, new) in before.partitions.iter().zip(&after.partitions) {
                assert!(new.epoch >= old.epoch && new.version >= old.version);
            }
        }
        agree(&cluster).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_node_with_the_same_id_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let before = cluster.until(1, "healthy", healthy).await;
    let impostor = cluster
        .builder(3)
        .environment(
            Arc::new(clusterkit::net::TokioClock::new(clusterkit::net::WallTime(0))),
            Arc::new(cluster.net().host("elsewhere")),
            Arc::new(SimDisk::new()),
        )
        .listen("elsewhere:7000");
    let error = impostor.start().await.unwrap_err();
    let StartError::Refused(JoinRefusal::Rejected(Rejected::NodeIdInUse { node, node_addr })) = &error else {
        panic!("{error}");
    };
    assert_eq!((node, node_addr.as_str()), (&id(3), "node-3:7000"));
    assert_eq!(error.to_string(), "cannot join the cluster: node id node-3 is in use by node-3:7000 (alive)");
    let after = cluster.until(1, "still healthy", healthy).await;
    assert_eq!(after.node(&id(3)).unwrap().store, before.node(&id(3)).unwrap().store);
}

#[tokio::test(start_paused = true)]
async fn of_two_newcomers_with_one_id_one_is_refused() {
    for latency in [0, 1, 5] {
        let mut cluster = Cluster::start(3).await;
        for number in 1..=3 {
            for newcomer in ["node-4", "elsewhere"] {
                cluster.net().delay(id(number).as_str(), newcomer, Duration::from_millis(latency));
            }
        }
        let clock = cluster.clock();
        let net = Arc::new(cluster.net().host("elsewhere"));
        let double = cluster.builder(4).environment(clock, net, Arc::new(SimDisk::new()));
        let (one, other) = (cluster.builder(4), double.listen("elsewhere:7000"));
        let (one, other) = (one.launch().await.unwrap(), other.launch().await.unwrap());
        let both = async { tokio::join!(one.ready(), other.ready()) };
        let (one, other) = tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_node_takes_its_share() {
    let mut cluster = Cluster::start(3).await;
    cluster.launch([4], |builder| builder).await;
    cluster.ready(4).await.unwrap();
    let balanced = |topology: &Topology| {
        healthy(topology)
            && (1..=4).all(|number| replicas(topology, number) == 48 && leaders(topology, number) == 16)
    };
    let mut events = cluster.node(1).events();
    cluster.until(1, "four nodes share evenly", balanced).await;
    let mut started = 0;
    while let Ok(Some(Ok(event))) = tokio::time::timeout(Duration::from_millis(1), events.next()).await {
        started += u32::from(matches!(event.event, Event::MoveStarted { .. }));
    }
    assert_eq!(started, 48, "no more moves than the new node's share");
}

#[tokio::test(start_paused = true)]
async fn more_copies_than_nodes_works_and_heals_as_nodes_come() {
    let mut cluster = Cluster::start(1).await;
    assert!(!cluster.node(1).health().is_healthy());
    for (number, copies) in [(2, 2), (3, 3)] {
        cluster.launch([number], |builder| builder).await;
        cluster.ready(number).await.unwrap();
        let grown =
            |topology: &Topology| topology.partitions.iter().all(|record| record.in_sync.len() == copies);
        cluster.until(1, "the copies grew", grown).await;
    }
    cluster.until(2, "healthy", healthy_with(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_minority_decides_nothing_and_heals_by_itself() {
    let cluster = Cluster::start(5).await;
    let before = cluster.until(1, "healthy", healthy_with(5)).await;
    cluster.net().partition(&[&["node-1", "node-2"], &["node-3", "node-4", "node-5"]]);
    let majority = |topology: &Topology| led_without(1)(topology) && led_without(2)(topology);
    cluster.until(3, "the majority leads everything", majority).await;
    tokio::time::sleep(Duration::from_secs(60)).await; // tidy: the clock is paused
    for number in [1, 2] {
        let node = cluster.node(number);
        assert_eq!(node.topology().version, before.version, "the minority changed something");
        assert!(node.health().reasons.contains(&HealthReason::NoController));
        let refused = node.drain(&id(5)).await.unwrap_err();
        assert!(matches!(refused, ChangeError::NoController | ChangeError::OutcomeUnknown), "{refused}");
    }
    cluster.net().heal();
    for number in 1..=5 {
        let settled =
            |topology: &Topology| healthy_with(5)(topology) && status(5, NodeStatus::Alive)(topology);
        cluster.until(number, "healed", settled).await;
    }
    agree(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_cut_off_is_replaced() {
    let cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    let controller = cluster.node(1).status().control_plane.controller.unwrap();
    let number = (1..=3).find(|number| id(*number) == controller).unwrap();
    let witness = (1..=3).find(|other| *other != number).unwrap();
    let start = tokio::time::Instant::now();
    let others: Vec<_> =
        (1..=3).filter(|other| *other != number).map(|other| format!("node-{other}")).collect();
    let others: Vec<_> = others.iter().map(String::as_str).collect();
    cluster.net().partition(&[&[controller.as_str()], &others]);
    cluster.until(witness, "the others lead", led_without(number)).await;
    assert!(start.elapsed() < Duration::from_millis(2_500), "it took {:?}", start.elapsed());
    cluster.net().heal();
    cluster.until(number, "healed", healthy).await;
    agree(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_be_heard_is_replaced_though_it_hears() {
    let cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    let controller = cluster.node(1).status().control_plane.controller.unwrap();
    let mute = (1..=3).find(|number| id(*number) != controller).unwrap();
    let witness = (1..=3).find(|number| id(*number) == controller).unwrap();
    for other in (1..=3).filter(|other| *other != mute) {
        cluster.net().block(id(mute).as_str(), id(other).as_str());
    }
    cluster.until(witness, "the others lead", led_without(mute)).await;
    cluster.net().heal();
    cluster.until(witness, "healed", healthy).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_leaves_in_order() {
    let mut cluster = Cluster::start(4).await;
    cluster.until(1, "healthy", healthy_with(4)).await;
    let controller = cluster.node(1).status().control_plane.controller.unwrap();
    // The controller itself is the hardest one to let go.
    let number = (1..=4).find(|number| id(*number) == controller).unwrap();
    let witness = (1..=4).find(|other| *other != number).unwrap();
    let leaving = cluster.node(number).clone();
    leaving.leave().await.unwrap();
    let left = |topology: &Topology| status(number, NodeStatus::Left)(topology) && healthy(topology);
    let topology = cluster.until(witness, "it left and all is well", left).await;
    assert_eq!(replicas(&topology, number), 0);
    let voters = cluster.node(witness).status().control_plane.voters;
    assert!(!voters.contains(&controller), "{voters:?}");
    cluster.kill(number).await;
    assert_eq!(
        cluster.node(witness).remove(&controller, false).await.map_err(|error| error.to_string()),
        Ok(clusterkit::core::control::Applied::Changed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_removed_stops_and_says_why() {
    let cluster = Cluster::start(4).await;
    cluster.until(1, "healthy", healthy_with(4)).await;
    let controller = cluster.node(1).status().control_plane.controller.unwrap();
    let number = (1..=4).find(|number| id(*number) != controller).unwrap();
    let witness = (1..=4).find(|other| *other != number).unwrap();
    let removed = cluster.node(number).clone();
    let refused = cluster.node(witness).remove(&id(number), false).await.unwrap_err();
    assert!(matches!(refused, ChangeError::Rejected(Rejected::HoldsReplicas { .. })), "{refused}");
    cluster.node(witness).remove(&id(number), true).await.unwrap();
    let error = removed.stopped().await.unwrap_err();
    assert!(matches!(error, StartError::Removed), "{error}");
    cluster.until(witness, "the others have everything", healthy_with(3)).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_node_goes_on_serving_when_asked_to_leave() {
    let cluster = Cluster::start(1).await;
    let error = cluster.node(1).leave().await.unwrap_err();
    assert!(matches!(error, ChangeError::UnderWay { .. }), "{error}");
    let partition = cluster.node(1).partition(b"key").unwrap();
    let route = cluster.node(1).route_settled(partition, Duration::from_secs(30)).await;
    assert!(matches!(route, Route::Local(_)), "{route:?}");
    cluster.node(1).cancel_drain(&id(1)).await.unwrap();
    cluster.until(1, "it stays", status(1, NodeStatus::Alive)).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_stops_hands_over_without_an_election_timeout() {
    let mut cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    let controller = cluster.node(1).status().control_plane.controller.unwrap();
    let number = (1..=3).find(|number| id(*number) == controller).unwrap();
    let witness = (1..=3).find(|other| *other != number).unwrap();
    let start = tokio::time::Instant::now();
    cluster.stop(number).await;
    cluster.until(witness, "the others lead", led_without(number)).await;
    assert!(start.elapsed() < Duration::from_millis(300), "it took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn voters_are_at_most_five_and_are_replaced() {
    let mut cluster = Cluster::start(5).await;
    cluster.launch([6, 7], |builder| builder).await;
    for number in [6, 7] {
        cluster.ready(number).await.unwrap();
    }
    cluster.until(1, "seven nodes", healthy_with(7)).await;
    assert_eq!(cluster.node(1).status().control_plane.voters.len(), 5);
    assert_eq!(cluster.node(1).status().control_plane.learners.len(), 2);
    cluster.kill(5).await;
    let mut waited = Duration::ZERO;
    while cluster.node(1).status().control_plane.voters.contains(&id(5)) {
        tokio::time::sleep(Duration::from_secs(1)).await; // tidy: the clock is paused
        waited += Duration::from_secs(1);
        assert!(waited < Duration::from_secs(90), "{:?}", cluster.node(1).status().control_plane);
    }
    assert_eq!(cluster.node(1).status().control_plane.voters.len(), 5);
    cluster
        .until(1, "rebuilt elsewhere", |topology| replicas(topology, 5) == 0 && led_without(5)(topology))
        .await;
}

#[tokio::test(start_paused = true)]
async fn two_clusters_never_merge() {
    let mut one = Cluster::start(3).await;
    let ours = one.node(1).topology().cluster.as_ref().unwrap().id;
    // Another cluster on the same network, of the same name.
    let build = |cluster: &mut Cluster, number: u32| {
        let seed = "node-4:7000";
        cluster.builder(number).seeds([seed]).expect(2)
    };
    let (fourth, fifth) = (build(&mut one, 4), build(&mut one, 5));
    let (fourth, fifth) = (fourth.launch().await.unwrap(), fifth.launch().await.unwrap());
    fourth.ready().await.unwrap();
    fifth.ready().await.unwrap();
    let theirs = fourth.topology().cluster.as_ref().unwrap().id;
    assert_ne!(ours, theirs);
    fifth.stop().await;
    drop(fifth);
    one.net().kill("node-5");
    one.disk(5).kill();
    // It comes back with the seeds of the first cluster and must not be let in.
    let error = one.builder(5).seeds(["node-1:7000"]).start().await;
    // Its own cluster still lives, so it may simply go home.
    if let Ok(node) = error {
        assert_eq!(node.topology().cluster.as_ref().unwrap().id, theirs);
    }
    assert_eq!(one.node(1).topology().nodes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_data_directory_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start(3).await;
    let stranger = cluster.builder(9).seeds(["node-9:7000"]).expect(1).start().await.unwrap();
    stranger.stop().await;
    drop(stranger);
    cluster.net().kill("node-9");
    // Its cluster of one is itself, so it needs nobody: it goes on alone, and is let in nowhere.
    cluster.disk(9).kill();
    let again = cluster.builder(9).seeds(["node-1:7000"]).start().await.unwrap();
    assert_ne!(again.topology().cluster, cluster.node(1).topology().cluster);
    assert_eq!(cluster.node(1).topology().nodes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_member_whose_seeds_are_of_another_cluster_is_told() {
    let mut cluster = Cluster::start(3).await;
    let others = [cluster.builder(8), cluster.builder(9)];
    let mut strangers = Vec::new();
    for builder in others {
        strangers.push(builder.seeds(["node-8:7000", "node-9:7000"]).expect(2).launch().await.unwrap());
    }
    for stranger in &strangers {
        stranger.ready().await.unwrap();
    }
    for (number, stranger) in [8, 9].into_iter().zip(strangers) {
        stranger.stop().await;
        drop(stranger);
        cluster.net().kill(&format!("node-{number}"));
        cluster.disk(number).kill();
    }
    let error = cluster.builder(9).seeds(["node-1:7000"]).start().await.unwrap_err();
    assert!(matches!(error, StartError::OtherCluster { .. }), "{error}");
    assert!(error.to_string().contains("give the right seeds or another data directory"));
}

#[tokio::test(start_paused = true)]
async fn settings_that_contradict_the_cluster_are_refused() {
    let mut cluster = Cluster::start(1).await;
    let error = cluster.builder(2).partitions(32).start().await.unwrap_err();
    let expect = JoinRefusal::OtherPartitionCount { found: 64, wanted: 32 };
    assert!(matches!(&error, StartError::Refused(refusal) if *refusal == expect), "{error}");
    cluster.net().kill("node-2");
    cluster.wipe(2);
    let error = cluster
        .builder(2)
        .cluster_name("other")
        .join_timeout(Duration::from_secs(5))
        .start()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("other"), "{error}");
    assert_eq!(cluster.node(1).topology().nodes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_meant_is_refused_before_anything_is_touched() {
    let mut cluster = Cluster::new();
    let mut config = clusterkit::ControllerConfig::default();
    config.detector.dead_after = Duration::from_millis(10);
    let long = "x".repeat(300);
    let builders = [
        cluster.builder(1).metadata("k", &long),
        cluster.builder(1).zone(&long),
        cluster.builder(1).software("0.1\n.0"),
        cluster.builder(1).weight(0),
        cluster.builder(1).controller(config),
    ];
    for builder in builders {
        let error = builder.start().await.unwrap_err();
        assert!(matches!(error, StartError::Settings(_)), "{error}");
    }
    assert_eq!(cluster.disk(1).operation_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lost_its_log_alone_does_not_vote_again() {
    use clusterkit_storage::disk::Disk;
    let mut cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    cluster.kill(3).await;
    let dir = std::path::Path::new("/data/raft");
    for sub in [dir.join("log"), dir.to_owned()] {
        for name in cluster.disk(3).list(&sub).unwrap() {
            drop(cluster.disk(3).remove(&sub.join(name)));
        }
    }
    let error = cluster.builder(3).start().await.unwrap_err();
    assert!(error.to_string().contains("log") && error.to_string().contains("is gone"), "{error}");
    cluster.until(1, "the others lead", led_without(3)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_voters_that_was_cut_off_is_ended() {
    let mut cluster = Cluster::start(2).await;
    cluster.until(1, "two", |topology| topology.nodes.len() == 2).await;
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        cluster.net().delay(id(from).as_str(), id(to).as_str(), Duration::from_millis(5));
    }
    let controller = cluster.node(1).control_plane().controller.unwrap();
    let leader = (1..=2).find(|number| id(*number) == controller).unwrap();
    let other = 3 - leader;
    cluster.launch([3], |builder| builder).await;
    while cluster.node(leader).control_plane().voters.len() < 3 {
        tokio::time::sleep(Duration::from_micros(200)).await; // tidy: the clock is paused
    }
    // The two of them are on their way from one set of voters to the next.
    cluster.net().partition(&[&[id(leader).as_str(), "node-3"], &[id(other).as_str()]]);
    tokio::time::sleep(Duration::from_secs(7)).await; // tidy: the clock is paused
    cluster.net().heal();
    cluster.ready(3).await.unwrap();
    cluster.until(leader, "healthy", healthy_with(3)).await;
    tokio::time::sleep(Duration::from_secs(10)).await; // tidy: the clock is paused
    cluster.kill(other).await;
    cluster.until(leader, "two of three are a majority", led_without(other)).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_breaks_at_any_time_before_the_node_is_ready_stops_it() {
    for operations in (0..60).step_by(3) {
        let mut cluster = Cluster::start(1).await;
        let builder = cluster.builder(2);
        cluster.disk(2).stop_after(operations);
        let Ok(node) = builder.launch().await else { continue };
        let ended = tokio::time::timeout(Duration::from_secs(300), node.ready()).await;
        assert!(ended.is_ok(), "it hangs after {operations} operations");
    }
}

#[tokio::test(start_paused = true)]
async fn unreachable_seeds_are_named() {
    let mut cluster = Cluster::new();
    let builder = cluster.builder(2).seeds(["nowhere:7000"]).join_timeout(Duration::from_secs(5));
    let error = builder.start().await.unwrap_err();
    let StartError::NoCluster { seconds: 5, problems } = &error else { panic!("{error}") };
    let addr = "nowhere:7000".to_owned();
    let expect = [
        FormingProblem::Unreachable { addr: addr.clone(), reason: Unreachable::Refused },
        FormingProblem::Candidates(Problem::NoAnswer { addr }),
    ];
    assert_eq!(*problems, expect);
    let text =
        "found no cluster within 5 s: nowhere:7000: nothing listens there; nobody answers at nowhere:7000";
    assert_eq!(error.to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn a_broken_disk_stops_the_node_and_not_the_cluster() {
    let cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    let node = cluster.node(3).clone();
    cluster.disk(3).stop_after(0);
    cluster.node(1).set_replication_factor(2).await.unwrap();
    let error = node.stopped().await.unwrap_err();
    let StartError::ControlPlane { source } = &error else { panic!("{error}") };
    assert!(source.source().is_some());
    let text = error.to_string();
    assert!(text.starts_with("the control plane of this node cannot go on: the outcome of the append is unknown: cannot write /data/raft/log/"), "{text}");
    assert!(text.ends_with(".log: simulated power cut"), "{text}");
    cluster.until(1, "the others lead", led_without(3)).await;
}

#[tokio::test(start_paused = true)]
async fn every_node_sees_the_same_events() {
    let mut cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    agree(&cluster).await;
    let mut streams = [cluster.node(1).events(), cluster.node(2).events()];
    cluster.kill(3).await;
    cluster.until(1, "the living lead", led_without(3)).await;
    agree(&cluster).await;
    let mut seen = Vec::new();
    for stream in &mut streams {
        let mut events = Vec::new();
        while let Ok(next) = tokio::time::timeout(Duration::from_millis(1), stream.next()).await {
            let event = next.unwrap().unwrap();
            events.push((event.id, event.event));
        }
        seen.push(events);
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].iter().any(|(_, event)| *event == Event::NodeFailed { node: id(3) }));
    let elected = seen[0].iter().filter(|(_, event)| event.kind() == "leader_elected").count();
    assert!((21..=22).contains(&elected), "each partition that it led elects once, not {elected}");
    let resumed = cluster.node(2).events_after(seen[0][0].0).next().await.unwrap().unwrap();
    assert_eq!(resumed.id, seen[0][1].0);
}
