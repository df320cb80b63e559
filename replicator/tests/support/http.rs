//! A small HTTP client that knows one cookie.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::PATIENCE;

/// What a browser needs of a response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// `name=value` of the last cookie that was set.
    pub cookie: Option<String>,
    pub body: String,
}

/// One request over a connection of its own; nothing when nobody answers.
pub fn request(port: u16, method: &str, path: &str, cookie: Option<&str>) -> Option<Response> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let cookie = cookie
        .map(|cookie| format!("Cookie: {cookie}\r\n"))
        .unwrap_or_default();
    let host = format!("Host: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: 0\r\n");
    // One segment: some servers answer before they have read a request that comes in several.
    stream
        .write_all(format!("{method} {path} HTTP/1.0\r\n{host}{cookie}\r\n").as_bytes())
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let cookie = lines
        .filter_map(|line| line.split_once(": "))
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        .filter_map(|(_, value)| value.split(';').next())
        .next_back()
        .map(str::to_owned);
    Some(Response {
        status,
        cookie,
        body: body.to_owned(),
    })
}
