//! Programs: the payload on standard input, the answer on standard output, the exit code the verdict.

use nigh_proto::module::abi;
use nigh_proto::{Headers, Outcome};
use wasmtime::{Extern, InstancePre, Linker, Module, ModuleExport, Store, TypedFunc};
use wasmtime_wasi::I32Exit;

use crate::error::PrepareError;
use crate::host::Guest;
use crate::outcome::{self, Failure};

/// A program's module, its entry found.
pub(crate) struct Command {
    pre: InstancePre<Guest>,
    start: ModuleExport,
}

impl Command {
    /// Finds the entry and checks its signature.
    pub(crate) fn prepare(linker: &Linker<Guest>, module: &Module) -> Result<Self, PrepareError> {
        let pre = linker.instantiate_pre(module).map_err(|error| PrepareError::Imports(format!("{error:#}")))?;
        let export = module.get_export(abi::START);
        let fits = export
            .as_ref()
            .and_then(wasmtime::ExternType::func)
            .is_some_and(|func| func.params().len() == 0 && func.results().len() == 0);
        let expected = "a function without parameters and results";
        let start = module.get_export_index(abi::START).filter(|_| fits);
        Ok(Self { pre, start: start.ok_or(PrepareError::Signature { export: abi::START, expected })? })
    }

    /// Makes an instance.
    pub(crate) async fn instantiate(&self, store: &mut Store<Guest>) -> wasmtime::Result<TypedFunc<(), ()>> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        let start = instance.get_module_export(&mut *store, &self.start).and_then(Extern::into_func);
        start
            .ok_or_else(|| wasmtime::Error::msg("an export found when the module was prepared is gone"))?
            .typed(&mut *store)
    }
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Command").finish_non_exhaustive()
    }
}

/// Runs a program to its end.
pub(crate) async fn run(start: &TypedFunc<(), ()>, store: &mut Store<Guest>) -> Result<Outcome, Failure> {
    let code = match start.call_async(&mut *store, ()).await {
        Ok(()) => 0,
        Err(error) => error.downcast_ref::<I32Exit>().map(|exit| exit.0).ok_or(error)?,
    };
    let streams = store.data_mut().streams();
    if code == 0 {
        return Ok(Outcome::Answer { payload: streams.take_answer(), headers: Headers::default() });
    }
    let said = streams.error_tail();
    let separator = if said.is_empty() { "" } else { ": " };
    Ok(outcome::error("exit", format!("the program ended with exit code {code}{separator}{said}")))
}
