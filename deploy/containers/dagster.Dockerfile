# Dagster's webserver and daemon on Tidemill's assets; no engine. Built from the repository's root:
#   docker build -f deploy/containers/dagster.Dockerfile -t tidemill-dagster .
FROM python:3.11.11-slim-bookworm AS environment
COPY requirements/dagster.lock /tmp/
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/dagster.lock

FROM python:3.11.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/dagster tidemill \
 && install -d -o tidemill -g tidemill -m 0750 /var/lib/dagster
COPY --from=environment /opt/venv /opt/venv
WORKDIR /app
COPY tidemill tidemill
COPY dagster_defs dagster_defs
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/var/lib/dagster \
    TIDEMILL_HOME=/var/lib/dagster DAGSTER_HOME=/var/lib/dagster DAGSTER_DISABLE_TELEMETRY=1
USER 10001:10001
VOLUME /var/lib/dagster
EXPOSE 3000
CMD ["python", "-m", "dagster_defs", "webserver", "--home", "/var/lib/dagster", "--host", "0.0.0.0", "--port", "3000"]
