//! `status`: policies at a glance.

mod render;

use clap::{Args, ValueEnum};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{CliError, ConnectionArgs, output};
use crate::api::SessionPolicy;

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Name of the policy; without it all policies of the namespace are listed
    name: Option<String>,

    /// List the policies of all namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["name", "namespace"])]
    all_namespaces: bool,

    /// Format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

/// How to show policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// The objects as JSON.
    Json,
    /// The objects as YAML.
    Yaml,
}

/// Shows one policy, or lists many.
pub async fn run(args: &StatusArgs, connection: &ConnectionArgs) -> Result<(), CliError> {
    let client = connection.client().await?;
    let text = match &args.name {
        Some(name) => one(&client, name, args.output).await?,
        None => many(&client, args).await?,
    };
    Ok(output::print(&text)?)
}

async fn one(client: &Client, name: &str, format: Format) -> Result<String, CliError> {
    let policies: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource());
    let found = policies.get_opt(name).await.map_err(explain)?;
    let policy = found.ok_or_else(|| not_found(client.default_namespace(), name))?;
    match format {
        Format::Table => match parse(&policy) {
            Ok(policy) => Ok(render::policy(&policy)),
            Err(error) => Err(format!("{} is not a valid SessionPolicy: {error}", full_name(&policy)).into()),
        },
        Format::Json | Format::Yaml => print_object(&cleaned(policy)?, format),
    }
}

async fn many(client: &Client, args: &StatusArgs) -> Result<String, CliError> {
    let policies: Api<DynamicObject> = if args.all_namespaces {
        Api::all_with(client.clone(), &resource())
    } else {
        Api::default_namespaced_with(client.clone(), &resource())
    };
    let list = policies.list(&ListParams::default()).await.map_err(explain)?;
    if args.output != Format::Table {
        let items = list
            .items
            .into_iter()
            .map(cleaned)
            .collect::<Result<Vec<_>, _>>()?;
        return print_object(
            &json!({ "apiVersion": "v1", "kind": "List", "items": items }),
            args.output,
        );
    }
    if list.items.is_empty() {
        let place = if args.all_namespaces {
            "any namespace".to_owned()
        } else {
            format!("namespace {}", client.default_namespace())
        };
        eprintln!("there is no SessionPolicy in {place}");
        return Ok(String::new());
    }
    let rows: Vec<_> = list
        .items
        .iter()
        .map(|policy| (full_name(policy), parse(policy)))
        .collect();
    Ok(render::list(&rows))
}

fn resource() -> ApiResource {
    ApiResource::erase::<SessionPolicy>(&())
}

fn full_name(policy: &DynamicObject) -> String {
    format!("{}/{}", policy.namespace().unwrap_or_default(), policy.name_any())
}

fn parse(policy: &DynamicObject) -> Result<SessionPolicy, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(policy)?)
}

/// The object without `managedFields`, as kubectl shows objects.
fn cleaned(mut policy: DynamicObject) -> Result<Value, serde_json::Error> {
    policy.metadata.managed_fields = None;
    if policy.types.is_none() {
        // Items of a list come without.
        let resource = resource();
        policy.types = Some(kube::api::TypeMeta {
            api_version: resource.api_version,
            kind: resource.kind,
        });
    }
    serde_json::to_value(policy)
}

fn print_object(object: &Value, format: Format) -> Result<String, CliError> {
    if format == Format::Json {
        return Ok(format!("{}\n", serde_json::to_string_pretty(object)?));
    }
    Ok(serde_saphyr::to_string(object)?)
}

/// The sentence for a policy that is not there.
pub(super) fn not_found(namespace: &str, name: &str) -> CliError {
    format!("there is no SessionPolicy {name} in namespace {namespace}").into()
}

/// The sentence for a request that failed.
pub(super) fn explain(error: kube::Error) -> CliError {
    match error {
        kube::Error::Api(status) if status.is_not_found() => {
            "this cluster does not know SessionPolicies; is session-operator's CRD installed?".into()
        }
        kube::Error::Api(status) => format!("the API server answered: {}", status.message).into(),
        error => format!("the API server could not be asked: {error}").into(),
    }
}
