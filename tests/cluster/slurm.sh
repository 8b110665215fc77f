#!/usr/bin/env bash
# Install, start and stop a Slurm cluster of two nodes on this one machine.
#
# usage: slurm.sh install    install the packages and write the configuration
#        slurm.sh start      start what is not running; wait until both nodes are idle
#        slurm.sh stop       cancel the jobs and end the daemons this script started
#        slurm.sh status     say what runs; exit 0 if everything does
#        slurm.sh all        install, then start (quick when all is there)
#        slurm.sh --help
#
# The nodes are n1 and n2, the partition is debug. Each node offers at least 4 processors and the
# whole memory, whatever the machine has. Accounting is on (sacct). Configuration: /etc/slurm; state,
# logs and process ids: /var/lib/valska-cluster. The daemons are started by hand, without systemd.
#
# exit status: 0 done; 1 something failed, or (status) does not run; 3 this machine cannot be set up
# (not Debian, or not root): nothing was changed.
set -euo pipefail

# shellcheck source=tests/cluster/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

PACKAGES=(slurm-wlm slurm-wlm-basic-plugins slurm-client slurmdbd munge mariadb-server)
STATE=/var/lib/valska-cluster
PIDS=$STATE/pids
LOGS=$STATE/log
CONFIGURATION=/etc/slurm
MARKER="# Written by tests/cluster/slurm.sh; changes are overwritten."
DATABASE_SOCKET=$STATE/database-socket/socket
NODES=(n1 n2)
DAEMONS=(munged mariadbd slurmdbd slurmctld "${NODES[@]/#/slurmd-}")

# --- the configuration ---------------------------------------------------------------------------

# The address the machine's own name stands for.
named_address() {
    getent ahostsv4 "$(hostname)" | awk '{ print $1; exit }' || true
}

# The same, if that is a loopback address; else 127.0.0.1.
own_address() {
    local address
    address="$(named_address)"
    [[ $address == 127.* ]] || address=127.0.0.1
    echo "$address"
}

# loopback_only FILE: without this Slurm's programs listen on all addresses. It makes them listen on
# the address of the machine's name, which helps only where that is a loopback address. srun can
# listen on 127.0.0.1 alone: slurmd answers where srun seems to come from, which is never 127.0.1.1.
loopback_only() {
    case "$1 $(named_address)" in
        *" 127.0.0.1" | "slurmdbd.conf 127."*)
            echo "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny"
            ;;
        *" 127."*) echo "CommunicationParameters=NoCtldInAddrAny" ;;
    esac
}

memory_mib() {
    awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo
}

slurm_conf() {
    local host address processors
    host="$(hostname -s)"
    address="$(own_address)"
    processors="$(nproc)"
    ((processors >= 4)) || processors=4
    cat <<CONF
$MARKER
ClusterName=valska
SlurmctldHost=$host($address)
SlurmUser=slurm
$(loopback_only slurm.conf)
AuthType=auth/munge
# Also the time a requeued job waits before it starts again.
AuthInfo=cred_expire=10

StateSaveLocation=$STATE/slurmctld
SlurmdSpoolDir=$STATE/slurmd-%n
SlurmctldPidFile=$PIDS/slurmctld
SlurmdPidFile=$PIDS/slurmd-%n
SlurmctldLogFile=$LOGS/slurmctld.log
SlurmdLogFile=$LOGS/slurmd-%n.log

ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=512
ReturnToService=2
JobRequeue=1
MailProg=/bin/true

InactiveLimit=0
KillWait=5
MinJobAge=30
MessageTimeout=30
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=$address
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5

SlurmdParameters=config_overrides
NodeName=n[1-2] NodeHostname=$host NodeAddr=$address Port=[17001-17002] CPUs=$processors RealMemory=$(memory_mib)
PartitionName=debug Nodes=n[1-2] Default=YES DefaultTime=01:00:00 MaxTime=INFINITE State=UP
CONF
}

# The database lets the system user slurm in over the socket, by who it is: there is no password.
slurmdbd_conf() {
    cat <<CONF
$MARKER
DbdHost=$(hostname -s)
DbdAddr=$(own_address)
SlurmUser=slurm
AuthType=auth/munge
$(loopback_only slurmdbd.conf)
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StorageLoc=slurm_acct_db
PidFile=$PIDS/slurmdbd
LogFile=$LOGS/slurmdbd.log
CONF
}

# write_configuration FILE OWNER MODE: from standard input; another's file is never overwritten.
write_configuration() {
    local file="$1" owner="$2" mode="$3" new="$1.new"
    if [[ -s $file ]] && ! grep -qxF "$MARKER" "$file"; then
        die "$file belongs to another Slurm of this machine; use that one, or move the file away"
    fi
    (umask 077 && cat >"$new")
    chown "$owner:" "$new"
    chmod "$mode" "$new"
    mv "$new" "$file"
}

# --- install -------------------------------------------------------------------------------------

is_installed() {
    [[ -z "$(missing_packages "${PACKAGES[@]}")" ]] && grep -qsxF "$MARKER" "$CONFIGURATION/slurm.conf"
}

install() {
    apt_install "install Slurm, munge and MariaDB" "${PACKAGES[@]}"
    mkdir -p "$CONFIGURATION" "$PIDS" "$LOGS" "$STATE/slurmctld" "$STATE/database" \
        "${DATABASE_SOCKET%/*}"
    chown slurm: "$PIDS" "$LOGS" "$STATE/slurmctld"
    chown mysql: "$STATE/database" "${DATABASE_SOCKET%/*}"
    chmod 700 "$STATE/database" "$STATE/slurmctld"
    getent hosts "$(hostname)" >/dev/null || echo "127.0.0.1 $(hostname)" >>/etc/hosts
    slurm_conf | write_configuration "$CONFIGURATION/slurm.conf" root 644
    slurmdbd_conf | write_configuration "$CONFIGURATION/slurmdbd.conf" slurm 600
    [[ -s /etc/munge/munge.key ]] || step "make munge's key" runuser -u munge -- mungekey
    [[ -d $STATE/database/mysql ]] ||
        step "lay out the database" mariadb-install-db --no-defaults --user=mysql \
            --datadir="$STATE/database" --skip-test-db
}

# --- daemons -------------------------------------------------------------------------------------

# The process id of one of DAEMONS, if it is running (a stale file may name another's process).
pid_of() {
    local name="$1" pid program
    pid="$(cat "$PIDS/$name" 2>/dev/null)" && [[ $pid =~ ^[0-9]+$ ]] || return 1
    program="$(readlink "/proc/$pid/exe" 2>/dev/null)" || return 1
    [[ ${program##*/} == "${name%%-*}"* ]] || return 1
    echo "$pid"
}

is_running() {
    pid_of "$1" >/dev/null
}

# Start a daemon with an environment of its own and without this script's lock.
detached() {
    env -i PATH="$PATH" LANG=C.UTF-8 MYSQL_UNIX_PORT="$DATABASE_SOCKET" \
        setsid "$@" >>"$LOGS/start.log" 2>&1 </dev/null 9>&-
}

# wait_for SECONDS COMMAND...: until COMMAND succeeds.
wait_for() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.2
    done
}

# fail_with_log TEXT FILE...: what went wrong, and the last lines of the logs.
fail_with_log() {
    local file
    complain "$1"
    shift
    for file in "$@" "$LOGS/start.log"; do
        [[ ! -s $file ]] || { complain "the end of $file:"; tail -n 15 "$file" >&2; }
    done
    return 1
}

munge_answers() {
    munge -n </dev/null | unmunge >/dev/null
}

start_munged() {
    ! munge_answers 2>/dev/null || return 0
    mkdir -p /run/munge
    chown munge: /run/munge
    chmod 755 /run/munge
    detached runuser -u munge -- munged --force --pid-file=/run/munge/munged.pid \
        --log-file=/var/log/munge/munged.log ||
        fail_with_log "munged does not start" /var/log/munge/munged.log
    wait_for 20 munge_answers || fail_with_log "munged does not answer" /var/log/munge/munged.log
    cp /run/munge/munged.pid "$PIDS/munged"
}

database() {
    mariadb --no-defaults --socket="$DATABASE_SOCKET" --batch "$@"
}

start_mariadbd() {
    if ! is_running mariadbd; then
        touch "$LOGS/mariadbd.log"
        chown mysql: "$LOGS/mariadbd.log"
        detached --fork mariadbd --no-defaults --user=mysql --datadir="$STATE/database" \
            --socket="$DATABASE_SOCKET" --pid-file="$STATE/database/pid" --skip-networking \
            --log-error="$LOGS/mariadbd.log" --innodb-buffer-pool-size=128M \
            --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=2
    fi
    wait_for 60 database -e 'SELECT 1' ||
        fail_with_log "the database does not answer" "$LOGS/mariadbd.log"
    cp "$STATE/database/pid" "$PIDS/mariadbd"
    database -e "CREATE DATABASE IF NOT EXISTS slurm_acct_db;
        CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED VIA unix_socket;
        GRANT ALL ON slurm_acct_db.* TO slurm@localhost;"
}

cluster_is_known() {
    [[ -n "$(sacctmgr --noheader --parsable2 list cluster valska format=cluster)" ]]
}

accounting_answers() {
    sacctmgr --noheader list cluster >/dev/null
}

start_slurmdbd() {
    is_running slurmdbd || detached slurmdbd ||
        fail_with_log "slurmdbd does not start" "$LOGS/slurmdbd.log"
    wait_for 60 accounting_answers ||
        fail_with_log "slurmdbd does not answer" "$LOGS/slurmdbd.log" "$LOGS/mariadbd.log"
    cluster_is_known || sacctmgr --immediate --quiet add cluster valska >/dev/null
}

start_slurmctld() {
    is_running slurmctld || detached slurmctld ||
        fail_with_log "slurmctld does not start" "$LOGS/slurmctld.log"
    wait_for 30 scontrol ping || fail_with_log "slurmctld does not answer" "$LOGS/slurmctld.log"
}

start_slurmd() {
    local node
    for node in "${NODES[@]}"; do
        mkdir -p "$STATE/slurmd-$node"
        is_running "slurmd-$node" || detached slurmd -N "$node" ||
            fail_with_log "slurmd does not start for node $node" "$LOGS/slurmd-$node.log"
    done
}

node_states() {
    sinfo --noheader --Node --format '%N %T'
}

# A node that works is ready, too: start may be called while jobs run.
nodes_are_ready() {
    [[ "$(node_states | grep -cE ' (idle|mixed|allocated|completing)$')" == "${#NODES[@]}" ]]
}

cluster_is_ready() {
    nodes_are_ready && sacct --allusers --noheader --allocations >/dev/null
}

all_run() {
    local name
    munge_answers 2>/dev/null || return 1
    for name in "${DAEMONS[@]:1}"; do
        is_running "$name" || return 1
    done
}

is_up() {
    all_run && cluster_is_ready 2>/dev/null
}

# --- verbs ---------------------------------------------------------------------------------------

start() {
    is_installed || die "Slurm is not installed; run: $0 install"
    ! is_up || return 0
    local begin=$SECONDS
    start_munged
    start_mariadbd
    start_slurmdbd
    start_slurmctld
    start_slurmd
    wait_for 20 cluster_is_ready || scontrol update NodeName=n[1-2] State=RESUME 2>/dev/null || true
    wait_for 30 cluster_is_ready ||
        fail_with_log "the nodes are not ready: $(node_states 2>&1 | paste -sd, -)" \
            "$LOGS/slurmctld.log" "$LOGS"/slurmd-*.log "$LOGS/slurmdbd.log"
    say "Slurm runs: $(node_states | paste -sd, -) ($((SECONDS - begin)) s)"
}

no_jobs() {
    [[ -z "$(squeue --noheader)" ]]
}

cancel_jobs() {
    is_running slurmctld || return 0
    squeue --noheader --format %A | sort -u | xargs --no-run-if-empty scancel --quiet || true
    wait_for 15 no_jobs || complain "some jobs did not end"
}

stop_daemon() {
    local name="$1" pid
    pid="$(pid_of "$name")" || { rm -f "$PIDS/$name"; return 0; }
    kill "$pid"
    wait_for 30 not_running "$pid" || { complain "$name ($pid) does not end; killing it"; kill -9 "$pid"; }
    rm -f "$PIDS/$name"
    say "ended $name ($pid)"
}

not_running() {
    ! kill -0 "$1"
}

stop() {
    local index
    cancel_jobs
    for ((index = ${#DAEMONS[@]} - 1; index >= 0; index--)); do
        stop_daemon "${DAEMONS[index]}"
    done
}

status() {
    local name pid state
    is_installed || { say "Slurm is not installed by this script"; return 1; }
    for name in "${DAEMONS[@]}"; do
        if pid="$(pid_of "$name")"; then say "$name runs ($pid)"; else say "$name does not run"; fi
    done
    all_run || return 1
    node_states | while read -r name state; do say "node $name is $state"; done
    cluster_is_ready
}

install_and_start() {
    is_installed || install
    start
}

exclusively() {
    require_debian_root "${1//_/ } Slurm"
    take_lock
    "$@"
}

case "${1:---help}" in
    install) exclusively install ;;
    start) is_up || exclusively start ;;
    stop) exclusively stop ;;
    status) status ;;
    all) is_up || exclusively install_and_start ;;
    --help | -h) print_help ;;
    *) complain "unknown argument '$1'; see --help"; exit 2 ;;
esac
