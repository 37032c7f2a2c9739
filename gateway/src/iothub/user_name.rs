//! The user names clients send in CONNECT. `mqtt::connect` reads them.
//!
//! Source: IoT Hub, "Communicate with IoT Hub using MQTT". That of a service is ours.

use percent_encoding::utf8_percent_encode;
use portcullis_registry::id::IdentityId;

use super::api_version;
use super::property_bag::ENCODED;

/// What a device or module sends; its ids stand there as they are.
pub fn of_device(host: &str, id: &IdentityId) -> String {
    format!("{host}/{id}/?{}={}", api_version::PARAMETER, api_version::DEFAULT)
}

/// What a service sends that connects with a shared access policy.
pub fn of_service(host: &str, policy: &str) -> String {
    let policy = utf8_percent_encode(policy, ENCODED);
    format!("{host}/?{}={}&policy={policy}", api_version::PARAMETER, api_version::DEFAULT)
}

#[cfg(test)]
mod tests {
    use portcullis_registry::id::{DeviceId, ModuleId};

    use super::*;

    #[test]
    fn they_are_the_documented_ones() {
        let device = DeviceId::parse("d%1").unwrap();
        assert_eq!(
            of_device("hub.example", &IdentityId::device(device.clone())),
            "hub.example/d%1/?api-version=2021-04-12"
        );
        let module = IdentityId::module(device, ModuleId::parse("m").unwrap());
        assert_eq!(of_device("hub.example", &module), "hub.example/d%1/m/?api-version=2021-04-12");
        assert_eq!(of_service("h", "my policy&x"), "h/?api-version=2021-04-12&policy=my%20policy%26x");
    }
}
