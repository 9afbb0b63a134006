# Gateway and scheduler: Python and the server lock, nothing else. Built from the repository's root:
#   docker build -f deploy/containers/server.Dockerfile --target gateway -t tidemill-gateway .
FROM python:3.11.11-slim-bookworm AS environment
COPY requirements/server.lock /tmp/
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/server.lock

FROM python:3.11.11-slim-bookworm AS base
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/tidemill tidemill \
 && install -d -o tidemill -g tidemill -m 0750 /var/lib/tidemill
COPY --from=environment /opt/venv /opt/venv
WORKDIR /app
COPY tidemill tidemill
COPY services/__init__.py services/
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TIDEMILL_HOME=/var/lib/tidemill
USER 10001:10001
VOLUME /var/lib/tidemill

FROM base AS scheduler
COPY services/scheduler services/scheduler
ENV TIDEMILL_SCHEDULER_ADDRESS=0.0.0.0:7080 TIDEMILL_SCHEDULER_HTTP_ADDRESS=0.0.0.0:7081
EXPOSE 7080 7081
CMD ["python", "-m", "services.scheduler"]

FROM base AS gateway
COPY services/gateway services/gateway
ENV TIDEMILL_GATEWAY_ADDRESS=0.0.0.0:7070 TIDEMILL_GATEWAY_HTTP_ADDRESS=0.0.0.0:7071
EXPOSE 7070 7071
CMD ["python", "-m", "services.gateway"]
