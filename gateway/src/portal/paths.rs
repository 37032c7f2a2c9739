//! The paths of the portal's pages, for links. An id may hold nearly any character, so only this file encodes it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use portcullis_registry::authority::AuthorityName;
use portcullis_registry::id::{DeviceId, IdentityId};

pub(super) const HOME: &str = "/portal";
pub(super) const DEVICES: &str = "/portal/devices";
pub(super) const DEVICES_CSV: &str = "/portal/devices.csv";
pub(super) const NEW_DEVICE: &str = "/portal/new-device";
pub(super) const CHECK_ID: &str = "/portal/check-id";
pub(super) const THUMBPRINT: &str = "/portal/thumbprint";
pub(super) const CA: &str = "/portal/ca.pem";
pub(super) const SELECTED_ENABLE: &str = "/portal/selected/enable";
pub(super) const SELECTED_DISABLE: &str = "/portal/selected/disable";
pub(super) const SELECTED_DELETE: &str = "/portal/selected/delete";
pub(super) const SIGN_IN: &str = "/portal/sign-in";
pub(super) const SIGN_OUT: &str = "/portal/sign-out";

/// The part of the overview that refreshes.
pub(super) const OVERVIEW: &str = "/portal/overview";
pub(super) const LIVE: &str = "/portal/live";
pub(super) const POLICIES: &str = "/portal/policies";
pub(super) const AUTHORITIES: &str = "/portal/authorities";
pub(super) const JOBS: &str = "/portal/jobs";
pub(super) const JOBS_IMPORT: &str = "/portal/jobs/import";
pub(super) const JOBS_EXPORT: &str = "/portal/jobs/export";
pub(super) const AUDIT: &str = "/portal/audit";
pub(super) const AUDIT_NEWS: &str = "/portal/audit/new";

/// The events and the telemetry of a device, as they happen.
pub(super) fn live_telemetry(device: &DeviceId) -> String {
    format!("{LIVE}?telemetry={}", encoded(device.as_str()))
}

/// The events of devices as they happen, of as many devices as fit into an address, from the first on.
pub(super) fn live_presence<'a>(devices: impl Iterator<Item = &'a DeviceId>) -> String {
    let mut address = format!("{LIVE}?");
    for device in devices {
        let named = format!("device={}&", encoded(device.as_str()));
        if address.len() + named.len() > ADDRESS_BYTES_MAX {
            break;
        }
        address += &named;
    }
    address.pop();
    address
}

/// The page of a shared access policy.
pub(super) fn policy(name: &str) -> String {
    format!("{POLICIES}/{}", encoded(name))
}

/// The page of an enrolled CA.
pub(super) fn authority(name: &AuthorityName) -> String {
    format!("{AUTHORITIES}/{}", encoded(name.as_str()))
}

/// The page of a device.
pub(super) fn device(device: &DeviceId) -> String {
    format!("{DEVICES}/{}", encoded(device.as_str()))
}

/// The page of a device or module.
pub(super) fn identity(id: &IdentityId) -> String {
    match &id.module {
        None => device(&id.device),
        Some(module) => format!("{}/modules/{}", device(&id.device), encoded(module.as_str())),
    }
}

/// A path below the page of a device or module.
pub(super) fn under(id: &IdentityId, what: &str) -> String {
    format!("{}/{what}", identity(id))
}

/// The page that explains how to connect a new device.
pub(super) fn created(device: &DeviceId) -> String {
    format!("/portal/created/{}", encoded(device.as_str()))
}

/// The page of a job.
pub(super) fn job(id: &str) -> String {
    format!("{JOBS}/{}", encoded(id))
}

/// One segment of a path, or one value of a query.
pub(super) fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED_KEPT).to_string()
}

/// The sign-in page, which redirects to `next` afterwards.
pub(super) fn sign_in_for(next: &str) -> String {
    match local(next) {
        Some(HOME) | None => SIGN_IN.to_owned(),
        Some(next) => format!("{SIGN_IN}?next={}", encoded(next)),
    }
}

/// `next` if it is a path of the portal. None if it could lead elsewhere (threats T714).
pub(super) fn local(next: &str) -> Option<&str> {
    let rest = next.strip_prefix(HOME)?;
    let begins_well = rest.is_empty() || rest.starts_with(['/', '?']);
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') && !next.contains("//");
    (begins_well && is_plain && next.len() <= NEXT_BYTES_MAX).then_some(next)
}

/// Half of the smallest limit for the head of a request.
const ADDRESS_BYTES_MAX: usize = 4096;
const NEXT_BYTES_MAX: usize = 2048;
const UNRESERVED_KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t714_only_paths_of_the_portal_are_led_to() {
        for good in ["/portal", "/portal/devices", "/portal?a=b", "/portal/devices/a%2Fb?x=%2F%2F"] {
            assert_eq!(local(good), Some(good));
        }
        for bad in [
            "",
            "/",
            "//evil.example",
            "/portal//evil.example",
            "https://evil.example/portal",
            "/portalevil",
            "/portal.evil.example",
            "\\\\evil",
            "/portal\\evil",
            "/portal/\n",
            "javascript:alert(1)",
            "/devices",
            "portal",
            "/portal/é",
            "/portal@evil.example",
        ] {
            assert_eq!(local(bad), None, "{bad:?}");
        }
        assert_eq!(sign_in_for("//evil"), SIGN_IN);
        assert_eq!(
            sign_in_for("/portal/devices/a?b=c"),
            "/portal/sign-in?next=%2Fportal%2Fdevices%2Fa%3Fb%3Dc"
        );
    }

    #[test]
    fn t502_every_character_of_an_id_comes_through_a_link() {
        let id = DeviceId::parse("azAZ09-.%_*?!(),:;=@$'").unwrap();
        assert_eq!(device(&id), "/portal/devices/azAZ09-.%25_%2A%3F%21%28%29%2C%3A%3B%3D%40%24%27");
    }
}
