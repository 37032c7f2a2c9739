//! The form for the credential of a device or module: a key that the hub generates or a given one, thumbprints of
//! certificates or the certificates themselves, or a CA. It serves new identities and changed ones.

use maud::{Markup, html};
use portcullis_certs::description::Description;
use portcullis_certs::pem;
use portcullis_registry::credential::{SymmetricKey, Thumbprint, ThumbprintPair};
use portcullis_registry::identity::{AuthenticationKind, AuthenticationSpec};
use rustls_pki_types::CertificateDer;

use super::answer::{Html, PageResult};
use super::fields::FormFields;
use super::form::{self, Errors, TextField};
use super::visit::Visit;
use super::{paths, text};
use axum::response::IntoResponse;

/// The fields of the form.
#[derive(Clone, Debug)]
pub(super) struct CredentialForm {
    pub(super) kind: AuthenticationKind,
    makes_keys: bool,
    keys: [String; 2],
    thumbprints: [String; 2],
    certificates: [String; 2],
}

impl CredentialForm {
    /// The form before anybody has filled it in.
    pub(super) fn new(kind: AuthenticationKind, thumbprints: Option<&ThumbprintPair>) -> Self {
        let shown = |thumbprint: Option<&Thumbprint>| thumbprint.map(ToString::to_string).unwrap_or_default();
        let thumbprints = [
            shown(thumbprints.and_then(|pair| pair.primary.as_ref())),
            shown(thumbprints.and_then(|pair| pair.secondary.as_ref())),
        ];
        Self {
            kind,
            makes_keys: true,
            keys: Default::default(),
            thumbprints,
            certificates: Default::default(),
        }
    }

    pub(super) fn read(fields: &FormFields) -> Self {
        let all = |names: [&str; 2]| names.map(|name| fields.trimmed(name).unwrap_or_default().to_owned());
        let kind = fields.text("auth").unwrap_or_default();
        let kind = KINDS.into_iter().find(|own| own.as_str() == kind).unwrap_or(AuthenticationKind::Sas);
        Self {
            kind,
            makes_keys: fields.is_ticked("auto"),
            keys: all(KEYS),
            thumbprints: all(THUMBPRINTS),
            certificates: all(CERTIFICATES),
        }
    }

    /// The requested authentication; none, with the errors added, if the form has mistakes.
    pub(super) fn parse(&self, errors: &mut Errors) -> Option<AuthenticationSpec> {
        match self.kind {
            AuthenticationKind::Sas if self.makes_keys => {
                let (primary, secondary) = (SymmetricKey::generate(), SymmetricKey::generate());
                Some(AuthenticationSpec::Sas { primary: Some(primary), secondary: Some(secondary) })
            }
            AuthenticationKind::Sas => {
                let [primary, secondary] = [0, 1].map(|place| match self.keys[place].as_str() {
                    "" => {
                        errors.add(KEYS[place], "give both keys, or let the hub generate them");
                        None
                    }
                    text => errors.take(KEYS[place], SymmetricKey::parse_base64(text)),
                });
                Some(AuthenticationSpec::Sas { primary: Some(primary?), secondary: Some(secondary?) })
            }
            AuthenticationKind::SelfSigned => self.parse_thumbprints(errors),
            AuthenticationKind::CertificateAuthority => Some(AuthenticationSpec::CertificateAuthority),
            AuthenticationKind::None => Some(AuthenticationSpec::None),
        }
    }

    fn parse_thumbprints(&self, errors: &mut Errors) -> Option<AuthenticationSpec> {
        let [primary, secondary] = [0, 1].map(|place| self.thumbprint(place, errors));
        if !errors.is_empty() {
            return None;
        }
        if primary.is_none() && secondary.is_none() {
            errors.add(
                THUMBPRINTS[0],
                "give at least one thumbprint, or a certificate from which the hub can compute it",
            );
            return None;
        }
        Some(AuthenticationSpec::SelfSigned(ThumbprintPair { primary, secondary }))
    }

    /// The thumbprint of one of the two fields: as it was entered, or of the entered certificate.
    fn thumbprint(&self, place: usize, errors: &mut Errors) -> Option<Thumbprint> {
        let (text, certificate) = (self.thumbprints[place].as_str(), self.certificates[place].as_str());
        let given = match text {
            "" => None,
            text => Some(errors.take(THUMBPRINTS[place], Thumbprint::parse(text))?),
        };
        if certificate.is_empty() {
            return given;
        }
        let certificate = errors.take(CERTIFICATES[place], read_certificate(certificate))?;
        let own = portcullis_certs::thumbprint::Thumbprints::of(&certificate);
        match given {
            Some(given) if own.are_named_by(given.as_str()) => Some(given),
            Some(_) => {
                errors.add(
                    THUMBPRINTS[place],
                    "this thumbprint does not match the certificate below; remove one of the two",
                );
                None
            }
            None => errors.take(THUMBPRINTS[place], Thumbprint::parse(&own.sha256.to_string())),
        }
    }

    pub(super) fn show(&self, errors: &Errors) -> Markup {
        let line = |names: [&'static str; 2], place: usize, label: &str, value: &str, hint| {
            let field = TextField { name: names[place], label, value, hint, ..TextField::default() };
            field.show(errors)
        };
        let key_hint = Some("Base64 of 16 to 64 bytes");
        let thumbprint_hint = Some("40 (SHA-1) or 64 (SHA-256) hex digits");
        html! {
            fieldset.credential {
                legend { "Authentication type" }
                @for kind in KINDS {
                    (form::radio("auth", kind.as_str(), text::authentication(kind), kind == self.kind))
                }
                div.for-sas {
                    (form::checkbox("auto", "Auto-generate keys", self.makes_keys))
                    div.pair.own-keys {
                        (line(KEYS, 0, "Primary key", &self.keys[0], key_hint))
                        (line(KEYS, 1, "Secondary key", &self.keys[1], key_hint))
                    }
                }
                div.for-thumbprints {
                    @for (place, which) in ["Primary", "Secondary"].into_iter().enumerate() {
                        (line(THUMBPRINTS, place, &format!("{which} thumbprint"), &self.thumbprints[place], thumbprint_hint))
                        details open[!self.certificates[place].is_empty()] {
                            summary { "Compute it from a certificate" }
                            (certificate_area(place, which, &self.certificates[place], errors))
                        }
                    }
                }
                div.for-ca {
                    p.hint {
                        "The device connects with a certificate of an enrolled CA that has its id as the common name. \
                         The hub stores nothing about the certificate."
                    }
                }
            }
        }
    }
}

fn certificate_area(place: usize, which: &str, value: &str, errors: &Errors) -> Markup {
    let name = CERTIFICATES[place];
    let error = errors.at(name);
    html! {
        div.field {
            label for=(name) { (which) " certificate (PEM)" }
            textarea id=(name) name=(name) rows="4" spellcheck="false" aria-describedby={ (name) "-says" }
                aria-invalid=[error.map(|_| "true")] placeholder="-----BEGIN CERTIFICATE-----" data-drop
                hx-post=(paths::THUMBPRINT) hx-vals={ "{\"place\":\"" (place) "\"}" } hx-params={ "place," (name) }
                hx-trigger="input changed delay:400ms" hx-target={ "#" (name) "-says" } hx-swap="innerHTML" { "\n" (value) }
            input type="file" accept=".pem,.crt,.cer" data-file-into=(name) aria-label={ "Read the " (which) " certificate from a file" } hidden;
            (form::field_message(name, error, Some("Paste the certificate or drop its file here. Never enter a private key."), true))
        }
    }
}

/// `POST /portal/thumbprint`: describes a certificate, and puts its thumbprint into its field.
pub(super) async fn compute(_: Visit, fields: FormFields) -> PageResult {
    let place = usize::from(fields.text("place") == Some("1"));
    let text = fields.trimmed(CERTIFICATES[place]).unwrap_or_default();
    let said = match read_certificate(text) {
        _ if text.is_empty() => html! {},
        Err(error) => form::wrong(&error),
        Ok(certificate) => {
            let own = Description::of(&certificate).ok_or("it is not an X.509 certificate");
            match own {
                Err(error) => form::wrong(error),
                Ok(own) => html! {
                    p.fine { (own.subject) ", " (own.key) }
                    input id=(THUMBPRINTS[place]) name=(THUMBPRINTS[place]) type="text" value=(own.thumbprints.sha256)
                        spellcheck="false" autocapitalize="off" autocomplete="off"
                        aria-describedby={ (THUMBPRINTS[place]) "-says" } hx-swap-oob="true";
                },
            }
        }
    };
    Ok(Html(said).into_response())
}

/// The one certificate of a text, or the first of a chain, which is the device's own.
fn read_certificate(text: &str) -> Result<CertificateDer<'static>, String> {
    let certificates = pem::read_certificates(text.as_bytes()).map_err(|error| error.to_string())?;
    let own = certificates.into_iter().next().ok_or("it holds no certificate")?;
    match Description::of(&own) {
        Some(_) => Ok(own),
        None => Err("it is not an X.509 certificate".into()),
    }
}

/// The types to choose from. An identity of type `none` is created otherwise.
const KINDS: [AuthenticationKind; 3] =
    [AuthenticationKind::Sas, AuthenticationKind::SelfSigned, AuthenticationKind::CertificateAuthority];
const KEYS: [&str; 2] = ["primary-key", "secondary-key"];
const THUMBPRINTS: [&str; 2] = ["primary-thumbprint", "secondary-thumbprint"];
const CERTIFICATES: [&str; 2] = ["primary-certificate", "secondary-certificate"];
