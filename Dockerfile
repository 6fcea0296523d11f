# syntax=docker/dockerfile:1
# The operator's image: one static binary and the CA certificates. No shell, no package manager, no
# user but 65532.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --sbom=true --provenance=mode=max \
#     --build-arg SOURCE_DATE_EPOCH="$(git log -1 --format=%ct)" \
#     --output type=image,rewrite-timestamp=true .
#
# The same source over the same base gives the same layers: versions are locked, and neither paths
# nor times are recorded.

# As in rust-toolchain.toml.
ARG RUST_VERSION=1.95.0

# aws-lc and SQLite are C, compiled for the machine that runs: each platform builds natively, or
# under emulation.
FROM rust:${RUST_VERSION}-bookworm AS build
# BuildKit's scanner finds the crates in this stage, in Cargo.lock: the last one has none to look at.
ARG BUILDKIT_SBOM_SCAN_STAGE=true
ARG SOURCE_DATE_EPOCH
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /src
ENV CARGO_INCREMENTAL=0 \
    CFLAGS="-ffile-prefix-map=/usr/local/cargo=cargo" \
    RUSTFLAGS="-C target-feature=+crt-static --remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"

# The target is named to Cargo, for then the flags are not those of build scripts and procedural
# macros, which cannot be static.
RUN rustc -vV | sed -n 's/^host: //p' > /target

# Dependencies change seldom: they have a layer of their own, compiled for a crate without code.
# Cargo asks for the benchmarks that Cargo.toml names, without compiling them.
COPY Cargo.toml Cargo.lock ./
COPY benches ./benches
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cargo build --release --locked --bin ecr-audit --target "$(cat /target)" \
    && rm -r src

# Cargo goes by the times of files, and the checkout's may be older than the empty crate's.
COPY templates ./templates
COPY src ./src
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin ecr-audit --target "$(cat /target)"

# What the image holds. A program that asks for an interpreter is not static, and would not start.
# Without nsswitch.conf, glibc would ask DNS before the pod's hosts file.
RUN install -D "target/$(cat /target)/release/ecr-audit" /image/usr/local/bin/ecr-audit \
    && { ! readelf --program-headers /image/usr/local/bin/ecr-audit | grep INTERP; } \
    && install -D --mode=0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && install --directory --mode=1777 /image/tmp

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="ecr-audit-operator" \
      org.opencontainers.image.description="Joins what Amazon ECR writes to AWS CloudTrail to the Pods that run" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /image/ /
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/ecr-audit"]
CMD ["run"]
