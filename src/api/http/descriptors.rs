//! The methods and messages of the contract, read from the descriptor set. New RPCs need no change here.

use std::collections::HashMap;

use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, MessageDescriptor};

use crate::proto::json;

pub struct Contract {
    methods: HashMap<String, Method>,
    error_details: DescriptorPool,
}

#[derive(Clone)]
pub struct Method {
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    pub client_streaming: bool,
    pub server_streaming: bool,
}

impl Contract {
    /// # Errors
    /// The embedded descriptors cannot be decoded.
    pub fn new() -> Result<Self, DescriptorError> {
        let mut methods = HashMap::new();
        for descriptors in [crate::proto::DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET] {
            for service in DescriptorPool::decode(descriptors)?.services() {
                for descriptor in service.methods() {
                    let path = format!("/{}/{}", service.full_name(), descriptor.name());
                    let method = Method {
                        input: descriptor.input(),
                        output: descriptor.output(),
                        client_streaming: descriptor.is_client_streaming(),
                        server_streaming: descriptor.is_server_streaming(),
                    };
                    methods.insert(path, method);
                }
            }
        }
        let error_details = DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
        Ok(Self { methods, error_details })
    }

    /// Finds the method at a path such as `/lineshaft.v1.TaskService/SubmitTask`.
    pub fn method(&self, path: &str) -> Option<&Method> {
        self.methods.get(path)
    }

    /// Returns an error detail as JSON; `None` if its type is unknown.
    pub fn detail(&self, type_name: &str, value: &[u8]) -> Option<Vec<u8>> {
        let descriptor = self.error_details.get_message_by_name(type_name)?;
        json::encode(&DynamicMessage::decode(descriptor, value).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_path() {
        let contract = Contract::new().unwrap();
        let watch = contract.method("/lineshaft.v1.TaskService/WatchTasks").unwrap();
        assert!(watch.server_streaming && !watch.client_streaming);
        assert!(contract.method("/lineshaft.v1.TaskService/SubmitTasks").unwrap().client_streaming);
        assert!(contract.method("/grpc.health.v1.Health/Check").is_some());
        assert!(contract.method("/lineshaft.v1.TaskService/Nothing").is_none());
        assert!(contract.methods.len() > 20);
    }
}
