//! What stands before a request and before what comes back: a version, the service, and a namespace.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec;
use crate::namespace::Namespace;

/// The version of all bytes of this crate.
const VERSION: u8 = 1;
/// In an answer: no service was reached, and a [`RequestError`] follows.
const SERVICE_NONE: u8 = 0;
/// The service [`kv`](crate::kv).
pub(crate) const SERVICE_KV: u8 = 1;

/// No service could take the request. Nothing changed, and the same bytes will fail again on this version of the
/// program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// What follows the header is no request of the service that this version knows, or the header ends early.
    #[error("the request is malformed")]
    Malformed,
    /// The namespace has a name that none can have.
    #[error("the name of the namespace is not allowed")]
    NamespaceInvalid,
    /// There is no such service.
    #[error("there is no service {service}")]
    ServiceUnknown {
        /// The service byte.
        service: u8,
    },
    /// A newer version wrote it.
    #[error("the request has version {version}, and {VERSION} is known")]
    VersionUnknown {
        /// The version byte.
        version: u8,
    },
}

/// What came back is not what was hoped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The bytes are no answer of the service that this version knows. The request may have taken effect.
    #[error("the answer is malformed")]
    Malformed,
    /// No service could take the request. Nothing changed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Writes a request or an event behind its header.
pub(crate) fn write_request<T: Serialize>(service: u8, namespace: &Namespace, value: &T) -> Bytes {
    let mut bytes = vec![VERSION, service];
    namespace.write(&mut bytes);
    codec::write(value, bytes).into()
}

/// Reads a request or an event of one service.
pub(crate) fn read_request<T: DeserializeOwned>(
    service: u8,
    bytes: &[u8],
) -> Result<(Namespace, T), RequestError> {
    let (found, rest) = match bytes {
        [VERSION, found, rest @ ..] => (*found, rest),
        [VERSION] | [] => return Err(RequestError::Malformed),
        [version, ..] => return Err(RequestError::VersionUnknown { version: *version }),
    };
    if found != service {
        return Err(RequestError::ServiceUnknown { service: found });
    }
    let (count, rest) = rest.split_first().ok_or(RequestError::Malformed)?;
    let (name, body) = rest.split_at_checked(usize::from(*count)).ok_or(RequestError::Malformed)?;
    let namespace = Namespace::read(name).map_err(|_| RequestError::NamespaceInvalid)?;
    Ok((namespace, codec::read(body).ok_or(RequestError::Malformed)?))
}

/// Writes what a service answers.
pub(crate) fn write_answer<T: Serialize>(service: u8, answer: &T) -> Bytes {
    codec::write(answer, vec![VERSION, service]).into()
}

/// Writes that no service could take a request.
pub(crate) fn write_error(error: RequestError) -> Bytes {
    write_answer(SERVICE_NONE, &error)
}

/// Reads what a service answered.
pub(crate) fn read_answer<T: DeserializeOwned>(service: u8, bytes: &[u8]) -> Result<T, AnswerError> {
    match bytes {
        [VERSION, SERVICE_NONE, body @ ..] => Err(match codec::read::<RequestError>(body) {
            Some(error) => error.into(),
            None => AnswerError::Malformed,
        }),
        [VERSION, found, body @ ..] if *found == service => codec::read(body).ok_or(AnswerError::Malformed),
        _ => Err(AnswerError::Malformed),
    }
}
