//! What to do about each way a device fails to get in or to stay.

use portcullis_registry::id::IdentityId;

/// What to do about an outcome or reason, where there is something to do.
pub fn of(outcome: &str, id: &IdentityId) -> Option<String> {
    let (verb, flags) = match &id.module {
        None => ("device-identity", format!("-d {}", id.device)),
        Some(module) => ("module-identity", format!("-d {} -m {module}", id.device)),
    };
    let show = format!("`portcullis connection-string show {flags}`");
    Some(match outcome {
        "unknown_device" => format!(
            "`portcullis {verb} create {flags}` registers it; ids are compared letter by letter, so look at its case too"
        ),
        "disabled" => {
            format!("`portcullis device-identity update -d {} --status enabled` lets it in again", id.device)
        }
        "no_credential" => {
            format!("{show} prints what it must be configured with; SDKs make the token from that")
        }
        "wrong_auth_method" => format!(
            "configure the device with what is registered, or register what it has: `portcullis {verb} update {flags} \
             --auth-method …`"
        ),
        "sas_switched_off" => {
            "give it a certificate, or switch tokens on again in the hub's configuration (sas)".into()
        }
        "sas_expired" | "token_expired" => {
            "SDKs make new tokens by themselves from a connection string; if this one was new, the device's clock is \
             wrong: compare it with the hub's"
                .into()
        }
        "sas_bad_signature" => format!(
            "the device has another key than the registry: {show} prints the right one; who signs by hand must decode \
             the key from base64 first"
        ),
        "sas_malformed" => format!("the password must be a SAS token; `portcullis generate-sas-token {flags}` prints one"),
        "sas_wrong_audience" => format!("the token is another identity's: {show} prints this one's connection string"),
        "hub_unknown" => {
            "the device calls the hub by a name it does not answer to: change HostName, or start the hub with --hostname"
                .into()
        }
        "unknown_policy" | "right_missing" => {
            "`portcullis policy list -o table` prints the policies and their rights; a device needs DeviceConnect".into()
        }
        "client_id_mismatch" => "the client id must be the id in the user name".into(),
        "bad_api_version" | "bad_user_name" => {
            "the user name must be {host}/{id}/?api-version=2021-04-12".into()
        }
        "will_refused" => "a will may only be telemetry, on the device's own topic".into(),
        "x509_thumbprint_mismatch" => format!(
            "`portcullis cert thumbprint FILE` prints a certificate's; `portcullis {verb} update {flags} --ptp …` \
             registers it"
        ),
        "x509_expired" | "x509_not_yet_valid" | "certificate_expired" => {
            "the device needs a certificate that holds now: `portcullis cert device rotate` replaces one; look at the \
             hub's clock too"
                .into()
        }
        "x509_chain_untrusted" => {
            "`portcullis cert ca list` prints the CAs that are trusted; the device must show its intermediates too"
                .into()
        }
        "x509_ca_unverified" => "`portcullis cert ca verify --name NAME` proves that the CA is yours".into(),
        "x509_name_mismatch" => format!("the certificate must be issued for the common name {id}"),
        "x509_malformed" => "`portcullis cert inspect FILE` says what is wrong with it".into(),
        "connection_limit" => "the hub is full: raise limits.connections_max, or find who holds the connections".into(),
        "taken_over" => {
            "another client connected with this identity, or the device came back before its old connection was over"
                .into()
        }
        "keep_alive_missed" | "connection_lost" => "look at the device's network and power".into(),
        "slow_reader" => "the device does not read what it is sent".into(),
        "access_denied" | "access_narrowed" => {
            format!("`portcullis {verb} show {flags}` prints its access list, which says what it may do")
        }
        "credential_changed" => format!("its keys, certificate or policy were changed: {show} prints the new ones"),
        _ => return None,
    })
}

/// How a connection ended, in words.
pub fn ending(reason: &str) -> &str {
    match reason {
        "client_disconnected" => "it said goodbye",
        "connection_lost" => "the connection broke",
        "keep_alive_missed" => "nothing was heard of it for too long",
        "token_expired" => "its token ended",
        "certificate_expired" => "its certificate ended",
        "bad_protocol" => "it did what MQTT or IoT Hub do not allow",
        "slow_reader" => "it did not take what it was sent",
        "taken_over" => "the same identity connected anew",
        "disabled" => "it or its device was disabled",
        "deleted" => "it was deleted",
        "credential_changed" => "what it signed in with was changed",
        "access_denied" => "it did what its access list does not allow",
        "access_narrowed" => "its access list was narrowed",
        "store_unavailable" => "the hub could not store what it asked for",
        "shutdown" => "the hub stopped",
        other => other,
    }
}
