//! `completions` and `man`: scripts for shells and manual pages, generated from the command line's own definition.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::Failure;
use crate::output::answer;

/// `completions`.
#[derive(Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// `man`.
#[derive(Args)]
pub(super) struct ManArgs {
    /// Write a page for each verb into this directory; without it, print the first page
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

impl CompletionsArgs {
    pub(super) fn run(self, mut command: Command) -> Result<(), Failure> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        answer(&text(script)?)
    }
}

impl ManArgs {
    pub(super) fn run(self, command: Command) -> Result<(), Failure> {
        match self.directory {
            Some(directory) => clap_mangen::generate_to(command, &directory)
                .map_err(|error| Failure::error(format!("{}: {error}", directory.display()))),
            None => {
                let mut page = Vec::new();
                let rendered = clap_mangen::Man::new(command).render(&mut page);
                rendered.map_err(|error| Failure::error(error.to_string()))?;
                answer(&text(page)?)
            }
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|error| Failure::error(error.to_string()))
}

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  portcullis completions bash > /etc/bash_completion.d/portcullis
  portcullis completions zsh > ~/.zfunc/_portcullis
  portcullis completions fish > ~/.config/fish/completions/portcullis.fish
  portcullis completions powershell >> $PROFILE";
pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  portcullis man | man -l -
  portcullis man --directory /usr/local/share/man/man1";
