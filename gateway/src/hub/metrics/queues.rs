//! What the registry counts of its queues, read when somebody asks.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use portcullis_registry::store::Registry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// The metrics of all queues together.
#[derive(Debug)]
pub struct QueueCollector(pub Arc<Registry>);

impl Collector for QueueCollector {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts = self.0.queue_counts();
        let age = counts.oldest.map_or(0.0, |oldest| Timestamp::now().duration_since(oldest).as_secs_f64());
        gauge(
            &mut to,
            "c2d_queue_messages",
            "Cloud-to-device messages that wait or are on their way",
            counts.messages as f64,
        )?;
        gauge(
            &mut to,
            "c2d_queue_oldest_age_seconds",
            "How long ago the oldest of them was accepted; 0 if there is none",
            age.max(0.0),
        )?;
        gauge(
            &mut to,
            "c2d_feedback_records",
            "Feedback that waits for services",
            counts.feedback_records as f64,
        )?;
        let expired = ConstCounter::new(counts.expired);
        let help = "Cloud-to-device messages that expired";
        expired.encode(to.encode_descriptor("c2d_expired", help, None, expired.metric_type())?)?;
        let results = [
            ("complete", counts.completed),
            ("reject", counts.rejected),
            ("delivery_count_exceeded", counts.delivery_count_exceeded),
            ("purge", counts.purged),
        ];
        let help = "Cloud-to-device messages that ended in another way, by result";
        let mut family =
            to.encode_descriptor("c2d_completed", help, None, ConstCounter::new(0u64).metric_type())?;
        for (result, count) in results {
            ConstCounter::new(count).encode(family.encode_family(&[("result", result)])?)?;
        }
        Ok(())
    }
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> Result<(), fmt::Error> {
    let gauge = ConstGauge::new(value);
    gauge.encode(to.encode_descriptor(name, help, None, gauge.metric_type())?)
}
