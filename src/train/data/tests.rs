//! Orders against permutations, resizing, crops and colours against values by hand, folders with all that can be
//! wrong in them.

use std::collections::BTreeMap;
use std::path::Path;

use super::augment::random_crop;
use super::jitter::Change;
use super::*;
use crate::operators::matrix::Banded;
use crate::rng::Philox;

fn painted(height: usize, width: usize, colour: impl Fn(usize, usize) -> [f32; 3]) -> Image {
    let pixels = (0..height * width).flat_map(|i| colour(i / width, i % width));
    Image::new(width, height, pixels.collect()).unwrap()
}

fn grey(height: usize, width: usize, level: f32) -> Image {
    painted(height, width, |_, _| [level; 3])
}

#[test]
fn every_epoch_is_a_permutation_of_its_own() {
    for count in [1, 2, 3, 4, 5, 16, 17, 1000, 4097] {
        let order = Order::new(count, 7).unwrap();
        let epoch = |e: usize| -> Vec<usize> {
            let positions = e * count..(e + 1) * count;
            positions.map(|k| order.at(k as u64)).collect()
        };
        for e in 0..3 {
            let mut all = epoch(e);
            let from: Vec<usize> = order.from((e * count + count / 2) as u64).collect();
            let rotated = [&all[count / 2..], &all[..count / 2]].concat();
            assert_eq!(from, rotated);
            all.sort_unstable();
            assert!(all.into_iter().eq(0..count), "{count}");
        }
        if count > 15 {
            assert!(epoch(0) != epoch(1) && epoch(1) != epoch(2), "{count}");
            assert_ne!(epoch(0), (0..count).collect::<Vec<_>>());
            let other = Order::new(count, 8).unwrap();
            assert_ne!(
                epoch(0),
                (0..count as u64).map(|k| other.at(k)).collect::<Vec<_>>()
            );
        }
    }
    let text = Order::new(0, 7).unwrap_err().to_string();
    assert_eq!(text, "training images: wanted at least one, got none");
    let far = Order::new(usize::MAX, 1).unwrap();
    assert!(far.at(u64::MAX) != far.at(u64::MAX - 1));
}

/// Every image is as often at every place: within five standard deviations of a binomial count.
#[test]
fn orders_are_fair() {
    let epochs = 6000;
    for count in [3usize, 5, 12] {
        let order = Order::new(count, 1).unwrap();
        let mut counts = vec![0u32; count * count];
        let mut seen = BTreeMap::new();
        for e in 0..epochs {
            let all: Vec<usize> = order.from((e * count) as u64).collect();
            for (place, index) in all.iter().enumerate() {
                counts[place * count + index] += 1;
            }
            *seen.entry(all).or_insert(0u32) += 1;
        }
        let p = 1.0 / count as f64;
        let (mean, deviation) = (epochs as f64 * p, (epochs as f64 * p * (1.0 - p)).sqrt());
        for n in counts {
            assert!(
                (f64::from(n) - mean).abs() < 5.0 * deviation,
                "{count}: {n} of {mean}"
            );
        }
        match count {
            3 => assert_eq!(seen.len(), 6),
            5 => assert_eq!(seen.len(), 120),
            _ => assert!(seen.len() > epochs - 10),
        }
    }
}

#[test]
fn resizing_is_the_triangle_filter() {
    let rows = |n_in, n_out| {
        let matrix = Banded::bilinear_resize(n_in, n_out).unwrap();
        (0..n_out)
            .map(|r| matrix.row(r).collect())
            .collect::<Vec<Vec<_>>>()
    };
    // by hand: half the size has the taps 1 3 3 1, cut at the borders; twice the size 3/4 and 1/4
    assert_eq!(
        rows(6, 3)[1],
        [(1, 0.125), (2, 0.375), (3, 0.375), (4, 0.125)]
    );
    let border = [3.0 / 7.0, 3.0 / 7.0, 1.0 / 7.0];
    for (got, want) in rows(6, 3)[0].iter().zip(border) {
        assert!((got.1 - want).abs() < 1e-15);
    }
    assert_eq!(rows(3, 6)[1], [(0, 0.75), (1, 0.25)]);
    assert_eq!(rows(3, 6)[0], [(0, 1.0)]);
    assert_eq!(rows(5, 5)[3], [(3, 1.0)]);
    for (n_in, n_out) in [(64, 17), (17, 64), (1, 9), (9, 1), (100, 99), (640, 64)] {
        let scale = n_in as f64 / n_out as f64;
        for (o, row) in rows(n_in, n_out).iter().enumerate() {
            let sum: f64 = row.iter().map(|tap| tap.1).sum();
            assert!((sum - 1.0).abs() < 1e-12);
            // away from the borders a ramp keeps its value at the centre: enlarged, two taps interpolate it; reduced
            // by a whole number, the taps lie symmetrically about it
            let centre = (o as f64 + 0.5) * scale - 0.5;
            let inside =
                centre - scale.max(1.0) > 0.0 && centre + scale.max(1.0) < n_in as f64 - 1.0;
            if inside && (scale <= 1.0 || scale.fract() == 0.0) {
                let ramp: f64 = row.iter().map(|(i, weight)| *i as f64 * weight).sum();
                assert!((ramp - centre).abs() < 1e-11, "{n_in} {n_out} {o}");
            }
        }
    }
    assert!(Banded::bilinear_resize(0, 5).is_err() && Banded::bilinear_resize(5, 0).is_err());
}

#[test]
fn without_augmentation_the_middle_is_taken() {
    let none = Augment::none([8, 8]);
    for value in [-1.0, -0.3, 1.0] {
        let got = none.apply(&grey(37, 53, value), 1, 2).unwrap();
        assert_eq!((got.height, got.width), (8, 8));
        assert!(got.pixels.iter().all(|v| *v == value));
    }
    // the same size is the same image, a square in a wider image of its height is cut out
    let image = painted(8, 14, |y, x| [y as f32 / 8.0, x as f32 / 14.0, 0.0]);
    let middle = painted(8, 8, |y, x| [y as f32 / 8.0, (x + 3) as f32 / 14.0, 0.0]);
    assert_eq!(none.apply(&image, 0, 0).unwrap(), middle);
    assert_eq!(Augment::none([8, 14]).apply(&image, 0, 0).unwrap(), image);
    // twice as large: a ramp's value in the middle of two pixels, away from the borders
    let ramp = painted(16, 40, |y, x| [y as f32 / 16.0, x as f32 / 40.0, 0.5]);
    let got = none.apply(&ramp, 0, 0).unwrap();
    for (i, pixel) in got.pixels.chunks_exact(3).enumerate() {
        let (y, x) = (i / 8, i % 8);
        if (1..7).contains(&y) {
            assert!((pixel[0] - (2.0 * y as f32 + 0.5) / 16.0).abs() < 1e-6);
        }
        assert!((pixel[1] - (2.0 * (x + 6) as f32 + 0.5) / 40.0).abs() < 1e-6);
        assert!((pixel[2] - 0.5).abs() < 1e-7);
    }
}

#[test]
fn crops_have_the_area_and_ratio_asked_for() {
    let mut random = Philox::new(3);
    let mut corners = [0; 2];
    for _ in 0..500 {
        let [down, across] = random_crop(&mut random, [400, 300], (0.2, 0.6));
        assert!(down.first + down.length <= 400 && across.first + across.length <= 300);
        corners[0] += down.first;
        corners[1] += across.first;
        // rounding a side moves it by half a pixel
        let (h, w) = (down.length as f64, across.length as f64);
        assert!(
            (h - 0.5) * (w - 0.5) <= 0.6 * 120_000.0 && (h + 0.5) * (w + 0.5) >= 0.2 * 120_000.0
        );
        assert!((w - 0.5) / (h + 0.5) <= 4.0 / 3.0 && (w + 0.5) / (h - 0.5) >= 0.75);
    }
    assert!(corners.iter().all(|sum| *sum > 0));
}

#[test]
fn areas_above_the_image_fall_back_to_the_middle() {
    for (sides, want) in [
        ([100, 100], [(0, 100), (0, 100)]),
        ([100, 200], [(0, 100), (33, 133)]),
        ([100, 40], [(23, 53), (0, 40)]),
    ] {
        for seed in 0..20 {
            let got = random_crop(&mut Philox::new(seed), sides, (1.5, 2.0));
            assert_eq!(got.map(|side| (side.first, side.length)), want);
        }
    }
    // the paper's 0.8 to 2: an attempt fits when the area is below 1 and both sides are, so most are the middle
    let whole = (0..1000)
        .map(|seed| random_crop(&mut Philox::new(seed), [512, 512], (0.8, 2.0)))
        .filter(|crop| crop.iter().all(|side| side.length == 512))
        .count();
    assert!((500..1000).contains(&whole), "{whole}");
}

#[test]
fn colours_change_as_defined() {
    let close = |got: &[[f64; 3]], want: &[[f64; 3]]| {
        let pairs = got.iter().flatten().zip(want.iter().flatten());
        assert!(
            pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-12),
            "{got:?}, not {want:?}"
        );
    };
    let brick = [0.8, 0.4, 0.2];
    let changed = |change: Change, pixels: &[[f64; 3]]| {
        let mut pixels = pixels.to_vec();
        change.apply(&mut pixels);
        pixels
    };
    close(
        &changed(Change::Brightness(1.1), &[brick]),
        &[[0.88, 0.44, 0.22]],
    );
    close(
        &changed(Change::Brightness(1.5), &[brick]),
        &[[1.0, 0.6, 0.3]],
    );
    // the brick's grey is 0.2392 + 0.2348 + 0.0228 = 0.4968; beside white the mean is 0.7484
    close(
        &changed(Change::Saturation(0.5), &[brick]),
        &[[0.6484, 0.4484, 0.3484]],
    );
    close(
        &changed(Change::Contrast(0.5), &[brick, [1.0; 3]]),
        &[[0.7742, 0.5742, 0.4742], [0.8742; 3]],
    );
    for (turn, want) in [
        (1.0 / 3.0, [0.2, 0.8, 0.4]),
        (-1.0 / 3.0, [0.4, 0.2, 0.8]),
        (0.5, [0.2, 0.6, 0.8]),
        (0.0, brick),
    ] {
        close(&changed(Change::Hue(turn), &[brick]), &[want]);
    }
    // yellow is between red and green; a tenth of a turn from red is 6/10 of the way to it
    close(
        &changed(Change::Hue(0.1), &[[1.0, 0.0, 0.0]]),
        &[[1.0, 0.6, 0.0]],
    );
    close(
        &changed(Change::Hue(-0.1), &[[1.0, 0.0, 0.0]]),
        &[[1.0, 0.0, 0.6]],
    );
    close(
        &changed(Change::Hue(0.3), &[[0.5; 3], [0.0; 3]]),
        &[[0.5; 3], [0.0; 3]],
    );
}

#[test]
fn augmentations_are_functions_of_seed_and_position() {
    let image = painted(40, 48, |y, x| [y as f32 / 40.0, x as f32 / 48.0, 0.2]);
    let paper = Augment::paper([32, 32]);
    let crop = |seed, position| paper.apply(&image, seed, position).unwrap();
    assert_eq!(crop(1, 5), crop(1, 5));
    assert!(crop(1, 5) != crop(1, 6) && crop(1, 5) != crop(2, 5));
    for position in 0..50 {
        let got = crop(3, position);
        assert!(got.pixels.iter().all(|v| (-1.0..=1.0).contains(v)));
    }
    // flips alone: half of the time the mirror image, else the image
    let flips = Augment {
        flip: 0.5,
        ..Augment::none([40, 48])
    };
    let mirrored = painted(40, 48, |y, x| {
        [y as f32 / 40.0, (47 - x) as f32 / 48.0, 0.2]
    });
    let count = (0..400).filter(|k| {
        let got = flips.apply(&image, 0, *k).unwrap();
        assert!(got == image || got == mirrored);
        got == mirrored
    });
    // five standard deviations of 400 coins are 50
    assert!((150..=250).contains(&count.count()));
}

#[test]
fn settings_and_images_that_cannot_be_meant_are_refused() {
    let good = Augment::paper([32, 48]);
    let text = |augment: Augment| {
        let image = grey(64, 64, 0.0);
        augment.apply(&image, 0, 0).unwrap_err().to_string()
    };
    let scale = |a, b| Augment {
        scale: Some((a, b)),
        ..good.clone()
    };
    for bad in [
        scale(0.0, 1.0),
        scale(1.0, 0.5),
        scale(0.5, f64::INFINITY),
        scale(f64::NAN, 1.0),
    ] {
        assert!(text(bad).starts_with("augmentation, scale: wanted"));
    }
    assert!(
        text(Augment {
            size: [0, 4],
            ..good.clone()
        })
        .contains("got 0 x 4")
    );
    assert!(
        text(Augment {
            size: [4, usize::MAX],
            ..good.clone()
        })
        .contains("1 to 8192")
    );
    assert!(
        text(Augment {
            flip: 1.5,
            ..good.clone()
        })
        .contains("flip: wanted a probability")
    );
    assert!(
        text(Augment {
            jitter: 0.6,
            ..good.clone()
        })
        .contains("jitter: wanted 0 to 0.5, got 0.6")
    );
    let small = good
        .apply(&grey(31, 99, 0.0), 0, 0)
        .unwrap_err()
        .to_string();
    assert!(
        small.contains("short side of at least 32 pixels (height x width), got 31 x 99"),
        "{small}"
    );
    assert!(good.apply(&grey(32, 33, 0.0), 0, 0).is_ok());
    let none = Augment::none([32, 48]);
    let small = none
        .apply(&grey(99, 47, 0.0), 0, 0)
        .unwrap_err()
        .to_string();
    assert!(
        small.contains("at least 32 x 48 pixels (height x width), got 99 x 47"),
        "{small}"
    );
    let mut broken = grey(64, 64, 0.0);
    broken.pixels.pop();
    assert!(good.apply(&broken, 0, 0).is_err());
}

/// A folder of four images, told apart by their grey, and three files that are none.
fn folder(root: &Path) -> Source {
    std::fs::create_dir(root.join("inner")).unwrap();
    for (i, name) in ["a.png", "b.png", "inner/c.png", "inner/d.png"]
        .iter()
        .enumerate()
    {
        grey(36 + i, 40, i as f32 / 4.0)
            .save(root.join(name))
            .unwrap();
    }
    grey(20, 90, 0.9).save(root.join("small.png")).unwrap();
    std::fs::write(root.join("note.jpg"), "no image").unwrap();
    let whole = std::fs::read(root.join("a.png")).unwrap();
    std::fs::write(root.join("inner/cut.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(root.join("readme.txt"), "not listed").unwrap();
    Source::folder(root).unwrap()
}

#[test]
fn a_folder_has_its_images_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let text = Source::folder(dir.path()).unwrap_err().to_string();
    assert!(
        text.starts_with(&dir.path().display().to_string()) && text.contains("holds no images"),
        "{text}"
    );
    let text = Source::folder(dir.path().join("none"))
        .unwrap_err()
        .to_string();
    assert!(text.contains("none: wanted a folder"), "{text}");
    let source = folder(dir.path());
    let names: Vec<String> = (0..source.count())
        .map(|i| source.name(i).unwrap())
        .collect();
    let want = [
        "a.png",
        "b.png",
        "inner/c.png",
        "inner/cut.png",
        "inner/d.png",
        "note.jpg",
        "small.png",
    ];
    assert_eq!(names, want);
    assert_eq!(source.get(4, [1, 1]).unwrap().height, 39);
    for error in [
        source.name(7).unwrap_err(),
        source.get(7, [1, 1]).unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("wanted a number below 7"),
            "{error}"
        );
    }
    let subset = |n| {
        let subset = source.subset(n, 42).unwrap();
        (0..n).map(|i| subset.name(i).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(subset(3), subset(7)[..3]);
    assert_ne!(subset(7), names);
    let mut all = subset(7);
    all.sort_unstable();
    assert_eq!(all, names);
    for n in [0, 8] {
        let text = source.subset(n, 42).unwrap_err().to_string();
        assert!(text.contains("wanted 1 to 7 images"), "{text}");
    }
}

#[test]
fn what_cannot_be_used_is_skipped_and_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let source = folder(dir.path());
    let batches = || Batches::new(source.clone(), Augment::none([32, 32]), 5).unwrap();
    let (images, skipped) = batches().batch(0, 70).unwrap();
    let mut names: Vec<&str> = skipped.iter().map(|s| s.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["inner/cut.png", "note.jpg", "small.png"]);
    for one in &skipped {
        assert!(!one.why.contains(&one.name), "{}: {}", one.name, one.why);
    }
    let small = skipped.iter().find(|s| s.name == "small.png").unwrap();
    assert!(small.why.ends_with("got 20 x 90"), "{}", small.why);
    // in ten epochs each good image comes ten times, and thirty times one in the place of another
    let level = |image: &Image| (image.pixels[0] * 4.0).round() as usize;
    let mut counts = [0; 4];
    images.iter().for_each(|image| counts[level(image)] += 1);
    assert!(counts.iter().all(|n| *n >= 10) && counts.iter().sum::<i32>() == 70);
    // the same from anywhere, in parts, and on any number of threads
    let parts = batches();
    let mut told = Vec::new();
    for (first, n) in [(50, 20), (0, 1), (1, 6), (7, 43)] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(1 + n % 4)
            .build()
            .unwrap();
        let (part, skipped) = pool.install(|| parts.batch(first, n)).unwrap();
        assert_eq!(part, images[first as usize..][..n]);
        told.extend(skipped);
    }
    assert_eq!(told.len(), 3);
    assert!(batches().batch(3, 0).unwrap().0.is_empty());
}

#[test]
fn a_folder_of_unusable_images_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["x.png", "y.png"] {
        std::fs::write(dir.path().join(name), "no image").unwrap();
    }
    let source = Source::folder(dir.path()).unwrap();
    let batches = Batches::new(source, Augment::none([32, 32]), 5).unwrap();
    for _ in 0..2 {
        let text = batches.batch(0, 3).unwrap_err().to_string();
        assert!(
            text.starts_with(&dir.path().display().to_string()),
            "{text}"
        );
        assert!(
            text.contains("none of the 2 training images can be used; the last, "),
            "{text}"
        );
        assert!(text.contains("is no image of a known kind"), "{text}");
    }
}

#[test]
fn scenes_are_a_source() {
    let source = Source::scenes(9, 20).unwrap();
    assert_eq!(
        (source.count(), source.name(3).unwrap()),
        (20, "scene 3 of seed 9".to_owned())
    );
    assert_eq!(source.subset(5, 1).unwrap().count(), 5);
    let batches = Batches::new(source.clone(), Augment::none([32, 48]), 1).unwrap();
    let (images, skipped) = batches.batch(17, 8).unwrap();
    assert!(skipped.is_empty());
    let order = Order::new(20, 1).unwrap();
    for (k, image) in (17..).zip(images) {
        assert_eq!(
            image,
            crate::scenes::render(9, order.at(k) as u64, [32, 48]).unwrap()
        );
    }
    assert!(Source::scenes(9, 0).is_err());
    let text = Batches::new(source, Augment::none([16, 16]), 1)
        .unwrap_err()
        .to_string();
    assert!(text.contains("wanted sides of 32 to 8192 pixels"), "{text}");
}
