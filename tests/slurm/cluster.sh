#!/usr/bin/env bash
# A real Slurm of two nodes on this machine, for tests: cluster.sh up FOLDER | down FOLDER   (as root)
# Needs Debian's slurm-wlm and munge:   apt-get install -y --no-install-recommends slurm-wlm munge
# Everything but munge's own folders stays in FOLDER; set SLURM_CONF=FOLDER/slurm.conf to talk to it.
set -euo pipefail
root=$(realpath -m "${2:?folder}")
export SLURM_CONF=$root/slurm.conf

up() {
  mkdir -p "$root/state" "$root/log" "$root/spool/n1" "$root/spool/n2"
  local host
  host=$(hostname -s)
  cat > "$SLURM_CONF" <<CONF
ClusterName=ptune-test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
MpiDefault=none
ProctrackType=proctrack/linuxproc
ReturnToService=2
SlurmUser=root
SlurmdUser=root
SlurmctldPidFile=$root/slurmctld.pid
SlurmdPidFile=$root/slurmd-%n.pid
SlurmdSpoolDir=$root/spool/%n
StateSaveLocation=$root/state
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd-%n.log
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
KillWait=5
MinJobAge=600
NodeName=n[1-2] NodeHostname=$host NodeAddr=127.0.0.1 Port=[17011-17012] CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=batch Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
CONF
  if ! munge -n > /dev/null 2>&1; then
    mkdir -p /run/munge /var/log/munge /var/lib/munge
    chown munge:munge /run/munge /var/log/munge /var/lib/munge
    [ -s /etc/munge/munge.key ] || { dd if=/dev/urandom of=/etc/munge/munge.key bs=1024 count=1 status=none
      chown munge:munge /etc/munge/munge.key; chmod 400 /etc/munge/munge.key; }
    runuser -u munge -- /usr/sbin/munged
  fi
  slurmctld
  for node in n1 n2; do slurmd -N "$node"; done
  for _ in $(seq 60); do
    [ "$(sinfo -h -o '%D %t' 2>/dev/null)" = "2 idle" ] && { sinfo; return; }
    sleep 0.5
  done
  sinfo
  tail -5 "$root"/log/*.log
  return 1
}

down() {
  scancel -u root 2> /dev/null || true
  for file in "$root"/slurmd-*.pid "$root/slurmctld.pid"; do
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2> /dev/null || true
    # It writes its state before it ends.
    for _ in $(seq 50); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
  done
}

"${1:?up or down}"
