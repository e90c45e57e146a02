//! Keeps a role's certificate as its files have it: they are looked at now and then, and at once on SIGHUP. Connections made
//! from then on use the new one, those that exist live on. Files that are no good change nothing but the log.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use nigh_proto::Tls;
use nigh_proto::tls::Pem;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;

use crate::config::TlsFiles;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Time before a certificate's end from which on the log warns of it.
const WARN_BEFORE_END: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// How often it does so.
const WARN_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Looks at the files for as long as the handle is kept; without any there is nothing to do.
pub(crate) fn keep(tls: Option<&Tls>, files: Option<TlsFiles>) -> anyhow::Result<Option<AbortOnDropHandle<()>>> {
    let (Some(tls), Some(files)) = (tls.cloned(), files) else { return Ok(None) };
    let hang_up = signal(SignalKind::hangup()).context("cannot listen to signals")?;
    let keeper = Keeper { seen: None, warned: None, tls, files };
    Ok(Some(AbortOnDropHandle::new(tokio::spawn(keeper.keep(hang_up)))))
}

struct Keeper {
    tls: Tls,
    files: TlsFiles,
    /// What the files held when they were last taken or refused.
    seen: Option<Pem>,
    warned: Option<SystemTime>,
}

impl Keeper {
    async fn keep(mut self, mut hang_up: Signal) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.seen = self.files.read().ok();
        loop {
            tokio::select! {
                _ = looks.tick() => {}
                Some(()) = hang_up.recv() => {}
            }
            self.look();
            self.warn_of_end(SystemTime::now());
        }
    }

    fn look(&mut self) {
        let pem = match self.files.read() {
            Ok(pem) => pem,
            Err(error) => {
                tracing::error!(%error, "the certificate cannot be read again, going on with the one before");
                return;
            }
        };
        if self.seen.as_ref() == Some(&pem) {
            return;
        }
        match self.tls.replace(&pem) {
            Ok(()) => tracing::info!(
                certificate = %self.files.certificate.display(),
                valid_until = %humantime::format_rfc3339_seconds(self.tls.certificate().not_after),
                "new certificate in use"
            ),
            // A certificate is two files and more, which do not change at one instant: the next look may find them in step.
            Err(error) => tracing::error!(
                certificate = %self.files.certificate.display(),
                "new certificate refused, going on with the one before: {error}"
            ),
        }
        self.seen = Some(pem);
    }

    fn warn_of_end(&mut self, now: SystemTime) {
        let left = self.tls.certificate().not_after.duration_since(now).unwrap_or_default();
        let was_warned = |at: SystemTime| now.duration_since(at).is_ok_and(|since| since < WARN_EVERY);
        if left < WARN_BEFORE_END && !self.warned.is_some_and(was_warned) {
            self.warned = Some(now);
            let days = left.as_secs() / (24 * 60 * 60);
            tracing::warn!(
                days,
                "the certificate ends soon; issue a new one into the same files: nigh ca issue --force"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Identity, Role};

    use super::*;
    use crate::ca::{Authority, folder};

    fn issue(authority: &Authority) -> Pem {
        let identity = Identity { role: Role::Computer, name: "camera-7".parse().unwrap() };
        authority.issue(&identity, &["localhost".into()], 1).unwrap()
    }

    #[test]
    fn new_files_are_taken_and_broken_ones_change_nothing() {
        let home = tempfile::tempdir().unwrap();
        let authority = Authority::new().unwrap();
        folder::write_issued(home.path(), &issue(&authority), false).unwrap();
        let files = TlsFiles::in_folder(home.path());
        let tls = files.load().unwrap();
        let mut keeper = Keeper { seen: files.read().ok(), warned: None, tls: tls.clone(), files: files.clone() };
        let first = tls.certificate();
        keeper.look();
        assert_eq!(tls.certificate(), first);

        folder::write_issued(home.path(), &issue(&authority), true).unwrap();
        keeper.look();
        let second = tls.certificate();
        assert_ne!(second.fingerprint, first.fingerprint);

        std::fs::write(&files.key, "no key").unwrap();
        keeper.look();
        assert_eq!(tls.certificate(), second);
        std::fs::remove_file(&files.key).unwrap();
        keeper.look();
        assert_eq!(tls.certificate(), second);

        folder::write_issued(home.path(), &issue(&authority), true).unwrap();
        keeper.look();
        assert_ne!(tls.certificate().fingerprint, second.fingerprint, "and good ones are taken again");
    }

    #[test]
    fn the_end_is_warned_of_once_a_day() {
        let tls = Tls::new(&issue(&Authority::new().unwrap())).unwrap();
        let files = TlsFiles::in_folder("nowhere".as_ref());
        let mut keeper = Keeper { seen: None, warned: None, tls, files };
        let now = SystemTime::now();
        keeper.warn_of_end(now);
        assert_eq!(keeper.warned, Some(now));
        keeper.warn_of_end(now + WARN_EVERY / 2);
        assert_eq!(keeper.warned, Some(now));
        keeper.warn_of_end(now + WARN_EVERY);
        assert_eq!(keeper.warned, Some(now + WARN_EVERY));
    }
}
