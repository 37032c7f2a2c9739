//! What a dry run foretells, and what a rollback brings back, for files made at random.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use portcullis_testing::{HubSettings, TestHub};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};

/// Lines that meet each other often: few devices, few modules, every mode.
fn file() -> impl Strategy<Value = Vec<Value>> {
    let mode =
        proptest::sample::select(vec!["create", "createOrUpdate", "update", "delete", "createOrUpdate"]);
    let module = proptest::option::weighted(0.6, 0..4_u8);
    let line = (0..4_u8, module, mode, any::<bool>(), 0..3_u8, proptest::option::of(0..2_u8));
    let line = line.prop_map(|(device, module, mode, disabled, keys, access)| {
        let key = ["AAAAAAAAAAAAAAAAAAAAAA==", "AQEBAQEBAQEBAQEBAQEBAQ=="];
        let authentication = match keys {
            2 => json!({ "type": "certificateAuthority" }),
            which => {
                json!({ "symmetricKey": { "primaryKey": key[usize::from(which)], "secondaryKey": key[0] } })
            }
        };
        json!({
            "id": format!("d{device}"),
            "moduleId": module.map(|module| format!("m{module}")),
            "importMode": mode,
            "status": if disabled { "disabled" } else { "enabled" },
            "authentication": authentication,
            "access": access.map(|access| json!({ "allow": if access == 0 { vec!["c2d"] } else { vec![] } })),
            "queueMessagesMax": null,
        })
    });
    proptest::collection::vec(line, 1..40)
}

fn text(lines: &[Value]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn a_dry_run_foretells_and_a_rollback_brings_back_whatever_the_file() {
    let limits = vec![("PORTCULLIS__LIMITS__MODULES_PER_DEVICE_MAX".to_owned(), "3".to_owned())];
    let hub = TestHub::start_with(HubSettings { environment: limits, ..HubSettings::default() }).await;
    let rest = hub.rest();
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    for round in 0..8 {
        let (stored, lines) = (file(), file()).new_tree(&mut runner).unwrap().current();
        rest.import(text(&stored), "").await;
        let before = hub.everything().await;
        let file = text(&lines);
        let foretold = rest.import(file.clone(), "dryRun=true").await;
        assert_eq!(hub.everything().await, before, "round {round}");
        let done = rest.import(file.clone(), "").await;
        assert_eq!(foretold["outcomes"], done["outcomes"], "round {round}:\n{file}");
        assert_eq!(rest.results(&foretold).await, rest.results(&done).await, "round {round}:\n{file}");

        let taken_back = rest.roll_back(&done).await;
        assert_eq!(taken_back["status"], "completed", "{taken_back}");
        assert_eq!(taken_back["linesFailed"], 0, "round {round}: {:?}", rest.results(&taken_back).await);
        assert_eq!(hub.everything().await, before, "round {round}:\n{file}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_rollback_leaves_what_was_changed_since() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    hub.device("kept").await;
    hub.device("gone").await;
    let before = hub.everything().await;
    let job = rest
        .import(
            text(&[
                json!({ "id": "kept", "status": "disabled" }),
                json!({ "id": "gone", "importMode": "delete" }),
                json!({ "id": "new" }),
                json!({ "id": "touched" }),
                json!({ "id": "grown" }),
            ]),
            "",
        )
        .await;
    assert_eq!(job["linesFailed"], 0, "{job}");
    let change = json!({ "statusReason": "since" });
    let put =
        rest.request("PUT", "/devices/touched?api-version=2021-04-12").header("if-match", "*").json(&change);
    assert_eq!(put.send().await.unwrap().status(), 200);
    hub.module("grown", "since").await;

    let taken_back = rest.roll_back(&job).await;
    assert_eq!(taken_back["status"], "completed", "{taken_back}");
    let results = rest.results(&taken_back).await;
    let told: Vec<_> = results.iter().map(|result| (&result["line"], &result["outcome"])).collect();
    let expected = [(5, "refused"), (4, "refused"), (3, "deleted"), (2, "created"), (1, "changed")];
    assert_eq!(
        told,
        expected
            .each_ref()
            .map(|(line, outcome)| (json!(line), json!(outcome)))
            .each_ref()
            .map(|(line, outcome)| (line, outcome))
    );
    assert!(results[0]["error"].as_str().unwrap().contains("has modules"), "{}", results[0]);
    assert!(results[1]["error"].as_str().unwrap().contains("changed since"), "{}", results[1]);
    let after = hub.everything().await;
    assert!(before.iter().all(|line| after.contains(line)), "{before:#?} {after:#?}");
    assert_eq!(after.len(), 5);

    // Once is enough, and only of the last import.
    let path = |job: &Value| format!("/api/v1/jobs/{}/rollback", job["jobId"].as_str().unwrap());
    assert_eq!(rest.call("POST", &path(&job), None).await.0, 412);
    let first = rest.import("{\"id\":\"a\"}", "").await;
    let second = rest.import("{\"id\":\"b\"}", "").await;
    rest.import("{\"id\":\"c\"}", "dryRun=true").await;
    let (status, answer) = rest.call("POST", &path(&first), None).await;
    assert_eq!(status, 412, "{answer}");
    assert!(
        answer["Message"].as_str().unwrap().starts_with("ErrorCode:JobRunPreconditionFailed;"),
        "{answer}"
    );
    assert_eq!(rest.roll_back(&second).await["outcomes"]["deleted"], 1);
    hub.stop().await;
}

#[tokio::test]
async fn t905_a_damaged_undo_file_is_told_of_and_takes_back_what_it_can() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let lines: Vec<Value> = (0..5).map(|number| json!({ "id": format!("d{number}") })).collect();
    let job = rest.import(text(&lines), "").await;
    let undo = hub.data_dir().join("jobs").join(job["jobId"].as_str().unwrap()).join("undo");
    let mut bytes = fs::read(&undo).unwrap();
    let place = bytes.windows(4).position(|window| window == b"\"d2\"").unwrap() + 2;
    bytes[place] = b'7';
    // And a last line that a crash cut.
    let whole = bytes.len();
    bytes.extend_from_within(..whole / 10);
    fs::write(&undo, bytes).unwrap();
    let taken_back = rest.roll_back(&job).await;
    assert_eq!(
        (&taken_back["status"], &taken_back["linesFailed"]),
        (&json!("completed"), &json!(1)),
        "{taken_back}"
    );
    assert_eq!(taken_back["outcomes"]["deleted"], 4);
    let results = rest.results(&taken_back).await;
    assert!(results[2]["error"].as_str().unwrap().contains("cannot be read any more"), "{results:?}");
    assert!(hub.everything().await[0].contains("\"d2\""));
    hub.stop().await;
}
