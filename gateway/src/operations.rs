//! What can be asked of a hub, each operation once. A right is checked here and an audit line written here.
//!
//! Every operation takes a verified caller and values, and returns values. The fronts translate requests into
//! operations and their results back, and decide nothing themselves.

pub mod audit;
pub mod authorities;
pub mod bulk;
pub mod c2d;
pub mod d2c;
pub mod feedback;
pub mod identities;
pub mod jobs;
pub mod listing;
pub mod logins;
pub mod overview;
pub mod policies;
pub mod presence;
mod problem;
pub mod query;
pub mod sweeper;
pub mod watch;
