# syntax=docker/dockerfile:1
# One static-enough binary on a base without a shell. Build: docker build -t gatepost .
# Run:   docker run -p 8080:8080 -v gatepost-data:/data gatepost

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p gatepost \
    && install -D -m 0755 target/release/gatepost /out/gatepost \
    && install -d -m 0700 /out/data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/gatepost /usr/bin/gatepost
# The folder with the store and its keys: private, and owned by who runs.
COPY --from=build --chown=nonroot:nonroot --chmod=0700 /out/data /data
USER nonroot
# Where gatepost looks for its settings by itself: every command run in here finds the same folder.
COPY packaging/container.toml /etc/gatepost/gatepost.toml
WORKDIR /etc/gatepost
VOLUME ["/data"]
EXPOSE 8080
# Alive: GET /healthz; ready: GET /readyz. There is no shell here for a HEALTHCHECK to run in; orchestrators
# probe over HTTP.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/gatepost"]
CMD ["serve"]
