//! CA and certificate as they are kept in the Secret, and when which of them
//! is renewed. Pure: time comes in, and the next state goes out.
//!
//! A new CA is published in the caBundle, beside the old one, before the
//! first certificate of it is used; the old one stays until it expires. So at
//! every moment every certificate in use is signed by a CA that every API
//! server has heard of.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;
use x509_parser::pem::Pem;

/// Subjects of the CAs that are made here begin with this.
const SUBJECT: &str = "l2lb-webhook CA";
/// Certificates are good from a little before they are made: clocks differ.
const BACKDATE: Duration = Duration::from_secs(300);

/// Keys of the Secret's data.
const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const LEAF: &str = "tls.crt";
const LEAF_KEY: &str = "tls.key";

/// Why something is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be read.
    #[error("{0} cannot be read: {1}")]
    Unreadable(&'static str, String),
    /// It cannot be made.
    #[error("a certificate cannot be made: {0}")]
    Making(#[from] rcgen::Error),
}

/// How long things are good.
#[derive(Clone, Debug)]
pub struct Terms {
    /// A certificate.
    pub leaf: Duration,
    /// A CA.
    pub ca: Duration,
    /// How long a new CA is published before it is used.
    pub settle: Duration,
    /// The names that the certificate is for, the first one being its subject.
    pub names: Vec<String>,
}

/// What is known of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// It, in PEM.
    pub pem: String,
    subject: String,
    issuer: String,
    names: Vec<String>,
    from: Timestamp,
    until: Timestamp,
}

impl Certificate {
    /// Reads the first certificate of a PEM text.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(pem: &str) -> Result<Self, CertificateError> {
        all(pem)?
            .into_iter()
            .next()
            .ok_or_else(|| CertificateError::Unreadable("a certificate", "it is empty".to_owned()))
    }

    /// When it expires.
    pub fn until(&self) -> Timestamp {
        self.until
    }

    fn is_good(&self, now: Timestamp) -> bool {
        now < self.until
    }

    /// Whether two thirds of its life are over.
    fn is_due(&self, now: Timestamp) -> bool {
        now >= self.due()
    }

    fn due(&self) -> Timestamp {
        let start = self.made();
        let life = self.until.duration_since(start);
        start.saturating_add(life * 2 / 3).unwrap_or(self.until)
    }

    fn made(&self) -> Timestamp {
        self.from.saturating_add(BACKDATE).unwrap_or(self.from)
    }
}

/// Every certificate of a PEM text.
///
/// # Errors
/// When something in it is no certificate.
pub fn all(pem: &str) -> Result<Vec<Certificate>, CertificateError> {
    let wrong = |error: String| CertificateError::Unreadable("a certificate", error);
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|error| wrong(error.to_string()))?;
        let x509 = block
            .parse_x509()
            .map_err(|error| wrong(error.to_string()))?;
        let time = |t: x509_parser::time::ASN1Time| {
            Timestamp::from_second(t.timestamp()).map_err(|error| wrong(error.to_string()))
        };
        let names = match x509.subject_alternative_name() {
            Ok(Some(extension)) => extension
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    x509_parser::extensions::GeneralName::DNSName(dns) => Some((*dns).to_owned()),
                    _ => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        found.push(Certificate {
            pem: encode(&block.contents),
            subject: x509.subject().to_string(),
            issuer: x509.issuer().to_string(),
            names,
            from: time(x509.validity().not_before)?,
            until: time(x509.validity().not_after)?,
        });
    }
    Ok(found)
}

/// DER as PEM, in one form whoever wrote it.
fn encode(der: &[u8]) -> String {
    use k8s_openapi::ByteString;
    // serde knows base64 already.
    let text = serde_json::to_value(ByteString(der.to_vec()))
        .ok()
        .and_then(|v| v.as_str().map(str::to_owned))
        .unwrap_or_default();
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// CA and certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The CAs, the newest first; all but that one are only still trusted.
    pub authorities: Vec<Certificate>,
    /// The newest one's key in PEM.
    ca_key: String,
    /// The certificate in use.
    pub leaf: Certificate,
    /// Its key in PEM.
    pub leaf_key: String,
}

/// What to do next.
#[derive(Debug)]
pub enum Step {
    /// Nothing before this time.
    Keep(Timestamp),
    /// Write this to the Secret, for this reason.
    Write(Box<Bundle>, &'static str),
}

impl Bundle {
    /// Reads the data of the Secret.
    ///
    /// # Errors
    /// When a part is missing or cannot be read.
    pub fn read(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, CertificateError> {
        let text = |key: &'static str| {
            let bytes = data
                .get(key)
                .ok_or_else(|| CertificateError::Unreadable(key, "it is missing".to_owned()))?;
            String::from_utf8(bytes.clone())
                .map_err(|error| CertificateError::Unreadable(key, error.to_string()))
        };
        let bundle = Self {
            authorities: all(&text(CA)?)?,
            ca_key: text(CA_KEY)?,
            leaf: Certificate::read(&text(LEAF)?)?,
            leaf_key: text(LEAF_KEY)?,
        };
        if bundle.authorities.is_empty() {
            return Err(CertificateError::Unreadable(CA, "it is empty".to_owned()));
        }
        for (name, key) in [(CA_KEY, &bundle.ca_key), (LEAF_KEY, &bundle.leaf_key)] {
            KeyPair::from_pem(key)
                .map_err(|error| CertificateError::Unreadable(name, error.to_string()))?;
        }
        Ok(bundle)
    }

    /// The data of the Secret.
    pub fn data(&self) -> BTreeMap<String, Vec<u8>> {
        let ca: String = self.authorities.iter().map(|c| c.pem.as_str()).collect();
        [
            (CA, &ca),
            (CA_KEY, &self.ca_key),
            (LEAF, &self.leaf.pem),
            (LEAF_KEY, &self.leaf_key),
        ]
        .into_iter()
        .map(|(key, text)| (key.to_owned(), text.clone().into_bytes()))
        .collect()
    }

    /// A new CA and a certificate of it.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn new(now: Timestamp, terms: &Terms) -> Result<Self, CertificateError> {
        let (authority, ca_key) = make_authority(now, terms)?;
        let (leaf, leaf_key) = make_leaf(&authority, &ca_key, now, terms)?;
        Ok(Self {
            authorities: vec![authority],
            ca_key,
            leaf,
            leaf_key,
        })
    }

    /// What to do next. `published`: the newest CA is in every caBundle.
    ///
    /// # Errors
    /// When a certificate cannot be made.
    pub fn next(
        &self,
        now: Timestamp,
        published: bool,
        terms: &Terms,
    ) -> Result<Step, CertificateError> {
        let Some(newest) = self.authorities.first().filter(|c| c.is_good(now)) else {
            return Ok(Step::Write(
                Box::new(Self::new(now, terms)?),
                "the CA has expired",
            ));
        };
        let write = |bundle: Self, why| Ok(Step::Write(Box::new(bundle), why));
        let mut next = self.clone();
        next.authorities.retain(|c| c.is_good(now));
        let own = self.leaf.issuer == newest.subject;
        let settled = newest
            .made()
            .saturating_add(terms.settle)
            .unwrap_or(newest.until);
        let may_sign = published && settled <= now;
        let why = if !self.leaf.is_good(now) {
            Some("the certificate has expired")
        } else if self.leaf.names != terms.names {
            Some("the Service has another name")
        } else if !own && may_sign {
            Some("the new CA is known everywhere")
        } else if own && self.leaf.is_due(now) {
            Some("two thirds of the certificate's life are over")
        } else {
            None
        };
        if let Some(why) = why {
            (next.leaf, next.leaf_key) = make_leaf(newest, &self.ca_key, now, terms)?;
            return write(next, why);
        }
        if newest.is_due(now) && own {
            let (authority, key) = make_authority(now, terms)?;
            next.authorities.insert(0, authority);
            next.ca_key = key;
            return write(next, "two thirds of the CA's life are over");
        }
        if next.authorities.len() < self.authorities.len() {
            return write(next, "an old CA has expired");
        }
        let own_due = if own {
            self.leaf.due().min(newest.due())
        } else {
            settled
        };
        let old = self.authorities.iter().map(|c| c.until).min();
        Ok(Step::Keep(own_due.min(old.unwrap_or(own_due))))
    }

    /// The caBundle: the CAs of the Secret, and others of ours that are in it
    /// already and have not expired, for certificates that a replica may
    /// still use.
    pub fn ca_bundle(&self, present: &str, now: Timestamp) -> String {
        let mut authorities: Vec<Certificate> = self
            .authorities
            .iter()
            .filter(|c| c.is_good(now))
            .cloned()
            .collect();
        let ours = |c: &Certificate| c.subject.contains(SUBJECT) && c.is_good(now);
        for other in all(present).unwrap_or_default().into_iter().filter(ours) {
            if authorities.len() < 8 && !authorities.contains(&other) {
                authorities.push(other);
            }
        }
        authorities.iter().map(|c| c.pem.as_str()).collect()
    }

    /// Whether a caBundle has the newest CA.
    pub fn is_published_in(&self, ca_bundle: &str) -> bool {
        let newest = self.authorities.first();
        all(ca_bundle)
            .unwrap_or_default()
            .iter()
            .any(|c| Some(c) == newest)
    }
}

fn offset(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

fn after(now: Timestamp, life: Duration) -> Timestamp {
    now.saturating_add(life).unwrap_or(Timestamp::MAX)
}

fn before(now: Timestamp) -> Timestamp {
    now.saturating_sub(BACKDATE).unwrap_or(now)
}

fn make_authority(
    now: Timestamp,
    terms: &Terms,
) -> Result<(Certificate, String), CertificateError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // The number tells one CA from the next by its subject alone.
    let name = format!("{SUBJECT} {}", now.as_millisecond());
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = offset(before(now));
    params.not_after = offset(after(now, terms.ca));
    let certificate = params.self_signed(&key)?;
    Ok((Certificate::read(&certificate.pem())?, key.serialize_pem()))
}

fn make_leaf(
    authority: &Certificate,
    ca_key: &str,
    now: Timestamp,
    terms: &Terms,
) -> Result<(Certificate, String), CertificateError> {
    let issuer = Issuer::from_ca_cert_pem(&authority.pem, KeyPair::from_pem(ca_key)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(terms.names.clone())?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.remove(DnType::CommonName);
    let name = terms.names.first().cloned().unwrap_or_default();
    // A common name ends at 64 characters; nobody looks at it.
    params.distinguished_name.push(
        DnType::CommonName,
        name.chars().take(64).collect::<String>(),
    );
    params.use_authority_key_identifier_extension = true;
    params.not_before = offset(before(now));
    params.not_after = offset(after(now, terms.leaf).min(authority.until));
    let certificate = params.signed_by(&key, &issuer)?;
    Ok((Certificate::read(&certificate.pem())?, key.serialize_pem()))
}

#[cfg(test)]
mod tests;
