# The server in a container.  Nothing is installed that requirements/server.txt does not name with its hash.

FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /opt/keyturn
COPY requirements/server.txt requirements/server.txt
RUN /opt/keyturn/bin/pip install --no-cache-dir --require-hashes -r requirements/server.txt
COPY pyproject.toml LICENSE README.md ./
COPY src src
RUN /opt/keyturn/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin keyturn \
    && install -d -o keyturn -g keyturn -m 0700 /var/lib/keyturn
COPY --from=build /opt/keyturn /opt/keyturn

# A container is reached from outside, so this address is refused until TLS is set up:
# KEYTURN_TLS_CERT and KEYTURN_TLS_KEY, or KEYTURN_TLS=terminated with KEYTURN_TRUSTED_PROXIES.
ENV PATH=/opt/keyturn/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KEYTURN_DATA=/var/lib/keyturn \
    KEYTURN_HOST=0.0.0.0 \
    KEYTURN_PORT=8700

# The data folder holds the root key unless KEYTURN_KEK_PATH says otherwise.  Losing it loses every sealed value.
VOLUME /var/lib/keyturn
EXPOSE 8700
USER 10001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; e = os.environ; r.urlopen(('https' if e.get('KEYTURN_TLS_CERT') else 'http') + '://127.0.0.1:' + e['KEYTURN_PORT'] + '/health/live', timeout=4, context=ssl._create_unverified_context())"]
ENTRYPOINT ["keyturn"]
CMD ["serve"]
