//! One table of routes, out of which both the router and its description are made, so that neither
//! can have what the other lacks.

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

/// One method of one route.
pub(super) struct Endpoint {
    pub(super) method: HttpMethod,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<TypeDoc>,
    pub(super) answers: Vec<Answer>,
    pub(super) alternative: Option<TypeDoc>,
    pub(super) is_conditional: bool,
    pub(super) is_probe: bool,
    pub(super) codes: Vec<Code>,
    handler: MethodRouter<Api>,
}

impl Endpoint {
    pub(super) fn get<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(HttpMethod::Get, path, routing::get(handler))
    }

    pub(super) fn post<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(HttpMethod::Post, path, routing::post(handler))
    }

    pub(super) fn put<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(HttpMethod::Put, path, routing::put(handler))
    }

    pub(super) fn delete<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Self {
        Self::new(HttpMethod::Delete, path, routing::delete(handler))
    }

    fn new(method: HttpMethod, path: &'static str, handler: MethodRouter<Api>) -> Self {
        let parameters = path.split('/').filter_map(path_parameter).collect();
        Self {
            method,
            path,
            summary: "",
            parameters,
            body: None,
            answers: Vec::new(),
            alternative: None,
            is_conditional: false,
            is_probe: false,
            codes: Vec::new(),
            handler,
        }
    }

    pub(super) fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// Takes the query `T`.
    pub(super) fn query<T: IntoParams>(mut self) -> Self {
        self.parameters.extend(T::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// Takes the header `name`.
    pub(super) fn header(mut self, name: &str, description: &str) -> Self {
        let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Header);
        let parameter = parameter.required(Required::False).description(Some(description));
        self.parameters.push(parameter.schema(Some(String::schema())).build());
        self
    }

    /// Takes `T` as JSON.
    pub(super) fn body<T: ToSchema>(mut self) -> Self {
        self.body = Some(TypeDoc::of::<T>());
        self.fails(&[Code::BodyTooLarge, Code::MalformedJson, Code::UnknownField, Code::UnsupportedMediaType])
    }

    /// Answers with `T` as JSON.
    pub(super) fn json<T: ToSchema>(mut self, description: &'static str) -> Self {
        self.answers.push(Answer { description, media_type: JSON, body: Some(TypeDoc::of::<T>()) });
        self
    }

    /// Answers with `T` instead, where the query asks for it.
    pub(super) fn json_or<T: ToSchema>(mut self) -> Self {
        self.alternative = Some(TypeDoc::of::<T>());
        self
    }

    /// Answers with text of this media type.
    pub(super) fn text(mut self, media_type: &'static str, description: &'static str) -> Self {
        self.answers.push(Answer { description, media_type, body: None });
        self
    }

    /// Answers 304 to who has this version.
    pub(super) fn conditional(mut self) -> Self {
        self.is_conditional = true;
        self.header("if-none-match", "The `ETag` of the version that the client has.")
    }

    /// Answers 503, and in the same shape, while what it tells of is not so.
    pub(super) fn probe(mut self) -> Self {
        self.is_probe = true;
        self.query::<ProbeQuery>()
    }

    /// Fails with these codes.
    pub(super) fn fails(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    /// Fails as every change may.
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
pub(super) fn router(endpoints: Vec<Endpoint>) -> Router<Api> {
    endpoints
        .into_iter()
        .fold(Router::new(), |router, endpoint| router.route(endpoint.path, endpoint.handler))
}

fn path_parameter(segment: &str) -> Option<Parameter> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let (description, pattern) = match name {
        "partition" => ("A partition, as `5` or `partition-5`.", "^(partition-)?[0-9]{1,9}$"),
        _ => ("The id of a node.", "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    };
    let schema = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build();
    let parameter = ParameterBuilder::new().name(name).parameter_in(ParameterIn::Path);
    let parameter = parameter.required(Required::True).description(Some(description));
    Some(parameter.schema(Some(Schema::from(schema))).build())
}
