# kvd in an image that holds nothing else: docker build .   or   podman build .
FROM debian:trixie-slim AS build
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
      binutils ca-certificates cmake g++ libabsl-dev libcli11-dev libcpp-httplib-dev libfmt-dev \
      libgrpc++-dev libgrpc-dev libisal-dev libjemalloc-dev libnghttp2-dev libprotobuf-dev \
      librocksdb-dev libspdlog-dev libssl-dev libyaml-cpp-dev ninja-build nlohmann-json3-dev \
      pkg-config prometheus-cpp-dev protobuf-compiler protobuf-compiler-grpc python3
WORKDIR /source
COPY CMakeLists.txt CMakePresets.json LICENSE ./
COPY proto proto
COPY storage storage
COPY server server
COPY client client
RUN cmake --preset release && ninja -C build/release kvd kvctl
COPY k8s/image.py k8s/
RUN python3 k8s/image.py root build/release/bin /image

FROM scratch
LABEL org.opencontainers.image.title="kvd" \
      org.opencontainers.image.description="A replicated key-value store that speaks the etcd v3 API" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
# Numeric, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /
ENV PATH=/usr/bin
STOPSIGNAL SIGTERM
EXPOSE 2379 2380 2381
ENTRYPOINT ["/usr/bin/kvd"]
