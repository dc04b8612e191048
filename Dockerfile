# docker build --tag mgm .
# docker run --rm --gpus all -v $PWD/results:/opt/mgm/results -v $PWD/reports:/opt/mgm/reports mgm make reproduce
FROM debian:bookworm-slim

RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends ca-certificates g++ git make python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*

COPY . /opt/mgm
WORKDIR /opt/mgm
RUN git config --system --add safe.directory /opt/mgm && make setup && rm -rf /root/.cache

ENV PATH=/opt/mgm/.venv/bin:$PATH
CMD ["make"]
