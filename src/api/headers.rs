//! Headers of requests, read by the grammar of HTTP (RFC 9110 and 9112): media types, codings, and the host.

use std::cmp::Reverse;

use mediatype::{MediaType, MediaTypeList, Name, ReadParams, names};
use tonic::body::Body;
use tonic::codegen::http::header::{
    ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, TRANSFER_ENCODING,
};
use tonic::codegen::http::uri::Authority;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};

/// The type of the content, in lower case and without parameters, such as `application/json`; `None` if the header is
/// missing, malformed or repeated.
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let text = without_empty_parameters(value.to_str().ok()?);
    let found = MediaType::parse(text.trim_matches([' ', '\t'])).ok()?;
    Some(found.essence().to_string().to_ascii_lowercase())
}

/// The type that the client prefers. The first one if it accepts none, has no preference, or does not say.
///
/// Parameters other than the weight are ignored, and so are ranges that are malformed.
pub fn preferred<'a>(headers: &HeaderMap, available: &[&'a str]) -> &'a str {
    let accept = without_empty_parameters(&values(headers, &ACCEPT).collect::<Vec<_>>().join(","));
    let ranges: Vec<(MediaType<'_>, f32)> =
        MediaTypeList::new(&accept).flatten().filter_map(|range| Some((range.clone(), weight(&range)?))).collect();
    let rank = |text: &str| {
        let wanted = MediaType::parse(text).ok()?;
        // The most specific range counts. Of several, the one with the highest weight.
        let matching = ranges
            .iter()
            .enumerate()
            .filter_map(|(position, (range, weight))| Some((specificity(range, &wanted)?, *weight, Reverse(position))));
        let (_, weight, position) = matching.max_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal))?;
        (weight > 0.0).then_some((weight, position))
    };
    let mut best: (&str, Option<(f32, Reverse<usize>)>) = (available.first().copied().unwrap_or_default(), None);
    for text in available.iter().copied() {
        let rank = rank(text);
        if rank > best.1 {
            best = (text, rank);
        }
    }
    best.0
}

/// The grammar allows empty parameters, such as those of `text/plain;` and `text/plain;;q=1`, but the parser does not.
fn without_empty_parameters(text: &str) -> String {
    let (mut kept, mut is_quoted, mut is_escaped) = (String::with_capacity(text.len()), false, false);
    for (at, char) in text.char_indices() {
        let next = || text[at + 1..].trim_start_matches([' ', '\t']).chars().next();
        if char == ';' && !is_quoted && matches!(next(), None | Some(';' | ',')) {
            continue;
        }
        is_quoted ^= char == '"' && !is_escaped;
        is_escaped = char == '\\' && is_quoted && !is_escaped;
        kept.push(char);
    }
    kept
}

/// `None` if it is malformed.
fn weight(range: &MediaType<'_>) -> Option<f32> {
    let Some(value) = range.get_param(names::Q) else { return Some(1.0) };
    value.as_str().parse().ok().filter(|weight| (0.0..=1.0).contains(weight))
}

/// 0 for `*/*` to 2 for the type itself; `None` if the range does not contain the type.
fn specificity(range: &MediaType<'_>, wanted: &MediaType<'_>) -> Option<u8> {
    let any = Name::new_unchecked("*");
    if range.essence() == wanted.essence() {
        Some(2)
    } else if range.subty == any && range.suffix.is_none() && range.ty == wanted.ty {
        Some(1)
    } else if range.subty == any && range.ty == any {
        Some(0)
    } else {
        None
    }
}

/// How the content of a request is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
}

/// The codings of the content.
///
/// # Errors
/// The codings, if this server does not support them.
pub fn content_coding(headers: &HeaderMap) -> Result<Coding, String> {
    let all = values(headers, &CONTENT_ENCODING).collect::<Vec<_>>().join(",");
    let names = all.split(',').map(|name| name.trim_matches([' ', '\t']));
    let names: Vec<_> = names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")).collect();
    match names[..] {
        [] => Ok(Coding::Identity),
        [name] if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => Ok(Coding::Gzip),
        _ => Err(all),
    }
}

/// Whether the client accepts a response that is compressed with gzip (RFC 9110, section 12.5.3).
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let all = values(headers, &ACCEPT_ENCODING).collect::<Vec<_>>().join(",");
    let codings = all.split(',').filter_map(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix(['q', 'Q']).and_then(|rest| rest.trim_start().strip_prefix('='));
        let is_accepted = weight.is_none_or(|weight| weight.trim().parse().is_ok_and(|weight: f32| weight > 0.0));
        let rank = match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => 1,
            "*" => 0,
            _ => return None,
        };
        Some((rank, is_accepted))
    });
    codings.max().is_some_and(|(_, is_accepted)| is_accepted)
}

/// Refuses a request whose `host` is missing in HTTP/1.1, repeated or malformed (RFC 9112, section 3.2), or whose body has
/// a transfer coding that this server does not know (section 6.1). `None` if both are right.
pub fn refuse<B>(request: &Request<B>) -> Option<Response<Body>> {
    let host = || host_problem(request).map(|problem| (StatusCode::BAD_REQUEST, problem));
    let (status, problem) = host().or_else(|| {
        let is_known = has_known_transfer_coding(request.headers());
        (!is_known).then_some((StatusCode::NOT_IMPLEMENTED, "the only supported `transfer-encoding` is chunked"))
    })?;
    let mut response = Response::new(Body::new(format!("{problem}\n")));
    *response.status_mut() = status;
    // Where the next request would begin is unknown if the coding of the body is.
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Some(response)
}

fn host_problem<B>(request: &Request<B>) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => (request.version() == Version::HTTP_11).then_some("the header `host` is missing"),
        (Some(_), Some(_)) => Some("more than one header `host`"),
        (Some(host), None) if host.is_empty() => None,
        (Some(host), None) => match Authority::try_from(host.as_bytes()) {
            Ok(host) if !host.as_str().contains('@') && has_valid_port(&host) => None,
            _ => Some("the header `host` is not a name or an address with an optional port"),
        },
    }
}

/// The parser accepts any text as the port.
fn has_valid_port(authority: &Authority) -> bool {
    let port = authority.as_str().strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':'));
    port.is_none_or(|port| {
        port.is_empty() || port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
    })
}

fn has_known_transfer_coding(headers: &HeaderMap) -> bool {
    let all = values(headers, &TRANSFER_ENCODING).collect::<Vec<_>>().join(",");
    let mut names = all.split(',').map(|name| name.trim_matches([' ', '\t'])).filter(|name| !name.is_empty());
    names.next().is_none_or(|name| name.eq_ignore_ascii_case("chunked")) && names.next().is_none()
}

/// The values of a header; those that are not ASCII are left out.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_media_type_is_compared_without_case_and_parameters() {
        let of = |values: &[&'static str]| media_type(&headers(CONTENT_TYPE, values));
        for text in ["application/json", "Application/JSON ; Charset=\"utf-8\"", " application/json;a=\";\";b=c"] {
            assert_eq!(of(&[text]).as_deref(), Some("application/json"), "{text}");
        }
        for empty in ["application/json;", "application/json ; ;", "application/json;;charset=utf-8; "] {
            assert_eq!(of(&[empty]).as_deref(), Some("application/json"), "{empty}");
        }
        assert_eq!(of(&["application/grpc-web+proto; charset=utf-8"]).as_deref(), Some("application/grpc-web+proto"));
        for malformed in ["", "json", "application/", "application/json text/plain", "application/json, text/plain"] {
            assert_eq!(of(&[malformed]), None, "{malformed}");
        }
        assert_eq!(of(&["application/json", "text/plain"]), None, "repeated");
    }

    #[test]
    fn the_weights_of_accept_decide_and_not_its_order() {
        const OURS: [&str; 2] = ["text/plain", "application/openmetrics-text"];
        let of = |values: &[&'static str]| preferred(&headers(ACCEPT, values), &OURS);
        let (text, open) = (OURS[0], OURS[1]);
        for (accept, expected) in [
            ("", text),
            ("*/*", text),
            ("application/openmetrics-text", open),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.5", text),
            ("text/plain;q=0.5, Application/OpenMetrics-Text;version=1.0.0;Q=0.7", open),
            ("application/openmetrics-text;q=0, */*", text),
            ("application/openmetrics-text;Q=0.000, */*;q=0.1", text),
            ("text/*;q=0.1, */*;q=0.9", open),
            ("text/plain;q=0, */*", open),
            ("application/openmetrics-text;, text/plain;q=0.1;", open),
            ("text/plain;q=0.1, application/openmetrics-text;;q=0.5;a=\"\\\";,\"", open),
            ("image/png", text),
            ("application/openmetrics-text, text/plain", open),
            ("text/plain, application/openmetrics-text", text),
            ("nonsense, application/openmetrics-text;q=1", open),
            ("application/openmetrics-text;q=2, text/plain;q=0.1", text),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                 application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                open,
            ),
        ] {
            assert_eq!(of(&[accept]), expected, "{accept}");
        }
        assert_eq!(of(&["text/plain;q=0.1", "application/openmetrics-text"]), open, "two lines are one list");
    }

    #[test]
    fn content_codings_are_compared_without_case() {
        let of = |values: &[&'static str]| content_coding(&headers(CONTENT_ENCODING, values));
        for identity in [&[][..], &[""], &["Identity"], &["identity, IDENTITY"], &["identity", "identity"]] {
            assert_eq!(of(identity), Ok(Coding::Identity), "{identity:?}");
        }
        for gzip in [&["gzip"][..], &["GZip"], &["x-gzip"], &["identity , gzip"], &["identity", "gzip"]] {
            assert_eq!(of(gzip), Ok(Coding::Gzip), "{gzip:?}");
        }
        for other in [&["br"][..], &["gzip, gzip"], &["gzip", "deflate"]] {
            assert!(of(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn gzip_is_accepted_by_its_name_or_by_any_and_not_with_weight_zero() {
        let of = |values: &[&'static str]| accepts_gzip(&headers(ACCEPT_ENCODING, values));
        for accepting in [&["gzip"][..], &["br, GZip;q=0.5"], &["*"], &["deflate", "x-gzip"], &["*;q=0, gzip"]] {
            assert!(of(accepting), "{accepting:?}");
        }
        for other in [&[][..], &[""], &["br"], &["gzip;q=0"], &["gzip; Q=0.0, *"], &["*;q=0"], &["identity"]] {
            assert!(!of(other), "{other:?}");
        }
    }

    #[test]
    fn a_body_has_no_transfer_coding_but_chunked() {
        let refused = |values: &[&'static str]| {
            let mut request = Request::new(());
            *request.headers_mut() = headers(TRANSFER_ENCODING, values);
            request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
            refuse(&request).map(|response| response.status().as_u16())
        };
        for known in [&[][..], &["chunked"], &["Chunked"], &[" chunked ,"]] {
            assert_eq!(refused(known), None, "{known:?}");
        }
        for other in
            [&["gzip, chunked"][..], &["gzip", "chunked"], &["chunked, chunked"], &["identity"], &["chunked;a=b"]]
        {
            assert_eq!(refused(other), Some(501), "{other:?}");
        }
    }

    #[test]
    fn http_1_1_requires_exactly_one_host() {
        let refused = |version: Version, values: &[&'static str]| {
            let mut request = Request::new(());
            *request.version_mut() = version;
            *request.headers_mut() = headers(HOST, values);
            refuse(&request).map(|response| response.status().as_u16())
        };
        for host in ["localhost", "localhost:80", "localhost:", "[::1]:7070", "[::1]", "10.0.0.1", ""] {
            assert_eq!(refused(Version::HTTP_11, &[host]), None, "{host}");
        }
        for host in ["a b", "user@localhost", "a/b", "a, b", "a:b", "a:+80", "a:65536", "[::1]:x", "::1"] {
            assert_eq!(refused(Version::HTTP_11, &[host]), Some(400), "{host}");
        }
        assert_eq!(refused(Version::HTTP_11, &[]), Some(400));
        assert_eq!((refused(Version::HTTP_10, &[]), refused(Version::HTTP_2, &[])), (None, None));
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(refused(version, &["localhost", "localhost"]), Some(400));
        }
    }
}
