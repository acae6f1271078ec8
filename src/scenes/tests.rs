//! Scenes against themselves at other sizes, and their parts against closed forms and published values.

use super::colour::Colour;
use super::lettering::{GLYPHS, WORDS, lines};
use super::outline::Outline;
use super::texture::{LATTICE, Texture};
use super::*;

/// Of scene 0 of seed 0, 0 of 1, 1 of 0.
const PINNED: [u64; 3] = [0xd2437f12dca6268d, 0x5df3197e5101c8fd, 0x9276637e1d74a70c];

/// FNV-1a of the bits of all pixels.
fn checksum(image: &Image) -> u64 {
    let bytes = image.pixels.iter().flat_map(|v| v.to_bits().to_le_bytes());
    bytes.fold(0xCBF2_9CE4_8422_2325, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}

/// Every pixel of the result is the mean of a square of `factor x factor` pixels.
fn reduced(image: &Image, factor: usize) -> Image {
    let (height, width) = (image.height / factor, image.width / factor);
    let mut pixels = vec![0.0; height * width * 3];
    for (i, pixel) in image.pixels.chunks_exact(3).enumerate() {
        let (y, x) = (i / image.width / factor, i % image.width / factor);
        for (k, v) in pixel.iter().enumerate() {
            pixels[(y * width + x) * 3 + k] += v / (factor * factor) as f32;
        }
    }
    Image::new(width, height, pixels).unwrap()
}

/// The pinned checksums hold the claim of the same bits on every platform to account, and tell whoever changes
/// how scenes are made that all of them changed.
#[test]
fn a_scene_is_a_function_of_seed_and_index() {
    let scene = |seed, index| checksum(&render(seed, index, [64, 64]).unwrap());
    let mut all: Vec<u64> = (0..20).map(|i| scene(i % 2, i / 2)).collect();
    assert_eq!(scene(1, 3), all[7]);
    assert_eq!(all[..3], PINNED, "{:x?}", &all[..3]);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 20);
    for seed in 0..20 {
        let image = render(seed, u64::MAX - seed, [40, 33]).unwrap();
        assert!(image.pixels.iter().all(|v| (-1.0..=1.0).contains(v)));
        let spread = |k: usize| {
            let values = image.pixels.iter().skip(k).step_by(3);
            let (low, high) = values.fold((1f32, -1f32), |(l, h), v| (l.min(*v), h.max(*v)));
            high - low
        };
        assert!((0..3).any(|k| spread(k) > 0.3), "seed {seed} is flat");
    }
}

/// An edge's coverage is exact for horizontal and vertical edges; for diagonal ones it is off by up to 0.06, which
/// is 0.12 between black and white. More than that happens only where two edges share a pixel: at corners,
/// on thin lines, where a texture meets a border. That is a small part of a picture.
#[test]
fn the_same_picture_at_any_size() {
    for (seed, size) in [(0, [64, 64]), (1, [64, 64]), (2, [64, 96]), (3, [48, 32])] {
        for index in 0..5 {
            let small = render(seed, index, size).unwrap();
            for factor in [2, 4] {
                let large = render(seed, index, size.map(|side| side * factor)).unwrap();
                let large = reduced(&large, factor);
                let errors = small
                    .pixels
                    .iter()
                    .zip(&large.pixels)
                    .map(|(a, b)| (a - b).abs());
                let count = small.pixels.len() as f32;
                let off = errors.clone().filter(|e| *e > 0.12).count() as f32 / count;
                let mean = errors.sum::<f32>() / count;
                assert!(
                    mean < 0.01 && off < 0.02,
                    "{seed} {index} {factor}: {mean} {off}"
                );
            }
        }
    }
}

#[test]
fn sizes_that_cannot_be_drawn_are_refused() {
    for size in [[0, 0], [31, 64], [64, 31], [8193, 64], [usize::MAX, 64]] {
        let text = render(0, 0, size).unwrap_err().to_string();
        assert!(text.contains("wanted sides of 32 to 8192 pixels"), "{text}");
    }
    assert!(render(0, 0, [32, 32]).is_ok());
}

/// The values that OKLab's page and CSS Color 4 print for sRGB's red and white, and the gamut.
#[test]
fn colours_are_oklab() {
    let colour = |lightness, chroma, hue: f64| Colour {
        lightness,
        chroma,
        hue: hue / 360.0,
    };
    let close = |a: Rgb, b: Rgb| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 2e-3);
    assert!(close(
        colour(0.627955, 0.257683, 29.2339).rgb(),
        [1.0, 0.0, 0.0]
    ));
    assert!(close(colour(1.0, 0.0, 0.0).rgb(), [1.0; 3]));
    assert!(close(colour(0.0, 0.0, 0.0).rgb(), [0.0; 3]));
    // (0.2126 + 0.7152 + 0.0722 = 1 of linear light) l^3 = 0.2140 is sRGB's middle grey, 0.5
    assert!(close(colour(0.5982, 0.0, 77.0).rgb(), [0.5; 3]));
    assert!((colour(1.0, 0.0, 0.0).distance(colour(0.0, 0.0, 0.5)) - 1.0).abs() < 1e-12);
    for hue in 0..36 {
        let rgb = colour(0.9, 0.4, f64::from(10 * hue)).rgb();
        assert!(rgb.iter().all(|v| (0.0..=1.0).contains(v)));
    }
}

#[test]
fn distances_are_distances() {
    let square = vec![[0.2, 0.2], [-0.2, 0.2], [-0.2, -0.2], [0.2, -0.2]];
    let half = [0.3, 0.2];
    let outlines = [
        Outline::Ellipse([0.2, 0.2]),
        Outline::Rectangle { half, radius: 0.0 },
        Outline::Rectangle { half, radius: 0.1 },
        Outline::Polygon {
            corners: square.clone(),
            radius: 0.0,
        },
        Outline::Polygon {
            corners: square,
            radius: 0.05,
        },
        Outline::Ring {
            radius: 0.3,
            width: 0.1,
        },
        Outline::Strokes {
            lines: vec![[[-0.2, 0.0], [0.2, 0.0]]],
            width: 0.1,
        },
    ];
    // at (0.5, 0), (0.1, 0), (0.5, 0.5)
    let root = f64::sqrt;
    let want = [
        [0.3, -0.1, root(0.5) - 0.2],
        [0.2, -0.2, root(0.04 + 0.09)],
        [0.2, -0.2, root(0.09 + 0.16) - 0.1],
        [0.3, -0.1, root(0.18)],
        [0.25, -0.15, root(0.18) - 0.05],
        [0.15, 0.15, root(0.5) - 0.35],
        [0.25, -0.05, root(0.09 + 0.25) - 0.05],
    ];
    for (i, (outline, want)) in outlines.iter().zip(want).enumerate() {
        for (p, want) in [[0.5, 0.0], [0.1, 0.0], [0.5, 0.5]].into_iter().zip(want) {
            let got = outline.distance(p);
            assert!(
                (got - want).abs() < 1e-12,
                "outline {i} at {p:?}: {got}, not {want}"
            );
        }
        let mut random = Philox::new(i as u64);
        for _ in 0..500 {
            let [p, q] = [(); 2].map(|()| [(); 2].map(|()| random.uniform() - 0.5));
            let apart = ((p[0] - q[0]).powi(2) + (p[1] - q[1]).powi(2)).sqrt();
            let slope = (outline.distance(p) - outline.distance(q)).abs();
            assert!(slope <= apart + 1e-12, "outline {i}: {p:?} {q:?}");
            let beyond = p[0].hypot(p[1]) - outline.reach();
            assert!(
                outline.distance(p) >= beyond - 1e-12,
                "outline {i} reaches {p:?}"
            );
        }
    }
    // an ellipse: exact on the border, its sign everywhere, first order beside it
    let ellipse = Outline::Ellipse([0.3, 0.2]);
    for i in 0..20 {
        let (sin, cos) = f64::sin_cos(f64::from(i));
        let normal = [cos / 0.3, sin / 0.2].map(|v| v / (cos / 0.3).hypot(sin / 0.2));
        for step in [-0.01, 0.0, 0.01] {
            let p = [0.3 * cos + step * normal[0], 0.2 * sin + step * normal[1]];
            let curvature = 0.3 / (0.2 * 0.2);
            assert!((ellipse.distance(p) - step).abs() <= curvature * step * step + 1e-12);
        }
    }
    assert!(ellipse.distance([0.0, 0.0]) < 0.0);
}

/// Half of stripes and of a chessboard, `pi 0.28^2` of the dots, and noise within its values.
#[test]
fn textures_cover_what_they_say() {
    let period = 0.125;
    let mean = |texture: &Texture| {
        let n = 256;
        let at = |i: usize| (i as f64 + 0.5) / n as f64 * 4.0 * period;
        let sum: f64 = (0..n * n)
            .map(|i| texture.at([at(i / n), at(i % n)], 0.01))
            .sum();
        sum / (n * n) as f64
    };
    assert!((mean(&Texture::Stripes { period }) - 0.5).abs() < 1e-3);
    assert!((mean(&Texture::Checks { period }) - 0.5).abs() < 1e-3);
    let dots = std::f64::consts::PI * 0.28 * 0.28;
    assert!((mean(&Texture::Dots { period }) - dots).abs() < 3e-3);
    let values: Vec<f64> = (0..LATTICE * LATTICE)
        .map(|i| (i % 7) as f64 / 6.0)
        .collect();
    let noise = Texture::Noise {
        period,
        values: values.clone(),
    };
    for (i, want) in values.iter().enumerate() {
        let p = [i % LATTICE, i / LATTICE].map(|v| v as f64 * period);
        assert!((noise.at(p, 0.01) - want).abs() < 1e-12);
        assert!((noise.at(p.map(|v| v - LATTICE as f64 * period), 0.01) - want).abs() < 1e-9);
        let between = noise.at(p.map(|v| v + 0.3 * period), 0.01);
        assert!((0.0..=1.0).contains(&between));
    }
}

#[test]
fn every_character_has_a_glyph_of_its_own() {
    let mut seen = Vec::new();
    for (c, _) in GLYPHS {
        let (glyph, height) = lines(&c.to_string(), 1.0, 2.0);
        assert_eq!(height, 1.0);
        let ys = glyph.iter().flatten().map(|p| p[1]);
        let (top, bottom) = ys.fold((1f64, -1f64), |(t, b), y| (t.min(y), b.max(y)));
        assert!(
            (top + 0.5).abs() < 1e-12 && (bottom - 0.5).abs() < 1e-12,
            "{c}"
        );
        let xs = glyph.iter().flatten().map(|p| p[0]);
        let (left, right) = xs.fold((1f64, -1f64), |(l, r), x| (l.min(x), r.max(x)));
        assert!((left + right).abs() < 1e-12 && right <= 0.5, "{c}");
        assert!(!seen.contains(&glyph), "{c}");
        seen.push(glyph);
    }
    for word in WORDS {
        let glyphs = word
            .chars()
            .map(|c| lines(&c.to_string(), 1.0, 2.0).0.len());
        let (whole, height) = lines(word, 0.3, 0.82);
        assert_eq!(whole.len(), glyphs.sum::<usize>(), "{word}");
        assert!(height > 1.0 / 6.0, "{word}");
        assert!(
            whole.iter().flatten().all(|p| p[0].abs() <= 0.41 + 1e-12),
            "{word}"
        );
    }
}
