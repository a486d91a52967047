"""A version is read as it was when it was looked up, or not at all."""

import msgspec
import pyarrow as pa
import pytest

from fan_identity.domain.imports import ImportKind, Pointer, State, VersionRecord, bucket_of
from fan_identity.io.active_clusters import ActiveClusters
from fan_identity.io.backends import Backends
from fan_identity.io.errors import BackendUnavailableError, UsageError
from fan_identity.io.import_versions import ImportVersions, Part
from fan_identity.io.settings import load_settings

RECORD = VersionRecord("v1", ImportKind.CLUSTER, State.ACTIVE, ("f.csv",), "0" * 64, 1)


def test_a_version_deleted_while_it_is_read_is_an_error(tmp_path):
    backends = Backends.of_tables(load_settings(store=f"sqlite:///{tmp_path}/fans.db"), writes_cache=False)
    versions = ImportVersions(backends.open_table(), ImportKind.CLUSTER)
    with pytest.raises(UsageError, match="no active cluster version; leave --previous out the first time"):
        ActiveClusters.of(backends)
    versions.save(RECORD)
    bucket = bucket_of("a")
    versions.put_bucket(
        "v1", Part.FANS, bucket, pa.table({"user": ["a"], "value": ["c1"], "updatedAt": [1], "size": [2]})
    )
    versions.move(Pointer(), "v1", 1)
    active = ActiveClusters.of(backends)
    assert active.version == "v1"
    assert active.assignments(bucket) == (["a"], ["c1"])
    assert active.assignments((bucket + 1) % 256) == ([], [])
    active.check()
    versions.save(msgspec.structs.replace(RECORD, state=State.DELETING))
    for _ in range(2):
        with pytest.raises(BackendUnavailableError, match="version v1 was deleted while it was read"):
            active.check()
        versions.forget("v1")
    versions.move(versions.pointer(), None, 2)
    with pytest.raises(UsageError, match="no active cluster version"):
        ActiveClusters.of(backends)
