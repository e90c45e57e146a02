//! Why a connection was refused, in words that say what to do: on the side that refuses and on the side that is refused.

use std::fmt;
use std::io;

use tokio_rustls::rustls::{self, AlertDescription, CertificateError};
use tonic::Status;

use crate::name::Endpoint;

/// A connection that TLS did not let come about. Nothing was asked of the peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl Refused {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// This side, as a client, could not finish the handshake with this peer.
    pub(super) fn at(endpoint: &Endpoint, error: &io::Error) -> Self {
        let Some(error) = rustls_error(error) else {
            return Self(format!("{endpoint} ended the TLS handshake ({error}); does it take TLS at all?"));
        };
        Self(match error {
            rustls::Error::InvalidCertificate(wrong) => of_servers_certificate(endpoint, wrong),
            rustls::Error::AlertReceived(alert) => of_alert(*alert),
            rustls::Error::InvalidMessage(_) => format!(
                "{endpoint} does not speak TLS; start it with a certificate, or connect to it without one if it shall be plain"
            ),
            other => format!("TLS with {endpoint} failed: {other}"),
        })
    }
}

fn of_servers_certificate(endpoint: &Endpoint, wrong: &CertificateError) -> String {
    match wrong {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            format!("the certificate of {endpoint} has expired; issue it a new one, or set this machine's clock")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            format!("the certificate of {endpoint} is not valid yet; compare this machine's clock with the issuer's")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the certificate of {endpoint} was not issued by this side's authority; both sides need certificates of the same one (`nigh ca show`)"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "the certificate of {endpoint} is not for that host; issue it with --host {}, or connect by a host that it names",
            endpoint.host()
        ),
        other => format!("the certificate of {endpoint} is no good: {other}"),
    }
}

/// What the peer's alert says of this side.
fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "it does not believe the authority that issued this side's certificate; both sides need certificates of the same one (`nigh ca show`)".to_owned()
        }
        AlertDescription::CertificateExpired => {
            "this side's certificate has expired, or is not valid yet by the other's clock; issue a new one, or set the clocks".to_owned()
        }
        AlertDescription::CertificateRequired => "it asks for a certificate, and this side has shown none".to_owned(),
        other => format!("it refused this side's certificate or TLS (alert {other:?})"),
    }
}

/// Why this side, as a server, refused a peer.
pub(super) fn of_peer(error: &io::Error) -> String {
    let Some(error) = rustls_error(error) else { return format!("it ended the handshake: {error}") };
    match error {
        rustls::Error::NoCertificatesPresented => "it showed no certificate".to_owned(),
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; are both clocks right?".to_owned()
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate was issued by another authority".to_owned()
            }
            other => format!("its certificate is no good: {other}"),
        },
        rustls::Error::AlertReceived(alert) => format!("it refused this role's certificate (alert {alert:?})"),
        other => other.to_string(),
    }
}

fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Why TLS kept a request from its peer, if that is what the status is about.
pub(crate) fn in_status(status: &Status) -> Option<String> {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(Refused(why)) = error.downcast_ref() {
            return Some(why.clone());
        }
        if let Some(error) = error.downcast_ref::<h2::Error>() {
            // In TLS 1.3 a client learns that its certificate is refused only when it first reads; by then the error has
            // gone through HTTP/2, which keeps its words alone.
            return error.get_io().and_then(|error| alert_in(&error.to_string())).map(of_alert);
        }
        source = error.source();
    }
    None
}

/// The alert that an error of a connection tells of.
fn alert_in(words: &str) -> Option<AlertDescription> {
    let alerts = [
        AlertDescription::UnknownCA,
        AlertDescription::DecryptError,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateRequired,
        AlertDescription::BadCertificate,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateUnknown,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::HandshakeFailure,
        AlertDescription::AccessDenied,
    ];
    alerts.into_iter().find(|&alert| words.contains(&rustls::Error::AlertReceived(alert).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_is_known_by_its_words() {
        let error = io::Error::new(
            io::ErrorKind::InvalidData,
            rustls::Error::AlertReceived(AlertDescription::CertificateExpired),
        );
        assert_eq!(alert_in(&error.to_string()), Some(AlertDescription::CertificateExpired));
        assert_eq!(alert_in("connection reset by peer"), None);
    }
}
