//! Client certificates: the names in them, and the grants that these names get.

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::{Grant, Timestamp};

/// Grants a role to holders of certificates with a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRule {
    /// An alternative name (DNS, URI or e-mail); `*` matches any certificate of the CA that has one.
    pub subject: String,
    pub grant: Grant,
}

/// Bytes of a name; a DNS name has at most 253.
const NAME_BYTES_MAX: usize = 255;

/// The alternative names in a certificate that the TLS handshake verified. The common name is not used: the name
/// constraints of a CA do not apply to it. Nor is a name of one kind that looks like one of another kind: the constraints
/// of its own kind would let it pass, and a rule cannot tell them apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateNames {
    pub names: Vec<String>,
    pub expires_at: Timestamp,
}

impl CertificateNames {
    /// `None` if the certificate cannot be parsed.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let mut names = Vec::new();
        if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
            names.extend(alternative.value.general_names.iter().filter_map(|name| match *name {
                GeneralName::DNSName(name) if !name.contains([':', '@']) => Some(name),
                GeneralName::URI(name) if name.contains(':') => Some(name),
                GeneralName::RFC822Name(name) if name.contains('@') && !name.contains(':') => Some(name),
                _ => None,
            }));
        }
        // The name is stored in tasks and written to the log.
        names.retain(|name| (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(|c| matches!(c, '!'..='~')));
        let expires_at = u64::try_from(parsed.validity().not_after.timestamp()).ok()?;
        let names = names.into_iter().map(str::to_owned).collect();
        Some(Self { names, expires_at: Timestamp(expires_at.saturating_mul(1_000_000)) })
    }

    /// The name and the grant of the first rule that matches.
    ///
    /// # Errors
    /// The reason for the log if none matches.
    pub fn granted<'a>(&self, rules: &'a [CertificateRule]) -> Result<(&str, &'a Grant), &'static str> {
        if self.names.is_empty() {
            return Err(
                "the client certificate has no alternative name (DNS, URI or e-mail) of at most 255 characters",
            );
        }
        let granted = rules.iter().find_map(|rule| {
            let matches_any = rule.subject == "*";
            let name = self.names.iter().find(|name| matches_any || **name == rule.subject)?;
            Some((name.as_str(), &rule.grant))
        });
        granted.ok_or("no [[auth.certificate]] has an alternative name of the client certificate as its subject")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(alternative: &[&str]) -> CertificateNames {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names.extend(alternative.iter().map(|name| {
            if name.contains('@') {
                rcgen::SanType::Rfc822Name((*name).try_into().unwrap())
            } else {
                rcgen::SanType::DnsName((*name).try_into().unwrap())
            }
        }));
        params.distinguished_name.push(rcgen::DnType::CommonName, "scaler");
        let key = rcgen::KeyPair::generate().unwrap();
        CertificateNames::of(params.self_signed(&key).unwrap().der()).unwrap()
    }

    fn rule(subject: &str, role: &str) -> CertificateRule {
        CertificateRule { subject: subject.to_owned(), grant: Grant::parse(&role.into(), &["*".to_owned()]).unwrap() }
    }

    #[test]
    fn the_first_rule_with_an_alternative_name_applies() {
        let names = names(&["scaler.lineshaft.svc", "ops@lineshaft.example"]);
        assert_eq!(names.names, ["scaler.lineshaft.svc", "ops@lineshaft.example"]);
        assert!(names.expires_at > Timestamp(1_000_000));
        let rules = [rule("other", "admin"), rule("ops@lineshaft.example", "viewer"), rule("*", "operator")];
        assert_eq!(names.granted(&rules).unwrap(), ("ops@lineshaft.example", &rules[1].grant));
        assert_eq!(names.granted(&rules[2..]).unwrap(), ("scaler.lineshaft.svc", &rules[2].grant));
        assert!(names.granted(&rules[..1]).is_err());
        assert_eq!(CertificateNames::of(&CertificateDer::from(vec![1, 2, 3])), None);
    }

    #[test]
    fn a_common_name_grants_nothing() {
        let rules = [rule("scaler", "viewer"), rule("*", "viewer")];
        assert!(names(&[]).granted(&rules).is_err());
        assert!(names(&["other"]).granted(&rules[..1]).is_err());
    }

    #[test]
    fn a_name_that_looks_like_one_of_another_kind_grants_nothing() {
        use rcgen::SanType::{DnsName, Rfc822Name, URI};
        let (host, mail, uri) = ("admin.example", "root@admin.example", "spiffe://admin.example/root");
        let rules = [rule(host, "admin"), rule(mail, "admin"), rule(uri, "admin"), rule("*", "viewer")];
        let holder = |name| {
            let mut params = rcgen::CertificateParams::default();
            params.subject_alt_names.push(name);
            let key = rcgen::KeyPair::generate().unwrap();
            CertificateNames::of(params.self_signed(&key).unwrap().der()).unwrap()
        };
        let text = |name: &str| name.try_into().unwrap();
        for disguised in [
            URI(text(host)),
            Rfc822Name(text(host)),
            DnsName(text(mail)),
            URI(text(mail)),
            DnsName(text(uri)),
            Rfc822Name(text(uri)),
        ] {
            assert!(holder(disguised.clone()).granted(&rules).is_err(), "{disguised:?}");
        }
        for (index, name) in [DnsName(text(host)), Rfc822Name(text(mail)), URI(text(uri))].into_iter().enumerate() {
            assert_eq!(holder(name).granted(&rules).unwrap().1, &rules[index].grant);
        }
    }

    #[test]
    fn a_name_of_at_most_255_characters_is_used() {
        let long = format!("spiffe://example/{}", "a".repeat(238));
        let rules = [rule("*", "viewer")];
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names.push(rcgen::SanType::URI(long.as_str().try_into().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::URI(format!("{long}a").as_str().try_into().unwrap()));
        let key = rcgen::KeyPair::generate().unwrap();
        let names = CertificateNames::of(params.self_signed(&key).unwrap().der()).unwrap();
        assert_eq!((names.names.len(), names.granted(&rules).unwrap().0), (1, long.as_str()));
    }
}
