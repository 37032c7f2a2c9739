//! `cert inspect`: what a certificate holds, and whether the hub would admit a device with it.
//!
//! The hub decides if it can be reached. Otherwise the program judges the file alone, and says so.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use portcullis_certs::anchor::Anchor;
use portcullis_certs::chain;
use portcullis_certs::description::Description;
use portcullis_certs::presented::PresentedChain;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use rustls_pki_types::{CertificateDer, UnixTime};
use serde_json::{Value, json};

use super::{read, read_chain};
use crate::exit::{Exit, Failure};
use crate::identity::path;
use crate::login::Access;
use crate::output::{self, printable, scalar};
use crate::rest::Rest;

#[derive(Args)]
pub(crate) struct InspectArgs {
    /// What the device will send: its certificate and any intermediates, PEM
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Check for this device
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: Option<DeviceId>,
    /// Check for this module of the device
    #[arg(short, long, value_name = "ID", requires = "device_id", value_parser = ModuleId::parse)]
    module_id: Option<ModuleId>,
    /// Check against this CA's certificate and do not ask the hub
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

impl InspectArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let (text, certificates) = read_chain(&self.file)?;
        let mut answer = String::new();
        for (place, certificate) in certificates.iter().enumerate() {
            describe(&mut answer, place, certificate);
        }
        let mut exit = Exit::Done;
        if let Some(device) = self.device_id.clone() {
            let id = IdentityId { device, module: self.module_id.clone() };
            let (verdict, admitted) = self.judge(&id, &text, &certificates).await?;
            answer.push_str(&format!("{verdict}\n"));
            if !admitted {
                exit = Exit::Error;
            }
        }
        output::answer(&answer)?;
        Ok(exit)
    }

    async fn judge(
        &self,
        id: &IdentityId,
        text: &str,
        certificates: &[CertificateDer<'static>],
    ) -> Result<(String, bool), Failure> {
        if self.ca_cert.is_none() {
            match self.ask(id, text).await {
                Ok(verdict) => return Ok(of_the_hub(id, &verdict)),
                // The hub answered. Its verdict on the request holds, and the file cannot overrule it.
                Err(failure) if failure.exit() != Exit::Error => return Err(failure),
                Err(failure) => eprintln!("note: the hub could not be reached ({failure})"),
            }
        }
        let anchor = match &self.ca_cert {
            Some(path) => Some(
                Anchor::parse_pem(read(path)?.as_bytes())
                    .map_err(|error| Failure::error(format!("{}: {error}", path.display())))?,
            ),
            None => None,
        };
        Ok(of_the_file(id, certificates, anchor.as_ref()))
    }

    async fn ask(&self, id: &IdentityId, text: &str) -> Result<Value, Failure> {
        let rest = Rest::new(self.access.login()?)?;
        let path = [&["api", "v1"][..], &path(id), &["certificate-verdict"]].concat();
        rest.act(&path, &json!({ "certificate": text })).await
    }
}

fn of_the_hub(id: &IdentityId, verdict: &Value) -> (String, bool) {
    match verdict.pointer("/admitted") {
        Some(Value::Bool(true)) => {
            (format!("The hub would admit {id} with this certificate and its key."), true)
        }
        _ => {
            let reason = printable(&scalar(verdict, "/reason"));
            (format!("The hub would not admit {id} with this certificate: {reason}."), false)
        }
    }
}

/// A verdict without the hub: on the certificate, and on the CA that signed it if that is given.
fn of_the_file(
    id: &IdentityId,
    certificates: &[CertificateDer<'static>],
    anchor: Option<&Anchor>,
) -> (String, bool) {
    let now = UnixTime::now();
    let chain = match PresentedChain::parse_all(certificates) {
        Ok(chain) => chain,
        Err(error) => return (format!("No hub would admit {id} with it: {error}."), false),
    };
    if let Err(when) = chain.check_time(now) {
        return (format!("No hub would admit {id} with it: the certificate {when}."), false);
    }
    let name = match chain.common_name() {
        Ok(name) if name == id.to_string() => Ok(()),
        Ok(name) => Err(format!("its common name is {:?} and must be {:?}", printable(name), id.to_string())),
        Err(error) => Err(error.to_string()),
    };
    let Some(anchor) = anchor else {
        let by_ca = match name {
            Ok(()) => "by a CA that signed it".to_owned(),
            Err(reason) => format!("not by a CA, because {reason}"),
        };
        let thumbprints = chain.thumbprints();
        return (
            format!(
                "Judged by the file alone: a hub may admit {id} by thumbprint {} if that is registered, and {by_ca}.",
                thumbprints.sha256
            ),
            true,
        );
    };
    let trusted = chain::verify(&chain, &[anchor], now).map_err(|error| error.to_string());
    match trusted.and(name) {
        Ok(()) => {
            (format!("A hub that has {} enrolled and verified would admit {id}.", anchor.subject()), true)
        }
        Err(reason) => {
            (format!("A hub that trusts {} would not admit {id}: {reason}.", anchor.subject()), false)
        }
    }
}

fn describe(answer: &mut String, place: usize, certificate: &CertificateDer<'_>) {
    let title = if place == 0 { "Certificate".to_owned() } else { format!("Intermediate {place}") };
    let Some(found) = Description::of(certificate) else {
        answer.push_str(&format!("{title}\n  not X.509 DER\n"));
        return;
    };
    let now = UnixTime::now();
    let holds = if now < found.valid_from {
        "not valid yet"
    } else if now > found.valid_until {
        "expired"
    } else {
        "valid now"
    };
    // Writing to a text cannot fail.
    let _ = writeln!(answer, "{title}");
    let _ = writeln!(answer, "  subject     {}", found.subject);
    let _ = writeln!(answer, "  issuer      {}", found.issuer);
    let _ =
        writeln!(answer, "  valid       {} to {} ({holds})", date(found.valid_from), date(found.valid_until));
    let _ = writeln!(answer, "  key         {}", found.key);
    let _ = writeln!(answer, "  version     {}", found.version);
    let usage = match (found.is_ca, found.is_for_clients) {
        (true, _) => "a CA's",
        (false, true) => "a client's",
        (false, false) => "not a client's (extended key usage)",
    };
    let _ = writeln!(answer, "  usage       {usage}");
    let _ = writeln!(answer, "  SHA-256     {}", found.thumbprints.sha256);
    let _ = writeln!(answer, "  SHA-1       {}", found.thumbprints.sha1);
}

fn date(time: UnixTime) -> Timestamp {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis cert inspect pump-7.pem
  portcullis cert inspect pump-7.pem -d pump-7               # asks the hub; exit code 0 only if it would admit it
  portcullis cert inspect pump-7.pem -d pump-7 -m camera --ca-cert fleet.pem";

#[cfg(test)]
mod tests {
    use portcullis_certs::testing::TestCa;

    use super::*;

    fn id(text: &str) -> IdentityId {
        IdentityId::device(DeviceId::parse(text).unwrap())
    }

    #[test]
    fn the_file_alone_says_what_it_can() {
        let ca = TestCa::root("fleet");
        let anchor = Anchor::parse_pem(ca.pem().as_bytes()).unwrap();
        let device = [ca.device("d1").certificate];
        let (words, good) = of_the_file(&id("d1"), &device, Some(&anchor));
        assert!(good, "{words}");
        let (words, good) = of_the_file(&id("d2"), &device, Some(&anchor));
        assert!(!good && words.contains(r#"its common name is "d1" and must be "d2""#), "{words}");
        let other = Anchor::parse_pem(TestCa::root("other").pem().as_bytes()).unwrap();
        let (words, good) = of_the_file(&id("d1"), &device, Some(&other));
        assert!(!good && words.contains("the chain ends at issuer CN=fleet"), "{words}");
        let expired = [ca.device_at("d1", -200, -100).certificate];
        let (words, good) = of_the_file(&id("d1"), &expired, None);
        assert!(!good && words.contains("expired at"), "{words}");
        let (words, good) = of_the_file(&id("d1"), &device, None);
        assert!(good && words.contains("by thumbprint"), "{words}");
    }

    #[test]
    fn a_description_names_what_an_operator_looks_for() {
        let mut text = String::new();
        describe(&mut text, 0, &TestCa::root("fleet").device("d1").certificate);
        for part in ["subject     CN=d1", "issuer      CN=fleet", "valid now", "a client's", "SHA-1       "] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
