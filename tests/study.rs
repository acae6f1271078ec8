//! Studies: what is counted, what is stopped and goes on, what fails.

use std::cell::Cell as Counter;
use std::fs;
use std::path::Path;

use posteriori::cx::Cx;
use posteriori::diffusion::prior::{Denoiser, Pixels, Pullback};
use posteriori::diffusion::schedule::{Coordinates, Schedule, Solver};
use posteriori::io::image::{Format, Image, read, save};
use posteriori::metrics::{psnr::psnr, ssim::ssim};
use posteriori::operators::{Measurement, Task};
use posteriori::ops::combine;
use posteriori::pipeline::device::Device;
use posteriori::pipeline::job::{Algorithm, Method, Restore};
use posteriori::pipeline::{Item, Pipeline};
use posteriori::rng::{MEASUREMENT, Stream, image_key};
use posteriori::samplers::{self, Draw, Follow, Problem};
use posteriori::study::table::tables;
use posteriori::study::{Cell, Event, Record, Study};
use posteriori::train::data::Source;
use posteriori::{Result, Tensor, scenes};

use crate::oracle;

fn cell(row: &str, task: &str, method: Method) -> Cell {
    Cell {
        row: row.into(),
        job: Restore::new(Task::parse(task).unwrap(), method).seed(5),
        cse: None,
    }
}

fn study(images: Source, cells: Vec<Cell>) -> Study {
    Study {
        model: oracle::checkpoint("tiny-pixel"),
        images,
        size: [32, 32],
        noise: 0.05,
        batch: 2,
        variants: Vec::new(),
        shown: 2,
        cells,
    }
}

fn small() -> Study {
    let cells = ["sr4", "blur"].iter().flat_map(|task| {
        [
            cell("DPS", task, Method::dps().steps(2).zeta(0.3)),
            cell("DMAP, \"same\"", task, Method::dmap().steps(2).zeta(0.3)),
            cell("prior", task, Method::ancestral().steps(1)),
        ]
    });
    study(Source::scenes(1, 5).unwrap(), cells.collect())
}

/// Runs it; how many results were there, how many came, and how many steps were taken.
fn run(study: &Study, folder: &Path) -> Result<(Vec<Record>, [usize; 3])> {
    let counts = Counter::new([0; 3]);
    let records = study.run(&Device::cpu(), folder, &|event| {
        let mut now = counts.get();
        now[match event {
            Event::Found(..) => 0,
            Event::Done(..) => 1,
            Event::Step(..) => 2,
        }] += 1;
        counts.set(now);
    })?;
    Ok((records, counts.get()))
}

/// `results.csv` without what time it took.
fn results(folder: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(folder.join("results.csv")).unwrap();
    let (mut rows, whole) = posteriori::io::csv::read(&text);
    assert_eq!(whole, text.len());
    let column = rows[0].iter().position(|name| name == "seconds").unwrap();
    rows.iter_mut().for_each(|row| drop(row.remove(column)));
    rows
}

#[test]
fn a_study_that_was_stopped_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let (records, counts) = run(&small(), &whole).unwrap();
    // five images in batches of two, by two, two and one step, on two tasks
    assert_eq!(counts, [0, 30, 2 * 3 * (2 + 2 + 1)]);
    assert!(records.iter().all(|r| r.outcome.is_ok()));
    let text = fs::read_to_string(whole.join("results.csv")).unwrap();
    let want = results(&whole);
    // two images, as five pictures of 128 x 128 with a heading
    let sheet = read(whole.join("sheet-sr4.png")).unwrap();
    assert_eq!([sheet.height, sheet.width], [24 + 2 * 132 + 4, 5 * 132 + 4]);
    let at = |y: usize, x: usize| sheet.pixels[(y * sheet.width + x) * 3];
    let truth = scenes::render(1, 1, [32, 32]).unwrap();
    for y in 0..128 {
        let want = truth.pixels[(y / 4 * 32 + y / 4) * 3];
        assert!((at(24 + 132 + y, 4 + y) - want).abs() < 1.01 / 255.0);
    }
    assert!(whole.join("sheet-blur.png").exists());
    assert_eq!(want.len(), 1 + 30);

    let line = |n: usize| -> usize { text.split_inclusive('\n').take(n).map(str::len).sum() };
    for (cut, found) in [
        (0, 0),
        (3, 0),
        (line(1), 0),
        (line(4) + 9, 3),
        (line(18), 17),
        (text.len() - 1, 29),
        (text.len(), 30),
    ] {
        let folder = dir.path().join(format!("cut-{cut}"));
        for part in [".posteriori", "pictures"] {
            fs::create_dir_all(folder.join(part)).unwrap();
            for file in fs::read_dir(whole.join(part)).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), folder.join(part).join(file.file_name())).unwrap();
            }
        }
        fs::write(folder.join("results.csv"), &text[..cut]).unwrap();
        // a batch never changes a result
        let study = Study {
            batch: 3,
            ..small()
        };
        let (again, [there, came, _]) = run(&study, &folder).unwrap();
        assert_eq!((there, came), (found, 30 - found), "cut at {cut}");
        assert_eq!(results(&folder), want, "cut at {cut}");
        let outcomes =
            |all: &[Record]| -> Vec<_> { all.iter().map(|r| r.outcome.clone()).collect() };
        assert_eq!(outcomes(&again), outcomes(&records), "cut at {cut}");
    }
    let (_, counts) = run(&small(), &whole).unwrap();
    assert_eq!(counts, [30, 0, 0]);
    // A picture that is to be shown is made again; what is known of it is not written again.
    let picture = whole.join("pictures/cell-1-image-2.png");
    let bytes = fs::read(&picture).unwrap();
    fs::remove_file(&picture).unwrap();
    let (_, counts) = run(&small(), &whole).unwrap();
    assert_eq!(counts, [29, 1, 2]);
    assert!(fs::read(&picture).unwrap() == bytes);
    assert_eq!(fs::read_to_string(whole.join("results.csv")).unwrap(), text);
}

#[test]
fn results_that_were_cut_within_a_letter_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let cells = vec![cell("größer", "sr4", Method::ancestral().steps(1))];
    let study = study(Source::scenes(1, 2).unwrap(), cells);
    run(&study, dir.path()).unwrap();
    let want = results(dir.path());
    let path = dir.path().join("results.csv");
    let bytes = fs::read(&path).unwrap();
    let letter = bytes.iter().rposition(|byte| !byte.is_ascii()).unwrap();
    fs::write(&path, &bytes[..letter]).unwrap();
    assert_eq!(run(&study, dir.path()).unwrap().1, [1, 1, 1]);
    assert_eq!(results(dir.path()), want);
}

#[test]
fn a_folder_has_one_study_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let cells = vec![cell("prior", "sr4", Method::ancestral().steps(1))];
    let study = study(Source::scenes(1, 2).unwrap(), cells);
    let refused = Counter::new(0);
    let again = |event: Event<'_>| {
        if let Event::Done(..) = event {
            let error = run(&study, dir.path()).unwrap_err().to_string();
            let named = error.contains("results.csv: another study writes these results");
            assert!(named, "{error}");
            refused.set(refused.get() + 1);
        }
    };
    study.run(&Device::cpu(), dir.path(), &again).unwrap();
    assert_eq!(refused.get(), 2);
    run(&study, dir.path()).unwrap();
}

#[test]
fn results_of_another_study_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = small();
    other.cells.truncate(1);
    run(&other, dir.path()).unwrap();
    let before = fs::read(dir.path().join("results.csv")).unwrap();
    for (change, named) in [
        (
            (|s| s.cells[0].row = "DPS!".into()) as fn(&mut Study),
            "line 2: wanted a task, row and image of this one, got sr4,DPS,scene 0 of seed 1",
        ),
        (
            |s| s.images = Source::scenes(1, 4).unwrap(),
            "line 6: wanted a task, row and image of this one",
        ),
        (|s| s.images = Source::scenes(2, 5).unwrap(), "of seed 1"),
        (
            |s| s.cells[0].job.task = Task::super_resolution(2),
            "got sr4,DPS",
        ),
    ] {
        let mut study = other.clone();
        change(&mut study);
        let error = run(&study, dir.path()).unwrap_err().to_string();
        assert!(
            error.contains(named) && error.contains("results.csv"),
            "{error}"
        );
        assert_eq!(fs::read(dir.path().join("results.csv")).unwrap(), before);
    }
    // The lines are those of this one, but what they say would not be.
    let refused = |study: &Study, device: &Device, named: &str| {
        let error = study.run(device, dir.path(), &|_| ()).unwrap_err();
        let error = error.to_string();
        let whole = error.starts_with(named) && error.contains("study.json was written, got ");
        assert!(whole && error.contains("choose another folder"), "{error}");
        assert_eq!(fs::read(dir.path().join("results.csv")).unwrap(), before);
    };
    for (change, named) in [
        (
            (|s| s.images = Source::scenes(1, 6).unwrap()) as fn(&mut Study),
            "images: wanted 5 scenes of seed 1, 32x32",
        ),
        (|s| s.size = [32, 64], "images: wanted 5 scenes"),
        (|s| s.noise = 0.1, "noise: wanted 0.05"),
        (
            |s| s.cells[0].job.method.steps = 3,
            "row `DPS` on sr4, cell 1: wanted ",
        ),
        (
            |s| s.model = oracle::checkpoint("tiny-sd2"),
            "--model: wanted ",
        ),
        (
            |s| s.variants = vec![("add".into(), "plain".into())],
            "--variant: wanted ",
        ),
    ] {
        let mut study = other.clone();
        change(&mut study);
        refused(&study, &Device::cpu(), named);
    }
    let precise = Device::cpu().with_precision("f64").unwrap();
    refused(&other, &precise, "--precision: wanted f32");
    let head = dir.path().join(".posteriori/study.json");
    let text = fs::read_to_string(&head).unwrap();
    let version = concat!("posteriori ", env!("CARGO_PKG_VERSION"));
    fs::write(&head, text.replace(version, "posteriori 0.0.0")).unwrap();
    refused(&other, &Device::cpu(), "engine: wanted posteriori 0.0.0");
    fs::remove_file(&head).unwrap();
    let error = run(&other, dir.path()).unwrap_err().to_string();
    assert!(error.contains("study.json: is missing"), "{error}");
    // Where there is no result yet, everything may change.
    let header = String::from_utf8(before.clone()).unwrap();
    let header = header.split_inclusive('\n').next().unwrap();
    fs::write(dir.path().join("results.csv"), header).unwrap();
    other.noise = 0.1;
    run(&other, dir.path()).unwrap();
    fs::write(dir.path().join("results.csv"), "a,b\n1,2\n").unwrap();
    let error = run(&other, dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("line 1: wanted task,row,image,psnr"),
        "{error}"
    );
}

#[test]
fn what_is_measured_restored_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let method = Method::dps().steps(2).zeta(0.3);
    let again = Method::dps().steps(2).zeta(0.3);
    let cells = vec![cell("A", "sr4", method), cell("B", "sr4", again)];
    let (records, _) = run(&study(Source::scenes(1, 2).unwrap(), cells), dir.path()).unwrap();

    // by hand, from the parts
    let x = scenes::render(1, 1, [32, 32]).unwrap();
    let key = image_key("scene 1 of seed 1");
    let task = Task::super_resolution(4);
    let clean = Measurement::new(task.clone(), 0.0, 5, [32, 32]).unwrap();
    let mut y = clean.measure(&x, key).unwrap();
    let mut noise = vec![0.0_f32; y.pixels.len()];
    Stream::new(5, key, 0).normals(MEASUREMENT, 0, &mut noise);
    y.pixels
        .iter_mut()
        .zip(noise)
        .for_each(|(y, n)| *y += 0.05 * n);
    let noisy = Measurement::new(task.clone(), 0.05, 5, [32, 32]).unwrap();
    let drawn = noisy.measure(&x, key).unwrap();
    assert!(
        drawn
            .pixels
            .iter()
            .zip(&y.pixels)
            .all(|(a, b)| (a - b).abs() < 1e-6)
    );

    let pipeline = Pipeline::open(oracle::checkpoint("tiny-pixel"), Device::cpu()).unwrap();
    let item = Item {
        y: &drawn,
        key,
        sample: 0,
    };
    let job = Restore::new(task, method).seed(5);
    let restored = pipeline.restore_batch(&job, &[item], |_| ()).unwrap();
    let restored = restored.into_iter().next().unwrap().unwrap();
    let clamped = restored.image.pixels.iter().map(|v| v.clamp(-1.0, 1.0));
    let image = Image::new(32, 32, clamped.collect()).unwrap();
    let want = vec![
        psnr(&image, &x).unwrap(),
        ssim(&image, &x).unwrap(),
        restored.residual,
    ];
    assert_eq!(records[1].outcome, Ok(want.clone()));
    assert_eq!(records[3].outcome, Ok(want));
    // equal rows are paired to the bit
    let table = &tables(&records)[0];
    assert!(table.rows[1].differences.iter().all(|d| {
        let d = d.unwrap();
        [d.mean, d.low, d.high] == [0.0; 3]
    }));
}

#[test]
fn images_that_fail_are_told_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("x");
    fs::create_dir(&input).unwrap();
    for (name, side) in [("a.png", 32), ("d.png", 30), ("e.png", 64), ("f.png", 32)] {
        let image = scenes::render(0, 0, [64, 64]).unwrap();
        let rows = image.pixels.chunks(64 * 3).take(side);
        let cut = rows.flat_map(|row| row[..side * 3].to_vec()).collect();
        let cut = Image::new(side, side, cut).unwrap();
        save(input.join(name), &cut, Format::Png, &[]).unwrap();
    }
    fs::write(input.join("b.png"), "no image").unwrap();
    fs::write(input.join("c, \"c\".png"), "").unwrap();
    let cells = vec![
        cell("DPS", "sr4", Method::dps().steps(2).zeta(0.3)),
        cell("wild", "sr4", Method::dps().steps(3).zeta(1e300)),
    ];
    let study = Study {
        batch: 4,
        ..study(Source::folder(&input).unwrap(), cells)
    };
    study.check(&Device::cpu()).unwrap();
    let out = dir.path().join("out");
    let (records, _) = run(&study, &out).unwrap();
    let why: Vec<_> = records.iter().map(|r| r.outcome.as_ref().err()).collect();
    for i in [0, 4, 5] {
        assert_eq!(why[i], None);
        let wild = why[6 + i].unwrap();
        assert!(wild.starts_with("diverged at step"), "{wild}");
    }
    for i in [1, 2, 7, 8] {
        assert!(why[i].unwrap().contains(".png"), "{why:?}");
    }
    assert!(why[3].unwrap().contains("30"), "{why:?}");
    // grey is what failed; b.png has no row
    let sheet = read(out.join("sheet-sr4.png")).unwrap();
    assert_eq!([sheet.height, sheet.width], [24 + 132 + 4, 4 * 132 + 4]);
    let last = &sheet.pixels[(60 * sheet.width + 4 + 3 * 132) * 3..][..128 * 3];
    assert!(last.iter().all(|v| v.abs() < 1.01 / 255.0));
    // and they are read back as they are
    let lines = fs::read_to_string(out.join("results.csv")).unwrap();
    let (again, [found, tried, _]) = run(&study, &out).unwrap();
    assert_eq!((&again, found, tried), (&records, 3, 9));
    assert_eq!(fs::read_to_string(out.join("results.csv")).unwrap(), lines);
    let table = &tables(&records)[0];
    let [good, wild] = &table.rows[..] else {
        panic!("two rows")
    };
    assert_eq!((good.images, good.failed.len()), (3, 3));
    assert_eq!((wild.images, wild.failed.len(), wild.paired), (0, 6, 0));
    assert_eq!(wild.means[0], None);
}

#[test]
fn what_failed_is_tried_again_and_images_with_a_result_do_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("x");
    fs::create_dir(&input).unwrap();
    let draw = |name: &str, scene: u64| {
        let image = scenes::render(0, scene, [32, 32]).unwrap();
        save(input.join(name), &image, Format::Png, &[]).unwrap();
    };
    ["a.png", "c.png"].iter().for_each(|name| draw(name, 1));
    fs::write(input.join("b.png"), "no image").unwrap();
    let cells = vec![
        cell("DPS", "sr4", Method::dps().steps(1).zeta(0.3)),
        cell("prior", "sr4", Method::ancestral().steps(1)),
    ];
    let study = || study(Source::folder(&input).unwrap(), cells.clone());
    let out = dir.path().join("out");
    let (records, _) = run(&study(), &out).unwrap();
    let good = |all: &[Record]| -> Vec<bool> { all.iter().map(|r| r.outcome.is_ok()).collect() };
    assert_eq!(good(&records), [true, false, true, true, false, true]);
    let before = fs::read_to_string(out.join("results.csv")).unwrap();

    draw("b.png", 2);
    let (records, [found, tried, _]) = run(&study(), &out).unwrap();
    assert_eq!((found, tried), (4, 2));
    let (whole, _) = run(&study(), &dir.path().join("anew")).unwrap();
    let outcomes = |all: &[Record]| -> Vec<_> {
        let of = |r: &Record| (r.row.clone(), r.image.clone(), r.outcome.clone());
        all.iter().map(of).collect()
    };
    assert_eq!(outcomes(&records), outcomes(&whole));
    assert_eq!(good(&records), [true; 6]);
    // Two lines more, which hold.
    let after = fs::read_to_string(out.join("results.csv")).unwrap();
    assert!(after.starts_with(&before) && after.lines().count() == before.lines().count() + 2);
    let again = run(&study(), &out).unwrap();
    assert_eq!(again, (records, [6, 0, 0]));

    draw("a.png", 3);
    let error = run(&study(), &out).unwrap_err().to_string();
    assert!(error.starts_with("image a.png: wanted "), "{error}");
    assert_eq!(fs::read_to_string(out.join("results.csv")).unwrap(), after);
}

#[test]
fn what_cannot_be_is_told_before_anything_is_computed() {
    let told = |change: fn(&mut Study)| {
        let mut study = small();
        change(&mut study);
        study.check(&Device::cpu()).unwrap_err().to_string()
    };
    assert!(told(|s| s.model = "nowhere".into()).contains("nowhere"));
    assert!(told(|s| s.cells[4].cse = Some("no-cse".into())).contains("no-cse"));
    let steps = told(|s| s.cells[1].job.method.steps = 1001);
    assert!(
        steps.contains("row `DMAP, \"same\"` on sr4") && steps.contains("1001"),
        "{steps}"
    );
    let size = told(|s| s.cells[0].job.task = Task::super_resolution(5));
    assert!(size.contains("row `DPS` on sr5"), "{size}");
    assert!(told(|s| s.noise = -1.0).contains("sigma"));
    let empty = tempfile::tempdir().unwrap();
    let error = Source::folder(empty.path()).unwrap_err().to_string();
    assert!(error.contains("holds no images"), "{error}");
}

/// Predicts zero, and counts how often it is asked.
#[derive(Default)]
struct Counting(Counter<usize>);

impl Denoiser for Counting {
    fn predict(&self, cx: &Cx, x: &Tensor, _: &Tensor) -> Result<Tensor> {
        self.0.set(self.0.get() + 1);
        combine::forward(cx, &[(0.0, x)])
    }

    fn predict_vjp<'a>(
        &'a self,
        cx: &'a Cx,
        x: &Tensor,
        t: &Tensor,
    ) -> Result<(Tensor, Pullback<'a>)> {
        let zero = self.predict(cx, x, t)?;
        Ok((zero, Box::new(|dy| combine::forward(cx, &[(0.0, dy)]))))
    }
}

#[test]
fn network_calls_are_those_that_samplers_make() {
    let file = oracle::checkpoint("tiny-pixel").join("scheduler/scheduler_config.json");
    let schedule = Schedule::open(file).unwrap();
    let mut resample = Method::resample();
    if let Algorithm::Resample { solve, .. } = &mut resample.algorithm {
        solve.iterations = 2;
    }
    for (method, by_hand) in [
        (Method::ancestral().steps(7), 7),
        (Method::dps().steps(7), 7),
        (Method::dps().steps(5).zeta(0.0), 5),
        (Method::dmap().steps(7), 7 + 2 * 6),
        (Method::dmap_full().steps(1), 1),
        (
            Method::dmap_full().steps(5).coordinates(Coordinates::Vp),
            5 + 3 * 4,
        ),
        (Method::dsg().steps(4), 4),
        (Method::psld().steps(4), 4),
        // Steps 2 to 5 twice.
        (Method::freedom().steps(10), 10 + 4),
        (Method::freedom().steps(10).zeta(0.0), 10),
        // The decoder alone is called more often.
        (resample.steps(4), 4),
    ] {
        let job = Restore::new(Task::parse("denoise").unwrap(), method);
        let cx = &Cx::native();
        let operator = job.task.build(cx, [4, 4]).unwrap();
        let x = cx.upload(&[0.5_f32; 48], [1, 4, 4, 3]).unwrap();
        let denoiser = Counting::default();
        let problem = Problem {
            denoiser: &denoiser,
            guide: &denoiser,
            codec: &Pixels,
            measurement: Some(samplers::Measurement {
                operator: &*operator,
                y: &x,
            }),
            follow: Follow::Plain,
        };
        let steps = job.steps(&schedule).unwrap();
        let stream = [Stream::new(0, 0, 0)];
        let noise = |step: usize, draw| Draw::of(cx, &stream, step as u32, draw);
        let sampler = job.sampler();
        let start = x.clone();
        samplers::run(
            cx,
            &*sampler,
            &problem,
            &steps,
            start,
            &noise,
            samplers::Watch::NONE,
        )
        .unwrap();
        let counted = job.network_calls(&schedule).unwrap();
        assert_eq!(
            (denoiser.0.get(), counted),
            (by_hand, by_hand),
            "{method:?}"
        );
    }
}

#[test]
fn settings_that_leave_a_method_nothing_to_do_are_refused() {
    let file = oracle::checkpoint("tiny-pixel").join("scheduler/scheduler_config.json");
    let schedule = Schedule::open(file).unwrap();
    let ddim = |method: Method| Method {
        solver: Solver::Ddim { eta: 0.0 },
        ..method
    };
    let of = |algorithm| Method {
        algorithm,
        ..Method::dps().steps(10)
    };
    let freedom = |first, last| {
        of(Algorithm::Freedom {
            ascents: 2,
            window: Some([first, last]),
        })
    };
    let resample = |n| match Method::resample().algorithm {
        Algorithm::Resample { solve, .. } => of(Algorithm::Resample {
            every: Some(n),
            solve,
        }),
        other => unreachable!("{other:?}"),
    };
    for (method, words) in [
        (ddim(Method::dmap()), "steps that draw noise"),
        (ddim(Method::dsg()), "steps that draw noise"),
        (freedom(3, 2), "0 to 9, got 3..2"),
        (freedom(3, 10), "0 to 9, got 3..10"),
        (resample(0), "1 to 9, got 0"),
        (resample(10), "1 to 9, got 10"),
    ] {
        let job = Restore::new(Task::parse("denoise").unwrap(), method);
        let message = job.steps(&schedule).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
}
