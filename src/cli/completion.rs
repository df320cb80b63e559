//! `completion`: a script that completes arguments in a shell.

use clap::Args;
use clap_complete::Shell;

use super::{CliError, output};

/// Arguments of `completion`.
#[derive(Args, Debug)]
pub struct CompletionArgs {
    /// Shell for which to print the script; bash: `source <(kubectl-session completion bash)`
    shell: Shell,
}

/// Prints the script.
pub fn run(args: &CompletionArgs, command: clap::Command) -> Result<(), CliError> {
    Ok(output::print(&script(args.shell, command))?)
}

fn script(shell: Shell, command: clap::Command) -> String {
    let mut text = Vec::new();
    // Shells complete the name of the program; the words `kubectl session` are kubectl's own to complete.
    let mut command = command.bin_name("kubectl-session");
    clap_complete::generate(shell, &mut command, "kubectl-session", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn scripts_know_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell, super::super::Cli::command());
            for word in [
                "kubectl-session",
                "status",
                "detach",
                "support-bundle",
                "rotate",
                "log-lines",
                "namespace",
            ] {
                assert!(script.contains(word), "{shell} does not know {word}");
            }
        }
    }
}
