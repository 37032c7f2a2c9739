//! How fast telemetry is read.

use super::*;

#[test]
fn t1004_beyond_its_rate_a_device_is_not_read_and_its_keep_alive_waits() {
    let now = start();
    let limits = SessionLimits { message_rate: Rate::per_second(2), ..limits() };
    let mut bench = Bench { core: SessionCore::new(device(), limits, now), now };
    bench.exchange(publish(EVENTS, None));
    assert!(bench.core.wants_packet());
    bench.exchange(publish(EVENTS, None));
    assert!(!bench.core.wants_packet());
    assert_eq!(bench.core.deadline(), now.monotonic + Duration::from_millis(500));
    bench.pass(Duration::from_millis(500));
    bench.core.on_timeout(bench.now);
    assert!(bench.core.wants_packet());
    // Nothing else was asked for: it was not closed, and its silence counts from now.
    assert_eq!(bench.actions(), []);
    assert!(bench.core.deadline() > now.monotonic + Duration::from_secs(60));
    // What carries no telemetry is not held up.
    bench.exchange(Packet::PingReq);
    assert!(bench.core.wants_packet());
}
