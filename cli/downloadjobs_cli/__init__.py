"""The `downloadjobs` command and the embedded servers behind `make demo`."""
