//! Access lists in the store: who changes them, who does not, and what they keep away.

use super::*;
use crate::access::Access;

fn access(words: &[&str]) -> Access {
    Access::parse(words).unwrap()
}

fn narrowed(id: &IdentityId, words: &[&str]) -> IdentitySpec {
    IdentitySpec { access: Some(access(words)), ..IdentitySpec::sas_device(id.clone()) }
}

#[tokio::test]
async fn an_update_that_says_nothing_of_access_keeps_it_and_a_restart_too() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let id = device("d1");
    let plain = || IdentitySpec::sas_device(id.clone());
    let replace = async |spec| {
        registry.replace(spec, Precondition::AnyVersion, now()).await.unwrap().identity.access.clone()
    };
    assert_eq!(registry.create(plain(), now()).await.unwrap().access, Access::EVERYTHING);
    assert_eq!(replace(plain()).await, Access::EVERYTHING);
    assert_eq!(replace(narrowed(&id, &["c2d"])).await, access(&["c2d"]));
    assert_eq!(replace(plain()).await, access(&["c2d"]));
    close(Arc::clone(&registry)).await;
    let reopened = open(directory.path());
    assert_eq!(reopened.entry(&id).unwrap().identity().access, access(&["c2d"]));
    let everything = IdentitySpec { access: Some(Access::EVERYTHING), ..plain() };
    let replaced = reopened.replace(everything, Precondition::AnyVersion, now()).await.unwrap();
    assert_eq!(replaced.identity.access, Access::EVERYTHING);
}

#[tokio::test]
async fn a_new_generation_inherits_no_list() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    registry.create(narrowed(&device("d1"), &[]), now()).await.unwrap();
    registry.delete(&device("d1"), Precondition::AnyVersion).await.unwrap();
    let again = registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    assert_eq!(again.access, Access::EVERYTHING);
}

#[tokio::test]
async fn a_message_to_who_may_not_receive_it_is_refused_and_what_waits_stays() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let id = device("d1");
    registry.create(IdentitySpec::sas_device(id.clone()), now()).await.unwrap();
    registry.send(&id, text("before"), now()).await.unwrap();
    registry.replace(narrowed(&id, &["telemetry"]), Precondition::AnyVersion, now()).await.unwrap();
    let refused = registry.send(&id, text("after"), now()).await;
    assert_eq!(refused, Err(SendError::AccessDenied(id.clone())));
    assert_eq!(registry.entry(&id).unwrap().queued(), 1);
    registry.replace(narrowed(&id, &["c2d"]), Precondition::AnyVersion, now()).await.unwrap();
    registry.send(&id, text("again"), now()).await.unwrap();
    assert_eq!(bodies(&registry, &id, now()), ["before", "again"]);
}
