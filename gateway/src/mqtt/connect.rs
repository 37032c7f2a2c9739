//! The claim in CONNECT: who a peer says it is, read from its client id and user name. Nothing is proven here.
//!
//! A device writes `{host}/{device}[/{module}]/?api-version=…`, with the same ids as client id; ids are not encoded
//! and may contain `?` and `=`, so the client id tells where they end. A service names no device:
//! `{host}/?api-version=…&policy=…`; no id has a `&`, so neither can be taken for the other.
//! Whether the host is this hub is left to the caller.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use portcullis_registry::id::{DeviceId, IdentityId, InvalidId, ModuleId};

use crate::hub::outcome::ConnectionOutcome;
use crate::iothub::api_version;

/// Who a peer says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// `api_version` is empty for the old user names that have none.
    Device {
        host: String,
        id: IdentityId,
        api_version: String,
        client_type: Option<String>,
        model_id: Option<String>,
    },
    Service {
        host: String,
        policy: String,
        api_version: String,
    },
}

/// Why client id and user name make no claim. The peer hears none of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    #[error("there is no user name")]
    NoUserName,
    #[error("the user name is {bytes} bytes long; at most {USER_NAME_BYTES_MAX} are allowed")]
    UserNameTooLong { bytes: usize },
    #[error("the user name is not {{host}}/{{identity}}/?api-version=…")]
    UserNameForm,
    #[error("the client id names no identity")]
    InvalidId(#[source] InvalidId),
    #[error("the user name is for another identity than the client id {0}")]
    ClientIdMismatch(IdentityId),
    #[error("{0} gave no api-version")]
    NoApiVersion(IdentityId),
    #[error("a service's user name lacks {0}")]
    ServiceParameterMissing(&'static str),
}

impl ClaimError {
    /// The outcome of a CONNECT that failed for this.
    pub fn outcome(&self) -> ConnectionOutcome {
        match self {
            ClaimError::ClientIdMismatch(_) => ConnectionOutcome::ClientIdMismatch,
            ClaimError::NoApiVersion(_) | ClaimError::ServiceParameterMissing(api_version::PARAMETER) => {
                ConnectionOutcome::BadApiVersion
            }
            ClaimError::InvalidId(_) => ConnectionOutcome::UnknownDevice,
            ClaimError::NoUserName
            | ClaimError::UserNameTooLong { .. }
            | ClaimError::UserNameForm
            | ClaimError::ServiceParameterMissing(_) => ConnectionOutcome::BadUserName,
        }
    }

    /// The identity the client id names, where the error is about one.
    pub fn identity(&self) -> Option<&IdentityId> {
        match self {
            ClaimError::ClientIdMismatch(id) | ClaimError::NoApiVersion(id) => Some(id),
            ClaimError::NoUserName
            | ClaimError::UserNameTooLong { .. }
            | ClaimError::UserNameForm
            | ClaimError::InvalidId(_)
            | ClaimError::ServiceParameterMissing(_) => None,
        }
    }
}

/// Reads the claim of a CONNECT.
///
/// Source: IoT Hub, "Communicate with IoT Hub using MQTT"; for the old forms `MqttUsernameParser.cs` of Azure/iotedge.
pub fn parse_claim(client_id: &str, username: &str) -> Result<Claim, ClaimError> {
    if username.is_empty() {
        return Err(ClaimError::NoUserName);
    }
    if username.len() > USER_NAME_BYTES_MAX {
        return Err(ClaimError::UserNameTooLong { bytes: username.len() });
    }
    let (host, rest) = username.split_once('/').ok_or(ClaimError::UserNameForm)?;
    if host.is_empty() {
        return Err(ClaimError::UserNameForm);
    }
    match service_query(rest) {
        Some(query) => service_claim(host, query),
        None => device_claim(host, client_id, rest),
    }
}

/// The parameters of a service's user name, if it is one.
fn service_query(rest: &str) -> Option<&str> {
    let first_segment = rest.split('/').next()?;
    if first_segment.contains('&') { rest.strip_prefix('?') } else { None }
}

fn service_claim(host: &str, query: &str) -> Result<Claim, ClaimError> {
    let required = |name| parameter(query, '&', name).ok_or(ClaimError::ServiceParameterMissing(name));
    Ok(Claim::Service {
        host: host.to_owned(),
        policy: required("policy")?,
        api_version: required(api_version::PARAMETER)?,
    })
}

fn device_claim(host: &str, client_id: &str, rest: &str) -> Result<Claim, ClaimError> {
    let id = parse_identity(client_id)?;
    let Some(tail) = rest.strip_prefix(client_id).and_then(Tail::parse) else {
        return Err(ClaimError::ClientIdMismatch(id));
    };
    let (query, separator) = match tail {
        Tail::Nothing => ("", '&'),
        Tail::Query(query) => (query, '&'),
        Tail::OldQuery(query) => (query, '/'),
    };
    let api_version = match (parameter(query, separator, api_version::PARAMETER), tail) {
        (Some(version), _) => version,
        (None, Tail::Nothing) => String::new(),
        (None, _) => return Err(ClaimError::NoApiVersion(id)),
    };
    Ok(Claim::Device {
        host: host.to_owned(),
        id,
        api_version,
        client_type: parameter(query, separator, "DeviceClientType"),
        model_id: parameter(query, separator, "model-id"),
    })
}

/// What follows the identity in a user name.
#[derive(Clone, Copy)]
enum Tail<'a> {
    /// `{host}/{device}` alone, as one documentation page has it.
    Nothing,
    /// `/?name=value&…`
    Query(&'a str),
    /// `/api-version=…`, from before there was a question mark; an old .NET SDK joins its parameters with slashes.
    OldQuery(&'a str),
}

impl<'a> Tail<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if text.is_empty() {
            return Some(Tail::Nothing);
        }
        match text.strip_prefix('/')? {
            "" => Some(Tail::Nothing),
            query if query.starts_with('?') => Some(Tail::Query(&query[1..])),
            query if query.starts_with("api-version=") => Some(Tail::OldQuery(query)),
            _ => None,
        }
    }
}

/// `{device}` or `{device}/{module}`.
fn parse_identity(client_id: &str) -> Result<IdentityId, ClaimError> {
    let device = |text| DeviceId::parse(text).map_err(ClaimError::InvalidId);
    match client_id.split_once('/') {
        None => Ok(IdentityId::device(device(client_id)?)),
        Some((parent, module)) => {
            Ok(IdentityId::module(device(parent)?, ModuleId::parse(module).map_err(ClaimError::InvalidId)?))
        }
    }
}

/// The decoded value of a parameter, if it is there and not blank; the first of several counts. `separator` parts
/// parameters besides `&`.
fn parameter(query: &str, separator: char, name: &str) -> Option<String> {
    let (_, value) = query
        .split(['&', separator])
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)?;
    let value: Cow<'_, str> = percent_decode_str(value).decode_utf8_lossy();
    if value.trim().is_empty() { None } else { Some(value.into_owned()) }
}

/// The SDKs' user names have about 300 bytes.
const USER_NAME_BYTES_MAX: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn device(client_id: &str, username: &str) -> Result<(String, String), ClaimError> {
        match parse_claim(client_id, username)? {
            Claim::Device { host, id, .. } => {
                assert_eq!(host, "hub.example");
                Ok((id.device.to_string(), id.module.map(|module| module.to_string()).unwrap_or_default()))
            }
            Claim::Service { .. } => panic!("a service: {username}"),
        }
    }

    #[test]
    fn t322_every_known_form_of_a_device_works() {
        let known = [
            "hub.example/d1/?api-version=2021-04-12",
            "hub.example/d1/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%28x%29",
            "hub.example/d1/?api-version=2021-04-12&model-id=dtmi%3Aa%3Bb&DeviceClientType=x",
            "hub.example/d1/?&api-version=2021-04-12",
            "hub.example/d1/?DeviceClientType=x&api-version=2021-04-12&unknown=1&flag",
            "hub.example/d1/?api-version=2021-04-12&DeviceClientType=a/1.0 (b)",
            "hub.example/d1/api-version=2016-11-14",
            "hub.example/d1/api-version=2016-11-14&DeviceClientType=x",
            "hub.example/d1",
            "hub.example/d1/",
        ];
        for username in known {
            assert_eq!(device("d1", username), Ok(("d1".into(), String::new())), "{username}");
        }
    }

    #[test]
    fn t322_every_known_form_of_a_module_works() {
        let known = [
            "hub.example/d1/m1/?api-version=2021-04-12&DeviceClientType=x",
            "hub.example/d1/m1/api-version=2017-06-30/DeviceClientType=Microsoft.Azure.Devices.Client/1.5.1-preview-003",
            "hub.example/d1/m1",
        ];
        for username in known {
            assert_eq!(device("d1/m1", username), Ok(("d1".into(), "m1".into())), "{username}");
        }
        assert_eq!(
            device("d1/$edgeAgent", "hub.example/d1/$edgeAgent/?api-version=1"),
            Ok(("d1".into(), "$edgeAgent".into()))
        );
    }

    #[test]
    fn parameters_are_decoded_and_the_first_of_several_counts() {
        let username =
            "h/d1/?api-version=1&api-version=2&DeviceClientType=py%2F2%20x+y&model-id=dtmi%3Aa%3Bb";
        let Ok(Claim::Device { api_version, client_type, model_id, .. }) = parse_claim("d1", username) else {
            panic!("no claim");
        };
        assert_eq!(api_version, "1");
        assert_eq!(client_type.as_deref(), Some("py/2 x+y"));
        assert_eq!(model_id.as_deref(), Some("dtmi:a;b"));
    }

    #[test]
    fn parameters_joined_with_slashes_are_read() {
        let username = "h/d1/m1/api-version=2017-06-30/DeviceClientType=Client/1.5.1";
        let Ok(Claim::Device { api_version, client_type, .. }) = parse_claim("d1/m1", username) else {
            panic!("no claim");
        };
        assert_eq!((api_version.as_str(), client_type.as_deref()), ("2017-06-30", Some("Client")));
    }

    #[test]
    fn t502_ids_of_odd_characters_are_not_cut() {
        for id in
            ["?", "?x", "a?b", "a=b", "api-version=1", "?api-version=1", "%31", "a%2Fb", "-.:%_*?!(),=@;$'"]
        {
            let username = format!("hub.example/{id}/?api-version=2021-04-12");
            assert_eq!(device(id, &username), Ok((id.into(), String::new())), "{id}");
            let (client_id, username) =
                (format!("d/{id}"), format!("hub.example/d/{id}/?api-version=2021-04-12"));
            assert_eq!(device(&client_id, &username), Ok(("d".into(), id.into())), "{id}");
        }
    }

    #[test]
    fn t322_user_names_that_say_something_else_are_refused() {
        let mismatched = [
            "hub.example/d2/?api-version=1",
            "hub.example/D1/?api-version=1",
            "hub.example/d10/?api-version=1",
            "hub.example/d/?api-version=1",
            "hub.example/d1/m1/?api-version=1",
            "hub.example//d1/?api-version=1",
            "hub.example/d1//?api-version=1",
            "hub.example/d1?api-version=1",
            "hub.example/d%31/?api-version=1",
            "hub.example/?api-version=1",
            "hub.example/",
            "hub.example/d1/x",
        ];
        for username in mismatched {
            let error = device("d1", username).unwrap_err();
            assert!(matches!(error, ClaimError::ClientIdMismatch(_)), "{username}: {error}");
            assert_eq!(error.outcome(), ConnectionOutcome::ClientIdMismatch);
            assert_eq!(error.identity().unwrap().to_string(), "d1");
        }
    }

    #[test]
    fn t322_user_names_without_form_are_refused() {
        assert_eq!(device("d1", ""), Err(ClaimError::NoUserName));
        assert_eq!(device("d1", "hub.example"), Err(ClaimError::UserNameForm));
        assert_eq!(device("d1", "/d1/?api-version=1"), Err(ClaimError::UserNameForm));
        let long = format!("hub.example/d1/?api-version=1&x={}", "x".repeat(8 * 1024));
        assert!(matches!(device("d1", &long), Err(ClaimError::UserNameTooLong { .. })));
    }

    #[test]
    fn t322_no_or_a_blank_api_version_is_refused() {
        for query in
            ["?", "?api-version=", "?api-version=%20", "?api-version", "?API-VERSION=1", "api-version="]
        {
            let error = device("d1", &format!("hub.example/d1/{query}")).unwrap_err();
            assert_eq!(error.outcome(), ConnectionOutcome::BadApiVersion, "{query}");
        }
    }

    #[test]
    fn t322_client_ids_that_are_no_identity_are_refused() {
        for client_id in ["", "/", "d1/", "/m1", "d1/m1/x", "d 1", "d+", "..", "d1\u{e9}"] {
            let username = format!("hub.example/{client_id}/?api-version=1");
            assert!(matches!(device(client_id, &username), Err(ClaimError::InvalidId(_))), "{client_id}");
        }
    }

    #[test]
    fn t608_the_client_id_of_one_and_the_user_name_of_another_is_refused() {
        for (client_id, named) in [("b", "a"), ("a/m", "a"), ("a", "a/m"), ("a/m", "a/n"), ("a/m", "b/m")] {
            let error = device(client_id, &format!("hub.example/{named}/?api-version=1")).unwrap_err();
            assert!(matches!(error, ClaimError::ClientIdMismatch(_)), "{client_id} {named}");
        }
    }

    #[test]
    fn t615_a_service_names_its_policy_and_no_device() {
        let service = |policy: &str| {
            Ok(Claim::Service { host: "h".into(), policy: policy.into(), api_version: "2021-04-12".into() })
        };
        assert_eq!(parse_claim("d1", "h/?api-version=2021-04-12&policy=service"), service("service"));
        assert_eq!(
            parse_claim("any id", "h/?policy=my%20policy&api-version=2021-04-12"),
            service("my policy")
        );
        assert_eq!(
            parse_claim("x", "h/?api-version=2021-04-12&other=1"),
            Err(ClaimError::ServiceParameterMissing("policy"))
        );
        assert_eq!(
            parse_claim("x", "h/?policy=p&other=1"),
            Err(ClaimError::ServiceParameterMissing("api-version"))
        );
        assert_eq!(
            parse_claim("x", "h/?policy=&api-version=1").unwrap_err().outcome(),
            ConnectionOutcome::BadUserName
        );
    }
}
