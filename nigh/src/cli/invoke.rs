//! `nigh invoke`: one call, its answer byte for byte.

use clap::Args;
use nigh_client::{CallQueue, Caller};
use nigh_proto::FunctionName;

use super::call::CallOptions;
use crate::output::Output;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh invoke hello --data Ada
  nigh invoke face-detect --file photo.jpg -v                 and where the time went, on standard error
  nigh invoke face-detect --file photo.jpg --header annotate=png -o faces.png
  tar c photos | nigh invoke archive -                        the payload from standard input
  nigh invoke hello --data Ada --async                        run it later; prints the id for `nigh result`
  nigh invoke hello --data Ada --dry-run                      how long it would take; nothing runs

The function's own error goes to standard error as `kind: message`, with exit status 1.")]
pub(super) struct InvokeCommand {
    /// The function
    name: FunctionName,
    #[command(flatten)]
    options: CallOptions,
}

impl InvokeCommand {
    pub(super) async fn run(self, caller: &Caller, queue: &CallQueue, output: Output) -> anyhow::Result<()> {
        let call = self.options.call(self.name)?;
        if self.options.is_asynchronous() {
            return self.options.accept(call, queue, output).await;
        }
        let reply = caller.invoke(call).await?;
        self.options.tell(reply, output)
    }
}
