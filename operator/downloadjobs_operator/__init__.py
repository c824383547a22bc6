"""The operator: mirrors jobs into DownloadJobs and scales the workers."""
