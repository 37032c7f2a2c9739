//! Admission of a CONNECT, from its bytes to the verdict: one packet parsed, one claim parsed, one look-up, one HMAC.
//! The floor is the HMAC alone. A refusal costs the same work and one record of it.

use std::hint::black_box;
use std::time::Duration;

use bytes::BytesMut;

use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use portcullis::auth::{Authenticator, Evidence, Face, HostNames, SasSwitches, Trust, TrustStore};
use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::hub::refusals::{Refusal, RefusalLog};
use portcullis::mqtt::codec::{self, PacketLimits, Side};
use portcullis::mqtt::connect::{Claim, parse_claim};
use portcullis::mqtt::packet::{Connect, Packet, Password};
use portcullis_registry::authority::Authorities;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::{Authentication, IdentitySpec};
use portcullis_registry::policy::Policies;
use portcullis_registry::sas;
use sha2::Sha256;

#[path = "support/counted.rs"]
mod counted;
#[path = "support/unkept.rs"]
mod unkept;

const HOST: &str = "hub.example.test";

fn device(number: usize) -> IdentityId {
    IdentityId::device(DeviceId::parse(&format!("device-{number}")).expect("an id"))
}

fn connect(id: &IdentityId, key: &SymmetricKey) -> BytesMut {
    let token = sas::sign(&format!("{HOST}/devices/{id}"), key, 1_800_003_600, None);
    let connect = Connect {
        client_id: id.to_string(),
        clean_session: false,
        keep_alive: 60,
        username: Some(format!("{HOST}/{id}/?api-version=2021-04-12&DeviceClientType=py")),
        password: Some(Password::from_bytes(token.as_bytes())),
        will: None,
    };
    let mut bytes = BytesMut::new();
    codec::encode(&Packet::Connect(Box::new(connect)), &mut bytes);
    bytes
}

fn admission(c: &mut Criterion<counted::CpuTime>) {
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let registry = unkept::registry();
    for number in 0..10_000 {
        let made = registry.create(IdentitySpec::sas_device(device(number)), now);
        made.now_or_never().expect("a store that answers at once").expect("a new device");
    }
    let entry = registry.entry(&device(7)).expect("a device");
    let Authentication::Sas(keys) = &entry.identity().authentication else { panic!("no keys") };
    let (policies, decoy) = (Policies::generate(), SymmetricKey::generate());
    let trust = TrustStore::new(Trust::new(Authorities::default()).expect("nobody"));
    let hosts = HostNames::new(vec![HOST.into()], vec![8883]);
    let authenticator = Authenticator {
        registry: &registry,
        policies: &policies,
        trust: &trust,
        hosts: &hosts,
        sas: SasSwitches { devices: true, modules: true },
        decoy: &decoy,
        leeway: Duration::ZERO,
    };
    let limits = PacketLimits::before_connect(8 * 1024);
    let judge = |bytes: &[u8]| {
        let mut input = BytesMut::new();
        input.extend_from_slice(black_box(bytes));
        let Ok(Some(Packet::Connect(connect))) = codec::decode(&mut input, &limits, Side::Client) else {
            panic!("no CONNECT")
        };
        let claim = parse_claim(&connect.client_id, connect.username.as_deref().unwrap_or_default());
        let Ok(Claim::Device { id, .. }) = claim else { panic!("no device") };
        let password = connect.password.as_ref().map(Password::as_str);
        authenticator.verify(&id, Evidence { password, certificates: None }, now)
    };
    let mut group = c.benchmark_group("admission");
    counted::bench(&mut group, "hmac alone", || {
        let mut mac = Hmac::<Sha256>::new_from_slice(keys.primary.as_bytes()).expect("any length");
        mac.update(black_box(b"hub.example.test%2Fdevices%2Fdevice-7\n1800003600"));
        mac.verify_slice(&[7u8; 32]).is_ok()
    });
    let good = connect(&device(7), &keys.primary);
    counted::bench(&mut group, "CONNECT admitted", || judge(&good).expect("a good token"));
    let bad = connect(&device(7), &SymmetricKey::generate());
    counted::bench(&mut group, "CONNECT refused, wrong key", || judge(&bad).expect_err("a wrong key"));
    let unknown = connect(&device(10_000), &keys.primary);
    counted::bench(&mut group, "CONNECT refused, unknown id", || judge(&unknown).expect_err("nobody"));
    group.finish();
}

fn refusals(c: &mut Criterion<counted::CpuTime>) {
    let log = RefusalLog::new(10_000);
    let refusal = Refusal {
        time: Timestamp::from_second(1_800_000_000).expect("a time"),
        peer: [127, 0, 0, 1].into(),
        face: Face::Mqtt,
        outcome: ConnectionOutcome::SasBadSignature,
        reason: "the token was signed with none of the keys of device-7".into(),
        contrast: None,
        token_end: Some(1_800_003_600),
    };
    let ids: Vec<_> = (0..20_000).map(device).collect();
    let mut next = ids.iter().cycle();
    let mut group = c.benchmark_group("refusals");
    counted::bench(&mut group, "copy of a refusal alone", || black_box(&refusal).clone());
    counted::bench(&mut group, "note, one of 20,000 ids in a full record", || {
        log.note(next.next().expect("a cycle"), true, refusal.clone());
    });
    counted::bench(&mut group, "note, always the same id", || log.note(&ids[0], true, refusal.clone()));
    group.finish();
}

criterion_group!(name = benches; config = counted::criterion(); targets = admission, refusals);
criterion_main!(benches);
