//! Material prepared ahead: bounded in memory, used once, gone with the process.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use trefoil_mpc::Reveal;
use trefoil_mpc::masked::Material;

/// What material serves: a model's epoch, what is revealed, and the batch.
pub(crate) type Kind = (u64, Reveal, u32);

/// One evaluator's material, oldest first.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    ready: HashMap<Kind, VecDeque<Material>>,
    /// Preparations under way, counted against the targets.
    pending: HashMap<Kind, u32>,
    bytes: u64,
}

impl Pool {
    fn with<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = match self.0.lock() {
            Ok(inner) => inner,
            Err(poisoned) => poisoned.into_inner(),
        };
        f(&mut inner)
    }

    /// Reserves one preparation if fewer than `target` are ready or under way and the pool holds less than `limit` bytes.
    pub(crate) fn reserve(&self, kind: Kind, target: u32, limit: u64) -> bool {
        self.with(|p| {
            let ready = p.ready.get(&kind).map_or(0, |q| q.len() as u32);
            let pending = p.pending.entry(kind).or_default();
            let wanted = ready + *pending < target && p.bytes < limit;
            *pending += u32::from(wanted);
            wanted
        })
    }

    /// Ends a reserved preparation, with its material if it succeeded.
    pub(crate) fn finish(&self, kind: Kind, material: Option<Material>) {
        self.with(|p| {
            if let Some(n) = p.pending.get_mut(&kind) {
                *n = n.saturating_sub(1);
            }
            p.put(kind, material);
        });
    }

    /// Adds material.
    pub(crate) fn put(&self, kind: Kind, material: Material) {
        self.with(|p| p.put(kind, Some(material)));
    }

    /// Takes the oldest material of a kind.
    pub(crate) fn take(&self, kind: Kind) -> Option<Material> {
        self.with(|p| {
            let m = p.ready.get_mut(&kind)?.pop_front()?;
            p.bytes -= m.bytes();
            Some(m)
        })
    }

    /// Takes the material of one lot.
    pub(crate) fn take_lot(&self, kind: Kind, lot: u64) -> Option<Material> {
        self.with(|p| {
            let queue = p.ready.get_mut(&kind)?;
            let m = queue.remove(queue.iter().position(|m| m.lot() == lot)?)?;
            p.bytes -= m.bytes();
            Some(m)
        })
    }

    /// How many requests of any kind find material for this model.
    pub(crate) fn ready(&self, epoch: u64) -> u32 {
        self.with(|p| p.ready.iter().filter(|((e, _, _), _)| *e == epoch).map(|(_, q)| q.len() as u32).sum())
    }

    /// The lots of all material.
    pub(crate) fn lots(&self) -> Vec<u64> {
        self.with(|p| p.ready.values().flatten().map(Material::lot).collect())
    }

    /// Drops material whose lot or model is not wanted any more.
    pub(crate) fn retain(&self, keep: impl Fn(&Kind, u64) -> bool) {
        self.with(|p| {
            for (kind, queue) in &mut p.ready {
                queue.retain(|m| keep(kind, m.lot()));
            }
            p.bytes = p.ready.values().flatten().map(Material::bytes).sum();
        });
    }
}

impl Inner {
    fn put(&mut self, kind: Kind, material: Option<Material>) {
        if let Some(m) = material {
            self.bytes += m.bytes();
            self.ready.entry(kind).or_default().push_back(m);
        }
    }
}
