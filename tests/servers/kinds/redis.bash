# Redis with a password, on the disk before it acknowledges. REDIS_SERVER names another program, such as valkey-server.

variables=(REDIS_URL)

install() {
    install_for "${REDIS_SERVER:-redis-server}" redis-server
}

launch() {
    local port password
    port="$(free_port)"
    password="$(password)"
    background redis.log "$(find_program "${REDIS_SERVER:-redis-server}")" --bind 127.0.0.1 --port "$port" \
        --dir "$folder" --requirepass "$password" --save '' --appendonly yes --appendfsync always
    wait_until redis_answers "$port" "$password"
    echo "REDIS_URL=redis://:$password@127.0.0.1:$port/" >"$folder/exports"
}

# Whether a server takes commands: redis_answers PORT [PASSWORD]
redis_answers() {
    [ "$(redis_ask "$1" "${2:-}" PING)" = +PONG ]
}

# The first line that a server answers, as the protocol has it: redis_ask PORT PASSWORD COMMAND...
redis_ask() {
    local port="$1" password="$2" answer
    shift 2
    exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
    if [ -n "$password" ]; then
        printf 'AUTH %s\r\n' "$password" >&3
        read -r -t 5 answer <&3
    fi
    printf '%s\r\n' "$*" >&3
    read -r -t 5 answer <&3
    exec 3<&-
    printf '%s' "${answer%$'\r'}"
}
