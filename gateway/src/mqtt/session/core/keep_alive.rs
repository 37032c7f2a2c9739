//! How long a peer may be silent.

use std::time::Duration;

/// How long a peer may be silent: one and a half of what it said ([MQTT-3.1.2-24]). No promise, and one of more
/// than the maximum, count as the maximum (IoT Hub: 1,177 s).
pub(super) fn keep_alive_time(seconds: u16, keep_alive_max: Duration) -> Duration {
    let asked = Duration::from_secs(u64::from(seconds));
    let kept = if asked.is_zero() { keep_alive_max } else { asked.min(keep_alive_max) };
    kept.saturating_mul(3) / 2
}
