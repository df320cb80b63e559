//! Takes out of objects and logs what must not leave the cluster.
//!
//! Errs on the safe side: what only looks like a credential is masked, too. Secrets are never shown but for their names,
//! types and keys; where the user may read values of the operator's own Secrets, those very values are masked wherever
//! else they turn up.

use std::borrow::Cow;
use std::collections::BTreeSet;

use regex::{Captures, Regex};
use serde_json::{Map, Value, json};

/// What stands in place of what was taken out.
pub const MASK: &str = "***";

/// Annotation with a copy of the whole object, values of variables included.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Variables whose values say how a program was set up and are no credentials. All others are masked.
const HARMLESS: &[&str] = &[
    "APP_ENV",
    "ASPNETCORE_ENVIRONMENT",
    "DJANGO_SETTINGS_MODULE",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "HOME",
    "HOSTNAME",
    "LANG",
    "LC_ALL",
    "LOG_LEVEL",
    "NODE_ENV",
    "NODE_OPTIONS",
    "PATH",
    "PHP_INI_SCAN_DIR",
    "PORT",
    "PYTHONPATH",
    "PYTHONUNBUFFERED",
    "RACK_ENV",
    "RAILS_ENV",
    "RUST_LOG",
    "SPRING_PROFILES_ACTIVE",
    "TZ",
];

/// Keys of Secrets whose values everybody may know.
const PUBLIC_KEYS: &[&str] = &[
    "ca.crt", "cluster", "database", "host", "port", "provider", "tls", "tls.crt", "type", "username",
];

/// Values shorter than this are not looked for elsewhere: they would be found in ordinary words.
const LEAST_VALUE: usize = 8;

/// A part of a name that says that what follows is a credential.
const TELLING: &str = r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|credential|api[_.-]?key|private[_.-]?key|access[_.-]?key|auth[_.-]?key|sessionid|session[_.-]id)";

/// Masks credentials.
pub struct Redactor {
    /// Values of Secrets, longest first, so that one that holds another is masked as a whole.
    known: Vec<String>,
    /// Patterns, and what of their match stays in front of the mask.
    patterns: Vec<Regex>,
    /// `--password`, whose value is the next argument.
    telling_flag: Regex,
    /// A name whose value is a credential.
    telling_name: Regex,
}

impl Redactor {
    /// A redactor that does not know any value yet.
    ///
    /// # Errors
    /// Never with the patterns as they are; a test makes one.
    pub fn new() -> Result<Self, regex::Error> {
        let patterns = [
            // The key itself, also where its end is cut off. First: what follows would take out parts of it.
            r"()-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)".to_owned(),
            // user:password@ of a URL, where a password may hold anything but spaces and quotes.
            r#"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@"'<>]*:[^\s"'<>]*@|[^\s/@"'<>]+@)"#.to_owned(),
            r#"(?i)((?:authorization|\bcookie|set-cookie)["']?[ \t]*[:=][ \t]*["']?)[^"'\r\n]+"#.to_owned(),
            r"(?i)\b((?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}".to_owned(),
            // JSON Web Tokens.
            r"\b()eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?".to_owned(),
            format!(
                r#"(?i)([\w.-]*{TELLING}[\w.-]*\\?["']?[ \t]*[:=][ \t]*)(?:\\?"[^"\n]*"?|'[^'\n]*'?|[^\s"',;&}}\])]+)"#
            ),
            format!(r#"(?im)((?:^|[\s"'])--?[\w-]*{TELLING}[\w-]*[ \t]+)[^\s-]\S*"#),
            r"(?i)(\b(?:requirepass|masterauth)\s+)\S+".to_owned(),
        ];
        Ok(Self {
            known: Vec::new(),
            patterns: patterns
                .iter()
                .map(|pattern| Regex::new(pattern))
                .collect::<Result<_, _>>()?,
            telling_flag: Regex::new(&format!(r"(?i)^--?[\w-]*{TELLING}[\w-]*$"))?,
            telling_name: Regex::new(&format!("(?i){TELLING}"))?,
        })
    }

    /// Remembers the values of a Secret, in plain and as they stand in the object.
    pub fn learn(&mut self, secret: &Value) {
        let mut known: BTreeSet<String> = std::mem::take(&mut self.known).into_iter().collect();
        let data = secret
            .get("data")
            .and_then(Value::as_object)
            .into_iter()
            .flatten();
        for (key, value) in data {
            let encoded = value.as_str().unwrap_or_default();
            if PUBLIC_KEYS.contains(&key.as_str()) || encoded.len() < LEAST_VALUE {
                continue;
            }
            known.insert(encoded.to_owned());
            let bytes = serde_json::from_value::<k8s_openapi::ByteString>(value.clone());
            let plain = bytes.ok().and_then(|bytes| String::from_utf8(bytes.0).ok());
            known.extend(
                plain
                    .map(|plain| plain.trim().to_owned())
                    .filter(|plain| plain.len() >= LEAST_VALUE),
            );
        }
        self.known = known.into_iter().collect();
        self.known
            .sort_by_key(|value| (std::cmp::Reverse(value.len()), value.clone()));
    }

    /// Text, such as a log, without what looks like a credential.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for value in &self.known {
            if text.contains(value.as_str()) {
                text = Cow::Owned(text.replace(value.as_str(), MASK));
            }
        }
        for pattern in &self.patterns {
            let masked = pattern.replace_all(&text, |found: &Captures<'_>| {
                let kept = found.get(1).map_or("", |kept| kept.as_str());
                // What is there for URLs only.
                let end = if found.get(0).is_some_and(|all| all.as_str().ends_with('@')) {
                    "@"
                } else {
                    ""
                };
                format!("{kept}{MASK}{end}")
            });
            if let Cow::Owned(masked) = masked {
                text = Cow::Owned(masked);
            }
        }
        text
    }

    /// An object as it may be shown.
    pub fn object(&self, object: &Value) -> Value {
        if object.get("kind").and_then(Value::as_str) == Some("Secret") {
            return secret(object);
        }
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        self.walk(&mut object);
        object
    }

    fn walk(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Cow::Owned(masked) = self.text(text) {
                    *text = masked;
                }
            }
            Value::Array(elements) => elements.iter_mut().for_each(|element| self.walk(element)),
            Value::Object(fields) => self.fields(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn fields(&self, fields: &mut Map<String, Value>) {
        for (name, value) in fields.iter_mut() {
            match (name.as_str(), value) {
                ("env", Value::Array(variables)) => variables.iter_mut().for_each(variable),
                ("httpHeaders", Value::Array(headers)) => headers.iter_mut().for_each(header),
                ("annotations", Value::Object(annotations)) => {
                    annotations.remove(LAST_APPLIED);
                    for annotation in annotations.values_mut() {
                        self.embedded(annotation);
                    }
                }
                ("args" | "command", Value::Array(words)) => self.arguments(words),
                (name, value @ Value::String(_)) if self.tells(name) => *value = json!(MASK),
                _ => {}
            }
        }
        for value in fields.values_mut() {
            self.walk(value);
        }
    }

    /// Whether the value of a field of this name is a credential. Names of and references to Secrets are none.
    fn tells(&self, name: &str) -> bool {
        self.telling_name.is_match(name) && !name.ends_with("Name") && !name.ends_with("Ref")
    }

    /// JSON inside an annotation, such as the operator's record of what it will put back, is an object, too.
    fn embedded(&self, annotation: &mut Value) {
        let Some(text) = annotation.as_str() else { return };
        if !text.trim_start().starts_with(['{', '[']) {
            return;
        }
        if let Ok(mut inner) = serde_json::from_str::<Value>(text) {
            self.walk(&mut inner);
            *annotation = json!(inner.to_string());
        }
    }

    /// A value that follows its flag as a word of its own.
    fn arguments(&self, words: &mut [Value]) {
        let mut after_flag = false;
        for word in words {
            let is_flag = word.as_str().is_some_and(|word| self.telling_flag.is_match(word));
            if after_flag && !is_flag {
                *word = json!(MASK);
            }
            after_flag = is_flag;
        }
    }
}

/// A variable of a container: its value stays where the name is known to be harmless.
fn variable(variable: &mut Value) {
    let Some(fields) = variable.as_object_mut() else {
        *variable = json!(MASK);
        return;
    };
    let harmless = fields
        .get("name")
        .and_then(Value::as_str)
        .is_some_and(|name| HARMLESS.contains(&name) || name.starts_with("SESSION_OPERATOR_"));
    if !harmless && let Some(value) = fields.get_mut("value") {
        *value = json!(MASK);
    }
}

/// A header of a probe.
fn header(header: &mut Value) {
    if let Some(value) = header.get_mut("value") {
        *value = json!(MASK);
    }
}

/// A Secret by name, type and keys.
fn secret(object: &Value) -> Value {
    let keys: BTreeSet<&String> = ["data", "stringData"]
        .into_iter()
        .filter_map(|field| object.get(field)?.as_object())
        .flat_map(|data| data.keys())
        .collect();
    let field = |path: &str| object.pointer(path).cloned().unwrap_or_default();
    json!({
        "kind": "Secret",
        "metadata": {
            "name": field("/metadata/name"),
            "namespace": field("/metadata/namespace"),
            "labels": field("/metadata/labels"),
            "creationTimestamp": field("/metadata/creationTimestamp"),
        },
        "type": field("/type"),
        "keys": keys,
    })
}
