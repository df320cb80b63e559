//! Asking before something is done.

use std::io::{self, BufRead, IsTerminal, Write};

use super::CliError;

/// Asks on the terminal.
pub fn confirmed(question: &str) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        return Err("this asks before it changes anything, and stdin is no terminal: add --yes".into());
    }
    let mut stderr = io::stderr().lock();
    stderr.write_all(question.as_bytes())?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(means_yes(&answer))
}

fn means_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (answer, expected) in [
            ("y\n", true),
            ("YES\n", true),
            ("\n", false),
            ("", false),
            ("yep\n", false),
        ] {
            assert_eq!(means_yes(answer), expected, "{answer:?}");
        }
    }
}
