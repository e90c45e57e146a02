//! The certificates of an edge in one process: issued when it starts, renewed while it runs, never written to a disk.

use std::sync::Arc;
use std::time::Duration;

use nigh_proto::tls::TlsError;
use nigh_proto::{Identity, NodeName, Role, Tls};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

use crate::ca::{Authority, CaError};

/// Days that one is valid.
const VALID_DAYS: u32 = 30;
/// How often all are renewed, long before they end.
const RENEW_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a role has no certificate. Whoever runs the edge has to act.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The authority cannot issue it.
    #[error("no certificate for the {identity}: {source}")]
    Issue {
        /// For whom.
        identity: Identity,
        /// Why.
        source: CaError,
    },
    /// What was issued cannot be used.
    #[error("the certificate for the {identity} cannot be used: {source}")]
    Use {
        /// For whom.
        identity: Identity,
        /// Why.
        source: TlsError,
    },
}

/// All certificates of an edge.
#[derive(Debug)]
pub(super) struct Certificates {
    issuing: Arc<Issuing>,
    _renewing: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Issuing {
    authority: Arc<Authority>,
    hosts: Vec<String>,
    issued: Mutex<Vec<Tls>>,
}

impl Certificates {
    pub(super) fn new(authority: Arc<Authority>, hosts: Vec<String>) -> Self {
        Self { issuing: Arc::new(Issuing { authority, hosts, issued: Mutex::default() }), _renewing: None }
    }

    /// A certificate for one role.
    pub(super) fn issue(&self, role: Role, name: &NodeName) -> Result<Tls, CertificateError> {
        let identity = Identity { role, name: name.clone() };
        let pem = self.issuing.pem(&identity)?;
        let tls = Tls::new(&pem).map_err(|source| CertificateError::Use { identity, source })?;
        self.issuing.issued.lock().push(tls.clone());
        Ok(tls)
    }

    /// Issues all anew.
    pub(super) fn renew(&self) -> Result<(), CertificateError> {
        self.issuing.renew()
    }

    /// Issues all anew once a day for as long as this lives.
    pub(super) fn keep_renewing(&mut self) {
        let issuing = self.issuing.clone();
        let renewing = async move {
            loop {
                tokio::time::sleep(RENEW_EVERY).await;
                if let Err(error) = issuing.renew() {
                    tracing::error!(%error, "certificates cannot be renewed, going on with those before");
                }
            }
        };
        self._renewing = Some(AbortOnDropHandle::new(tokio::spawn(renewing)));
    }
}

impl Issuing {
    fn pem(&self, identity: &Identity) -> Result<nigh_proto::tls::Pem, CertificateError> {
        let issued = self.authority.issue(identity, &self.hosts, VALID_DAYS);
        issued.map_err(|source| CertificateError::Issue { identity: identity.clone(), source })
    }

    fn renew(&self) -> Result<(), CertificateError> {
        for tls in self.issued.lock().iter() {
            let identity = tls.identity();
            tls.replace(&self.pem(&identity)?).map_err(|source| CertificateError::Use { identity, source })?;
        }
        Ok(())
    }
}
