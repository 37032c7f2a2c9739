//! What a session may do when its device has an access list.

use super::*;
use crate::hub::outcome::ConnectionOutcome;

const TWIN_GET: &str = "$iothub/twin/GET/?$rid=1";
const TWIN_REPORTED: &str = "$iothub/twin/PATCH/properties/reported/?$rid=1";
const METHOD_RESPONSE: &str = "$iothub/methods/res/200/?$rid=1";

fn allowed(words: &[&str], opening: Opening) -> Opening {
    Opening { access: Access::parse(words).unwrap(), ..opening }
}

#[test]
fn a_publish_without_the_right_is_an_error_and_with_it_is_none() {
    let publishes = [
        (EVENTS, "telemetry", Right::Telemetry),
        (TWIN_GET, "twin", Right::Twin),
        (TWIN_REPORTED, "twin", Right::Twin),
        (METHOD_RESPONSE, "methods:reboot", Right::Methods),
    ];
    let words = ["telemetry", "c2d", "twin", "methods:reboot"];
    for (topic, word, wanted) in publishes {
        for packet_id in [None, Some(1)] {
            assert!(
                Bench::new(allowed(&[word], device())).packet(publish(topic, packet_id)).is_ok(),
                "{topic}"
            );
            let others: Vec<_> = words.into_iter().filter(|other| *other != word).collect();
            for list in [&others[..], &[]] {
                let mut bench = Bench::new(allowed(list, device()));
                let error = bench.packet(publish(topic, packet_id)).unwrap_err();
                let SessionError::Access(denied) = &error else { panic!("{error:?}") };
                assert_eq!(denied.wanted, wanted);
                // As after a foreign topic: nothing is forwarded, nothing acknowledged, and the connection ends.
                assert_eq!(bench.actions(), []);
                let reason = CloseReason::from(error);
                assert_eq!(reason.outcome(), ConnectionOutcome::AccessDenied);
                assert!(reason.text().unwrap().ends_with(&format!("not {wanted}")), "{reason:?}");
            }
        }
    }
}

#[test]
fn a_filter_without_the_right_is_refused_and_its_neighbours_are_not() {
    let of_device =
        [C2D, "$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#"];
    let of_module = [
        "devices/d1/modules/m1/messages/devicebound/#",
        "devices/d1/modules/m1/inputs/#",
        "devices/d1/modules/m1/#",
        "$iothub/methods/POST/#",
    ];
    let (granted, refused) = (1, SUBSCRIPTION_REFUSED);
    for (opening, filters, words, codes) in [
        (device(), of_device, &["c2d"][..], [granted, refused, refused, refused]),
        (device(), of_device, &["twin"], [refused, granted, granted, refused]),
        (device(), of_device, &["telemetry", "methods:diag*"], [refused, refused, refused, granted]),
        (device(), of_device, &[], [refused; 4]),
        (module(), of_module, &["c2d", "twin"], [granted, granted, granted, refused]),
        (module(), of_module, &["methods:*"], [refused, refused, refused, granted]),
    ] {
        let mut bench = Bench::new(Opening { clean_session: true, ..allowed(words, opening) });
        let asked: Vec<_> = filters.into_iter().map(|filter| (filter, QoS::AtLeastOnce)).collect();
        assert_eq!(bench.exchange(subscribe(1, &asked)), [suback(1, &codes)], "{words:?}");
        assert_eq!(bench.core.wants_message(), words.contains(&"c2d"), "{words:?}");
    }
}

#[test]
fn t606_a_restored_subscription_without_the_right_delivers_nothing() {
    // To the device's messages, at QoS 1.
    let restored = || Opening { restored: Some(vec![1, 1, 1]), ..device() };
    let mut bench = Bench::new(allowed(&["telemetry"], restored()));
    assert!(bench.core.session_present() && !bench.core.wants_message());
    assert_eq!(bench.deliver(1, 1), []);
    assert_eq!(bench.exchange(publish(EVENTS, None)), [ingest(None, "")]);
    // It is asleep, not gone: with the right it delivers again.
    let mut bench = Bench::new(restored());
    assert!(bench.core.wants_message());
    assert_eq!(bench.deliver(1, 1).len(), 1);
}

#[test]
fn t606_a_refused_filter_ends_what_was_granted_on_it_before() {
    let restored = Opening { restored: Some(vec![1, 1, 1]), ..device() };
    let mut bench = Bench::new(allowed(&["telemetry"], restored));
    assert_eq!(bench.exchange(subscribe(1, &[(C2D, QoS::AtLeastOnce)])), [save(None)]);
    bench.core.subscriptions_saved();
    assert_eq!(bench.actions(), [suback(1, &[SUBSCRIPTION_REFUSED])]);
}

#[test]
fn t606_a_filter_without_the_right_can_be_given_up() {
    let restored = Opening { restored: Some(vec![1, 1, 1]), ..device() };
    let mut bench = Bench::new(allowed(&[], restored));
    assert_eq!(bench.exchange(unsubscribe(1, &[C2D])), [save(None)]);
}
