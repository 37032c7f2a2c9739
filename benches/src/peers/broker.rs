//! Other brokers, each with the configuration that makes it do the same.
//!
//! Defaults stay, unless they would limit one server and not another: limits on connections, on subscriptions, and on
//! what may wait for one subscriber.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use portcullis_testing::tools::brokers::Broker;

use super::started::Started;
use super::{Certificate, SERVICE, free_port, password};
use crate::crowd::name;

pub(super) fn mosquitto(
    server: &Broker,
    passwords: &Path,
    devices: usize,
    certificate: &Certificate,
    directory: &Path,
) -> Result<(Started, u16)> {
    let port = free_port()?;
    let file = directory.join("passwords");
    let lines: String = users(devices).map(|user| format!("{user}:{}\n", password(&user))).collect();
    fs::write(&file, lines)?;
    // With its default hash.
    let hashed = server.beside(passwords).arg("-U").arg(&file).output()?;
    ensure!(hashed.status.success(), "mosquitto_passwd: {}", String::from_utf8_lossy(&hashed.stderr));
    let [chain, key] = files(certificate);
    let config = format!(
        "listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {}\ncertfile {chain}\nkeyfile {key}\n\
        max_queued_messages 0\nlog_type error\nuser root\n",
        file.display()
    );
    let path = directory.join("mosquitto.conf");
    fs::write(&path, config)?;
    Ok((Started::start(server.command().arg("-c").arg(path))?, port))
}

pub(super) fn rumqttd(
    server: &Broker,
    devices: usize,
    certificate: &Certificate,
    directory: &Path,
) -> Result<(Started, u16)> {
    let port = free_port()?;
    let [chain, key] = files(certificate);
    // Its default segments, and no pause between two connections.
    let mut config = format!(
        "id = 0\n[router]\nid = 0\nmax_connections = {}\nmax_outgoing_packet_count = 200\n\
        max_segment_size = 104857600\nmax_segment_count = 10\n\
        [v4.1]\nname = \"v4\"\nlisten = \"127.0.0.1:{port}\"\nnext_connection_delay_ms = 0\n\
        [v4.1.tls]\ncertpath = \"{chain}\"\nkeypath = \"{key}\"\n\
        [v4.1.connections]\nconnection_timeout_ms = 60000\nmax_payload_size = 20480\nmax_inflight_count = 100\n\
        dynamic_filters = true\n[v4.1.connections.auth]\n",
        devices + 100
    );
    for user in users(devices) {
        let _ = writeln!(config, "{user} = \"{}\"", password(&user));
    }
    let path = directory.join("rumqttd.toml");
    fs::write(&path, config)?;
    Ok((Started::start(server.command().arg("-q").arg("-c").arg(path))?, port))
}

pub(super) fn nats(
    server: &Broker,
    devices: usize,
    certificate: &Certificate,
    directory: &Path,
) -> Result<(Started, u16)> {
    let (port, own) = (free_port()?, free_port()?);
    let [chain, key] = files(certificate);
    let mut config = format!(
        "server_name: bench\nlisten: \"127.0.0.1:{own}\"\njetstream {{ store_dir: \"{}\", limits {{ default_max_consumers: -1 }} }}\n\
        mqtt {{ listen: \"127.0.0.1:{port}\", tls {{ cert_file: \"{chain}\", key_file: \"{key}\" }} }}\n\
        authorization {{ users = [\n",
        directory.join("jetstream").display()
    );
    for user in users(devices) {
        let _ = writeln!(config, "{{ user: \"{user}\", password: \"{}\" }}", password(&user));
    }
    config.push_str("] }\n");
    let path = directory.join("nats.conf");
    fs::write(&path, config)?;
    Ok((Started::start(server.command().arg("-c").arg(path))?, port))
}

fn users(devices: usize) -> impl Iterator<Item = String> {
    (0..devices).map(name).chain([SERVICE.to_owned()])
}

fn files(certificate: &Certificate) -> [String; 2] {
    [&certificate.chain, &certificate.key].map(|path| path.display().to_string())
}
