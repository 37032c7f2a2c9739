"""A device on the official Azure IoT SDK for Python, for tests/python_sdk.rs.

Connects, sends one telemetry message, waits for one cloud-to-device message, disconnects. Tells what happened as one
JSON object a line on standard output. Exits 0 after the whole conversation, 2 when the hub refused the credential.

The connection string is in PORTCULLIS_TEST_CONNECTION_STRING, the file of the hub's CA in PORTCULLIS_TEST_CA.
PORTCULLIS_TEST_WEBSOCKETS=1 takes MQTT over WebSockets, on port 443.

With PORTCULLIS_TEST_CERTIFICATE and PORTCULLIS_TEST_KEY, the files of a client certificate and its key, there is no
connection string: PORTCULLIS_TEST_HOST, PORTCULLIS_TEST_DEVICE and, for a module, PORTCULLIS_TEST_MODULE say who it is.
A module only sends: the SDK takes no cloud-to-device messages for modules.
"""

import json
import os
import queue
import sys

from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, Message, X509
from azure.iot.device.exceptions import CredentialError

WAIT_MAX_SECONDS = 60


def tell(event, **details):
    print(json.dumps({"event": event, **details}), flush=True)


def text(value):
    return value.decode() if isinstance(value, bytes) else value


def converse(client):
    client.connect()
    tell("connected")

    is_module = isinstance(client, IoTHubModuleClient)
    received = queue.Queue()
    if not is_module:
        client.on_message_received = received.put  # subscribes, and returns after the SUBACK
        tell("subscribed")

    message = Message("21.5 degrees")
    message.message_id = "reading 1/é"
    message.content_type = "text/plain"
    message.content_encoding = "utf-8"
    message.custom_properties["room"] = "kitchen & hall=100%"
    message.custom_properties["größe"] = "a/b+c"
    client.send_message(message)  # returns after the PUBACK
    tell("sent")
    if is_module:
        return

    message = received.get(timeout=WAIT_MAX_SECONDS)
    tell(
        "received",
        data=text(message.data),
        messageId=message.message_id,
        correlationId=message.correlation_id,
        userId=message.user_id,
        contentType=message.content_type,
        contentEncoding=message.content_encoding,
        ack=message.ack,
        expiry=message.expiry_time_utc,
        properties=message.custom_properties,
    )


def new_client():
    with open(os.environ["PORTCULLIS_TEST_CA"], encoding="ascii") as file:
        ca = file.read()
    options = {
        "server_verification_cert": ca,
        "connection_retry": False,
        "websockets": os.environ.get("PORTCULLIS_TEST_WEBSOCKETS") == "1",
    }
    certificate = os.environ.get("PORTCULLIS_TEST_CERTIFICATE")
    if certificate is None:
        return IoTHubDeviceClient.create_from_connection_string(
            os.environ["PORTCULLIS_TEST_CONNECTION_STRING"], **options
        )
    identity = {
        "x509": X509(cert_file=certificate, key_file=os.environ["PORTCULLIS_TEST_KEY"]),
        "hostname": os.environ["PORTCULLIS_TEST_HOST"],
        "device_id": os.environ["PORTCULLIS_TEST_DEVICE"],
    }
    module = os.environ.get("PORTCULLIS_TEST_MODULE")
    if module is None:
        return IoTHubDeviceClient.create_from_x509_certificate(**identity, **options)
    return IoTHubModuleClient.create_from_x509_certificate(module_id=module, **identity, **options)


def main():
    client = new_client()
    try:
        converse(client)
    except CredentialError:
        tell("refused")
        return 2
    finally:
        client.shutdown()
    return 0


sys.exit(main())
