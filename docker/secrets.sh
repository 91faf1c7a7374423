#!/bin/sh
# Makes docker/.env, the keys of compose.yaml: random ones, each once. One that an earlier version has made keeps its
# keys and is given those that came since. Nobody but you can read it, git ignores it.
set -eu
cd "$(dirname "$0")"

random() { od -An -N"$1" -tx1 /dev/urandom | tr -d ' \n'; }

umask 077
if [ -e .env ]; then
    cat .env > .env.new
    [ -z "$(tail -c 1 .env.new)" ] || echo >> .env.new
else
    echo "# Keys of docker/compose.yaml, made by docker/secrets.sh. Never commit it." > .env.new
fi
made=""
while read -r name bytes; do
    # A name without a value is one that compose refuses.
    if ! grep -Eq "^(export )?$name=." .env.new; then
        echo "$name=$(random "$bytes")" >> .env.new
        made="$made $name"
    fi
done <<END
AWS_ACCESS_KEY_ID 10
AWS_SECRET_ACCESS_KEY 20
FLAGSTREAM_AUDIT_KEY 32
FLAGSTREAM_PSEUDONYM_KEY 32
GRAFANA_ADMIN_PASSWORD 12
END
if [ -z "$made" ]; then
    rm .env.new
    echo "docker/.env is there: nothing to do"
else
    mv .env.new .env
    echo "made in docker/.env:$made"
fi
