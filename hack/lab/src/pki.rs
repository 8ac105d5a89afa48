//! Certificates, each signed by a CA of its own.

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// A server's certificate, all parts in PEM.
#[derive(Debug)]
pub struct Certificate {
    /// Who signed it.
    pub ca: String,
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Certificate {
    /// Makes one for a server with these host names and addresses.
    ///
    /// # Errors
    /// What makes the certificate, as for a name that none can have.
    pub fn of_server(common_name: &str, names: &[&str]) -> Result<Self> {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        ca.distinguished_name.push(DnType::CommonName, "lab");
        let ca_key = KeyPair::generate().context("making a key")?;
        let ca_certificate = ca.self_signed(&ca_key).context("making a CA")?;
        let issuer = Issuer::new(ca, ca_key);

        let say = || format!("making the certificate of {common_name}");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut server = CertificateParams::new(names).with_context(say)?;
        server
            .distinguished_name
            .push(DnType::CommonName, common_name);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().context("making a key")?;
        let certificate = server.signed_by(&key, &issuer).with_context(say)?;
        Ok(Self {
            ca: ca_certificate.pem(),
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}
