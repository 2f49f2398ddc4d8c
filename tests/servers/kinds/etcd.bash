# Three etcd servers that form a cluster. ETCD_URL has their addresses, separated by commas.

variables=(ETCD_URL)
by_name_only=1

install() {
    install_for etcd etcd-server
}

launch() {
    local index clients=() peers=() cluster=()
    for index in 0 1 2; do
        clients+=("http://127.0.0.1:$(free_port)")
        peers+=("http://127.0.0.1:$(free_port)")
        cluster+=("node-$index=${peers[$index]}")
    done
    for index in 0 1 2; do
        unprivileged_folder "$folder/data-$index"
        background "node-$index.log" "$(find_program etcd)" --name="node-$index" --data-dir="$folder/data-$index" \
            --listen-client-urls="${clients[$index]}" --advertise-client-urls="${clients[$index]}" \
            --listen-peer-urls="${peers[$index]}" --initial-advertise-peer-urls="${peers[$index]}" \
            --initial-cluster="$(IFS=,; echo "${cluster[*]}")"
    done
    for index in 0 1 2; do
        wait_until etcd_is_healthy "${clients[$index]##*:}"
    done
    echo "ETCD_URL=$(IFS=,; echo "${clients[*]}")" >"$folder/exports"
}

# Whether the server has a leader, and can read with it.
etcd_is_healthy() {
    exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET /health HTTP/1.0\r\n\r\n' >&3 && timeout 5 cat <&3 |
        grep -q '"health":"true"'
}
