//! A port of a Service as a route names it.

use std::fmt;

use serde_json::Value;

/// By name or by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryPort<'a> {
    /// By name.
    Name(&'a str),
    /// By number.
    Number(i64),
}

impl<'a> EntryPort<'a> {
    /// What the field `port` of a list entry says; a number may be written as text.
    pub fn of(port: &'a Value) -> Option<Self> {
        match port {
            Value::Number(number) => number.as_i64().map(EntryPort::Number),
            Value::String(text) => Some(text.parse().map_or(EntryPort::Name(text), EntryPort::Number)),
            _ => None,
        }
    }
}

impl fmt::Display for EntryPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What is named here may be no port name at all; it must not break the line it is printed in.
            Self::Name(name) => write!(f, "{}", name.escape_debug()),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// A Service and the port of it that an entry names, for messages.
pub fn service_and_port(name: &str, port: Option<EntryPort<'_>>) -> String {
    let port = port.map(|port| format!(", port {port}")).unwrap_or_default();
    format!("Service {name}{port}")
}
