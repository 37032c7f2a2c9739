//! Containers of Azure Blob storage, and of what speaks like it, for import and export.
//!
//! Both the address, which a user gave, and what answers there are hostile until shown otherwise: `address`
//! reads the one and says which hosts there may be, `guard` and `lookup` say which addresses those may have, `client`
//! dials only these and believes little of an answer, `reader` and `writer` keep what is held small.
//!
//! Five requests of the Blob REST interface are all that is spoken here. Deliberately absent: account keys, listing,
//! redirects, proxies, and any second try that a blob store did not ask for.

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
