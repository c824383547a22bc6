"""The REST API: Falcon ASGI resources and the gunicorn process that serves them."""
