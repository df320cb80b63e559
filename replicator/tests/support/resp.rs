//! A small RESP client that shows both what a reply means and what its bytes were.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::PATIENCE;
pub use super::encode::encode;

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Status(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Value>),
    /// Map, set, push, double, verbatim and so on of RESP3, by their first byte.
    Typed(char, Vec<Value>),
}

impl Value {
    pub fn text(&self) -> String {
        match self {
            Self::Status(text) | Self::Error(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Self::Int(number) => number.to_string(),
            Self::Nil => "(nil)".to_owned(),
            other => format!("{other:?}"),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

/// A blocking client.
pub struct Client {
    reader: BufReader<TcpStream>,
    seen: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            reader: BufReader::new(stream),
            seen: Vec::new(),
        })
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    /// One command, given as words.
    pub fn call(&mut self, command: &str) -> Value {
        let words: Vec<&str> = command.split(' ').collect();
        self.ask(&words)
    }

    pub fn ask<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Value {
        self.try_ask(arguments).unwrap()
    }

    pub fn try_ask<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> std::io::Result<Value> {
        self.reader.get_mut().write_all(&encode(arguments))?;
        self.seen.clear();
        self.read()
    }

    /// The next replies as bytes.
    pub fn raw(&mut self, replies: usize) -> Vec<u8> {
        self.seen.clear();
        for _ in 0..replies {
            self.read().unwrap();
        }
        std::mem::take(&mut self.seen)
    }

    /// The next reply.
    pub fn next(&mut self) -> Value {
        self.seen.clear();
        self.read().unwrap()
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            self.reader.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        self.seen.extend_from_slice(&line);
        line.truncate(line.len() - 2);
        Ok(String::from_utf8_lossy(&line).into_owned())
    }

    fn read(&mut self) -> std::io::Result<Value> {
        let line = self.line()?;
        let (mark, rest) = (line.chars().next().unwrap(), &line[1..]);
        let length = || rest.parse::<i64>().unwrap();
        Ok(match mark {
            '+' => Value::Status(rest.to_owned()),
            '-' => Value::Error(rest.to_owned()),
            ':' => Value::Int(length()),
            '_' => Value::Nil,
            '$' | '=' => match usize::try_from(length()) {
                Err(_) => Value::Nil,
                Ok(length) => {
                    let mut bytes = vec![0; length + 2];
                    self.reader.read_exact(&mut bytes)?;
                    self.seen.extend_from_slice(&bytes);
                    bytes.truncate(length);
                    Value::Bulk(bytes)
                }
            },
            '*' | '~' | '>' | '%' => match usize::try_from(length()) {
                Err(_) => Value::Nil,
                Ok(length) => {
                    let count = if mark == '%' { length * 2 } else { length };
                    let items = (0..count).map(|_| self.read()).collect::<std::io::Result<_>>()?;
                    if mark == '*' {
                        Value::Array(items)
                    } else {
                        Value::Typed(mark, items)
                    }
                }
            },
            ',' | '#' => Value::Typed(mark, vec![Value::Status(rest.to_owned())]),
            other => panic!("a reply begins with {other:?}: {line:?}"),
        })
    }
}
