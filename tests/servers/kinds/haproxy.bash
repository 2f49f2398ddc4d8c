# An HAProxy before each server that the environment names, which cuts connections that were idle for two seconds: start the
# servers first. PROXIED_MYSQL_URL leads through it to MYSQL_URL, and so on.

proxied=(POSTGRES_URL POSTGRES18_URL MYSQL_URL REDIS_URL VALKEY_URL)
variables=("${proxied[@]/#/PROXIED_}")
by_name_only=1

install() {
    install_for haproxy haproxy
}

launch() {
    local name url before server port
    : >"$folder/exports"
    for name in "${proxied[@]}"; do
        url="${!name:-}"
        [ -n "$url" ] || continue
        port="$(free_port)"
        before="${url%%127.0.0.1:*}"
        server="${url#"$before"127.0.0.1:}"
        server="${server%%/*}"
        haproxy_before "$port" 2s "$server"
        wait_until haproxy_listens "$port"
        echo "PROXIED_$name=${url/127.0.0.1:$server/127.0.0.1:$port}" >>"$folder/exports"
    done
}

haproxy_listens() {
    exec 3<>"/dev/tcp/127.0.0.1/$1" && exec 3<&-
}
