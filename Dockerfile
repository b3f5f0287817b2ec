# qvft on an NVIDIA GPU. Torch's wheels bring the CUDA libraries; the host needs its driver and the
# NVIDIA container toolkit.
#   docker build -t qvft .
#   docker run --rm --gpus all --user "$(id -u):$(id -g)" -v "$PWD:/data" qvft train my.yaml
FROM python:3.11.13-slim-bookworm

ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data/.home

WORKDIR /opt/qvft
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY qvft qvft
RUN pip install --constraint constraints.txt '.[plots]'

# Downloads, the feature cache and results are written under /data, which the host mounts.
RUN useradd --uid 1000 --home-dir /data/.home qvft && mkdir -p /data/.home && chown -R qvft /data
USER qvft
WORKDIR /data
ENTRYPOINT ["qvft"]
CMD ["--help"]
