//! The binding Secret: what a client has to know, by the keys of the Service Binding specification
//! (<https://servicebinding.io/spec/core/1.1.0/#well-known-secret-entries>), and what the preset adds.

use std::collections::BTreeMap;

use crate::api::session_store::Engine;
use crate::framework::{Endpoint, Preset};

/// Type of the Secret, as the specification wants it.
pub const SECRET_TYPE: &str = "servicebinding.io/redis";

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
        ("type".to_owned(), "redis".to_owned()),
        (
            "provider".to_owned(),
            match endpoint.engine {
                Engine::Valkey => "valkey",
                Engine::Redis => "redis",
            }
            .to_owned(),
        ),
        ("host".to_owned(), endpoint.host.clone()),
        ("port".to_owned(), endpoint.port.to_string()),
        ("tls".to_owned(), endpoint.tls.to_string()),
        ("key-prefix".to_owned(), endpoint.key_prefix.clone()),
        ("uri".to_owned(), uri(endpoint)),
    ]);
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

/// `redis://` or `rediss://`, with credentials (<https://www.iana.org/assignments/uri-schemes/prov/redis>).
pub fn uri(endpoint: &Endpoint) -> String {
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

    #[test]
    fn credentials_in_the_uri_are_percent_encoded() {
        let endpoint = Endpoint {
            engine: Engine::Valkey,
            cluster: false,
            host: "store.web.svc".to_owned(),
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
    }
}
