//! Texts that go into the syntax of others.

use std::fmt::Write;

use super::Endpoint;

/// Percent-encodes everything but the unreserved characters of RFC 3986 section 2.3.
pub fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// A host as it stands in a URL: an IPv6 address in brackets (RFC 3986 section 3.2.2).
pub fn url_host(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// The store as a URL of the scheme that most clients know, with user and password.
pub fn redis_url(endpoint: &Endpoint) -> String {
    url(endpoint, if endpoint.tls { "rediss" } else { "redis" })
}

/// The store as a URL, with user and password.
pub fn url(endpoint: &Endpoint, scheme: &str) -> String {
    let user = endpoint.username.as_deref().map(percent).unwrap_or_default();
    let user = match endpoint.password.as_deref().map(percent) {
        Some(password) => format!("{user}:{password}@"),
        None => String::new(),
    };
    format!(
        "{scheme}://{user}{}:{}/0",
        url_host(&endpoint.host),
        endpoint.port
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_reserved_is_encoded() {
        assert_eq!(percent("aZ9-._~"), "aZ9-._~");
        assert_eq!(
            percent("p@ss:w/o?rd#&=% ü+"),
            "p%40ss%3Aw%2Fo%3Frd%23%26%3D%25%20%C3%BC%2B"
        );
    }

    #[test]
    fn only_ipv6_addresses_get_brackets() {
        for (host, wanted) in [
            ("valkey.web.svc", "valkey.web.svc"),
            ("192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "[2001:db8::1]"),
            ("[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(url_host(host), wanted);
        }
    }
}
