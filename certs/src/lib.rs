//! X.509 values for Portcullis: keys, certificates made and read, PEM. Bytes in, values out.
//!
//! Deliberately absent: sockets and TLS, files, devices and what they may do, any clock (the time is an argument).
//! Certificates of our own are ECDSA P-256, which every IoT Hub device SDK's TLS library takes.

#![warn(missing_docs, clippy::print_stdout)]

pub mod anchor;
pub mod ca;
pub mod chain;
pub mod description;
pub mod fleet;
pub mod key;
pub mod name;
pub mod pem;
pub mod presented;
pub mod server_cert;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod thumbprint;
