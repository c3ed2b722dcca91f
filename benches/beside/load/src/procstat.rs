//! Figures about the server process(es), from /proc.
use std::fs;

#[derive(Clone, Copy, Default, Debug)]
pub struct Cpu {
    /// On-CPU time of all threads, nanoseconds (schedstat).
    pub ns: u64,
    /// utime and stime, clock ticks of 10 ms.
    pub ut: u64,
    pub st: u64,
    /// Voluntary and involuntary context switches.
    pub vcs: u64,
    pub ics: u64,
}

pub fn cpu(pids: &[u32]) -> Cpu {
    let mut c = Cpu::default();
    for p in pids {
        if let Ok(s) = fs::read_to_string(format!("/proc/{p}/stat")) {
            if let Some(i) = s.rfind(')') {
                let f: Vec<&str> = s[i + 1..].split_whitespace().collect();
                c.ut += f.get(11).and_then(|x| x.parse().ok()).unwrap_or(0);
                c.st += f.get(12).and_then(|x| x.parse().ok()).unwrap_or(0);
            }
        }
        for t in fs::read_dir(format!("/proc/{p}/task")).into_iter().flatten().flatten() {
            if let Ok(s) = fs::read_to_string(t.path().join("schedstat")) {
                c.ns += s.split_whitespace().next().and_then(|x| x.parse::<u64>().ok()).unwrap_or(0);
            }
            if let Ok(s) = fs::read_to_string(t.path().join("status")) {
                c.vcs += field(&s, "voluntary_ctxt_switches:");
                c.ics += field(&s, "nonvoluntary_ctxt_switches:");
            }
        }
    }
    c
}

#[derive(Clone, Copy, Default, Debug)]
pub struct Mem {
    pub rss: u64,
    pub anon: u64,
    pub shmem: u64,
    pub pss: u64,
    pub private_dirty: u64,
}

fn field(s: &str, name: &str) -> u64 {
    s.lines()
        .find_map(|l| l.strip_prefix(name))
        .and_then(|v| v.split_whitespace().next())
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

/// Bytes, summed over the processes.
pub fn mem(pids: &[u32]) -> Mem {
    let mut m = Mem::default();
    for p in pids {
        if let Ok(s) = fs::read_to_string(format!("/proc/{p}/status")) {
            m.rss += field(&s, "VmRSS:") * 1024;
            m.anon += field(&s, "RssAnon:") * 1024;
            m.shmem += field(&s, "RssShmem:") * 1024;
        }
        if let Ok(s) = fs::read_to_string(format!("/proc/{p}/smaps_rollup")) {
            m.pss += field(&s, "Pss:") * 1024;
            m.private_dirty += field(&s, "Private_Dirty:") * 1024;
        }
    }
    m
}

/// Kernel side, whole machine: TCP buffer pages and slab, bytes.
pub fn kernel() -> (u64, u64) {
    let tcp = fs::read_to_string("/proc/net/sockstat")
        .ok()
        .and_then(|s| {
            s.lines()
                .find(|l| l.starts_with("TCP:"))
                .and_then(|l| l.split(" mem ").nth(1).and_then(|v| v.trim().parse::<u64>().ok()))
        })
        .unwrap_or(0)
        * 4096;
    let slab = fs::read_to_string("/proc/meminfo").map(|s| field(&s, "Slab:") * 1024).unwrap_or(0);
    (tcp, slab)
}

#[cfg(test)]
mod tests {
    #[test]
    fn own_process_has_figures() {
        let me = [std::process::id()];
        let m = super::mem(&me);
        assert!(m.rss > 0 && m.anon > 0);
        assert!(super::cpu(&me).ns > 0);
        assert_eq!(super::field("A:\t 12 kB\nB: 3\n", "B:"), 3);
    }
}
