//! What the compiler makes of a kernel, told without a GPU: registers, shared memory, spills, and what its
//! PTX holds of tensor-core instructions and 16-byte loads.

use super::modules::Module;
use super::nvrtc::Nvrtc;

/// One kernel for one GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The entry.
    pub entry: String,
    /// `sm_90a`
    pub arch: String,
    /// Threads of a block at most.
    pub threads: usize,
    /// Registers of a thread.
    pub registers: usize,
    /// Bytes of shared memory that are part of the code; what launches add comes on top.
    pub shared: usize,
    /// Bytes written to memory for want of registers.
    pub spilled: usize,
    /// Tensor-core instructions.
    pub mma: usize,
    /// Loads of 16 bytes from global memory, synchronous or not.
    pub wide_loads: usize,
}

impl Row {
    /// How much of a multiprocessor's threads can be alive at once, as far as registers and static shared
    /// memory go, in percent.
    pub fn occupancy(&self) -> usize {
        let arch = self.arch.trim_start_matches("sm_");
        // Threads and bytes of shared memory of a multiprocessor; registers are the same in all.
        let (most, shared) = match arch {
            "80" => (2048, 164 << 10),
            "90a" | "100" => (2048, 228 << 10),
            _ => (1536, 100 << 10),
        };
        const REGISTERS: usize = 64 << 10;
        // They are given to warps, 256 at a time.
        let warp = (32 * self.registers.max(1)).next_multiple_of(256);
        let threads = self.threads.max(1).next_multiple_of(32);
        let by_registers = REGISTERS / warp / (threads / 32);
        let by_shared = shared / (self.shared + 1024);
        let blocks = by_registers.min(by_shared).min(most / threads);
        100 * blocks * threads / most
    }
}

/// Every kernel of a file, compiled for `arch`.
///
/// # Errors
/// What the compiler said.
pub fn rows(nvrtc: &Nvrtc, module: &Module, arch: &str) -> Result<Vec<Row>, String> {
    let program = nvrtc.program(module, arch, &["--ptxas-options=-v"])?;
    let mut rows = from_log(&program.log(), arch);
    let ptx = program.ptx()?;
    for row in &mut rows {
        from_ptx(row, body(&ptx, &row.entry));
    }
    rows.sort_by(|a, b| a.entry.cmp(&b.entry));
    Ok(rows)
}

/// What the assembler's log says: a line names the entry, the next ones are about it.
fn from_log(log: &str, arch: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            rows.push(Row {
                entry: rest.split('\'').next().unwrap_or_default().into(),
                arch: arch.into(),
                ..Row::default()
            });
        }
        if let Some(row) = rows.last_mut() {
            let set = |to: &mut usize, what| *to = before(line, what).unwrap_or(*to);
            set(&mut row.spilled, " bytes spill stores");
            set(&mut row.registers, " registers");
            set(&mut row.shared, " bytes smem");
        }
    }
    rows
}

/// The number that stands before `what` in a line.
fn before(line: &str, what: &str) -> Option<usize> {
    let (rest, _) = line.split_once(what)?;
    rest.rsplit([' ', ',']).next()?.parse().ok()
}

/// The PTX of one entry.
fn body<'a>(ptx: &'a str, entry: &str) -> &'a str {
    let start = ptx.find(&format!(".entry {entry}(")).unwrap_or(ptx.len());
    let rest = &ptx[start..];
    &rest[..rest.find("\n}").unwrap_or(rest.len())]
}

fn from_ptx(row: &mut Row, body: &str) {
    for line in body.lines().map(str::trim_start) {
        let is = |start: &str| line.starts_with(start);
        if let Some(threads) = line.strip_prefix(".maxntid ") {
            row.threads = threads
                .split(',')
                .filter_map(|n| n.trim().parse::<usize>().ok())
                .product();
        }
        row.mma += usize::from(is("mma.sync") || is("wgmma.mma_async"));
        let vector = [
            ".v4.b32", ".v4.u32", ".v4.f32", ".v2.b64", ".v2.u64", ".v2.f64", ".b128",
        ];
        let wide = is("ld.global") && vector.iter().any(|v| line.contains(v));
        let copy = is("cp.async.cg.shared.global") || is("cp.async.bulk");
        row.wide_loads += usize::from(wide || copy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'a_f32' for 'sm_80'
ptxas info    : Function properties for a_f32
    0 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 4224 bytes smem, 380 bytes cmem[0]
ptxas info    : Compiling entry function 'a_bf16' for 'sm_80'
ptxas info    : Used 16 registers, used 0 barriers, 380 bytes cmem[0]
";
    const PTX: &str = ".visible .entry a_f32(
.param .u64 a_f32_param_0
)
.maxntid 256
{
\tld.global.nc.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];
\tld.global.nc.b32 %r1, [%rd1];
\tmma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};
\tret;

}
.visible .entry a_bf16(
{
\tmma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};
}
";

    #[test]
    fn a_log_and_its_ptx_are_read() {
        let mut rows = from_log(LOG, "sm_80");
        for row in &mut rows {
            from_ptx(row, body(PTX, &row.entry));
        }
        let want = Row {
            entry: "a_f32".into(),
            arch: "sm_80".into(),
            threads: 256,
            registers: 128,
            shared: 4224,
            spilled: 12,
            mma: 1,
            wide_loads: 1,
        };
        assert_eq!(rows[0], want);
        assert_eq!(
            (rows[1].registers, rows[1].spilled, rows[1].mma),
            (16, 0, 1)
        );
        // 65536 / 128 registers are 512 threads of 2048.
        assert_eq!(rows[0].occupancy(), 25);
    }
}
