//! The public HTTP interface, as the commands use it.

use std::io::{self, BufReader};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a whole request may take. The controller is given less.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Pages of one list: more than any cluster has.
const PAGES_MAX: usize = 1_024;
/// Every answer of a node has it.
const MARK: &str = "ck-topology";

/// One node, by its public address.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    agent: Agent,
    url: String,
}

/// What a list answers: one page, and where the next one begins.
#[derive(Debug, Deserialize)]
struct Page {
    items: Vec<serde_json::Value>,
    next_cursor: Option<String>,
}

/// What a node says of an error.
#[derive(Debug, Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    reasons: Vec<String>,
}

impl Client {
    /// `url` may leave out the scheme.
    pub(crate) fn new(url: &str) -> Result<Self, ClientError> {
        let invalid = || ClientError::Url { url: url.to_owned() };
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some(_) => return Err(invalid()),
            None => url,
        };
        let rest = rest.trim_end_matches('/');
        let is_plain = !rest.is_empty() && !rest.contains(|c: char| c.is_whitespace() || "/?#@".contains(c));
        let config = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .user_agent(concat!("clusterkit/", env!("CARGO_PKG_VERSION")))
            .build();
        is_plain.then(|| Self { agent: config.into(), url: format!("http://{rest}") }).ok_or_else(invalid)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What stands at `path`.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let request = self.agent.get(format!("{}{path}", self.url));
        let response = request.config().timeout_global(Some(REQUEST_TIMEOUT)).build().call();
        self.json(self.checked(response)?)
    }

    /// All items of the list at `path`.
    pub(crate) fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        for _ in 0..PAGES_MAX {
            let at = cursor
                .map(|cursor| format!("{}cursor={}", joint(path), escaped(&cursor)))
                .unwrap_or_default();
            let page: Page = self.get(&format!("{path}{at}"))?;
            items.extend(page.items);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        let items = items.into_iter().map(serde_json::from_value).collect::<Result<_, _>>();
        items.map_err(|_| self.strange())
    }

    /// Asks for a change. `body` says how.
    pub(crate) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let request = self.agent.post(format!("{}{path}", self.url));
        let response = request.config().timeout_global(Some(REQUEST_TIMEOUT)).build().send_json(body);
        self.json(self.checked(response)?)
    }

    /// The bytes at `path`, and the headers that came with them.
    pub(crate) fn bytes(&self, path: &str) -> Result<(HeaderMap, Vec<u8>), ClientError> {
        let request = self.agent.get(format!("{}{path}", self.url));
        let response = request.config().timeout_global(Some(REQUEST_TIMEOUT)).build().call();
        let (parts, mut body) = self.checked(response)?.into_parts();
        let bytes = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        Ok((parts.headers, bytes.map_err(|error| self.unreachable(error))?))
    }

    /// Puts `bytes` at `path`. A header may set a condition.
    pub(crate) fn put_bytes<T: DeserializeOwned>(
        &self,
        path: &str,
        condition: Option<(&str, String)>,
        bytes: &[u8],
    ) -> Result<T, ClientError> {
        let request = self.agent.put(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/octet-stream");
        let request =
            condition.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.config().timeout_global(Some(REQUEST_TIMEOUT)).build().send(bytes);
        self.json(self.checked(response)?)
    }

    /// Removes what stands at `path`. A header may set a condition.
    pub(crate) fn delete<T: DeserializeOwned>(
        &self,
        path: &str,
        condition: Option<(&str, String)>,
    ) -> Result<T, ClientError> {
        let request = self.agent.delete(format!("{}{path}", self.url));
        let request =
            condition.into_iter().fold(request, |request, (name, value)| request.header(name, value));
        let response = request.config().timeout_global(Some(REQUEST_TIMEOUT)).build().call();
        self.json(self.checked(response)?)
    }

    /// The stream of events at `path`, which ends with the node.
    pub(crate) fn stream(&self, path: &str) -> Result<BufReader<ureq::BodyReader<'static>>, ClientError> {
        let request = self.agent.get(format!("{}{path}", self.url)).header("accept", "text/event-stream");
        let request = request.config().timeout_recv_response(Some(REQUEST_TIMEOUT)).build();
        let response = self.checked(request.call())?;
        let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(BufReader::new(reader))
    }

    fn checked(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, ClientError> {
        let mut response = response.map_err(|error| self.unreachable(error))?;
        if !response.headers().contains_key(MARK) {
            return Err(self.strange());
        }
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem: Problem = response.body_mut().read_json().map_err(|_| self.strange())?;
        Err(ClientError::Refused { status, detail: problem.detail, reasons: problem.reasons })
    }

    fn json<T: DeserializeOwned>(&self, mut response: Response<Body>) -> Result<T, ClientError> {
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX);
        body.read_json().map_err(|error| match error {
            ureq::Error::Json(_) => self.strange(),
            other => self.unreachable(other),
        })
    }

    fn strange(&self) -> ClientError {
        ClientError::NotClusterKit { url: self.url.clone() }
    }

    fn unreachable(&self, error: ureq::Error) -> ClientError {
        let url = self.url.clone();
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => ClientError::Url { url },
            ureq::Error::Protocol(_) => ClientError::NotClusterKit { url },
            ureq::Error::Io(error) if is_nonsense(&error) => ClientError::NotClusterKit { url },
            other => ClientError::Unreachable { url, reason: reason(&other) },
        }
    }
}

/// Something answered, in another protocol.
fn is_nonsense(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData)
}

fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) if error.raw_os_error().is_some() => error.kind().to_string(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::HostNotFound => "there is no such host".to_owned(),
        other => other.to_string(),
    }
}

fn joint(path: &str) -> char {
    if path.contains('?') { '&' } else { '?' }
}

/// `text` as it may stand in a path or a query.
pub(crate) fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A node could not be asked, or did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ClientError {
    /// Something answered, and it was no node. Nothing changed.
    #[error("what answers at {url} is no ClusterKit node; --url or CK_URL names the public address of one")]
    NotClusterKit { url: String },
    /// The node said no. Nothing changed unless `detail` says so.
    #[error("{detail}{}", listed(reasons))]
    Refused { status: StatusCode, detail: String, reasons: Vec<String> },
    /// No answer. A change that was asked for may have happened.
    #[error("cannot reach {url}: {reason}; is a node running there? (--url or CK_URL names another)")]
    Unreachable { url: String, reason: String },
    /// The URL is none of ours. Nothing was asked.
    #[error("{url:?} is no URL of a node; write it as in http://127.0.0.1:8080")]
    Url { url: String },
}

impl ClientError {
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NotClusterKit { .. })
    }
}

fn listed(reasons: &[String]) -> String {
    if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_leave_out_its_scheme() {
        let check = |url: &str, expect: Option<&str>| {
            let client = Client::new(url).ok();
            assert_eq!(client.as_ref().map(Client::url), expect, "{url}");
        };
        check("http://127.0.0.1:8080", Some("http://127.0.0.1:8080"));
        check("http://127.0.0.1:8080/", Some("http://127.0.0.1:8080"));
        check("node-1.example:80", Some("http://node-1.example:80"));
        check("[::1]:8080", Some("http://[::1]:8080"));
        check("https://127.0.0.1:8080", None);
        check("http://127.0.0.1:8080/ui", None);
        check("http://user@127.0.0.1:8080", None);
        check("http://", None);
        check("", None);
    }

    #[test]
    fn what_may_not_stand_in_a_url_is_escaped() {
        let check = |text: &str, expect: &str| assert_eq!(escaped(text), expect);
        check("user-1_a.b~c", "user-1_a.b~c");
        check("{user:1}&x=y z", "%7Buser%3A1%7D%26x%3Dy%20z");
        check("ä", "%C3%A4");
    }
}
