//! Lines for each answered call, as ServerlessOnEdge's clients write them, so that scripts made for those go on.

use std::io::{self, Write};
use std::time::Duration;

use nigh_proto::FunctionName;

use crate::sample::{Ending, Sample};

/// Whose lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OlderFormat {
    /// `t latency load1 responder name hops`, of `edgeclient` and `edgeippclient`.
    Client,
    /// `t latency load1 responder 0`, of `edgemulticlient`.
    MultiClient,
    /// `t latency load1`, of `facerecclient`.
    Faces,
}

impl OlderFormat {
    /// Writes the line of a call, if it was answered; the older clients tell of no other. Their latency is from the sending of
    /// the call, in seconds, and in a dry run the estimate; an unknown responder leaves two blanks beside each other.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(
        self,
        mut to: impl Write,
        sample: &Sample,
        functions: &[FunctionName],
        offset: Duration,
    ) -> io::Result<()> {
        let Ending::Answered(facts) = &sample.ending else { return Ok(()) };
        let at = (sample.ended + offset).as_secs_f64();
        let latency = facts.estimate.unwrap_or_else(|| sample.service()).as_secs_f64();
        write!(to, "{at:.6} {latency:.6} {}", facts.load1)?;
        let responder = facts.responder.as_ref().map_or("", |endpoint| endpoint.as_str());
        match self {
            Self::Client => {
                let function = usize::try_from(sample.function).ok().and_then(|place| functions.get(place));
                let name = function.map_or("", FunctionName::as_str);
                // There, the computer itself counts as a hop.
                writeln!(to, " {responder} {name} {}", facts.hops + 1)
            }
            Self::MultiClient => writeln!(to, " {responder} 0"),
            Self::Faces => writeln!(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Reason, Timing};

    use super::*;
    use crate::sample::Facts;

    fn sample() -> Sample {
        Sample {
            due: Duration::from_millis(900),
            sent: Duration::from_millis(1000),
            ended: Duration::from_micros(1_012_345),
            client: 3,
            function: 1,
            request_bytes: 100,
            ending: Ending::Answered(Facts {
                computer: "computer-1".parse().unwrap(),
                responder: Some("10.0.0.7:10000".parse().unwrap()),
                load1: 42,
                hops: 1,
                answer_bytes: 100,
                timing: Timing::default(),
                estimate: None,
            }),
        }
    }

    fn line(format: OlderFormat, sample: &Sample) -> String {
        let functions = ["echo", "sha256"].map(|name| name.parse().unwrap());
        let mut text = Vec::new();
        format.write(&mut text, sample, &functions, Duration::from_secs(10)).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn lines_are_those_of_the_older_clients_byte_by_byte() {
        assert_eq!(line(OlderFormat::Client, &sample()), "11.012345 0.012345 42 10.0.0.7:10000 sha256 2\n");
        assert_eq!(line(OlderFormat::MultiClient, &sample()), "11.012345 0.012345 42 10.0.0.7:10000 0\n");
        assert_eq!(line(OlderFormat::Faces, &sample()), "11.012345 0.012345 42\n");
    }

    #[test]
    fn an_unknown_responder_leaves_two_blanks_and_an_estimate_takes_the_place_of_latency() {
        let mut direct = sample();
        let Ending::Answered(facts) = &mut direct.ending else { unreachable!() };
        (facts.responder, facts.hops, facts.estimate) = (None, 0, Some(Duration::from_millis(250)));
        assert_eq!(line(OlderFormat::Client, &direct), "11.012345 0.250000 42  sha256 1\n");
    }

    #[test]
    fn only_answers_have_a_line() {
        for ending in [Ending::Failed(Reason::QueueFull), Ending::Overflow, Ending::Expired] {
            assert_eq!(line(OlderFormat::Client, &Sample { ending, ..sample() }), "");
        }
    }
}
