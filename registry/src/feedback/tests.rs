use super::*;
use crate::id::DeviceId;

const LIMITS: FeedbackLimits = FeedbackLimits {
    records_max: 1_000,
    ttl: Duration::from_secs(3600),
    batch_time_max: Duration::from_secs(15),
    deliveries_max: 3,
};

fn now() -> Timestamp {
    "2026-05-01T08:00:00Z".parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn device(name: &str) -> IdentityId {
    IdentityId::device(DeviceId::parse(name).unwrap())
}

fn record(name: &str, message_id: &str) -> Feedback {
    Feedback {
        device: device(name),
        generation: GenerationId::new(1),
        message_id: message_id.into(),
        outcome: Outcome::Completed,
        at: now(),
    }
}

fn filled(count: u64) -> FeedbackQueue {
    let queue = FeedbackQueue::default();
    (1..=count).for_each(|number| queue.push(number, record("d1", &number.to_string())));
    queue
}

fn ids(batch: &FeedbackBatch) -> Vec<&str> {
    batch.records.iter().map(|record| record.message_id.as_str()).collect()
}

#[test]
fn a_batch_is_ready_at_64_records_or_15_s_after_the_first() {
    let queue = filled(63);
    assert_eq!(queue.lease(&LIMITS, later(14), None), None);
    let batch = queue.lease(&LIMITS, later(15), None).unwrap();
    assert_eq!(batch.records.len(), 63);
    let queue = filled(65);
    assert_eq!(queue.lease(&LIMITS, now(), None).unwrap().records.len(), 64);
    assert_eq!(queue.lease(&LIMITS, now(), None), None);
}

#[test]
fn t911_a_clock_that_steps_back_keeps_no_feedback_waiting() {
    assert!(filled(1).lease(&LIMITS, later(-86_400), None).is_some());
}

#[test]
fn what_is_given_back_comes_again_first_and_not_for_ever() {
    let queue = filled(2);
    let start = Instant::now();
    for _ in 0..3 {
        let batch = queue.lease(&LIMITS, later(15), None).unwrap();
        assert_eq!(ids(&batch), ["1", "2"]);
        assert!(queue.release(batch.token));
        assert!(!queue.release(batch.token));
        assert_eq!(queue.numbers(batch.token, start), None);
    }
    assert_eq!(queue.lease(&LIMITS, later(15), None), None);
    assert_eq!(queue.outdated(&LIMITS, later(15)), [1, 2]);
}

#[test]
fn t911_a_lock_ends_by_the_monotonic_clock_alone() {
    let queue = filled(1);
    let start = Instant::now();
    let until = start + Duration::from_secs(60);
    let batch = queue.lease(&LIMITS, later(15), Some(until)).unwrap();
    queue.tick(&LIMITS, later(1_000), until - Duration::from_nanos(1));
    assert_eq!(queue.numbers(batch.token, until - Duration::from_nanos(1)), Some(vec![1]));
    assert_eq!(queue.numbers(batch.token, until), None);
    queue.tick(&LIMITS, later(-1_000), until);
    assert_eq!(ids(&queue.lease(&LIMITS, later(15), None).unwrap()), ["1"]);
}

#[test]
fn records_outlive_neither_their_time_nor_their_device() {
    let queue = filled(1);
    queue.push(2, record("D1", "2"));
    queue.push(3, record("d1", "3"));
    let batch = queue.lease(&LIMITS, later(15), None).unwrap();
    queue.forget(&device("d1"));
    assert_eq!((queue.len(), queue.numbers(batch.token, Instant::now())), (1, Some(vec![2])));
    queue.release(batch.token);
    assert_eq!(queue.lease(&LIMITS, later(3_600), None), None);
    assert_eq!(queue.outdated(&LIMITS, later(3_600)), [2]);
    queue.remove(&[2, 2]);
    assert_eq!(queue.len(), 0);
}

#[test]
fn when_it_is_full_the_oldest_makes_room() {
    let limits = FeedbackLimits { records_max: 3, ..LIMITS };
    let queue = filled(3);
    assert_eq!(queue.surplus(&limits), [1]);
    assert_eq!(queue.surplus(&LIMITS), [0; 0]);
    queue.push(4, record("d1", "4"));
    assert_eq!(queue.outdated(&limits, now()), [1]);
}

#[tokio::test]
async fn a_receiver_hears_of_the_first_record() {
    let queue = FeedbackQueue::default();
    let heard = queue.ready.notified();
    queue.push(1, record("d1", "1"));
    heard.await;
}
