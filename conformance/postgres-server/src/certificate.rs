//! Certificates for servers, made anew for each test.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::{Error, Result};

/// Who signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// What a server shows, and its key.
#[derive(Clone)]
pub struct Certificate {
    chain: String,
    key: String,
}

impl Authority {
    /// A new one, which nobody trusts yet.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new() -> Result<Self> {
        let made = || -> std::result::Result<Self, rcgen::Error> {
            let mut parameters = CertificateParams::new(Vec::new())?;
            parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            parameters.distinguished_name.push(DnType::CommonName, "Authority of a test");
            let key = KeyPair::generate()?;
            let pem = parameters.self_signed(&key)?.pem();
            Ok(Self { issuer: Issuer::new(parameters, key), pem })
        };
        made().map_err(|error| Error::of("cannot make a certificate authority", error))
    }

    /// What its clients have to trust, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a server that is reached by these names or addresses.
    ///
    /// # Errors
    /// If one of them is none.
    pub fn certify(&self, names: &[&str]) -> Result<Certificate> {
        let made = || -> std::result::Result<Certificate, rcgen::Error> {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            let mut parameters = CertificateParams::new(names)?;
            parameters.distinguished_name.push(DnType::CommonName, "PostgreSQL of a test");
            parameters.use_authority_key_identifier_extension = true;
            let key = KeyPair::generate()?;
            let chain = parameters.signed_by(&key, &self.issuer)?.pem();
            Ok(Certificate { chain, key: key.serialize_pem() })
        };
        made().map_err(|error| Error::of(format!("cannot certify {names:?}"), error))
    }
}

impl Certificate {
    /// The certificate, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.chain
    }

    /// Its secret key, as PEM.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Certificate").finish_non_exhaustive()
    }
}
