# docker build -t sam-lungs .    docs/running.md says how to use it.
FROM python:3.12-slim

# For NVIDIA GPUs: --build-arg SETUP_OPTIONS=
ARG SETUP_OPTIONS=--cpu

WORKDIR /sam-lungs
# First what the environment is made from, so that other changes do not install it again.
COPY scripts/project.sh scripts/setup.sh scripts/
COPY requirements.txt ./
RUN scripts/setup.sh $SETUP_OPTIONS
COPY . .

# A user id of the host has no home folder here.
ENV HOME=/tmp
ENTRYPOINT ["/sam-lungs/.venv/bin/python"]
