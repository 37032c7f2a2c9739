//! The hub's names. A token or user name for another hub is refused.

/// The hub's names, in any letter case, with or without one of its ports. Service SDKs accept `HostName=name:port` and
/// then sign that text.
#[derive(Clone, Debug)]
pub struct HostNames {
    names: Vec<String>,
    ports: Vec<u16>,
}

impl HostNames {
    /// `names`: the configured host name first, then its aliases. `ports`: the hub's ports, MQTT's first.
    pub fn new(names: Vec<String>, ports: Vec<u16>) -> Self {
        Self { names, ports }
    }

    /// The name in connection strings and in the certificate.
    pub fn primary(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }

    /// The port of MQTT.
    pub fn mqtt_port(&self) -> u16 {
        self.ports.first().copied().unwrap_or_default()
    }

    /// Whether `host` names this hub, with any port, as in a `Host` header that came through a forwarded port.
    pub fn contains_name(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Whether `host` is exactly `name` or `name:port` of this hub, in any letter case.
    pub fn contains(&self, host: &str) -> bool {
        let is_name = |text: &str| self.names.iter().any(|name| name.eq_ignore_ascii_case(text));
        if is_name(host) {
            return true;
        }
        let Some((name, port)) = host.rsplit_once(':') else { return false };
        is_name(name) && self.ports.iter().any(|own| own.to_string() == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t306_only_the_hub_itself_is_the_hub() {
        let hosts = HostNames::new(vec!["hub.example.test".into(), "localhost".into()], vec![8883, 8443]);
        for own in
            ["hub.example.test", "HUB.Example.TEST", "localhost", "localhost:8443", "hub.example.test:8883"]
        {
            assert!(hosts.contains(own), "{own}");
        }
        for other in [
            "",
            "other.example.test",
            "hub.example.test.",
            "hub.example.test:443",
            "hub.example.test:08883",
            "https://hub.example.test",
            "hub.example.test/",
            " hub.example.test",
            "ub.example.test",
            "localhost:",
        ] {
            assert!(!hosts.contains(other), "{other}");
        }
    }
}
