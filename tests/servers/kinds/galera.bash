# A Galera cluster of three MariaDB nodes with one password, and an HAProxy before them that takes them in turn. GALERA_URL
# leads to the proxy, GALERA_NODE_URLS to each node.
#
# All nodes start from copies of one empty database. None is ever sent a whole copy, which would take scripts of
# the package `mariadb-server`: a node that was killed gets what it missed from the others' caches (IST).

variables=(GALERA_URL GALERA_NODE_URLS)
by_name_only=1

install() {
    install_for mariadbd mariadb-server-core
    install_for mariadb mariadb-client-core
    install_for haproxy haproxy
    install_for "$galera_provider" galera-4
}

galera_provider=/usr/lib/galera/libgalera_smm.so

launch() {
    local password index ports=() peers=() urls=() cluster first=(--wsrep-new-cluster)
    password="$(password)"
    galera_database "$password"
    for index in 0 1 2; do
        ports+=("$(free_port)")
        peers+=("127.0.0.1:$(free_port)")
    done
    cluster="gcomm://$(IFS=,; echo "${peers[*]}")"
    for index in 0 1 2; do
        galera_node "$index" "${ports[$index]}" "${peers[$index]}" "$cluster" ${first[@]+"${first[@]}"}
        first=()
        wait_until galera_is_ready "${ports[$index]}" "$password"
        urls+=("mysql://oauth_dance:$password@127.0.0.1:${ports[$index]}/oauth_dance?ssl-mode=DISABLED")
    done
    # The first node, started again, joins the others.
    sed -i 's/ --wsrep-new-cluster//' "$folder/commands"

    local proxy
    proxy="$(free_port)"
    haproxy_before "$proxy" 1h "${ports[@]}"
    wait_until galera_is_ready "$proxy" "$password"
    {
        echo "GALERA_URL=mysql://oauth_dance:$password@127.0.0.1:$proxy/oauth_dance?ssl-mode=DISABLED"
        echo "GALERA_NODE_URLS=${urls[*]}"
    } >"$folder/exports"
}

# The database that every node starts from, in $folder/data-0 to data-2: of a node that was alone and has stopped, so that
# each knows from where on it needs the others' writes.
galera_database() {
    local first port
    port="$(free_port)"
    unprivileged "$(find_program mariadb-install-db)" --no-defaults --datadir="$folder/data-0" \
        --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve >"$folder/install.log" 2>&1
    cat >"$folder/init.sql" <<SQL
DELETE FROM mysql.global_priv WHERE User = 'root' OR User = '';
FLUSH PRIVILEGES;
CREATE DATABASE oauth_dance;
CREATE USER oauth_dance@127.0.0.1 IDENTIFIED BY '$1';
GRANT ALL ON *.* TO oauth_dance@127.0.0.1 WITH GRANT OPTION;
SQL
    chmod 644 "$folder/init.sql"
    galera_node 0 "$port" "127.0.0.1:$(free_port)" gcomm:// --wsrep-new-cluster --init-file="$folder/init.sql"
    first="$(cat "$folder/pids")"
    wait_until galera_is_ready "$port" "$1"
    kill "$first"
    wait "$first" || true
    rm "$folder/pids" "$folder/commands" "$folder/init.sql"
    cp -a "$folder/data-0" "$folder/data-1"
    cp -a "$folder/data-0" "$folder/data-2"
}

# Starts a node: galera_node INDEX PORT PEER CLUSTER [OPTION...]
galera_node() {
    local index="$1" port="$2" peer="$3" cluster="$4"
    shift 4
    local quick='evs.keepalive_period=PT0.3S;evs.inactive_check_period=PT0.3S;evs.suspect_timeout=PT1.5S;evs.inactive_timeout=PT3S'
    background "node-$index.log" bash "$here/galera-node" "$(find_program mariadbd)" --no-defaults \
        --datadir="$folder/data-$index" --bind-address=127.0.0.1 --port="$port" --socket="$folder/socket-$index" \
        --pid-file="$folder/node-$index.pid" --skip-name-resolve --max-connections=300 \
        --innodb-buffer-pool-size=32M --innodb-log-file-size=16M --binlog-format=ROW \
        --default-storage-engine=InnoDB --innodb-autoinc-lock-mode=2 --wsrep-on=ON \
        --wsrep-provider="$galera_provider" --wsrep-cluster-name=oauth_dance --wsrep-cluster-address="$cluster" \
        --wsrep-node-name="node-$index" --wsrep-node-address="$peer" --wsrep-sst-method=ist \
        --wsrep-provider-options="gmcast.listen_addr=tcp://$peer;ist.recv_addr=127.0.0.1:$(free_port);gcache.size=64M;$quick" \
        "$@"
}

galera_is_ready() {
    "$(find_program mariadb)" --no-defaults --protocol=TCP --host=127.0.0.1 --port="$1" --user=oauth_dance \
        --password="$2" --batch --skip-column-names -e "SHOW STATUS LIKE 'wsrep_ready'" | grep -q ON
}
