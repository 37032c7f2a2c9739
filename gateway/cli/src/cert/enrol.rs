//! `cert ca enrol`, `list`, `verify` and `remove`: the CAs whose devices the hub trusts.

use std::path::PathBuf;

use clap::Args;
use portcullis_registry::authority::AuthorityName;
use rustls_pki_types::UnixTime;
use serde_json::{Value, json};

use super::{mint, read, read_chain};
use crate::exit::Failure;
use crate::login::Access;
use crate::output::{self, Column, OutputArgs, scalar};
use crate::rest::Rest;

#[derive(Args)]
pub(crate) struct EnrolArgs {
    /// The name of the CA at the hub
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: AuthorityName,
    /// Mark it verified at once, because you know who holds its key
    #[arg(long)]
    verified: bool,
    /// Why it is marked verified
    #[arg(long, value_name = "TEXT", requires = "verified", default_value = "marked verified on enrolment")]
    reason: String,
    /// The CA's certificate, PEM, alone in its file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    access: Access,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    access: Access,
}

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The name of the CA at the hub
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: AuthorityName,
    /// The CA's certificate, to verify in one step; its key is in FILE-key.pem beside it
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// The file of the CA's key, if it is elsewhere
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// A certificate that names the verification code and was signed elsewhere with the CA's key
    #[arg(long, value_name = "FILE", conflicts_with = "ca_cert")]
    proof: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

#[derive(Args)]
pub(crate) struct RemoveArgs {
    /// The name of the CA at the hub
    #[arg(long, value_name = "NAME", value_parser = parse_name)]
    name: AuthorityName,
    #[command(flatten)]
    access: Access,
}

impl EnrolArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        // The file goes to the hub unchanged. The hub refuses a key in it, or more than one certificate.
        let certificate = read(&self.file)?;
        let mut body = json!({ "certificate": certificate, "verified": self.verified });
        if self.verified {
            body["reason"] = self.reason.into();
        }
        let rest = Rest::new(self.access.login()?)?;
        let enrolled = rest.create(&path(&self.name), &body).await?;
        if !self.verified {
            eprintln!(
                "The hub does not trust its devices yet. Next: portcullis cert ca verify --name {} --ca-cert {}",
                self.name,
                self.file.display()
            );
        }
        print(&enrolled)
    }
}

impl ListArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let rest = Rest::new(self.access.login()?)?;
        self.output.print(&rest.get(&AUTHORITIES, &[]).await?, COLUMNS)
    }
}

impl VerifyArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let rest = Rest::new(self.access.login()?)?;
        let proof = match (&self.ca_cert, &self.proof) {
            (Some(certificate), _) => {
                let ca = mint::read_ca(certificate, self.ca_key.as_deref())?;
                let code = new_code(&rest, &self.name).await?;
                let proof = ca.prove_possession(&scalar(&code, "/verificationCode"), UnixTime::now());
                proof.map_err(|error| Failure::error(crate::login::chain(&error)))?.pem
            }
            (None, Some(proof)) => read_chain(proof)?.0,
            (None, None) => {
                let code = new_code(&rest, &self.name).await?;
                eprint!("{}", how_to_prove(&scalar(&code, "/verificationCode"), &self.name));
                return print(&code);
            }
        };
        let verify = [&path(&self.name)[..], &["verify"]].concat();
        print(&rest.act(&verify, &json!({ "certificate": proof })).await?)
    }
}

impl RemoveArgs {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let rest = Rest::new(self.access.login()?)?;
        rest.delete(&path(&self.name), None).await
    }
}

async fn new_code(rest: &Rest, name: &AuthorityName) -> Result<Value, Failure> {
    rest.act(&[&path(name)[..], &["verification-code"]].concat(), &json!({})).await
}

/// Instructions for a CA whose key is kept elsewhere.
fn how_to_prove(code: &str, name: &AuthorityName) -> String {
    format!(
        "On the machine that holds the CA's key, sign a certificate whose common name is the code:\n  \
         openssl req -new -newkey rsa:2048 -nodes -keyout proof-key.pem -subj '/CN={code}' -out proof.csr\n  \
         openssl x509 -req -in proof.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 1 -out proof.pem\n\
         Then: portcullis cert ca verify --name {name} --proof proof.pem\n"
    )
}

fn path(name: &AuthorityName) -> Vec<&str> {
    [&AUTHORITIES[..], &[name.as_str()]].concat()
}

fn print(answer: &Value) -> Result<(), Failure> {
    output::answer(&format!("{answer:#}\n"))
}

pub(super) fn parse_name(text: &str) -> Result<AuthorityName, String> {
    AuthorityName::parse(text).map_err(|error| error.to_string())
}

const AUTHORITIES: [&str; 3] = ["api", "v1", "certificate-authorities"];
const COLUMNS: &[Column] = &[
    ("Name", |ca| scalar(ca, "/name")),
    ("Verified", |ca| scalar(ca, "/verified")),
    ("Subject", |ca| scalar(ca, "/subject")),
    ("Expiry", |ca| scalar(ca, "/expiry")),
    ("Thumbprint", |ca| scalar(ca, "/thumbprint")),
];
pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis cert ca enrol --name fleet fleet.pem            # then: cert ca verify
  portcullis cert ca enrol --name fleet --verified --reason 'made on this machine' fleet.pem";
pub(super) const VERIFY_EXAMPLES: &str = "\
Examples:
  portcullis cert ca verify --name fleet --ca-cert fleet.pem # in one step, with fleet-key.pem beside it
  portcullis cert ca verify --name fleet                     # prints a code, and how to sign it elsewhere
  portcullis cert ca verify --name fleet --proof proof.pem   # with the signed certificate";
