//! Compares the contract with `contract.snapshot.txt`, so that a change of the wire format is visible.
//!
//! Update the snapshot after an intended change: `UPDATE_SNAPSHOT=1 cargo test --test contract`.

use std::fmt::Write;
use std::path::Path;

use prost_reflect::{DescriptorPool, EnumDescriptor, MessageDescriptor, ServiceDescriptor};

const PACKAGE: &str = "lineshaft.v1";

fn describe_service(text: &mut String, service: &ServiceDescriptor) {
    writeln!(text, "service {}", service.name()).expect("writing to a string never fails");
    for method in service.methods() {
        let stream = |flag| if flag { "stream " } else { "" };
        let (input, output) = (method.input(), method.output());
        let (from, to) = (stream(method.is_client_streaming()), stream(method.is_server_streaming()));
        writeln!(text, "  {}({from}{}) -> {to}{}", method.name(), input.name(), output.name())
            .expect("writing to a string never fails");
    }
}

fn describe_message(text: &mut String, message: &MessageDescriptor) {
    writeln!(text, "message {}", message.name()).expect("writing to a string never fails");
    for field in message.fields() {
        let oneof = field.containing_oneof().map(|oneof| format!(" in {}", oneof.name())).unwrap_or_default();
        writeln!(text, "  {} = {}: {:?} {:?}{oneof}", field.name(), field.number(), field.cardinality(), field.kind())
            .expect("writing to a string never fails");
    }
}

fn describe_enum(text: &mut String, kind: &EnumDescriptor) {
    writeln!(text, "enum {}", kind.name()).expect("writing to a string never fails");
    for value in kind.values() {
        writeln!(text, "  {} = {}", value.name(), value.number()).expect("writing to a string never fails");
    }
}

#[test]
fn the_contract_matches_its_snapshot() {
    let pool = DescriptorPool::decode(lineshaft::proto::DESCRIPTORS).expect("a descriptor set");
    let mut text = String::new();
    for service in pool.services().filter(|service| service.package_name() == PACKAGE) {
        describe_service(&mut text, &service);
    }
    for message in pool.all_messages().filter(|message| message.package_name() == PACKAGE) {
        describe_message(&mut text, &message);
    }
    for kind in pool.all_enums().filter(|kind| kind.package_name() == PACKAGE) {
        describe_enum(&mut text, &kind);
    }
    let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract.snapshot.txt");
    if std::env::var_os("UPDATE_SNAPSHOT").is_some() {
        std::fs::write(&snapshot, &text).expect("the snapshot is writable");
    }
    let expected = std::fs::read_to_string(&snapshot).unwrap_or_default();
    for (line, (actual, expected)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(actual, expected, "line {} of tests/contract.snapshot.txt", line + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "lines of tests/contract.snapshot.txt");
}
