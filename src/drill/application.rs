//! How to use one web application: a small description, usually a YAML file, from which the drill makes requests.
//!
//! Templates know two placeholders: `{user}`, the user's name, and `{n}`, the number of the write.

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::{Answer, Call};

/// A web application, as its users see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Application {
    /// Name for reports.
    pub name: String,
    /// Logs a user in.
    pub login: Step,
    /// Asks who is logged in.
    pub check: Check,
    /// Adds something to the session. Absent: contents are not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<Write>,
    /// Logs a user out. Absent: logouts cannot be drilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logout: Option<Step>,
    /// Finds the pod that gave an answer. Absent: moves between pods stay invisible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Locator>,
}

/// One request of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// HTTP method.
    #[serde(default)]
    pub method: Method,
    /// Path and query; a template.
    pub path: String,
    /// Fields of an HTML form; values are templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub form: BTreeMap<String, String>,
    /// A JSON body in place of a form; every text in it is a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// Further headers; values are templates.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Statuses that mean success. Empty: every 2xx and 3xx.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<u16>,
    /// A page to fetch first, for fields that the server puts into its forms (tokens against forged requests).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<FormPage>,
}

/// A page with a form, and the fields to take from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FormPage {
    /// Path and query of the page; a template.
    pub path: String,
    /// Form fields by name, and where their values stand on the page.
    pub fields: BTreeMap<String, Locator>,
}

/// The request that shows the state of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Check {
    /// The request. An answer with 401, 403 or a redirect means that nobody is logged in.
    pub request: Step,
    /// Finds the name of the user who is logged in; nothing found means nobody.
    pub user: Locator,
    /// Finds everything in the session that writes have put there. Absent: contents are not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Locator>,
}

/// The request that adds something to a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Write {
    /// The request.
    pub request: Step,
    /// How the thing that was added looks to `check.items`; a template that has to differ by user and number.
    pub item: String,
}

/// HTTP methods of steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl From<Method> for hyper::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

/// Finds texts in an answer.
///
/// Written as `{json: /basket/*/name}` (a JSON pointer, RFC 6901, in which `*` stands for every entry of a list),
/// `{regex: 'Hello, (\w+)'}` (group 1, or the whole match), or `{header: X-Served-By}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "LocatorText", into = "LocatorText")]
pub enum Locator {
    /// Tokens of a JSON pointer into the body.
    Json(Vec<String>),
    /// A regular expression on the body.
    Regex(Regex),
    /// A header of the answer.
    Header(HeaderName),
}

/// [`Locator`] as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum LocatorText {
    Json(String),
    Regex(String),
    Header(String),
}

/// Why a description of an application cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not YAML, or not of the expected shape.
    #[error("the description of the application is not readable")]
    Yaml(#[source] Box<serde_saphyr::Error>),
    /// A pointer that does not begin with `/`.
    #[error("json: {0:?} is no JSON pointer: it has to be empty or to begin with '/'")]
    Pointer(String),
    /// A bad regular expression.
    #[error("regex: not a regular expression")]
    Regex(#[source] regex::Error),
    /// A bad header name.
    #[error("header: {0:?} is no name of a header")]
    Header(String),
    /// A step from which no request can be made.
    #[error("{step}: no request can be made of it: {reason}")]
    Step {
        /// The step, as in the description.
        step: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A write whose items cannot be told apart.
    #[error(
        "write.item: {0:?} has to contain {{user}} and {{n}}, so that every item can be told from every other"
    )]
    Item(String),
}

/// An answer in which a locator could not look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl TryFrom<LocatorText> for Locator {
    type Error = Error;

    fn try_from(text: LocatorText) -> Result<Self, Error> {
        match text {
            LocatorText::Json(pointer) => {
                let Some(rest) = pointer.strip_prefix('/') else {
                    return if pointer.is_empty() {
                        Ok(Self::Json(Vec::new()))
                    } else {
                        Err(Error::Pointer(pointer))
                    };
                };
                // RFC 6901 section 4: ~1 before ~0, else "~01" would become "/".
                Ok(Self::Json(
                    rest.split('/')
                        .map(|t| t.replace("~1", "/").replace("~0", "~"))
                        .collect(),
                ))
            }
            LocatorText::Regex(pattern) => Regex::new(&pattern).map(Self::Regex).map_err(Error::Regex),
            LocatorText::Header(name) => HeaderName::try_from(name.as_str())
                .map(Self::Header)
                .map_err(|_| Error::Header(name)),
        }
    }
}

impl From<Locator> for LocatorText {
    fn from(locator: Locator) -> Self {
        match locator {
            Locator::Json(tokens) => {
                let escaped = tokens
                    .iter()
                    .map(|t| format!("/{}", t.replace('~', "~0").replace('/', "~1")));
                Self::Json(escaped.collect())
            }
            Locator::Regex(regex) => Self::Regex(regex.as_str().to_owned()),
            Locator::Header(name) => Self::Header(name.as_str().to_owned()),
        }
    }
}

impl Locator {
    /// The first text found; an empty one counts as none.
    pub fn first(&self, answer: &Answer) -> Result<Option<String>, Unreadable> {
        Ok(self
            .all(answer)?
            .into_iter()
            .next()
            .filter(|text| !text.is_empty()))
    }

    /// Every text found, in order.
    pub fn all(&self, answer: &Answer) -> Result<Vec<String>, Unreadable> {
        match self {
            Self::Json(tokens) => {
                let body: Value = serde_json::from_slice(&answer.body).map_err(|_| Unreadable)?;
                let mut found = Vec::new();
                collect(&body, tokens, &mut found);
                Ok(found)
            }
            Self::Regex(regex) => {
                let body = String::from_utf8_lossy(&answer.body);
                let texts = regex
                    .captures_iter(&body)
                    .filter_map(|groups| groups.get(1).or_else(|| groups.get(0)));
                Ok(texts.map(|text| text.as_str().to_owned()).collect())
            }
            Self::Header(name) => {
                let values = answer.headers.get_all(name).iter();
                values
                    .map(|value| value.to_str().map(str::to_owned).map_err(|_| Unreadable))
                    .collect()
            }
        }
    }
}

fn collect(value: &Value, tokens: &[String], found: &mut Vec<String>) {
    match (tokens.split_first(), value) {
        (None, Value::Null) => {}
        (None, Value::String(text)) => found.push(text.clone()),
        (None, other) => found.push(other.to_string()),
        (Some((token, rest)), Value::Array(entries)) if token == "*" => {
            for entry in entries {
                collect(entry, rest, found);
            }
        }
        (Some((token, rest)), Value::Array(entries)) => {
            if let Some(entry) = token.parse().ok().and_then(|index: usize| entries.get(index)) {
                collect(entry, rest, found);
            }
        }
        (Some((token, rest)), Value::Object(fields)) => {
            if let Some(field) = fields.get(token) {
                collect(field, rest, found);
            }
        }
        (Some(_), _) => {}
    }
}

/// Values of the placeholders.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// `{user}`.
    pub user: &'a str,
    /// `{n}`.
    pub n: u32,
}

impl Values<'_> {
    /// Fills a template.
    pub fn fill(&self, template: &str) -> String {
        template
            .replace("{user}", self.user)
            .replace("{n}", &self.n.to_string())
    }

    fn fill_json(&self, template: &Value) -> Value {
        match template {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(entries) => entries.iter().map(|entry| self.fill_json(entry)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(k, v)| (k.clone(), self.fill_json(v)))
                .collect(),
            other => other.clone(),
        }
    }
}

impl Step {
    /// The request, with `extra` fields beside those of the form.
    ///
    /// # Errors
    /// Says what is wrong when a template does not give a valid path or header.
    pub fn call(&self, values: Values<'_>, extra: &[(String, String)]) -> Result<Call, String> {
        let mut headers = Vec::new();
        for (name, template) in &self.headers {
            let name = HeaderName::try_from(name.as_str())
                .map_err(|_| format!("{name:?} is no name of a header"))?;
            let value = values.fill(template);
            let value =
                HeaderValue::from_str(&value).map_err(|_| format!("{value:?} is no value of a header"))?;
            headers.push((name, value));
        }
        let mut body = String::new();
        if let Some(json) = &self.json {
            if !self.form.is_empty() || !extra.is_empty() {
                return Err("it has both a form and a JSON body".to_owned());
            }
            headers.push((
                hyper::header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            ));
            body = values.fill_json(json).to_string();
        } else if !self.form.is_empty() || !extra.is_empty() {
            let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.push((hyper::header::CONTENT_TYPE, kind));
            let mut form = url::form_urlencoded::Serializer::new(&mut body);
            for (name, template) in &self.form {
                form.append_pair(name, &values.fill(template));
            }
            form.extend_pairs(extra);
        }
        Call::new(self.method.into(), &values.fill(&self.path), headers, body.into())
    }

    /// Whether a status means that the step did what it should.
    pub fn accepts(&self, status: u16) -> bool {
        if self.accept.is_empty() {
            (200..400).contains(&status)
        } else {
            self.accept.contains(&status)
        }
    }
}

impl FormPage {
    /// The request for the page.
    ///
    /// # Errors
    /// Says what is wrong when the template does not give a valid path.
    pub fn call(&self, values: Values<'_>) -> Result<Call, String> {
        Call::new(
            hyper::Method::GET,
            &values.fill(&self.path),
            Vec::new(),
            bytes::Bytes::new(),
        )
    }
}

impl Application {
    /// Reads a description in YAML (or JSON).
    ///
    /// # Errors
    /// When it is not readable, or no requests can be made of it.
    pub fn from_yaml(text: &str) -> Result<Self, Error> {
        let application: Self = serde_saphyr::from_str(text).map_err(|e| Error::Yaml(Box::new(e)))?;
        application.validate()?;
        Ok(application)
    }

    /// Makes sure that requests can be made of every step.
    ///
    /// # Errors
    /// Names the first step of which none can be made.
    pub fn validate(&self) -> Result<(), Error> {
        let write = self.write.as_ref();
        let steps = [
            ("login", Some(&self.login)),
            ("check.request", Some(&self.check.request)),
            ("write.request", write.map(|w| &w.request)),
            ("logout", self.logout.as_ref()),
        ];
        let sample = Values { user: "user1", n: 1 };
        for (name, step) in steps.into_iter().filter_map(|(name, step)| Some((name, step?))) {
            let page = step
                .page
                .as_ref()
                .map_or(Ok(()), |page| page.call(sample).map(|_| ()));
            page.and_then(|()| step.call(sample, &[]))
                .map_err(|reason| Error::Step { step: name, reason })?;
        }
        match write {
            Some(w) if !(w.item.contains("{user}") && w.item.contains("{n}")) => {
                Err(Error::Item(w.item.clone()))
            }
            _ => Ok(()),
        }
    }
}
