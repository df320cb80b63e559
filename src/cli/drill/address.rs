//! Where users find the application: by flags, or by the policy's first route.

use std::net::SocketAddr;

use k8s_openapi::api::networking::v1::Ingress;
use kube::{Api, Client};
use url::Url;

use super::DrillArgs;
use crate::api::SessionPolicy;
use crate::cli::CliError;
use crate::drill::Target;

/// The target of the drill.
pub async fn target(client: &Client, policy: &SessionPolicy, args: &DrillArgs) -> Result<Target, CliError> {
    let url = match &args.url {
        Some(url) => url.clone(),
        None => of_route(client, policy).await?,
    };
    let host = host(&url)?;
    let port = url
        .port_or_known_default()
        .ok_or_else(|| format!("--url {url}: expected http or https"))?;
    let place = args
        .connect
        .clone()
        .unwrap_or_else(|| format!("{}:{port}", url.host_str().unwrap_or_default()));
    let address = resolve(&place).await?;
    match url.scheme() {
        "http" => Ok(Target::http(address, &host)?),
        "https" => match &args.ca {
            Some(file) => {
                let roots = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
                Ok(Target::https(address, &host, &roots).map_err(|error| super::chain(&error))?)
            }
            None => Ok(Target::https_public(address, &host).map_err(|error| super::chain(&error))?),
        },
        other => Err(format!("--url {url}: expected http or https, found {other}").into()),
    }
}

/// Host and, where it is not the usual one, port.
fn host(url: &Url) -> Result<String, CliError> {
    let host = url
        .host_str()
        .ok_or_else(|| format!("--url {url}: there is no host in it"))?;
    if url.path() != "/" || url.query().is_some() {
        return Err(
            format!("--url {url}: expected scheme and host alone; paths belong to the requests").into(),
        );
    }
    Ok(url
        .port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

async fn resolve(place: &str) -> Result<SocketAddr, CliError> {
    let mut found = tokio::net::lookup_host(place)
        .await
        .map_err(|error| format!("{place} has no address ({error}); name one with --connect HOST:PORT"))?;
    found
        .next()
        .ok_or_else(|| format!("{place} has no address; name one with --connect HOST:PORT").into())
}

/// The URL of the first Ingress that the policy's status names.
async fn of_route(client: &Client, policy: &SessionPolicy) -> Result<Url, CliError> {
    let routes = policy.status.as_ref().map(|status| status.affinity.as_slice());
    let ingress = routes
        .unwrap_or_default()
        .iter()
        .find(|route| route.kind == "Ingress");
    let Some(route) = ingress else {
        return Err("the policy's status names no Ingress; say with --url what users type".into());
    };
    let ingresses: Api<Ingress> = Api::namespaced(client.clone(), &route.namespace);
    let ingress = ingresses
        .get(&route.name)
        .await
        .map_err(|error| super::super::status::explain(&error))?;
    let url = of_ingress(&ingress).ok_or_else(|| {
        format!(
            "Ingress {} names no host; say with --url what users type",
            route.name
        )
    })?;
    Ok(Url::parse(&url).map_err(|error| format!("Ingress {}: {url}: {error}", route.name))?)
}

/// The URL of the first rule with a whole host name.
fn of_ingress(ingress: &Ingress) -> Option<String> {
    let spec = ingress.spec.as_ref()?;
    let host = spec
        .rules
        .iter()
        .flatten()
        .filter_map(|rule| rule.host.as_ref())
        .find(|host| !host.starts_with('*'))?;
    let tls = spec
        .tls
        .iter()
        .flatten()
        .any(|tls| tls.hosts.iter().flatten().any(|named| named == host));
    let scheme = if tls { "https" } else { "http" };
    Some(format!("{scheme}://{host}/"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_url_is_that_of_the_first_rule_with_a_name() {
        let ingress: Ingress = serde_json::from_value(json!({
            "spec": {
                "rules": [{"host": "*.example.com"}, {"host": "shop.example.com"}],
                "tls": [{"hosts": ["shop.example.com"]}],
            }
        }))
        .unwrap();
        assert_eq!(of_ingress(&ingress).as_deref(), Some("https://shop.example.com/"));
        let mut plain = ingress;
        plain.spec.as_mut().unwrap().tls = None;
        assert_eq!(of_ingress(&plain).as_deref(), Some("http://shop.example.com/"));
        plain.spec.as_mut().unwrap().rules = None;
        assert_eq!(of_ingress(&plain), None);
    }

    #[test]
    fn a_url_is_scheme_and_host() {
        let parsed = |text: &str| host(&Url::parse(text).unwrap());
        assert_eq!(parsed("http://a.test").unwrap(), "a.test");
        assert_eq!(parsed("http://a.test:8080/").unwrap(), "a.test:8080");
        assert!(parsed("http://a.test/shop").is_err());
    }
}
