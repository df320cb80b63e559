//! The binding Secret: what a client has to know, by the keys of the Service Binding specification
//! (<https://servicebinding.io/spec/core/1.1.0/#well-known-secret-entries>), and what the preset adds.

use std::collections::BTreeMap;

use crate::api::session_store::Engine;
use crate::framework::{Endpoint, Preset};

/// Type of the Secret, as the specification wants it. It stays as it was made: the type of a Secret cannot be changed.
pub fn secret_type(engine: Engine) -> String {
    format!("servicebinding.io/{}", protocol(engine))
}

/// What clients speak.
fn protocol(engine: Engine) -> &'static str {
    match engine {
        Engine::Valkey | Engine::Redis => "redis",
        Engine::Memcached => "memcached",
    }
}

/// Key with the certificate authority.
pub const CA_KEY: &str = "ca.crt";

/// Contents of the Secret.
pub fn data(
    endpoint: &Endpoint,
    ca: Option<&str>,
    preset: &dyn Preset,
    ttl_seconds: Option<i32>,
) -> BTreeMap<String, String> {
    let mut data = BTreeMap::from([
        ("type".to_owned(), protocol(endpoint.engine).to_owned()),
        (
            "provider".to_owned(),
            match endpoint.engine {
                Engine::Valkey => "valkey",
                Engine::Redis => "redis",
                Engine::Memcached => "memcached",
            }
            .to_owned(),
        ),
        ("host".to_owned(), endpoint.host.clone()),
        ("port".to_owned(), endpoint.port.to_string()),
        ("tls".to_owned(), endpoint.tls.to_string()),
        ("key-prefix".to_owned(), endpoint.key_prefix.clone()),
        ("uri".to_owned(), uri(endpoint)),
    ]);
    if endpoint.cluster {
        data.insert("cluster".to_owned(), "true".to_owned());
        data.insert("nodes".to_owned(), endpoint.nodes().join(","));
    }
    let optional = [
        ("username", endpoint.username.as_deref()),
        ("password", endpoint.password.as_deref()),
        (CA_KEY, ca),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            data.insert(key.to_owned(), value.to_owned());
        }
    }
    data.extend(preset.binding_keys(endpoint, ttl_seconds));
    data
}

/// `redis://` or `rediss://`, with credentials (<https://www.iana.org/assignments/uri-schemes/prov/redis>); `memcached://` where
/// there are none.
pub fn uri(endpoint: &Endpoint) -> String {
    if endpoint.engine == Engine::Memcached {
        return format!("memcached://{}:{}", endpoint.host, endpoint.port);
    }
    let scheme = if endpoint.tls { "rediss" } else { "redis" };
    let encode = |text: &str| {
        url::form_urlencoded::byte_serialize(text.as_bytes())
            .collect::<String>()
            .replace('+', "%20")
    };
    let user = endpoint.username.as_deref().map(encode).unwrap_or_default();
    let credentials = endpoint
        .password
        .as_deref()
        .map(|password| format!("{user}:{}@", encode(password)))
        .unwrap_or_default();
    format!("{scheme}://{credentials}{}:{}/0", endpoint.host, endpoint.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::session_policy::Framework;

    #[test]
    fn credentials_in_the_uri_are_percent_encoded() {
        let endpoint = Endpoint {
            engine: Engine::Valkey,
            cluster: false,
            host: "store.web.svc".to_owned(),
            members: Vec::new(),
            port: 6379,
            tls: true,
            own_authority: true,
            username: Some("shop".to_owned()),
            password: Some("a b/c@d:+".to_owned()),
            key_prefix: "shop".to_owned(),
        };
        assert_eq!(
            uri(&endpoint),
            "rediss://shop:a%20b%2Fc%40d%3A%2B@store.web.svc:6379/0"
        );
        let open = Endpoint {
            tls: false,
            username: None,
            password: None,
            ..endpoint
        };
        assert_eq!(uri(&open), "redis://store.web.svc:6379/0");
        let memcached = Endpoint {
            engine: Engine::Memcached,
            port: 11211,
            ..open
        };
        assert_eq!(uri(&memcached), "memcached://store.web.svc:11211");
        let data = data(&memcached, None, crate::framework::preset(Framework::Php), None);
        for (key, value) in [
            ("type", "memcached"),
            ("provider", "memcached"),
            ("php-save-path", "store.web.svc:11211"),
        ] {
            assert_eq!(data.get(key).map(String::as_str), Some(value), "{key}");
        }
        assert!(!data.contains_key("password"), "{data:?}");
    }
}
