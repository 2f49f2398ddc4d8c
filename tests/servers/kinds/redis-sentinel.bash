# A Redis primary with a replica, and three Sentinels that let the replica take over.

# shellcheck source=tests/servers/kinds/redis.bash
. "$here/kinds/redis.bash"
variables=(REDIS_SENTINEL_URL)

launch() {
    local primary replica port addresses=() index
    primary="$(free_port)"
    replica="$(free_port)"
    server_of_pair primary --port "$primary"
    wait_until redis_answers "$primary"
    server_of_pair replica --port "$replica" --replicaof 127.0.0.1 "$primary"
    for index in 1 2 3; do
        port="$(free_port)"
        addresses+=("127.0.0.1:$port")
        unprivileged_folder "$folder/sentinel-$index"
        cat >"$folder/sentinel-$index/sentinel.conf" <<CONF
port $port
bind 127.0.0.1
dir $folder/sentinel-$index
sentinel monitor tokens 127.0.0.1 $primary 2
sentinel down-after-milliseconds tokens 1000
sentinel failover-timeout tokens 3000
CONF
        [ "$(id -u)" -ne 0 ] || chown nobody "$folder/sentinel-$index/sentinel.conf"
        background "sentinel-$index.log" "$(find_program "${REDIS_SERVER:-redis-server}")" \
            "$folder/sentinel-$index/sentinel.conf" --sentinel
        wait_until redis_answers "$port"
    done
    wait_until replica_is_up "$replica"
    echo "REDIS_SENTINEL_URL=redis+sentinel://$(IFS=,; echo "${addresses[*]}")/tokens" >"$folder/exports"
}

server_of_pair() {
    local name="$1"
    shift
    unprivileged_folder "$folder/$name"
    background "$name.log" "$(find_program "${REDIS_SERVER:-redis-server}")" --bind 127.0.0.1 --dir "$folder/$name" \
        --save '' --appendonly yes --appendfsync always --repl-diskless-sync-delay 0 "$@"
}

replica_is_up() {
    exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'INFO replication\r\nQUIT\r\n' >&3 && timeout 5 cat <&3 |
        grep -q 'master_link_status:up'
}
