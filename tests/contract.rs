//! The contract as a text: a change on the wire is a change of `contract.snapshot.txt`.
//!
//! After a change that is meant: `UPDATE_SNAPSHOT=1 cargo test --test contract`.

use std::fmt::Write;
use std::path::Path;

use prost_reflect::{DescriptorPool, EnumDescriptor, MessageDescriptor, ServiceDescriptor};

const PACKAGE: &str = "lineshaft.v1";

fn describe_service(text: &mut String, service: &ServiceDescriptor) {
    writeln!(text, "service {}", service.name()).expect("a string takes all");
    for method in service.methods() {
        let stream = |flag| if flag { "stream " } else { "" };
        let (input, output) = (method.input(), method.output());
        let (from, to) = (stream(method.is_client_streaming()), stream(method.is_server_streaming()));
        writeln!(text, "  {}({from}{}) -> {to}{}", method.name(), input.name(), output.name())
            .expect("a string takes all");
    }
}

fn describe_message(text: &mut String, message: &MessageDescriptor) {
    writeln!(text, "message {}", message.name()).expect("a string takes all");
    for field in message.fields() {
        let of = field.containing_oneof().map(|of| format!(" in {}", of.name())).unwrap_or_default();
        writeln!(text, "  {} = {}: {:?} {:?}{of}", field.name(), field.number(), field.cardinality(), field.kind())
            .expect("a string takes all");
    }
}

fn describe_enum(text: &mut String, kind: &EnumDescriptor) {
    writeln!(text, "enum {}", kind.name()).expect("a string takes all");
    for value in kind.values() {
        writeln!(text, "  {} = {}", value.name(), value.number()).expect("a string takes all");
    }
}

#[test]
fn the_contract_is_the_one_that_was_agreed() {
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
        std::fs::write(&snapshot, &text).expect("a snapshot is written");
    }
    let agreed = std::fs::read_to_string(&snapshot).unwrap_or_default();
    for (line, (now, then)) in text.lines().zip(agreed.lines()).enumerate() {
        assert_eq!(now, then, "line {} of tests/contract.snapshot.txt", line + 1);
    }
    assert_eq!(text.lines().count(), agreed.lines().count(), "lines of tests/contract.snapshot.txt");
}
