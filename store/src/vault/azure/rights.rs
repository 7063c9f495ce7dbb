//! What Azure lets be done with a credential. A key of the account may do everything; a shared access signature says in its field `sp`
//! what it may, and in `se` until when (<https://learn.microsoft.com/rest/api/storageservices/create-account-sas>); of an identity only the
//! service knows.

use url::form_urlencoded;

use super::auth::{AzureCredential, connection_field};
use crate::clock::Timestamp;
use crate::vault::address::Secret;
use crate::vault::rights::{May, Rights};

impl AzureCredential {
    /// What it may do with packs and points, and until when.
    pub fn rights(&self) -> Rights {
        match self {
            Self::SharedKey(_) => Rights::new("account key", May::Maintain),
            Self::Sas(signature) => of_signature("shared access signature", signature.reveal()),
            // Packs and points lie in the first container. Without either nothing goes there.
            Self::SasPair { data, control } => {
                let data = of_signature("shared access signatures", data.reveal());
                Rights { until: data.until.into_iter().chain(end_of(control.reveal())).min(), ..data }
            }
            Self::ConnectionString(text) => of_connection_string(text),
            Self::ClientSecret { .. } => Rights::new("application with a secret", May::Unknown),
            Self::ManagedIdentity { .. } => Rights::new("managed identity", May::Unknown),
            Self::WorkloadIdentity { .. } => Rights::new("workload identity", May::Unknown),
            Self::AzureCli => Rights::new("login of az", May::Unknown),
        }
    }
}

fn of_connection_string(text: &Secret) -> Rights {
    match (connection_field(text, "AccountKey"), connection_field(text, "SharedAccessSignature")) {
        (None, Some(signature)) => of_signature("connection string with a signature", signature),
        _ => Rights::new("connection string with an account key", May::Maintain),
    }
}

fn of_signature(credential: &'static str, signature: &str) -> Rights {
    Rights { credential, may: letters_of(signature), until: end_of(signature) }
}

fn field(signature: &str, name: &str) -> Option<String> {
    let mut fields = form_urlencoded::parse(signature.trim_start_matches('?').as_bytes());
    fields.find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

/// Its end: a moment in UTC, to seconds or minutes, or the beginning of a day.
fn end_of(signature: &str) -> Option<Timestamp> {
    let text = field(signature, "se")?;
    let moment = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let day = text.parse::<jiff::civil::Date>().ok()?;
        Some(day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    Some(Timestamp::from_seconds(moment.as_second()))
}

/// `w` lets a blob be overwritten, `m` moved, `y` and `x` what is kept of deleted ones be deleted. One with a stored access policy may say nothing.
fn letters_of(signature: &str) -> May {
    let Some(letters) = field(signature, "sp") else { return May::Unknown };
    let has = |wanted: &[char]| letters.contains(wanted);
    match () {
        () if has(&['d', 'w', 'm', 'y', 'x']) => May::Maintain,
        // A policy that the service keeps may add to what the signature says.
        () if field(signature, "si").is_some() => May::Unknown,
        () if has(&['c']) => May::Write,
        () if has(&['r', 'l']) => May::Read,
        () => May::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_says_what_it_may_and_what_says_nothing_is_not_taken_for_harmless() {
        let cases = [
            ("sv=2025-11-05&sp=rcl&sig=geheim", May::Write),
            ("?sp=rl&sig=x", May::Read),
            ("sp=rcld&sig=x", May::Maintain),
            ("sp=rwl&sig=x", May::Maintain),
            ("sp=%72%64&sig=x", May::Maintain),
            ("sp=rcl&si=policy&sig=x", May::Unknown),
            ("si=policy&sig=x", May::Unknown),
            ("sp=&sig=x", May::Unknown),
            ("spr=https&ss=b&srt=co&sp=rcl", May::Write),
            ("", May::Unknown),
        ];
        for (signature, may) in cases {
            assert_eq!(AzureCredential::Sas(Secret::new(signature)).rights().may, may, "{signature}");
            let text = format!("AccountName=a;SharedAccessSignature={signature}");
            assert_eq!(AzureCredential::ConnectionString(Secret::new(text)).rights().may, may, "{signature}");
        }
        let pair = |data, control| {
            let [data, control] = [data, control].map(Secret::new);
            AzureCredential::SasPair { data, control }.rights().may
        };
        assert_eq!([pair("sp=rcl", "sp=rcld"), pair("sp=rcld", "sp=rl")], [May::Write, May::Maintain]);
        let key = AzureCredential::ConnectionString(Secret::new("AccountName=a;AccountKey=eA=="));
        assert_eq!(key.rights().may, May::Maintain);
        assert_eq!(AzureCredential::SharedKey(Secret::new("eA==")).rights().may, May::Maintain);
        assert_eq!(AzureCredential::AzureCli.rights().may, May::Unknown);
    }
    #[test]
    fn a_signature_says_until_when_it_holds() {
        let until = |signature: &str| {
            AzureCredential::Sas(Secret::new(signature)).rights().until.map(|at| at.seconds)
        };
        let noon = 1_798_718_400; // 2026-12-31T12:00:00Z
        for end in [
            "2026-12-31T12:00:00Z",
            "2026-12-31T12:00Z",
            "2026-12-31T12%3A00%3A00Z",
            "2026-12-31T12:00:00.0000000Z",
        ] {
            assert_eq!(until(&format!("?sp=rcl&se={end}&sig=x")), Some(noon), "{end}");
        }
        assert_eq!(until("se=2026-12-31&sig=x"), Some(noon - 43_200));
        assert_eq!([until("sp=rcl&sig=x"), until("se=soon"), until("se=")], [None; 3]);
        let [data, control] = ["se=2026-12-31T12:00Z", "se=2026-12-31"].map(Secret::new);
        let pair = AzureCredential::SasPair { data, control }.rights().until;
        assert_eq!(pair.map(|at| at.seconds), Some(noon - 43_200), "whichever ends first");
    }
}
