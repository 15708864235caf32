# Trains, and publishes bundles.
# The base is named with its digest by who builds: --build-arg BASE=python:3.11.14-slim-bookworm@sha256:...
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS packages
WORKDIR /build
RUN python -m venv --without-pip /site
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# PyTorch first, from the index that has the build for the machines: without CUDA unless told otherwise.
RUN pip --python /site/bin/python install --no-cache-dir --only-binary :all: --index-url "${TORCH_INDEX}" --no-deps torch==2.13.0
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY marquee marquee
# In the versions that are tested; the gate needs what the services need.
RUN pip --python /site/bin/python install --no-cache-dir --only-binary :all: --constraint constraints.txt '.[training,encoder,retriever]'
# implicit looks for OpenMP in the system, which the base has not; PyTorch brings one along.
RUN ln -s "$(find /site/lib -name 'libgomp*.so.1' -path '*/torch/lib/*')" /site/lib/libgomp.so.1

FROM ${BASE}
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="marquee-trainer" \
      org.opencontainers.image.description="Trains, and publishes bundles." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Without it this build of ONNX Runtime begins its maker's telemetry, and complains on stderr that it cannot store an id.
ENV ORT_DISABLE_TELEMETRY=1 \
    LD_LIBRARY_PATH=/site/lib \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/site/bin:${PATH}
WORKDIR /app
COPY --from=packages /site /site
COPY training training
COPY LICENSE NOTICE ./
USER 10001:10001
# Jobs end, and their exit code says how: there is no health to ask for.
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "training"]
