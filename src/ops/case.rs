//! An op and one of its keys, with the types erased: what `check` and `bench` walk.

use std::any::Any;

use crate::cx::Cx;
use crate::dtype::DType;
use crate::error::Result;
use crate::ops::variant::{Key, Op, Spec};
use crate::runtime::kernel::{Plan, Target};
use crate::runtime::{Arg, Cost};

/// An op in one direction, of any key type.
pub trait AnyOp: Sync {
    /// `room.direction`.
    fn name(&self) -> &'static str;
    /// The names of the variants, fastest first; the last is the textbook one.
    fn variants(&self) -> Vec<&'static str>;
    /// The cases that checks and benches run.
    fn cases(&'static self) -> Vec<Box<dyn AnyCase>>;
    /// The case of a key that [`Cx::counted`] came across; `None` when it is another op's.
    fn case(&'static self, key: &(dyn Any + Send + Sync)) -> Option<Box<dyn AnyCase>>;
}

/// One launch of an op, of any key type.
pub trait AnyCase {
    /// Its op.
    fn op(&self) -> &'static dyn AnyOp;
    /// Its key, printed.
    fn key(&self) -> String;
    /// The element type of the activations.
    fn dtype(&self) -> DType;
    /// The same case in another element type.
    fn with_dtype(&self, dtype: DType) -> Box<dyn AnyCase>;
    /// The arguments, in order.
    fn args(&self) -> Vec<Spec>;
    /// What it costs at least.
    fn cost(&self) -> Cost;
    /// The variants that take it, fastest first.
    fn variants(&self, target: Target) -> Vec<&'static str>;
    /// The variant that [`AnyCase::launch`] would run.
    ///
    /// # Errors
    /// As [`Op::pick`].
    fn pick(&self, cx: &Cx) -> Result<&'static str>;
    /// The kernels that [`AnyCase::launch`] would launch; `None` on the processors.
    ///
    /// # Errors
    /// As [`Op::pick`].
    fn plan(&self, cx: &Cx) -> Result<Option<Plan>>;
    /// Runs it.
    ///
    /// # Errors
    /// As [`Op::launch`].
    fn launch(&self, cx: &Cx, args: &[Arg<'_>]) -> Result<()>;
}

struct Case<K: Key> {
    op: &'static Op<K>,
    key: K,
}

impl<K: Key> AnyOp for Op<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn variants(&self) -> Vec<&'static str> {
        self.variants.iter().map(|v| v.name).collect()
    }

    fn cases(&'static self) -> Vec<Box<dyn AnyCase>> {
        let case = |key| Box::new(Case { op: self, key }) as Box<dyn AnyCase>;
        (self.cases)().into_iter().map(case).collect()
    }

    fn case(&'static self, key: &(dyn Any + Send + Sync)) -> Option<Box<dyn AnyCase>> {
        let key = key.downcast_ref::<K>()?.clone();
        Some(Box::new(Case { op: self, key }))
    }
}

impl<K: Key> AnyCase for Case<K> {
    fn op(&self) -> &'static dyn AnyOp {
        self.op
    }

    fn key(&self) -> String {
        format!("{:?}", self.key)
    }

    fn dtype(&self) -> DType {
        self.key.dtype()
    }

    fn with_dtype(&self, dtype: DType) -> Box<dyn AnyCase> {
        let key = self.key.with_dtype(dtype);
        Box::new(Case { key, ..*self })
    }

    fn args(&self) -> Vec<Spec> {
        self.key.args()
    }

    fn cost(&self) -> Cost {
        let bytes = |spec: &Spec| (spec.len * spec.dtype(self.dtype()).size()) as u64;
        Cost {
            flops: self.key.flops(),
            bytes: self.args().iter().map(bytes).sum(),
        }
    }

    fn variants(&self, target: Target) -> Vec<&'static str> {
        let takes = self
            .op
            .variants
            .iter()
            .filter(|v| v.takes(target, &self.key));
        takes.map(|v| v.name).collect()
    }

    fn pick(&self, cx: &Cx) -> Result<&'static str> {
        Ok(self.op.pick(cx, &self.key)?.name)
    }

    fn plan(&self, cx: &Cx) -> Result<Option<Plan>> {
        Ok(self.op.pick(cx, &self.key)?.plan(&self.key))
    }

    fn launch(&self, cx: &Cx, args: &[Arg<'_>]) -> Result<()> {
        self.op.launch(cx, &self.key, args)
    }
}
