//! `deploy/`: the ready files do what they say, with fakes in place of the schedulers.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::{command, finished, folder, run, tree};
use crate::oracle;

fn deployed(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(name)
}

/// A program for the fakes' folder.
#[cfg(unix)]
fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The Slurm script as task `index` of an array that is submitted as `first..=last`; its exit code and stderr.
#[cfg(unix)]
fn task(dir: &Path, [index, first, last]: [usize; 3], shards: Option<usize>) -> (i32, String) {
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("bash");
    command
        .arg(deployed("slurm-array.sh"))
        .args("-i y -o x --task sr8 --method dmap --steps 3 --model".split(' '))
        .arg(oracle::checkpoint("tiny-pixel"))
        .current_dir(dir)
        .env("PATH", format!("{}:{path}", dir.join("bin").display()))
        .env("SLURM_ARRAY_JOB_ID", "77")
        .env("SLURM_ARRAY_TASK_ID", index.to_string())
        .env("SLURM_ARRAY_TASK_MIN", first.to_string())
        .env("SLURM_ARRAY_TASK_MAX", last.to_string())
        .env("SLURM_ARRAY_TASK_COUNT", (last - first + 1).to_string());
    if let Some(shards) = shards {
        command.env("SHARDS", shards.to_string());
    }
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

#[cfg(unix)]
#[test]
fn the_tasks_of_a_slurm_array_do_a_folder_together() {
    let names: Vec<String> = (0..8).map(|i| format!("{i}.png")).collect();
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let program = env!("CARGO_BIN_EXE_posteriori");
    script(&bin.join("posteriori"), &format!("exec '{program}' \"$@\""));
    // What srun adds to the environment of a step of one process.
    script(
        &bin.join("srun"),
        "SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_STEP_NUM_TASKS=1 exec \"$@\"",
    );
    let x = dir.path().join("x");
    for index in [0, 2] {
        assert_eq!(task(dir.path(), [index, 0, 2], None).0, 0);
    }
    let there = tree(&x).len();
    assert!((1..8).contains(&there), "{there}");
    // A part of an array must say of what, for Slurm's count is 1 now.
    let (code, text) = task(dir.path(), [1, 1, 1], None);
    assert!(code == 2 && text.contains("SHARDS"), "{code} {text}");
    assert_eq!(tree(&x).len(), there);
    assert_eq!(task(dir.path(), [1, 1, 1], Some(3)).0, 0);
    assert_eq!(tree(&x), names);
    let line = "restore -i y -o plain --model PIXEL --task sr8 --method dmap --steps 3 -q";
    run(dir.path(), line).expect(0, &[]);
    for name in &names {
        let bytes = |folder: &str| fs::read(dir.path().join(folder).join(name)).unwrap();
        assert!(bytes("x") == bytes("plain"), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_slurm_task_that_was_interrupted_goes_back_to_the_queue_and_no_other() {
    let dir = folder(&["a.png"]);
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    script(&bin.join("scontrol"), "echo \"$@\" >> asked");
    let asked = dir.path().join("asked");
    for code in [0, 1, 2, 3, 4, 5, 130] {
        script(&bin.join("srun"), &format!("exit {code}"));
        assert_eq!(task(dir.path(), [4, 0, 7], None).0, code);
        assert_eq!(asked.exists(), code == 130, "{code}");
    }
    assert_eq!(fs::read_to_string(asked).unwrap(), "requeue 77_4\n");
}

#[test]
fn the_kubernetes_job_has_as_many_shards_as_pods() {
    let text = fs::read_to_string(deployed("kubernetes-job.yaml")).unwrap();
    let after = |begin: &str| {
        let lines = text.lines().map(str::trim);
        let rest: Vec<&str> = lines.filter_map(|line| line.strip_prefix(begin)).collect();
        assert_eq!(rest.len(), 1, "{begin}");
        rest[0].to_owned()
    };
    assert_eq!(after("completions: "), after("- --shard=*/"));
    // Every exit code of the program but 0 has its rule, once.
    let rules = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("values: "));
    let mut codes: Vec<u8> = rules
        .flat_map(|list| serde_json::from_str::<Vec<u8>>(list).unwrap())
        .collect();
    codes.sort();
    assert_eq!(codes, [1, 2, 3, 4, 5, 130, 137, 143]);
}

/// The arguments of the pod, with folders of this machine for the volume's.
#[test]
fn a_pod_of_the_kubernetes_job_does_its_shard() {
    let text = fs::read_to_string(deployed("kubernetes-job.yaml")).unwrap();
    let args = text.split("args:\n").nth(1).unwrap().lines();
    let args: Vec<&str> = args
        .map_while(|line| line.trim_start().strip_prefix("- "))
        .take_while(|arg| *arg == "restore" || arg.starts_with("--"))
        .collect();
    let names: Vec<String> = (0..8).map(|i| format!("{i}.png")).collect();
    let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
    fs::rename(dir.path().join("y"), dir.path().join("in")).unwrap();
    let model = oracle::checkpoint("tiny-pixel");
    for index in 0..8 {
        let words = args.iter().map(|arg| {
            let arg = arg.replace("/data/model", model.to_str().unwrap());
            arg.replace("/data", dir.path().to_str().unwrap())
        });
        let status = Command::new(env!("CARGO_BIN_EXE_posteriori"))
            .args(words)
            .args(["--steps", "2", "-q"])
            .env("JOB_COMPLETION_INDEX", index.to_string())
            .stdout(std::process::Stdio::null())
            .status();
        assert_eq!(status.unwrap().code(), Some(0), "{index}");
    }
    assert_eq!(tree(&dir.path().join("out")), names);
}

/// What schedulers say to the last of several processes is of folders: a single image belongs to whoever is given it.
#[test]
fn a_single_image_is_restored_whatever_a_scheduler_says() {
    let dir = folder(&["a.png", "b.png"]);
    let line = "restore --model PIXEL --task sr8 --method dmap --steps 2 -q";
    let told: [&[(&str, &str)]; 4] = [
        &[("RANK", "7"), ("WORLD_SIZE", "8")],
        &[
            ("SLURM_ARRAY_TASK_ID", "3"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_COUNT", "3"),
        ],
        &[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")],
        &[("JOB_COMPLETION_INDEX", "5")],
    ];
    let told_so = |line: &str, told: &[(&str, &str)]| {
        let mut command = command(dir.path(), line);
        command.envs(told.iter().copied());
        finished(command)
    };
    for (i, told) in told.into_iter().enumerate() {
        // Hardly both are in the shard that is told.
        for name in ["a.png", "b.png"] {
            let single = format!("{line} -i y/{name} -o x/{i}-{name}");
            told_so(&single, told).expect(0, &[]);
            told_so(&format!("{single} --shard 0/1 --exists overwrite"), told).expect(0, &[]);
            assert!(dir.path().join(format!("x/{i}-{name}")).exists());
        }
    }
    let parts = format!("{line} -i y/a.png -o z.png --shard");
    run(dir.path(), &format!("{parts} 0/2")).expect(2, &["--shard", "0/1"]);
    told_so(&format!("{parts} */8"), told[3]).expect(2, &["--shard", "0/1"]);
    assert!(!dir.path().join("z.png").exists());
}
