# CPU by default; docs/cluster.md has the command for GPUs. Not built by a test: its steps are.
ARG BASE=ubuntu:24.04
FROM ${BASE}
# Where torch comes from: this index has it without CUDA, https://pypi.org/simple with its own.
ARG WHEELS=https://download.pytorch.org/whl/cpu
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml README.md LICENSE /opt/vlmteach/
COPY vlmteach /opt/vlmteach/vlmteach
COPY callbacks /opt/vlmteach/callbacks
COPY configs /opt/vlmteach/configs
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install --no-cache-dir --extra-index-url ${WHEELS} /opt/vlmteach
ENV PATH=/opt/venv/bin:$PATH
WORKDIR /data
ENTRYPOINT ["vlmteach"]
