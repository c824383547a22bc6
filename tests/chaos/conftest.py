"""What the tests of the harness itself may ask for; a chaos run starts servers of its own."""

from __future__ import annotations

from support_servers import valkey, valkey_server

__all__ = ["valkey", "valkey_server"]
