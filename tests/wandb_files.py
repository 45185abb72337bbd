"""W&B's offline files, read back."""

import json
import struct


def wandb_records(path):
    """The protobuf records of an offline run: LevelDB blocks of 32 KiB after a 7-byte header."""
    from wandb.proto import wandb_internal_pb2

    new_record = getattr(wandb_internal_pb2, "Record")  # noqa: B009  (made at import)
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    offset, pieces = 7, []
    while offset + 7 <= len(data):
        left = 32768 - offset % 32768
        if left < 7:
            offset += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, offset)
        if kind == 0:
            break
        pieces.append(data[offset + 7 : offset + 7 + length])
        offset += 7 + length
        if kind in (1, 4):  # a full record, or the last piece of one
            record = new_record()
            record.ParseFromString(b"".join(pieces))
            pieces = []
            yield record


def wandb_runs(folder):
    """Name of a run -> its group, what it logged, and the artifacts whose files it waits with."""
    runs = {}
    for path in folder.glob("offline-run-*/*.wandb"):
        run = {"path": path.parent, "group": None, "history": [], "artifacts": []}
        name = None
        for record in wandb_records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name or name
                run["group"] = record.run.run_group or run["group"]
            elif kind == "history":
                items = record.history.item
                run["history"].append(
                    {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                )
            elif kind == "request" and record.request.HasField("log_artifact"):
                run["artifacts"].append(record.request.log_artifact.artifact)
            elif kind == "artifact":
                run["artifacts"].append(record.artifact)
        runs[name] = run
    return runs
