//! Files that a command is to write: looked at before the work begins, so that it is not done for nothing.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::bail;

/// Refuses a file that cannot be written, or that is one of `inputs`: what is read would be lost.
pub(crate) fn check(option: &str, path: &Path, inputs: &[PathBuf]) -> anyhow::Result<()> {
    if path.is_dir() {
        bail!("{option} {}: is a folder", path.display());
    }
    let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !folder.is_dir() {
        bail!("{option} {}: there is no folder {}", path.display(), folder.display());
    }
    match inputs.iter().find(|input| same(input, path)) {
        Some(input) => bail!("{option} {}: that is the input {}; take another name", path.display(), input.display()),
        None => Ok(()),
    }
}

/// Whether two names are of one file that is there.
fn same(a: &Path, b: &Path) -> bool {
    let place = |p: &Path| std::fs::metadata(p).ok().map(|m| (m.dev(), m.ino()));
    place(a).is_some_and(|at| place(b) == Some(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_folders_and_places_that_are_not_there_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n);
        std::fs::write(at("in.npy"), "").unwrap();
        std::os::unix::fs::symlink(at("in.npy"), at("link.npy")).unwrap();
        let said = |n: &str| check("--out", &at(n), &[at("other.npy"), at("in.npy")]).map_err(|e| e.to_string());
        assert_eq!(said("out.npy"), Ok(()));
        assert_eq!(said("other.npy"), Ok(()), "no such input: reading it says so");
        for (name, part) in [
            ("in.npy", "that is the input"),
            ("./in.npy", "that is the input"),
            ("link.npy", "that is the input"),
            ("", "is a folder"),
            ("no/out.npy", "there is no folder"),
        ] {
            assert!(said(name).unwrap_err().contains(part), "{name}");
        }
    }
}
