//! `nigh top`: how functions, computers and brokers are, live.

mod figures;
mod sample;
mod screen;
mod view;

use std::time::Duration;

use clap::Args;
use console::Term;
use nigh_client::Admin;
use tokio::time::MissedTickBehavior;

use self::figures::{Figures, Order};
use self::sample::{Connections, Sample};
use self::screen::{Key, Keys, Screen};
use self::view::View;
use crate::output::Output;
use crate::signals::StopSignals;
use crate::units::Time;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  nigh top                   redrawn each second; q quits; c, e, p, n sort by calls, errors, p99, name
  nigh top --sort p99
  nigh top --once            for scripts: rates over one interval, then end
  nigh top --json            a line of JSON for each interval, until Ctrl-C

P50 and P99 are of calls at computers, waiting included, over the last 10 to 20 s.")]
pub(super) struct TopCommand {
    /// Print one table and end, as it also does where standard output is no terminal
    #[arg(long)]
    once: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s")]
    interval: Time,
    /// What functions are sorted by
    #[arg(long, value_enum, default_value_t)]
    sort: Order,
}

impl TopCommand {
    pub(super) async fn run(self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let terminal = Term::stdout();
        if self.once || (!output.is_json() && !terminal.is_term()) {
            return self.once(admin, output).await;
        }
        let mut signals = StopSignals::listen()?;
        let work = async {
            if output.is_json() { self.stream(admin, output).await } else { self.watch(admin, terminal).await }
        };
        tokio::select! {
            ended = work => ended,
            () = signals.next() => Ok(()),
        }
    }

    /// One table, after two looks: rates need both.
    async fn once(&self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let mut connections = Connections::default();
        let before = Sample::take(admin, &mut connections).await?;
        tokio::time::sleep(self.interval.duration()).await;
        let sample = Sample::take(admin, &mut connections).await?;
        let figures = Figures::new(&sample, Some(&before), self.sort);
        Ok(output.result(&figures, |figures| View::new(figures, usize::MAX, usize::MAX).to_string())?)
    }

    async fn stream(&self, admin: &Admin, output: Output) -> anyhow::Result<()> {
        let mut connections = Connections::default();
        let mut before = None;
        let mut ticks = self.ticks();
        loop {
            ticks.tick().await;
            let sample = Sample::take(admin, &mut connections).await?;
            output.result(&Figures::new(&sample, before.as_ref(), self.sort), |_| "")?;
            before = Some(sample);
        }
    }

    async fn watch(&self, admin: &Admin, terminal: Term) -> anyhow::Result<()> {
        let screen = Screen::open(terminal)?;
        let mut keys = Keys::listen()?;
        let (mut connections, mut order) = (Connections::default(), self.sort);
        let mut looks: Option<Result<(Sample, Option<Sample>), String>> = None;
        let mut ticks = self.ticks();
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let before = looks.take().and_then(Result::ok).map(|(sample, _)| sample);
                    looks = Some(match Sample::take(admin, &mut connections).await {
                        Ok(sample) => Ok((sample, before)),
                        Err(error) => Err(error.to_string()),
                    });
                }
                key = keys.next() => match key {
                    Key::Quit => return Ok(()),
                    Key::Sort(by) => order = by,
                    // The screen is drawn anew in its new size.
                    Key::Resize => screen.clear()?,
                }
            }
            match &looks {
                Some(Ok((sample, before))) => {
                    let figures = Figures::new(sample, before.as_ref(), order);
                    let (rows, columns) = screen.size();
                    screen.draw(&View::new(&figures, columns, rows).to_string())?;
                }
                Some(Err(error)) => screen.draw(error)?,
                None => {}
            }
        }
    }

    fn ticks(&self) -> tokio::time::Interval {
        let mut ticks = tokio::time::interval(self.interval.duration().max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }
}
