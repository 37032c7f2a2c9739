//! Import and export of whole fleets, as jobs.

pub mod container;
