//! What is being read: one line that is renewed on a terminal, a line each elsewhere.

use std::io::{IsTerminal as _, Write as _};

use super::super::output::printable;

/// Tells on standard error what is being read.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    told: bool,
}

impl Progress {
    /// Progress for whoever reads standard error.
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            told: true,
        }
    }

    /// Progress that nobody is told of.
    #[cfg(test)]
    pub fn silent() -> Self {
        Self {
            terminal: false,
            told: false,
        }
    }

    /// Begins with the next part.
    pub fn step(&mut self, what: &str) {
        if !self.told {
            return;
        }
        let what = printable(what);
        let mut stderr = std::io::stderr().lock();
        let written = if self.terminal {
            // Clears to the end of the line, so that a shorter line leaves nothing of a longer one.
            write!(stderr, "\rreading {what}\x1b[K").and_then(|()| stderr.flush())
        } else {
            writeln!(stderr, "reading {what}")
        };
        if written.is_err() {
            // Nobody reads it; the report is made all the same.
            self.told = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told && self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
