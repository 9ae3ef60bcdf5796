//! One table of routes, out of which both the router and its description are made, so that neither
//! can have what the other lacks.

use std::fmt;

use axum::Router;
use axum::handler::Handler;
use axum::routing::{self, MethodRouter};
use utoipa::openapi::path::{HttpMethod, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::{RefOr, Required};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::Api;
use super::health::ProbeQuery;
use super::problem::Code;

/// The media type of JSON.
pub(super) const JSON: &str = "application/json";
/// The media type of the plain answers for people.
pub(super) const TEXT: &str = "text/plain";
/// The media type of streams of events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// A schema with its name and with those that it refers to.
pub(super) struct TypeDoc {
    pub(super) name: String,
    pub(super) schema: RefOr<Schema>,
    pub(super) others: Vec<(String, RefOr<Schema>)>,
}

impl TypeDoc {
    pub(super) fn of<T: ToSchema>() -> Self {
        let mut others = Vec::new();
        T::schemas(&mut others);
        Self { name: T::name().into_owned(), schema: T::schema(), others }
    }
}

/// What comes back when all goes well.
pub(super) struct Answer {
    pub(super) description: &'static str,
    pub(super) media_type: &'static str,
    pub(super) body: Option<TypeDoc>,
}

/// What is told of one method of one route.
pub(super) struct Description {
    pub(super) method: HttpMethod,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<(&'static str, Option<TypeDoc>)>,
    pub(super) answers: Vec<Answer>,
    pub(super) alternative: Option<TypeDoc>,
    pub(super) is_conditional: bool,
    pub(super) is_probe: bool,
    pub(super) codes: Vec<Code>,
}

/// One method of one route, with its handler and what the OpenAPI document says of it.
///
/// A program that adds routes to those of the node makes a list of these for
/// [`router_with`](super::router_with); `S` is what its handlers share. A handler may answer with a
/// [`Problem`](super::Problem), and take [`Query`](super::Query) and [`JsonBody`](super::JsonBody).
pub struct Endpoint<S> {
    pub(super) description: Description,
    handler: MethodRouter<S>,
}

impl<S> fmt::Debug for Endpoint<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Description { method, path, .. } = &self.description;
        f.debug_struct("Endpoint").field("method", &verb(method)).field("path", path).finish_non_exhaustive()
    }
}

/// The method in small letters, as OpenAPI writes it.
pub(super) fn verb(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Delete => "delete",
        HttpMethod::Post => "post",
        HttpMethod::Put => "put",
        _ => "get",
    }
}

impl<S: Clone + Send + Sync + 'static> Endpoint<S> {
    /// A route that is read; it takes `HEAD` as well. Segments of `path` in braces are parameters: `{key}`
    /// has the bytes of a key, `{partition}` a partition, any other the id of a node.
    pub fn get<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(HttpMethod::Get, path, routing::get(handler))
    }

    /// A route that does something.
    pub fn post<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(HttpMethod::Post, path, routing::post(handler))
    }

    /// A route that sets something.
    pub fn put<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(HttpMethod::Put, path, routing::put(handler))
    }

    /// A route that removes something.
    pub fn delete<H: Handler<T, S>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(HttpMethod::Delete, path, routing::delete(handler))
    }

    fn new(method: HttpMethod, path: &'static str, handler: MethodRouter<S>) -> Self {
        let description = Description {
            method,
            path,
            summary: "",
            parameters: path.split('/').filter_map(path_parameter).collect(),
            body: None,
            answers: Vec::new(),
            alternative: None,
            is_conditional: false,
            is_probe: false,
            codes: Vec::new(),
        };
        Self { description, handler }
    }

    /// The same endpoint with what its handler was to share.
    pub(super) fn with_state<Other>(self, state: S) -> Endpoint<Other> {
        Endpoint { description: self.description, handler: self.handler.with_state(state) }
    }

    /// What it does, in a sentence with its full stop.
    #[must_use]
    pub fn summary(mut self, summary: &'static str) -> Self {
        self.description.summary = summary;
        self
    }

    /// Takes the query `T`.
    #[must_use]
    pub fn query<T: IntoParams>(mut self) -> Self {
        self.description.parameters.extend(T::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// Takes the header `name`.
    #[must_use]
    pub fn header(mut self, name: &str, description: &str) -> Self {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header);
        let parameter = parameter.required(Required::False).description(Some(description));
        self.description.parameters.push(parameter.schema(Some(String::schema())).build());
        self
    }

    /// Takes `T` as JSON.
    #[must_use]
    pub fn body<T: ToSchema>(mut self) -> Self {
        self.description.body = Some((JSON, Some(TypeDoc::of::<T>())));
        self.fails(&[Code::BodyTooLarge, Code::MalformedJson, Code::UnknownField, Code::UnsupportedMediaType])
    }

    /// Takes bytes of this media type, or of any other.
    #[must_use]
    pub fn body_bytes(mut self, media_type: &'static str) -> Self {
        self.description.body = Some((media_type, None));
        self.fails(&[Code::BodyTooLarge, Code::BodyTooSlow])
    }

    /// Answers with `T` as JSON.
    #[must_use]
    pub fn json<T: ToSchema>(mut self, description: &'static str) -> Self {
        self.description.answers.push(Answer {
            description,
            media_type: JSON,
            body: Some(TypeDoc::of::<T>()),
        });
        self
    }

    /// Answers with `T` instead, where the query asks for it.
    #[must_use]
    pub fn json_or<T: ToSchema>(mut self) -> Self {
        self.description.alternative = Some(TypeDoc::of::<T>());
        self
    }

    /// Answers with text or bytes of this media type.
    #[must_use]
    pub fn text(mut self, media_type: &'static str, description: &'static str) -> Self {
        self.description.answers.push(Answer { description, media_type, body: None });
        self
    }

    /// Answers 304 to who has this version.
    pub(super) fn conditional(mut self) -> Self {
        self.description.is_conditional = true;
        self.header("if-none-match", "The `ETag` of the version that the client has.")
    }

    /// Answers 503, and in the same shape, while what it tells of is not so.
    pub(super) fn probe(mut self) -> Self {
        self.description.is_probe = true;
        self.query::<ProbeQuery>()
    }

    /// Fails with these codes.
    #[must_use]
    pub fn fails(mut self, codes: &[Code]) -> Self {
        self.description.codes.extend(codes);
        self
    }

    /// Fails as every change of the cluster may.
    pub(super) fn changes(self) -> Self {
        self.fails(&[
            Code::CrossSite,
            Code::NoController,
            Code::NodeStopped,
            Code::NotFormed,
            Code::OutcomeUnknown,
            Code::Refused,
        ])
    }
}

/// The router of all `endpoints`.
pub(super) fn router(endpoints: Vec<Endpoint<Api>>) -> Router<Api> {
    endpoints
        .into_iter()
        .fold(Router::new(), |router, endpoint| router.route(endpoint.description.path, endpoint.handler))
}

fn path_parameter(segment: &str) -> Option<Parameter> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let (description, pattern) = match name {
        "key" => ("The bytes of a key, those that are no letters or digits escaped as in `%2F`.", "^[^/]+$"),
        "partition" => ("A partition, as `5` or `partition-5`.", "^(partition-)?[0-9]{1,9}$"),
        _ => ("The id of a node.", "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    };
    let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build();
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
    let parameter = parameter.required(Required::True).description(Some(description));
    Some(parameter.schema(Some(Schema::from(schema))).build())
}
