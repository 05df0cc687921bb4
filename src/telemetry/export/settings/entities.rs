//! What runs here, as whoever started it says it: `OTEL_ENTITIES`.
//!
//! Format and rules for what is wrong are those of "Entity Propagation" in the specification. The library knows no
//! entities: their attributes become those of the resource, and what type they belong to is not told.

use super::variables::decoded;

type Pairs = Vec<(String, String)>;

/// One of them.
struct Entity<'a> {
    kind: &'a str,
    identity: Pairs,
    description: Pairs,
}

/// The attributes of all of them, the later ones last, and what was wrong.
pub(super) fn attributes(text: &str) -> (Pairs, Vec<String>) {
    let mut entities: Vec<Entity<'_>> = Vec::new();
    let mut warnings = Vec::new();
    for said in text.split(';').map(str::trim).filter(|said| !said.is_empty()) {
        let Some(entity) = entity(said) else {
            warnings.push("expected type{key=value}, with [key=value] and @url after it if there are such".to_owned());
            continue;
        };
        let known = entities.len();
        entities.retain(|earlier| !replaces(&entity, earlier));
        if entities.len() < known {
            warnings.push(format!("{} is said twice; the last one counts", entity.kind));
        }
        entities.push(entity);
    }
    let (mut found, mut described): (Pairs, Pairs) = (Vec::new(), Vec::new());
    for entity in entities {
        for (key, value) in &entity.description {
            if described.iter().any(|(known, other)| known == key && other != value) {
                warnings.push(format!("{key} is said twice; the last one counts"));
            }
        }
        described.extend(entity.description.clone());
        found.extend(entity.description);
        found.extend(entity.identity);
    }
    (found, warnings)
}

/// Whether they are the same, or contradict each other about which they are.
fn replaces(later: &Entity<'_>, earlier: &Entity<'_>) -> bool {
    let contradicts = |(key, value): &(String, String)| later.identity.iter().any(|(k, v)| k == key && v != value);
    later.kind == earlier.kind && (later.identity == earlier.identity || earlier.identity.iter().any(contradicts))
}

fn entity(text: &str) -> Option<Entity<'_>> {
    let (kind, rest) = text.split_once('{')?;
    let (identity, rest) = rest.split_once('}')?;
    let (description, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let identity = pairs(identity)?;
    let ends = rest.is_empty() || rest.starts_with('@');
    (ends && is_name(kind) && !identity.is_empty()).then_some(Entity {
        kind,
        identity,
        description: pairs(description)?,
    })
}

fn pairs(text: &str) -> Option<Pairs> {
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let is_value = !value.contains(['{', '}', '[', ']', '@', '=']);
        if is_name(key) && is_value { Some((key.to_owned(), decoded(value)?)) } else { None }
    };
    text.split(',').filter(|pair| !pair.is_empty()).map(pair).collect()
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> (String, usize) {
        let (found, warnings) = attributes(text);
        let found: Vec<_> = found.iter().map(|(key, value)| format!("{key}={value}")).collect();
        (found.join(" "), warnings.len())
    }

    #[test]
    fn the_examples_of_the_specification_mean_what_it_says() {
        let service = "service{service.name=my-app,service.instance.id=i-1}[service.version=1.0.0]";
        let all = "service.version=1.0.0 service.name=my-app service.instance.id=i-1";
        assert_eq!(told(service), (all.to_owned(), 0));
        let host = ";host{host.id=7}[host.name=web]@https://opentelemetry.io/schemas/1.21.0;;";
        assert_eq!(told(&format!("{service}{host}")), (format!("{all} host.name=web host.id=7"), 0));
        let encoded = "service{service.name=my%2Capp}[config=key%3Dvalue%5Bprod%5D]";
        assert_eq!(told(encoded), ("config=key=value[prod] service.name=my,app".to_owned(), 0));
    }

    #[test]
    fn what_is_wrong_is_left_out_and_what_is_said_twice_counts_once() {
        for (text, left, warnings) in [
            ("service{service.name=a};invalid{syntax;host{host.id=1}", "service.name=a host.id=1", 1),
            ("service{};host{host.id=1}", "host.id=1", 1),
            ("7up{a=b};{a=b};x{a=b}tail;x[a=b];x{a=b=c};x{=b}", "", 6),
            ("s{n=a}[version=1.0];s{n=a}[version=2.0]", "version=2.0 n=a", 1),
            ("s{n=a};s{n=b}", "n=b", 1),
            ("s{n=%ZZ};t{n=b}", "n=b", 1),
            ("s{n=a}[v=1];t{m=b}[v=2]", "v=1 n=a v=2 m=b", 1),
            ("s{n=a}@not a url", "n=a", 0),
        ] {
            assert_eq!(told(text), (left.to_owned(), warnings), "{text}");
        }
    }
}
