//! The partitions, and why each stands as it does.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::dto::{PageQuery, PartitionDto, PartitionPageDto};
use super::endpoint::Endpoint;
use super::explain::{Subject, explain, what_blocks};
use super::problem::{Code, Problem};
use super::request::{PartitionInPath, Query, find_partition};
use super::stages::{EpochDto, OwnStage, StageDto, history, stages};

pub(super) fn endpoints() -> Vec<Endpoint<Api>> {
    vec![
        Endpoint::get("/v1/partitions", list)
            .summary("Every partition.")
            .query::<PageQuery>()
            .json::<PartitionPageDto>("A page of partitions.")
            .fails(&[Code::InvalidValue, Code::UnknownField]),
        Endpoint::get("/v1/partitions/{partition}", show)
            .summary("One partition: its epochs, the hooks that it waits for, and why it stands as it does.")
            .json::<PartitionDetailDto>("The partition.")
            .fails(&[Code::InvalidValue, Code::NotFormed, Code::UnknownPartition]),
    ]
}

async fn list(
    State(api): State<Api>,
    Query(page): Query<PageQuery>,
) -> Result<Json<PartitionPageDto>, Problem> {
    let topology = api.ck().topology();
    let page = page.page(
        topology.partitions.iter(),
        |cursor| cursor.parse().ok(),
        |record| record.id.0,
        |record| (record.id.0.to_string(), PartitionDto::new(&topology, record)),
    );
    Ok(Json(page?.into()))
}

/// A partition, and why it stands as it does.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PartitionDetail)]
struct PartitionDetailDto {
    #[serde(flatten)]
    record: PartitionDto,
    /// Replicas in sync that may have lost acknowledged writes and cannot lead.
    tainted: Vec<String>,
    /// The last epoch whose leader was elected although acknowledged writes may be missing.
    unclean_epoch: Option<u64>,
    /// Its newest epochs, oldest first, the current one last: at most 8.
    history: Vec<EpochDto>,
    /// The hooks that it waits for.
    stages: Vec<StageDto>,
    /// What the move of a copy waits for, in a sentence; none where nothing moves.
    blocked_by: Option<String>,
    /// What blocks it or is under way on it, one sentence each.
    reasons: Vec<String>,
}

async fn show(
    State(api): State<Api>,
    PartitionInPath(partition): PartitionInPath,
) -> Result<Json<PartitionDetailDto>, Problem> {
    let topology = api.ck().topology();
    let record = find_partition(&topology, partition)?;
    let own = OwnStage::of(api.ck(), record.id);
    let subject = Subject { topology: &topology, record, me: api.ck().node_id(), own: own.as_ref() };
    Ok(Json(PartitionDetailDto {
        record: PartitionDto::new(&topology, record),
        tainted: record.tainted.iter().map(ToString::to_string).collect(),
        unclean_epoch: record.unclean.map(|epoch| epoch.0),
        history: history(api.ck(), record),
        stages: stages(&subject, &*api.ck().shared().settings.clock),
        blocked_by: what_blocks(&subject),
        reasons: explain(&subject),
    }))
}
