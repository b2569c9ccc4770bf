# syntax=docker/dockerfile:1
# Serves the search page of a mounted library, and indexes new videos as they come, on CPUs. See docs/docker.md.

FROM python:3.13-slim AS build
WORKDIR /build
RUN python -m venv /opt/vop
ENV PATH=/opt/vop/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY constraints.txt ./
# PyTorch without CUDA has a tenth of the usual size. PyTorch's installation page shows the address of its index of CPU
# wheels: docker build --build-arg TORCH_INDEX=ADDRESS. PyTorch rarely changes, so it has its own layer.
ARG TORCH_INDEX=""
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install --constraint constraints.txt '.[watch]'

FROM python:3.13-slim
COPY --from=build /opt/vop /opt/vop
RUN useradd --create-home --uid 1000 vop && \
    mkdir --mode 777 /cache /library && \
    mkdir /videos
ENV PATH=/opt/vop/bin:$PATH HF_HOME=/cache PYTHONUNBUFFERED=1
USER vop
WORKDIR /library
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["vop", "serve"]
CMD ["/library", "--host", "0.0.0.0"]
