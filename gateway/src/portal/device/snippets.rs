//! Programs that connect as a device, ready to run: for Python, Node.js, mosquitto and the command line. Ids contain no
//! quotation mark and no backslash, so a program's text holds them unchanged. A shell needs its own quotes.

use std::path::PathBuf;

use maud::{Markup, html};
use portcullis_registry::id::IdentityId;
use portcullis_registry::identity::{Authentication, Identity};
use portcullis_registry::sas;

use super::credentials::{SecretDisplay, is_expressible, of_secret};
use crate::hub::Hub;
use crate::iothub::connection_string::Secret;
use crate::iothub::user_name;
use crate::portal::paths;

/// One program, or a few commands.
struct Snippet {
    name: &'static str,
    id: &'static str,
    text: String,
}

/// The values that snippets contain.
struct SnippetSubject<'a> {
    host: &'a str,
    mqtt_port: u16,
    ca: String,
    id: &'a IdentityId,
    /// Whether it authenticates with a certificate.
    by_certificate: bool,
    /// With the key, or with a placeholder for it.
    connection_string: String,
    /// A token that is valid for an hour.
    token: Option<String>,
}

/// Every snippet for an identity.
pub(super) fn section(hub: &Hub, identity: &Identity, shown: SecretDisplay) -> Markup {
    let Some(about) = SnippetSubject::new(hub, identity, shown) else { return html! {} };
    let snippets = [about.python(), about.node(), about.mosquitto(), about.command_line()];
    html! {
        section.card aria-labelledby="snippets-name" {
            h2 id="snippets-name" { "Connect it" }
            p.hint {
                @if hub.config.certificate.is_none() {
                    "The device must trust " code { (about.ca) } " on the hub's machine. For another machine, "
                    a href=(paths::CA) download="ca.pem" { "download ca.pem" } "."
                } @else {
                    "The device must trust the CA that has signed this hub's certificate, here named " code { (about.ca) } "."
                }
                @if shown == SecretDisplay::Hidden && !about.by_certificate {
                    " Reveal the connection string above to put it into the programs below."
                }
            }
            @for snippet in snippets {
                details open[snippet.id == "python"] {
                    summary { (snippet.name) }
                    div.snippet {
                        pre tabindex="0" id={ "snippet-" (snippet.id) } { (snippet.text) }
                        button type="button" data-copy={ "snippet-" (snippet.id) } { "Copy" }
                    }
                }
            }
        }
    }
}

impl<'a> SnippetSubject<'a> {
    /// None for an identity that cannot connect, or not with a connection string.
    fn new(hub: &'a Hub, identity: &'a Identity, shown: SecretDisplay) -> Option<Self> {
        let (id, host) = (&identity.id, hub.hosts.primary());
        if !is_expressible(id) {
            return None;
        }
        let (connection_string, token) = match (&identity.authentication, shown) {
            (Authentication::None, _) => return None,
            (Authentication::Sas(keys), SecretDisplay::Revealed) => {
                let key = Secret::Key { policy: None, key: keys.primary.clone() };
                let expiry = hub.clock.wall().as_second() + TOKEN_SECONDS;
                let token = sas::sign(&resource(host, id), &keys.primary, expiry, None);
                (of_secret(host, id, key), Some(token))
            }
            (Authentication::Sas(_), SecretDisplay::Hidden) => {
                let without = of_secret(host, id, Secret::X509);
                let named = without.strip_suffix("x509=true").unwrap_or(&without);
                (format!("{named}SharedAccessKey=…"), None)
            }
            (Authentication::SelfSigned(_) | Authentication::CertificateAuthority, _) => {
                (of_secret(host, id, Secret::X509), None)
            }
        };
        Some(Self {
            host,
            mqtt_port: hub.hosts.mqtt_port(),
            ca: match hub.config.certificate {
                None => ca_path(hub).display().to_string(),
                Some(_) => "ca.pem".to_owned(),
            },
            id,
            by_certificate: !matches!(identity.authentication, Authentication::Sas(_)),
            connection_string,
            token,
        })
    }

    fn python(&self) -> Snippet {
        let client = if self.id.module.is_some() { "IoTHubModuleClient" } else { "IoTHubDeviceClient" };
        let (device, ca) = (&self.id.device, &self.ca);
        let (import, making) = match self.by_certificate {
            false => (
                format!("{client}, Message"),
                format!(
                    "connection_string = \"{}\"\nclient = {client}.create_from_connection_string(\n    \
                     connection_string, server_verification_cert=ca)",
                    self.connection_string
                ),
            ),
            true => {
                let module = self.id.module.as_ref();
                let module = module.map(|module| format!(" module_id=\"{module}\",")).unwrap_or_default();
                (
                    format!("{client}, Message, X509"),
                    format!(
                        "certificate = X509(cert_file=\"{0}.pem\", key_file=\"{0}-key.pem\")\n\
                         client = {client}.create_from_x509_certificate(\n    certificate, hostname=\"{1}\", \
                         device_id=\"{device}\",{module}\n    server_verification_cert=ca)",
                        file_name(self.id),
                        self.host
                    ),
                )
            }
        };
        let text = format!(
            "# pip install azure-iot-device\nfrom azure.iot.device import {import}\n\nca = open(\"{ca}\").read()\n\
             {making}\nclient.on_message_received = lambda message: print(message.data, message.custom_properties)\n\
             client.connect()\nclient.send_message(Message(\"21.5 degrees\"))\n\
             input(\"waiting for messages; Enter ends\\n\")\nclient.shutdown()\n"
        );
        Snippet { name: "Python", id: "python", text }
    }

    fn node(&self) -> Snippet {
        let certificate = match self.by_certificate {
            false => String::new(),
            true => {
                let name = file_name(self.id);
                format!(
                    ",\n  cert: fs.readFileSync(\"{name}.pem\", \"utf8\"), key: fs.readFileSync(\"{name}-key.pem\", \"utf8\")"
                )
            }
        };
        let client = if self.id.module.is_some() { "ModuleClient" } else { "Client" };
        let text = format!(
            "// npm install azure-iot-device azure-iot-device-mqtt\nconst fs = require(\"fs\");\n\
             const {{ {client}, Message }} = require(\"azure-iot-device\");\n\
             const {{ Mqtt }} = require(\"azure-iot-device-mqtt\");\n\n\
             const client = {client}.fromConnectionString(\"{}\", Mqtt);\n\
             (async () => {{\n  await client.setOptions({{ ca: fs.readFileSync(\"{}\", \"utf8\"){certificate} }});\n  \
             await client.open();\n  client.on(\"message\", (message) => {{\n    \
             console.log(message.data.toString());\n    client.complete(message, () => {{}});\n  }});\n  \
             await client.sendEvent(new Message(\"21.5 degrees\"));\n}})();\n",
            self.connection_string, self.ca
        );
        Snippet { name: "Node.js", id: "node", text }
    }

    fn mosquitto(&self) -> Snippet {
        let user = quoted(&user_name::of_device(self.host, self.id));
        let topic = match &self.id.module {
            None => format!("devices/{}", self.id.device),
            Some(module) => format!("devices/{}/modules/{module}", self.id.device),
        };
        let name = file_name(self.id);
        let (before, credential_flags) = match (self.by_certificate, &self.token) {
            (true, _) => (
                String::new(),
                format!(
                    "--cert {} --key {}",
                    quoted(&format!("{name}.pem")),
                    quoted(&format!("{name}-key.pem"))
                ),
            ),
            // The token expires after an hour. The command line makes another.
            (false, Some(token)) => (format!("TOKEN={}\n", quoted(token)), "-P \"$TOKEN\"".to_owned()),
            (false, None) => (
                format!("TOKEN=$(portcullis generate-sas-token {})\n", self.flags()),
                "-P \"$TOKEN\"".to_owned(),
            ),
        };
        let command = |name: &str, rest: String| {
            format!(
                "{name} -h {} -p {} --cafile {} -V mqttv311 -q 1 \\\n  -i {} -u {user} {credential_flags} \\\n  {rest}\n",
                self.host,
                self.mqtt_port,
                quoted(&self.ca),
                quoted(&self.id.to_string()),
            )
        };
        let publish = format!("-t {} -m '21.5 degrees'", quoted(&format!("{topic}/messages/events/")));
        let subscribe = format!("-t {}", quoted(&format!("{topic}/messages/devicebound/#")));
        let text =
            format!("{before}{}{}", command("mosquitto_pub", publish), command("mosquitto_sub", subscribe));
        Snippet { name: "mosquitto", id: "mosquitto", text }
    }

    fn command_line(&self) -> Snippet {
        let flags = self.flags();
        let about = match &self.id.module {
            None => quoted(self.id.device.as_str()),
            Some(module) => {
                format!("{} --module-id {}", quoted(self.id.device.as_str()), quoted(module.as_str()))
            }
        };
        let text = format!(
            "# on the hub's machine, next to its data directory; elsewhere with --login and --ca\n\
             portcullis monitor-events {flags}                  # what it sends\n\
             portcullis c2d-message send {flags} --data 'open valve'   # what it gets\n\
             portcullis why {about}                             # why it cannot connect\n"
        );
        Snippet { name: "portcullis", id: "portcullis", text }
    }

    fn flags(&self) -> String {
        let device = format!("-d {}", quoted(self.id.device.as_str()));
        match &self.id.module {
            None => device,
            Some(module) => format!("{device} -m {}", quoted(module.as_str())),
        }
    }
}

/// The resource of a token for an identity.
pub(super) fn resource(host: &str, id: &IdentityId) -> String {
    match &id.module {
        None => format!("{host}/devices/{}", id.device),
        Some(module) => format!("{host}/devices/{}/modules/{module}", id.device),
    }
}

/// The CA of the hub's certificate, unless the operator has configured another certificate.
pub(in crate::portal) fn ca_path(hub: &Hub) -> PathBuf {
    hub.config.data_dir.join("ca.pem")
}

/// The names of files that `portcullis cert device issue` writes.
fn file_name(id: &IdentityId) -> String {
    let name = id.to_string();
    name.chars()
        .map(|letter| if letter.is_ascii_alphanumeric() || "-._".contains(letter) { letter } else { '_' })
        .collect()
}

/// The text for a shell, in quotes if it needs them.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._/:=@%+,".contains(letter);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

const TOKEN_SECONDS: i64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_an_id_as_it_is() {
        for (id, text) in
            [("pump-7", "pump-7"), ("a b", "'a b'"), ("$(x)", "'$(x)'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(quoted(id), text);
        }
    }
}
