//! Sessions of clients, so that a write that is sent again takes effect once: `POST /v1/kv/sessions`.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use clusterkit::http::{Code, Endpoint, Problem, Query};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::answer;
use super::entry::ROUTE_NOTE;
use super::text::bytes_in_query;
use super::wish::{CK_ROUTE, Origin, session_name, write_options};
use super::{KvApi, WRITE_CODES, Way};

pub(super) fn endpoints() -> Vec<Endpoint<KvApi>> {
    vec![
        Endpoint::post("/v1/kv/sessions", open)
            .summary("Opens a session with the partition of a key, for writes that are to take effect once.")
            .query::<SessionQuery>()
            .header(CK_ROUTE, ROUTE_NOTE)
            .json::<SessionDto>("The session; it ends when it is not used for ten minutes.")
            .fails(WRITE_CODES)
            .fails(&[Code::MissingParameter]),
    ]
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct SessionQuery {
    /// Any key of the partition, with escapes where its bytes are no text.
    #[serde(rename = "key")]
    _key: Option<String>,
    /// How long it may take, as in `500ms`; 5 s unless said otherwise, 60 s at most.
    timeout: Option<String>,
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = KvSession)]
struct SessionDto {
    /// What the `ck-request` of its requests begins with; a dot and their number follow.
    session: String,
}

async fn open(
    State(api): State<KvApi>,
    Query(query): Query<SessionQuery>,
    uri: Uri,
    origin: Origin,
) -> Result<Response, Problem> {
    let way = Way::new(origin, None);
    let options = write_options(None, query.timeout.as_deref(), way.forwards())?;
    // Not that of the query, which is text: another key may be of another partition.
    let missing = || Problem::new(Code::MissingParameter, "`key` is missing: any key of the partition");
    let key = bytes_in_query(uri.query().unwrap_or_default(), "key")?.ok_or_else(missing)?;
    Ok(match api.store.open_session(&key, &options).await {
        Ok((session, place)) => {
            let session = session_name(place.partition, session);
            (answer::place(place), Json(SessionDto { session })).into_response()
        }
        Err(error) => api.failed(&error, &key, &way),
    })
}
