# PgBouncer as Debian has it, in front of a PostgreSQL of its own: each transaction of a client runs on whichever server
# connection is free. The same PgBouncer has the database `statement_mode`, where each message does.
#   PGBOUNCER_URL           through PgBouncer
#   PGBOUNCER_IGNORING_URL  through another one, which ignores settings in the start-up message and does not reject them
#   PGBOUNCER_SERVER_URL    the PostgreSQL behind both

# shellcheck source=tests/servers/kinds/postgres.bash
. "$here/kinds/postgres.bash"
eval "postgres_$(declare -f install)"
eval "postgres_$(declare -f launch)"
variables=(PGBOUNCER_URL PGBOUNCER_IGNORING_URL PGBOUNCER_SERVER_URL)

install() {
    postgres_install
    install_for pgbouncer pgbouncer
}

launch() {
    local server password url ignoring
    postgres_launch
    server="$(sed 's/^POSTGRES_URL=//' "$folder/exports")"
    password="$(cat "$folder/password")"
    echo "\"oauth_dance\" \"$password\"" >"$folder/users.txt"
    chmod 644 "$folder/users.txt"
    url="$(pooler pgbouncer '')"
    ignoring="$(pooler ignoring 'ignore_startup_parameters = extra_float_digits, options')"
    {
        echo "PGBOUNCER_URL=$url"
        echo "PGBOUNCER_IGNORING_URL=$ignoring"
        echo "PGBOUNCER_SERVER_URL=$server"
    } >"$folder/exports"
}

# pooler NAME SETTING: starts a PgBouncer, and prints its URL.
pooler() {
    local port server_port
    port="$(free_port)"
    server_port="$(echo "$server" | sed 's/.*@127.0.0.1:\([0-9]*\).*/\1/')"
    # Few server connections, so that clients meet on them.
    cat >"$folder/$1.ini" <<INI
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
$2
INI
    chmod 644 "$folder/$1.ini"
    background "$1.log" "$(find_program pgbouncer)" "$folder/$1.ini"
    wait_until env PGPASSWORD="$password" "$(find_program psql)" \
        "host=127.0.0.1 port=$port user=oauth_dance dbname=postgres" -c 'SELECT 1' >&2
    echo "postgres://oauth_dance:$password@127.0.0.1:$port/postgres?sslmode=disable"
}
