//! What a compiled network is to the servers.

use trefoil_mpc::program::ProgramError;
use trefoil_nn::compile::Compiled;
use trefoil_proto::control::{Grant, InputEncoding, Manifest};

/// The public description of a compiled network, as it is shared or published.
pub fn manifest(
    name: &str,
    compiled: &Compiled,
    input: InputEncoding,
    grants: Vec<Grant>,
) -> Result<Manifest, ProgramError> {
    let window = compiled.window()?;
    let (program, post) = (compiled.program.clone(), compiled.graph.post);
    Ok(Manifest { name: name.into(), program, window, input, post, grants, ahead: Vec::new() })
}
