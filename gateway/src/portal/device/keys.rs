//! `POST …/keys`: gives an identity a new key, or swaps its two keys.

use maud::{Markup, html};
use portcullis_registry::credential::{KeyPair, SymmetricKey};
use portcullis_registry::identity::{Authentication, AuthenticationSpec, Identity, IdentitySpec};

use super::{NamedIdentityPage, changed, version, version_field};
use crate::iothub::problem::Problem;
use crate::operations::identities;
use crate::portal::answer::PageResult;
use crate::portal::fields::FormFields;
use crate::portal::paths;
use crate::portal::visit::Visit;

/// `POST …/keys`.
pub(in crate::portal) async fn renew(
    visit: Visit,
    NamedIdentityPage(id): NamedIdentityPage,
    fields: FormFields,
) -> PageResult {
    let (hub, service) = (visit.hub(), visit.service());
    let precondition = version(&fields)?;
    let entry = identities::retrieve(hub, service, &id)?;
    let identity = entry.identity();
    let Authentication::Sas(KeyPair { primary, secondary }) = &identity.authentication else {
        return Err(Problem::argument_invalid(format!("{id} has no keys.")).into());
    };
    let (primary, secondary, done) = match fields.text("renew") {
        Some("primary") => (SymmetricKey::generate(), secondary.clone(), "It has a new primary key."),
        Some("secondary") => (primary.clone(), SymmetricKey::generate(), "It has a new secondary key."),
        Some("swap") => (secondary.clone(), primary.clone(), "The keys are swapped."),
        _ => {
            return Err(Problem::argument_invalid(
                "The form must name the primary key, the secondary key or a swap.",
            )
            .into());
        }
    };
    let authentication = AuthenticationSpec::Sas { primary: Some(primary), secondary: Some(secondary) };
    let spec = IdentitySpec { authentication, ..IdentitySpec::keeping(&identity) };
    changed(&visit, identities::put(hub, service, spec, precondition).await, &id, done)
}

/// The form for keys; empty for an identity without keys.
pub(super) fn section(visit: &Visit, identity: &Identity) -> Markup {
    if !matches!(identity.authentication, Authentication::Sas(_)) {
        return html! {};
    }
    html! {
        section.card aria-labelledby="keys-name" {
            h2 id="keys-name" { "Manage keys" }
            p.hint {
                "The hub closes a connection at once when you replace the key it uses. To change keys without a break, let \
                 the device use the other key first."
            }
            form method="post" action=(paths::under(&identity.id, "keys")) {
                (visit.token_field()) (version_field(identity))
                div.toolbar {
                    button type="submit" name="renew" value="primary" data-confirm="Replace the primary key? Give the device the new key." { "Regenerate primary" }
                    button type="submit" name="renew" value="secondary" data-confirm="Replace the secondary key? Give the device the new key." { "Regenerate secondary" }
                    button type="submit" name="renew" value="swap" { "Swap keys" }
                }
            }
        }
    }
}
