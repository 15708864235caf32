# Serves the web page.
# The base is named with its digest by who builds: --build-arg BASE=python:3.11.14-slim-bookworm@sha256:...
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS packages
WORKDIR /build
RUN python -m venv --without-pip /site
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY marquee marquee
# In the versions that are tested; only the services have files of hashes.
RUN pip --python /site/bin/python install --no-cache-dir --only-binary :all: --constraint constraints.txt '.[web]'

FROM ${BASE}
ARG REVISION=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="marquee-web" \
      org.opencontainers.image.description="Serves the web page." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PATH=/site/bin:${PATH}
WORKDIR /app
COPY --from=packages /site /site
COPY clients clients
COPY LICENSE NOTICE ./
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["python", "-m", "clients.web"]
