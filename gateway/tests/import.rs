//! `device-identity import`: whole files of identities through the built command line, each line with a result.

use std::path::PathBuf;

use portcullis::testing::TestHub;
use portcullis::testing::shell::Shell;
use serde_json::{Value, json};

/// What the command says of each line, as line and result, and the exit code.
async fn import(owner: &Shell, file: &[u8]) -> (Vec<(u64, String)>, Option<i32>) {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("devices.txt");
    std::fs::write(&path, file).unwrap();
    let output = owner
        .command(&["device-identity", "import", "--input-file", path.to_str().unwrap()])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let results = text.lines().map(|line| {
        let result: Value = serde_json::from_str(line).unwrap();
        (result["line"].as_u64().unwrap(), result["result"].as_str().unwrap().to_owned())
    });
    (results.collect(), output.status.code())
}

fn expected(results: &[(u64, &str)]) -> Vec<(u64, String)> {
    results.iter().map(|(line, result)| (*line, (*result).to_owned())).collect()
}

#[tokio::test]
async fn a_file_of_iot_hub_comes_in_with_keys_and_modules() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    let keys = json!({ "primaryKey": KEY, "secondaryKey": KEY });
    let authentication = json!({ "symmetricKey": keys, "type": "sas",
        "x509Thumbprint": { "primaryThumbprint": null, "secondaryThumbprint": null } });
    let mut file = String::new();
    for number in 0..150 {
        let line = json!({ "id": format!("d{number}"), "eTag": "MA==", "status": "disabled",
            "authentication": authentication, "twinETag": "AAAAAAAAAAE=", "tags": {} });
        file += &format!("{line}\r\n");
        let module = json!({ "id": format!("d{number}"), "moduleId": "m", "status": "enabled",
            "authentication": authentication });
        file += &format!("{module}\n");
    }
    let (results, code) = import(&owner, file.as_bytes()).await;
    assert_eq!(code, Some(0));
    assert_eq!(results, (1..=300).map(|line| (line, "done".to_owned())).collect::<Vec<_>>());
    let device = owner.json(&["device-identity", "show", "-d", "d149"]).await;
    assert_eq!(device["status"], "disabled");
    assert_eq!(device["authentication"]["symmetricKey"], keys);
    let module = owner.json(&["module-identity", "show", "-d", "d149", "-m", "m"]).await;
    assert_eq!(module["authentication"]["symmetricKey"], keys);
    hub.stop().await;
}

#[tokio::test]
async fn t808_a_bad_line_errs_and_the_rest_goes_on() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    let mut file =
        b"\xef\xbb\xbf{\"id\":\"a\"}\r\n\n{\"id\":\n{\"id\":\"\xff\"}\n{\"id\":\"b\",\"note\":\"".to_vec();
    file.extend(vec![b'x'; 64 * 1024]);
    file.extend(b"\"}\n[]\n{}\n{\"id\":\"c\",\"id\":\"d\"}\n{\"id\":\"no good\"}\n{\"id\":\"e\"}");
    let (results, code) = import(&owner, &file).await;
    let refused = "refused";
    let lines =
        [(1, "done"), (3, refused), (4, refused), (5, refused), (6, refused), (7, refused), (8, refused)];
    assert_eq!(results[..7], expected(&lines));
    assert_eq!(results[7..], expected(&[(9, refused), (10, "done")]));
    assert_eq!(code, Some(7));
    hub.stop().await;
}

#[tokio::test]
async fn t809_the_order_of_the_file_is_kept() {
    let hub = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &hub, "iothubowner");
    let file = r#"{"id":"a","importMode":"create"}
{"id":"a","importMode":"create"}
{"id":"a","moduleId":"m","importMode":"create"}
{"id":"a","importMode":"delete"}
{"id":"a","moduleId":"m","importMode":"create"}
{"id":"a","importMode":"Create","statusReason":"again"}
{"id":"a","importMode":"updateIfMatchETag","eTag":"AAAAAAAAAAA="}
{"id":"a","importMode":"replace"}
"#;
    let (results, code) = import(&owner, file.as_bytes()).await;
    let outcomes: Vec<&str> = results.iter().map(|(_, result)| result.as_str()).collect();
    assert_eq!(
        outcomes,
        ["done", "refused", "done", "done", "refused", "done", "refused", "refused"],
        "{results:?}"
    );
    assert_eq!(code, Some(7));
    assert_eq!(owner.json(&["device-identity", "show", "-d", "a"]).await["statusReason"], "again");
    hub.stop().await;
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
