//! What belongs to the whole cluster and may change.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Api;
use super::dto::ChangedDto;
use super::endpoint::Endpoint;
use super::problem::{Code, Problem};
use super::request::Body;

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::put("/v1/cluster/replication_factor", set_replication_factor)
            .summary("Changes the number of copies of every partition.")
            .body::<ReplicationFactorDto>()
            .json::<ChangedDto>("It is written; the copies follow.")
            .fails(&[Code::InvalidValue, Code::MissingParameter])
            .changes(),
    ]
}

/// How many copies every partition shall have.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ReplicationFactor)]
#[serde(deny_unknown_fields)]
struct ReplicationFactorDto {
    /// Copies, leader included, 1 to 15.
    #[schema(minimum = 1, maximum = 15)]
    replication_factor: u32,
}

async fn set_replication_factor(
    State(api): State<Api>,
    Body(wish): Body<ReplicationFactorDto>,
) -> Result<ChangedDto, Problem> {
    Ok(api.ck().set_replication_factor(wish.replication_factor).await?.into())
}
