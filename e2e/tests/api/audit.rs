//! The API server's audit log: who asked for what, and what came of it.

use std::path::Path;

use serde_json::Value;

/// How a running operator names itself, followed by its version.
const USER_AGENT: &str = "session-operator/";

/// One finished request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Name of the credential.
    pub credential: String,
    /// What the client says it is.
    pub user_agent: String,
    /// Verb of the API, such as `patch`.
    pub verb: String,
    /// Plural name of the resource, with its subresource.
    pub resource: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// HTTP status code.
    pub code: u64,
    /// When it was received, RFC 3339 with microseconds, so that text order is time order.
    pub received: String,
    /// The request's path and query.
    pub uri: String,
    /// What the roles say of it: `allow` or `forbid`. Admission may refuse it all the same.
    pub decision: String,
}

impl Request {
    /// Whether a running operator sent it, and not a subcommand or kubectl with the same token.
    pub fn is_of_an_operator(&self) -> bool {
        self.user_agent.starts_with(USER_AGENT) && !self.user_agent.contains("(command)")
    }

    /// Whether it changes something (a dry run does not).
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch") && !self.uri.contains("dryRun=All")
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} {} {}/{} → {} ({}, {})",
            self.received,
            self.verb,
            self.resource,
            self.namespace,
            self.name,
            self.code,
            self.user_agent,
            self.uri
        )
    }
}

/// The requests that `wanted` picks, in the order in which they ended.
pub fn requests(log: &Path, wanted: impl Fn(&Request) -> bool) -> Vec<Request> {
    let text = std::fs::read_to_string(log).unwrap();
    let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    complete
        .lines()
        .map(parse)
        .filter(|request| wanted(request))
        .collect()
}

fn parse(line: &str) -> Request {
    let event: Value = serde_json::from_str(line).unwrap();
    let text = |pointer: &str| {
        event
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let subresource = text("/objectRef/subresource");
    let mut resource = text("/objectRef/resource");
    if !subresource.is_empty() {
        resource = format!("{resource}/{subresource}");
    }
    Request {
        credential: text("/user/extra/authentication.kubernetes.io~1credential-id/0"),
        user_agent: text("/userAgent"),
        verb: text("/verb"),
        resource,
        namespace: text("/objectRef/namespace"),
        name: text("/objectRef/name"),
        code: event
            .pointer("/responseStatus/code")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
        received: text("/requestReceivedTimestamp"),
        uri: text("/requestURI"),
        decision: text("/annotations/authorization.k8s.io~1decision"),
    }
}

/// Fails with the list, if there are any.
pub fn assert_none(what: &str, requests: &[Request]) {
    let lines: Vec<String> = requests.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "{what}:\n{}", lines.join("\n"));
}
