"""Feedback and purges by the official Azure IoT SDK for Python's service side, for tests/service_sdk.rs.

One message waits for the device `pump-7`, sent with `ack` full. Purges it, and fetches what became of it: given back
once, then completed. Tells each part it has gone through as one line on standard output; exits 0 after the last.

The connection string is in PORTCULLIS_TEST_CONNECTION_STRING, the hub's CA where REQUESTS_CA_BUNDLE says.
"""

import os

from azure.iot.hub import IoTHubHttpRuntimeManager
from msrest.exceptions import HttpOperationError


def part(name):
    print(name, flush=True)


def receive(manager):
    """The SDK's method gives no answer back; what it calls does."""
    return manager.protocol.cloud_to_device_messages.receive_feedback_notification(raw=True).response


def main():
    manager = IoTHubHttpRuntimeManager.from_connection_string(os.environ["PORTCULLIS_TEST_CONNECTION_STRING"])
    manager.receive_feedback_notification()
    assert receive(manager).status_code == 204
    part("nothing yet")

    purged = manager.protocol.cloud_to_device_messages.purge_cloud_to_device_message_queue("pump-7")
    assert (purged.total_messages_purged, purged.device_id) == (1, "pump-7"), vars(purged)
    part("purged")

    response = receive(manager)
    [record] = response.json()
    assert (record["originalMessageId"], record["statusCode"]) == ("m1", "Purged"), record
    first = response.headers["ETag"].strip('"')
    manager.abandon_feedback_notification(first)
    response = receive(manager)
    assert response.json() == [record], response.text
    second = response.headers["ETag"].strip('"')
    assert second != first
    manager.complete_feedback_notification(second)
    part("told")

    try:
        manager.complete_feedback_notification(second)
    except HttpOperationError as error:
        assert error.response.status_code == 412, error.response.text
    else:
        raise AssertionError("completed twice")
    assert receive(manager).status_code == 204
    part("told once")


main()
