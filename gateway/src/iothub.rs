//! IoT Hub's formats, as values: what its clients write and read. Nothing here knows a socket or the hub's state.
//!
//! `topic` parses and writes topics. `property_bag` does the same for the property bag at a topic's end.
//! `connection_string` parses and writes the strings that configure SDKs. `strict_json` parses JSON without repeated
//! names. `time` writes times. `message_properties` has the names of properties and headers, `error_code` those of errors
//! with their statuses and numbers. `api_version` and `user_name` are what requests and connections begin with.
//!
//! To add a topic: a variant in `topic::PublishTopic` or `topic::Filter`, its text in the parser beside it, its rule
//! in `mqtt::session::core`.

pub mod api_version;
pub mod change;
pub mod connection_string;
pub mod error_code;
pub(crate) mod identity_json;
pub mod message_properties;
pub(crate) mod problem;
pub mod property_bag;
pub(crate) mod strict_json;
pub mod time;
pub mod topic;
pub mod user_name;
