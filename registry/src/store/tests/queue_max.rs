//! A bound of one queue: what it takes, who changes it, who does not.

use super::*;
use crate::queue_max::QueueMax;

fn bounded(id: &IdentityId, bound: Option<u64>) -> IdentitySpec {
    let bound = bound.map(|messages| QueueMax::new(messages).unwrap());
    IdentitySpec { queue_max: Some(bound), ..IdentitySpec::sas_device(id.clone()) }
}

/// Sends until the queue is full; how many it took, and the bound in the refusal.
async fn fill(registry: &Registry, id: &IdentityId) -> (usize, usize) {
    for taken in 0.. {
        match registry.send(id, text("m"), now()).await {
            Ok(_) => {}
            Err(SendError::QueueFull { limit, .. }) => return (taken, limit),
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!()
}

#[tokio::test]
async fn t717_a_queue_takes_as_many_as_its_identity_says() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let (few, usual, many, camera) =
        (device("few"), device("usual"), device("many"), module("few", "camera"));
    registry.create(bounded(&few, Some(3)), now()).await.unwrap();
    registry.create(bounded(&usual, None), now()).await.unwrap();
    registry.create(bounded(&many, Some(70)), now()).await.unwrap();
    registry.create(bounded(&camera, Some(1)), now()).await.unwrap();
    for (id, bound) in [(&few, 3), (&usual, 50), (&many, 70), (&camera, 1)] {
        assert_eq!(fill(&registry, id).await, (bound, bound), "{id}");
    }
}

#[tokio::test]
async fn what_waits_above_a_lowered_bound_stays_and_nothing_more_is_taken() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let id = device("d1");
    registry.create(bounded(&id, Some(5)), now()).await.unwrap();
    assert_eq!(fill(&registry, &id).await, (5, 5));
    registry.replace(bounded(&id, Some(2)), Precondition::AnyVersion, now()).await.unwrap();
    assert_eq!(fill(&registry, &id).await, (0, 2));
    assert_eq!(registry.entry(&id).unwrap().queued(), 5);
    registry.replace(bounded(&id, Some(6)), Precondition::AnyVersion, now()).await.unwrap();
    assert_eq!(fill(&registry, &id).await, (1, 6));
}

#[tokio::test]
async fn an_update_that_says_nothing_of_the_bound_keeps_it_and_a_restart_too() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let id = device("d1");
    let bound = |registry: &Registry| registry.entry(&id).unwrap().identity().queue_max;
    registry.create(bounded(&id, Some(200)), now()).await.unwrap();
    let silent = IdentitySpec::sas_device(id.clone());
    registry.replace(silent.clone(), Precondition::AnyVersion, now()).await.unwrap();
    assert_eq!(bound(&registry), QueueMax::new(200));
    close(Arc::clone(&registry)).await;
    let reopened = open(directory.path());
    assert_eq!(bound(&reopened), QueueMax::new(200));
    reopened.replace(bounded(&id, None), Precondition::AnyVersion, now()).await.unwrap();
    assert_eq!(bound(&reopened), None);
    reopened.replace(bounded(&id, Some(7)), Precondition::AnyVersion, now()).await.unwrap();
    reopened.delete(&id, Precondition::AnyVersion).await.unwrap();
    reopened.create(silent, now()).await.unwrap();
    assert_eq!(bound(&reopened), None);
}
