//! Tasks as text, and the measurement file.

use std::path::Path;

use posteriori::Error;
use posteriori::operators::{Measurement, Operator, TASKS, Task, motion_blur};

use crate::operators::{CASES, double, normal, says};
use crate::oracle::assert_close;

#[test]
fn tasks_as_text() {
    for text in [
        "sr8",
        "sr4",
        "sr2",
        "sr1",
        "sr64",
        "blur",
        "blur:2.5",
        "blur:2.5:31",
        "motion",
        "motion:18446744073709551615",
        "inpaint",
        "inpaint:128x64",
        "random:0.5",
        "random:0.25:9",
        "denoise",
        "color",
        "hdr",
        "hdr:3.5",
        "jpeg:30",
    ] {
        assert_eq!(Task::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(
        Task::parse("motion:0").unwrap(),
        Task::parse("motion").unwrap()
    );
    assert_eq!(Task::parse("sr8").unwrap(), Task::super_resolution(8));
    assert_eq!(Task::parse("sr8").unwrap().image_size([16, 24]), [128, 192]);
    assert_eq!(
        Task::parse("sr8").unwrap().image_size([usize::MAX; 2]),
        [usize::MAX; 2]
    );
    assert_eq!(Task::parse("blur").unwrap().image_size([16, 24]), [16, 24]);
}

#[test]
fn texts_that_are_no_tasks_are_errors() {
    for text in [
        "",
        "sr",
        "srx",
        "sr:8",
        "sr8x",
        "SR8",
        "blur:",
        "blur:1:2:3",
        "blurry",
        "motion:x",
        "motion:-1",
        "inpaint:5",
        "inpaint:5x",
        "random",
        "random:",
        "random:a",
        "denoise:1",
        "denoise ",
        "8",
        "é",
        "sré",
        "nonsense",
    ] {
        says(
            Task::parse(text),
            &["sr8", "motion[:SEED]", "denoise", text],
        );
    }
    for (text, words) in [
        ("hdr:0.5", ["1 to 1000", "got 0.5"]),
        ("jpeg:0", ["1 to 100", "got 0"]),
        ("jpeg:101", ["1 to 100", "got 101"]),
        ("kernel:/no/such.png", ["/no/such.png", "cannot"]),
        ("mask:/no/such.png", ["/no/such.png", "cannot"]),
        ("sr0", ["1 to 64", "got 0"]),
        ("sr65", ["1 to 64", "got 65"]),
        ("blur:0", ["sigma", "got 0"]),
        ("blur:nan", ["sigma", "NaN"]),
        ("blur:3:60", ["odd", "60"]),
        ("inpaint:0x5", ["hole", "0 x 5"]),
        ("random:1", ["probability", "got 1"]),
        ("random:-0.5", ["probability", "-0.5"]),
        ("random:nan", ["probability", "NaN"]),
    ] {
        says(Task::parse(text), &words);
    }
    assert!(TASKS.iter().all(|kind| kind.syntax.starts_with(kind.name)));
}

#[test]
fn the_measurement_file_holds_everything() {
    let cx = double();
    for &(task, size) in CASES {
        let task = Task::parse(task).unwrap();
        let written = Measurement::new(task.clone(), 0.05, u64::MAX, size).unwrap();
        let text = written.to_json().unwrap();
        let read = Measurement::from_json("y.measurement.json", &text).unwrap();
        assert_eq!(read, written);
        assert_eq!(read.task.to_string(), task.to_string());
        let [h, w] = size;
        let x = normal(&cx, "x", [1, h, w, 3]);
        let y = |f: Box<dyn Operator>| f.measure(&cx, &x).unwrap().to_vec::<f64>().unwrap();
        assert_eq!(
            y(read.operator(&cx).unwrap()),
            y(task.build(&cx, size).unwrap())
        );
        if let Task::MotionBlur(p) = &read.task {
            assert_eq!(p.kernel.as_ref().map(Vec::len), Some(61 * 61));
        }
    }
    let own = motion_blur::Parameters {
        size: 3,
        kernel: Some(vec![0.0, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.5]),
        ..Default::default()
    };
    let f = Task::MotionBlur(own).build(&cx, [4, 4]).unwrap();
    let x = normal(&cx, "x", [1, 4, 4, 3]);
    let (y, x) = (
        f.measure(&cx, &x).unwrap().to_f64().unwrap(),
        x.to_f64().unwrap(),
    );
    // pixel (1, 2) averages the one to its left and the one below to the right
    assert_close("own kernel", &[y[18]], &[(x[15] + x[33]) / 2.0], 1e-15, 0.0);
    let path = Measurement::path_for(Path::new("out/cats/a.png"));
    assert_eq!(path, Path::new("out/cats/a.png.measurement.json"));
}

const SR: &str = r#"{"operator":"super-resolution","factor":8}"#;

fn file(task: &str, sigma: &str, size: &str) -> String {
    format!(r#"{{"task":{task},"sigma":{sigma},"seed":1,"image_size":{size}}}"#)
}

/// Fails unless the text is an error that names the file and has the word.
#[track_caller]
fn refused(text: &str, word: &str) {
    let result = Measurement::from_json("f", text);
    assert!(matches!(result, Err(Error::Config { .. })), "{text:.200}");
    says(result, &["f:", word]);
}

#[test]
fn hostile_measurement_files_are_errors() {
    assert!(Measurement::from_json("f", &file(SR, "0.05", "[64,64]")).is_ok());
    refused("", "EOF");
    refused("[]", "f:");
    refused(&"[".repeat(100_000), "f:");
    refused(&file(SR, "0", "[64,64]").replace("seed", "sede"), "sede");
    for sigma in ["NaN", "null", "1e999", "\"0\""] {
        refused(&file(SR, sigma, "[64,64]"), "f:");
    }
    refused(&file(SR, "-0.05", "[64,64]"), "sigma");
    for (size, word) in [
        ("[64,65]", "multiples"),
        ("[-8,8]", "-8"),
        ("[8]", "length"),
        ("[800000000000,8]", "image size"),
        ("[65536,65536]", "image size"),
    ] {
        refused(&file(SR, "0", size), word);
    }
    let task = Task::super_resolution(8);
    assert!(Measurement::new(task.clone(), f64::INFINITY, 0, [64, 64]).is_err());
    let broken = Measurement {
        task,
        sigma: f64::NAN,
        seed: 0,
        image_size: [64, 64],
        photons: None,
    };
    assert!(broken.to_json().is_err());
}

#[test]
fn hostile_parameters_are_errors() {
    for (task, word) in [
        (r#""super-resolution","factor":0"#, "1 to 64"),
        (r#""super-resolution","factor":8,"extra":1"#, "extra"),
        (r#""magic""#, "magic"),
        (r#""denoising","extra":1"#, "extra"),
        (r#""gaussian-blur","size":61,"sigma":-3"#, "sigma"),
        (r#""gaussian-blur","size":99999,"sigma":3"#, "size"),
        (r#""random-inpainting","drop":1.5,"seed":0"#, "probability"),
        (
            r#""box-inpainting","hole":[18446744073709551615,1]"#,
            "hole",
        ),
    ] {
        let task = format!(r#"{{"operator":{task}}}"#);
        refused(&file(&task, "0", "[64,64]"), word);
    }
    let motion = |size: &str, kernel: &str| {
        let settings = r#""operator":"motion-blur","intensity":0.5,"seed":0"#;
        let task = format!(r#"{{{settings},"size":{size},"kernel":{kernel}}}"#);
        file(&task, "0", "[30,64]")
    };
    assert!(Measurement::from_json("f", &motion("1", "[1]")).is_ok());
    for (size, kernel, word) in [
        ("3", "[1,0]", "3 x 3"),
        ("3", "[9,0,0,0,0,0,0,0,0]", "sum"),
        ("1", "[1e999]", "number"),
        ("2", "[1,0,0,0]", "odd"),
        ("18446744073709551615", "[1]", "size"),
        ("18446744073709551615", "null", "size"),
        ("61", "null", "at least 31"),
    ] {
        refused(&motion(size, kernel), word);
    }
}
