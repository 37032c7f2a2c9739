"""The registry by the official Azure IoT SDK for Python's service side, for tests/service_sdk.rs.

Goes through every call the SDK has for identities, and through its errors. Tells each part it has gone through as one
line on standard output; exits 0 after the last. What goes otherwise than a service expects is an assertion's traceback.

The connection string is in PORTCULLIS_TEST_CONNECTION_STRING, the hub's CA where REQUESTS_CA_BUNDLE says.
"""

import base64
import os

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import (
    AuthenticationMechanism,
    ExportImportDevice,
    QuerySpecification,
    SymmetricKey,
    X509Thumbprint,
)
from msrest.exceptions import HttpOperationError

KEYS = [base64.b64encode(bytes([n]) * 32).decode() for n in range(6)]
SHA1, SHA256 = "AB" * 20, "CD" * 32


def part(name):
    print(name, flush=True)


def refused(status, call, *arguments):
    """The call is refused with this status."""
    try:
        call(*arguments)
    except HttpOperationError as error:
        assert error.response.status_code == status, (error.response.status_code, error.response.text)
        return error
    raise AssertionError("not refused: %s%r" % (call.__name__, arguments))


def keys_of(identity):
    keys = identity.authentication.symmetric_key
    return [keys.primary_key, keys.secondary_key]


def devices(registry):
    made = registry.create_device_with_sas("sas", KEYS[0], KEYS[1], "enabled", status_reason="new")
    assert (made.device_id, made.status, made.status_reason) == ("sas", "enabled", "new"), made
    assert made.authentication.type == "sas" and keys_of(made) == KEYS[:2], made
    assert made.generation_id and made.etag and made.connection_state == "Disconnected", made
    assert made.cloud_to_device_message_count == 0 and made.last_activity_time.year == 1, made
    generated = registry.create_device_with_sas("generated", None, None, "disabled", iot_edge=True)
    assert [len(base64.b64decode(key)) for key in keys_of(generated)] == [32, 32], generated
    assert (generated.status, generated.capabilities.iot_edge) == ("disabled", True), generated
    refused(409, registry.create_device_with_sas, "sas", KEYS[0], KEYS[1], "enabled")
    refused(400, registry.create_device_with_sas, "a b", KEYS[0], KEYS[1], "enabled")
    refused(400, registry.create_device_with_sas, "short", "AAEC", "AAEC", "enabled")

    updated = registry.update_device_with_sas("sas", made.etag, KEYS[2], KEYS[3], "disabled", status_reason="old")
    assert keys_of(updated) == KEYS[2:4] and updated.status == "disabled", updated
    assert updated.etag != made.etag and updated.generation_id == made.generation_id, updated
    assert updated.status_updated_time.year > 2000, updated
    refused(412, registry.update_device_with_sas, "sas", made.etag, KEYS[0], KEYS[1], "enabled")
    forced = registry.update_device_with_sas("sas", "*", KEYS[2], KEYS[3], "enabled")
    assert forced.status == "enabled" and registry.get_device("sas").etag == forced.etag
    refused(404, registry.update_device_with_sas, "nobody", "*", KEYS[2], KEYS[3], "enabled")

    x509 = registry.create_device_with_x509("x509", SHA1, SHA1, "enabled")
    assert x509.authentication.type == "selfSigned", x509
    assert x509.authentication.x509_thumbprint.primary_thumbprint == SHA1, x509
    assert keys_of(x509) == [None, None], x509
    x509 = registry.update_device_with_x509("x509", x509.etag, SHA256, SHA256, "enabled")
    assert x509.authentication.x509_thumbprint.secondary_thumbprint == SHA256, x509
    authority = registry.create_device_with_certificate_authority("authority", "enabled")
    assert authority.authentication.type == "certificateAuthority", authority
    authority = registry.update_device_with_certificate_authority("authority", authority.etag, "disabled")
    assert authority.status == "disabled", authority
    # A device may change the way it proves itself.
    changed = registry.update_device_with_sas("x509", x509.etag, KEYS[4], KEYS[5], "enabled")
    assert changed.authentication.type == "sas" and keys_of(changed) == KEYS[4:6], changed

    odd = "a-b.c%d_e*f?g!h(i)j,k:l;m=n@o$p'q"
    assert registry.create_device_with_sas(odd, None, None, "enabled").device_id == odd
    assert registry.get_device(odd).device_id == odd
    registry.delete_device(odd)

    listed = sorted(device.device_id for device in registry.get_devices(10))
    assert listed == ["authority", "generated", "sas", "x509"], listed
    assert len(registry.get_devices(2)) == 2
    counted = registry.get_device_registry_statistics()
    counts = (counted.total_device_count, counted.enabled_device_count, counted.disabled_device_count)
    assert counts == (4, 2, 2), counted
    assert registry.get_service_statistics().connected_device_count == 0
    part("devices")


def modules(registry):
    made = registry.create_module_with_sas("sas", "one", "me", KEYS[0], KEYS[1])
    assert (made.device_id, made.module_id, made.managed_by) == ("sas", "one", "me"), made
    assert keys_of(made) == KEYS[:2], made
    refused(409, registry.create_module_with_sas, "sas", "one", "me", KEYS[0], KEYS[1])
    refused(404, registry.create_module_with_sas, "nobody", "one", "me", KEYS[0], KEYS[1])
    updated = registry.update_module_with_sas("sas", "one", "you", made.etag, KEYS[2], KEYS[3])
    assert updated.managed_by == "you" and keys_of(updated) == KEYS[2:4], updated
    refused(412, registry.update_module_with_sas, "sas", "one", "me", made.etag, KEYS[0], KEYS[1])
    x509 = registry.create_module_with_x509("sas", "two", "me", SHA256, SHA256)
    assert x509.authentication.type == "selfSigned", x509
    x509 = registry.update_module_with_x509("sas", "two", "me", x509.etag, SHA1, SHA1)
    assert x509.authentication.x509_thumbprint.primary_thumbprint == SHA1, x509
    authority = registry.create_module_with_certificate_authority("sas", "three", "me")
    authority = registry.update_module_with_certificate_authority("sas", "three", "you", authority.etag)
    assert authority.authentication.type == "certificateAuthority", authority
    assert registry.get_module("sas", "three").managed_by == "you"
    listed = sorted(module.module_id for module in registry.get_modules("sas"))
    assert listed == ["one", "three", "two"], listed
    refused(404, registry.get_module, "sas", "four")
    refused(412, registry.delete_module, "sas", "one", made.etag)
    registry.delete_module("sas", "one", updated.etag)
    registry.delete_module("sas", "two")
    refused(404, registry.delete_module, "sas", "two")
    part("modules")


def bulk(registry):
    def item(device_id, mode, etag=None, **members):
        return ExportImportDevice(id=device_id, import_mode=mode, e_tag=etag, **members)

    keys = AuthenticationMechanism(
        type="sas", symmetric_key=SymmetricKey(primary_key=KEYS[0], secondary_key=KEYS[1])
    )
    thumbprints = AuthenticationMechanism(
        type="selfSigned", x509_thumbprint=X509Thumbprint(primary_thumbprint=SHA1, secondary_thumbprint=SHA1)
    )
    done = registry.bulk_create_or_update_devices(
        [
            item("bulk1", "create", status="enabled", authentication=keys),
            item("bulk2", "create", status="disabled", authentication=thumbprints),
            item("bulk3", "createOrUpdate"),
        ]
    )
    assert done.is_successful and done.errors == [] and done.warnings == [], done
    assert keys_of(registry.get_device("bulk1")) == KEYS[:2]
    bulk2 = registry.get_device("bulk2")
    assert (bulk2.status, bulk2.authentication.type) == ("disabled", "selfSigned"), bulk2
    done = registry.bulk_create_or_update_devices(
        [
            item("bulk1", "create"),
            item("bulk2", "updateIfMatchETag", etag="c3RhbGU=", status="enabled"),
            item("bulk3", "update", status="disabled"),
            item("nobody", "delete"),
        ]
    )
    assert not done.is_successful, done
    codes = {error.device_id: error.error_code for error in done.errors}
    wanted = {"bulk1": "DeviceAlreadyExists", "bulk2": "PreconditionFailed", "nobody": "DeviceNotFound"}
    assert codes == wanted, codes
    assert registry.get_device("bulk3").status == "disabled"
    done = registry.bulk_create_or_update_devices(
        [item("bulk1", "delete"), item("bulk2", "deleteIfMatchETag", etag=bulk2.etag), item("bulk3", "delete")]
    )
    assert done.is_successful, done
    refused(404, registry.get_device, "bulk1")
    part("bulk")


def query(registry):
    def ask(text, token=None, count=None):
        return registry.query_iot_hub(QuerySpecification(query=text), token, count)

    answer = ask("SELECT * FROM devices WHERE status = 'enabled'")
    assert answer.type == "twin" and answer.continuation_token is None, vars(answer)
    assert [twin.device_id for twin in answer.items] == ["sas", "x509"], answer.items
    twin = answer.items[0]
    assert twin.device_etag == registry.get_device("sas").etag and twin.authentication_type == "sas", twin
    assert twin.tags == {} and twin.connection_state == "Disconnected" and twin.version == 1, twin
    assert twin.last_activity_time.year == 1 and twin.capabilities.iot_edge is False, twin

    seen, token = [], None
    while True:
        page = ask("SELECT * FROM devices", token, "3")
        assert len(page.items) in (3, 1), page.items
        seen += [twin.device_id for twin in page.items]
        token = page.continuation_token
        if token is None:
            break
    assert seen == ["authority", "generated", "sas", "x509"], seen
    answer = ask("SELECT * FROM devices.modules WHERE deviceId = 'sas'")
    assert [twin.module_id for twin in answer.items] == ["three"], answer.items
    assert ask("SELECT COUNT() AS n FROM devices").type == "raw"
    refused(400, ask, "SELECT everything")
    part("query")


def the_end(registry):
    stale = registry.get_device("sas").etag
    registry.update_device_with_sas("sas", stale, KEYS[0], KEYS[1], "enabled")
    refused(412, registry.delete_device, "sas", stale)
    for device in registry.get_devices():
        registry.delete_device(device.device_id, device.etag)
    refused(404, registry.delete_device, "sas")
    refused(404, registry.get_module, "sas", "three")
    error = refused(404, registry.get_device, "sas")
    assert error.response.headers["iothub-errorcode"] == "DeviceNotFound", error.response.headers
    assert error.response.json()["Message"] == "ErrorCode:DeviceNotFound;sas", error.response.text
    part("the end")


def strangers(connection_string):
    host, policy, _ = connection_string.split(";", 2)
    for policy, key in (policy, KEYS[0]), ("SharedAccessKeyName=nobody", KEYS[0]):
        stranger = IoTHubRegistryManager.from_connection_string("%s;%s;SharedAccessKey=%s" % (host, policy, key))
        refused(401, stranger.get_devices)
    part("strangers")


def main():
    connection_string = os.environ["PORTCULLIS_TEST_CONNECTION_STRING"]
    registry = IoTHubRegistryManager.from_connection_string(connection_string)
    for go_through in devices, modules, bulk, query, the_end:
        go_through(registry)
    strangers(connection_string)


main()
