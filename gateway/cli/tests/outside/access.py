"""Updates by the official Azure IoT SDK for Python's service side, which knows no access lists, for tests/access.rs.

Changes the device `d1` and its module `m1`, which have such lists, in every way the SDK has; exits 0 if each change was
done. Whether the lists are still there is the test's to see.

The connection string is in PORTCULLIS_TEST_CONNECTION_STRING, the hub's CA where REQUESTS_CA_BUNDLE says.
"""

import os

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import ExportImportDevice


def main():
    registry = IoTHubRegistryManager.from_connection_string(os.environ["PORTCULLIS_TEST_CONNECTION_STRING"])

    device = registry.get_device("d1")
    keys = device.authentication.symmetric_key
    device.status_reason = "read and written back"
    written = registry.protocol.devices.create_or_update_identity("d1", device, '"%s"' % device.etag)
    assert written.status_reason == "read and written back", written
    updated = registry.update_device_with_sas(
        "d1", written.etag, keys.primary_key, keys.secondary_key, "enabled", status_reason="updated"
    )
    assert updated.status_reason == "updated", updated

    module = registry.get_module("d1", "m1")
    keys = module.authentication.symmetric_key
    module.managed_by = "me"
    written = registry.protocol.modules.create_or_update_identity("d1", "m1", module, '"%s"' % module.etag)
    assert written.managed_by == "me", written
    updated = registry.update_module_with_sas(
        "d1", "m1", "you", written.etag, keys.primary_key, keys.secondary_key
    )
    assert updated.managed_by == "you", updated

    done = registry.bulk_create_or_update_devices(
        [ExportImportDevice(id="d1", import_mode="createOrUpdate", status="enabled", status_reason="by bulk")]
    )
    assert done.is_successful, done


main()
