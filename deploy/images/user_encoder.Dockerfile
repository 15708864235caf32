# Turns people's events into query vectors, and keeps the events.
# The base is named with its digest by who builds: --build-arg BASE=python:3.11.14-slim-bookworm@sha256:...
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS packages
WORKDIR /build
RUN python -m venv --without-pip /site
COPY deploy/requirements/user_encoder.txt requirements.txt
RUN pip --python /site/bin/python install --no-cache-dir --require-hashes --only-binary :all: -r requirements.txt

FROM ${BASE}
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="marquee-user-encoder" \
      org.opencontainers.image.description="Turns people's events into query vectors, and keeps the events." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Without it this build of ONNX Runtime begins its maker's telemetry, and complains on stderr that it cannot store an id.
ENV ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/site/bin:${PATH}
WORKDIR /app
COPY --from=packages /site /site
COPY marquee marquee
COPY services/__init__.py services/__init__.py
COPY services/common services/common
COPY services/user_encoder services/user_encoder
COPY LICENSE NOTICE ./
USER 10001:10001
EXPOSE 50051
# Without a shell: python asks the health port that MARQUEE_HEALTH_PORT names. Kubernetes asks by itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-m", "services.common.probe"]
ENTRYPOINT ["python", "-m", "services.user_encoder"]
