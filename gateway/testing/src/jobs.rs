//! Jobs as a test asks for them: files in, files out, and the wait for the end.

use serde_json::Value;

use super::{RestClient, TestHub, within};

impl RestClient {
    /// Uploads a file and waits until its import is over; `options` are query parameters.
    pub async fn import(&self, file: impl Into<Vec<u8>>, options: &str) -> Value {
        let path = format!("/api/v1/imports?{options}");
        let answer = within(self.request("POST", &path).body(file.into()).send()).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 202);
        let job: Value = within(answer.json()).await.expect("a job");
        self.job_over(&job).await
    }

    /// Exports and waits for the end; the file.
    pub async fn export(&self, options: &str) -> String {
        let (status, job) = self.call("POST", &format!("/api/v1/exports?{options}"), None).await;
        assert_eq!(status, 202, "{job}");
        let job = self.job_over(&job).await;
        assert_eq!(job["status"], "completed", "{job}");
        self.job_file(&job, "devices.txt").await
    }

    /// Takes an import back and waits for the end.
    pub async fn roll_back(&self, job: &Value) -> Value {
        let path = format!("/api/v1/jobs/{}/rollback", job["jobId"].as_str().expect("an id"));
        let (status, job) = self.call("POST", &path, None).await;
        assert_eq!(status, 202, "{job}");
        self.job_over(&job).await
    }

    /// The job once it is over.
    pub async fn job_over(&self, job: &Value) -> Value {
        let path = format!("/jobs/{}?api-version=2021-04-12", job["jobId"].as_str().expect("an id"));
        within(async {
            loop {
                let (status, job) = self.call("GET", &path, None).await;
                assert_eq!(status, 200, "{job}");
                if !["enqueued", "running"].contains(&job["status"].as_str().expect("a status")) {
                    return job;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// A file of a job.
    pub async fn job_file(&self, job: &Value, name: &str) -> String {
        let path = format!("/api/v1/jobs/{}/files/{name}", job["jobId"].as_str().expect("an id"));
        let answer = within(self.request("GET", &path).send()).await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 200, "{name}");
        within(answer.text()).await.expect("a text")
    }

    /// What became of each line of an import.
    pub async fn results(&self, job: &Value) -> Vec<Value> {
        let text = self.job_file(job, "results.txt").await;
        text.lines().map(|line| serde_json::from_str(line).expect("a result is JSON")).collect()
    }
}

impl TestHub {
    /// Every identity there is with all that can be asked for, one line each: equal texts are equal registries.
    pub async fn everything(&self) -> Vec<String> {
        let exported = self.rest().export("includeKeys=true").await;
        let without_etag = |line: &str| {
            let mut line: Value = serde_json::from_str(line).expect("a line is JSON");
            line.as_object_mut().and_then(|line| line.remove("eTag")).expect("a line has an etag");
            line.to_string()
        };
        exported.lines().map(without_etag).collect()
    }
}
