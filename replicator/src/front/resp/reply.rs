//! Replies in RESP2 and RESP3.

use super::number::{format_f64, push_i64, push_u64};

/// The version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP2, what every connection begins with.
    #[default]
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

impl Protocol {
    /// The number in HELLO.
    pub fn number(self) -> i64 {
        match self {
            Self::Resp2 => 2,
            Self::Resp3 => 3,
        }
    }
}

/// Writes replies behind what a buffer holds.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

impl<'a> Writer<'a> {
    /// A writer for one connection.
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The version that is written.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Changes the version for what follows.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A status line. `text` is ours and holds no line break.
    pub fn status(&mut self, text: &str) {
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.line_end();
    }

    /// An error. Line breaks, which could come from a client's own words, become blanks.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.out.push(b'-');
        self.out.extend(text.as_ref().iter().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            other => *other,
        }));
        self.line_end();
    }

    /// A number.
    pub fn integer(&mut self, value: i64) {
        match value {
            0 => self.out.extend_from_slice(b":0\r\n"),
            1 => self.out.extend_from_slice(b":1\r\n"),
            other => {
                self.out.push(b':');
                push_i64(self.out, other);
                self.line_end();
            }
        }
    }

    /// A string of bytes.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.length(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.line_end();
    }

    /// No value.
    pub fn nil(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n".as_slice(),
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// No array (an EXEC that did not take place).
    pub fn nil_array(&mut self) {
        self.out.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n".as_slice(),
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// The head of an array; `length` replies have to follow.
    pub fn array(&mut self, length: usize) {
        self.length(b'*', length);
    }

    /// The head of a map; `pairs` times two replies have to follow.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length(b'*', pairs * 2),
            Protocol::Resp3 => self.length(b'%', pairs),
        }
    }

    /// The head of a set.
    pub fn set(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length(b'*', length),
            Protocol::Resp3 => self.length(b'~', length),
        }
    }

    /// The head of a message that answers no request.
    pub fn push(&mut self, length: usize) {
        match self.protocol {
            Protocol::Resp2 => self.length(b'*', length),
            Protocol::Resp3 => self.length(b'>', length),
        }
    }

    /// A floating point number.
    pub fn double(&mut self, value: f64) {
        let text = format_f64(value);
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.out.push(b',');
                self.out.extend_from_slice(text.as_bytes());
                self.line_end();
            }
        }
    }

    /// Text for people (INFO).
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.length(b'=', text.len() + 4);
                self.out.extend_from_slice(b"txt:");
                self.out.extend_from_slice(text.as_bytes());
                self.line_end();
            }
        }
    }

    /// Replies that are already encoded for this connection.
    pub fn encoded(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Bytes that wait to be sent.
    pub fn pending(&self) -> usize {
        self.out.len()
    }

    fn length(&mut self, mark: u8, length: usize) {
        self.out.push(mark);
        // `usize` is at most 64 bits wide on every platform that Kubernetes runs on.
        push_u64(self.out, u64::try_from(length).unwrap_or(u64::MAX));
        self.line_end();
    }

    fn line_end(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Writer<'_>)) -> (String, String) {
        let text = |protocol| {
            let mut out = Vec::new();
            write(&mut Writer::new(&mut out, protocol));
            String::from_utf8(out).unwrap()
        };
        (text(Protocol::Resp2), text(Protocol::Resp3))
    }

    #[test]
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the methods by themselves are not general enough"
    )]
    fn what_differs_between_the_versions() {
        assert_eq!(both(|w| w.nil()), ("$-1\r\n".into(), "_\r\n".into()));
        assert_eq!(both(|w| w.nil_array()), ("*-1\r\n".into(), "_\r\n".into()));
        assert_eq!(both(|w| w.map(2)), ("*4\r\n".into(), "%2\r\n".into()));
        assert_eq!(both(|w| w.set(2)), ("*2\r\n".into(), "~2\r\n".into()));
        assert_eq!(both(|w| w.push(3)), ("*3\r\n".into(), ">3\r\n".into()));
        assert_eq!(
            both(|w| w.double(1.5)),
            ("$3\r\n1.5\r\n".into(), ",1.5\r\n".into())
        );
        assert_eq!(
            both(|w| w.verbatim("ab")),
            ("$2\r\nab\r\n".into(), "=6\r\ntxt:ab\r\n".into())
        );
    }

    #[test]
    fn what_is_the_same_in_both() {
        for (write, expected) in [
            (
                Box::new(|w: &mut Writer<'_>| w.ok()) as Box<dyn Fn(&mut Writer<'_>)>,
                "+OK\r\n",
            ),
            (Box::new(|w| w.status("QUEUED")), "+QUEUED\r\n"),
            (Box::new(|w| w.error("ERR a\r\nb")), "-ERR a  b\r\n"),
            (Box::new(|w| w.integer(-12)), ":-12\r\n"),
            (Box::new(|w| w.bulk(b"")), "$0\r\n\r\n"),
            (Box::new(|w| w.array(0)), "*0\r\n"),
        ] {
            assert_eq!(both(write), (expected.to_owned(), expected.to_owned()));
        }
    }
}
