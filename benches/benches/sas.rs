//! Checking a SAS token is one parse and one HMAC-SHA256, or two with a wrong key. The floor is the HMAC alone.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas::{SasToken, sign};
use sha2::Sha256;

#[path = "support/counted.rs"]
mod counted;

fn sas(c: &mut Criterion<counted::CpuTime>) {
    let (key, other) = (SymmetricKey::generate(), SymmetricKey::generate());
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let token = sign("hub.example.test/devices/pump-7", &key, 1_800_003_600, None);
    let mut group = c.benchmark_group("sas");
    let text = b"hub.example.test%2Fdevices%2Fpump-7\n1800003600";
    let wanted = [7u8; 32];
    counted::bench(&mut group, "hmac alone", || {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length");
        mac.update(black_box(text));
        mac.verify_slice(&wanted).is_ok()
    });
    counted::bench(&mut group, "parse", || {
        SasToken::parse(black_box(&token)).expect("a good token").expiry()
    });
    counted::bench(&mut group, "verdict", || {
        let token = SasToken::parse(black_box(&token)).expect("a good token");
        assert!(token.is_signed_by(&key) && token.check_expiry(now, Duration::ZERO).is_ok());
    });
    counted::bench(&mut group, "verdict, secondary key", || {
        let token = SasToken::parse(black_box(&token)).expect("a good token");
        assert!(!token.is_signed_by(&other) && token.is_signed_by(&key));
    });
    counted::bench(&mut group, "sign", || {
        sign("hub.example.test/devices/pump-7", black_box(&key), 1_800_003_600, None)
    });
    group.finish();
}

criterion_group!(name = benches; config = counted::criterion(); targets = sas);
criterion_main!(benches);
