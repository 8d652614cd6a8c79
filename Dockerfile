# Both images: docker build --target authority --build-arg VERSION=$(git describe --tags --always) -t revcast/authority .
FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
# Without defaults, which would hide what --platform asks for.
ARG TARGETOS
ARG TARGETARCH
RUN GOOS=$TARGETOS GOARCH=$TARGETARCH VERSION=$VERSION deploy/dist.sh

# The data directory is the process's own. It is copied with what is beside it: COPY gives an
# owner to what it finds in a directory, and not always to the directory itself.
FROM scratch AS authority
COPY --from=build /src/dist/rootfs/authority/ /
COPY --from=build --chown=65532:65532 /src/dist/rootfs/authority/var/lib/ /var/lib/
USER 65532:65532
WORKDIR /var/lib/revcast
EXPOSE 8700 4222
ENTRYPOINT ["/authority"]
CMD ["serve", "--config", "/etc/revcast/authority.yaml"]

FROM scratch AS sidecar
COPY --from=build /src/dist/rootfs/sidecar/ /
COPY --from=build --chown=65532:65532 /src/dist/rootfs/sidecar/var/lib/ /var/lib/
USER 65532:65532
WORKDIR /var/lib/revcast
EXPOSE 8710 8711 8712
ENTRYPOINT ["/sidecar"]
CMD ["serve", "--config", "/etc/revcast/sidecar.yaml"]
