//! Descriptions of applications: what is refused, and what locators find.

use std::error::Error;
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderMap;

use super::server::DESCRIPTION;
use crate::drill::Application;
use crate::drill::application::{Locator, Step, Unreadable, Values};
use crate::drill::client::Answer;

/// The error with all its causes.
fn refusal(description: &str) -> String {
    let error = Application::from_yaml(description).unwrap_err();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn bad_descriptions_name_the_place_and_what_was_expected() {
    for (from, to, expected) in [
        (
            "path: /login",
            "path: login",
            "login: no request can be made of it: \"login\" is no path",
        ),
        (
            "path: /whoami",
            "path: '/who ami'",
            "check.request: no request can be made of it",
        ),
        (
            "path: /logout",
            "path: /logout, headers: {'a b': c}",
            "\"a b\" is no name of a header",
        ),
        (
            "accept: [303]}\ncheck",
            "json: {a: 1}}\ncheck",
            "login: no request can be made of it: it has both a form and a JSON body",
        ),
        (
            "item: '{user}-{n}'\nlogout",
            "item: '{user}'\nlogout",
            "has to contain {user} and {n}",
        ),
        ("json: /user", "json: user", "\"user\" is no JSON pointer"),
        ("json: /user", "regex: '('", "not a regular expression"),
        (
            "header: x-pod",
            "header: 'x pod'",
            "\"x pod\" is no name of a header",
        ),
        ("name: test", "name: test\ncolour: red", "colour"),
        ("method: POST", "method: post", "post"),
    ] {
        assert!(DESCRIPTION.contains(from), "{from}");
        let text = refusal(&DESCRIPTION.replacen(from, to, 1));
        assert!(text.contains(expected), "{to}: {text}");
    }
}

#[test]
fn descriptions_go_through_json() {
    let application = Application::from_yaml(DESCRIPTION).unwrap();
    let json = serde_json::to_string(&application).unwrap();
    let back: Application = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), json);
}

fn answer(body: &'static str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert("x-served-by", "pod-1".parse().unwrap());
    Answer {
        status: 200,
        headers,
        body: Bytes::from_static(body.as_bytes()),
        took: Duration::ZERO,
    }
}

fn locator(json: &str) -> Locator {
    serde_json::from_str(json).unwrap()
}

#[test]
fn locators_find_what_they_say() {
    let basket = r#"{"user": "ada", "n": 3, "none": null, "empty": "", "a/b": "slash", "~": "tilde",
        "basket": [{"text": "x"}, {"text": "y"}, {"other": 1}]}"#;
    for (pointer, expected) in [
        ("/user", vec!["ada"]),
        ("/n", vec!["3"]),
        ("/none", vec![]),
        ("/missing/deep", vec![]),
        ("/a~1b", vec!["slash"]),
        ("/~0", vec!["tilde"]),
        ("/basket/*/text", vec!["x", "y"]),
        ("/basket/1/text", vec!["y"]),
        ("/basket/7/text", vec![]),
    ] {
        let locator = locator(&format!(r#"{{"json": "{pointer}"}}"#));
        assert_eq!(locator.all(&answer(basket)).unwrap(), expected, "{pointer}");
        let back = serde_json::to_value(&locator).unwrap();
        assert_eq!(back, serde_json::json!({"json": pointer}));
    }
    assert_eq!(
        locator(r#"{"json": "/empty"}"#).first(&answer(basket)).unwrap(),
        None
    );
    assert_eq!(
        locator(r#"{"json": "/user"}"#).first(&answer("<html>")),
        Err(Unreadable)
    );

    let page = answer("<b>ada</b> <b>eve</b>");
    assert_eq!(
        locator(r#"{"regex": "<b>(\\w+)</b>"}"#).all(&page).unwrap(),
        ["ada", "eve"]
    );
    assert_eq!(
        locator(r#"{"regex": "a.a"}"#).first(&page).unwrap().as_deref(),
        Some("ada")
    );
    assert_eq!(locator(r#"{"regex": "nobody"}"#).first(&page).unwrap(), None);
    assert_eq!(
        locator(r#"{"header": "X-Served-By"}"#)
            .first(&page)
            .unwrap()
            .as_deref(),
        Some("pod-1")
    );
    assert_eq!(locator(r#"{"header": "X-Other"}"#).first(&page).unwrap(), None);
}

#[test]
fn templates_are_filled_everywhere_and_forms_are_encoded() {
    let step: Step = serde_json::from_value(serde_json::json!({
        "method": "POST", "path": "/u/{user}?n={n}", "form": {"text": "{user} & {n}"}, "headers": {"x-user": "{user}"}
    }))
    .unwrap();
    let values = Values { user: "ada", n: 7 };
    let call = format!(
        "{:?}",
        step.call(values, &[("token".to_owned(), "t=1".to_owned())])
            .unwrap()
    );
    assert!(call.contains("/u/ada?n=7"), "{call}");
    assert!(call.contains("text=ada+%26+7&token=t%3D1"), "{call}");
    assert!(call.contains(r#""x-user", "ada""#), "{call}");

    let step: Step = serde_json::from_value(serde_json::json!({
        "method": "PUT", "path": "/", "json": {"who": ["{user}", {"n": "{n}", "k": 1}]}
    }))
    .unwrap();
    let call = format!("{:?}", step.call(values, &[]).unwrap());
    assert!(
        call.contains(r#"{\"who\":[\"ada\",{\"k\":1,\"n\":\"7\"}]}"#),
        "{call}"
    );
}
