//! Matrix product over Z_2^64.

/// `c += a * b` modulo 2^64, with `a` of `m x k`, `b` of `k x n` and `c` of `m x n`, all row-major.
pub fn matmul(m: usize, k: usize, n: usize, a: &[u64], b: &[u64], c: &mut [u64]) {
    assert!(a.len() == m * k && b.len() == k * n && c.len() == m * n, "matmul: slices do not fit {m} x {k} x {n}");
    for i in 0..m {
        let row = &mut c[i * n..(i + 1) * n];
        for p in 0..k {
            let x = a[i * k + p];
            for (o, y) in row.iter_mut().zip(&b[p * n..(p + 1) * n]) {
                *o = o.wrapping_add(x.wrapping_mul(*y));
            }
        }
    }
}
