//! `redis[s]://[[user]:password@]host[:port][/database]`.

/// Where the upstream store is, and how to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Over TLS.
    pub tls: bool,
    /// Name or address; an IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// ACL user; the default one without.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Database.
    pub database: u8,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.address())
    }
}

impl Target {
    /// `host:port`.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Reads a URL; `None` when it is none of the form above.
    pub fn parse(url: &str) -> Option<Self> {
        let (tls, rest) = match url.split_once("://")? {
            ("redis", rest) => (false, rest),
            ("rediss", rest) => (true, rest),
            _ => return None,
        };
        let (authority, database) = match rest.split_once('/') {
            Some((authority, "")) => (authority, 0),
            Some((authority, database)) => (authority, database.parse().ok().filter(|n| *n < 16)?),
            None => (rest, 0),
        };
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (user, password) = match login.map(|login| login.split_once(':')) {
            None => (None, None),
            Some(Some((user, password))) => (Some(decoded(user)?), Some(decoded(password)?)),
            Some(None) => return None,
        };
        let (host, port) = if let Some(rest) = place.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            let port = match rest.strip_prefix(':') {
                Some(port) => port.parse().ok()?,
                None if rest.is_empty() => 6_379,
                None => return None,
            };
            (host, port)
        } else {
            match place.split_once(':') {
                Some((host, port)) => (host, port.parse().ok()?),
                None => (place, 6_379),
            }
        };
        (!host.is_empty()).then(|| Self {
            tls,
            host: host.to_owned(),
            port,
            user: user.filter(|user| !user.is_empty()),
            password,
            database,
        })
    }
}

/// Takes `%41` back to `A`.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_found() {
        let full = Target::parse("rediss://shop:a%3Ab%40@[::1]:7000/3").unwrap();
        assert!(full.tls);
        assert_eq!(full.address(), "[::1]:7000");
        assert_eq!(
            (full.user.as_deref(), full.password.as_deref()),
            (Some("shop"), Some("a:b@"))
        );
        assert_eq!(full.database, 3);
        let short = Target::parse("redis://:secret@store").unwrap();
        assert_eq!(short.address(), "store:6379");
        assert_eq!((short.user, short.password.as_deref()), (None, Some("secret")));
        assert!(!format!("{:?}", Target::parse("redis://:secret@store").unwrap()).contains("secret"));
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for url in [
            "store:6379",
            "http://store",
            "redis://",
            "redis://a@b",
            "redis://h:x",
            "redis://h/99",
        ] {
            assert_eq!(Target::parse(url), None, "{url}");
        }
    }
}
