//! Containers of Azure Blob storage, and of compatible stores, for import and export.
//!
//! A user names the address, and the address and its answers may be hostile. `address` parses the address and checks
//! its host. `guard` and `lookup` check the host's IP addresses. `client` connects only to these and trusts little of
//! an answer. `reader` and `writer` limit the memory in use.
//!
//! The client uses five requests of the Blob REST interface. Deliberately absent: account keys, listing, redirects,
//! proxies, and retries that the blob store did not ask for.

mod address;
mod client;
pub mod container;
mod guard;
mod hosts;
mod lookup;
mod reader;
mod writer;

pub use client::BlobContainer;
pub use hosts::BlobHosts;
pub use lookup::Lookup;
pub use writer::BlobWriter;
