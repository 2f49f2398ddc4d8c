# MariaDB with TLS and passwords, durable as it comes. The URL asks for no TLS, which takes a debug build long.
# MARIADB_OPTIONS has further options of the server.

variables=(MYSQL_URL)

install() {
    install_for mariadbd mariadb-server-core
    install_for mariadb mariadb-client-core
    install_for openssl openssl
}

launch() {
    local port password
    port="$(free_port)"
    password="$(password)"
    certificate
    unprivileged "$(find_program mariadb-install-db)" --no-defaults --datadir="$folder/data" \
        --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve >"$folder/install.log" 2>&1
    cat >"$folder/init.sql" <<SQL
DELETE FROM mysql.global_priv WHERE User = 'root' OR User = '';
FLUSH PRIVILEGES;
CREATE DATABASE oauth_dance;
CREATE USER oauth_dance@127.0.0.1 IDENTIFIED BY '$password';
GRANT ALL ON *.* TO oauth_dance@127.0.0.1 WITH GRANT OPTION;
SQL
    chmod 644 "$folder/init.sql"
    background mariadb.log "$(find_program mariadbd)" --no-defaults --datadir="$folder/data" --init-file="$folder/init.sql" \
        --bind-address=127.0.0.1 --port="$port" --socket="$folder/socket" --pid-file="$folder/mariadb.pid" \
        --skip-name-resolve --max-connections=300 \
        --ssl-cert="$folder/server.crt" --ssl-key="$folder/server.key" ${MARIADB_OPTIONS:-}
    wait_until "$(find_program mariadb)" --no-defaults --protocol=TCP --host=127.0.0.1 --port="$port" \
        --user=oauth_dance --password="$password" oauth_dance -e 'SELECT 1'
    # Run again at a restart it would fail.
    : >"$folder/init.sql"
    echo "MYSQL_URL=mysql://oauth_dance:$password@127.0.0.1:$port/oauth_dance?ssl-mode=DISABLED" >"$folder/exports"
}
