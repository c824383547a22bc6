"""The domain of downloadjobs: jobs, the queue, object storage and the zip layout.

Nothing in this package imports a web framework or a Kubernetes client.
"""

__version__ = "0.1.0"
