//! Operations on the enrolled CAs as operators may call them: each checks the caller's right, does the one thing, and
//! leaves a line in the log. What is answered is stored, and counts at once, for live connections too.

/// Under which key the store keeps the enrolled CAs.
pub const STORED: &str = "authorities";
