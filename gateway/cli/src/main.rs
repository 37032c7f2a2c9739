//! The `portcullis` program: the hub and the command line that operates it.

use std::process::ExitCode;

fn main() -> ExitCode {
    portcullis_cli::run(std::env::args_os())
}
