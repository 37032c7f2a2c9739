"""Import and export jobs by the official Azure IoT SDK for Python's service side, for tests/jobs_sdk.rs.

Goes through every call the SDK has for such jobs, and through its errors. Tells each part it has gone through as one
line on standard output; exits 0 after the last. What goes otherwise than a service expects is an assertion's traceback.

The connection string is in PORTCULLIS_TEST_CONNECTION_STRING, the hub's CA where REQUESTS_CA_BUNDLE says. Containers:
PORTCULLIS_TEST_INPUT may be read, PORTCULLIS_TEST_OUTPUT read, written and deleted from; PORTCULLIS_TEST_NOWHERE is not
there.
"""

import os
import uuid

from azure.iot.hub import IoTHubJobManager
from azure.iot.hub.models import JobProperties
from msrest.exceptions import HttpOperationError

INPUT, OUTPUT, NOWHERE = (os.environ["PORTCULLIS_TEST_" + name] for name in ("INPUT", "OUTPUT", "NOWHERE"))


def part(name):
    print(name, flush=True)


def ended(manager, job):
    """The job when it is over."""
    assert job.job_id and job.status in ("enqueued", "running", "completed"), job
    while job.status in ("enqueued", "running"):
        job = manager.get_import_export_job(job.job_id)
    assert (job.status, job.progress, job.failure_reason) == ("completed", 100, None), job
    assert job.start_time_utc <= job.end_time_utc, job
    for uri in (job.input_blob_container_uri, job.output_blob_container_uri):
        assert uri is None or "?" not in uri, "a signature is shown"
    return job


def refused(manager, status, code, properties):
    try:
        manager.create_import_export_job(properties)
    except HttpOperationError as error:
        text = error.response.text
        assert (error.response.status_code, code in text) == (status, True), (error.response.status_code, text)
        assert "sig=" not in text and "sp=" not in text, text
        return
    raise AssertionError("not refused: %r" % properties)


def export(**more):
    return JobProperties(type="export", output_blob_container_uri=OUTPUT, **more)


def jobs(manager):
    whole = ended(manager, manager.create_import_export_job(export(exclude_keys_in_export=False)))
    assert (whole.type, whole.output_blob_name) == ("export", "devices.txt"), whole
    part("export")

    bare = export(exclude_keys_in_export=True, output_blob_name="bare.txt", storage_authentication_type="keyBased")
    bare = ended(manager, manager.create_import_export_job(bare))
    assert (bare.exclude_keys_in_export, bare.output_blob_name) == (True, "bare.txt"), bare
    part("export without keys")

    taken = JobProperties(
        type="import", input_blob_container_uri=INPUT, output_blob_container_uri=OUTPUT, input_blob_name="new.txt"
    )
    taken = ended(manager, manager.create_import_export_job(taken))
    assert (taken.type, taken.input_blob_name) == ("import", "new.txt"), taken
    part("import")

    known = [job.job_id for job in manager.get_import_export_jobs()]
    assert known == [taken.job_id, bare.job_id, whole.job_id], known
    manager.cancel_import_export_job(taken.job_id)
    assert manager.get_import_export_job(taken.job_id).status == "completed"
    part("list")


def strangers(manager):
    invalid = "BlobContainerValidationError"
    missing = JobProperties(type="import", input_blob_container_uri=INPUT, output_blob_container_uri=OUTPUT)
    refused(manager, 400, invalid, missing)
    for uri in (
        INPUT,
        NOWHERE,
        OUTPUT.replace("sig=", "sig=AAAA"),
        OUTPUT.split("?")[0],
        "http://127.0.0.1:1/devstoreaccount1/reg?sp=rwd&sig=AAAA",
        "https://169.254.169.254/reg?sp=rwd&sig=AAAA",
        "https://evil.test/reg?sp=rwd&sig=AAAA",
    ):
        refused(manager, 400, invalid, JobProperties(type="export", output_blob_container_uri=uri))
    identity = export(storage_authentication_type="identityBased")
    refused(manager, 400, "ManagedIdentityNotEnabled", identity)
    try:
        manager.get_import_export_job(str(uuid.uuid4()))
        raise AssertionError("there is no such job")
    except HttpOperationError as error:
        assert error.response.status_code == 404, error.response.text
    part("strangers")


manager = IoTHubJobManager.from_connection_string(os.environ["PORTCULLIS_TEST_CONNECTION_STRING"])
jobs(manager)
strangers(manager)
