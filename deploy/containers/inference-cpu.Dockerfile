# Inference on CPU (x86-64 with AVX2). Built from the repository's root:
#   docker build -f deploy/containers/inference-cpu.Dockerfile -t tidemill-inference-cpu .
FROM python:3.11.11-slim-bookworm AS environment
COPY requirements/cpu.lock requirements/cpu-torch.lock /tmp/
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps --index-url https://download.pytorch.org/whl/cpu -r /tmp/cpu-torch.lock \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r /tmp/cpu.lock

FROM python:3.11.11-slim-bookworm
# g++ is for TIDEMILL_INFERENCE_COMPILE=true, libnuma for vLLM's thread binding.
RUN apt-get update && apt-get install -y --no-install-recommends g++ libnuma1 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --no-create-home --home-dir /var/lib/tidemill tidemill \
 && install -d -o tidemill -g tidemill -m 0750 /var/lib/tidemill
COPY --from=environment /opt/venv /opt/venv
# Where login shells look, as KubeRay's do.
RUN ln -s /opt/venv/bin/ray /usr/local/bin/ray
WORKDIR /app
COPY tidemill tidemill
COPY services/__init__.py services/
COPY services/inference services/inference
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/var/lib/tidemill \
    TIDEMILL_HOME=/var/lib/tidemill TIDEMILL_INFERENCE_HTTP_ADDRESS=0.0.0.0:7091 TIDEMILL_INFERENCE_ENGINE=cpu \
    RAY_USAGE_STATS_ENABLED=0 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
USER 10001:10001
VOLUME /var/lib/tidemill
EXPOSE 7091
CMD ["python", "-m", "services.inference"]
