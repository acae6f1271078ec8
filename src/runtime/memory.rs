//! [`SystemMemory`]: what a process may have of its machine's memory. Containers and batch systems bound it by control groups, of which
//! `/proc/meminfo` knows nothing. Linux only.

use std::path::{Component, Path, PathBuf};

/// Bytes of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemMemory {
    /// All that there is.
    pub total: usize,
    /// What can be had without swapping, and without being killed for it.
    pub free: usize,
    /// The file with the limit that leaves no more; `None` when it is the machine itself.
    pub limit: Option<PathBuf>,
}

/// How a version of control groups names what it counts.
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// In `memory.stat`, the pages of files that the system takes back first.
    files: &'static str,
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    files: "total_inactive_file",
};

const V2: Names = Names {
    limit: "memory.max",
    usage: "memory.current",
    files: "inactive_file",
};

impl SystemMemory {
    /// That of this process, now; `None` where the system does not say.
    pub fn now() -> Option<Self> {
        Self::below(Path::new("/"))
    }

    /// The same by the files below `root`: the least of the machine's and of what each control group around this process leaves.
    fn below(root: &Path) -> Option<Self> {
        let machine = of_machine(root)?;
        let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let limited = groups.lines().flat_map(|line| of_groups(root, line));
        std::iter::once(machine)
            .chain(limited)
            .min_by_key(|memory| memory.free)
    }
}

fn of_machine(root: &Path) -> Option<SystemMemory> {
    let text = std::fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kilobytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024)
    };
    Some(SystemMemory {
        total: bytes("MemTotal:")?,
        free: bytes("MemAvailable:")?,
        limit: None,
    })
}

/// The limits of a control group and of those that it is in, from a line `number:controllers:path`.
fn of_groups(root: &Path, line: &str) -> Vec<SystemMemory> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (mount, names) = match controllers {
        "" => ("sys/fs/cgroup", &V2),
        _ if controllers.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", &V1),
        _ => return Vec::new(),
    };
    // A container may see only its own groups, under a path that is of the machine: of it, what is there counts. The group at the
    // mount itself always does.
    let mut group = root.join(mount);
    let mut all = Vec::from_iter(of_group(&group, names));
    let inner = Path::new(path).components();
    for part in inner.skip_while(|part| *part == Component::RootDir) {
        let Component::Normal(name) = part else {
            break;
        };
        group.push(name);
        all.extend(of_group(&group, names));
    }
    all
}

/// What a control group leaves, if it has a limit.
fn of_group(group: &Path, names: &Names) -> Option<SystemMemory> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let number = |name: &str| read(name)?.trim().parse::<usize>().ok();
    // `max` is no number, and what version 1 says instead is more than any machine has.
    let (total, used) = (number(names.limit)?, number(names.usage)?);
    let stat = read("memory.stat").unwrap_or_default();
    let files = stat.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == names.files).then(|| value.trim().parse().ok())?
    });
    let used = used.saturating_sub(files.unwrap_or(0));
    Some(SystemMemory {
        total,
        free: total.saturating_sub(used),
        limit: Some(group.join(names.limit)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: SystemMemory = SystemMemory {
        total: 64 << 20,
        free: 40 << 20,
        limit: None,
    };

    /// A machine with [`MACHINE`], these control groups of this process, and these files.
    fn machine(groups: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let info = "MemTotal:       65536 kB\nMemFree: 9 kB\nMemAvailable:   40960 kB\n";
        let own = [("proc/meminfo", info), ("proc/self/cgroup", groups)];
        for (name, text) in own.iter().chain(files) {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[track_caller]
    fn expect(root: &Path, [total, free]: [usize; 2], limit: &str) {
        let memory = SystemMemory {
            total,
            free,
            limit: Some(root.join("sys/fs/cgroup").join(limit)),
        };
        assert_eq!(SystemMemory::below(root), Some(memory));
    }

    #[test]
    fn without_limits_the_machine_counts() {
        let files = [
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/memory.current", "12345\n"),
            (
                "sys/fs/cgroup/memory/b/memory.limit_in_bytes",
                "9223372036854771712\n",
            ),
            ("sys/fs/cgroup/memory/b/memory.usage_in_bytes", "12345\n"),
        ];
        for groups in ["", "0::/a\n", "9:cpu:/b\n4:memory:/b\n0::/a\n", "4\n", "::"] {
            let dir = machine(groups, &files);
            assert_eq!(SystemMemory::below(dir.path()), Some(MACHINE), "{groups}");
        }
        // A limit that leaves more than the machine has free.
        let dir = machine("0::/a\n", &files);
        let max = dir.path().join("sys/fs/cgroup/a/memory.max");
        std::fs::write(max, (42 << 20).to_string()).unwrap();
        assert_eq!(SystemMemory::below(dir.path()), Some(MACHINE));
        std::fs::remove_file(dir.path().join("proc/meminfo")).unwrap();
        assert_eq!(SystemMemory::below(dir.path()), None);
    }

    #[test]
    fn the_narrowest_group_of_version_2_counts() {
        let at = |group: &str, name: &str| format!("sys/fs/cgroup/{group}{name}");
        let files = [
            (at("slurm/job/", "memory.max"), "8000000"),
            (at("slurm/job/", "memory.current"), "7000000"),
            (
                at("slurm/job/", "memory.stat"),
                "anon 5\ninactive_file 600000\nactive_file 9",
            ),
            (at("slurm/job/step/", "memory.max"), "max"),
            (at("slurm/job/step/", "memory.current"), "6900000"),
            (at("slurm/", "memory.max"), "30000000"),
            (at("slurm/", "memory.current"), "7100000"),
        ];
        let files: Vec<_> = files.iter().map(|(at, text)| (&**at, *text)).collect();
        let dir = machine("0::/slurm/job/step\n", &files);
        expect(dir.path(), [8_000_000, 1_600_000], "slurm/job/memory.max");
        // One that its neighbours have filled.
        let usage = dir.path().join("sys/fs/cgroup/slurm/memory.current");
        std::fs::write(usage, "31000000").unwrap();
        expect(dir.path(), [30_000_000, 0], "slurm/memory.max");
    }

    #[test]
    fn groups_of_version_1_and_of_containers_count() {
        let at = |name: &str| format!("sys/fs/cgroup/memory/{name}");
        let files = [
            (at("memory.limit_in_bytes"), "5000000\n"),
            (at("memory.usage_in_bytes"), "4000000\n"),
            (
                at("memory.stat"),
                "inactive_file 1\ntotal_inactive_file 250000\n",
            ),
        ];
        let files: Vec<_> = files.iter().map(|(at, text)| (&**at, *text)).collect();
        // The machine's path of the container is not there inside of it.
        let dir = machine("5:cpuacct,memory:/docker/4f\n0::/\n", &files);
        let limit = "memory/memory.limit_in_bytes";
        expect(dir.path(), [5_000_000, 1_250_000], limit);
        let files = [
            ("sys/fs/cgroup/memory.max", "700"),
            ("sys/fs/cgroup/memory.current", "800"),
            ("sys/fs/cgroup/x/memory.max", "1"),
            ("sys/fs/cgroup/x/memory.current", "1"),
        ];
        // A process that was moved out of its container's groups has a path that leads out of them.
        let dir = machine("0::/../x\n", &files);
        expect(dir.path(), [700, 0], "memory.max");
    }
}
