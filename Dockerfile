# syntax=docker/dockerfile:1
# The server on CPU. It needs no torch; --build-arg EXTRAS=console,images,train adds it for training and calibration.

FROM python:3.11-slim-bookworm AS build
ARG EXTRAS=console,images
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY .ci/constraints.txt .ci/
COPY pyproject.toml README.md LICENSE ./
COPY models models
COPY service service
COPY loadtest loadtest
ENV PIP_CONSTRAINT=/source/.ci/constraints.txt PIP_BUILD_CONSTRAINT=/source/.ci/constraints.txt PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 SLUICE_REQUIRE_KERNELS=1
RUN python -m venv /opt/sluice && /opt/sluice/bin/pip install ".[${EXTRAS}]"

FROM python:3.11-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/sluice --create-home sluice
COPY --from=build /opt/sluice /opt/sluice
ENV PATH=/opt/sluice/bin:$PATH PYTHONUNBUFFERED=1 SLUICE_HOST=0.0.0.0 SLUICE_PORT=8000 SLUICE_HOME=/var/lib/sluice
USER sluice
WORKDIR /var/lib/sluice
VOLUME /var/lib/sluice
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f'http://127.0.0.1:{os.environ[\"SLUICE_PORT\"]}/v2/health/ready', timeout=2)"]
ENTRYPOINT ["sluice"]
CMD ["serve"]
