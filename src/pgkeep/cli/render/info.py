"""What a manifest says of its backup, as JSON: `backup` must not wait for all that `list` needs besides."""

from __future__ import annotations

from typing import Any

from pgkeep.format.manifest import ManifestInfo
from pgkeep.values.lsn import Lsn


def info_json(info: ManifestInfo) -> dict[str, Any]:
    """What a manifest says of its backup; sizes in bytes."""
    return {
        "label": info.label,
        "started": info.started,
        "stopped": info.stopped,
        "host": info.host,
        "system_id": str(info.system_id),
        "server_version": info.server_version,
        "timeline": info.timeline,
        "start_lsn": str(Lsn(info.start_lsn)),
        "stop_lsn": str(Lsn(info.stop_lsn)),
        "source": info.source,
        "method": info.method,
        "method_reason": info.method_reason or None,
        "base": info.base,
        "logical_bytes": info.logical_bytes,
        "stored_bytes": info.stored_bytes,
        "pages": info.pages,
        "pages_changed": info.pages_changed,
        "files": info.files,
        "bad_pages": info.bad_pages,
    }
