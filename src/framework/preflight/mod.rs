//! The scripts that look at an image before anything is added to its pods, each for any POSIX shell.
//!
//! They only read: the pod has the application's image and environment, and none of its volumes.

use super::Preflight;

/// How all scripts answer.
const ANSWER: &str = include_str!("answer.sh");

/// Looks at a PHP, which needs an extension.
pub fn php(extension: &str) -> Preflight {
    script(&format!("extension={extension}\n{}", include_str!("php.sh")))
}

/// Looks at a Tomcat.
pub fn tomcat() -> Preflight {
    script(include_str!("tomcat.sh"))
}

/// Looks at a Django, whose settings module may be given.
pub fn django(settings_module: Option<&str>) -> Preflight {
    // The API admits nothing but names of Python modules.
    let given = settings_module.unwrap_or_default();
    script(&format!(
        "given_settings='{given}'\n{}",
        include_str!("django.sh")
    ))
}

/// Looks at an application with express-session.
pub fn express() -> Preflight {
    script(include_str!("express.sh"))
}

fn script(text: &str) -> Preflight {
    Preflight {
        command: ["sh", "-c"]
            .into_iter()
            .map(str::to_owned)
            .chain([format!("{ANSWER}\n{text}")])
            .collect(),
    }
}
