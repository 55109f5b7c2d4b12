"""Bootstrap: the only place that wires services to stores, and starts and stops a server.

    keyturn serve -> `serving.serve`
        parent   settings -> log -> lock of the data folder -> `preparation.prepare` (folder, schema, root key,
                 first start) -> granian -> drains its workers when told to stop
        worker   `serving.Worker` (ASGI) -> `application.open_application` -> register, load, confirm -> serve

`application` holds everything a worker has, by name; `observation` is what its health checks and metrics say.
"""
