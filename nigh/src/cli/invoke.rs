//! `nigh invoke`: one call, its answer byte for byte.

use clap::Args;
use nigh_client::{CallQueue, Caller};
use nigh_proto::asynchronous::CallbackUrl;
use nigh_proto::{Acceptance, Callback, FunctionName};
use serde_json::json;

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
    /// Have it run later, at least once, and print its id; `nigh result ID` tells what came of it
    #[arg(long = "async", conflicts_with_all = ["dry_run", "verbose", "output"])]
    is_asynchronous: bool,
    /// With --async: where the outcome is posted to, at a host that the broker's operator allows
    #[arg(long, value_name = "URL", requires = "is_asynchronous")]
    callback: Option<CallbackUrl>,
    #[command(flatten)]
    options: CallOptions,
}

impl InvokeCommand {
    pub(super) async fn run(self, caller: &Caller, queue: &CallQueue, output: Output) -> anyhow::Result<()> {
        let call = self.options.call(self.name)?;
        if self.is_asynchronous {
            let (timeout, callback) = (self.options.timeout(), self.callback.map(Callback::Http));
            let accepted = queue.accept(&Acceptance { call, timeout, callback }).await?;
            return Ok(output.result(&json!({ "call": accepted.id.as_str() }), |_| &accepted.id)?);
        }
        let reply = caller.invoke(call).await?;
        self.options.tell(reply, output)
    }
}
