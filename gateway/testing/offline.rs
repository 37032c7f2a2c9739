//! A build script of the packages with tests that need a program from outside. It sets `cfg(offline)` when
//! `PORTCULLIS_TEST_OFFLINE` is `1`, so that `#[cfg_attr(offline, ignore = "…")]` shows such tests as ignored.

fn main() {
    println!("cargo::rerun-if-env-changed=PORTCULLIS_TEST_OFFLINE");
    println!("cargo::rustc-check-cfg=cfg(offline)");
    if std::env::var_os("PORTCULLIS_TEST_OFFLINE").is_some_and(|value| value == "1") {
        println!("cargo::rustc-cfg=offline");
    }
}
