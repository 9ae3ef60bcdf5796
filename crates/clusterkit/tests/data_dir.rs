//! What a data directory must survive, and what it must refuse: simulated disks that lose power at
//! every write, and files that somebody took away or put there.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clusterkit::testing::{Cluster, SimDisk};
use clusterkit::{Builder, ClusterKit, DataDirError, InvalidSettings, StartError, Topology};
use clusterkit_storage::disk::{Disk, OpenMode};

/// Longer than anything here takes, so that a node that hangs is seen.
const DEADLINE: Duration = Duration::from_secs(600);

fn healthy(topology: &Topology) -> bool {
    topology.health(true).is_healthy()
}

/// Every file of a directory of the data directory with its bytes, without those below it.
fn files_in(disk: &SimDisk, dir: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    if !disk.exists(Path::new(dir)).expect("the disk answers") {
        return files;
    }
    for name in disk.list(Path::new(dir)).expect("listed") {
        let path = Path::new(dir).join(name);
        let Ok(file) = disk.open(&path, OpenMode::Read) else { continue };
        let mut bytes = vec![0; usize::try_from(file.length().expect("asked")).expect("it is small")];
        file.read_at(0, &mut bytes).expect("read");
        files.insert(path, bytes);
    }
    files
}

fn files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    ["/data", "/data/raft", "/data/raft/log"].iter().flat_map(|dir| files_in(disk, dir)).collect()
}

fn remove(disk: &SimDisk, path: &str) {
    disk.remove(Path::new(path)).expect("removed");
}

fn write(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    disk.create_dir_all(path.parent().expect("a file lies somewhere")).expect("made");
    let file = disk.open(path, OpenMode::Create).expect("opened");
    file.set_length(0).expect("cut");
    file.write_at(0, bytes).expect("written");
    file.sync_all().expect("synced");
}

/// A cluster of three of which the third has ended, with whatever `change` made of its disk.
async fn stopped_third(change: impl FnOnce(&SimDisk)) -> Cluster {
    let mut cluster = Cluster::start(3).await;
    cluster.until(1, "healthy", healthy).await;
    cluster.stop(3).await;
    change(cluster.disk(3));
    cluster
}

/// The third does not start, says why, and leaves every file as it was.
async fn check_refused(change: impl FnOnce(&SimDisk), text: &str) {
    let mut cluster = stopped_third(change).await;
    let before = files(cluster.disk(3));
    let started = cluster.builder(3).start();
    let error = tokio::time::timeout(DEADLINE, started).await.expect("it hangs").expect_err("it starts");
    assert!(matches!(error, StartError::DataDir(_)), "{error:?}");
    assert_eq!(error.to_string(), text);
    assert_eq!(files(cluster.disk(3)), before);
}

const ANEW: &str = "start with an empty --data-dir: the node then comes back as a new replica";

#[tokio::test(start_paused = true)]
async fn a_lost_vote_is_refused() {
    let text = format!(
        "/data/raft/vote is gone, and the control-plane log in /data/raft cannot be used without it; {ANEW}"
    );
    check_refused(|disk| remove(disk, "/data/raft/vote"), &text).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_log_is_refused() {
    let lose_all =
        |disk: &SimDisk| files_in(disk, "/data/raft").keys().for_each(|path| disk.remove(path).unwrap());
    let lose_log =
        |disk: &SimDisk| files_in(disk, "/data/raft/log").keys().for_each(|path| disk.remove(path).unwrap());
    let text = format!("the control-plane log in /data/raft is gone; {ANEW}");
    check_refused(lose_log, &text).await;
    let lose_both = |disk: &SimDisk| {
        lose_all(disk);
        lose_log(disk);
    };
    check_refused(lose_both, &text).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_identity_is_refused_before_a_new_one_is_written() {
    let text = format!(
        "/data/identity is gone, and the control-plane log in /data/raft cannot be used without it; {ANEW}"
    );
    check_refused(|disk| remove(disk, "/data/identity"), &text).await;
}

#[tokio::test(start_paused = true)]
async fn an_identity_from_before_the_node_joined_is_refused() {
    let lone = |cluster: &mut Cluster| cluster.builder(9).expect(2).seeds(["nobody:7000"]);
    let mut nowhere = Cluster::new();
    let node = lone(&mut nowhere).launch().await.unwrap();
    node.stop().await;
    let identity = files(nowhere.disk(9)).remove(Path::new("/data/identity")).unwrap();

    let mut cluster = Cluster::start(1).await;
    cluster.launch([9], |builder| builder).await;
    cluster.ready(9).await.unwrap();
    cluster.stop(9).await;
    write(cluster.disk(9), Path::new("/data/identity"), &identity);
    let error = cluster.builder(9).start().await.unwrap_err();
    let text = format!(
        "/data/identity is older than the control-plane log in /data/raft, which cannot be used with it; {ANEW}"
    );
    assert_eq!(error.to_string(), text);
}

#[tokio::test(start_paused = true)]
async fn the_log_of_another_data_directory_is_refused() {
    let donor = Cluster::start(3).await;
    let log = files(donor.disk(3));
    let mut cluster = stopped_third(|disk| {
        files(disk)
            .keys()
            .filter(|path| path.starts_with("/data/raft"))
            .for_each(|path| disk.remove(path).unwrap());
        log.iter()
            .filter(|(path, _)| path.starts_with("/data/raft"))
            .for_each(|(path, bytes)| write(disk, path, bytes));
    })
    .await;
    let before = files(cluster.disk(3));
    let error = cluster.builder(3).start().await.unwrap_err();
    let StartError::DataDir(source) = &error else { panic!("{error}") };
    let DataDirError::OtherStore { found, .. } = source.as_ref() else { panic!("{error}") };
    assert_eq!(*found, donor.node(3).store_id());
    assert_eq!(files(cluster.disk(3)), before);
}

/// What ends a process in the middle of a write.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// The power goes, and the seed chooses what survives of what was not synced.
    Crash(u64),
    /// The power goes, and nothing survives that was not synced.
    CrashClean,
    /// The process ends, and the machine goes on until the next process has begun.
    Kill,
}

impl Ending {
    const ALL: [Self; 4] = [Self::Crash(1), Self::Crash(2), Self::CrashClean, Self::Kill];

    fn happen(self, disk: &SimDisk) {
        match self {
            Self::Crash(seed) => disk.crash(seed),
            Self::CrashClean => disk.crash_clean(),
            Self::Kill => disk.kill(),
        }
    }
}

/// The first minutes of a node: it takes part, and the control plane has something to write. Ends
/// early when its disk does.
async fn first_minutes(node: &ClusterKit) {
    if node.ready().await.is_err() {
        return;
    }
    for copies in [2, 3, 2, 3] {
        tokio::select! {
            _ = node.set_replication_factor(copies) => {}
            _ = node.stopped() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(2)) => {} // tidy: the clock is paused
            _ = node.stopped() => return,
        }
    }
}

/// The last node of a cluster with that many `founders` starts for the first time, on a disk that
/// loses power at its write number `count`; it starts again, and once more after a second power cut.
/// Returns whether it lived through its first minutes.
async fn survive(number: u32, founders: u32, count: u64, ending: Ending) -> bool {
    let mut cluster = Cluster::new();
    let found = |builder: Builder| builder.expect(founders).partitions(4);
    let start = |builder: Builder| if number <= founders { found(builder) } else { builder };
    cluster.launch(1..number, found).await;
    let builder = start(cluster.builder(number));
    let disk = cluster.disk(number).clone();
    disk.stop_after(count);
    let mut known = None;
    if let Ok(node) = builder.launch().await {
        tokio::time::timeout(DEADLINE, first_minutes(&node)).await.expect("it hangs");
        known = node.topology().cluster.as_ref().map(|cluster| cluster.id);
        node.stop().await;
    }
    let lived = disk.operation_count() < count;
    cluster.net().kill(&format!("node-{number}"));
    ending.happen(&disk);
    for _ in 0..2 {
        cluster.launch([number], start).await;
        let context = format!("write {count}, {ending:?}");
        let ready = tokio::time::timeout(DEADLINE, cluster.ready(number)).await;
        ready
            .unwrap_or_else(|_| panic!("{context}: it hangs"))
            .unwrap_or_else(|error| panic!("{context}: {error}"));
        let is_whole = |topology: &Topology| healthy(topology) || number < 3;
        let topology = cluster.until(number, &context, is_whole).await;
        let id = topology.cluster.as_ref().expect("it was formed").id;
        assert!(known.is_none_or(|known| known == id), "{context}: it is in another cluster");
        known = Some(id);
        cluster.crash(number, count).await;
    }
    lived
}

/// Cuts the power at each of the first writes, up to the registration and behind it, and then at some
/// until there are no more.
async fn survive_every_write(number: u32, founders: u32) {
    let mut count = 0;
    while !survive(number, founders, count, Ending::ALL[(count % 4) as usize]).await {
        count += if count < 70 { 1 } else { 5 };
    }
    assert!(count > 70, "so few writes, {count}, are not the first minutes");
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_at_any_write_of_a_first_start_leaves_a_node_that_starts() {
    survive_every_write(1, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_at_any_write_of_one_of_three_leaves_a_node_that_starts() {
    survive_every_write(3, 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_power_cut_at_any_write_of_a_newcomer_leaves_a_node_that_starts() {
    survive_every_write(2, 1).await;
}

/// A builder whose step notes in a file that it was taken, and says `outcome`.
fn opening(builder: Builder, disk: &SimDisk, outcome: Result<(), &'static str>) -> Builder {
    let disk = disk.clone();
    builder.opening(move |data_dir| {
        write(&disk, &data_dir.join("opened"), b"");
        outcome.map(|()| BTreeMap::new()).map_err(Into::into)
    })
}

async fn refused(builder: Builder) -> StartError {
    let started = tokio::time::timeout(DEADLINE, builder.start()).await;
    started.expect("it hangs").expect_err("it starts")
}

#[tokio::test(start_paused = true)]
async fn what_the_program_keeps_is_opened_once_the_directory_is_checked_and_locked() {
    let opened = Path::new("/data/opened");
    let mut cluster = Cluster::new();
    drop(cluster.builder(1));
    let disk = cluster.disk(1).clone();
    let wrong = opening(cluster.builder(1), &disk, Ok(())).expect(0);
    assert!(matches!(refused(wrong).await, StartError::Settings(_)));
    cluster.launch([1], |builder| builder.expect(1)).await;
    let second = opening(cluster.builder(1), &disk, Ok(()));
    assert!(matches!(refused(second).await, StartError::DataDir(_)));
    assert!(!disk.exists(opened).expect("asked"), "nothing is opened in a directory that is not this node's");
    cluster.stop(1).await;
    let third = opening(cluster.builder(1), &disk, Err("it is worn out"));
    let clone = third.clone();
    let error = refused(third).await;
    assert_eq!(error.to_string(), "cannot open what is kept in the data directory: it is worn out");
    assert!(disk.exists(opened).expect("asked"));
    let error = refused(clone).await;
    let StartError::Settings(error) = error else { panic!("{error:?}") };
    assert_eq!(*error, InvalidSettings::OpenedBefore);
    cluster.launch([1], |builder| builder.expect(1)).await;
    cluster.ready(1).await.expect("the directory is free again");
}
