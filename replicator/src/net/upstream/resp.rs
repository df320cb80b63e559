//! The client's side of RESP2: requests out, replies in, with bounds.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};

/// Longest line of a reply, bytes.
const MAX_LINE: u64 = 64 << 10;
/// Longest string in a reply, bytes: no session is longer.
const MAX_STRING: usize = 64 << 20;
/// Most elements of an array.
const MAX_ELEMENTS: usize = 1 << 20;
/// Arrays in arrays.
const MAX_DEPTH: u8 = 8;

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A status.
    Status(String),
    /// An error, code word first.
    Error(String),
    /// A number.
    Int(i64),
    /// A string.
    Bytes(Vec<u8>),
    /// Nothing.
    Nil,
    /// Several.
    Array(Vec<Value>),
}

impl Value {
    /// The elements of an array of strings; anything else is left out.
    pub fn into_strings(self) -> Vec<Vec<u8>> {
        let Self::Array(items) = self else {
            return Vec::new();
        };
        items
            .into_iter()
            .filter_map(|item| match item {
                Self::Bytes(bytes) => Some(bytes),
                _ => None,
            })
            .collect()
    }
}

/// Appends a request.
pub fn encode(words: &[Vec<u8>], out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// Reads one reply.
///
/// # Errors
/// The connection ended, or what came is no reply within the bounds.
pub async fn read<R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<Value> {
    read_at(reader, 0).await
}

async fn read_at<R: AsyncBufRead + Unpin>(reader: &mut R, depth: u8) -> io::Result<Value> {
    let mut line = Vec::new();
    (&mut *reader).take(MAX_LINE).read_until(b'\n', &mut line).await?;
    let Some(text) = line.strip_suffix(b"\r\n") else {
        return Err(if line.is_empty() {
            io::ErrorKind::UnexpectedEof.into()
        } else {
            bad("a line without end")
        });
    };
    let text = String::from_utf8_lossy(text);
    let mut rest = text.chars();
    let kind = rest.next();
    let rest = rest.as_str();
    let number = || {
        rest.parse::<i64>()
            .map_err(|_| bad("no number where one has to be"))
    };
    match kind {
        Some('+') => Ok(Value::Status(rest.to_owned())),
        Some('-') => Ok(Value::Error(rest.to_owned())),
        Some(':') => Ok(Value::Int(number()?)),
        Some('$') => match length(number()?, MAX_STRING)? {
            None => Ok(Value::Nil),
            Some(length) => {
                let mut bytes = vec![0; length + 2];
                reader.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Ok(Value::Bytes(bytes))
            }
        },
        Some('*') => match length(number()?, MAX_ELEMENTS)? {
            None => Ok(Value::Nil),
            Some(_) if depth >= MAX_DEPTH => Err(bad("arrays too deep")),
            Some(length) => {
                let mut items = Vec::with_capacity(length.min(1_024));
                for _ in 0..length {
                    items.push(Box::pin(read_at(reader, depth + 1)).await?);
                }
                Ok(Value::Array(items))
            }
        },
        _ => Err(bad("no reply of RESP2")),
    }
}

fn length(number: i64, most: usize) -> io::Result<Option<usize>> {
    match usize::try_from(number) {
        Ok(length) if length <= most => Ok(Some(length)),
        Err(_) if number == -1 => Ok(None),
        _ => Err(bad("longer than allowed")),
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn replies_are_read_one_after_the_other() {
        let mut input: &[u8] = b"+OK\r\n-MOVED 7 h:1\r\n:-3\r\n$2\r\nab\r\n$-1\r\n*2\r\n$1\r\na\r\n*0\r\n";
        let expected = [
            Value::Status("OK".into()),
            Value::Error("MOVED 7 h:1".into()),
            Value::Int(-3),
            Value::Bytes(b"ab".to_vec()),
            Value::Nil,
            Value::Array(vec![Value::Bytes(b"a".to_vec()), Value::Array(Vec::new())]),
        ];
        for value in expected {
            assert_eq!(read(&mut input).await.unwrap(), value);
        }
        assert_eq!(
            read(&mut input).await.unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }

    #[tokio::test]
    async fn what_is_too_long_or_too_deep_is_refused() {
        let deep = "*1\r\n".repeat(20);
        for input in ["$99999999999\r\n", "*99999999\r\n", "$-7\r\n", "?\r\n", &deep] {
            assert_eq!(
                read(&mut input.as_bytes()).await.unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{input}"
            );
        }
    }
}
