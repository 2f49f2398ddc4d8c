# PgBouncer as Debian has it, in front of a PostgreSQL of its own: each transaction of a client runs on whichever server
# connection is free. The same PgBouncer has the database `statement_mode`, where each message does.
#   PGBOUNCER_URL         through PgBouncer
#   PGBOUNCER_SERVER_URL  the PostgreSQL behind it

# shellcheck source=tests/servers/kinds/postgres.bash
. "$here/kinds/postgres.bash"
eval "postgres_$(declare -f install)"
eval "postgres_$(declare -f launch)"
variables=(PGBOUNCER_URL PGBOUNCER_SERVER_URL)

install() {
    postgres_install
    install_for pgbouncer pgbouncer
}

launch() {
    local port server server_port password
    postgres_launch
    server="$(sed 's/^POSTGRES_URL=//' "$folder/exports")"
    server_port="$(echo "$server" | sed 's/.*@127.0.0.1:\([0-9]*\).*/\1/')"
    password="$(cat "$folder/password")"
    port="$(free_port)"
    echo "\"oauth_dance\" \"$password\"" >"$folder/users.txt"
    # Few server connections, so that clients meet on them.
    cat >"$folder/pgbouncer.ini" <<INI
[databases]
statement_mode = host=127.0.0.1 port=$server_port dbname=postgres pool_mode=statement
* = host=127.0.0.1 port=$server_port

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $port
unix_socket_dir =
auth_type = plain
auth_file = $folder/users.txt
pool_mode = transaction
default_pool_size = 4
max_client_conn = 1000
server_connect_timeout = 2
server_login_retry = 0.2
INI
    chmod 644 "$folder/users.txt" "$folder/pgbouncer.ini"
    background pgbouncer.log "$(find_program pgbouncer)" "$folder/pgbouncer.ini"
    wait_until env PGPASSWORD="$password" "$(find_program psql)" \
        "host=127.0.0.1 port=$port user=oauth_dance dbname=postgres" -c 'SELECT 1'
    {
        echo "PGBOUNCER_URL=postgres://oauth_dance:$password@127.0.0.1:$port/postgres?sslmode=disable"
        echo "PGBOUNCER_SERVER_URL=$server"
    } >"$folder/exports"
}
