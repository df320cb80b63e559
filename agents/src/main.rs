//! Copies one folder of the agents image into a volume of a pod: the init container of strategies that inject.
//!
//! The image holds nothing but this program and the folders under `/agents`, so it needs no shell and runs as any user.

use std::process::ExitCode;

mod install;

/// Where the image keeps its folders.
const FOLDERS: &str = "/agents";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, folder, target] = arguments.as_slice()
        && verb == "install"
    {
        return finish(install::install(FOLDERS.as_ref(), folder, target.as_ref()));
    }
    eprintln!("usage: session-agents install FOLDER TARGET");
    ExitCode::from(2)
}

fn finish(installed: Result<usize, install::Error>) -> ExitCode {
    match installed {
        Ok(files) => {
            println!("session-agents: {files} files installed");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("session-agents: {error}");
            ExitCode::FAILURE
        }
    }
}
