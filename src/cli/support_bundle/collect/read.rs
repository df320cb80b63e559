//! Single reads: what fails becomes a line of the report.

use kube::Api;
use kube::api::ListParams;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::super::kinds::Kind;
use super::super::pick::{name, text};
use super::Collector;
use crate::runtime::client::{explain, is_not_found};

/// Objects of a list that are asked for at once.
const PAGE: u32 = 250;

impl Collector<'_> {
    pub(super) fn keep(&mut self, folder: &str, objects: Vec<Value>) {
        for object in objects {
            let kind = text(&object, "/kind").to_owned();
            let file = format!("{folder}/{kind}-{}.yaml", file_name(name(&object)));
            self.about.insert((kind, name(&object).to_owned()));
            self.raw.objects.insert(file, object);
        }
    }

    pub(super) fn problem(&mut self, what: &str, error: &kube::Error) {
        self.raw.problems.push(format!("{what}: {}", explain(error)));
    }

    /// One object of the namespace; one that is not there is a line of the report.
    pub(super) async fn get(&mut self, kind: Kind, name: &str) -> Option<Value> {
        let found = self.get_quietly(kind, name).await;
        if found.is_none() {
            let line = format!("{} {name}: there is none that could be read", kind.name);
            self.raw.problems.push(line);
        }
        found
    }

    pub(super) async fn get_quietly(&mut self, kind: Kind, name: &str) -> Option<Value> {
        let api = self.api(kind);
        match api.get_opt(name).await {
            Ok(found) => found.map(|object| with_kind(object, kind)),
            Err(error) => {
                self.problem(&format!("{} {name}", kind.name), &error);
                None
            }
        }
    }

    /// Objects of the namespace; a kind that cannot be listed is a line of the report.
    pub(super) async fn list(&mut self, kind: Kind, labels: Option<&str>) -> Vec<Value> {
        let api = self.api(kind);
        let what = format!("{} in namespace {}", kind.plural, self.wanted.namespace);
        match self.read(kind, api, labels).await {
            Ok(objects) => objects,
            Err(error) if is_not_found(&error) => {
                let line = format!("{what}: this cluster does not serve the kind");
                self.raw.problems.push(line);
                Vec::new()
            }
            Err(error) => {
                self.problem(&what, &error);
                Vec::new()
            }
        }
    }

    pub(super) async fn read(
        &self,
        kind: Kind,
        api: Api<DynamicObject>,
        labels: Option<&str>,
    ) -> kube::Result<Vec<Value>> {
        let mut params = ListParams::default().limit(PAGE);
        params.label_selector = labels.map(str::to_owned);
        let mut objects = Vec::new();
        loop {
            let page = api.list(&params).await?;
            objects.extend(page.items.into_iter().map(|object| with_kind(object, kind)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(objects),
            }
        }
    }

    fn api(&self, kind: Kind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.wanted.namespace, &kind.resource())
    }
}

/// Items of lists come without their kind.
fn with_kind(object: DynamicObject, kind: Kind) -> Value {
    let resource = kind.resource();
    // Objects from an API server have a form in JSON.
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.insert("apiVersion".to_owned(), json!(resource.api_version));
        fields.insert("kind".to_owned(), json!(resource.kind));
    }
    value
}

/// A name as part of a path: nothing that means something to a file system.
pub fn file_name(name: &str) -> String {
    name.chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' => character,
            _ => '_',
        })
        .collect()
}
