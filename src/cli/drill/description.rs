//! How an application is used: from a file, or from flags.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::CliError;
use crate::drill::Application;

/// What describes the application.
#[derive(Args, Debug)]
#[command(next_help_heading = "Application")]
pub struct DescriptionArgs {
    /// YAML file that describes how the application is used (docs/drill.md); instead of the flags below
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with_all = ["login", "check", "user", "logout", "pod"])]
    application: Option<PathBuf>,

    /// The request that logs a user in, as "METHOD PATH [FORM]"; {user} stands for the user's name:
    /// "POST /login name={user}&password=secret"
    #[arg(long, value_name = "REQUEST", required_unless_present = "application")]
    login: Option<String>,

    /// The request that shows who is logged in, as "[METHOD] PATH"
    #[arg(long, value_name = "REQUEST", required_unless_present = "application")]
    check: Option<String>,

    /// Where its answer says so: json:POINTER, regex:EXPRESSION or header:NAME
    #[arg(long, value_name = "LOCATOR", required_unless_present = "application")]
    user: Option<String>,

    /// The request that logs a user out
    #[arg(long, value_name = "REQUEST")]
    logout: Option<String>,

    /// Where answers name the pod that gave them
    #[arg(long, value_name = "LOCATOR")]
    pod: Option<String>,
}

impl DescriptionArgs {
    /// The application.
    pub fn application(&self) -> Result<Application, CliError> {
        if let Some(file) = &self.application {
            let text =
                std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            return Application::from_yaml(&text)
                .map_err(|error| format!("{}: {}", file.display(), super::chain(&error)).into());
        }
        let described = self.described()?;
        Application::from_yaml(&described.to_string()).map_err(|error| super::chain(&error).into())
    }

    fn described(&self) -> Result<Value, String> {
        let step = |flag: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => step(text)
                .map(Some)
                .map_err(|wrong| format!("--{flag} {text:?}: {wrong}")),
        };
        let locator = |flag: &str, text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => locator(text)
                .map(Some)
                .map_err(|wrong| format!("--{flag} {text:?}: {wrong}")),
        };
        let mut described = Map::new();
        described.insert("name".to_owned(), json!("application"));
        described.insert("login".to_owned(), json!(step("login", &self.login)?));
        described.insert(
            "check".to_owned(),
            json!({"request": step("check", &self.check)?, "user": locator("user", &self.user)?}),
        );
        if let Some(logout) = step("logout", &self.logout)? {
            described.insert("logout".to_owned(), logout);
        }
        if let Some(pod) = locator("pod", &self.pod)? {
            described.insert("pod".to_owned(), pod);
        }
        Ok(Value::Object(described))
    }
}

/// `METHOD PATH [FORM]`, or a path alone.
fn step(text: &str) -> Result<Value, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (method, path, form) = match words.as_slice() {
        [path] if path.starts_with('/') => ("GET", *path, None),
        [method, path] => (*method, *path, None),
        [method, path, form] => (*method, *path, Some(*form)),
        _ => return Err("expected METHOD PATH [FORM], such as \"POST /login name={user}\"".to_owned()),
    };
    let fields: Map<String, Value> = url::form_urlencoded::parse(form.unwrap_or_default().as_bytes())
        .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
        .collect();
    Ok(json!({"method": method.to_uppercase(), "path": path, "form": fields}))
}

/// `json:…`, `regex:…` or `header:…`.
fn locator(text: &str) -> Result<Value, String> {
    match text.split_once(':') {
        Some((kind @ ("json" | "regex" | "header"), rest)) => Ok(json!({ kind: rest })),
        _ => Err("expected json:POINTER, regex:EXPRESSION or header:NAME".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(login: &str, check: &str, user: &str) -> DescriptionArgs {
        DescriptionArgs {
            application: None,
            login: Some(login.to_owned()),
            check: Some(check.to_owned()),
            user: Some(user.to_owned()),
            logout: Some("POST /logout".to_owned()),
            pod: Some("header:X-Served-By".to_owned()),
        }
    }

    #[test]
    fn flags_say_what_a_file_would() {
        let flags = flags(
            "post /login name={user}&password=a%26b",
            "/whoami",
            "json:/user/name",
        );
        assert_eq!(
            flags.described().unwrap(),
            json!({
                "name": "application",
                "login": {"method": "POST", "path": "/login", "form": {"name": "{user}", "password": "a&b"}},
                "check": {"request": {"method": "GET", "path": "/whoami", "form": {}}, "user": {"json": "/user/name"}},
                "logout": {"method": "POST", "path": "/logout", "form": {}},
                "pod": {"header": "X-Served-By"},
            })
        );
        assert!(flags.application().is_ok());
    }

    #[test]
    fn a_bad_flag_is_named_with_what_was_expected() {
        for (login, check, user, words) in [
            ("login", "/", "json:/u", "--login \"login\": expected METHOD PATH"),
            (
                "POST /login",
                "GET",
                "json:/u",
                "--check \"GET\": expected METHOD PATH",
            ),
            ("POST /login", "/", "/u", "--user \"/u\": expected json:POINTER"),
            ("POST /login", "/", "json:u", "is no JSON pointer"),
            ("FETCH /login", "/", "json:/u", "not readable"),
        ] {
            let error = flags(login, check, user).application().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
