//! Formats, with the examples of their specifications.

use super::*;

const TRACE: u128 = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
const SPAN: u64 = 0xe457_b5a2_e4d8_6bd1;

fn read(formats: &str, headers: &[(&str, &'static str)]) -> Option<TraceContext> {
    let (formats, unknown) = Formats::parse(formats);
    assert_eq!(unknown, [""; 0]);
    formats.read(|name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
}

/// Trace, span and flags.
fn numbers(formats: &str, headers: &[(&str, &'static str)]) -> Option<(u128, u64, u8)> {
    read(formats, headers).map(|place| (place.trace_id, place.span_id, place.flags))
}

fn place(flags: u8) -> TraceContext {
    TraceContext::new(Some(RemoteSpan { trace_id: TRACE, span_id: SPAN, flags }), None, None).unwrap()
}

fn told(formats: &str, place: &TraceContext) -> Vec<String> {
    let pairs = Formats::parse(formats).0.variables(place);
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[test]
fn names_are_those_of_the_specification_each_once_in_their_order() {
    let names = |list: &str| Formats::parse(list).0.iter().map(Format::name).collect::<Vec<_>>();
    assert_eq!(names("b3, baggage,b3,Jaeger ,b3"), ["b3", "baggage", "jaeger"]);
    assert_eq!(names("xray,ottrace,tracecontext,b3multi").len(), 4);
    assert_eq!(Formats::of(Format::ALL.into_iter().chain(Format::ALL)).iter().collect::<Vec<_>>(), Format::ALL);
    assert_eq!(names("none"), [""; 0]);
    assert_eq!(Formats::parse("tracecontext,baggage"), (Formats::default(), Vec::new()));
    assert_eq!(Formats::parse("b3,,carrier-pigeon").1, ["carrier-pigeon"]);
}

#[test]
fn b3_comes_in_one_header() {
    for (text, flags) in [
        ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90", SAMPLED),
        ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1", SAMPLED),
        ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0", 0),
        ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d-05e3ac9a4f6e3b90", SAMPLED | DEBUG),
        ("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1", UNDECIDED),
    ] {
        assert_eq!(numbers("b3", &[("b3", text)]), Some((TRACE, SPAN, flags)), "{text}");
    }
    let short = numbers("b3multi", &[("b3", "64fe8b2a57d3eff7-e457b5a2e4d86bd1-1")]);
    assert_eq!(short, Some((TRACE & u128::from(u64::MAX), SPAN, SAMPLED)));
}

#[test]
fn b3_comes_in_several_headers() {
    let ids = [("x-b3-traceid", "463ac35c9f6413ad48485a3953bb6124"), ("x-b3-spanid", "a2fb4a1d1a96d312")];
    for (more, flags) in [
        (("x-b3-sampled", "1"), SAMPLED),
        (("x-b3-sampled", "true"), SAMPLED),
        (("x-b3-sampled", "0"), 0),
        (("x-b3-flags", "1"), SAMPLED | DEBUG),
        (("x-b3-parentspanid", "0020000000000001"), UNDECIDED),
    ] {
        let expected = Some((0x463a_c35c_9f64_13ad_4848_5a39_53bb_6124, 0xa2fb_4a1d_1a96_d312, flags));
        assert_eq!(numbers("b3", &[ids[0], ids[1], more]), expected, "{more:?}");
    }
    assert_eq!(numbers("b3", &[ids[0], ids[1], ("x-b3-sampled", "perhaps")]), None);
    assert_eq!(numbers("b3", &ids[..1]), None);
    // One header goes before several, unless it says nothing.
    let single = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
    assert_eq!(numbers("b3multi", &[ids[0], ids[1], single]), Some((TRACE, SPAN, SAMPLED)));
    assert_eq!(numbers("b3", &[ids[0], ids[1], ("b3", "0")]).map(|(_, _, flags)| flags), Some(UNDECIDED));
}

#[test]
fn jaeger_leaves_zeros_out_and_knows_debug() {
    for (text, flags) in [
        ("80f198ee56343ba864fe8b2a57d3eff7:e457b5a2e4d86bd1:0:1", SAMPLED),
        ("80f198ee56343ba864fe8b2a57d3eff7:e457b5a2e4d86bd1:05e3ac9a4f6e3b90:0", 0),
        ("80f198ee56343ba864fe8b2a57d3eff7:e457b5a2e4d86bd1:0:03", SAMPLED | DEBUG),
        ("80f198ee56343ba864fe8b2a57d3eff7:e457b5a2e4d86bd1:0:2", SAMPLED | DEBUG),
        ("80f198ee56343ba864fe8b2a57d3eff7%3Ae457b5a2e4d86bd1%3A0%3A1", SAMPLED),
    ] {
        assert_eq!(numbers("jaeger", &[("uber-trace-id", text)]), Some((TRACE, SPAN, flags)), "{text}");
    }
    assert_eq!(numbers("jaeger", &[("uber-trace-id", "2a:b:0:1")]), Some((42, 11, SAMPLED)));
}

#[test]
fn xray_has_its_parts_in_any_order() {
    let expected = |flags| Some((0x5759_e988_bd86_2e3f_e1be_46a9_9427_2793, 0x5399_5c3f_42cd_8ad8, flags));
    for (text, flags) in [
        ("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1", SAMPLED),
        ("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=0", 0),
        ("Sampled=?; Parent=53995c3f42cd8ad8; Root=1-5759e988-bd862e3fe1be46a994272793", UNDECIDED),
        (
            "Self=1-67891234-12456789abcdef012345678;Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Lineage=a:1|b:2",
            UNDECIDED,
        ),
    ] {
        assert_eq!(numbers("xray", &[("x-amzn-trace-id", text)]), expected(flags), "{text}");
    }
}

#[test]
fn ottrace_has_three_headers() {
    let ids = [("ot-tracer-traceid", "64fe8b2a57d3eff7"), ("ot-tracer-spanid", "e457b5a2e4d86bd1")];
    for (sampled, flags) in [("true", SAMPLED), ("false", 0)] {
        let found = numbers("ottrace", &[ids[0], ids[1], ("ot-tracer-sampled", sampled)]);
        assert_eq!(found, Some((TRACE & u128::from(u64::MAX), SPAN, flags)));
    }
    assert_eq!(numbers("ottrace", &ids).map(|(_, _, flags)| flags), Some(UNDECIDED));
    assert_eq!(numbers("ottrace", &[("ot-tracer-traceid", "fff"), ("ot-tracer-spanid", "1")]).unwrap().0, 0xfff);
}

#[test]
fn what_is_malformed_is_nobodys_place() {
    for text in [
        "",
        "0",
        "d",
        "-",
        "---",
        "80f198ee56343ba864fe8b2a57d3eff7",
        "80f198ee56343ba864fe8b2a57d3eff7-",
        "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-",
        "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-2",
        "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-",
        "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90-1",
        "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-05e3ac9a4f6e3b90",
        "80F198EE56343BA864FE8B2A57D3EFF7-E457B5A2E4D86BD1-1",
        "80f198ee56343ba864fe8b2a57d3eff-e457b5a2e4d86bd1-1",
        "+0f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1",
        "00000000000000000000000000000000-e457b5a2e4d86bd1-1",
        "80f198ee56343ba864fe8b2a57d3eff7-0000000000000000-1",
    ] {
        assert_eq!(numbers("b3", &[("b3", text)]), None, "{text}");
    }
    for text in ["", ":::", "1:1:0", "1:1:0:1:1", "1:1:0:", "1:1:0:111", "0:1:0:1", "1:0:0:1", "x:1:0:1", "%ff:1:0:1"] {
        assert_eq!(numbers("jaeger", &[("uber-trace-id", text)]), None, "{text}");
    }
    for text in [
        "",
        "Root",
        // As load balancers say it.
        "Root=1-5759e988-bd862e3fe1be46a994272793",
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=yes",
        "Root=2-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
        "Root=1-5759e988-bd862e3fe1be46a99427279;Parent=53995c3f42cd8ad8;Sampled=1",
        "Root=1-00000000-000000000000000000000000;Parent=53995c3f42cd8ad8;Sampled=1",
        "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad;Sampled=1",
    ] {
        assert_eq!(numbers("xray", &[("x-amzn-trace-id", text)]), None, "{text}");
    }
    for (trace, span, sampled) in [("", "1", "true"), ("1", "x", "true"), ("1", "1", "yes"), ("0", "1", "true")] {
        let headers = [("ot-tracer-traceid", trace), ("ot-tracer-spanid", span), ("ot-tracer-sampled", sampled)];
        assert_eq!(numbers("ottrace", &headers), None, "{headers:?}");
    }
}

#[test]
fn a_later_format_wins_when_it_finds_something_and_only_what_is_listed_is_read() {
    let all = [
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("tracestate", "vendor=1"),
        ("baggage", "user=7"),
        ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0"),
    ];
    let later = read("tracecontext,baggage,b3", &all).unwrap();
    assert_eq!((later.trace_id, &*later.state, &*later.baggage), (TRACE, "", "user=7"));
    let first = read("b3,tracecontext", &all).unwrap();
    assert_eq!((first.span_id, &*first.state, &*first.baggage), (0xb7ad_6b71_6920_3331, "vendor=1", ""));
    // The later one has nothing to say.
    let left = read("tracecontext,b3", &[all[0], all[1], ("b3", "0")]).unwrap();
    assert_eq!((left.span_id, &*left.state), (0xb7ad_6b71_6920_3331, "vendor=1"));
    assert_eq!(read("none", &all), None);
    assert_eq!(read("jaeger,xray,ottrace", &all), None);
}

#[test]
fn a_process_is_told_its_place_in_every_format_that_is_listed() {
    let mut place = place(SAMPLED);
    (place.state, place.baggage) = ("vendor=1".into(), "user=7".into());
    let said = [
        "TRACEPARENT=00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01",
        "TRACESTATE=vendor=1",
        "BAGGAGE=user=7",
        "B3=80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1",
        "X_B3_TRACEID=80f198ee56343ba864fe8b2a57d3eff7",
        "X_B3_SPANID=e457b5a2e4d86bd1",
        "X_B3_SAMPLED=1",
        "UBER_TRACE_ID=80f198ee56343ba864fe8b2a57d3eff7:e457b5a2e4d86bd1:0:1",
        "X_AMZN_TRACE_ID=Root=1-80f198ee-56343ba864fe8b2a57d3eff7;Parent=e457b5a2e4d86bd1;Sampled=1",
        "OT_TRACER_TRACEID=64fe8b2a57d3eff7",
        "OT_TRACER_SPANID=e457b5a2e4d86bd1",
        "OT_TRACER_SAMPLED=true",
    ];
    assert_eq!(told("tracecontext,baggage,b3,b3multi,jaeger,xray,ottrace", &place), said);
    assert_eq!(told("none", &place), [""; 0]);
    let alone = TraceContext::new(None, None, Some("user=7")).unwrap();
    assert_eq!(told("tracecontext,b3,jaeger,xray,ottrace,baggage", &alone), ["BAGGAGE=user=7"]);
}

#[test]
fn what_a_format_says_it_reads_again() {
    for flags in [0, SAMPLED, SAMPLED | DEBUG, UNDECIDED] {
        let place = place(flags);
        for format in [Format::B3, Format::B3Multi, Format::Jaeger, Format::XRay] {
            let formats = Formats::of([format]);
            let said = formats.variables(&place);
            let header = |name: &'static str| {
                let key = ALL_KEYS.iter().find(|key| key.header == name).unwrap();
                said.iter().find(|(variable, _)| *variable == key.variable).map(|(_, value)| value.as_str())
            };
            let again = formats.read(header).unwrap();
            let kept = match (format, flags) {
                (Format::Jaeger, UNDECIDED) => 0,
                (Format::XRay, _) => flags & !DEBUG,
                _ => flags,
            };
            assert_eq!((again.trace_id, again.span_id, again.flags), (TRACE, SPAN, kept), "{format:?}");
        }
    }
}

const ALL_KEYS: [Key; 13] = [
    TRACEPARENT,
    TRACESTATE,
    BAGGAGE,
    B3,
    B3_TRACE,
    B3_SPAN,
    B3_SAMPLED,
    B3_FLAGS,
    JAEGER,
    XRAY,
    OT_TRACE,
    OT_SPAN,
    OT_SAMPLED,
];

#[test]
fn variables_are_named_by_the_rules_for_environments() {
    for key in ALL_KEYS {
        let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        assert_eq!(key.variable, key.header.chars().map(letter).collect::<String>());
    }
}
