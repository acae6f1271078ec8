//! The native variants of every op, by criterion, on the largest case of the op's own table.
//!
//! `cargo bench --bench ops [-- FILTER]`; FILTER is a regular expression over `op/variant`.
//! `posteriori bench` times every case, verified, and every launch of a model.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use posteriori::Cx;
use posteriori::ops::ALL;
use posteriori::ops::bench::{Bench, affordable};

fn ops(c: &mut Criterion) {
    let cx = Cx::native();
    for op in ALL {
        let cases = op.cases();
        let Some(case) = cases.iter().max_by_key(|case| case.cost().flops) else {
            continue;
        };
        let mut group = c.benchmark_group(op.name());
        let bench = Bench::new(&**case, &cx).expect("the case is of the op's own table");
        for variant in affordable(&**case, cx.rt()) {
            let measured = bench.measure(variant).expect("it takes this case");
            assert!(measured.row.passed(), "{}", measured.row.worst);
            let ready = bench.ready(variant).expect("there was room for it before");
            group.bench_function(variant, |b| b.iter(|| ready.launch()));
        }
        group.finish();
    }
}

fn quick() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_millis(200))
}

criterion_group! { name = benches; config = quick(); targets = ops }
criterion_main!(benches);
