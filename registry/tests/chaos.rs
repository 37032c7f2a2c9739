//! Chaos: many devices whose ids differ by case and prefix, many operators and devices at once, and a process that is
//! killed again and again. What a sender was promised must come true: each accepted message is delivered to its own
//! identity and generation, first deliveries in order, never after its expiry, and in the end it either waits still or
//! has exactly one outcome.
//!
//! The child process does the work and prints every step before and after it; the parent kills it and judges what was
//! printed. It is quick as part of the tests; at its full size it runs for some minutes, in a release build:
//!
//!     PORTCULLIS_CHAOS=full cargo test --release -p portcullis-registry --test chaos -- --nocapture

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::feedback::FeedbackLimits;
use portcullis_registry::id::{DeviceId, IdentityId, Precondition};
use portcullis_registry::identity::{IdentitySpec, Status};
use portcullis_registry::message::{Ack, C2dMessage, NewC2d, Outcome};
use portcullis_registry::store::{Registry, RegistryLimits};
use tempfile::TempDir;

/// How much of it.
#[derive(Clone, Copy)]
struct Size {
    ids: u64,
    messages: usize,
    kills: usize,
    workers: u64,
}

const QUICK: Size = Size { ids: 64, messages: 1_500, kills: 5, workers: 8 };
const FULL: Size = Size { ids: 10_000, messages: 100_000, kills: 25, workers: 50 };

fn size() -> Size {
    if std::env::var("PORTCULLIS_CHAOS").is_ok_and(|size| size == "full") { FULL } else { QUICK }
}

/// Ids that differ by case, or of which one is the beginning of another.
fn device(number: u64) -> IdentityId {
    let family = number / 4;
    let name = match number % 4 {
        0 => format!("pump{family}"),
        1 => format!("PUMP{family}"),
        2 => format!("pump{family}."),
        _ => format!("Pump{family}"),
    };
    IdentityId::device(DeviceId::parse(&name).unwrap())
}

/// Numbers without pattern, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// What the child's tasks share. Its time is its own: it passes as they please, and goes on in the next round.
struct World {
    registry: Arc<Registry>,
    size: Size,
    round: u64,
    seconds: AtomicI64,
    messages: AtomicU64,
    start: Instant,
}

impl World {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-05-01T08:00:00Z".parse().unwrap();
        start + SignedDuration::from_secs(self.seconds.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds.load(Ordering::Relaxed).unsigned_abs())
    }

    /// One of the ids that are this worker's alone among its kind.
    fn own_device(&self, worker: u64, random: &mut Random) -> IdentityId {
        let mine = self.size.ids / self.size.workers;
        device(worker + self.size.workers * random.below(mine))
    }
}

/// Sends, purges, disables, deletes and makes anew.
async fn operate(world: Arc<World>, worker: u64) {
    let mut random = Random(world.round * 1_000_003 + worker);
    loop {
        let id = world.own_device(worker, &mut random);
        let now = world.now();
        let Some(entry) = world.registry.entry(&id) else {
            world.registry.create(IdentitySpec::sas_device(id), now).await.unwrap();
            continue;
        };
        let generation = entry.identity().generation;
        match random.below(100) {
            0..80 => {
                let number = world.round * 100_000_000 + world.messages.fetch_add(1, Ordering::Relaxed);
                let expiry = now + SignedDuration::from_secs(random.below(400) as i64 + 5);
                let message = NewC2d {
                    message_id: Some(number.to_string()),
                    body: format!("{id} {generation} {number}").into(),
                    expiry: Some(expiry),
                    ack: Ack::Full,
                    ..NewC2d::default()
                };
                println!("@ sending {id} {generation} {number}");
                if world.registry.send(&id, message, now).await.is_ok() {
                    println!("@ sent {id} {generation} {number}");
                }
            }
            80..85 => {
                let status = match entry.identity().status {
                    Status::Enabled => Status::Disabled,
                    Status::Disabled => Status::Enabled,
                };
                let spec = IdentitySpec { status, ..IdentitySpec::sas_device(id) };
                world.registry.replace(spec, Precondition::AnyVersion, now).await.unwrap();
            }
            85..87 => _ = world.registry.purge(&id, now).await.unwrap(),
            87..88 => {
                println!("@ deleting {id} {generation}");
                world.registry.delete(&id, Precondition::Absent).await.unwrap();
            }
            _ => println!("@ time {}", world.seconds.fetch_add(1, Ordering::Relaxed) + 1),
        }
    }
}

/// Connects, reads, acknowledges some of it, and is gone; or polls.
async fn consume(world: Arc<World>, worker: u64) {
    let mut random = Random(world.round * 7_000_003 + worker);
    loop {
        tokio::task::yield_now().await;
        let id = world.own_device(worker, &mut random);
        let Some(entry) = world.registry.entry(&id) else { continue };
        if entry.identity().status == Status::Disabled {
            continue;
        }
        let generation = entry.identity().generation;
        if random.below(4) == 0 {
            let now = world.now();
            let lock = Duration::from_secs(5 + random.below(20));
            if entry.subscriptions().is_none() {
                continue;
            }
            let Some(received) = world.registry.receive(&entry, lock, now, world.monotonic()) else {
                continue;
            };
            print_delivery(&id, generation.number(), &received.message, received.is_repeat, now);
            let number = &received.message.message_id;
            let settle = |outcome| {
                world.registry.settle_received(
                    &entry,
                    received.token,
                    outcome,
                    world.now(),
                    world.monotonic(),
                )
            };
            match random.below(4) {
                0 => {
                    println!("@ completing {id} {generation} {number}");
                    if settle(Outcome::Completed).await.is_ok() {
                        println!("@ completed {id} {generation} {number}");
                    }
                }
                1 => _ = settle(Outcome::Rejected).await,
                2 => {
                    let (now, monotonic) = (world.now(), world.monotonic());
                    let _ = world.registry.abandon_received(&entry, received.token, now, monotonic).await;
                }
                _ => {}
            }
            continue;
        }
        // A device that connects has subscribed, and its subscriptions are stored.
        let saved = world.registry.save_subscriptions(&id, generation, Some(vec![1])).await;
        if saved.is_err() {
            continue;
        }
        // One connection after the other, each gone without a goodbye: the next takes over what it had.
        for _ in 0..=random.below(2) {
            let mut consumer = world.registry.attach(&entry);
            let now = world.now();
            let mut leased = Vec::new();
            while leased.len() < 16
                && let Some(lease) = consumer.lease(now)
            {
                print_delivery(&id, generation.number(), &lease.message, lease.is_repeat, now);
                leased.push(lease.message);
            }
            for message in leased.iter().filter(|_| random.below(5) > 0) {
                let number = &message.message_id;
                println!("@ completing {id} {generation} {number}");
                if consumer.complete(message.number, world.now()).await.unwrap() {
                    println!("@ completed {id} {generation} {number}");
                }
            }
        }
    }
}

/// Who got it; for whom it was; whether it was called a repeat; how many seconds it had left.
fn print_delivery(id: &IdentityId, generation: u64, message: &C2dMessage, is_repeat: bool, now: Timestamp) {
    let meant_for = std::str::from_utf8(&message.body).unwrap();
    let left = message.expiry.duration_since(now).as_secs();
    println!("@ got {id} {generation:018} {meant_for} {is_repeat} {left}");
}

fn open(directory: &Path) -> Arc<Registry> {
    let feedback = FeedbackLimits {
        records_max: 1_000_000,
        ttl: Duration::from_secs(1_000_000_000),
        batch_time_max: Duration::ZERO,
        deliveries_max: u32::MAX,
    };
    let limits = RegistryLimits { feedback, delivery_count_max: 2, ..RegistryLimits::default() };
    Registry::open(Box::new(SqliteBackend::open(directory).unwrap()), limits).unwrap()
}

/// Not a test of its own: the process that `chaos` runs and kills.
#[test]
fn child_that_works_until_it_is_killed() {
    let Some(directory) = std::env::var_os(CHILD_DIRECTORY) else { return };
    let round: u64 = std::env::var(CHILD_ROUND).unwrap().parse().unwrap();
    let registry = open(Path::new(&directory));
    let world = Arc::new(World {
        registry,
        size: size(),
        round,
        seconds: AtomicI64::new(std::env::var(CHILD_TIME).unwrap().parse().unwrap()),
        messages: AtomicU64::new(0),
        start: Instant::now(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        for worker in 0..world.size.workers {
            tokio::spawn(operate(Arc::clone(&world), worker));
            tokio::spawn(consume(Arc::clone(&world), worker));
        }
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            world.registry.sweep(world.now(), world.monotonic()).await.unwrap();
        }
    });
}

/// Starts a round and hears it out until `sends` messages were accepted in it; then it is killed.
fn run_round(directory: &Path, round: usize, sends: usize, judge: &mut Judge) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_works_until_it_is_killed", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .env(CHILD_ROUND, round.to_string())
        // A little later than it ended: the last step of its time it may not have printed.
        .env(CHILD_TIME, (judge.seconds + 100).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    judge.begin_round();
    let enough = judge.sent.len() + sends;
    let mut is_killed = false;
    // What it had already said before it died counts too; a last line cut short does not.
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 && line.ends_with('\n') {
        judge.hear(&line);
        line.clear();
        if judge.sent.len() >= enough && !is_killed {
            child.kill().unwrap();
            is_killed = true;
        }
    }
    child.wait().unwrap();
    assert!(is_killed, "the child ended by itself in round {round}");
}

/// A message by the id and generation it was sent to and its own number, which grows with each send.
type Name = (String, String, u64);

/// Hears every step and finds what should never be.
#[derive(Default)]
struct Judge {
    sending: HashSet<Name>,
    sent: HashSet<Name>,
    completing: HashSet<Name>,
    completed: HashSet<Name>,
    delivered: HashSet<Name>,
    /// Sent since the last kill.
    sent_this_round: HashSet<Name>,
    /// The number of the last first delivery to each generation.
    last_first: HashMap<(String, String), u64>,
    deleting: HashSet<(String, String)>,
    /// The child's time.
    seconds: i64,
    deliveries: usize,
    repeats: usize,
}

impl Judge {
    fn begin_round(&mut self) {
        self.sent_this_round.clear();
    }

    fn hear(&mut self, line: &str) {
        let Some(words) = line.trim_end().strip_prefix("@ ") else { return };
        let words: Vec<&str> = words.split(' ').collect();
        let name = |words: &[&str]| (words[0].to_owned(), words[1].to_owned(), words[2].parse().unwrap());
        match words.as_slice() {
            ["time", seconds] => self.seconds = self.seconds.max(seconds.parse().unwrap()),
            ["sending", rest @ ..] => {
                self.sent_this_round.insert(name(rest));
                self.sending.insert(name(rest));
            }
            ["sent", rest @ ..] => _ = self.sent.insert(name(rest)),
            ["completing", rest @ ..] => _ = self.completing.insert(name(rest)),
            ["completed", rest @ ..] => _ = self.completed.insert(name(rest)),
            ["deleting", id, generation] => {
                _ = self.deleting.insert(((*id).to_owned(), (*generation).to_owned()));
            }
            ["got", id, generation, meant_for @ .., is_repeat, left] => {
                let message = name(meant_for);
                assert_eq!((*id, *generation), (&*message.0, &*message.1), "delivered to another: {line}");
                self.judge_delivery(message, *is_repeat == "true", left.parse().unwrap(), line);
            }
            _ => panic!("{line}"),
        }
    }

    fn judge_delivery(&mut self, message: Name, is_repeat: bool, left: i64, line: &str) {
        assert!(left > 0, "delivered after its expiry: {line}");
        assert!(self.sending.contains(&message), "never sent: {line}");
        assert!(!self.completed.contains(&message), "delivered after it was completed: {line}");
        self.deliveries += 1;
        let is_first = self.delivered.insert(message.clone());
        // Whether it was on its way when the process was killed, nobody knows: it is called a repeat to be safe.
        let is_suspect = !self.sent_this_round.contains(&message);
        assert!(is_repeat || is_first, "a repeat that is not called one: {line}");
        assert!(!is_repeat || !is_first || is_suspect, "called a repeat at its first delivery: {line}");
        self.repeats += usize::from(!is_first);
        if is_first {
            let (id, generation, number) = message;
            let last = self.last_first.insert((id, generation), number).unwrap_or(0);
            assert!(last < number, "first deliveries out of order: after {last} came {line}");
        }
    }

    /// Looks at what is left: every accepted message of a living generation waits, or has one outcome. Counts how
    /// many ended how.
    fn judge_rest(&self, registry: &Arc<Registry>) -> BTreeMap<String, usize> {
        let outcomes = outcomes(registry);
        let (waiting, living) = self.judge_queues(registry);
        let mut ends = BTreeMap::new();
        let mut count = |end: &str| *ends.entry(end.to_owned()).or_insert(0) += 1;
        let mut lost = BTreeSet::new();
        for message in &self.sent {
            let is_living = living.contains(&(message.0.clone(), message.1.clone()));
            match (waiting.contains(message), outcomes.get(message)) {
                (true, None) => {
                    assert!(!self.completed.contains(message), "{message:?} was completed and is there");
                    count("waiting");
                }
                (false, Some(Outcome::Completed)) => {
                    assert!(self.completing.contains(message), "{message:?} nobody completed");
                    count("Completed");
                }
                (false, Some(outcome)) => {
                    assert!(!self.completed.contains(message), "{message:?} is {outcome:?}");
                    count(&format!("{outcome:?}"));
                }
                (false, None) if !is_living => count("deleted with its device"),
                (false, None) => _ = lost.insert(message),
                (true, Some(outcome)) => panic!("{message:?} is there and {outcome:?}"),
            }
        }
        assert!(lost.is_empty(), "lost: {lost:?}");
        let strangers =
            waiting.iter().chain(outcomes.keys()).find(|message| !self.sending.contains(*message));
        assert_eq!(strangers, None);
        ends
    }

    /// The messages that wait, and the generations that live.
    fn judge_queues(&self, registry: &Registry) -> (HashSet<Name>, HashSet<(String, String)>) {
        let (mut waiting, mut living) = (HashSet::new(), HashSet::new());
        for entry in registry.devices(usize::MAX) {
            let identity = entry.identity();
            let generation = (identity.id.to_string(), identity.generation.to_string());
            let mut last = 0;
            for queued in entry.peek(usize::MAX) {
                let number: u64 = queued.message.message_id.parse().unwrap();
                assert!(last < number, "the queue of {generation:?} is out of order");
                last = number;
                waiting.insert((generation.0.clone(), generation.1.clone(), number));
            }
            living.insert(generation);
        }
        (waiting, living)
    }
}

/// What became of messages, as their feedback says; each once.
fn outcomes(registry: &Registry) -> HashMap<Name, Outcome> {
    let now: Timestamp = "2026-05-01T08:00:00Z".parse().unwrap();
    let mut outcomes = HashMap::new();
    while let Some(batch) = registry.receive_feedback(Duration::from_secs(3600), now, Instant::now()) {
        for record in &batch.records {
            let number = record.message_id.parse().unwrap();
            let name = (record.device.to_string(), record.generation.to_string(), number);
            let earlier = outcomes.insert(name.clone(), record.outcome);
            assert_eq!(earlier, None, "{name:?} has two outcomes");
        }
    }
    outcomes
}

#[test]
fn chaos() {
    let size = size();
    let directory = TempDir::new().unwrap();
    let mut judge = Judge::default();
    let started = Instant::now();
    for round in 1..=size.kills {
        run_round(directory.path(), round, size.messages.div_ceil(size.kills), &mut judge);
    }
    let registry = open(directory.path());
    let ends = judge.judge_rest(&registry);
    println!(
        "{} ids, {} messages accepted, {} kills, {:.1} s: {} deliveries, {} of them repeats, all marked; {} \
         generations deleted; {ends:?}; 0 lost, 0 to another, 0 out of order, 0 after expiry",
        size.ids,
        judge.sent.len(),
        size.kills,
        started.elapsed().as_secs_f64(),
        judge.deliveries,
        judge.repeats,
        judge.deleting.len(),
    );
    // A run in which nothing much happened proves nothing.
    assert!(judge.sent.len() >= size.messages && judge.repeats > 0 && !judge.deleting.is_empty());
    for end in ["Completed", "Rejected", "Expired", "Purged", "waiting", "deleted with its device"] {
        assert!(ends.contains_key(end), "no message was {end}: {ends:?}");
    }
    registry.close().unwrap();
}

const CHILD_DIRECTORY: &str = "PORTCULLIS_TEST_CHAOS_DIRECTORY";
const CHILD_TIME: &str = "PORTCULLIS_TEST_CHAOS_TIME";
const CHILD_ROUND: &str = "PORTCULLIS_TEST_CHAOS_ROUND";
