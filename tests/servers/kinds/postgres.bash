# PostgreSQL with TLS and passwords, durable as it comes. The URL asks for no TLS, and the server for the password as it is:
# a handshake and the 4096 rounds of SCRAM take a debug build long. Tests of TLS change the URL.

variables=(POSTGRES_URL)

install() {
    install_for initdb postgresql
    install_for openssl openssl
}

launch() {
    local port password tls
    port="$(free_port)"
    password="$(password)"
    certificate
    echo "$password" >"$folder/password"
    chmod 644 "$folder/password"
    unprivileged "$(find_program initdb)" --pgdata="$folder/data" --username=oauth_dance --pwfile="$folder/password" \
        --auth=password --encoding=UTF8 --locale=C >"$folder/initdb.log" 2>&1
    tls=(-c ssl=on -c ssl_cert_file="$folder/server.crt" -c ssl_key_file="$folder/server.key")
    [ -z "${built_without_tls:-}" ] || tls=()
    background postgres.log "$(find_program postgres)" -D "$folder/data" \
        -c listen_addresses=127.0.0.1 -c port="$port" -c unix_socket_directories="$folder" -c max_connections=300 \
        ${tls[@]+"${tls[@]}"}
    wait_until env PGPASSWORD="$password" "$(find_program psql)" \
        "host=127.0.0.1 port=$port user=oauth_dance dbname=postgres" -c 'SELECT 1'
    echo "POSTGRES_URL=postgres://oauth_dance:$password@127.0.0.1:$port/postgres?sslmode=disable" >"$folder/exports"
}
