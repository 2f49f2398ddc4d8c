# A Redis Cluster of three primaries without replicas.

variables=(REDIS_CLUSTER_URL)

# shellcheck source=tests/servers/kinds/redis.bash
. "$here/kinds/redis.bash"
variables=(REDIS_CLUSTER_URL)

launch() {
    local ports=() port index
    for index in 0 1 2; do
        port="$(free_cluster_port)"
        ports+=("$port")
        unprivileged_folder "$folder/$index"
        background "redis-$index.log" "$(find_program "${REDIS_SERVER:-redis-server}")" --bind 127.0.0.1 --port "$port" \
            --dir "$folder/$index" --save '' --appendonly yes --appendfsync always \
            --cluster-enabled yes --cluster-node-timeout 2000
        wait_until redis_answers "$port"
    done
    redis_ask "${ports[0]}" '' CLUSTER ADDSLOTS $(seq 0 5460) >/dev/null
    redis_ask "${ports[1]}" '' CLUSTER ADDSLOTS $(seq 5461 10922) >/dev/null
    redis_ask "${ports[2]}" '' CLUSTER ADDSLOTS $(seq 10923 16383) >/dev/null
    for index in 0 1 2; do
        redis_ask "${ports[$index]}" '' CLUSTER SET-CONFIG-EPOCH $((index + 1)) >/dev/null
    done
    redis_ask "${ports[0]}" '' CLUSTER MEET 127.0.0.1 "${ports[1]}" >/dev/null
    redis_ask "${ports[0]}" '' CLUSTER MEET 127.0.0.1 "${ports[2]}" >/dev/null
    for port in "${ports[@]}"; do
        wait_until cluster_is_whole "$port"
    done
    echo "REDIS_CLUSTER_URL=redis+cluster://127.0.0.1:${ports[0]},127.0.0.1:${ports[1]},127.0.0.1:${ports[2]}" \
        >"$folder/exports"
}

# Whether every slot can be written, as this server sees it.
cluster_is_whole() {
    local info
    info="$(exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'CLUSTER INFO\r\nQUIT\r\n' >&3 && timeout 5 cat <&3)"
    grep -q 'cluster_state:ok' <<<"$info" && grep -q 'cluster_known_nodes:3' <<<"$info"
}

# A free port whose bus port, 10000 higher, is free as well.
free_cluster_port() {
    python3 - <<'PYTHON'
import random, socket
while True:
    port = random.randrange(20000, 30000)
    try:
        for candidate in (port, port + 10000):
            with socket.socket() as s:
                s.bind(("127.0.0.1", candidate))
    except OSError:
        continue
    print(port)
    break
PYTHON
}
