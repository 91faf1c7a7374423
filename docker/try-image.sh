#!/usr/bin/env bash
# Tries an image as a confined pod would run it: `docker/try-image.sh ENGINE IMAGE`, ENGINE one of docker, podman, buildah.
#
# Nothing can be written but /state and /tmp; the user is 10001, without a name, a home or rights. Buildah has no way to
# run an image so: its root is mounted read-only in namespaces of its own instead. ENGINE_OPTIONS and RUN_OPTIONS are
# for machines that need some, such as ENGINE_OPTIONS="--runtime runc" RUN_OPTIONS="--network host".
set -euo pipefail
engine=$1 image=$2
state=$(mktemp -d)
chmod 0777 "$state"

tmpfs=""
# Podman would add folders in memory that can be written.
[ "$engine" != podman ] || tmpfs=--read-only-tmpfs=false

say() { printf '%s\n' "$*" >&2; }
now() { date +%s%N; }
fail() { say "$*"; exit 1; }

in_namespaces() {
    local container root ended=0
    container=$(buildah from "$image")
    root=$(buildah mount "$container")
    # shellcheck disable=SC2016  # expanded by the inner shell
    unshare --mount --pid --fork --kill-child --ipc --uts sh -euc '
        root=$1 state=$2; shift 2
        mount --make-rprivate /
        mount --bind "$root" "$root"
        mount -t tmpfs -o size=1g,mode=1777 tmpfs "$root/tmp"
        mount --bind "$state" "$root/state"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        touch "$root/etc/resolv.conf" 2> /dev/null || true
        # As every engine has it.
        echo "127.0.0.1 localhost" > "$state/.hosts"
        mount --bind "$state/.hosts" "$root/etc/hosts"
        mount -o remount,ro,bind "$root"
        exec chroot "$root" setpriv --reuid 10001 --regid 10001 --clear-groups --no-new-privs \
            /usr/bin/env -i $(cat "$state/.environment") HOME=/ "$@"
    ' sh "$root" "$state" "$@" || ended=$?
    buildah rm "$container" > /dev/null
    return "$ended"
}

# confined ENTRYPOINT ARGUMENTS…
confined() {
    case $engine in
        docker | podman)
            local entry=$1; shift
            "$engine" ${ENGINE_OPTIONS:-} run --rm --no-healthcheck --read-only $tmpfs --user 10001:10001 --cap-drop all --security-opt no-new-privileges \
                --tmpfs /tmp:size=1g,mode=1777,exec --volume "$state:/state" --entrypoint "$entry" \
                ${RUN_OPTIONS:-} "$image" "$@" ;;
        buildah) in_namespaces "$@" ;;
    esac
}

if [ "$engine" = buildah ]; then
    buildah inspect --type image --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$image" > "$state/.environment"
fi

say "what can be written, who it is, what compiles"
confined sh -c '
    for each in / /opt/flagstream /usr/local /var/tmp /etc "${HOME:-/}"; do
        if [ -w "$each" ]; then echo "$each can be written"; exit 1; fi
    done
    [ "$(id -u)" = 10001 ] || { echo "runs as $(id -u)"; exit 1; }
    for each in gcc cc g++ clang make javac pip pip3; do
        if command -v "$each"; then echo "$each is there"; exit 1; fi
    done
    test -s /opt/flagstream/sbom.cdx.json'

say "the machine, by doctor"
confined flagstream doctor || fail "doctor finds fault"

say "demo"
confined tini -- flagstream demo --seconds 20 --llm none --json > "$state/demo.json" || fail "demo failed"
grep -q '"events": *4000' "$state/demo.json" || { cat "$state/demo.json" >&2; fail "demo did not count its 4,000 payments"; }

say "from the start of a container to its first alert"
cat > "$state/spec.yaml" <<END
name: tried
version: 1.0.0
data_sources: {transactions: {contract: simulator, topic: transactions}}
threshold: 0.995
rules: [{name: some, when: amount > 100, severity: low, reason: for a figure}]
alerts: {topic: alerts}
END
confined flagstream simulate --rate 1000 --seconds 2 > "$state/simulated" 2>&1 || { cat "$state/simulated" >&2; fail "simulate failed"; }
began=$(now) first=""
while read -r line; do
    case $line in *'"start"'*) first=${first:-$(now)}; start=$line ;; esac
done < <(confined tini -- flagstream run --spec /state/spec.yaml --llm none --until-idle --warm --json)
[ -n "$first" ] || fail "run closed no batch"
alerts=$(confined flagstream alerts --spec /state/spec.yaml --json | wc -l)
[ "$alerts" -gt 0 ] || fail "no alert"
if [ -d "$state/kernels" ] && find "$state/kernels" -type f | grep -q .; then
    fail "kernels were compiled anew: $(find "$state/kernels" -type f | wc -l) files"
fi
say "first alert after $(((first - began) / 1000000)) ms, of $alerts alerts; $start"
rm -rf "$state" 2> /dev/null || true
