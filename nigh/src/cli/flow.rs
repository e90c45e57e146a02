//! `nigh flow`: functions that run one after the other or side by side, as one call.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use nigh_client::{CallQueue, Caller};
use nigh_flow::{Definition, DefinitionError, Failure, Input, Segment, draw};
use nigh_proto::{Call, Limits, Reply};
use serde_json::{Value, json};

use super::call::CallOptions;
use super::failure::FunctionFailed;
use crate::output::{Column, Output, Table};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh flow check faces.toml                   whether it is a flow, and what is wrong with it
  nigh flow show faces.toml --svg faces.svg    as text, and as a picture
  nigh flow run faces.toml --file photo.jpg -v

A flow is a file. In a chain each function is given what the one before answered:

  name = \"small-faces\"
  chain = [\"thumbnail\", \"face-detect\"]

In a graph each step says what it comes after (without `after`: the step above it; `after = []`: the flow's own input):

  [[steps]]
  name = \"faces\"
  function = \"face-detect\"
  [[steps]]
  name = \"small\"
  function = \"thumbnail\"
  after = []
  [[steps]]
  name = \"report\"
  after = [\"faces\", \"small\"]

ServerlessOnEdge's JSON of chains and DAGs is understood too, in files that end in .json.")]
pub(super) struct FlowCommand {
    #[command(subcommand)]
    command: FlowSubcommand,
}

#[derive(Debug, Subcommand)]
enum FlowSubcommand {
    /// Run a flow; its answer goes to standard output byte for byte
    Run(Box<RunCommand>),
    /// Say whether files are flows, and what is wrong with them
    #[command(after_help = "Example:\n  nigh flow check faces.toml chain.json")]
    Check {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Draw a flow
    #[command(after_help = "Example:\n  nigh flow show faces.toml --svg faces.svg")]
    Show {
        /// The file
        file: PathBuf,
        /// Write a picture to this file
        #[arg(long, value_name = "PATH")]
        svg: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh flow run faces.toml --file photo.jpg -v           and which step ran where, on standard error
  nigh flow run faces.toml --file photo.jpg --dry-run    how long it would take; nothing runs
  nigh flow run faces.toml --file photo.jpg --async      later, at least once; prints the id for `nigh result`
  nigh flow run faces.toml --file photo.jpg --driven-by client

The broker runs the steps: steps that follow each other stay on one computer where it serves them, branches run side by side.
A step that fails fails the flow, once, and its error names the steps on the way to it.")]
struct RunCommand {
    /// The flow's file
    flow: PathBuf,
    /// Who calls the functions
    #[arg(long, value_enum, default_value_t, value_name = "WHO", conflicts_with = "is_asynchronous")]
    driven_by: Driver,
    #[command(flatten)]
    options: CallOptions,
}

/// Who calls a flow's functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Driver {
    /// The broker: one call, of all that it takes
    #[default]
    Broker,
    /// This command: a call for each step
    Client,
}

impl FlowCommand {
    /// `broker` is asked for only where a flow is to be run.
    pub(super) async fn run(
        self,
        broker: impl FnOnce() -> anyhow::Result<(Caller, CallQueue)>,
        output: Output,
    ) -> anyhow::Result<()> {
        match self.command {
            FlowSubcommand::Run(command) => {
                let (caller, queue) = broker()?;
                command.run(&caller, &queue, output).await
            }
            FlowSubcommand::Check { files } => check(&files, output),
            FlowSubcommand::Show { file, svg } => show(&file, svg, output),
        }
    }
}

/// Reads a flow's file.
pub(super) fn read(path: &std::path::Path) -> anyhow::Result<Definition> {
    Definition::read(path).map_err(|error| match error {
        // It names the file.
        DefinitionError::Read { .. } => error.into(),
        error => anyhow::Error::from(error).context(path.display().to_string()),
    })
}

fn check(files: &[PathBuf], output: Output) -> anyhow::Result<()> {
    for file in files {
        let definition = read(file)?;
        let told = json!({
            "file": file.display().to_string(),
            "name": definition.name.as_str(),
            "steps": definition.flow.steps().len(),
            "functions": definition.functions().iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            "states": definition.states.keys().collect::<Vec<_>>(),
        });
        output.result(&told, |_| {
            let functions = definition.functions().iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            let steps = definition.flow.steps().len();
            format!("{}: {} is a flow of {steps} steps; functions: {functions}", file.display(), definition.name)
        })?;
    }
    Ok(())
}

fn show(file: &std::path::Path, svg: Option<PathBuf>, output: Output) -> anyhow::Result<()> {
    let definition = read(file)?;
    if let Some(path) = &svg {
        let picture = draw::svg(&definition.flow, definition.name.as_str());
        std::fs::write(path, picture).with_context(|| format!("cannot write the picture to {}", path.display()))?;
    }
    output.result(&as_json(&definition), |_| format!("{}\n{}", definition.name, draw::text(&definition.flow)))?;
    Ok(())
}

fn as_json(definition: &Definition) -> Value {
    let steps = definition.flow.steps();
    let step = |step: &nigh_proto::flow::Step| {
        let after: Vec<_> = step.after.iter().map(|&before| steps[before].name.as_str()).collect();
        json!({ "name": step.name.as_str(), "function": step.function.as_str(), "after": after })
    };
    json!({ "name": definition.name.as_str(), "steps": steps.iter().map(step).collect::<Vec<_>>() })
}

impl RunCommand {
    async fn run(self, caller: &Caller, queue: &CallQueue, output: Output) -> anyhow::Result<()> {
        let definition = read(&self.flow)?;
        let mut call = self.options.call(definition.name.clone())?;
        if self.options.is_asynchronous() {
            call.flow = Some(definition.flow);
            return self.options.accept(call, queue, output).await;
        }
        let reply = match self.driven_by {
            Driver::Client if !call.dry_run => drive(caller, call, &definition).await?,
            Driver::Broker | Driver::Client => {
                call.flow = Some(definition.flow);
                caller.invoke(call).await?
            }
        };
        if self.options.is_verbose() {
            output.note(steps(&reply));
        }
        self.options.tell(reply, output)
    }
}

/// Makes a call for each step from here.
async fn drive(caller: &Caller, mut call: Call, definition: &Definition) -> anyhow::Result<Reply> {
    let flow = &definition.flow;
    let input = Input { payload: std::mem::take(&mut call.payload), headers: std::mem::take(&mut call.headers) };
    let step = |Segment { step, input: Input { payload, headers }, .. }: Segment| {
        let function = flow.steps()[step].function.clone();
        caller.invoke(Call { function, payload, headers, ..call.clone() })
    };
    let room = usize::try_from(Limits::MAX.payload_bytes).unwrap_or(usize::MAX);
    match nigh_flow::run(flow, input, room, step).await {
        Ok(finished) => Ok(finished.into_reply()),
        Err(Failure::Function { way, kind, message, .. }) => {
            Err(FunctionFailed { kind, message: format!("{way}: {message}") }.into())
        }
        Err(Failure::Platform { way, error, .. }) => Err(anyhow::Error::from(error).context(way)),
    }
}

/// Which step ran where, and how long.
fn steps(reply: &Reply) -> Table<5> {
    let mut table = Table::new([
        Column::words("  step"),
        Column::words("function"),
        Column::words("computer"),
        Column::numbers("in the function"),
        Column::numbers("around it"),
    ]);
    for ran in &reply.steps {
        let step = ran.step.as_ref().map(ToString::to_string).unwrap_or_default();
        let around = ran.timing.total().saturating_sub(ran.timing.run);
        table.row([
            format!("  {step}"),
            ran.function.to_string(),
            ran.computer.to_string(),
            super::timing::ms(ran.timing.run),
            super::timing::ms(around),
        ]);
    }
    table
}
