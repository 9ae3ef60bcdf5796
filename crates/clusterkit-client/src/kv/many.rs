//! Many keys at once.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use serde::Serialize;
use tokio::task::{JoinError, JoinSet};

use super::write::checked_value;
use super::{Entry, Kv, Version, checked_key};
use crate::error::{Cause, Error, ProtocolFault, Reasons};
use crate::limits::{BATCH_BYTES_MAX, BATCH_OPS_MAX, BATCH_REQUESTS_MAX};
use crate::net::{Call, Kind, Target, problem_of, refusal};
use crate::options::Read;
use crate::wire::{Batch, BatchDone, Found, Op, OpDone, Query};

/// A key and, if it is to be put, its value.
#[derive(Debug, Clone)]
struct Part {
    key: Bytes,
    value: Bytes,
}

/// Parts that one request carries, each with its place among all.
type Group = Vec<(usize, Part)>;

/// What came of the parts of a group.
type Filled<T> = Vec<(usize, Result<T, Error>)>;

impl Kv {
    /// What is at each of `keys`, in their order. Requests go to all nodes concerned side by side; what they find is
    /// not of one moment. It misses nothing, unless the [`Kv`] reads [any](Read::Any).
    ///
    /// Each key has an error of its own: see [`Kv`].
    pub async fn get_many<K: AsRef<[u8]>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Option<Entry>, Error>> {
        let part = |key: K| {
            let key = Bytes::copy_from_slice(checked_key(key.as_ref())?);
            Ok(Part { key, value: Bytes::new() })
        };
        let parts = keys.into_iter().map(part).collect();
        self.each(parts, |kv, part| kv.read_place(&part.key), Self::get_group).await
    }

    /// Puts each of `pairs`, and gives the version of each in their order. Requests go to all partitions concerned side
    /// by side: some may be put although others fail, and of a key that is there twice either value may stay. Those of
    /// one partition travel together and under one number, so that they too are put once.
    ///
    /// Each pair has an error of its own: see [`Kv`].
    pub async fn put_many<K: AsRef<[u8]>, V: Into<Bytes>>(
        &self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Vec<Result<Version, Error>> {
        let part = |(key, value): (K, V)| {
            let key = Bytes::copy_from_slice(checked_key(key.as_ref())?);
            Ok(Part { key, value: checked_value(value.into())? })
        };
        let parts = pairs.into_iter().map(part).collect();
        self.each(parts, |kv, part| kv.write_place(&part.key), Self::put_group).await
    }

    /// Does something for each part, those of one place together.
    async fn each<T, F>(
        &self,
        parts: Vec<Result<Part, Error>>,
        place: impl Fn(&Self, &Part) -> Place,
        act: impl Fn(Self, Group) -> F,
    ) -> Vec<Result<T, Error>>
    where
        T: Send + 'static,
        F: Future<Output = Filled<T>> + Send + 'static,
    {
        let mut results: Vec<Option<Result<T, Error>>> = Vec::new();
        results.resize_with(parts.len(), || None);
        let mut places: BTreeMap<Place, Group> = BTreeMap::new();
        for (at, part) in parts.into_iter().enumerate() {
            match part {
                Ok(part) => places.entry(place(self, &part)).or_default().push((at, part)),
                Err(error) => results[at] = Some(Err(error)),
            }
        }
        let mut running = JoinSet::new();
        for group in places.into_values().flat_map(groups) {
            if running.len() >= BATCH_REQUESTS_MAX
                && let Some(done) = running.join_next().await
            {
                fill(&mut results, done);
            }
            running.spawn(act(self.clone(), group));
        }
        while let Some(done) = running.join_next().await {
            fill(&mut results, done);
        }
        results
            .into_iter()
            .map(|result| result.expect("each part is in one group, and each group ends"))
            .collect()
    }

    async fn get_group(self, group: Group) -> Filled<Option<Entry>> {
        if let [(at, part)] = group.as_slice() {
            return vec![(*at, self.get(&part.key).await)];
        }
        let ops = group.iter().map(|(_, part)| Op::get(&part.key)).collect();
        let target = match self.read_place(&group[0].1.key) {
            Place::Node(addr) => Target::Node(addr),
            _ => Target::Any,
        };
        let call = self.batch(ops, Kind::Read(Read::Linearizable), target, self.query());
        self.run_batch(&call, group, entry).await
    }

    async fn put_group(self, group: Group) -> Filled<Version> {
        if let [(at, part)] = group.as_slice() {
            return vec![(*at, self.put(&part.key, part.value.clone()).await)];
        }
        let ops = group.iter().map(|(_, part)| Op::put(&part.key, &part.value)).collect();
        let target = Target::key(&group[0].1.key);
        let call = self.batch(ops, Kind::Write, target, self.write_query(None));
        self.run_batch(&call, group, version).await
    }

    fn batch(&self, ops: Vec<Op<'_>>, kind: Kind, target: Target, query: Query) -> Call {
        let mut call = self.call(Method::POST, "/v1/kv/batch".to_owned(), query, kind, target);
        call.headers.push((CONTENT_TYPE, "application/json".to_owned()));
        call.body = json(&Batch { atomic: call.kind == Kind::Write, operations: ops });
        call
    }

    async fn run_batch<T>(
        &self,
        call: &Call,
        group: Group,
        read: impl Fn(OpDone, &str) -> Result<T, Error>,
    ) -> Filled<T> {
        let places = group.into_iter().map(|(at, _)| at);
        match self.answers(call, places.len()).await {
            Ok((answers, request_id)) => {
                places.zip(answers).map(|(at, answer)| (at, read(answer, &request_id))).collect()
            }
            Err(error) => places.map(|at| (at, Err(error.clone()))).collect(),
        }
    }

    async fn answers(&self, call: &Call, count: usize) -> Result<(Vec<OpDone>, String), Error> {
        let reply = self.client.shared.run(call).await?.done()?;
        let done: BatchDone = reply.json()?;
        if done.results.len() != count {
            return Err(Error::protocol(ProtocolFault::ResultCount, reply.request_id()));
        }
        Ok((done.results, reply.request_id().to_owned()))
    }

    /// Keys of one node are read together, and miss nothing. Each that may miss something is read for itself, so that a
    /// replica can answer without the leader.
    fn read_place(&self, key: &Bytes) -> Place {
        let cache = &self.client.shared.cache;
        let Some(partition) = self.client.partition_of(key) else { return Place::Any };
        match self.read {
            Read::Any => Place::Key(key.clone()),
            _ => cache.leader(partition).map_or(Place::Any, Place::Node),
        }
    }

    /// Pairs of one partition are put together; each for itself while partitions are not known.
    fn write_place(&self, key: &Bytes) -> Place {
        let partition = self.client.partition_of(key);
        partition.map_or_else(|| Place::Key(key.clone()), |partition| Place::Partition(partition.0))
    }
}

/// What requests for several keys have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Any,
    Key(Bytes),
    Node(String),
    Partition(u32),
}

/// Cuts the parts of one place into what one request may carry.
fn groups(parts: Group) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut bytes = 0;
    for (at, part) in parts {
        let part_bytes = part.key.len() + part.value.len();
        match groups.last_mut() {
            Some(group) if group.len() < BATCH_OPS_MAX && bytes + part_bytes <= BATCH_BYTES_MAX => {
                bytes += part_bytes;
                group.push((at, part));
            }
            _ => {
                bytes = part_bytes;
                groups.push(vec![(at, part)]);
            }
        }
    }
    groups
}

fn fill<T>(results: &mut [Option<Result<T, Error>>], done: Result<Filled<T>, JoinError>) {
    match done {
        Ok(done) => done.into_iter().for_each(|(at, result)| results[at] = Some(result)),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn entry(done: OpDone, request_id: &str) -> Result<Option<Entry>, Error> {
    let found = unless_refused(done, request_id)?.entry.and_then(Found::entry);
    found.ok_or_else(|| Error::protocol(ProtocolFault::Body, request_id))
}

fn version(done: OpDone, request_id: &str) -> Result<Version, Error> {
    let version = unless_refused(done, request_id)?.version;
    version.map(Version).ok_or_else(|| Error::protocol(ProtocolFault::Body, request_id))
}

fn unless_refused(mut done: OpDone, request_id: &str) -> Result<OpDone, Error> {
    let Some(body) = done.error.take() else { return Ok(done) };
    let problem = problem_of(body, request_id);
    if !PASSING.contains(&problem.code()) {
        return Err(refusal(StatusCode::CONFLICT, problem, None, false));
    }
    let mut reasons = Box::new(Reasons::new(request_id.to_owned()));
    reasons.push("", Cause::Answered(Box::new(problem)));
    Err(Error::Unavailable { reasons })
}

/// What keeps a node from reading one key of several, for a while.
const PASSING: &[&str] = &[
    "internal",
    "node_stopped",
    "not_enough_replicas",
    "not_formed",
    "not_leader",
    "overloaded",
    "unavailable",
];

fn json(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("text and numbers make JSON").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_bounded_by_count_and_by_bytes() {
        let check = |sizes: &[usize], expect: &[usize]| {
            let part = |size: &usize| Part { key: "k".into(), value: vec![0; size - 1].into() };
            let parts = sizes.iter().map(part).enumerate().collect();
            let found: Vec<_> = groups(parts).iter().map(Vec::len).collect();
            assert_eq!(found, expect);
        };
        check(&[], &[]);
        check(&[1, 2, 3], &[3]);
        check(&[BATCH_BYTES_MAX, 1], &[1, 1]);
        check(&[1, BATCH_BYTES_MAX + 5, 1], &[1, 1, 1]);
        check(&[1; BATCH_OPS_MAX + 1], &[BATCH_OPS_MAX, 1]);
    }
}
