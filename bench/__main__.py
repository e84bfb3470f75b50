import sys, tempfile, shutil, signal
from pathlib import Path
from bench import process
from bench.systems import make_systems
from bench.source import start_source
from bench.trial import Load, run_trial
from bench.loopback import free_port
import argparse
a=argparse.ArgumentParser(); a.add_argument("--only",action="append"); a.add_argument("--count",type=int,default=500)
a.add_argument("--octets",type=int,default=4096); a.add_argument("--connections",type=int,default=50); a.add_argument("--reuse",action="store_true"); a.add_argument("--rounds",type=int,default=1)
o=a.parse_args()
def ended(*_): raise KeyboardInterrupt
signal.signal(signal.SIGTERM, ended)
process.become_subreaper()
d=Path(tempfile.mkdtemp(prefix="rb-",dir="/var/tmp")); d.chmod(0o711)
try:
    sp=free_port("127.0.0.1")
    systems=make_systems(d,"127.0.0.1",sp)
    for _ in range(o.rounds):
      for name in o.only or systems:
        s=systems[name]
        l=Load(o.octets,o.reuse,o.connections,o.count)
        f=run_trial(s,d,"127.0.0.1",sp,l,lambda dd,c: start_source(dd,"127.0.0.1",s.port,sender=s.sender,octets=l.octets,count=c,connections=l.connections,is_reused=l.is_reused))
        k=1000/o.count
        print(f"{name}: replied {o.count/f.replied_seconds:.0f}/s arrived {o.count/f.arrived_seconds:.0f}/s pss {f.peak_pss_octets>>20} MB; CPU s per 1000:", {n:round(v*k,3) for n,v in {**f.cpu_by_part,**f.cpu_by_name,**f.cpu_others}.items() if v*k>=.005},flush=True)
finally:
    process.sweep()
    shutil.rmtree(d,ignore_errors=True)
