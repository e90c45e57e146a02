//! A certificate authority for one edge: it signs, for each role, person and program, who they are and where they may be
//! reached. What the certificates mean is told in `nigh_proto::identity`; `folder` keeps them in files.

pub(crate) mod folder;

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use nigh_proto::tls::{Pem, read_certificates};
use nigh_proto::{Endpoint, Identity};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};

/// Days that an authority is valid.
pub const AUTHORITY_DAYS: u32 = 3650;
/// Days that a certificate is valid unless told otherwise.
pub const CERTIFICATE_DAYS: u32 = 365;
/// Days that a certificate may be valid, at most.
pub const CERTIFICATE_DAYS_MAX: u32 = 3650;
/// How long before now a certificate begins to be valid, so that a clock that is behind does not refuse it.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// Hosts that name the machine itself. They stand in the certificate of every role that listens, so that commands on its
/// own machine reach it.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// Names and addresses in one certificate, at most.
const HOSTS_MAX: usize = 64;

/// Why a certificate cannot be made. Whoever asked for it has to act.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// Nobody could connect to it.
    #[error("a {0} is connected to, so its certificate has to name the host: add --host NAME-OR-ADDRESS")]
    NoHost(nigh_proto::Role),
    /// Not a host.
    #[error("{0:?} is no host; give a name or an address without a port")]
    Host(String),
    /// Too many hosts.
    #[error("{0} hosts; one certificate may name up to {HOSTS_MAX}")]
    Hosts(usize),
    /// The authority itself is over.
    #[error("the authority has expired; begin anew with `nigh ca init --force` and issue all certificates again")]
    Over,
    /// The files are none of an authority.
    #[error("this is no authority: {0}")]
    NoAuthority(String),
    /// Making keys or signing failed.
    #[error("cannot make the certificate: {0}")]
    Making(#[from] rcgen::Error),
}

/// An authority with its key.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    valid_until: SystemTime,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// [`CaError::Making`].
    pub fn new() -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        // Two authorities are told apart by name also where one takes the place of the other.
        name.push(DnType::CommonName, format!("Nigh edge {}", nigh_proto::Digest::of(key.der_bytes()).short()));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let valid_until = SystemTime::now() + days(AUTHORITY_DAYS);
        set_validity(&mut params, valid_until);
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate, valid_until })
    }

    /// One that was made before.
    ///
    /// # Errors
    /// [`CaError::NoAuthority`].
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CaError> {
        let no_authority = |problem: &dyn std::fmt::Display| CaError::NoAuthority(problem.to_string());
        let read = read_certificates(certificate.as_bytes()).map_err(|error| no_authority(&error))?;
        if !read[0].is_ca {
            return Err(no_authority(&"the certificate may not sign others"));
        }
        let key = KeyPair::from_pem(key).map_err(|error| no_authority(&error))?;
        let issuer = Issuer::from_ca_cert_pem(certificate, key).map_err(|error| no_authority(&error))?;
        Ok(Self { issuer, certificate: certificate.to_owned(), valid_until: read[0].not_after })
    }

    /// Its certificate, which whoever is to believe it needs.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, which nobody else must have.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Until when it can issue.
    pub fn valid_until(&self) -> SystemTime {
        self.valid_until
    }

    /// A key and a certificate for `identity` at these hosts, for so many days, or as long as the authority itself is valid.
    ///
    /// # Errors
    /// [`CaError`].
    pub fn issue(&self, identity: &Identity, hosts: &[String], for_days: u32) -> Result<Pem, CaError> {
        if identity.role.listens() && hosts.is_empty() {
            return Err(CaError::NoHost(identity.role));
        }
        let valid_until = (SystemTime::now() + days(for_days)).min(self.valid_until);
        if valid_until <= SystemTime::now() {
            return Err(CaError::Over);
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationalUnitName, identity.role.as_str());
        name.push(DnType::CommonName, identity.name.as_str());
        params.distinguished_name = name;
        params.subject_alt_names = names(identity, hosts)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if identity.role.listens() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, valid_until);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pem {
            ca: self.certificate.clone().into_bytes(),
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        })
    }
}

fn days(number: u32) -> Duration {
    Duration::from_secs(u64::from(number) * 24 * 60 * 60)
}

fn set_validity(params: &mut CertificateParams, until: SystemTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    params.not_before = epoch + since_epoch(SystemTime::now() - BACKDATED);
    params.not_after = epoch + since_epoch(until);
}

fn names(identity: &Identity, hosts: &[String]) -> Result<Vec<SanType>, CaError> {
    if hosts.len() > HOSTS_MAX {
        return Err(CaError::Hosts(hosts.len()));
    }
    let uri = Ia5String::try_from(identity.uri()).map_err(CaError::Making)?;
    let own = if identity.role.listens() { &LOOPBACK[..] } else { &[] };
    let mut all: Vec<&str> = Vec::new();
    for host in hosts.iter().map(String::as_str).chain(own.iter().copied()) {
        if !all.contains(&host) {
            all.push(host);
        }
    }
    let names = all.into_iter().map(host_name);
    std::iter::once(Ok(SanType::URI(uri))).chain(names).collect()
}

fn host_name(given: &str) -> Result<SanType, CaError> {
    if let Ok(address) = given.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    // A wildcard stands for one label.
    let plain = given.strip_prefix("*.").unwrap_or(given);
    let is_host = !plain.contains(':') && format!("{plain}:1").parse::<Endpoint>().is_ok();
    let name = is_host.then(|| Ia5String::try_from(given.to_owned()).ok()).flatten();
    name.map(SanType::DnsName).ok_or_else(|| CaError::Host(given.to_owned()))
}

#[cfg(test)]
mod tests {
    use nigh_proto::{Role, Tls};

    use super::*;

    fn identity(role: Role) -> Identity {
        Identity { role, name: "one".parse().unwrap() }
    }

    #[test]
    fn what_is_issued_is_good_and_says_who_and_where() {
        let authority = Authority::new().unwrap();
        let hosts = ["edge-7.example".to_owned(), "10.0.0.7".to_owned(), "fd00::7".to_owned(), "127.0.0.1".to_owned()];
        let pem = authority.issue(&identity(Role::Broker), &hosts, 30).unwrap();
        let certificate = Tls::new(&pem).unwrap().certificate();
        assert_eq!(certificate.identity, Ok(identity(Role::Broker)));
        assert_eq!(certificate.hosts, ["edge-7.example", "10.0.0.7", "fd00::7", "127.0.0.1", "localhost", "::1"]);
        let left = certificate.not_after.duration_since(SystemTime::now()).unwrap();
        assert!(left > days(29) && left <= days(30), "{left:?}");
        let key = String::from_utf8(pem.key).unwrap();
        assert!(key.starts_with(concat!("-----BEGIN ", "PRIVATE", " KEY-----")), "PKCS#8");
    }

    #[test]
    fn an_authority_outlives_its_process_and_its_certificates_do_not_outlive_it() {
        let authority = Authority::new().unwrap();
        let again = Authority::from_pem(authority.certificate(), &authority.key()).unwrap();
        let pem = again.issue(&identity(Role::Operator), &[], u32::from(u16::MAX)).unwrap();
        let tls = Tls::new(&pem).unwrap();
        assert_eq!(tls.certificate().not_after, again.valid_until());
        let other = Authority::new().unwrap().issue(&identity(Role::Operator), &[], 1).unwrap();
        let mixed = Pem { ca: authority.certificate().into(), ..other };
        assert_eq!(Tls::new(&mixed).unwrap_err(), nigh_proto::tls::TlsError::OtherAuthority);
        let mixed =
            Pem { key: pem.key.clone(), ca: other_ca(), ..authority.issue(&identity(Role::Client), &[], 1).unwrap() };
        assert!(Tls::new(&mixed).is_err());
        let leaf = String::from_utf8(pem.certificate).unwrap();
        assert!(matches!(Authority::from_pem(&leaf, &authority.key()), Err(CaError::NoAuthority(_))));
    }

    fn other_ca() -> Vec<u8> {
        Authority::new().unwrap().certificate().into()
    }

    #[test]
    fn a_role_that_listens_needs_a_host_and_a_host_has_its_form() {
        let authority = Authority::new().unwrap();
        assert!(matches!(authority.issue(&identity(Role::Computer), &[], 1), Err(CaError::NoHost(Role::Computer))));
        for host in ["edge 7", "10.0.0.7:80", "http://edge", "", "*", "edge/7"] {
            let issued = authority.issue(&identity(Role::Computer), &[host.to_owned()], 1);
            assert!(matches!(issued, Err(CaError::Host(_))), "{host:?}: {issued:?}");
        }
        assert!(authority.issue(&identity(Role::Computer), &["*.edge.example".to_owned()], 1).is_ok());
    }
}
