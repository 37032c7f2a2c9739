//! What an operation takes: its time, by criterion, and printed beside it what it allocates.
//!
//! Counted are the calling thread's allocations, a buffer that grows as one more, on average over some repetitions.

use std::hint::black_box;

use allocation_counter::measure;
use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;

/// Measures one operation of a group.
pub(crate) fn bench<O>(
    group: &mut BenchmarkGroup<'_, WallTime>,
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
