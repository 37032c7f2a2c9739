//! The flags that set a device's plain properties.

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

/// Status and capabilities. Without a flag, that property stays as it is.
#[derive(Args)]
pub(crate) struct PropertyArgs {
    /// Whether it may connect
    #[arg(long, visible_alias = "sta", value_enum, ignore_case = true)]
    status: Option<StatusArg>,
    /// Why it has that status; up to 128 characters
    #[arg(long, visible_alias = "star", value_name = "TEXT")]
    status_reason: Option<String>,
    /// Whether it is an IoT Edge device
    #[arg(long, visible_alias = "ee", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    edge_enabled: Option<bool>,
}

#[derive(Clone, Copy, ValueEnum)]
enum StatusArg {
    Enabled,
    Disabled,
}

impl PropertyArgs {
    /// Whether all flags are absent.
    pub(super) fn is_empty(&self) -> bool {
        self.status.is_none() && self.reason().is_none() && self.edge_enabled.is_none()
    }

    /// Writes the given properties into a device.
    pub(super) fn write(&self, device: &mut Value) {
        if let Some(status) = self.status {
            device["status"] = status.word().into();
        }
        if let Some(reason) = self.reason() {
            device["statusReason"] = reason.into();
        }
        if let Some(iot_edge) = self.edge_enabled {
            if !device["capabilities"].is_object() {
                device["capabilities"] = Map::new().into();
            }
            device["capabilities"]["iotEdge"] = iot_edge.into();
        }
    }

    fn reason(&self) -> Option<&str> {
        self.status_reason.as_deref().filter(|reason| !reason.is_empty())
    }
}

impl StatusArg {
    fn word(self) -> &'static str {
        match self {
            StatusArg::Enabled => "enabled",
            StatusArg::Disabled => "disabled",
        }
    }
}
