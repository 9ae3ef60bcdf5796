//! Several operations in one request: `POST /v1/kv/batch`.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use clusterkit::http::{Code, Endpoint, JsonBody, Problem, Query};
use clusterkit_data::{LogTime, ReadOptions, WriteOptions};
use clusterkit_services::Namespace;
use clusterkit_services::kv::{
    Change, Condition, Deadline, Done, Expiry, KvError, Outcome, Value, Version, Write,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer::{self, WrittenDto, time};
use super::limits::{BATCH_BODY_BYTES_MAX, OPERATIONS_MAX};
use super::text::{base64, either};
use super::wish::{
    AckWish, CK_REQUEST, expiry, namespace, read_options, session_request, ttl, write_options,
};
use super::{KvApi, READ_CODES, WRITE_CODES, failure};

pub(super) fn endpoints() -> Vec<Endpoint<KvApi>> {
    let summary =
        "Several operations, all or none of them with `atomic`; writes are done before anything is read.";
    vec![
        Endpoint::post("/v1/kv/batch", batch)
            .summary(summary)
            .header(CK_REQUEST, "Of an atomic batch: which request of which session it is, as in `3.17.1`.")
            .query::<BatchQuery>()
            .body::<BatchDto>()
            .json::<ResultsDto>("What came of each, in their order.")
            .fails(&[Code::BodyTooSlow, Code::CrossPartition, Code::Exists, Code::KeyNotFound])
            .fails(&[Code::NotANumber, Code::NumberOverflow, Code::VersionMismatch])
            .fails(READ_CODES)
            .fails(WRITE_CODES),
    ]
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct BatchQuery {
    /// The namespace; `default` unless another one is named.
    ns: Option<String>,
    /// When writes are answered; `quorum` unless said otherwise.
    #[param(inline)]
    ack: Option<AckWish>,
    /// How long it may take, as in `500ms`; 5 s unless said otherwise, 60 s at most.
    timeout: Option<String>,
}

/// Several operations.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = KvBatch)]
#[serde(deny_unknown_fields)]
struct BatchDto {
    /// Whether all or none are done: then all keys lie in one partition, and nothing is read. Without, each
    /// partition is for itself.
    #[serde(default)]
    atomic: bool,
    operations: Vec<OperationDto>,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = KvOperationKind)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Append,
    Check,
    Decr,
    Delete,
    Expire,
    Get,
    Incr,
    Persist,
    Put,
}

/// One operation. Fields that its kind does not have are refused.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = KvOperation)]
#[serde(deny_unknown_fields)]
struct OperationDto {
    op: Kind,
    /// The key, as text.
    key: Option<String>,
    /// The key, where it is no text.
    key_base64: Option<String>,
    /// Of `put` and `append`: the value, as text.
    value: Option<String>,
    /// Of `put` and `append`: the value, where it is no text.
    value_base64: Option<String>,
    /// Of `incr` and `decr`: how much; 1 unless said otherwise.
    by: Option<i64>,
    /// Of `put` and `expire`: how long it lives, as in `30s`.
    ttl: Option<String>,
    /// Of `put` and `expire`: when it expires, in milliseconds since 1970.
    expires_at_ms: Option<u64>,
    /// Of `put`: expires when the value that it replaces would have.
    keep_ttl: Option<bool>,
    /// Of writes: only at this version.
    if_version: Option<u64>,
    /// Of writes: only if the key is not there.
    if_absent: Option<bool>,
    /// Of writes: only if the key is there.
    if_exists: Option<bool>,
}

/// What came of each operation, in their order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvResults)]
struct ResultsDto {
    results: Vec<ResultDto>,
}

/// What came of one operation.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = KvResult)]
struct ResultDto {
    #[serde(flatten)]
    written: WrittenDto,
    /// Of a `get`.
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<FoundDto>,
    /// It failed, and the operations of other partitions may have not.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDto>,
}

/// What a `get` found.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = KvFound)]
struct FoundDto {
    found: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
}

/// Why an operation failed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvError)]
struct ErrorDto {
    /// As in the field `code` of a problem.
    #[schema(value_type = String)]
    code: &'static str,
    detail: String,
}

/// An operation that has been checked.
#[derive(Debug, PartialEq, Eq)]
enum Operation {
    Get(Bytes),
    Write(Write),
}

impl OperationDto {
    fn check(self, position: usize) -> Result<Operation, Problem> {
        let of_this = |problem: Problem| {
            Problem::new(problem.code(), format!("operation {position}: {}", problem.detail()))
        };
        self.parse().map_err(of_this)
    }

    fn parse(mut self) -> Result<Operation, Problem> {
        let missing = || Problem::new(Code::MissingParameter, "`key` is missing");
        let key = either("key", self.key.take(), self.key_base64.take())?.ok_or_else(missing)?;
        let condition = self.condition()?;
        let operation = match self.change()? {
            None if condition != Condition::Any => return Err(invalid("a get has no condition")),
            None => Operation::Get(key),
            Some(change) => Operation::Write(Write::new(key, change).only_if(condition)),
        };
        match self.leftover() {
            Some(field) => Err(invalid(format!("`{field}` means nothing to this kind of operation"))),
            None => Ok(operation),
        }
    }

    fn condition(&mut self) -> Result<Condition, Problem> {
        let absent = self.if_absent.take().unwrap_or_default();
        let exists = self.if_exists.take().unwrap_or_default();
        match (self.if_version.take(), absent, exists) {
            (None, false, false) => Ok(Condition::Any),
            (Some(version), false, _) => Ok(Condition::VersionIs(Version(version))),
            (None, true, false) => Ok(Condition::MustNotExist),
            (None, false, true) => Ok(Condition::MustExist),
            _ => Err(invalid("give one of `if_version`, `if_absent` and `if_exists`")),
        }
    }

    /// What to do; nothing for a get.
    fn change(&mut self) -> Result<Option<Change>, Problem> {
        let change = match self.op {
            Kind::Get => return Ok(None),
            Kind::Append => Change::Append { suffix: self.value()? },
            Kind::Check => Change::Check,
            Kind::Decr => Change::Decrement { by: self.by.take().unwrap_or(1) },
            Kind::Delete => Change::Delete,
            Kind::Expire => Change::Expire { deadline: self.deadline()? },
            Kind::Incr => Change::Increment { by: self.by.take().unwrap_or(1) },
            Kind::Persist => Change::Persist,
            Kind::Put => Change::Put { value: self.value()?, expiry: self.expiry()? },
        };
        Ok(Some(change))
    }

    fn value(&mut self) -> Result<Bytes, Problem> {
        let missing = || Problem::new(Code::MissingParameter, "`value` is missing");
        either("value", self.value.take(), self.value_base64.take())?.ok_or_else(missing)
    }

    fn deadline(&mut self) -> Result<Deadline, Problem> {
        match (self.ttl.take(), self.expires_at_ms.take()) {
            (Some(text), None) => ttl(&text),
            (None, Some(at)) => Ok(Deadline::At(LogTime(at))),
            (Some(_), Some(_)) => Err(invalid("give `ttl` or `expires_at_ms`, not both")),
            (None, None) => Err(Problem::new(Code::MissingParameter, "`ttl` is missing")),
        }
    }

    fn expiry(&mut self) -> Result<Expiry, Problem> {
        let keeps = self.keep_ttl.take().unwrap_or_default();
        if self.expires_at_ms.is_none() {
            return expiry(self.ttl.take().as_deref(), keeps);
        }
        if keeps {
            return Err(invalid("give `expires_at_ms` or `keep_ttl`, not both"));
        }
        self.deadline().map(Expiry::Set)
    }

    /// A field that nobody asked for.
    fn leftover(&self) -> Option<&'static str> {
        let fields = [
            ("value", self.value.is_some() || self.value_base64.is_some()),
            ("by", self.by.is_some()),
            ("ttl", self.ttl.is_some()),
            ("expires_at_ms", self.expires_at_ms.is_some()),
            ("keep_ttl", self.keep_ttl.is_some()),
        ];
        fields.into_iter().find_map(|(name, is_there)| is_there.then_some(name))
    }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::InvalidValue, detail)
}

fn checked(operations: Vec<OperationDto>) -> Result<Vec<Operation>, Problem> {
    if operations.len() > OPERATIONS_MAX {
        let detail = format!("a batch has at most {OPERATIONS_MAX} operations, not {}", operations.len());
        return Err(Problem::new(Code::TooLarge, detail));
    }
    operations.into_iter().enumerate().map(|(position, operation)| operation.check(position)).collect()
}

async fn batch(
    State(api): State<KvApi>,
    Query(query): Query<BatchQuery>,
    headers: HeaderMap,
    JsonBody(batch): JsonBody<BatchDto, BATCH_BODY_BYTES_MAX>,
) -> Result<Response, Problem> {
    let operations = checked(batch.operations)?;
    let first = operations.iter().find_map(|operation| match operation {
        Operation::Write(write) => api.partition(&write.key),
        Operation::Get(_) => None,
    });
    let request = session_request(&headers, first)?;
    if request.is_some() && !batch.atomic {
        return Err(invalid("only an atomic batch can be a request of a session"));
    }
    let options = write_options(query.ack, query.timeout.as_deref(), true)?;
    let request = Request {
        namespace: namespace(query.ns.as_deref())?,
        writes: WriteOptions { request, ..options },
        reads: read_options(None, None, query.timeout.as_deref(), true)?,
    };
    if batch.atomic {
        request.atomic(&api, operations).await
    } else {
        Ok(request.many(&api, operations).await)
    }
}

/// How a batch is carried out.
struct Request {
    namespace: Namespace,
    writes: WriteOptions,
    reads: ReadOptions,
}

impl Request {
    async fn atomic(&self, api: &KvApi, operations: Vec<Operation>) -> Result<Response, Problem> {
        let writes = operations.into_iter().map(|operation| match operation {
            Operation::Write(write) => Ok(write),
            Operation::Get(_) => Err(invalid("an atomic batch cannot read; `check` holds a version")),
        });
        let writes = writes.collect::<Result<Vec<_>, _>>()?;
        let Some(partition) = writes.first().map(|write| api.partition(&write.key)) else {
            return Ok(Json(ResultsDto { results: Vec::new() }).into_response());
        };
        let count = writes.len();
        Ok(match api.store.write_atomic(&self.namespace, writes, &self.writes).await {
            Ok(Done { outcome, place, .. }) => {
                let outcomes = outcome.unwrap_or_else(|| vec![Outcome::Checked; count]);
                let results = outcomes.into_iter().map(|outcome| ResultDto::written(Ok(outcome))).collect();
                (answer::place(place), Json(ResultsDto { results })).into_response()
            }
            Err(error) => failure::answer(&api.ck, &error, partition, None),
        })
    }

    async fn many(&self, api: &KvApi, operations: Vec<Operation>) -> Response {
        let mut results: Vec<ResultDto> = Vec::new();
        results.resize_with(operations.len(), ResultDto::default);
        let (mut writes, mut reads) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for (position, operation) in operations.into_iter().enumerate() {
            match operation {
                Operation::Get(key) => reads.extend([(position, key)]),
                Operation::Write(write) => writes.extend([(position, write)]),
            }
        }
        let written = api.store.write_many(&self.namespace, writes.1, &self.writes).await;
        for (position, outcome) in writes.0.into_iter().zip(written) {
            results[position] = ResultDto::written(outcome);
        }
        let read = api.store.read_many(&self.namespace, &reads.1, &self.reads).await;
        for (position, found) in reads.0.into_iter().zip(read) {
            results[position] = ResultDto::read(found);
        }
        Json(ResultsDto { results }).into_response()
    }
}

impl ResultDto {
    fn written(outcome: Result<Outcome, KvError>) -> Self {
        match outcome {
            Ok(outcome) => Self { written: outcome.into(), ..Self::default() },
            Err(error) => Self::failed(&error),
        }
    }

    fn read(found: Result<Option<Value>, KvError>) -> Self {
        match found {
            Ok(value) => {
                Self { entry: Some(value.map(FoundDto::from).unwrap_or_default()), ..Self::default() }
            }
            Err(error) => Self::failed(&error),
        }
    }

    fn failed(error: &KvError) -> Self {
        let error = ErrorDto { code: failure::code(error).name(), detail: failure::detail(error) };
        Self { error: Some(error), ..Self::default() }
    }
}

impl From<Value> for FoundDto {
    fn from(value: Value) -> Self {
        Self {
            found: true,
            value_base64: Some(base64(&value.bytes)),
            version: Some(value.version.0),
            expires_at: value.expires_at.map(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clusterkit_data::WriteError;

    use super::*;

    fn operation(json: &str) -> Result<Operation, Problem> {
        serde_json::from_str::<OperationDto>(json).expect("the shape of an operation").check(3)
    }

    #[test]
    fn operations_are_understood() {
        let check = |json: &str, expect: Operation| assert_eq!(operation(json).ok(), Some(expect), "{json}");
        let write = |change| Write::new("k", change);
        check(r#"{"op":"get","key":"k"}"#, Operation::Get("k".into()));
        check(r#"{"op":"get","key_base64":"/w=="}"#, Operation::Get(Bytes::from_static(&[0xff])));
        check(r#"{"op":"put","key":"k","value":"v"}"#, Operation::Write(Write::put("k", "v")));
        let expiry = Expiry::Set(Deadline::After(Duration::from_secs(30)));
        let put = write(Change::Put { value: "v".into(), expiry }).only_if(Condition::MustNotExist);
        check(
            r#"{"op":"put","key":"k","value_base64":"dg==","ttl":"30s","if_absent":true}"#,
            Operation::Write(put),
        );
        let put = write(Change::Put { value: "".into(), expiry: Expiry::Set(Deadline::At(LogTime(5))) });
        check(r#"{"op":"put","key":"k","value":"","expires_at_ms":5}"#, Operation::Write(put));
        check(r#"{"op":"incr","key":"k"}"#, Operation::Write(write(Change::Increment { by: 1 })));
        check(r#"{"op":"decr","key":"k","by":-2}"#, Operation::Write(write(Change::Decrement { by: -2 })));
        let check_version = write(Change::Check).only_if(Condition::VersionIs(Version(7)));
        check(r#"{"op":"check","key":"k","if_version":7}"#, Operation::Write(check_version));
        let delete = write(Change::Delete).only_if(Condition::MustExist);
        check(r#"{"op":"delete","key":"k","if_exists":true}"#, Operation::Write(delete));
    }

    #[test]
    fn what_an_operation_cannot_mean_is_refused_with_its_position() {
        let check = |json: &str, expect: &str| {
            let problem = operation(json).expect_err("refused");
            assert_eq!(problem.detail(), format!("operation 3: {expect}"), "{json}");
        };
        check(r#"{"op":"get"}"#, "`key` is missing");
        check(r#"{"op":"put","key":"k"}"#, "`value` is missing");
        check(r#"{"op":"get","key":"k","value":"v"}"#, "`value` means nothing to this kind of operation");
        check(r#"{"op":"get","key":"k","if_version":1}"#, "a get has no condition");
        check(r#"{"op":"put","key":"k","value":"v","by":2}"#, "`by` means nothing to this kind of operation");
        check(r#"{"op":"get","key":"k","key_base64":"aw=="}"#, "give `key` or `key_base64`, not both");
        check(r#"{"op":"get","key_base64":"?"}"#, "`key_base64` is not base64");
        let both = "give one of `if_version`, `if_absent` and `if_exists`";
        check(r#"{"op":"delete","key":"k","if_absent":true,"if_exists":true}"#, both);
        check(r#"{"op":"expire","key":"k"}"#, "`ttl` is missing");
    }

    #[test]
    fn results_have_the_fields_of_their_operation() {
        let check = |result: ResultDto, expect: &str| {
            assert_eq!(serde_json::to_string(&result).expect("JSON"), expect);
        };
        check(ResultDto::read(Ok(None)), r#"{"entry":{"found":false}}"#);
        let value = Value { bytes: "v".into(), version: Version(4), expires_at: None };
        check(
            ResultDto::read(Ok(Some(value))),
            r#"{"entry":{"found":true,"value_base64":"dg==","version":4}}"#,
        );
        check(ResultDto::written(Ok(Outcome::Deleted { existed: false })), r#"{"existed":false}"#);
        let failed = ResultDto::written(Err(WriteError::Unavailable.into()));
        assert_eq!(failed.error.map(|error| error.code), Some("unavailable"));
    }

    #[test]
    fn a_batch_is_bounded() {
        let operations =
            || (0..=OPERATIONS_MAX).map(|_| serde_json::from_str(r#"{"op":"get","key":"k"}"#).expect("one"));
        assert!(checked(operations().take(OPERATIONS_MAX).collect()).is_ok());
        assert_eq!(checked(operations().collect()).expect_err("refused").code(), Code::TooLarge);
    }
}
