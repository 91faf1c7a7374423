#!/usr/bin/env bash
# Builds the image of an agent with Docker, Podman or Buildah, whichever there is, and tries it.
#
#   docker/build-image.sh [--tag NAME] [--base debian] [--try] [-- OPTIONS OF THE BUILD]
#
# --base debian  makes the base of Debian's packages (debootstrap), for a machine that reaches no image registry; as
#                root. Certificates below $CERTIFICATES, by default those this machine was given, are trusted in it.
# --try          runs `demo` and a start in it, as a confined pod would: nothing can be written but /state and /tmp, the
#                user has no name, no home and no rights; then says what that took.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -nE 's/^version = "(.*)"/\1/p' pyproject.toml)
tag="flagstream:$version" base="" try=""
while [ $# -gt 0 ]; do
    case $1 in
        --tag) tag=$2; shift 2 ;;
        --base) base=$2; shift 2 ;;
        --try) try=yes; shift ;;
        --) shift; break ;;
        *) sed -nE '2,/^set/{s/^# ?//p}' "$0"; exit 2 ;;
    esac
done

say() { printf '%s\n' "$*" >&2; }
has() { command -v "$1" > /dev/null; }
elapsed() { echo $(($(date +%s) - $1)); }

engine=""
if has docker && docker info > /dev/null 2>&1; then engine=docker
elif has podman; then engine=podman
elif has buildah; then engine=buildah
else
    say "no Docker engine answers, and there is neither Podman nor Buildah: apt-get install buildah podman crun"
    exit 3
fi
# Where a kernel or a sandbox has no overlay, or no namespaces to give: STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot
say "$engine builds $tag"

make_base() {
    has debootstrap || { say "--base debian needs debootstrap: apt-get install debootstrap"; exit 3; }
    local folder; folder=$(mktemp -d)
    say "making a base of Debian's packages"
    debootstrap --variant=minbase bookworm "$folder/root" > "$folder/log" 2>&1 || { tail "$folder/log" >&2; exit 3; }
    mkdir -p "$folder/root/usr/local/share/ca-certificates"
    cp "${CERTIFICATES:-/usr/local/share/ca-certificates}"/*.crt "$folder/root/usr/local/share/ca-certificates/" 2> /dev/null || true
    rm -rf "$folder"/root/var/cache/apt/archives/*.deb "$folder"/root/var/lib/apt/lists/*
    tar -C "$folder/root" -cf "$folder/base.tar" .
    case $engine in
        docker | podman) "$engine" import "$folder/base.tar" localhost/flagstream-base:bookworm > /dev/null ;;
        buildah)
            local made; made=$(buildah from scratch)
            buildah add --quiet "$made" "$folder/base.tar" / > /dev/null
            buildah commit --quiet --rm "$made" localhost/flagstream-base:bookworm > /dev/null ;;
    esac
    rm -rf "$folder"
}

options=(--file docker/Dockerfile --tag "$tag" --build-arg "VERSION=$version")
options+=(--build-arg "REVISION=$(git rev-parse HEAD 2> /dev/null || echo unknown)")
# What Docker names itself; health checks are no part of the other format.
[ "$engine" = docker ] || options+=(--format docker)
for name in PIP_INDEX_URL PIP_FIND_LINKS; do
    [ -z "${!name:-}" ] || [ -e "${!name}" ] || options+=(--build-arg "$name=${!name}")
done
case $base in
    "") ;;
    debian) make_base; options+=(--build-arg BASE=localhost/flagstream-base:bookworm) ;;
    *) options+=(--build-arg "BASE=$base") ;;
esac
began=$(date +%s)
"$engine" build "${options[@]}" "$@" .
say "built in $(elapsed "$began") s"
[ -n "$try" ] || exit 0
exec docker/try-image.sh "$engine" "$tag"
