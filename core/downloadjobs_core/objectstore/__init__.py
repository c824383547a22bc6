"""Object storage: the protocol, the real adapter for S3, and its stand-ins.

`protocol.py` says what the project needs. `s3.py` is the one for production;
`memory.py` has the same rules in memory, for tests; `folder.py` is the mock
storage for trying things out without a server.
"""
