use bytes::Bytes;
use portcullis_registry::id::GenerationId;
use proptest::prelude::*;

use super::super::property_bag::PropertyBag;
use super::*;

fn device(id: &str) -> IdentityId {
    IdentityId::device(DeviceId::parse(id).unwrap())
}

fn module(id: &str, module: &str) -> IdentityId {
    IdentityId::module(DeviceId::parse(id).unwrap(), ModuleId::parse(module).unwrap())
}

fn telemetry(id: IdentityId, topic: &str) -> Option<String> {
    match parse_publish(&Role::Device(id), topic) {
        Ok(PublishTopic::Telemetry { bag }) => Some(bag.to_owned()),
        Ok(other) => panic!("{other:?}"),
        Err(_) => None,
    }
}

fn message() -> C2dMessage {
    C2dMessage {
        number: 1,
        generation: GenerationId::new(1),
        enqueued: "2024-05-01T08:15:30.1234567Z".parse().unwrap(),
        expiry: "2024-05-01T09:15:30Z".parse().unwrap(),
        message_id: "m-1".into(),
        correlation_id: None,
        user_id: None,
        content_type: None,
        content_encoding: None,
        to: None,
        ack: Ack::None,
        properties: Vec::new(),
        body: Bytes::new(),
    }
}

/// The decoded properties of a topic made by `c2d_topic`, as an SDK reads them.
fn properties(topic: &str) -> Vec<(String, String)> {
    let segments: Vec<&str> = topic.split('/').collect();
    let bag = PropertyBag::parse(segments.last().unwrap()).unwrap();
    bag.system().iter().chain(bag.application()).cloned().collect()
}

#[test]
fn t509_the_telemetry_forms_clients_use_work() {
    assert_eq!(telemetry(device("d1"), "devices/d1/messages/events/"), Some("".into()));
    assert_eq!(telemetry(device("d1"), "devices/d1/messages/events"), Some("".into()));
    assert_eq!(telemetry(device("d1"), "devices/d1/messages/events/a=b&c=d"), Some("a=b&c=d".into()));
    let (m1, topic) = (module("d1", "m1"), "devices/d1/modules/m1/messages/events");
    assert_eq!(telemetry(m1.clone(), topic), Some("".into()));
    assert_eq!(telemetry(m1.clone(), &format!("{topic}/")), Some("".into()));
    assert_eq!(telemetry(m1.clone(), &format!("{topic}/%24.on=out")), Some("%24.on=out".into()));
    assert_eq!(telemetry(m1, &format!("{topic}/%24.on=out/")), Some("%24.on=out".into()));
}

#[test]
fn t509_near_misses_of_telemetry_are_refused() {
    let near_misses = [
        "devices/d1/messages/events//",
        "devices/d1/messages/events/a=b/",
        "devices/d1/messages/events/a=b/c=d",
        "devices/d1/messages/events/a=b//",
        "devices/d1/messages/Events/",
        "devices/d1/Messages/events/",
        "Devices/d1/messages/events/",
        "devices/d1/messages/eventsa=b",
        "devices/d1//messages/events/",
        "devices//d1/messages/events/",
        "/devices/d1/messages/events/",
        "devices/d1/messages/event",
        "devices/d1/messages/",
        "devices/d1/",
        "devices/d1",
        "devices/d1/messages/devicebound/",
        "devices/d1/messages/events?a=b",
    ];
    for topic in near_misses {
        assert_eq!(telemetry(device("d1"), topic), None, "{topic}");
    }
    for rest in ["//", "/a=b//", "/a=b/c"] {
        assert_eq!(
            telemetry(module("d1", "m1"), &format!("devices/d1/modules/m1/messages/events{rest}")),
            None,
            "{rest}"
        );
    }
}

#[test]
fn t601_topics_of_another_are_refused() {
    let foreign = [
        "devices/d2/messages/events/",
        "devices/d10/messages/events/",
        "devices/d/messages/events/",
        "devices/D1/messages/events/",
        "devices/d%31/messages/events/",
        "devices/d1/modules/m1/messages/events/",
        "devices/d2/messages/devicebound/",
        "$SYS/broker",
        "$share/g/devices/d1/messages/events/",
        "made/up",
        "",
    ];
    for topic in foreign {
        assert!(parse_publish(&Role::Device(device("d1")), topic).is_err(), "{topic}");
    }
    let foreign = [
        "devices/d1/messages/events/",
        "devices/d1/modules/m2/messages/events/",
        "devices/d1/modules/m10/messages/events/",
        "devices/d2/modules/m1/messages/events/",
        "devices/d1/modules/m1/inputs/in/",
        "devices/d1/modules/m1/messages/devicebound/",
    ];
    for topic in foreign {
        assert!(parse_publish(&Role::Device(module("d1", "m1")), topic).is_err(), "{topic}");
    }
}

#[test]
fn t615_commands_are_for_services_and_nothing_else_is() {
    let command = "$admin/PUT/devices/d1/?$rid=1";
    let filters = [
        "$admin/res/#",
        "$admin/res/200/?$rid=1",
        "$admin/events/#",
        "$admin/feedback",
        "$admin/events/connected/d1/#",
    ];
    for role in [Role::Device(device("d1")), Role::Device(module("d1", "m1"))] {
        assert!(parse_publish(&role, command).is_err());
        for filter in filters {
            assert!(parse_filter(&role, filter).is_err(), "{filter}");
        }
    }
    let service = Role::Service(Rights::ALL);
    assert!(matches!(parse_publish(&service, command), Ok(PublishTopic::Command(_))));
    for topic in [
        "$admin/res/200/?$rid=1",
        "$admin",
        "$ADMIN/GET/devices/?$rid=1",
        "devices/d1/messages/events/",
        "$iothub/twin/GET/?$rid=1",
        "devices/+/messages/events/#",
    ] {
        assert!(parse_publish(&service, topic).is_err(), "{topic}");
    }
    for filter in [
        "$admin",
        "$admin/#",
        "$admin/res/+/#",
        "$admin/res/200/#",
        "$admin/res/200/",
        "$admin/res/200/?$rid=",
        "$admin/res/200/?$rid=+",
        "$admin/res/ok/?$rid=1",
        "$admin/feedback/#",
    ] {
        assert!(parse_filter(&service, filter).is_err(), "{filter}");
    }
    let long = format!("$admin/res/200/?$rid=1&etag={}", "x".repeat(512));
    assert!(parse_filter(&service, &long).is_err());
    let exact = "$admin/res/200/?$rid=1";
    assert_eq!(parse_filter(&service, exact), Ok(Filter::AdminAnswers(Some(exact.into()))));
}

#[test]
fn t313_what_a_service_may_hear_follows_its_rights() {
    let hears = |rights, filter| parse_filter(&Role::Service(rights), filter).is_ok();
    for (rights, expected) in [
        (Rights::SERVICE_CONNECT, [true, true, true, false]),
        (Rights::REGISTRY_READ, [true, false, false, true]),
        (Rights::REGISTRY_WRITE, [true, false, false, false]),
        (Rights::ALL, [true, true, true, true]),
    ] {
        let filters = ["$admin/res/#", "$admin/feedback", "devices/+/messages/events/#", "$admin/events/#"];
        assert_eq!(filters.map(|filter| hears(rights, filter)), expected, "{rights}");
    }
}

#[test]
fn t618_twin_and_method_topics_are_read() {
    for role in [Role::Device(device("d1")), Role::Device(module("d1", "m1"))] {
        let read = |topic| parse_publish(&role, topic);
        assert_eq!(read("$iothub/twin/GET/?$rid=1"), Ok(PublishTopic::TwinGet { rid: "1" }));
        assert_eq!(
            read("$iothub/twin/PATCH/properties/reported/?$rid=a-b&$version=3"),
            Ok(PublishTopic::TwinReported { rid: "a-b" })
        );
        assert_eq!(
            read("$iothub/methods/res/200/?$rid=9"),
            Ok(PublishTopic::MethodResponse { status: "200", rid: "9" })
        );
        assert_eq!(
            read("$iothub/methods/res/-1/?$rid=9"),
            Ok(PublishTopic::MethodResponse { status: "-1", rid: "9" })
        );
    }
}

#[test]
fn t618_near_misses_of_twin_and_method_topics_are_refused() {
    let topics = [
        "$iothub/twin/GET/",
        "$iothub/twin/GET/?",
        "$iothub/twin/GET/?$rid=",
        "$iothub/twin/GET/?rid=1",
        "$iothub/twin/get/?$rid=1",
        "$iothub/twin/GET?$rid=1",
        "$iothub/twin/res/200/?$rid=1",
        "$iothub/twin/PATCH/properties/desired/?$rid=1",
        "$iothub/methods/res//?$rid=1",
        "$iothub/methods/res/ok/?$rid=1",
        "$iothub/methods/res/200",
        "$iothub/methods/POST/reboot/?$rid=1",
        "$iothub/",
    ];
    for topic in topics {
        assert!(parse_publish(&Role::Device(device("d1")), topic).is_err(), "{topic}");
    }
    let long = format!("$iothub/twin/GET/?$rid={}", "x".repeat(257));
    assert!(matches!(parse_publish(&Role::Device(device("d1")), &long), Err(TopicError::NoRequestId(_))));
}

#[test]
fn a_device_may_subscribe_to_its_own() {
    let device_filters = [
        ("devices/d1/messages/devicebound/#", Filter::C2d),
        ("$iothub/twin/res/#", Filter::TwinResponses),
        ("$iothub/twin/PATCH/properties/desired/#", Filter::TwinDesired),
        ("$iothub/methods/POST/#", Filter::Methods),
    ];
    for (text, filter) in device_filters {
        assert_eq!(parse_filter(&Role::Device(device("d1")), text), Ok(filter), "{text}");
    }
    let module_filters = [
        ("devices/d1/modules/m1/messages/devicebound/#", Filter::C2d),
        ("devices/d1/modules/m1/inputs/#", Filter::Inputs),
        ("devices/d1/modules/m1/#", Filter::ModuleAll),
        ("$iothub/twin/res/#", Filter::TwinResponses),
    ];
    for (text, filter) in module_filters {
        assert_eq!(parse_filter(&Role::Device(module("d1", "m1")), text), Ok(filter), "{text}");
    }
}

#[test]
fn t602_filters_that_are_not_ones_own_are_refused() {
    let foreign = [
        "devices/d2/messages/devicebound/#",
        "devices/d10/messages/devicebound/#",
        "devices/+/messages/devicebound/#",
        "devices/+/#",
        "devices/#",
        "devices/d1/#",
        "devices/d1/messages/#",
        "devices/d1/+/devicebound/#",
        "devices/d1/messages/devicebound/+",
        "devices/d1/messages/devicebound/",
        "devices/d1/messages/devicebound",
        "devices/d1/messages/deviceBound/#",
        "devices/d1/messages/events/#",
        "devices/+/messages/events/#",
        "devices/d1/modules/m1/#",
        "devices/d1/inputs/#",
        "#",
        "+",
        "+/#",
        "/#",
        "$SYS/#",
        "$share/g/devices/d1/messages/devicebound/#",
        "$iothub/#",
        "$iothub/+/res/#",
        "$iothub/methods/POST/reboot/#",
        "$iothub/twin/res/200/#",
        "$admin/#",
        "$admin/res/#",
    ];
    for text in foreign {
        assert!(parse_filter(&Role::Device(device("d1")), text).is_err(), "{text}");
    }
    let foreign = [
        "devices/d1/messages/devicebound/#",
        "devices/d1/modules/m2/#",
        "devices/d1/modules/+/#",
        "devices/d1/modules/#",
        "devices/+/modules/m1/#",
        "devices/d1/modules/m1/messages/#",
        "devices/d1/modules/m1/inputs/+",
    ];
    for text in foreign {
        assert!(parse_filter(&Role::Device(module("d1", "m1")), text).is_err(), "{text}");
    }
}

#[test]
fn a_service_may_subscribe_to_telemetry_and_to_nothing_else() {
    let d1 = || Some(DeviceId::parse("d1").unwrap());
    let m1 = || Some(ModuleId::parse("m1").unwrap());
    let granted = [
        ("devices/+/messages/events/#", Filter::Events { device: None, modules: None }),
        ("devices/d1/messages/events/#", Filter::Events { device: d1(), modules: None }),
        ("devices/+/modules/+/messages/events/#", Filter::Events { device: None, modules: Some(None) }),
        ("devices/d1/modules/+/messages/events/#", Filter::Events { device: d1(), modules: Some(None) }),
        ("devices/d1/modules/m1/messages/events/#", Filter::Events { device: d1(), modules: Some(m1()) }),
    ];
    for (text, filter) in granted {
        assert_eq!(parse_filter(&Role::Service(Rights::ALL), text), Ok(filter), "{text}");
    }
    let refused = [
        "#",
        "devices/#",
        "devices/+/#",
        "devices/+/messages/#",
        "devices/+/messages/events/",
        "devices/+/messages/events/+",
        "devices/+/+/events/#",
        "devices/+/modules/m1/messages/events/#",
        "devices/#/messages/events/#",
        "devices//messages/events/#",
        "devices/d1/d2/messages/events/#",
        "devices/d1/modules//messages/events/#",
        "devices/d1/modules/m1/x/messages/events/#",
        "devices/d1/messages/devicebound/#",
        "$iothub/twin/res/#",
        "$SYS/#",
    ];
    for text in refused {
        assert!(parse_filter(&Role::Service(Rights::ALL), text).is_err(), "{text}");
    }
}

#[test]
fn telemetry_filters_admit_whom_they_name() {
    let admitted = |text: &str| {
        let filter = parse_filter(&Role::Service(Rights::ALL), text).unwrap();
        [("d1", None), ("d2", None), ("d1", Some("m1")), ("d1", Some("m2")), ("d2", Some("m1"))]
            .map(|(device, module)| filter.admits(device, module))
    };
    assert_eq!(admitted("devices/+/messages/events/#"), [true, true, false, false, false]);
    assert_eq!(admitted("devices/d1/messages/events/#"), [true, false, false, false, false]);
    assert_eq!(admitted("devices/+/modules/+/messages/events/#"), [false, false, true, true, true]);
    assert_eq!(admitted("devices/d1/modules/+/messages/events/#"), [false, false, true, true, false]);
    assert_eq!(admitted("devices/d1/modules/m1/messages/events/#"), [false, false, true, false, false]);
    assert!(!Filter::C2d.admits("d1", None));
}

#[test]
fn t502_ids_of_odd_characters_stand_in_topics_as_they_are() {
    for id in ["-.:%_*?!(),=@;$'", "modules", "messages", "$iothub", "a%2Fb", "?x"] {
        assert_eq!(
            telemetry(device(id), &format!("devices/{id}/messages/events/a=b")),
            Some("a=b".into()),
            "{id}"
        );
        let topic = format!("devices/d/modules/{id}/messages/events/");
        assert_eq!(telemetry(module("d", id), &topic), Some("".into()), "{id}");
        for module in [None, Some(id)] {
            let read = EventsTopic { device: id, module, bag: "a=b" };
            assert_eq!(EventsTopic::parse(&events_topic(id, module, "a=b")), Some(read));
        }
        assert!(
            c2d_topic(&device(id), &message())
                .starts_with(&format!("devices/{id}/messages/devicebound/%24.mid=m-1&"))
        );
    }
}

#[test]
fn topics_that_are_no_events_have_no_sender() {
    for topic in [
        "",
        "devices/d",
        "devices/d/messages/devicebound/",
        "devices/d/messages/events",
        "devices/d/messages/events/a/b",
        "devices/d/modules/m",
        "devices/d/modules/m/messages/events",
        "devices/d/modules/m/inputs/messages/events/",
    ] {
        assert_eq!(EventsTopic::parse(topic), None, "{topic}");
    }
}

#[test]
fn the_filters_for_events_are_granted_and_admit_a_device_and_its_modules() {
    let role = Role::Service(Rights::SERVICE_CONNECT);
    let own = DeviceId::parse("pump-7").unwrap();
    for (of, admits_others) in [(None, true), (Some(&own), false)] {
        let filters = events_filters(of).map(|filter| parse_filter(&role, &filter).unwrap());
        let admits = |device, module| filters.iter().any(|filter| filter.admits(device, module));
        assert!(admits("pump-7", None) && admits("pump-7", Some("m")));
        assert_eq!((admits("other", None), admits("other", Some("m"))), (admits_others, admits_others));
    }
}

#[test]
fn telemetry_topics_for_services_carry_the_bag_as_it_is() {
    assert_eq!(events_topic("d1", None, "a=b%20c"), "devices/d1/messages/events/a=b%20c");
    assert_eq!(events_topic("d1", Some("m1"), ""), "devices/d1/modules/m1/messages/events/");
}

#[test]
fn a_bare_message_has_id_address_and_times() {
    assert_eq!(
        c2d_topic(&device("pump-7"), &message()),
        "devices/pump-7/messages/devicebound/%24.mid=m-1&%24.to=%2Fdevices%2Fpump-7%2Fmessages%2Fdevicebound\
         &%24.exp=2024-05-01T09%3A15%3A30.0000000Z"
    );
}

#[test]
fn a_message_with_everything_has_its_system_properties_first() {
    let message = C2dMessage {
        correlation_id: Some("c/1".into()),
        user_id: Some("u 1".into()),
        content_type: Some("text/plain; charset=UTF-8".into()),
        content_encoding: Some("utf-8".into()),
        to: Some("/devices/pump-7/messages/deviceBound".into()),
        ack: Ack::Full,
        properties: vec![("colour".into(), "red".into()), ("empty".into(), String::new())],
        ..message()
    };
    assert_eq!(
        c2d_topic(&device("pump-7"), &message),
        "devices/pump-7/messages/devicebound/%24.mid=m-1&%24.to=%2Fdevices%2Fpump-7%2Fmessages%2FdeviceBound\
         &%24.cid=c%2F1&%24.uid=u%201&%24.ct=text%2Fplain%3B%20charset%3DUTF-8&%24.ce=utf-8\
         &%24.exp=2024-05-01T09%3A15%3A30.0000000Z\
         &iothub-ack=full&colour=red&empty="
    );
}

#[test]
fn a_message_to_a_module_has_the_modules_topic_and_address() {
    let topic = c2d_topic(&module("d1", "$m"), &message());
    assert!(topic.starts_with("devices/d1/modules/$m/messages/devicebound/%24.mid=m-1&%24.to="), "{topic}");
    assert_eq!(properties(&topic)[1].1, "/devices/d1/modules/%24m/messages/devicebound");
}

#[test]
fn what_only_the_hub_says_cannot_be_said_by_a_property() {
    let properties = [("iothub-ack", "full"), ("$.to", "x"), ("$.mid", "y"), ("mine", "z")];
    let message = C2dMessage {
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        ..message()
    };
    let topic = c2d_topic(&device("d1"), &message);
    assert!(topic.ends_with("Z&mine=z"), "{topic}");
    assert!(!topic.contains("iothub-ack"), "{topic}");
}

#[test]
fn t508_properties_that_fit_make_a_topic_whatever_the_ids() {
    let longest = module(&"%".repeat(128), &"%".repeat(128));
    let mut fitted = 0;
    for characters in [0, 1, 100, 5_000, 5_280, 5_281, 5_290, 5_300, 5_400, 6_000, 20_000] {
        let properties = vec![("n".to_owned(), "😀".repeat(characters))];
        let asked = NewC2d { properties: properties.clone(), ack: Ack::Negative, ..NewC2d::default() };
        if c2d_fits(&asked) {
            fitted += 1;
            let message =
                C2dMessage { message_id: "x".repeat(36), properties, ack: Ack::Negative, ..message() };
            assert!(c2d_topic(&longest, &message).len() <= TOPIC_BYTES_MAX, "{characters}");
        }
    }
    assert!((4..10).contains(&fitted), "{fitted}");
}

#[test]
fn t508_odd_properties_arrive_as_they_were_sent() {
    let odd = [
        "&",
        "=",
        "/",
        "#",
        "+",
        "%",
        "%41",
        "\n",
        "😀",
        " ",
        "a=b&c=d/e#+%",
        "\u{7f}\u{80}",
        "?",
        "\"",
        "ä",
    ];
    let sent: Vec<(String, String)> =
        odd.iter().map(|text| (format!("n{text}"), (*text).to_owned())).collect();
    let topic = c2d_topic(&device("d1"), &C2dMessage { properties: sent.clone(), ..message() });
    assert!(crate::mqtt::packet::Utf8Bytes::parse(topic.clone()).is_ok());
    assert!(!topic.contains(['+', '#']));
    assert_eq!(properties(&topic)[SYSTEM_PROPERTIES..], sent[..]);
}

/// `%24.mid`, `%24.to` and `%24.exp` stand before the application's own.
const SYSTEM_PROPERTIES: usize = 3;

proptest! {
    #[test]
    fn t508_any_properties_arrive_as_they_were_sent(values in prop::collection::vec("[^\0]{0,30}", 0..8)) {
        let sent: Vec<(String, String)> =
            values.into_iter().enumerate().map(|(index, value)| (format!("p{index}"), value)).collect();
        let topic = c2d_topic(&device("d1"), &C2dMessage { properties: sent.clone(), ..message() });
        prop_assert_eq!(topic.split('/').count(), 5);
        prop_assert_eq!(&properties(&topic)[SYSTEM_PROPERTIES..], &sent[..]);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,60}", pieces in "(devices/|d1|/|modules|messages|events|#|\\+|\\$iothub|\\?|&|=){0,12}") {
        for role in [Role::Device(device("d1")), Role::Device(module("d1", "m1")), Role::Service(Rights::ALL)] {
            for text in [&text, &pieces] {
                let _ = parse_publish(&role, text);
                let _ = parse_filter(&role, text);
                let _ = EventsTopic::parse(text);
            }
        }
    }

    #[test]
    fn t602_no_filter_with_a_wildcard_before_its_end_is_a_devices(text in "(devices|d1|messages|devicebound|events|\\+|#|/){1,9}") {
        if parse_filter(&Role::Device(device("d1")), &text).is_ok() {
            prop_assert_eq!(text, "devices/d1/messages/devicebound/#");
        }
    }
}
