//! The certificate that the API server is shown: made and renewed here, or
//! read from files. It is changed while connections are served.

pub mod bundle;
mod files;
mod keeper;

pub use files::follow_files;
pub use keeper::Keeper;

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

use self::bundle::Certificate;

/// The certificate in use. Clones speak of the same one.
#[derive(Clone, Debug, Default)]
pub struct Current(Arc<RwLock<Option<InUse>>>);

#[derive(Clone, Debug)]
struct InUse {
    certified: Arc<CertifiedKey>,
    until: Timestamp,
}

impl Current {
    /// Uses a certificate, with its chain, and its key, both in PEM, from the
    /// next connection on.
    ///
    /// # Errors
    /// What is wrong with them; the one before stays in use.
    pub fn set(&self, certificate: &str, key: &str) -> Result<(), String> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(certificate.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|error| format!("the certificate cannot be read: {error}"))?;
        if chain.is_empty() {
            return Err("there is no certificate in it".to_owned());
        }
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
            .map_err(|error| format!("the key cannot be read: {error}"))?;
        let certified = CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| format!("certificate and key do not fit: {error}"))?;
        let until = Certificate::read(certificate)
            .map_err(|error| error.to_string())?
            .until();
        let in_use = InUse {
            certified: Arc::new(certified),
            until,
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(in_use);
        Ok(())
    }

    /// When it expires; `None` while there is none.
    pub fn until(&self) -> Option<Timestamp> {
        self.get().map(|in_use| in_use.until)
    }

    fn get(&self) -> Option<InUse> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// TLS 1.2 and later with this certificate.
    ///
    /// # Errors
    /// Those of rustls.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, String> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get().map(|in_use| in_use.certified)
    }
}
