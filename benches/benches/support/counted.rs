//! The cost of an operation: its CPU time, measured by criterion, and its allocations, printed beside it.
//!
//! CPU time leaves out other load on the machine. Allocations are those of the thread, on average over some
//! repetitions. A buffer that grows counts as one more.

use std::hint::black_box;
use std::time::Duration;

use allocation_counter::measure;
use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BenchmarkGroup, Criterion};
use rustix::time::{ClockId, clock_gettime};

/// The CPU time of the calling thread, shown as criterion shows any time.
pub(crate) struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
    }

    fn end(&self, start: Duration) -> Duration {
        self.start().saturating_sub(start)
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// Criterion with this measurement.
pub(crate) fn criterion() -> Criterion<CpuTime> {
    Criterion::default().with_measurement(CpuTime)
}

/// Measures one operation of a group.
pub(crate) fn bench<O>(
    group: &mut BenchmarkGroup<'_, CpuTime>,
    name: &str,
    mut operation: impl FnMut() -> O,
) {
    for _ in 0..REPETITIONS {
        black_box(operation());
    }
    let counted = measure(|| {
        for _ in 0..REPETITIONS {
            black_box(operation());
        }
    });
    let each = |total: u64| total as f64 / f64::from(REPETITIONS);
    println!("{name}: {:.2} allocations, {:.0} bytes", each(counted.count_total), each(counted.bytes_total));
    group.bench_function(name, |bencher| bencher.iter(&mut operation));
}

const REPETITIONS: u32 = 256;
