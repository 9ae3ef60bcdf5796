//! The OpenAPI document, made out of the table of routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::openapi::path::{Operation, OperationBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, OneOfBuilder};
use utoipa::openapi::{
    Content, HttpMethod, InfoBuilder, License, OpenApi, OpenApiBuilder, Paths, Ref, RefOr, Required,
    Response, ResponseBuilder, Schema,
};
use utoipa::{PartialSchema, ToSchema};

use super::Api;
use super::endpoint::{Answer, Description, Endpoint, JSON, TypeDoc, verb};
use super::problem::{Code, PROBLEM_JSON, ProblemBody};

const DESCRIPTION: &str = "Who is alive, which partition a key belongs to, which nodes hold it and who leads \
    it under which epoch. Every answer carries `ck-topology`, the route version it was given under, and \
    `x-request-id`. Errors are `application/problem+json` (RFC 9457).";

static DOCUMENT: LazyLock<String> = LazyLock::new(|| text(described(super::endpoints())));

/// The description of every route of [`router`](super::router), as an OpenAPI document in JSON.
#[must_use]
pub fn openapi() -> &'static str {
    &DOCUMENT
}

/// The description of every route of [`router_with`](super::router_with) with these endpoints.
#[must_use]
pub fn openapi_with<S>(endpoints: Vec<Endpoint<S>>) -> String {
    text(described(super::endpoints()).into_iter().chain(described(endpoints)).collect())
}

fn described<S>(endpoints: Vec<Endpoint<S>>) -> Vec<Description> {
    endpoints.into_iter().map(|endpoint| endpoint.description).collect()
}

fn text(descriptions: Vec<Description>) -> String {
    let document = document(descriptions).to_pretty_json();
    document.expect("a document of strings, numbers and maps can be written as JSON") + "\n"
}

/// `GET /v1/openapi.json`
pub(super) async fn serve(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, JSON)], api.0.openapi.clone())
}

fn document(descriptions: Vec<Description>) -> OpenApi {
    let mut schemas = BTreeMap::new();
    let mut paths = Paths::new();
    add_schemas(&mut schemas, TypeDoc::of::<ProblemBody>());
    for description in descriptions {
        let (path, method) = (description.path, description.method.clone());
        let operation = operation(description, &mut schemas);
        paths.add_path_operation(path, vec![method], operation);
    }
    let components = schemas
        .into_iter()
        .fold(ComponentsBuilder::new(), |components, (name, schema)| components.schema(name, schema));
    let info = InfoBuilder::new()
        .title("ClusterKit")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(DESCRIPTION))
        .license(Some(License::new(env!("CARGO_PKG_LICENSE"))));
    OpenApiBuilder::new().info(info.build()).paths(paths).components(Some(components.build())).build()
}

type Schemas = BTreeMap<String, RefOr<Schema>>;

fn add_schemas(schemas: &mut Schemas, doc: TypeDoc) {
    schemas.insert(doc.name, doc.schema);
    schemas.extend(doc.others);
}

/// Adds what `doc` says to the schemas, and refers to it.
fn reference(schemas: &mut Schemas, doc: TypeDoc) -> RefOr<Schema> {
    // A list has no name of its own: what stands in it has.
    if doc.name == "Vec" {
        schemas.extend(doc.others);
        return doc.schema;
    }
    let reference = Ref::from_schema_name(&doc.name);
    add_schemas(schemas, doc);
    reference.into()
}

fn operation(endpoint: Description, schemas: &mut Schemas) -> Operation {
    let mut operation = OperationBuilder::new()
        .operation_id(Some(operation_id(&endpoint.method, endpoint.path)))
        .tag(tag(endpoint.path))
        .summary(Some(endpoint.summary))
        .parameters(Some(endpoint.parameters));
    if let Some((media_type, body)) = endpoint.body {
        let schema = body.map_or_else(binary, |body| reference(schemas, body));
        let content = Content::new(Some(schema));
        let body =
            RequestBodyBuilder::new().content(media_type, content).required(Some(Required::True)).build();
        operation = operation.request_body(Some(body));
    }
    let answer = success(endpoint.answers, endpoint.alternative, schemas);
    if endpoint.is_probe {
        let failed =
            ResponseBuilder::from(answer.clone()).description("The same, while it is not so.").build();
        operation = operation.response("503", failed);
    }
    operation = operation.response("200", answer);
    if endpoint.is_conditional {
        operation = operation.response("304", Response::new("The client has this version already."));
    }
    for (status, codes) in by_status(&endpoint.codes) {
        operation = operation.response(status.to_string(), failure(&codes));
    }
    operation.build()
}

/// Bytes of any kind.
fn binary() -> RefOr<Schema> {
    <String as PartialSchema>::schema()
}

fn success(answers: Vec<Answer>, alternative: Option<TypeDoc>, schemas: &mut Schemas) -> Response {
    let description = answers.first().map_or("Done.", |answer| answer.description);
    let mut alternative = alternative.map(|doc| reference(schemas, doc));
    let with = |response: ResponseBuilder, answer: Answer| {
        let schema = match answer.body {
            Some(doc) => one_of(reference(schemas, doc), alternative.take()),
            None => <String as PartialSchema>::schema(),
        };
        response.content(answer.media_type, Content::new(Some(schema)))
    };
    answers.into_iter().fold(ResponseBuilder::new().description(description), with).build()
}

fn one_of(schema: RefOr<Schema>, alternative: Option<RefOr<Schema>>) -> RefOr<Schema> {
    match alternative {
        Some(other) => Schema::from(OneOfBuilder::new().item(schema).item(other).build()).into(),
        None => schema,
    }
}

fn failure(codes: &BTreeSet<&'static str>) -> Response {
    let names: Vec<_> = codes.iter().map(|name| format!("`{name}`")).collect();
    let content = Content::new(Some(Ref::from_schema_name(ProblemBody::name())));
    ResponseBuilder::new().description(names.join(", ")).content(PROBLEM_JSON, content).build()
}

fn by_status(codes: &[Code]) -> BTreeMap<u16, BTreeSet<&'static str>> {
    let mut grouped: BTreeMap<u16, BTreeSet<&'static str>> = BTreeMap::new();
    for code in codes {
        let row = code.row();
        grouped.entry(row.status.as_u16()).or_default().insert(row.name);
    }
    grouped
}

/// `GET /v1/nodes/{node}` is `get_v1_nodes_node`.
fn operation_id(method: &HttpMethod, path: &str) -> String {
    let words =
        path.split(|character: char| !character.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(verb(method).to_owned(), |id, word| id + "_" + word)
}

/// Native routes stand apart from those that others made us keep.
fn tag(path: &str) -> &'static str {
    match path {
        "/v1/cluster/replication_factor" => "native",
        path if path.starts_with("/v1/cluster/") => "compatible",
        path if path.starts_with("/v1/") => "native",
        "/livez" | "/readyz" | "/healthz" | "/health" | "/health/detailed" | "/ready" => "health",
        path if path.starts_with("/metrics") => "metrics",
        _ => "compatible",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_types_share_a_name() {
        let mut seen: Schemas = BTreeMap::new();
        let docs = super::super::endpoints().into_iter().flat_map(|endpoint| {
            let endpoint = endpoint.description;
            let answers = endpoint.answers.into_iter().filter_map(|answer| answer.body);
            answers
                .chain(endpoint.alternative)
                .chain(endpoint.body.and_then(|(_, doc)| doc))
                .collect::<Vec<_>>()
        });
        for doc in docs.filter(|doc| doc.name != "Vec") {
            for (name, schema) in doc.others.into_iter().chain([(doc.name, doc.schema)]) {
                let earlier = seen.insert(name.clone(), schema.clone());
                assert!(earlier.is_none_or(|earlier| earlier == schema), "{name} names two types");
            }
        }
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_and_says_what_it_does() {
        let mut ids = BTreeSet::new();
        for endpoint in described(super::super::endpoints()) {
            let id = operation_id(&endpoint.method, endpoint.path);
            assert!(ids.insert(id.clone()), "{id} twice");
            assert!(endpoint.summary.ends_with('.') && !endpoint.answers.is_empty(), "{id}");
        }
    }
}
