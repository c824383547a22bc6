"""The worker: a Huey consumer that bundles files into zips under a lease."""
