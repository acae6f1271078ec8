//! [`Shard`]: one of several processes that share a folder. An image belongs to shard `mix64(key) mod n`, so files that are added
//! or taken away move no other.

use std::fmt;

use crate::error::{Error, Result};
use crate::rng::mix64;

/// Number `index` of `count`, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    count: u64,
}

/// What a scheduler says in the environment.
struct Source {
    index: &'static str,
    count: &'static str,
    /// Where the indices begin, if not at 0.
    first: Option<&'static str>,
    /// What must be there for the two to mean this process.
    only_with: Option<&'static str>,
}

const fn source(index: &'static str, count: &'static str) -> Source {
    Source {
        index,
        count,
        first: None,
        only_with: None,
    }
}

/// Schedulers that tell both numbers.
static SOURCES: &[Source] = &[
    source("RANK", "WORLD_SIZE"),
    // A batch script itself, which no srun started, has a rank as well, and means nothing by it.
    Source {
        only_with: Some("SLURM_STEP_NUM_TASKS"),
        ..source("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")
    },
    Source {
        first: Some("SLURM_ARRAY_TASK_MIN"),
        ..source("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    },
    source("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    source("PMI_RANK", "PMI_SIZE"),
];

/// Schedulers that tell the index alone.
const INDEX_ONLY: &[&str] = &["JOB_COMPLETION_INDEX"];

impl Shard {
    /// All of the work.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// Number `index` of `count`.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is no such.
    pub fn new(index: u64, count: u64) -> Result<Self> {
        if index < count {
            return Ok(Shard { index, count });
        }
        let why = format!("wanted I/N with I from 0 to N - 1, got {index}/{count}");
        Err(Error::argument("--shard", why))
    }

    /// Reads `I/N`, or `*/N` with the index from the environment; without a text both are the environment's, all of the work
    /// where that says nothing. `env` looks a variable up. Also tells where the numbers came from.
    ///
    /// The environment is torchrun's, that of Slurm's arrays and steps, MPI's, or of a Kubernetes Indexed Job (whose count
    /// must be given).
    ///
    /// # Errors
    /// [`Error::Argument`] for another text, for variables that are no numbers, and when two sources disagree.
    pub fn find(
        text: Option<&str>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Self, String)> {
        match text.map(|text| text.split_once('/')) {
            None => Self::of_env(env),
            Some(Some(("*", count))) => {
                let count = number("--shard", count)?;
                Self::indexed(count, env)
            }
            Some(Some((index, count))) => {
                let [index, count] = [number("--shard", index)?, number("--shard", count)?];
                Ok((Self::new(index, count)?, "--shard".into()))
            }
            Some(None) => {
                let why = format!(
                    "wanted I/N such as 0/8, or */8, got `{}`",
                    text.unwrap_or("")
                );
                Err(Error::argument("--shard", why))
            }
        }
    }

    fn of_env(env: &dyn Fn(&str) -> Option<String>) -> Result<(Self, String)> {
        let mut found: Option<(Self, String)> = None;
        for (shard, name) in told(env)? {
            match &found {
                Some((other, from)) if *other != shard => {
                    let why = format!(
                        "{from} says {other} and {name} says {shard}; give --shard I/N, or 0/1 for all of the work"
                    );
                    return Err(Error::argument("--shard", why));
                }
                _ => found = Some((shard, name)),
            }
        }
        if let Some(found) = found {
            return Ok(found);
        }
        if let Some(name) = INDEX_ONLY.iter().find(|name| env(name).is_some()) {
            let why = format!(
                "{name} is set, which does not tell how many there are; give --shard */N, or 0/1 for all of the work"
            );
            return Err(Error::argument("--shard", why));
        }
        Ok((Self::WHOLE, "default".into()))
    }

    /// The index of the environment, of so many.
    fn indexed(count: u64, env: &dyn Fn(&str) -> Option<String>) -> Result<(Self, String)> {
        if let Some((shard, name)) = told(env)?.into_iter().next() {
            if shard.count == count {
                return Ok((shard, name));
            }
            let why = format!("wanted {count} shards, {name} says {shard}");
            return Err(Error::argument("--shard", why));
        }
        for name in INDEX_ONLY {
            if let Some(index) = env(name) {
                return Ok((Self::new(number(name, &index)?, count)?, (*name).into()));
            }
        }
        let why = "wanted an index from the environment for the `*`, there is none; give I/N";
        Err(Error::argument("--shard", why))
    }

    /// Whether the image with this [`image_key`](crate::rng::image_key) is this shard's.
    pub fn takes(self, key: u64) -> bool {
        mix64(key) % self.count == self.index
    }

    /// Whether this is all of the work.
    pub fn is_whole(self) -> bool {
        self.count == 1
    }

    /// `3-of-8`, for names of files.
    pub fn name(self) -> String {
        format!("{}-of-{}", self.index, self.count)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// What the environment says, source by source; one of several processes only.
fn told(env: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(Shard, String)>> {
    let mut all = Vec::new();
    for source in SOURCES {
        let here = source.only_with.is_none_or(|name| env(name).is_some());
        let (Some(index), Some(count), true) = (env(source.index), env(source.count), here) else {
            continue;
        };
        let first = source.first.and_then(env).unwrap_or_else(|| "0".into());
        let [index, first] = [number(source.index, &index)?, number(source.index, &first)?];
        let count = number(source.count, &count)?;
        let shard = index
            .checked_sub(first)
            .map(|index| Shard::new(index, count));
        let Some(Ok(shard)) = shard else {
            let why = format!(
                "{} is {index} and {} is {count}, which is no shard; give --shard I/N, or 0/1 for all of the work",
                source.index, source.count
            );
            return Err(Error::argument("--shard", why));
        };
        if !shard.is_whole() {
            all.push((shard, source.index.to_owned()));
        }
    }
    Ok(all)
}

fn number(name: &str, text: &str) -> Result<u64> {
    let why = || format!("wanted a whole number, got `{text}`");
    text.trim()
        .parse()
        .map_err(|_| Error::argument(name, why()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::image_key;

    fn find(text: Option<&str>, env: &[(&str, &str)]) -> Result<String> {
        let look = |name: &str| {
            let found = env.iter().find(|(key, _)| *key == name)?;
            Some(found.1.to_owned())
        };
        Shard::find(text, &look).map(|(shard, _)| shard.to_string())
    }

    #[test]
    fn every_image_has_one_shard_and_shards_are_even() {
        let keys: Vec<u64> = (0..10_000)
            .map(|i| image_key(&format!("{i}.png")))
            .collect();
        for count in [1, 2, 5, 8] {
            let mut sizes = vec![0; count as usize];
            for key in &keys {
                let mine: Vec<u64> = (0..count)
                    .filter(|&i| Shard::new(i, count).unwrap().takes(*key))
                    .collect();
                assert_eq!(mine.len(), 1);
                sizes[mine[0] as usize] += 1;
            }
            // Four standard deviations of a fair draw.
            let (n, p) = (keys.len() as f64, 1.0 / count as f64);
            let far = 4.0 * (n * p * (1.0 - p)).sqrt() + 1e-9;
            assert!(
                sizes.iter().all(|s| (f64::from(*s) - n * p).abs() <= far),
                "{sizes:?}"
            );
        }
    }

    #[test]
    fn the_schedulers_say_which() {
        let ok = |text, env: &[(&str, &str)]| find(text, env).unwrap();
        assert_eq!(ok(None, &[]), "0/1");
        assert_eq!(
            ok(Some("3/8"), &[("RANK", "1"), ("WORLD_SIZE", "2")]),
            "3/8"
        );
        assert_eq!(ok(None, &[("RANK", "1"), ("WORLD_SIZE", "2")]), "1/2");
        let array = [
            ("SLURM_ARRAY_TASK_ID", "7"),
            ("SLURM_ARRAY_TASK_MIN", "4"),
            ("SLURM_ARRAY_TASK_COUNT", "6"),
        ];
        assert_eq!(ok(None, &array), "3/6");
        // srun with one task inside an array: the array counts.
        let step = [("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1")];
        assert_eq!(ok(None, &[array.as_slice(), &step].concat()), "3/6");
        // A batch script that was not started by srun does all of the work.
        assert_eq!(
            ok(None, &[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]),
            "0/1"
        );
        assert_eq!(ok(Some("*/5"), &[("JOB_COMPLETION_INDEX", "4")]), "4/5");
        // Two that agree.
        let both = [
            ("RANK", "1"),
            ("WORLD_SIZE", "2"),
            ("PMI_RANK", "1"),
            ("PMI_SIZE", "2"),
        ];
        assert_eq!(ok(None, &both), "1/2");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |text, env: &[(&str, &str)]| find(text, env).unwrap_err().to_string();
        for text in ["", "3", "8/8", "-1/3", "a/b", "0/0", "*/*"] {
            assert!(error(Some(text), &[]).contains("--shard"), "{text}");
        }
        assert!(error(Some("*/4"), &[]).contains("environment"));
        assert!(error(None, &[("JOB_COMPLETION_INDEX", "1")]).contains("*/N"));
        assert!(error(Some("*/4"), &[("JOB_COMPLETION_INDEX", "4")]).contains("4/4"));
        assert!(error(Some("*/4"), &[("RANK", "1"), ("WORLD_SIZE", "2")]).contains("RANK"));
        assert!(error(None, &[("RANK", "x"), ("WORLD_SIZE", "2")]).contains("RANK"));
        assert!(error(None, &[("RANK", "2"), ("WORLD_SIZE", "2")]).contains("no shard"));
        let two = [
            ("RANK", "1"),
            ("WORLD_SIZE", "2"),
            ("PMI_RANK", "0"),
            ("PMI_SIZE", "2"),
        ];
        assert!(error(None, &two).contains("RANK says 1/2 and PMI_RANK says 0/2"));
    }
}
