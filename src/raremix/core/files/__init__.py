"""The only code of raremix that writes files.

Every write is atomic and durable: a temporary file beside the target, flush, fsync, replace, fsync of the folder.
Whatever is found under its final name is therefore whole. Folders are committed by one rename. The few calls that
change the disk go through `DISK`, so that tests can drop unsynced writes, fill the disk or pull the plug.
"""

from raremix.core.files.claims import BEAT, claim
from raremix.core.files.disk import Disk
from raremix.core.files.folders import MANIFEST, atomic_folder, hash_file, remove_folder, seal, verify
from raremix.core.files.names import file_name
from raremix.core.files.records import TORN, append_record, hash_value, read_json, read_records, sync, write_records
from raremix.core.files.temporary import TEMP_MARK, sweep
from raremix.core.files.writing import (
    folder,
    remove_file,
    secret,
    stream_array,
    write_bytes,
    write_csv,
    write_image,
    write_json,
    write_parquet,
    write_resumable,
    write_tensors,
    write_text,
    write_with,
)

DISK = Disk()
"""Looked up here by every module of this package, at every call: what stands in its place is used by all."""

__all__ = [
    "BEAT",
    "DISK",
    "MANIFEST",
    "TEMP_MARK",
    "TORN",
    "Disk",
    "append_record",
    "atomic_folder",
    "claim",
    "file_name",
    "folder",
    "hash_file",
    "hash_value",
    "read_json",
    "read_records",
    "remove_file",
    "remove_folder",
    "seal",
    "secret",
    "stream_array",
    "sweep",
    "sync",
    "verify",
    "write_bytes",
    "write_csv",
    "write_image",
    "write_json",
    "write_parquet",
    "write_records",
    "write_resumable",
    "write_tensors",
    "write_text",
    "write_with",
]
