//! The least a TLS server of MQTT could do: it shakes hands, says yes to whoever comes, and acknowledges. Nobody is
//! asked who they are, nothing is kept, and nothing is passed on: a limit to measure against, not a server to use.
//!
//! It is the calling program again, as the hub is: `serve_if_asked` at the top of `main`.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result};
use portcullis::mqtt::codec::{PacketLimits, Side};
use portcullis::mqtt::packet::{ConnectReturnCode, Packet};
use portcullis::wire::Wire;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use super::{Certificate, free_port};
use crate::process::Process;

/// Becomes the bare server when `start` started this process.
pub fn serve_if_asked() -> Option<ExitCode> {
    let port = std::env::var(PORT).ok()?.parse().ok()?;
    let [chain, key] = [CHAIN, KEY].map(|name| std::env::var_os(name).map(PathBuf::from));
    let served = Runtime::new().map_err(Into::into).and_then(|runtime| {
        runtime.block_on(serve(port, chain.context("no certificate")?, key.context("no key")?))
    });
    match served {
        Ok(()) => Some(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{error:#}");
            Some(ExitCode::FAILURE)
        }
    }
}

pub(super) fn start(certificate: &Certificate) -> Result<(Process, u16)> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.env(PORT, port.to_string()).env(CHAIN, &certificate.chain).env(KEY, &certificate.key);
    Ok((Process::start(&mut command)?, port))
}

async fn serve(port: u16, chain: PathBuf, key: PathBuf) -> Result<()> {
    let chain = vec![CertificateDer::from_pem_file(chain)?];
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    // As the hub has it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(converse(acceptor.clone(), stream));
    }
}

/// To the end of the connection, whatever ends it.
async fn converse(acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    // Boxed, so that the room the handshake took is not kept.
    let Ok(stream) = Box::pin(acceptor.accept(stream)).await else { return };
    let mut wire = Wire::new(Box::new(stream), PacketLimits::before_connect(8 * 1024), Side::Client);
    while let Ok(packet) = wire.read().await {
        match packet {
            Packet::Connect(_) => {
                wire.set_limits(PacketLimits::after_connect(1 << 18, 1 << 18));
                wire.send(&Packet::ConnAck { session_present: false, code: ConnectReturnCode::Accepted });
            }
            Packet::Publish(publish) => {
                if let Some(packet_id) = publish.packet_id {
                    wire.send(&Packet::PubAck(packet_id));
                }
            }
            Packet::Disconnect => return,
            _ => {}
        }
        if wire.flush().await.is_err() {
            return;
        }
    }
}

const PORT: &str = "PORTCULLIS_BENCHES_BARE_PORT";
const CHAIN: &str = "PORTCULLIS_BENCHES_BARE_CHAIN";
const KEY: &str = "PORTCULLIS_BENCHES_BARE_KEY";
