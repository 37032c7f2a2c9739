use std::path::Path;
use std::time::Duration;

use portcullis_registry::policy::Policies;

use super::draft::POLICIES;
use super::*;

/// Loads with these variables and this file, if any.
fn load(variables: &[(&str, &str)], file: Option<&str>, flags: ServeFlags) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hub.toml");
    let mut flags = flags;
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
        flags.config.push(path);
    }
    let variables = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Config::load(&flags, variables)
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    load(&[], Some(text), ServeFlags::default())
}

fn from_variables(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    load(variables, None, ServeFlags::default())
}

#[track_caller]
fn check_refused(outcome: Result<Config, ConfigError>, said: &[&str]) {
    let text = outcome.unwrap_err().to_string();
    for part in said {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[test]
fn nothing_given_means_the_defaults() {
    let config = from_variables(&[("PATH", "/bin"), ("PORTCULLIS_TEST_OFFLINE", "1")]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.host_names(), ["localhost"]);
    assert_eq!(config.mqtt_listen.addrs, ["0.0.0.0:8883", "[::]:8883"].map(|text| text.parse().unwrap()));
    assert_eq!(config.https_listen.fallback_port, Some(8443));
    assert_eq!(config.ops_listen.addrs, ["127.0.0.1:9464".parse().unwrap()]);
    assert_eq!(config.limits.keep_alive_max, Duration::from_secs(1_177));
}

#[test]
fn flags_win_over_the_environment_and_that_over_files() {
    let file = "hostname = 'file.test'\ndata_dir = '/file'\n[log]\nformat = 'text'\n[limits]\nqueue_messages_max = 7\n";
    let variables = [("PORTCULLIS__HOSTNAME", "env.test"), ("PORTCULLIS__LOG__FORMAT", "json")];
    let flags = ServeFlags { hostname: Some("flag.test".into()), ..ServeFlags::default() };
    let config = load(&variables, Some(file), flags).unwrap();
    assert_eq!(config.hostname.as_str(), "flag.test");
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.data_dir, Path::new("/file"));
    assert_eq!(config.limits.queue_messages_max, 7);
}

#[test]
fn a_later_file_wins() {
    let directory = tempfile::tempdir().unwrap();
    let paths = ["one.toml", "two.toml"].map(|name| directory.path().join(name));
    std::fs::write(&paths[0], "hostname = 'one.test'\naliases = ['a.test']").unwrap();
    std::fs::write(&paths[1], "hostname = 'two.test'").unwrap();
    let flags = ServeFlags { config: paths.to_vec(), ..ServeFlags::default() };
    let config = Config::load(&flags, std::iter::empty()).unwrap();
    assert_eq!(config.host_names(), ["two.test", "a.test"]);
}

#[test]
fn every_setting_can_be_given_in_every_source() {
    let file = "
        hostname = 'hub.test'
        aliases = ['hub', '10.0.0.1']
        mqtt.listen = ['127.0.0.1:1', '[::1]:2']
        https.listen = '127.0.0.1:3'
        ops.listen = '127.0.0.1:4'
        tls = { certificate = 'c.pem', key = 'k.pem' }
        log = { filter = 'warn,portcullis=debug', format = 'json' }
        jobs.blob_hosts = ['azurite.local:10000', 'http://127.0.0.1:10000']
        limits.packet_bytes_max = 65536
        limits.c2d_ttl_max = '1d12h'
        limits.telemetry_payload_bytes_max = '32KiB'";
    let variables = [
        ("PORTCULLIS__HOSTNAME", "hub.test"),
        ("PORTCULLIS__ALIASES", "hub, 10.0.0.1"),
        ("PORTCULLIS__MQTT__LISTEN", "127.0.0.1:1,[::1]:2"),
        ("PORTCULLIS__HTTPS__LISTEN", "127.0.0.1:3"),
        ("PORTCULLIS__OPS__LISTEN", "127.0.0.1:4"),
        ("PORTCULLIS__TLS__CERTIFICATE", "c.pem"),
        ("PORTCULLIS__TLS__KEY", "k.pem"),
        ("PORTCULLIS_LOG", "warn,portcullis=debug"),
        ("PORTCULLIS__LOG__FORMAT", "json"),
        ("PORTCULLIS__JOBS__BLOB_HOSTS", "azurite.local:10000, http://127.0.0.1:10000"),
        ("PORTCULLIS__LIMITS__PACKET_BYTES_MAX", "64KiB"),
        ("PORTCULLIS__LIMITS__C2D_TTL_MAX", "1d12h"),
        ("PORTCULLIS__LIMITS__TELEMETRY_PAYLOAD_BYTES_MAX", "32KiB"),
    ];
    let config = from_file(file).unwrap();
    assert_eq!(from_variables(&variables).unwrap(), config);
    assert_eq!(config.limits.packet_bytes_max, 65_536);
    assert_eq!(config.blob_hosts.len(), 2);
    assert_eq!(config.limits.c2d_ttl_max, Duration::from_secs(36 * 3_600));
    assert_eq!(config.mqtt_listen.addrs.len(), 2);
    assert!(!config.https_listen.defaulted && config.https_listen.fallback_port.is_none());
    assert_eq!(config.certificate, Some(CertificateFiles { chain: "c.pem".into(), key: "k.pem".into() }));
    let shown = config.to_toml();
    assert_eq!(from_file(&shown).unwrap(), config, "{shown}");
}

#[test]
fn the_printed_defaults_are_the_defaults() {
    let shown = Config::default().to_toml();
    assert_eq!(from_file(&shown).unwrap(), Config::default(), "{shown}");
    assert!(
        shown.contains("\n# From accept to the end of the TLS handshake.\nhandshake_time_max = \"10s\"\n"),
        "{shown}"
    );
    assert!(shown.contains("\n# listen = [\"0.0.0.0:443\", \"[::]:443\"]\n"), "{shown}");
}

#[test]
fn t912_an_unknown_setting_is_refused_with_a_suggestion() {
    check_refused(from_file("hostnam = 'x'"), &["hostnam", "did you mean \"hostname\"", "hub.toml"]);
    check_refused(from_file("[limits]\nkeepalive_max = '1s'"), &["did you mean \"limits.keep_alive_max\""]);
    check_refused(from_file("keep_alive_max = '1s'"), &["did you mean \"limits.keep_alive_max\""]);
    check_refused(from_file("[lmits]"), &["lmits"]);
    check_refused(
        from_file("[policies.iothubownr]\nprimary_key = 'x'"),
        &["did you mean \"policies.iothubowner.primary_key\""],
    );
    let variable = from_variables(&[("PORTCULLIS__LIMITS__KEEPALIVE_MAX", "1s")]);
    check_refused(variable, &["did you mean \"PORTCULLIS__LIMITS__KEEP_ALIVE_MAX\""]);
    let unlike = from_file("[zzz]\nqqqqqqqqqqqq = 1").unwrap_err();
    assert!(matches!(unlike, ConfigError::Unknown { suggestion: None, .. }), "{unlike}");
    assert!(from_file("[limits]").is_ok());
    check_refused(from_file("LIMITS.keep_alive_max = '1s'"), &["did you mean"]);
}

#[test]
fn t912_an_empty_or_cut_file_is_refused() {
    check_refused(from_file(""), &["empty"]);
    check_refused(from_file(" \n\n"), &["empty"]);
    check_refused(from_file("hostname = 'hub.test'\naliases = ['a"), &["line 2"]);
    assert!(from_file("# nothing but a comment").is_ok());
    let missing = ServeFlags { config: vec!["/nonexistent/hub.toml".into()], ..ServeFlags::default() };
    check_refused(load(&[], None, missing), &["/nonexistent/hub.toml", "cannot be opened"]);
}

#[test]
fn t912_a_bad_value_is_refused_and_named() {
    for (file, said) in [
        ("hostname = 'https://x'", "hostname"),
        ("hostname = ['a', 'b']", "one value"),
        ("hostname = true", "must be a text"),
        ("aliases = [[]]", "must be a text"),
        ("data_dir = ''", "a path"),
        ("mqtt.listen = []", "1 to 16"),
        ("mqtt.listen = 'localhost:8883'", "not an IP address"),
        ("mqtt.listen = '0.0.0.0'", "not an IP address"),
        ("log.filter = 'portcullis=loud'", "not a filter"),
        ("log.filter = ''", "not a filter"),
        ("log.format = 'xml'", "auto, text, json"),
        ("jobs.blob_hosts = ['https://*.blob.core.windows.net']", "is not a blob host"),
        ("jobs.blob_hosts = ['http://127.1:10000']", "is not a blob host"),
        ("limits.handshake_time_max = '11m'", "between 1s and 10m"),
        ("limits.handshake_time_max = 10", "a duration"),
        ("limits.connect_time_max = '5s'", "handshake_time_max is above connect_time_max"),
        ("tls.key = 'k.pem'", "belong together"),
        ("limits = 5", "limits"),
        ("hostname = 'a'\nhostname = 'b'", "line 2"),
    ] {
        check_refused(from_file(file), &[said]);
    }
    check_refused(from_variables(&[("PORTCULLIS__HOSTNAME", "")]), &["PORTCULLIS__HOSTNAME"]);
}

#[test]
fn t912_a_bad_value_is_refused_even_when_overridden() {
    let flags = ServeFlags { hostname: Some("good.test".into()), ..ServeFlags::default() };
    check_refused(load(&[("PORTCULLIS__HOSTNAME", "b a d")], None, flags), &["PORTCULLIS__HOSTNAME"]);
}

#[test]
fn a_policy_key_is_taken_from_text_or_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("secret");
    let key = SymmetricKey::generate();
    std::fs::write(&path, format!("{}\n", *key.to_base64())).unwrap();
    let expected =
        BTreeMap::from([("iothubowner", PolicyKeys { primary: Some(key.clone()), secondary: None })]);

    let text = key.to_base64();
    let as_text = from_variables(&[("PORTCULLIS__POLICIES__IOTHUBOWNER__PRIMARY_KEY", &text)]).unwrap();
    let path = path.to_str().unwrap();
    let as_file = from_variables(&[("PORTCULLIS__POLICIES__IOTHUBOWNER__PRIMARY_KEY_FILE", path)]).unwrap();
    let in_toml = from_file(&format!("[policies.iothubowner]\nprimary_key_file = '{path}'")).unwrap();
    assert_eq!(as_text.policy_keys, expected);
    assert_eq!(as_file.policy_keys, expected);
    assert_eq!(in_toml.policy_keys, expected);

    let read_write =
        from_variables(&[("PORTCULLIS__POLICIES__REGISTRYREADWRITE__SECONDARY_KEY", &text)]).unwrap();
    assert_eq!(read_write.policy_keys["registryReadWrite"].secondary, Some(key));
}

#[test]
fn t912_a_policy_key_given_twice_is_refused() {
    let variables = [
        ("PORTCULLIS__POLICIES__SERVICE__PRIMARY_KEY", "MDEyMzQ1Njc4OWFiY2RlZg=="),
        ("PORTCULLIS__POLICIES__SERVICE__PRIMARY_KEY_FILE", "/nonexistent"),
    ];
    check_refused(
        from_variables(&variables),
        &["PORTCULLIS__POLICIES__SERVICE__PRIMARY_KEY_FILE is given twice"],
    );
}

#[test]
fn no_refusal_and_no_printout_shows_a_key() {
    const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQ=";
    let name = "PORTCULLIS__POLICIES__IOTHUBOWNER__PRIMARY_KEY";
    let config = from_variables(&[(name, SECRET)]).unwrap();
    assert!(!config.to_toml().contains(SECRET) && !format!("{config:?}").contains(SECRET));
    assert!(from_file(&config.to_toml()).unwrap().policy_keys.is_empty());

    let refused = [
        from_variables(&[(name, &SECRET[..9])]),
        from_variables(&[(name, &format!("{SECRET}!"))]),
        from_file(&format!("policies.iothubowner.primary_key = '{SECRET}")),
        from_file(&format!("policies.iothubowner.primary_key = ['{SECRET}']")),
        from_file(&format!("policies.iothubowner.primary_kee = '{SECRET}'")),
    ];
    for refused in refused {
        let text = refused.unwrap_err().to_string();
        assert!(!text.contains(&SECRET[..9]), "{text}");
    }
}

#[test]
fn t913_no_policy_has_a_key_by_default() {
    assert!(Config::default().policy_keys.is_empty());
}

#[test]
fn the_policies_are_the_built_in_ones() {
    let built_in = Policies::generate();
    assert!(POLICIES.iter().all(|name| built_in.find(name).is_some()));
}

#[test]
fn the_environment_of_this_process_can_be_read() {
    assert!(environment().any(|(name, _)| name == "PATH"));
}
