//! Modules as they are deployed: judged without a panic, and what the judge lets through a computer compiles, or says why
//! not in the judge's own words.

use nigh_proto::module::{self, ModuleLimits};
use nigh_proto::{Deployment, Digest, Limits};
use nigh_runtime::PrepareError;

use super::run::{computer, mutated, runtime};

/// The first byte chooses between bytes as they are and a real guest with changes.
pub(super) fn check(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let module = if kind % 2 == 0 { bytes.to_vec() } else { mutated(bytes) };
    let limits = ModuleLimits { functions_max: 1000, function_bytes_max: 64 << 10, ..ModuleLimits::default() };
    let Ok(facts) = module::inspect(&module, &limits) else { return };
    let name = "judged".parse().expect("a name");
    let (digest, len) = (Digest::of(&module), module.len() as u64);
    let deployment = Deployment::new(name, digest, len, facts.kind, Limits::MAX, Vec::new());
    let computer = computer();
    match runtime().block_on(computer.deploy(deployment, module.into())) {
        Ok(()) | Err(PrepareError::Signature { .. } | PrepareError::Imports(_) | PrepareError::Module(_)) => {}
        Err(PrepareError::MemoryOverBudget { .. } | PrepareError::Pool(_)) => {}
        Err(other) => panic!("the judge let it through, the computer did not: {other}"),
    }
    computer.remove(&"judged".parse().expect("a name"));
}
