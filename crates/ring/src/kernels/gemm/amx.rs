//! Products on the matrix unit (AMX), whose instruction `tdpbuud` multiplies 16 x 64 by 64 x 16 bytes into 32-bit sums.
//!
//! With a = sum 2^(8i) a_i and b = sum 2^(8j) b_j over their eight bytes, a b = sum over s < 8 of 2^(8s) S_s modulo
//! 2^64, S_s = sum over i + j = s of a_i b_j: 36 byte products for one ring product, and yet several times faster
//! than `vpmullq`. An inner dimension of at most [`DEPTH`] keeps S_0 .. S_3 below 2^32 (4 DEPTH 255^2 < 2^32); of
//! S_4 .. S_7 only 32 bits count. Operands are split into byte planes first, once each.
//!
//! The sums of two neighbouring s for two tiles of rows fill four of the eight tile registers; the other four hold
//! a_i of either row tile, b_(s+1-i) and b_(s-i), and the last is the first of the next i: three loads for four
//! products.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::OnceLock;

use rayon::prelude::*;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::super::bits::vbmi;
use super::{Product, Run, share, stretches, threads_for};
use crate::Words;

/// Rows of a tile, and columns.
const SIDE: usize = 16;
/// Inner dimension of a tile, and bytes of its row.
const LINE: usize = 64;
/// Bytes of a tile.
const TILE: usize = SIDE * LINE;
/// Bytes of eight planes of two row tiles.
const STEP: usize = 16 * TILE;
/// Steps of the inner dimension between two visits of the output.
const DEPTH: usize = 2048;
/// Rows that a task multiplies at most.
const ROWS: usize = 128;

/// Whether the processor has the unit and the system lets this process use it (it is asked once).
pub(super) fn available() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        if !vbmi::available() || __cpuid(0).eax < 7 {
            return false;
        }
        let tile_and_int8 = 1 << 24 | 1 << 25;
        __cpuid_count(7, 0).edx & tile_and_int8 == tile_and_int8 && permitted()
    })
}

/// Asks Linux for the tile registers (`arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`).
fn permitted() -> bool {
    let answer: i64;
    // SAFETY: the call takes no pointer; the registers that a system call changes are named.
    unsafe {
        asm!("syscall", inlateout("rax") 158i64 => answer, in("rdi") 0x1023, in("rsi") 18, out("rcx") _, out("r11") _);
    }
    answer == 0
}

/// Whether the unit would beat the vectors: enough work to pay for the splitting, in tiles that are not mostly
/// padding. Measured against `vpmullq`.
pub(super) fn worthwhile(p: &Product<'_>) -> bool {
    let depth = p.depth();
    let full = |size: usize, tile: usize| size as f64 / size.next_multiple_of(tile) as f64;
    let filled = full(p.rows, 2 * SIDE) * full(depth, LINE) * full(p.n, SIDE);
    depth >= LINE && p.rows >= 2 * SIDE && p.rows * p.n >= 2048 && filled > 1.0 / 3.0
}

/// Zero bytes that begin at a cache line, and are erased when dropped.
struct Lines {
    words: Words,
    skip: usize,
}

impl Lines {
    fn new(bytes: usize) -> Self {
        let words = Words::zeros(bytes.div_ceil(8) + LINE / 8 - 1);
        let skip = words.as_ptr().align_offset(LINE).min(LINE / 8 - 1);
        Self { words, skip }
    }

    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words[self.skip..])
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.words[self.skip..])
    }
}

/// Adds the product to `c`.
///
/// # Safety
/// The unit is [`available`] and the product was checked against `c`.
pub(super) unsafe fn multiply(p: &Product<'_>, c: &mut [u64]) {
    for (before, runs) in stretches(p.runs, DEPTH) {
        let depth: usize = runs.iter().map(|r| r.len).sum();
        // SAFETY: the unit comes with the vectors' instructions; the rows lie inside the right operand.
        let right = unsafe { pack_right(p, before, depth) };
        let threads = threads_for(p.rows * depth, p.n);
        let share = share(p.rows, threads, 2 * SIDE, ROWS);
        let room = || Task::new(share, depth);
        let run = |task: &mut Task, first: usize, c: &mut [u64]| {
            // SAFETY: as the caller's; `c` begins with row `first`.
            unsafe { task.rows(p, &runs, &right, first..p.rows.min(first + share), c) }
        };
        if threads == 1 {
            let mut task = room();
            for first in (0..p.rows).step_by(share) {
                run(&mut task, first, &mut c[first * p.ldc..]);
            }
        } else {
            let parts = c.par_chunks_mut(share * p.ldc).take(p.rows.div_ceil(share)).enumerate();
            parts.for_each_init(room, |task, (i, c)| run(task, i * share, c));
        }
    }
}

/// Loads up to 64 elements, zeros beyond, as one vector per byte plane.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn split(chunk: &[u64]) -> [__m512i; 8] {
    let mut v = [_mm512_setzero_si512(); 8];
    for (v, part) in v.iter_mut().zip(chunk.chunks(8)) {
        // SAFETY: the mask admits the elements of `part` only.
        *v = unsafe { _mm512_maskz_loadu_epi64((0xffu16 >> (8 - part.len())) as u8, part.as_ptr().cast()) };
    }
    vbmi::byte_vectors(v)
}

/// Writes one line.
#[inline]
#[target_feature(enable = "avx512f")]
fn put(line: &mut [u8], v: __m512i) {
    let line = &mut line[..LINE];
    // SAFETY: `line` is as long as the vector.
    unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), v) };
}

/// The right operand's rows `before .. before + depth` as tiles: by column tile, step of 64 and byte plane. In a
/// tile, four consecutive rows of a column lie together, as `tdpbuud` wants them.
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn pack_right(p: &Product<'_>, before: usize, depth: usize) -> Lines {
    let (steps, tiles) = (depth.div_ceil(LINE), p.n.div_ceil(SIDE));
    let mut lines = Lines::new(tiles * steps * 8 * TILE);
    let order: [u8; 64] = std::array::from_fn(|i| (i % 4 * SIDE + i / 4) as u8);
    // SAFETY: 64 bytes are read from 64 bytes.
    let order = unsafe { _mm512_loadu_si512(order.as_ptr().cast()) };
    for (i, tile) in lines.bytes_mut().chunks_exact_mut(8 * TILE).take(tiles * steps).enumerate() {
        let (from, step) = (i / steps * SIDE, i % steps);
        let width = SIDE.min(p.n - from);
        let masks = [(0xffffu32 >> (SIDE - width)) as u8, ((0xffffu32 >> (SIDE - width)) >> 8) as u8];
        for four in 0..SIDE {
            let mut v = [_mm512_setzero_si512(); 8];
            for (t, pair) in v.chunks_exact_mut(2).enumerate() {
                let k = step * LINE + four * 4 + t;
                if k < depth {
                    let row = p.b[(before + k) * p.ldb + from..][..width].as_ptr();
                    // SAFETY: the masks admit `width` elements; the second address is used only beyond eight.
                    unsafe {
                        pair[0] = _mm512_maskz_loadu_epi64(masks[0], row.cast());
                        pair[1] = _mm512_maskz_loadu_epi64(masks[1], row.wrapping_add(8).cast());
                    }
                }
            }
            for (plane, bytes) in vbmi::byte_vectors(v).into_iter().enumerate() {
                put(&mut tile[plane * TILE + four * LINE..], _mm512_permutexvar_epi8(order, bytes));
            }
        }
    }
    lines
}

/// What `ldtilecfg` reads: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    line_bytes: [u16; 16],
    rows: [u8; 16],
}

/// The tile registers, in use by this thread until dropped: a thread with none is cheaper to switch.
struct Tiles;

impl Tiles {
    /// # Safety
    /// The unit is [`available`].
    unsafe fn set_up() -> Self {
        let (mut line_bytes, mut rows) = ([0; 16], [0; 16]);
        line_bytes[..8].fill(LINE as u16);
        rows[..8].fill(SIDE as u8);
        let config = Config { palette: 1, start_row: 0, reserved: [0; 14], line_bytes, rows };
        // SAFETY: reads the configuration only.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
        Self
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: a thread that has tiles has the unit.
        unsafe { asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// The sums S_0 .. S_7 of two row tiles: by s, row and column.
#[repr(C, align(64))]
#[derive(Zeroize, ZeroizeOnDrop)]
struct Sums([[[u32; SIDE]; 2 * SIDE]; 8]);

/// What a thread needs to multiply the rows of a task: their tiles by pair of row tiles, step of 64, byte plane and row
/// tile, the byte planes they are copied from, and the sums of one pair.
struct Task {
    left: Lines,
    planes: Lines,
    depth: usize,
    sums: Box<Sums>,
}

impl Task {
    fn new(rows: usize, depth: usize) -> Self {
        let left = Lines::new(rows.div_ceil(2 * SIDE) * depth.div_ceil(LINE) * STEP);
        Self { left, planes: Lines::new(0), depth, sums: Box::new(Sums([[[0; SIDE]; 2 * SIDE]; 8])) }
    }

    /// Multiplies the rows of one task.
    unsafe fn rows(&mut self, p: &Product<'_>, runs: &[Run], right: &Lines, range: Range<usize>, c: &mut [u64]) {
        let (first, count) = (range.start, range.len());
        let steps = self.depth.div_ceil(LINE);
        // SAFETY: the unit comes with the vectors' instructions.
        unsafe {
            match runs {
                [run] => self.pack_lines(p, *run, first, count),
                _ => self.pack_windows(p, runs, first, count),
            }
        }
        // SAFETY: the unit is available.
        let _tiles = unsafe { Tiles::set_up() };
        for tile in 0..p.n.div_ceil(SIDE) {
            let b = &right.bytes()[tile * steps * 8 * TILE..][..steps * 8 * TILE];
            for row in (0..count).step_by(2 * SIDE) {
                let a = &self.left.bytes()[row / (2 * SIDE) * steps * STEP..][..steps * STEP];
                self.sums.0.as_flattened_mut().as_flattened_mut().fill(0);
                for (a, b) in a.chunks_exact(STEP).zip(b.chunks_exact(8 * TILE)) {
                    // SAFETY: one step of every plane each; the tiles are set up.
                    unsafe { add_step(a, b, &mut self.sums) };
                }
                let (rows, width) = ((2 * SIDE).min(count - row), SIDE.min(p.n - tile * SIDE));
                // SAFETY: the unit comes with the vectors' instructions.
                unsafe { combine(&self.sums, &mut c[row * p.ldc + tile * SIDE..], p.ldc, rows, width) };
            }
        }
    }

    /// Splits rows of one run each straight into tiles.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn pack_lines(&mut self, p: &Product<'_>, run: Run, first: usize, count: usize) {
        let steps = self.depth.div_ceil(LINE);
        let tiles = self.left.bytes_mut();
        for r in 0..count {
            let row = r / (2 * SIDE) * steps * STEP + r % (2 * SIDE) * LINE;
            let left = &p.x[p.grid.base(first + r) + run.start..][..run.len];
            for (step, chunk) in left.chunks(LINE).enumerate() {
                for (plane, bytes) in split(chunk).into_iter().enumerate() {
                    put(&mut tiles[row + step * STEP + plane * 2 * TILE..], bytes);
                }
            }
        }
    }

    /// Splits once what the rows' windows overlap in, then copies each window's bytes into tiles. What lies beyond
    /// the last row or byte of a window is never read, or stays zero.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    unsafe fn pack_windows(&mut self, p: &Product<'_>, runs: &[Run], first: usize, count: usize) {
        let steps = self.depth.div_ceil(LINE);
        let origin = p.grid.base(first);
        let reach = runs.iter().map(|run| run.start + run.len).max().unwrap_or(0);
        let x = &p.x[origin..p.grid.base(first + count - 1) + reach];
        let stride = x.len().next_multiple_of(LINE);
        if self.planes.bytes().len() < 8 * stride {
            self.planes = Lines::new(8 * stride);
        }
        let planes = self.planes.bytes_mut();
        for (i, chunk) in x.chunks(LINE).enumerate() {
            for (plane, bytes) in split(chunk).into_iter().enumerate() {
                put(&mut planes[plane * stride + i * LINE..], bytes);
            }
        }
        let tiles = self.left.bytes_mut();
        for r in 0..count {
            let base = p.grid.base(first + r) - origin;
            let row = r / (2 * SIDE) * steps * STEP + r % (2 * SIDE) * LINE;
            let mut at = 0;
            for run in runs {
                let mut done = 0;
                while done < run.len {
                    let len = (run.len - done).min(LINE - at % LINE);
                    let mask = u64::MAX >> (LINE - len);
                    for plane in 0..8 {
                        let from = &planes[plane * stride + base + run.start + done..][..len];
                        let to = &mut tiles[row + at / LINE * STEP + plane * 2 * TILE + at % LINE..][..len];
                        // SAFETY: the mask admits `len` bytes, the length of both slices.
                        unsafe {
                            let v = _mm512_maskz_loadu_epi8(mask, from.as_ptr().cast());
                            _mm512_mask_storeu_epi8(to.as_mut_ptr().cast(), mask, v);
                        }
                    }
                    (done, at) = (done + len, at + len);
                }
            }
        }
    }
}

/// Adds the byte products of one step, two row tiles by a column tile, to S_0 .. S_7.
unsafe fn add_step(a: &[u8], b: &[u8], sums: &mut Sums) {
    debug_assert!(a.len() == STEP && b.len() == 8 * TILE);
    for s in (0..8).step_by(2) {
        let to = sums.0[s].as_mut_ptr();
        // SAFETY: reads the tiles of planes 0 ..= s + 1, and reads and writes two pairs of tiles of `sums`; the tile
        // registers are set up, and those used are named.
        unsafe {
            asm!(
                "tileloadd tmm0, [{to} + {line}*1]",
                "tileloadd tmm1, [{to} + {line}*1 + 1024]",
                "tileloadd tmm2, [{to} + {line}*1 + 2048]",
                "tileloadd tmm3, [{to} + {line}*1 + 3072]",
                "tileloadd tmm6, [{b} + {line}*1]",
                "2:",
                "tileloadd tmm4, [{a} + {line}*1]",
                "tdpbuud tmm2, tmm4, tmm6",
                "tileloadd tmm5, [{a} + {line}*1 + 1024]",
                "tdpbuud tmm3, tmm5, tmm6",
                "tileloadd tmm7, [{b} + {line}*1 - 1024]",
                "tdpbuud tmm0, tmm4, tmm7",
                "tdpbuud tmm1, tmm5, tmm7",
                "tileloadd tmm4, [{a} + {line}*1 + 2048]",
                "tdpbuud tmm2, tmm4, tmm7",
                "tileloadd tmm5, [{a} + {line}*1 + 3072]",
                "tdpbuud tmm3, tmm5, tmm7",
                "sub {pairs}, 1",
                "js 3f",
                "tileloadd tmm6, [{b} + {line}*1 - 2048]",
                "tdpbuud tmm0, tmm4, tmm6",
                "tdpbuud tmm1, tmm5, tmm6",
                "sub {b}, 2048",
                "add {a}, 4096",
                "jmp 2b",
                "3:",
                "tilestored [{to} + {line}*1], tmm0",
                "tilestored [{to} + {line}*1 + 1024], tmm1",
                "tilestored [{to} + {line}*1 + 2048], tmm2",
                "tilestored [{to} + {line}*1 + 3072], tmm3",
                a = inout(reg) a.as_ptr() => _,
                b = inout(reg) b.as_ptr().add((s + 1) * TILE) => _,
                line = in(reg) LINE,
                pairs = inout(reg) s / 2 => _,
                to = in(reg) to,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
    }
}

/// Adds 2^(8s) S_s over all s to `count` rows of `width` elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq")]
unsafe fn combine(sums: &Sums, c: &mut [u64], ldc: usize, count: usize, width: usize) {
    for (r, c) in c.chunks_mut(ldc).take(count).enumerate() {
        let c = &mut c[..width];
        // SAFETY: a row of sums is one line.
        let s: [__m512i; 8] = std::array::from_fn(|s| unsafe { _mm512_loadu_si512(sums.0[s][r].as_ptr().cast()) });
        let mut high = s[7];
        for &next in [s[6], s[5], s[4]].iter() {
            high = _mm512_add_epi32(_mm512_slli_epi32::<8>(high), next);
        }
        for (half, part) in c.chunks_mut(8).enumerate() {
            let wide = |v: __m512i| {
                let v = if half == 0 { _mm512_castsi512_si256(v) } else { _mm512_extracti64x4_epi64::<1>(v) };
                _mm512_cvtepu32_epi64(v)
            };
            let mut sum = wide(high);
            for &next in [s[3], s[2], s[1], s[0]].iter() {
                sum = _mm512_add_epi64(_mm512_slli_epi64::<8>(sum), wide(next));
            }
            let mask = (0xffu16 >> (8 - part.len())) as u8;
            // SAFETY: the mask admits the elements of `part` only.
            unsafe {
                let old = _mm512_maskz_loadu_epi64(mask, part.as_ptr().cast());
                _mm512_mask_storeu_epi64(part.as_mut_ptr().cast(), mask, _mm512_add_epi64(old, sum));
            }
        }
    }
}
