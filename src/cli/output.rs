//! Writing results.

use std::io::{self, Write};

/// Writes a result to stdout. A reader that has seen enough (`| head`) is no error.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Makes control characters visible, so that text from the cluster cannot steer the terminal. Line breaks stay.
pub fn printable(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && character != '\n' {
            result.extend(character.escape_default());
        } else {
            result.push(character);
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_made_visible() {
        assert_eq!(
            printable("a\u{1b}[31mb\r\nc\u{9b}é"),
            "a\\u{1b}[31mb\\r\nc\\u{9b}é"
        );
    }
}
