//! Finding the cluster: forming it with others, or joining one that exists.
//!
//! Core's [`Forming`] decides; here its greetings are sent, its vote is written down, and its
//! verdict is carried out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::control::Rejected;
use clusterkit_core::forming::{Action, Candidate, Config, Forming, Greeting, Problem, Unreachable};
use clusterkit_core::id::ClusterId;
use clusterkit_core::limits::EXPECT_MAX;
use clusterkit_core::time::Instant;
use clusterkit_wire::hello::{Class, Refusal};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::identity::{DataDir, Membership};
use super::message::{self, Join, JoinAnswer, JoinRefusal, kind};
use super::shared::Shared;
use crate::error::{FormingProblem, StartError};
use crate::transport::{self, CallError, Target};

/// How long one greeting may take.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a joining node waits for the cluster's answer.
const JOIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Greetings that may be under way at once, in either direction.
const GREETINGS_MAX: usize = EXPECT_MAX as usize * 4;
/// A name clash may be the node's own earlier run, whose death is not known yet: refused for longer
/// than this, it is another node.
const CLASH_PATIENCE: Duration = Duration::from_secs(3);
/// How long the last attempt to join may lie back before the next one.
const JOIN_PAUSE: Duration = Duration::from_millis(200);

/// What reaches the task that looks for the cluster.
#[derive(Debug)]
pub(crate) enum ClusterInput {
    /// Another node greeted this one.
    Greeted { addr: String, greeting: Greeting },
}

/// What came back from what was sent out.
enum Answer {
    Greeting { addr: String, outcome: Result<Greeting, GreetError> },
    Join { answer: Option<JoinAnswer> },
}

/// A greeting was not answered with one.
pub(super) enum GreetError {
    /// The node there has this node's id and another data directory.
    Clash(JoinRefusal),
    /// Nobody who could have answered.
    Unreachable(Unreachable),
}

/// Looks for the cluster until this node is a member, and writes down which.
pub(crate) async fn find(
    shared: &Arc<Shared>,
    data_dir: &mut DataDir,
    inbox: &mut mpsc::Receiver<ClusterInput>,
) -> Result<Membership, StartError> {
    let me = Candidate { node: shared.node.clone(), store: shared.store, node_addr: shared.node_addr() };
    let settings = &shared.settings;
    let config = Config {
        expect: settings.expect.or(settings.seeds.is_empty().then_some(1)),
        seeds: settings.seeds.clone(),
        ..Config::new(me, settings.cluster_name.clone())
    };
    let recovered = data_dir.identity().vote.clone();
    let forming = Forming::new(config, recovered, shared.store.0, shared.now());
    let (answers, outcomes) = mpsc::channel(GREETINGS_MAX);
    let search = Search {
        shared,
        data_dir,
        forming,
        answers,
        problems: BTreeMap::new(),
        joining: false,
        clash_since: None,
        found: None,
    };
    search.run(inbox, outcomes).await
}

struct Search<'a> {
    shared: &'a Arc<Shared>,
    data_dir: &'a mut DataDir,
    forming: Forming,
    answers: mpsc::Sender<Answer>,
    /// What each address last answered that was not good.
    problems: BTreeMap<String, FormingProblem>,
    joining: bool,
    clash_since: Option<Instant>,
    found: Option<Membership>,
}

impl Search<'_> {
    async fn run(
        mut self,
        inbox: &mut mpsc::Receiver<ClusterInput>,
        mut outcomes: mpsc::Receiver<Answer>,
    ) -> Result<Membership, StartError> {
        let deadline = tokio::time::Instant::now() + self.shared.settings.join_timeout;
        loop {
            self.act()?;
            if let Some(membership) = self.found.take() {
                self.data_dir.set_membership(membership.clone())?;
                return Ok(membership);
            }
            let clock = &self.shared.settings.clock;
            let due = self.forming.poll_timeout().unwrap_or_else(|| clock.now() + GREETING_TIMEOUT);
            tokio::select! {
                Some(ClusterInput::Greeted { addr, greeting }) = inbox.recv() => self.take_greeting(&addr, greeting),
                Some(answer) = outcomes.recv() => self.take_answer(answer)?,
                () = clock.sleep_until(due) => self.forming.handle_timeout(self.shared.now()),
                () = tokio::time::sleep_until(deadline) => return Err(self.no_cluster()),
            }
        }
    }

    /// Carries out what core wants, and shows what it says of itself.
    fn act(&mut self) -> Result<(), StartError> {
        while let Some(action) = self.forming.poll_action() {
            self.act_on(action)?;
        }
        self.shared.greeting.send_replace(Some(self.forming.greeting()));
        Ok(())
    }

    fn act_on(&mut self, action: Action) -> Result<(), StartError> {
        match action {
            Action::Greet { addr } => self.greet(addr),
            Action::PersistVote(vote) => {
                let round = vote.round;
                self.data_dir.set_vote(vote)?;
                self.forming.handle_vote_durable(self.shared.now(), round);
            }
            Action::Formed { cluster, members } => self.formed(cluster, members),
            Action::Join { addr, .. } => self.join(addr),
            Action::Report(problem) => self.report(&problem),
        }
        Ok(())
    }

    fn greet(&self, addr: String) {
        let (shared, answers) = (Arc::clone(self.shared), self.answers.clone());
        let greeting = self.forming.greeting();
        self.shared.tracker.spawn(async move {
            let outcome = greet(&shared, &addr, &greeting).await;
            // The search is over when nobody listens any more.
            drop(answers.send(Answer::Greeting { addr, outcome }).await);
        });
    }

    fn formed(&mut self, cluster: ClusterId, members: Vec<Candidate>) {
        let cluster_name = self.shared.settings.cluster_name.clone();
        self.found = Some(Membership { cluster, cluster_name, log_written: false, founders: members });
    }

    fn join(&mut self, addr: String) {
        if self.joining {
            return;
        }
        self.joining = true;
        let (shared, answers) = (Arc::clone(self.shared), self.answers.clone());
        let join = join_request(&shared);
        self.shared.tracker.spawn(async move {
            let answer = ask_to_join(&shared, &addr, &join).await;
            drop(answers.send(Answer::Join { answer }).await);
        });
    }

    fn take_greeting(&mut self, addr: &str, greeting: Greeting) {
        self.shared.book.note(greeting.candidate.store, &greeting.candidate.node_addr);
        self.forming.handle_greeting(self.shared.now(), addr, greeting);
    }

    fn take_answer(&mut self, answer: Answer) -> Result<(), StartError> {
        match answer {
            Answer::Greeting { addr, outcome: Ok(greeting) } => {
                self.problems.remove(&addr);
                self.take_greeting(&addr, greeting);
            }
            Answer::Greeting { outcome: Err(GreetError::Clash(refusal)), .. } => {
                self.take_join(Some(JoinAnswer::Refused(refusal)))?;
            }
            Answer::Greeting { addr, outcome: Err(GreetError::Unreachable(reason)) } => {
                let problem = FormingProblem::Unreachable { addr: addr.clone(), reason: reason.clone() };
                self.problems.insert(addr.clone(), problem);
                self.forming.handle_unreachable(self.shared.now(), &addr, reason);
            }
            Answer::Join { answer } => {
                self.joining = false;
                self.take_join(answer)?;
            }
        }
        Ok(())
    }

    fn take_join(&mut self, answer: Option<JoinAnswer>) -> Result<(), StartError> {
        match answer {
            Some(JoinAnswer::Joined { cluster, .. }) => {
                self.found = Some(Membership {
                    cluster: cluster.id,
                    cluster_name: cluster.name,
                    log_written: false,
                    founders: Vec::new(),
                });
                Ok(())
            }
            Some(JoinAnswer::Refused(refusal)) if is_clash(&refusal) => {
                let now = self.shared.now();
                let since = *self.clash_since.get_or_insert(now);
                let patient = now.since(since) < CLASH_PATIENCE;
                if patient { Ok(()) } else { Err(StartError::Refused(refusal)) }
            }
            Some(JoinAnswer::Refused(refusal)) => Err(StartError::Refused(refusal)),
            Some(JoinAnswer::TryAgain) | None => Ok(()),
        }
    }

    fn report(&mut self, problem: &Problem) {
        tracing::warn!(target: "clusterkit::membership", %problem, "not forming yet");
        self.problems.insert(String::new(), problem.clone().into());
    }

    fn no_cluster(&self) -> StartError {
        let seconds = self.shared.settings.join_timeout.as_secs();
        let mut problems: Vec<_> = self.problems.values().cloned().collect();
        // What each address answered comes first, and what core makes of all of them last.
        problems.rotate_left(usize::from(self.problems.contains_key("")));
        StartError::NoCluster { seconds, problems }
    }
}

fn is_clash(refusal: &JoinRefusal) -> bool {
    matches!(refusal, JoinRefusal::Rejected(Rejected::NodeIdInUse { .. }))
}

pub(super) fn join_request(shared: &Shared) -> Join {
    Join {
        registration: shared.registration(),
        cluster_name: shared.settings.cluster_name.clone(),
        partition_count: shared.settings.partitions,
        forwarded: false,
    }
}

/// Asks a member to let this node in. `None` when it did not answer.
pub(super) async fn ask_to_join(shared: &Shared, addr: &str, join: &Join) -> Option<JoinAnswer> {
    let target = Target { addr: addr.to_owned(), node: None };
    let call = shared.transport().call(
        &target,
        Class::Control,
        kind::JOIN,
        message::encode(join),
        JOIN_ANSWER_TIMEOUT,
    );
    let answer = message::decode(&call.await.ok()?).ok()?;
    if answer == JoinAnswer::TryAgain {
        tokio::time::sleep(JOIN_PAUSE).await;
    }
    Some(answer)
}

/// Greets the node at `addr`; a public address is asked for the node address behind it.
pub(super) async fn greet(shared: &Shared, addr: &str, greeting: &Greeting) -> Result<Greeting, GreetError> {
    match greet_node(shared, addr, greeting).await {
        Err(CallError::NotClusterKit { .. }) => {
            let net = shared.settings.net.as_ref();
            let public = transport::ask_public(net, addr, GREETING_TIMEOUT).await;
            let node_addr =
                public.map_err(|_| GreetError::Unreachable(Unreachable::NotClusterKit))?.node_addr;
            greet_node(shared, &node_addr, greeting).await.map_err(|error| greet_error(&error))
        }
        outcome => outcome.map_err(|error| greet_error(&error)),
    }
}

async fn greet_node(shared: &Shared, addr: &str, greeting: &Greeting) -> Result<Greeting, CallError> {
    let target = Target { addr: addr.to_owned(), node: None };
    let body = message::encode(greeting);
    let call = shared.transport().call(&target, Class::Control, kind::GREETING, body, GREETING_TIMEOUT);
    let answer = timeout(GREETING_TIMEOUT * 2, call).await.unwrap_or(Err(CallError::TimedOut))?;
    message::decode(&answer).map_err(|_| CallError::TimedOut)
}

fn greet_error(error: &CallError) -> GreetError {
    let reason = match error {
        CallError::NotClusterKit { .. } => Unreachable::NotClusterKit,
        CallError::Refused { reason: Refusal::NodeIdClash { node, addr } } => {
            let in_use = Rejected::NodeIdInUse { node: node.clone(), node_addr: addr.clone() };
            return GreetError::Clash(JoinRefusal::Rejected(in_use));
        }
        CallError::Refused { reason: Refusal::OtherCluster { name, .. } } => {
            Unreachable::OtherCluster { name: name.clone() }
        }
        CallError::NotSent { .. } | CallError::Refused { .. } => Unreachable::Refused,
        _ => Unreachable::TimedOut,
    };
    GreetError::Unreachable(reason)
}
