"""What every integration test may ask for: the session's servers."""

from __future__ import annotations

from support_servers import minio, seaweedfs, valkey, valkey_server

__all__ = ["minio", "seaweedfs", "valkey", "valkey_server"]
