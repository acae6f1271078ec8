//! Tests of the weight files: round trips of every kind, every damage by name, shards,
//! and a walk over all flipped header bits and random cuts, none of which may panic.
//! The reference is the safetensors crate and bit patterns by hand.

use super::*;

fn stored<'a>(name: &'a str, kind: Kind, shape: &'a [usize], bytes: &'a [u8]) -> Stored<'a> {
    Stored {
        name,
        kind,
        shape,
        bytes,
    }
}

fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..data).map(|i| i as u8));
    bytes
}

fn why(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.safetensors");
    std::fs::write(&path, bytes).unwrap();
    let text = Checkpoint::open_file(&path).unwrap_err().to_string();
    assert!(text.contains("bad.safetensors: "), "{text}");
    text
}

#[test]
fn every_kind_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    // Bit patterns by hand: 1, -2, 0.5 (and 3 for the integers).
    let half: &[u8] = &[0x00, 0x3c, 0x00, 0xc0, 0x00, 0x38];
    let brain: &[u8] = &[0x80, 0x3f, 0x00, 0xc0, 0x00, 0x3f];
    let single: Vec<u8> = [1f32, -2.0, 0.5]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let double: Vec<u8> = [1f64, -2.0, 0.5]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let long: Vec<u8> = [1i64, -2, i64::MAX]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let int: Vec<u8> = [1i32, -2, 3].iter().flat_map(|x| x.to_le_bytes()).collect();
    let tensors = [
        stored("z.half", Kind::F16, &[3, 1], half),
        stored("brain", Kind::BF16, &[3], brain),
        stored("single", Kind::F32, &[1, 3, 1, 1], &single),
        stored("double", Kind::F64, &[3], &double),
        stored("long", Kind::I64, &[3], &long),
        stored("int", Kind::I32, &[3], &int),
        stored("none", Kind::F32, &[0, 7], &[]),
        stored("scalar", Kind::F32, &[], &single[..4]),
    ];
    write_safetensors(&path, &tensors, &[("a".into(), "b".into())]).unwrap();
    // The reference reader takes the file.
    let bytes = std::fs::read(&path).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.len(), 8);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let names: Vec<_> = checkpoint.names().collect();
    let sorted = [
        "brain", "double", "int", "long", "none", "scalar", "single", "z.half",
    ];
    assert_eq!(names, sorted);
    assert_eq!((checkpoint.len(), checkpoint.is_empty()), (8, false));
    for tensor in &tensors {
        let view = checkpoint.get(tensor.name).unwrap();
        assert_eq!((view.dtype, &view.shape[..]), (tensor.kind, tensor.shape));
        assert_eq!(view.bytes, tensor.bytes);
        assert_eq!(view.bytes, &view.file.bytes()[view.range.clone()]);
        assert_eq!(view.bytes, reference.tensor(tensor.name).unwrap().data());
    }
    numbers_are_right(&checkpoint);
}

fn numbers_are_right(checkpoint: &Checkpoint) {
    for name in ["z.half", "brain", "single", "double"] {
        let view = checkpoint.need(name).unwrap();
        assert_eq!(view.to_f32().unwrap(), [1.0, -2.0, 0.5]);
        assert_eq!(view.to_f64().unwrap(), [1.0, -2.0, 0.5]);
    }
    let long = checkpoint.get("long").unwrap();
    assert_eq!(long.to_f64().unwrap(), [1.0, -2.0, i64::MAX as f64]);
    assert_eq!(long.to_f32().unwrap(), [1.0, -2.0, 9.223_372e18]);
    let int = checkpoint.get("int").unwrap();
    assert_eq!(int.to_f64().unwrap(), [1.0, -2.0, 3.0]);
    assert_eq!(checkpoint.get("scalar").unwrap().to_f64().unwrap(), [1.0]);
    assert!(checkpoint.get("nothing").is_none());
    let missing = checkpoint.need("nothing").unwrap_err().to_string();
    assert!(
        missing.starts_with("weight `nothing`: is missing from"),
        "{missing}"
    );
}

#[test]
fn an_unread_kind_is_an_error_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let header = r#"{"mask":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}"#;
    std::fs::write(&path, file(header, 3)).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    let view = checkpoint.get("mask").unwrap();
    assert_eq!(
        (view.dtype, view.bytes),
        (Kind::Other("U8"), &[0u8, 1, 2][..])
    );
    for text in [
        view.to_f32().unwrap_err().to_string(),
        view.to_f64().unwrap_err().to_string(),
        checkpoint.need("mask").unwrap_err().to_string(),
    ] {
        assert!(text.contains("`mask`: is stored as U8"), "{text}");
    }
}

#[test]
fn every_damage_is_named() {
    let entry = |name: &str, shape: &str, from: u64, to: u64| {
        format!(r#""{name}":{{"dtype":"F32","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let good = format!("{{{}}}", entry("a", "[2]", 0, 8));
    let full = file(&good, 8);
    assert!(why(&full[..5]).contains("too short for a header"));
    assert!(why(&full[..20]).contains("cut short"));
    assert!(why(&full[..full.len() - 1]).contains("holds 7"));
    assert!(why(&file(&good, 9)).contains("holds 9"));
    let mut long = full.clone();
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(why(&long).contains("18446744073709551615 bytes long"));
    assert!(why(b"version https://git-lfs.github.com/spec/v1").contains("git lfs pull"));
    let both = |x: String, y: String| why(&file(&format!("{{{x},{y}}}"), 16));
    let overlap = both(entry("a", "[2]", 0, 8), entry("b", "[3]", 4, 16));
    assert!(
        overlap.contains("invalid offset for tensor `b`"),
        "{overlap}"
    );
    let gap = both(entry("a", "[1]", 0, 4), entry("b", "[2]", 8, 16));
    assert!(gap.contains("invalid offset"), "{gap}");
    let twice = both(entry("a", "[2]", 0, 8), entry("a", "[2]", 8, 16));
    assert!(twice.contains("`a` comes twice"), "{twice}");
    let same = both(entry("a", "[4]", 0, 16), entry("a", "[4]", 0, 16));
    assert!(same.contains("`a` comes twice"), "{same}");
    let one = |x: String| why(&file(&format!("{{{x}}}"), 8));
    assert!(one(entry("a", "[3]", 0, 8)).contains("invalid shape"));
    assert!(one(entry("a", "[2]", 8, 0)).contains("invalid offset"));
    let huge = "[4611686018427387904,4611686018427387904]";
    assert!(one(entry("a", huge, 0, 8)).contains("overflow"));
    assert!(one(entry("a", "[-1]", 0, 8)).contains("damaged"));
    // Sizes that each fit in 64 bits and together do not.
    let most = (1u64 << 61) - 4;
    let all: Vec<String> = (0..8)
        .map(|i| {
            entry(
                &format!("t{i}"),
                &format!("[{}]", most / 4),
                i * most,
                (i + 1) * most,
            )
        })
        .collect();
    let sum = why(&file(&format!("{{{}}}", all.join(",")), 8));
    assert!(sum.contains("bytes of tensors, the file holds 8"), "{sum}");
    assert!(why(&file("[1]", 0)).contains("damaged"));
    assert!(why(&file(&"[".repeat(100_000), 0)).contains("damaged"));
    assert!(why(&file("{\"a\":\"\u{fffd}", 0)).contains("damaged"));
}

#[test]
fn no_flipped_bit_and_no_cut_makes_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let tensors = [
        stored("a.weight", Kind::F32, &[2, 2], &[1; 16]),
        stored("a.bias", Kind::F16, &[3], &[2; 6]),
        stored("ids", Kind::I64, &[1], &[3; 8]),
    ];
    write_safetensors(&path, &tensors, &[("format".into(), "pt".into())]).unwrap();
    let good = std::fs::read(&path).unwrap();
    let header = good.len() - 30;
    let walk = |bytes: &[u8]| {
        let bad = dir.path().join("bad");
        std::fs::write(&bad, bytes).unwrap();
        let Ok(checkpoint) = Checkpoint::open_file(&bad) else {
            return false;
        };
        for name in checkpoint.names() {
            let view = checkpoint.get(name).unwrap();
            assert_eq!(view.bytes.len(), view.range.len());
            drop((view.to_f32(), view.to_f64()));
        }
        true
    };
    for at in 0..header {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            // In memory: the files of the second loop cover the way from disk.
            drop(super::header::header(&bytes));
        }
    }
    let mut state = 7u64;
    let mut random = move |n: usize| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for _ in 0..1000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random(4) {
            let at = random(bytes.len());
            bytes[at] = random(256) as u8;
        }
        bytes.truncate(1 + random(bytes.len() * 2));
        walk(&bytes);
    }
    assert!((0..good.len()).all(|cut| !walk(&good[..cut])));
    assert!(walk(&good));
}

#[test]
fn shards() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let one = [
        stored("a", Kind::F32, &[1], &[0, 0, 128, 63]),
        stored("b", Kind::F32, &[1], &[0, 0, 0, 64]),
    ];
    let two = [stored("c", Kind::F32, &[1], &[0, 0, 0, 0])];
    write_safetensors(at("m-1-of-2.safetensors"), &one, &[]).unwrap();
    write_safetensors(at("m-2-of-2.safetensors"), &two, &[]).unwrap();
    let index = at("diffusion_pytorch_model.safetensors.index.json");
    let open = |map: &str| {
        std::fs::write(&index, format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#)).unwrap();
        Checkpoint::open(dir.path())
    };
    let (m1, m2) = ("m-1-of-2.safetensors", "m-2-of-2.safetensors");
    let good = format!(r#"{{"a":"{m1}","b":"{m1}","c":"{m2}"}}"#);
    let checkpoint = open(&good).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(checkpoint.files().len(), 2);
    assert_eq!(checkpoint.need("b").unwrap().to_f32().unwrap(), [2.0]);
    let why = |map: &str| open(map).unwrap_err().to_string();
    let gone = why(r#"{"a":"m-3-of-2.safetensors"}"#);
    assert!(gone.contains("m-3-of-2.safetensors: is missing"), "{gone}");
    for bad in ["../x", "/etc/passwd", "sub/x", "..", "", "c:x", "a\\\\b"] {
        let text = why(&format!(r#"{{"a":"{bad}"}}"#));
        assert!(text.contains("names the shard"), "{bad}: {text}");
    }
    let wrong = why(&format!(r#"{{"a":"{m2}"}}"#));
    assert!(wrong.contains("weight `a`"), "{wrong}");
    assert!(why(&format!(r#"{{"a":"{m1}","a":"{m1}"}}"#)).contains("comes twice"));
    assert!(why("{}").contains("names no tensor"));
    assert!(why("3").contains("not a usable weight index"));
    write_safetensors(at(m2), &one[..1], &[]).unwrap();
    assert!(why(&good).contains("weight `a`: is in both"));
}

#[test]
fn finds_the_file_or_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let why = || Checkpoint::open(dir.path()).unwrap_err().to_string();
    assert!(why().contains("holds no weights"));
    std::fs::write(dir.path().join("diffusion_pytorch_model.bin"), b"x").unwrap();
    assert!(why().contains("convert the checkpoint"), "{}", why());
    for (name, value) in [("model.fp16", 1.0f32), ("model", 2.0)] {
        let path = dir.path().join(format!("{name}.safetensors"));
        let bytes = value.to_le_bytes();
        write_safetensors(path, &[stored("a", Kind::F32, &[1], &bytes)], &[]).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.need("a").unwrap().to_f32().unwrap(), [value]);
    }
    let none = Checkpoint::open(dir.path().join("unet"))
        .unwrap_err()
        .to_string();
    assert!(none.contains("wanted a folder of weights"), "{none}");
}

#[test]
fn refuses_to_write_nonsense() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let a = stored("a", Kind::F32, &[1], &[0; 4]);
    let why = |t: &[Stored<'_>]| write_safetensors(&path, t, &[]).unwrap_err().to_string();
    assert!(why(&[a, a]).contains("comes twice"));
    assert!(why(&[stored("a", Kind::F32, &[2], &[0; 4])]).contains("got 4 bytes"));
    assert!(why(&[stored("a", Kind::F32, &[usize::MAX, 9], &[0; 4])]).contains("wanted shape"));
    assert!(why(&[stored("a", Kind::Other("U8"), &[4], &[0; 4])]).contains("written as U8"));
    assert!(!path.exists());
}
