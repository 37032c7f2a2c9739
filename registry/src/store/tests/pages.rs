//! Pages of devices in the order of their ids.

use super::*;

fn ids(page: &DevicePage) -> Vec<String> {
    page.devices.iter().map(|entry| entry.identity().id.to_string()).collect()
}

#[tokio::test]
async fn pages_go_either_way_through_the_ids_that_begin_alike() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    for name in ["a", "a.1", "a.2", "a.3", "aa", "b", "A"] {
        registry.create(IdentitySpec::sas_device(device(name)), now()).await.unwrap();
    }
    let page = |prefix: &str, start, count| {
        let page = registry.page_of(prefix, start, count);
        (ids(&page).join(" "), page.next.map(|id| id.to_string()))
    };
    let more = |id: &str| Some(id.to_owned());
    assert_eq!(page("", PageStart::First, 9), ("A a a.1 a.2 a.3 aa b".into(), None));
    assert_eq!(page("", PageStart::Last, 2), ("b aa".into(), more("aa")));
    assert_eq!(page("a.", PageStart::First, 2), ("a.1 a.2".into(), more("a.2")));
    assert_eq!(page("a.", PageStart::After("a.2"), 2), ("a.3".into(), None));
    assert_eq!(page("a.", PageStart::Last, 2), ("a.3 a.2".into(), more("a.2")));
    assert_eq!(page("a.", PageStart::Before("a.2"), 2), ("a.1".into(), None));
    assert_eq!(page("a", PageStart::First, 2), ("a a.1".into(), more("a.1")));
    // Places outside of what begins so.
    assert_eq!(page("a.", PageStart::After("A"), 9), ("a.1 a.2 a.3".into(), None));
    assert_eq!(page("a.", PageStart::After("b"), 9), (String::new(), None));
    assert_eq!(page("a.", PageStart::Before("b"), 9), ("a.3 a.2 a.1".into(), None));
    assert_eq!(page("a.", PageStart::Before("A"), 9), (String::new(), None));
    assert_eq!(page("nobody", PageStart::First, 9), (String::new(), None));
    assert_eq!(page("", PageStart::First, 0), (String::new(), None));
}
