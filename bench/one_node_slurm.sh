#!/usr/bin/env bash
# Starts SLURM with this machine as its only node, to try hydra/launcher=slurm where there is no cluster, and stops it:
#   apt-get install slurmctld slurmd slurm-client munge      (Debian, Ubuntu)
#   bench/one_node_slurm.sh start <empty folder>; export SLURM_CONF=<folder>/slurm.conf
#   bench/one_node_slurm.sh stop <folder>
# Run it as root. All its files are in the folder, its ports are on loopback alone, and no service of the system is
# touched. There are no accounts (sacct), no control groups, and no limit on memory.
set -euo pipefail
folder=$(realpath -m "${2:?a folder}")
export SLURM_CONF=$folder/slurm.conf

start() {
  mkdir -p "$folder/state" "$folder/spool"
  head -c 128 /dev/urandom >"$folder/munge.key"
  chmod 400 "$folder/munge.key"
  munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --log-file="$folder/munged.log" \
    --pid-file="$folder/munged.pid" --seed-file="$folder/munged.seed"
  # RealMemory leaves a tenth of the memory to the system
  cat >"$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=localhost
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CryptoType=crypto/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ReturnToService=2
KillWait=30
NodeName=localhost NodeHostname=$(hostname -s) CPUs=$(nproc) RealMemory=$(awk '/MemTotal/ {print int($2 / 1138)}' /proc/meminfo)
PartitionName=main Nodes=ALL Default=YES State=UP
CONF
  slurmctld
  slurmd -N localhost
  for _ in $(seq 30); do
    if sinfo --noheader --format=%T 2>/dev/null | grep -q idle; then
      sinfo
      return
    fi
    sleep 1
  done
  tail -n 20 "$folder"/slurm*.log
  return 1
}

stop() {
  for daemon in slurmd slurmctld munged; do
    [ ! -f "$folder/$daemon.pid" ] || kill "$(cat "$folder/$daemon.pid")" || true
  done
}

case ${1:-} in
  start | stop) "$1" ;;
  *) echo "start or stop" >&2; exit 2 ;;
esac
