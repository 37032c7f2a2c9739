//! Jobs in containers, as IoT Hub's SDKs ask for them; here the containers are folders.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use portcullis_testing::{RestClient, TestHub};
use serde_json::{Value, json};

const CREATE: &str = "/jobs/create?api-version=2021-04-12";

async fn run(rest: &RestClient, job: Value) -> Value {
    let (status, job) = rest.call("POST", CREATE, Some(job)).await;
    assert_eq!(status, 200, "{job}");
    rest.job_over(&job).await
}

#[tokio::test]
async fn a_fleet_goes_out_to_a_folder_and_comes_back() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    hub.device("pump-7").await;
    hub.module("pump-7", "m").await;
    let before = hub.everything().await;
    // As the SDKs send it: with what only answers say.
    let wanted = json!({ "jobId": "", "type": "export", "status": "unknown", "progress": 0,
        "outputBlobContainerUri": "file:fleet", "excludeKeysInExport": false,
        "storageAuthenticationType": "KeyBased" });
    let export = run(&rest, wanted).await;
    assert_eq!(
        (&export["type"], &export["status"], &export["progress"]),
        (&json!("export"), &json!("completed"), &json!(100))
    );
    assert_eq!(
        (&export["outputBlobContainerUri"], &export["outputBlobName"]),
        (&json!("file:fleet"), &json!("devices.txt"))
    );
    assert_eq!((&export["excludeKeysInExport"], &export["linesDone"]), (&json!(false), &json!(2)));
    let folder = hub.data_dir().join("containers/fleet");
    let exported = fs::read_to_string(folder.join("devices.txt")).unwrap();
    assert_eq!(exported.lines().count(), 2);

    for path in ["/devices/pump-7?", "/devices/"] {
        let _ = rest.call("DELETE", &format!("{path}api-version=2021-04-12"), None).await;
    }
    assert_eq!(hub.hub.registry.counts().devices, 0);
    let import = json!({ "type": "import", "inputBlobContainerUri": "file:fleet", "outputBlobContainerUri": "file:told" });
    let done = run(&rest, import.clone()).await;
    assert_eq!(
        (&done["status"], &done["linesDone"], &done["linesFailed"]),
        (&json!("completed"), &json!(2), &json!(0))
    );
    assert_eq!(hub.everything().await, before);
    let told = hub.data_dir().join("containers/told");
    assert_eq!(fs::read_dir(&told).unwrap().count(), 0, "neither a list of nothing nor the probe is left");

    fs::write(
        folder.join("devices.txt"),
        "{\"id\":\"a+b\"}\n{\"id\":\"pump-7\",\"importMode\":\"create\"}\n",
    )
    .unwrap();
    let done = run(&rest, import.clone()).await;
    assert_eq!((&done["status"], &done["linesFailed"]), (&json!("completed"), &json!(2)));
    let refused = fs::read_to_string(told.join("importErrors.log")).unwrap();
    let refused: Vec<Value> = refused.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let existing = json!({ "deviceId": "pump-7", "errorCode": 409_001, "errorStatus": "A device with ID 'pump-7' is already registered." });
    assert_eq!(refused[1], existing);
    // A run in which nothing is refused takes the list of an earlier one away.
    fs::write(folder.join("devices.txt"), &exported).unwrap();
    assert_eq!(run(&rest, import).await["linesFailed"], 0);
    assert!(!told.join("importErrors.log").exists());

    let named = json!({ "type": "EXPORT", "outputBlobContainerUri": "file:fleet", "outputBlobName": "all.txt", "excludeKeysInExport": true });
    let export = run(&rest, named).await;
    assert_eq!(
        (&export["outputBlobName"], &export["excludeKeysInExport"]),
        (&json!("all.txt"), &json!(true))
    );
    let exported = fs::read_to_string(folder.join("all.txt")).unwrap();
    assert!(
        exported
            .lines()
            .all(|line| line.contains(r#""symmetricKey":{"primaryKey":null,"secondaryKey":null}"#)),
        "{exported}"
    );

    let (status, all) = rest.call("GET", "/jobs/?api-version=2021-04-12", None).await;
    assert_eq!(status, 200);
    let id = |job: &Value| job["jobId"].as_str().unwrap().to_owned();
    assert!(all.as_array().unwrap().iter().any(|job| id(job) == id(&export)));
    hub.stop().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_when_it_is_asked_for() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let folder = hub.data_dir().join("containers/empty");
    fs::create_dir_all(&folder).unwrap();
    for (job, name) in [
        (json!({}), "ArgumentInvalid"),
        (json!({ "type": "backup" }), "ArgumentInvalid"),
        (json!({ "type": "export" }), "ArgumentNull"),
        (json!({ "type": "import", "inputBlobContainerUri": "file:empty" }), "ArgumentNull"),
        (json!({ "type": "import", "outputBlobContainerUri": "file:empty" }), "ArgumentNull"),
        (json!({ "type": "export", "outputBlobContainerUri": "file:../x" }), "BlobContainerValidationError"),
        (json!({ "type": "export", "outputBlobContainerUri": "file:/etc" }), "BlobContainerValidationError"),
        (
            json!({ "type": "export", "outputBlobContainerUri": "ftp://example.test/x" }),
            "BlobContainerValidationError",
        ),
        (
            json!({ "type": "export", "outputBlobContainerUri": "file:x", "outputBlobName": "../y" }),
            "BlobContainerValidationError",
        ),
        (
            json!({ "type": "import", "inputBlobContainerUri": "file:empty", "outputBlobContainerUri": "file:x" }),
            "BlobContainerValidationError",
        ),
        (
            json!({ "type": "import", "inputBlobContainerUri": "file:none", "outputBlobContainerUri": "file:x" }),
            "BlobContainerValidationError",
        ),
        (
            json!({ "type": "export", "outputBlobContainerUri": "file:x", "storageAuthenticationType": "IdentityBased" }),
            "ManagedIdentityNotEnabled",
        ),
        (
            json!({ "type": "export", "outputBlobContainerUri": "file:x", "includeConfigurations": true }),
            "ArgumentInvalid",
        ),
        (json!([]), "DeserializationError"),
    ] {
        let (status, answer) = rest.call("POST", CREATE, Some(job.clone())).await;
        assert_eq!(status, 400, "{job}: {answer}");
        let message = answer["Message"].as_str().unwrap();
        assert!(message.starts_with(&format!("ErrorCode:{name};")), "{job}: {message}");
        assert!(!message.contains(hub.data_dir().to_str().unwrap()), "{message}");
    }
    let (status, answer) = rest.call("GET", "/jobs/none?api-version=2021-04-12", None).await;
    assert_eq!((status, &answer["Message"]), (404, &json!("ErrorCode:JobNotFound;there is no job \"none\"")));
    assert_eq!(rest.call("GET", "/jobs?api-version=2021-04-12", None).await.1, json!([]));
    assert!(!hub.data_dir().join("containers/x/devices.txt").exists());
    hub.stop().await;
}

#[tokio::test]
async fn t810_a_container_that_fails_half_way_fails_the_job_and_not_its_lines() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let containers = hub.data_dir().join("containers");
    fs::create_dir_all(containers.join("fleet")).unwrap();
    fs::write(containers.join("fleet/devices.txt"), "{\"id\":\"a\"}\n{\"id\":\"b+c\"}\n").unwrap();
    // A directory in the place of the list of refused lines cannot be replaced by it.
    fs::create_dir_all(containers.join("told/importErrors.log")).unwrap();
    let import = json!({ "type": "import", "inputBlobContainerUri": "file:fleet", "outputBlobContainerUri": "file:told" });
    let job = run(&rest, import.clone()).await;
    assert_eq!(
        (&job["status"], &job["linesDone"], &job["linesFailed"]),
        (&json!("failed"), &json!(2), &json!(1))
    );
    assert!(job["failureReason"].as_str().unwrap().starts_with("the output: "), "{job}");
    assert_eq!(hub.hub.registry.counts().devices, 1);
    // The job's own files tell all the same, and a second run is harmless.
    assert_eq!(rest.results(&job).await.len(), 2);
    assert_eq!(rest.job_file(&job, "importErrors.log").await.lines().count(), 1);
    fs::remove_dir(containers.join("told/importErrors.log")).unwrap();
    let job = run(&rest, import).await;
    assert_eq!((&job["status"], &job["outcomes"]["unchanged"]), (&json!("completed"), &json!(1)));
    hub.stop().await;
}

#[tokio::test]
async fn jobs_outlive_the_hub_and_are_forgotten_after_a_month() {
    let hub = TestHub::start().await;
    let done = hub.rest().import("{\"id\":\"a\"}", "").await;
    let hub = hub.restart().await;
    let again = hub.rest().job_over(&done).await;
    assert_eq!(again["status"], "completed");
    assert_eq!((&again["outcomes"], &again["endTimeUtc"]), (&done["outcomes"], &done["endTimeUtc"]));
    assert_eq!(hub.rest().results(&done).await.len(), 1);
    // The undo file is there too.
    assert_eq!(hub.rest().roll_back(&done).await["outcomes"]["deleted"], 1);
    hub.hub.clock.shift(31 * 86_400);
    hub.rest().export("").await;
    let (_, all) = hub.rest().call("GET", "/jobs?api-version=2021-04-12", None).await;
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    assert_eq!(fs::read_dir(hub.data_dir().join("jobs")).unwrap().count(), 1);
    hub.stop().await;
}

#[tokio::test]
async fn t810_a_job_that_was_cut_off_has_failed_and_says_so() {
    let hub = TestHub::start().await;
    let done = hub.rest().import("{\"id\":\"a\"}", "").await;
    let directory = hub.data_dir().join("jobs").join(done["jobId"].as_str().unwrap());
    // What a kill leaves: a record of a job that runs, and its input.
    let record = fs::read_to_string(directory.join("job.json")).unwrap();
    let cut = record.replace("\"completed\"", "\"running\"");
    assert_ne!(cut, record);
    fs::write(directory.join("job.json"), cut).unwrap();
    fs::write(directory.join("input"), "{\"id\":\"a\"}").unwrap();
    fs::create_dir(hub.data_dir().join("jobs/never-began")).unwrap();
    // A record that is damaged keeps nobody out.
    let damaged = hub.data_dir().join("jobs/damaged");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("job.json"), "{").unwrap();
    let hub = hub.restart().await;
    hub.announce("the record of a job cannot be read");
    assert!(damaged.exists());
    let job = hub.rest().job_over(&done).await;
    assert_eq!(job["status"], "failed");
    assert!(job["failureReason"].as_str().unwrap().contains("may be run again"), "{job}");
    assert!(!directory.join("input").exists() && !hub.data_dir().join("jobs/never-began").exists());
    assert_eq!(hub.rest().import("{\"id\":\"a\"}", "").await["outcomes"]["unchanged"], 1);
    hub.stop().await;
}
