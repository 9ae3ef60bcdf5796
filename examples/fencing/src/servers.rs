//! The servers of the distribution's packages: started here, for this run alone.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Signal, geteuid};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::limits::{DEADLINE, LOOK_PAUSE};
use crate::processes::{LastWords, Processes};
use crate::stores::{Kind, Places, StoreError};

/// The user that PostgreSQL runs as when this is root, which it refuses to be.
const POSTGRES_USER: &str = "postgres";
/// Ends with the thread that started it, and runs as another user where it must.
const SETPRIV: &str = "setpriv";

/// A store that is not tried, and why.
#[derive(Debug, Clone)]
pub(crate) struct Skipped {
    pub(crate) kind: Kind,
    pub(crate) reason: String,
}

/// Starts what is installed, in `home`, and waits until it answers.
pub(crate) async fn start(
    home: &Path,
    processes: &mut Processes,
) -> Result<(Places, Vec<Skipped>), ServerError> {
    // The user of PostgreSQL must get through to its own directory in there.
    fs::set_permissions(home, fs::Permissions::from_mode(0o711))?;
    let mut places = Places { file: home.join("value"), postgres: None, redis: None };
    let mut skipped = Vec::new();
    match start_postgres(&home.join("postgres"), processes).await {
        Ok(dir) => places.postgres = Some(dir),
        Err(error) => skipped.push(error.skip(Kind::Postgres)?),
    }
    match start_redis(&home.join("redis"), processes) {
        Ok(socket) => places.redis = Some(socket),
        Err(error) => skipped.push(error.skip(Kind::Redis)?),
    }
    wait_until_connected(&places, home).await?;
    Ok((places, skipped))
}

/// Starts a PostgreSQL whose socket is in `dir`.
async fn start_postgres(dir: &Path, processes: &mut Processes) -> Result<PathBuf, ServerError> {
    let (initdb, postgres) = (find("initdb")?, find("postgres")?);
    let user = if geteuid().is_root() { Some(User::find(POSTGRES_USER)?) } else { None };
    fs::create_dir(dir)?;
    if let Some(user) = &user {
        chown(dir, Some(user.uid), Some(user.gid))?;
    }
    let data = dir.join("data");
    let mut init = command(&initdb, user.as_ref());
    init.arg("--pgdata").arg(&data).args(["--username", "postgres", "--auth", "trust", "--no-sync"]);
    init.args(["--encoding", "UTF8", "--locale", "C"]);
    let log = dir.with_extension("initdb.log");
    let child = processes.start(init, &log, Signal::INT)?;
    if !child.wait().await?.success() {
        return Err(ServerError::Failed { program: "initdb", words: LastWords(log) });
    }
    let mut server = command(&postgres, user.as_ref());
    server.arg("-D").arg(&data).arg("-k").arg(dir).args(["-c", "listen_addresses="]);
    // This signal ends it at once, without waiting for its clients.
    processes.start(server, &dir.with_extension("log"), Signal::INT)?;
    Ok(dir.to_owned())
}

/// Starts a Redis that listens on a socket in `dir`.
fn start_redis(dir: &Path, processes: &mut Processes) -> Result<PathBuf, ServerError> {
    let mut server = command(&find("redis-server")?, None);
    fs::create_dir(dir)?;
    let socket = dir.join("socket");
    server.args(["--port", "0", "--unixsocket"]).arg(&socket).arg("--dir").arg(dir);
    // An epoch that is forgotten fences nothing: what is accepted is on disk.
    server.args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    processes.start(server, &dir.with_extension("log"), Signal::TERM)?;
    Ok(socket)
}

async fn wait_until_connected(places: &Places, home: &Path) -> Result<(), ServerError> {
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = places.connect().await {
        if Instant::now() > deadline {
            let program = if matches!(error, StoreError::Postgres(_)) { "postgres" } else { "redis" };
            return Err(ServerError::Silent {
                error,
                words: LastWords(home.join(program).with_extension("log")),
            });
        }
        sleep(LOOK_PAUSE).await;
    }
    Ok(())
}

/// Where `program` is installed: on the path, or where distributions keep what is not.
fn find(program: &'static str) -> Result<PathBuf, ServerError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    versions.sort_by_key(fs::DirEntry::file_name);
    let versions = versions.iter().rev().map(|version| version.path().join("bin"));
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]).chain(versions);
    let found = places.map(|place| place.join(program)).find(|file| file.is_file());
    found.ok_or(ServerError::NotInstalled { program })
}

/// `program` as `user`, to end when this process does, even if that is killed.
fn command(program: &Path, user: Option<&User>) -> Command {
    let Ok(setpriv) = find(SETPRIV) else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "INT"]);
    if let Some(user) = user {
        command.args(["--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string(), "--clear-groups"]);
    }
    command.arg("--").arg(program);
    command
}

/// A user of this machine.
struct User {
    uid: u32,
    gid: u32,
}

impl User {
    fn find(name: &'static str) -> Result<Self, ServerError> {
        find(SETPRIV)?;
        let users = fs::read_to_string("/etc/passwd")?;
        Self::find_in(&users, name).ok_or(ServerError::NoUser { name })
    }

    fn find_in(users: &str, name: &str) -> Option<Self> {
        let mut lines = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = lines.find(|fields| fields.len() > 3 && fields[0] == name)?;
        Some(Self { uid: fields[2].parse().ok()?, gid: fields[3].parse().ok()? })
    }
}

/// A server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServerError {
    #[error("{program} failed: {words}")]
    Failed { program: &'static str, words: LastWords },
    #[error("cannot start it: {0}")]
    Io(#[from] io::Error),
    #[error("PostgreSQL does not run as root, and there is no user {name}")]
    NoUser { name: &'static str },
    #[error("{program} is not installed: examples/fencing/install-servers.sh does that")]
    NotInstalled { program: &'static str },
    #[error("no answer for {} s: {error}; it said: {words}", Duration::as_secs(&DEADLINE))]
    Silent { error: StoreError, words: LastWords },
}

impl ServerError {
    /// A server that is not there is passed over; one that is there and broken is not.
    fn skip(self, kind: Kind) -> Result<Skipped, Self> {
        match self {
            Self::NotInstalled { .. } | Self::NoUser { .. } => Ok(Skipped { kind, reason: self.to_string() }),
            broken => Err(broken),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_the_whole_name() {
        let users = "root:x:0:0:root:/:/bin/sh\npostgres2:x:7:8::/:\npostgres:x:101:104:,,,:/:\nbad:x\n";
        let check = |name: &str, expect: Option<(u32, u32)>| {
            let found = User::find_in(users, name).map(|user| (user.uid, user.gid));
            assert_eq!(found, expect, "{name}");
        };
        check("postgres", Some((101, 104)));
        check("root", Some((0, 0)));
        check("bad", None);
        check("x", None);
    }
}
