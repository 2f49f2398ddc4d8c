# A PostgreSQL with a standby that follows it, and HAProxy before the first, which cuts connections that were idle for
# two seconds.
#   POSTGRES_HAPROXY_URL  through HAProxy
#   POSTGRES_STANDBY_URL  the standby

# shellcheck source=tests/servers/kinds/postgres.bash
. "$here/kinds/postgres.bash"
eval "postgres_$(declare -f install)"
eval "postgres_$(declare -f launch)"
variables=(POSTGRES_HAPROXY_URL POSTGRES_STANDBY_URL)

install() {
    postgres_install
    install_for haproxy haproxy
}

launch() {
    local primary primary_port standby_port port password
    postgres_launch
    primary="$(sed 's/^POSTGRES_URL=//' "$folder/exports")"
    primary_port="$(echo "$primary" | sed 's/.*@127.0.0.1:\([0-9]*\).*/\1/')"
    password="$(cat "$folder/password")"

    unprivileged env PGPASSWORD="$password" "$(find_program pg_basebackup)" --pgdata="$folder/standby" --checkpoint=fast \
        --write-recovery-conf --dbname="host=127.0.0.1 port=$primary_port user=oauth_dance" >"$folder/basebackup.log" 2>&1
    standby_port="$(free_port)"
    background standby.log "$(find_program postgres)" -D "$folder/standby" -c listen_addresses=127.0.0.1 \
        -c port="$standby_port" -c unix_socket_directories="$folder" -c max_connections=300
    port="$(free_port)"
    haproxy_before "$port" 2s "$primary_port"

    for server in "$standby_port" "$port"; do
        wait_until env PGPASSWORD="$password" "$(find_program psql)" \
            "host=127.0.0.1 port=$server user=oauth_dance dbname=postgres" -c 'SELECT 1'
    done
    {
        echo "POSTGRES_HAPROXY_URL=${primary/:$primary_port/:$port}"
        echo "POSTGRES_STANDBY_URL=${primary/:$primary_port/:$standby_port}"
    } >"$folder/exports"
}
