//! A line of a file of identities, between the jobs, which know what it asks for, and `http`, which knows its words.

use std::fmt;

use portcullis_registry::id::IdentityId;
use portcullis_registry::identity::Identity;
use portcullis_registry::lines::LineError;

use crate::operations::bulk::{Change, ChangeError};

/// How identities and errors are written. IoT Hub's words are known to `http` alone, which hands them in.
pub trait Words: fmt::Debug + Send + Sync {
    /// What a line asks for.
    fn parse(&self, text: &str) -> Result<Asked, (About, Refusal)>;

    /// What it is called that a line cannot even be read.
    fn unreadable(&self, error: LineError) -> Refusal;

    /// What an error is called.
    fn refusal(&self, error: ChangeError) -> Refusal;

    /// Appends an identity as a line, with its end.
    fn write(&self, identity: &Identity, form: Form, to: &mut Vec<u8>);
}

/// How an identity is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As IoT Hub exports it.
    Export { with_keys: bool },
    /// Everything anybody can ask for and nothing else: two identities are alike when these are equal, and reading it
    /// back asks for exactly this.
    Exact,
}

/// What a line asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub change: Change,
    /// It has tags or desired properties, which are not kept.
    pub has_twin: bool,
}

/// Which identity a line is about, in the line's own words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub device: String,
    pub module: Option<String>,
}

/// Why a line was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// IoT Hub's number of the error.
    pub code: u32,
    /// IoT Hub's name of the error.
    pub name: &'static str,
    pub text: String,
}

impl About {
    pub(super) fn of(id: &IdentityId) -> Self {
        Self { device: id.device.to_string(), module: id.module.as_ref().map(ToString::to_string) }
    }
}
